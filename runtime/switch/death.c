/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A replica has died (promises P5 and P6): called when the kernel has reported its exit, never before.
 *
 * What it committed is taken back as ever. What it had begun is undone by its journal, its locks are broken, its slabs
 * let go. Its shards get new owners among the survivors, who are told by one marker each; then the packets that it had
 * not committed go to them, in order, and behind those what moves under way had held. Where nobody survives the shards
 * are orphaned: their packets are held until a replica comes.
 */

#include <assert.h>
#include <stdlib.h>

#include "arena/builds.h"
#include "state/journal.h"
#include "switch/bind.h"
#include "switch/switch.h"

/*
 * To whoever comes next: only replicas can carry it out. Which note goes in which place is kept until the next one
 * does: a switch that comes after one that died here puts the same note in the same place, not in another one.
 */
static void queue_note(void *arg, const struct journal_note *note)
{
    struct note_queue *queue = &((struct arena *)arg)->notes;

    if (queue->from != (uintptr_t)note) {
        uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
        if (tail - atomic_load_explicit(&queue->head, memory_order_acquire) >= ARENA_NOTES) {
            queue->refused++;
            return;
        }
        queue->place = tail;
        STEP();
        atomic_signal_fence(memory_order_seq_cst);
        queue->from = (uintptr_t)note;
    }
    STEP();
    queue->notes[queue->place % ARENA_NOTES] = *note;
    STEP();
    atomic_store_explicit(&queue->tail, queue->place + 1, memory_order_release);
    STEP();
}

/* Whether the note that was put in the queue last is one of a slot's journal. */
static bool note_is_of(const struct arena *arena, unsigned slot)
{
    const struct journal_region *region = channel_journal(arena_channel(arena, 0, slot));

    return arena->notes.from - (uintptr_t)region < CHANNEL_JOURNAL_BYTES;
}

/* Locks of a replica that is dead. */
static void unlock_all(struct arena *arena, unsigned slot)
{
    for (uint32_t stripe = SM_SHARDS; stripe < SM_SHARDS + STATE_STRIPES; stripe++)
        if (state_lock_holder(arena->state, stripe) == (int)slot) {
            atomic_store_explicit(&arena->settling, 0, memory_order_relaxed); /* it may have been its checkpoint */
            state_unlock(arena->state, stripe);
            STEP();
        }
    for (unsigned i = 0; i < arena->registration.shared_count; i++)
        if (atomic_load_explicit(&arena->strong[i].holder, memory_order_acquire) == slot + 1) {
            atomic_store_explicit(&arena->strong[i].holder, 0, memory_order_release);
            STEP();
        }
    if (atomic_load_explicit(&arena->notes.holder, memory_order_acquire) == slot + 1) {
        atomic_store_explicit(&arena->notes.holder, 0, memory_order_release);
        STEP();
    }
}

/*
 * Undo what was begun, and give back what was held. May be done once more, also after a switch that died in it.
 * SM_E_DAMAGED: the journal is destroyed.
 */
int switch_put_right(struct sm_switch *sw, unsigned slot)
{
    struct arena *arena = sw->arena;
    struct channel *channel = arena_channel(arena, 0, slot);

    channel_lay_out(channel, sw->buffers, sw->bindings_max); /* whoever died may have written on it before */
    uint64_t commit = atomic_load_explicit(&channel->commit, memory_order_acquire);
    const struct coherent_writer writer = arena_writer(arena, slot);
    const struct registration *registered = &arena->registration;

    STEP();
    coherent_settle(&writer, registered->shared, registered->shared_count);
    STEP();
    int result = journal_recover(arena->state, channel_journal(channel), CHANNEL_JOURNAL_BYTES, commit, arena,
                                 (const uint8_t *)arena + arena->bytes, queue_note, arena);
    STEP();
    if (note_is_of(arena, slot))
        arena->notes.from = 0; /* the journal is empty: it will not be met again */
    coherent_settled(&writer, registered->shared, registered->shared_count);
    STEP();
    unlock_all(arena, slot);
    arena_forget_noted(arena, slot); /* it is committed, or queued */
    STEP();
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        if (atomic_load_explicit(&arena->writer[shard], memory_order_relaxed) == slot + 1)
            atomic_store_explicit(&arena->writer[shard], 0, memory_order_relaxed);
    STEP();
    state_actor_abandon(arena->state, slot);
    STEP();
    return result < 0 ? result : 0;
}

unsigned switch_note_slot(const struct arena *arena)
{
    unsigned slot = 0;

    while (slot < ARENA_SLOTS && !note_is_of(arena, slot))
        slot++;
    return slot;
}

static bool is_dying(const struct sm_switch *sw, unsigned slot)
{
    return sw->dying >> slot & 1;
}

/*
 * Who can take over from a slot's replica. While the service is upgraded, replicas of the build that it runs by rights:
 * the new one may have died of something that all of its replicas die of.
 */
static unsigned survivors_of(const struct sm_switch *sw, unsigned slot, unsigned *survivors)
{
    unsigned count = 0;

    for (unsigned base = 2; count == 0 && base-- > 0;)
        for (unsigned i = 0; i < ARENA_SLOTS; i++)
            if (sw->slots[i].state == SLOT_READY && !sw->slots[i].condemned && !is_dying(sw, i) &&
                builds_is_base(sw->arena, i) == (base == 1) && builds_inherits(sw->arena, i, slot))
                survivors[count++] = i;
    return count;
}

/* Give a shard to its heir, who will be told by IN_INHERIT. */
static void bequeath(struct sm_switch *sw, uint32_t number)
{
    struct switch_shard *shard = &sw->shards[number];

    shard->owner = shard->move.to;
    sw->slots[shard->owner].shards++;
    sw->epoch++;
    STEP();
    atomic_store_explicit(&sw->arena->heir[number], arena_heir(sw->inheritance, shard->owner), memory_order_release);
}

static void move_is_over(struct sm_switch *sw, uint32_t number)
{
    uint32_t flows = state_shard_flows(sw->arena->state, number);

    sw->moves_in_flight--;
    sw->moves_completed++;
    sw->flows_moved += flows;
    sw->operation.in_flight--;
    sw->operation.completed++;
    sw->operation.flows += flows;
}

/* A move goes elsewhere, or nowhere: what is held for it is late there, or for nobody. */
static void redirect(struct sm_switch *sw, struct switch_shard *shard, unsigned heir)
{
    for (uint32_t buffer = shard->hold_head; buffer != POOL_NONE; buffer = sw->packets[buffer].next) {
        if (!sw->packets[buffer].late)
            continue;
        if (heir == MOVE_NOBODY)
            switch_late_back(sw, shard->move.to, buffer);
        else
            switch_late_change(sw, shard->move.to, heir, buffer);
        sw->packets[buffer].late = heir != MOVE_NOBODY;
    }
    shard->move.to = (uint8_t)heir;
}

/* A shard that was on its way, and the last of what was held for it. */
struct interrupted {
    uint32_t number, last;
};

/*
 * New owners for the dead one's shards, in blocks, so that each survivor gets about as many. Returns the number of
 * shards, put in `interrupted`, whose holds are to follow the packets of the ring.
 */
static unsigned pass_on(struct sm_switch *sw, unsigned slot, struct interrupted *interrupted)
{
    unsigned survivors[ARENA_SLOTS], interruptions = 0;
    unsigned count = survivors_of(sw, slot, survivors);
    uint64_t heirs = 0; /* also where moves were under way to */

    /* A number of its own: an heir that dawdles must not take what a later death gives it before the ticks in between.
     */
    sw->inheritance++;
    uint32_t share = count ? sw->slots[slot].shards / count + 1 : 1, given = 0;

    for (uint32_t number = 0; number < SM_SHARDS; number++) {
        struct switch_shard *shard = &sw->shards[number];
        if (shard->owner != slot) {
            if (move_under_way(&shard->move) && shard->move.to == slot)
                switch_move_abandon(sw, number, "the replica that it was to go to has died");
            continue;
        }
        unsigned heir = count ? survivors[given++ / share] : MOVE_NOBODY;
        bool moving = move_under_way(&shard->move);
        if (moving && (is_dying(sw, shard->move.to) || !builds_inherits(sw->arena, shard->move.to, slot)))
            redirect(sw, shard, heir); /* or of an older build: it was to be brought back first */
        unsigned actions = move_step(&shard->move, MOVE_OWNER_DIED, slot, heir, 0);
        assert(!(actions & MOVE_DO_REFUSE));
        sw->slots[slot].shards--;
        if (moving)
            move_is_over(sw, number);
        if (actions & MOVE_DO_DISCARD)
            switch_lane_discard(sw, shard->move.lane);
        if (actions & MOVE_DO_OWN) {
            bequeath(sw, number);
            heirs |= 1ull << shard->owner;
        } else {
            shard->owner = SWITCH_NONE;
            shard->build = builds_number(sw->arena, slot);
            sw->orphans++;
        }
        if (moving)
            interrupted[interruptions++] = (struct interrupted){number, shard->hold_tail};
    }
    for (; heirs; heirs &= heirs - 1)
        switch_push(sw, (unsigned)__builtin_ctzll(heirs), IN_INHERIT, sw->inheritance, 0, sw->clock);
    return interruptions;
}

/* What was held for a move that has ended, behind what the dead one had of the shard: that came first. */
static void put_behind(struct sm_switch *sw, const struct interrupted *interrupted)
{
    struct switch_shard *shard = &sw->shards[interrupted->number];
    const uint32_t last = interrupted->last;

    if (shard->owner != SWITCH_NONE) {
        switch_flush_hold(sw, shard, shard->owner);
    } else if (last != POOL_NONE && last != shard->hold_tail) { /* for nobody: all of it is held */
        const uint32_t first = sw->packets[last].next;
        sw->packets[shard->hold_tail].next = shard->hold_head;
        sw->packets[last].next = POOL_NONE;
        shard->hold_head = first;
        shard->hold_tail = last;
    }
}

/* A packet that the dead one had, to whoever owns its shard now. */
static void hand_over(struct sm_switch *sw, unsigned slot, uint32_t buffer, bool culprit)
{
    struct switch_packet *packet = &sw->packets[buffer];

    sw->slots[slot].in_flight--;
    if (sw->affinity && packet->flow != AFFINITY_NONE)
        affinity_back(sw->affinity, packet->flow);
    if (packet->late)
        switch_late_back(sw, slot, buffer);
    packet->late = false;
    packet->deaths = culprit ? packet->deaths + 1 : 0;
    if (packet->deaths >= SWITCH_POISON_DEATHS) {
        switch_reserve_free(sw, buffer, 0);
        switch_keep_poison(sw, buffer);
        switch_drop(sw, buffer, DROP_POISON);
        return;
    }
    STEP();
    sw->taken_over++;
    switch_steer(sw, buffer);
    STEP();
    if (packet->place == PLACE_RING) {
        /* It comes behind later packets of its new owner. */
        packet->late = true;
        switch_late_enter(sw, packet->slot, buffer);
    }
}

/* The packet that it was processing, or POOL_NONE. */
static uint32_t in_hand(const struct switch_slot *s)
{
    uint32_t consumed = commit_consumed(atomic_load_explicit(&s->channel->commit, memory_order_acquire));
    uint32_t at = atomic_load_explicit(&s->channel->at, memory_order_relaxed);
    const struct in_entry *entry = &s->in[at & s->ring_mask];

    return at - consumed < s->in_head - consumed && entry->kind == IN_PACKET ? entry->buffer : POOL_NONE;
}

/* Of several that die together those are that were to be killed, where there are any: the others died with them. */
static bool is_suspect(const struct sm_switch *sw, unsigned slot)
{
    bool condemned = false;

    for (uint64_t left = sw->dying; left; left &= left - 1)
        condemned |= sw->slots[__builtin_ctzll(left)].condemned != NULL;
    return !condemned || sw->slots[slot].condemned;
}

static int by_sequence(const void *a, const void *b)
{
    const struct switch_unanswered *x = a, *y = b;

    return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* The packets that it had not given back, in the order in which they came. By our own account: it could write in its
 * ring. */
static void requeue(struct sm_switch *sw, unsigned slot)
{
    struct switch_slot *s = &sw->slots[slot];
    uint32_t culprit = is_suspect(sw, slot) ? in_hand(s) : POOL_NONE, count = 0;
    struct switch_unanswered *list = sw->unanswered;

    s->published = s->in_head;
    for (uint32_t i = 0; i < sw->buffers && count < s->in_flight; i++)
        if (sw->packets[i].place == PLACE_RING && sw->packets[i].slot == slot)
            list[count++] = (struct switch_unanswered){sw->packets[i].sequence, i};
    qsort(list, count, sizeof *list, by_sequence);
    for (uint32_t i = 0; i < count; i++)
        hand_over(sw, slot, list[i].buffer, list[i].buffer == culprit);
}

void switch_slot_died(struct sm_switch *sw, unsigned slot)
{
    struct switch_slot *s = &sw->slots[slot];
    struct interrupted interrupted[SWITCH_MOVES_WAITING];
    bool had_state = s->state == SLOT_READY || s->state == SLOT_RETIRING;

    if (had_state)
        switch_take_back(sw, slot);
    STEP();
    sw->deaths += s->state == SLOT_READY;
    s->state = SLOT_GONE;
    s->wake_fd = -1;
    s->ticking = false;
    sw->operation.given &= ~(1ull << slot); /* nor does whoever gets the slot have to take anything up */
    sw->final_tick = false;                 /* its heirs may have answered theirs already */
    atomic_fetch_and_explicit(&sw->arena->ready_slots, ~(1ull << slot), memory_order_release);
    STEP();
    if (!had_state) {
        state_actor_abandon(sw->arena->state, slot); /* it may have attached, and not registered */
        return;
    }
    switch_frame_restore(sw); /* whoever died may have written on it before */
    if (switch_put_right(sw, slot) != 0)
        switch_fail(sw, "replica %s destroyed its journal before it died: its last burst cannot be undone", s->name);
    if (s->distrusted && sw->bindings)
        switch_bind_learn(sw); /* what it committed last was not taken back */
    switch_lanes_forsaken(sw, slot);
    if (sw->affinity)
        affinity_forsake(sw->affinity, slot);
    STEP();
    const unsigned interruptions = pass_on(sw, slot, interrupted);
    STEP();
    requeue(sw, slot);
    STEP();
    for (unsigned i = 0; i < interruptions; i++)
        put_behind(sw, &interrupted[i]);
    if (sw->query.active && sw->query.slot == slot) {
        *(struct query_header *)(void *)s->query = (struct query_header){.next_shard = SM_SHARDS};
        sw->query.active = false;
        switch_notify(sw, NOTICE_QUERIED);
    }
    switch_snapshot_forsaken(sw, slot);
    switch_restore_forsaken(sw, slot);
}

/*
 * Several at once: all replicas of a process die together. None of them is an heir of another, which would not only be
 * in vain: a packet that kills would be given to one that is dead already, and have killed nobody when that is met.
 */
void switch_slots_died(struct sm_switch *sw, uint64_t slots)
{
    sw->dying = slots;
    for (uint64_t left = slots; left; left &= left - 1)
        switch_slot_died(sw, (unsigned)__builtin_ctzll(left));
    sw->dying = 0;
}

/* A replica has come where there was none that could have taken over. */
void switch_adopt_orphans(struct sm_switch *sw, unsigned slot)
{
    if (sw->orphans == 0)
        return;
    sw->inheritance++;
    for (uint32_t number = 0; number < SM_SHARDS; number++) {
        struct switch_shard *shard = &sw->shards[number];
        if (shard->owner != SWITCH_NONE || !builds_reads(sw->arena, slot, shard->build) ||
            (move_step(&shard->move, MOVE_ADOPTED, 0, slot, 0) & MOVE_DO_REFUSE))
            continue;
        bequeath(sw, number);
        sw->orphans--;
    }
    STEP();
    switch_push(sw, slot, IN_INHERIT, sw->inheritance, 0, sw->clock);
    for (uint32_t number = 0; number < SM_SHARDS; number++)
        if (sw->shards[number].owner == slot && sw->shards[number].hold_head != POOL_NONE)
            switch_flush_hold(sw, &sw->shards[number], slot);
}
