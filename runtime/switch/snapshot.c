/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The flows of all shards, for a checkpoint, while packets go on.
 *
 * Overview.  Owners are asked in-band, one after the other: each encodes the shards that it owns when it meets the
 * marker and that are not covered yet (arena/snapshot.h). What nobody owns the switch encodes itself, if fields say
 * how. Shards that are between owners, or whose owner dies, are found again in a later pass; a shard that was given
 * twice is taken once. The stripes come last.
 *
 * Life-cycle.  active from start to end. A slot's parts: asked -> answered -> taken; two may be under way. It is left
 * when its last part has been taken, or its replica is dead.
 *
 * Concurrency.  The switch's thread; whoever reads a part may be another.
 */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/builds.h"
#include "arena/snapshot.h"
#include "switch/switch.h"

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
    struct switch_snapshot *s = &sw->snapshot;
    uint32_t request = ++s->ticket << SNAPSHOT_TICKET_SHIFT | s->asked % SNAPSHOT_PARTS;

    if (s->asked == 0)
        request |= SNAPSHOT_BEGIN;
    if (s->stripes)
        request |= SNAPSHOT_STRIPES;
    switch_push(sw, s->slot, IN_SNAPSHOT, request, 0, sw->clock);
    s->asked++;
}

/* The slot that stands for the switch itself: for shards that nobody owns, and stripes when nobody is there. */
#define OWN ARENA_SLOTS

static void turn_to(struct sm_switch *sw, unsigned slot)
{
    struct switch_snapshot *s = &sw->snapshot;

    s->slot = (uint8_t)slot;
    s->asked = s->answered = s->taken = 0;
    s->last = s->forsaken = false;
    if (slot == OWN)
        snapshot_begin(&s->writer, s->stripes ? SM_SHARDS : 0);
}

static void fill_own(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;
    const struct snapshot_scope scope = {
        .owned = s->nobodys,
        .covered = sw->arena->snapshot_covered,
        .end = s->stripes ? SM_SHARDS + STATE_STRIPES : SM_SHARDS,
        .slot = ARENA_SLOTS,
    };

    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        s->nobodys[shard] = sw->shards[shard].owner == SWITCH_NONE;
    snapshot_fill(&s->writer, &s->codec, &scope, s->area);
    s->asked++;
    s->answered++;
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

/* Somebody who has a shard that is not covered; SWITCH_NONE: not now. *through: all are covered. */
static unsigned find_shards(const struct sm_switch *sw, bool *through)
{
    *through = true;
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        if (is_covered(&sw->snapshot, shard))
            continue;
        *through = false;
        unsigned owner = sw->shards[shard].owner;
        if (owner == SWITCH_NONE && fields_only(sw))
            return OWN;
        if (owner != SWITCH_NONE && sw->shards[shard].move.state == MOVE_STEADY && can_answer(sw, owner))
            return owner;
    }
    return SWITCH_NONE;
}

static unsigned find_stripes(const struct sm_switch *sw)
{
    for (unsigned slot = 0; slot < sw->slot_count; slot++)
        if (can_answer(sw, slot))
            return slot;
    return fields_only(sw) ? OWN : SWITCH_NONE;
}

/* Nobody is asked: turn to the next. False: there is nobody now. */
static bool turn(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;
    bool through;
    unsigned slot = find_shards(sw, &through);

    if (through) {
        s->stripes = true;
        slot = find_stripes(sw);
    }
    if (slot == SWITCH_NONE)
        return false;
    turn_to(sw, slot);
    return true;
}

/* Ask the slot for more, as far as there is room. */
static void go_on(struct sm_switch *sw)
{
    struct switch_snapshot *s = &sw->snapshot;

    if (s->slot == OWN) {
        if (!s->last && s->asked == s->taken)
            fill_own(sw);
        return;
    }
    while (!s->last && !s->forsaken && s->asked - s->taken < SNAPSHOT_PARTS && can_answer(sw, s->slot) &&
           switch_room_for_markers(sw, s->slot))
        ask(sw);
}

enum switch_snapshot_step switch_snapshot_next(struct sm_switch *sw, const uint8_t **part)
{
    struct switch_snapshot *s = &sw->snapshot;

    for (;;) {
        if (s->slot == SWITCH_NONE && (s->done || !turn(sw)))
            return s->done ? SNAPSHOT_DONE : SNAPSHOT_WAIT;
        go_on(sw);
        if (s->answered != s->taken) {
            *part = s->slot == OWN ? s->area
                                   : channel_snapshot(sw->slots[s->slot].channel) +
                                         s->taken % SNAPSHOT_PARTS * SNAPSHOT_PART_BYTES;
            return SNAPSHOT_PART;
        }
        if (!s->forsaken && (s->asked != s->taken || !s->last))
            return SNAPSHOT_WAIT;
        s->done = s->last && s->stripes;
        s->slot = SWITCH_NONE;
    }
}

void switch_snapshot_taken(struct sm_switch *sw, bool last, const uint64_t *covered)
{
    struct switch_snapshot *s = &sw->snapshot;

    assert(s->answered != s->taken);
    s->taken++;
    s->last |= last;
    memcpy(s->covered, covered, sizeof s->covered);
    for (unsigned i = 0; i < SM_SHARDS / 64; i++)
        atomic_store_explicit(&sw->arena->snapshot_covered[i], covered[i], memory_order_relaxed);
}

/* False: it was not asked for. Answers may be to a snapshot that was given up. */
bool switch_snapshot_answered(struct sm_switch *sw, unsigned slot, uint32_t request)
{
    struct switch_snapshot *s = &sw->snapshot;
    uint32_t expected = s->ticket - (s->asked - s->answered) + 1;

    if (!s->active || slot != s->slot || s->answered == s->asked ||
        (request ^ expected << SNAPSHOT_TICKET_SHIFT) >> SNAPSHOT_TICKET_SHIFT != 0)
        return s->ticket != 0;
    s->answered++;
    switch_notify(sw, NOTICE_SNAPSHOT);
    return true;
}

void switch_snapshot_forsaken(struct sm_switch *sw, unsigned slot)
{
    if (!sw->snapshot.active || sw->snapshot.slot != slot)
        return;
    sw->snapshot.forsaken = true;
    switch_notify(sw, NOTICE_SNAPSHOT);
}
