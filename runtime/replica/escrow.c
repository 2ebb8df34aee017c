/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What replicas that died had done to flows of shared classes, and not committed: their notes say how it is undone
 * (journal.h), and the first replica that has something to do carries them out.
 *
 * Concurrency.  One replica at a time has the queue; each note is carried out under the lock of its flow's stripe, in
 * one section with the queue's head: so if this replica dies as well, it was done once or not at all.
 */

#include <string.h>

#include "replica/replica.h"

/* It was written by a replica that has died: nothing in it is taken for granted. */
static bool is_sound(const struct sm_replica *replica, const struct journal_note *note)
{
    if (note->cls >= replica->class_count || replica->classes[note->cls].partitioned)
        return false;
    uint32_t size = replica->classes[note->cls].record_size;
    if (note->kind == NOTE_ADD)
        return note->offset <= size && size - note->offset >= sizeof note->amount;
    return note->kind == NOTE_OWN && note->bytes <= SM_MAX_NOTE && replica->classes[note->cls].on_undo;
}

static void undo(struct sm_replica *replica, const struct journal_note *note, struct flow *flow)
{
    uint8_t *record = flow_record(flow);
    sm_class cls = {note->cls};
    uint64_t number;

    journal_image(&replica->journal, record, replica->classes[note->cls].record_size);
    if (note->kind == NOTE_OWN) {
        replica->classes[note->cls].on_undo(replica, cls, (sm_flow){record}, note->data, note->bytes,
                                            replica->classes[note->cls].user);
        return;
    }
    memcpy(&number, record + note->offset, sizeof number);
    number -= note->amount;
    memcpy(record + note->offset, &number, sizeof number);
}

/* The note at the head. Its flow may have ended. */
static void carry_out(struct sm_replica *replica, struct note_queue *queue, uint32_t head)
{
    const struct journal_note note = queue->notes[head % ARENA_NOTES];
    uint64_t hash = state_hash(replica->state, &note.key);
    uint32_t stripe = state_stripe_of(hash);

    state_lock(replica->state, stripe, replica->slot);
    STEP();
    journal_section_begin(&replica->journal, false);
    struct flow *flow = is_sound(replica, &note) ? state_find(replica->state, stripe, note.cls, &note.key, hash) : NULL;
    if (flow)
        undo(replica, &note, flow);
    STEP();
    journal_image(&replica->journal, &queue->head, sizeof queue->head);
    atomic_store_explicit(&queue->head, head + 1, memory_order_release);
    STEP();
    journal_section_end(&replica->journal);
    STEP();
    state_unlock(replica->state, stripe);
}

void replica_undo_notes(struct sm_replica *replica)
{
    struct note_queue *queue = &replica->arena->notes;
    uint32_t nobody = 0, head;

    if (!atomic_compare_exchange_strong_explicit(&queue->holder, &nobody, replica->slot + 1, memory_order_acquire,
                                                 memory_order_relaxed))
        return;
    while ((head = atomic_load_explicit(&queue->head, memory_order_relaxed)) !=
           atomic_load_explicit(&queue->tail, memory_order_acquire))
        carry_out(replica, queue, head);
    atomic_store_explicit(&queue->holder, 0, memory_order_release);
}
