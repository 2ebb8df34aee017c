/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The flows of all shards, for a checkpoint, while packets go on.
 *
 * Overview.  Owners are asked in-band, one after the other: each encodes the shards that it owns, between its bursts,
 * and that are not covered yet (arena/snapshot.h). What nobody owns the switch encodes itself, if fields say how.
 * Shards that are between owners, or whose owner dies, are found again in a later pass; a shard that was given twice is
 * taken once. The stripes come next; then every replica is asked for what it has contributed to eventual objects.
 *
 * Life-cycle.  active from start to end. A part: asked -> offered, when it is answered -> taken; two may be under way.
 * A slot is left when its last part has been taken, or its replica is dead.
 *
 * Concurrency.  The switch's thread; another one takes the parts. These two never wait for one another, and never call
 * the kernel for it: each looks at what the other has counted, the switch once a turn.
 */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/builds.h"
#include "arena/snapshot.h"
#include "switch/switch.h"

#define LOOK 2048u /* shards looked at in a turn */

int switch_snapshot_start(struct sm_switch *sw, struct sm_errbuf *error)
{
    struct switch_snapshot *s = &sw->snapshot;

    if (s->active) {
        snprintf(error->text, sizeof error->text, "another checkpoint is under way");
        return SM_E_STATE;
    }
    *s = (struct switch_snapshot){.slot = SWITCH_NONE, .ticket = s->ticket};
    codec_init_base(&s->codec, sw->arena);
    int result = codec_complete(&s->codec, error);
    if (result)
        return result;
    s->area = malloc(SNAPSHOT_PART_BYTES);
    if (!s->area) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return SM_E_NO_MEMORY;
    }
    for (unsigned i = 0; i < SM_SHARDS / 64; i++)
        atomic_store_explicit(&sw->arena->snapshot_covered[i], 0, memory_order_relaxed);
    s->active = true;
    return 0;
}

void switch_snapshot_end(struct sm_switch *sw)
{
    snapshot_end(&sw->snapshot.writer);
    free(sw->snapshot.area);
    sw->snapshot.area = NULL;
    sw->snapshot.active = false;
}

static bool is_covered(const struct switch_snapshot *s, uint32_t shard)
{
    return s->covered[shard / 64] >> shard % 64 & 1;
}

static bool can_answer(const struct sm_switch *sw, unsigned slot)
{
    return sw->slots[slot].state == SLOT_READY && !sw->slots[slot].condemned;
}

static void ask(struct sm_switch *sw)
{
    static const uint32_t flags[] = {
        [SNAPSHOT_OF_STRIPES] = SNAPSHOT_STRIPES,
        [SNAPSHOT_OF_ROWS] = SNAPSHOT_ROW,
    };
    struct switch_snapshot *s = &sw->snapshot;
    uint32_t request = ++s->ticket << SNAPSHOT_TICKET_SHIFT | s->asked % SNAPSHOT_PARTS | flags[s->phase];

    if (s->begins)
        request |= SNAPSHOT_BEGIN;
    s->begins = false;
    switch_push(sw, s->slot, IN_SNAPSHOT, request, 0, sw->clock);
    STEP();
    sw->slots[s->slot].snapshots++;
    s->asked++;
}

static void offer(struct switch_snapshot *s, const uint8_t *part)
{
    uint32_t number = atomic_load_explicit(&s->offered, memory_order_relaxed);

    s->parts[number % SNAPSHOT_PARTS] = part;
    STEP();
    atomic_store_explicit(&s->offered, number + 1, memory_order_release);
}

/* The slot that stands for the switch itself: for shards that nobody owns, stripes when nobody is there, and the
 * contributions of those who are gone. */
#define OWN ARENA_SLOTS

static void turn_to(struct sm_switch *sw, unsigned slot)
{
    struct switch_snapshot *s = &sw->snapshot;

    s->slot = (uint8_t)slot;
    s->asked = atomic_load_explicit(&s->offered, memory_order_relaxed); /* others are forsaken */
    s->begins = true;
    s->forsaken = false;
    atomic_store_explicit(&s->last, false, memory_order_relaxed);
    if (slot == OWN)
        snapshot_begin(&s->writer, s->phase == SNAPSHOT_OF_STRIPES ? SM_SHARDS : 0);
}

/* A whole part in one turn: packets of these shards wait for an owner anyway. */
static void fill_own(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;
    const struct snapshot_scope scope = {
        .owned = s->nobodys,
        .covered = sw->arena->snapshot_covered,
        .end = s->phase == SNAPSHOT_OF_STRIPES ? SM_SHARDS + STATE_STRIPES : SM_SHARDS,
        .slot = ARENA_SLOTS,
    };
    bool whole = false;

    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        s->nobodys[shard] = sw->shards[shard].owner == SWITCH_NONE;
    snapshot_begin_part(s->area);
    while (!whole)
        whole = s->phase == SNAPSHOT_OF_ROWS ? snapshot_fill_row(&s->writer, sw->arena, s->look, s->area)
                                             : snapshot_fill(&s->writer, &s->codec, &scope, s->area);
    s->asked++;
    offer(s, s->area);
}

/* Whether the switch knows how to encode all classes: those with callbacks wait for a replica. */
static bool fields_only(const struct sm_switch *sw)
{
    const struct state_class *cls;

    for (unsigned i = 0; (cls = builds_class(sw->arena, i)) != NULL; i++)
        if (cls->copy != CLASS_BY_FIELDS)
            return false;
    return true;
}

static void next_phase(struct switch_snapshot *s, enum snapshot_phase phase)
{
    s->phase = phase;
    s->look = 0;
    s->missing = false;
}

/* Who has a shard that is not covered: some of them are looked at. SWITCH_NONE: nobody so far. */
static unsigned find_shards(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;

    for (unsigned n = 0; n < LOOK && s->look < SM_SHARDS; n++, s->look++) {
        const struct switch_shard *shard = &sw->shards[s->look];
        if (is_covered(s, s->look))
            continue;
        s->missing = true;
        if (shard->owner == SWITCH_NONE && fields_only(sw))
            return OWN;
        if (shard->owner != SWITCH_NONE && shard->move.state == MOVE_STEADY && can_answer(sw, shard->owner))
            return shard->owner;
    }
    if (s->look == SM_SHARDS)
        next_phase(s, s->missing ? SNAPSHOT_OF_SHARDS : SNAPSHOT_OF_STRIPES);
    return SWITCH_NONE;
}

static unsigned find_stripes(const struct sm_switch *sw)
{
    for (unsigned slot = 0; slot < sw->slot_count; slot++)
        if (can_answer(sw, slot))
            return slot;
    for (unsigned slot = 0; slot < sw->slot_count; slot++)
        if (sw->slots[slot].state == SLOT_READY || sw->slots[slot].state == SLOT_RETIRING)
            return SWITCH_NONE; /* it may be in a burst still */
    const struct note_queue *notes = &sw->arena->notes;
    bool undone = atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)&notes->tail, memory_order_relaxed) ==
                  atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)&notes->head, memory_order_relaxed);
    return undone && fields_only(sw) ? OWN : SWITCH_NONE; /* only replicas can undo what is noted */
}

/* Who can say what is in the next row. One that is about to be killed may be in a burst still. */
static unsigned find_row(const struct sm_switch *sw)
{
    const unsigned slot = sw->snapshot.look;

    if (can_answer(sw, slot))
        return slot;
    return sw->slots[slot].state == SLOT_READY ? SWITCH_NONE : OWN;
}

/* Nobody is asked: turn to the next. False: there is nobody now. */
static bool turn(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;
    unsigned slot;

    if (s->phase == SNAPSHOT_OF_SHARDS) {
        slot = find_shards(sw);
        if (slot == SWITCH_NONE)
            return s->look > 0 || s->phase == SNAPSHOT_OF_STRIPES;
        next_phase(s, SNAPSHOT_OF_SHARDS); /* when it is through, all are looked at again */
    } else {
        slot = s->phase == SNAPSHOT_OF_STRIPES ? find_stripes(sw) : find_row(sw);
    }
    if (slot == SWITCH_NONE)
        return false;
    turn_to(sw, slot);
    return true;
}

/* The slot is through, or dead. */
static void leave(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;
    bool last = atomic_load_explicit(&s->last, memory_order_relaxed);

    STEP();
    s->slot = SWITCH_NONE;
    if (last && s->phase == SNAPSHOT_OF_STRIPES)
        next_phase(s, SNAPSHOT_OF_ROWS);
    else if (last && s->phase == SNAPSHOT_OF_ROWS)
        s->look++;
    if (s->phase == SNAPSHOT_OF_ROWS && s->look >= arena_rows(sw->arena))
        atomic_store_explicit(&s->done, true, memory_order_release);
}

/* Ask the slot for more, as far as there is room. */
static void go_on(struct sm_switch *sw, uint32_t taken)
{
    struct switch_snapshot *s = &sw->snapshot;

    if (atomic_load_explicit(&s->last, memory_order_relaxed))
        return;
    if (s->slot == OWN) {
        if (s->asked == taken)
            fill_own(sw);
        return;
    }
    while (!s->forsaken && s->asked - taken < SNAPSHOT_PARTS && can_answer(sw, s->slot) &&
           sw->slots[s->slot].snapshots < SNAPSHOT_PARTS && switch_room_for_markers(sw, s->slot))
        ask(sw);
}

unsigned switch_snapshot_poll(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;
    uint32_t taken = atomic_load_explicit(&s->taken, memory_order_acquire), asked = s->asked;

    if (!s->active || atomic_load_explicit(&s->done, memory_order_relaxed))
        return 0;
    if (s->slot == SWITCH_NONE && !turn(sw))
        return 0;
    if (s->slot == SWITCH_NONE)
        return 1;
    go_on(sw, taken);
    if (taken == atomic_load_explicit(&s->offered, memory_order_relaxed) &&
        (s->forsaken || (s->asked == taken && atomic_load_explicit(&s->last, memory_order_relaxed)))) {
        leave(sw);
        return 1;
    }
    return s->asked != asked;
}

/* False: it was not asked for. Answers may be to a snapshot that was given up. */
bool switch_snapshot_answered(struct sm_switch *sw, unsigned slot, uint32_t request)
{
    struct switch_snapshot *s = &sw->snapshot;
    const uint32_t offered = atomic_load_explicit(&s->offered, memory_order_relaxed);
    const uint32_t expected = s->ticket - (s->asked - offered) + 1;

    if (sw->slots[slot].snapshots == 0)
        return false;
    sw->slots[slot].snapshots--;
    if (s->active && slot == s->slot && offered != s->asked &&
        (request ^ expected << SNAPSHOT_TICKET_SHIFT) >> SNAPSHOT_TICKET_SHIFT == 0)
        offer(s, sw->slots[slot].snapshot + offered % SNAPSHOT_PARTS * SNAPSHOT_PART_BYTES);
    return true;
}

void switch_snapshot_forsaken(struct sm_switch *sw, unsigned slot)
{
    sw->slots[slot].snapshots = 0;
    if (sw->snapshot.active && sw->snapshot.slot == slot)
        sw->snapshot.forsaken = true;
}

/* ---- the thread that takes the parts ---- */

enum switch_snapshot_step switch_snapshot_next(struct sm_switch *sw, const uint8_t **part)
{
    struct switch_snapshot *s = &sw->snapshot;
    uint32_t taken = atomic_load_explicit(&s->taken, memory_order_relaxed);
    bool done = atomic_load_explicit(&s->done, memory_order_acquire);

    if (taken == atomic_load_explicit(&s->offered, memory_order_acquire))
        return done ? SNAPSHOT_DONE : SNAPSHOT_WAIT;
    *part = s->parts[taken % SNAPSHOT_PARTS];
    return SNAPSHOT_PART;
}

void switch_snapshot_taken(struct sm_switch *sw, bool last, const uint64_t *covered)
{
    struct switch_snapshot *s = &sw->snapshot;
    uint32_t taken = atomic_load_explicit(&s->taken, memory_order_relaxed);

    assert(taken != atomic_load_explicit(&s->offered, memory_order_relaxed));
    if (last)
        atomic_store_explicit(&s->last, true, memory_order_relaxed);
    memcpy(s->covered, covered, sizeof s->covered);
    for (unsigned i = 0; i < SM_SHARDS / 64; i++)
        atomic_store_explicit(&sw->arena->snapshot_covered[i], covered[i], memory_order_relaxed);
    atomic_store_explicit(&s->taken, taken + 1, memory_order_release);
}
