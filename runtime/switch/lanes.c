/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Lanes: a shard's state on its way from one replica to another (design D4, copying moves).
 *
 * Overview.  A move by copying takes a lane (arena/export.h) when it starts. Its old owner, once it has released the
 * shard, encodes a part of it; the new one decodes that into the lane's copy; so on until the shard's last flow. Then
 * the new owner is told to install the copy and to adopt the shard, and the packets follow. What was the shard is in
 * the lane's copy now, and is cleared, a piece at a time; only then the lane is free.
 *
 * Life-cycle of a lane; each step is a marker, and its answer is waited for whatever happens meanwhile:
 *
 *     FREE --take--> EXPORTING <--> IMPORTING --the last part--> INSTALLING --> CLEARING --the copy is empty--> FREE
 *     any --discard, or the answer will not come: its replica has died--> CLEARING
 *
 * The point of no return is the commit of the new owner's installation. Before it the shard is as the old owner left
 * it, and whoever is to have it may take it as it is: when the move is abandoned, and when one of the two dies. After
 * it the shard is the copy. Either way the shard is whole, and what the lane holds is only to be cleared.
 *
 * Concurrency.  The switch's thread.
 *
 * Limits.  EXPORT_LANES lanes; a move waits for one. A lane to be cleared waits until there is a replica.
 */

#include <assert.h>

#include "switch/switch.h"

static void ask(struct sm_switch *sw, unsigned number, unsigned slot, enum in_kind kind)
{
    struct switch_lane *lane = &sw->lanes[number];

    assert(lane->awaits == SWITCH_NONE);
    lane->awaits = (uint8_t)slot;
    lane->ticket = ++sw->lane_ticket;
    switch_push_lane(sw, slot, kind, lane->ticket, lane->shard, number);
}

int switch_lane_take(struct sm_switch *sw, uint32_t shard, unsigned from, unsigned to)
{
    if (sw->lanes_used == EXPORT_LANES)
        return -1;
    unsigned number = 0;
    while (sw->lanes[number].state != LANE_FREE)
        number++;
    sw->lanes_used++;
    STEP();
    sw->arena->exports[number].cursor = 0;
    STEP();
    sw->lanes[number] = (struct switch_lane){.state = LANE_EXPORTING,
                                             .awaits = SWITCH_NONE,
                                             .from = (uint8_t)from,
                                             .to = (uint8_t)to,
                                             .shard = (uint16_t)shard};
    return (int)number;
}

void switch_lane_export(struct sm_switch *sw, unsigned number)
{
    STEP();
    sw->lanes[number].state = LANE_EXPORTING;
    ask(sw, number, sw->lanes[number].from, IN_EXPORT);
}

void switch_lane_install(struct sm_switch *sw, unsigned number)
{
    STEP();
    sw->lanes[number].state = LANE_INSTALLING;
    ask(sw, number, sw->lanes[number].to, IN_INSTALL);
}

/* Whoever left the old copy has the least to do, and is most likely to have it in its cache; else anybody. */
static unsigned cleaner(const struct sm_switch *sw, const struct switch_lane *lane)
{
    for (unsigned i = 0; i <= sw->slot_count; i++) {
        unsigned slot = i == 0 ? lane->from : i - 1;
        if (sw->slots[slot].state == SLOT_READY && !sw->slots[slot].condemned && switch_room_for_markers(sw, slot))
            return slot;
    }
    return SWITCH_NONE;
}

static void clear(struct sm_switch *sw, unsigned number)
{
    struct switch_lane *lane = &sw->lanes[number];

    STEP();
    if (!lane->filled) {
        lane->state = LANE_FREE;
        sw->lanes_used--;
        return;
    }
    lane->state = LANE_CLEARING;
    unsigned slot = cleaner(sw, lane);
    if (slot != SWITCH_NONE)
        ask(sw, number, slot, IN_CLEAR);
}

void switch_lane_discard(struct sm_switch *sw, unsigned number)
{
    struct switch_lane *lane = &sw->lanes[number];

    STEP();
    lane->discarded = true;
    if (lane->awaits == SWITCH_NONE)
        clear(sw, number);
}

static void exported(struct sm_switch *sw, unsigned number, enum lane_status status)
{
    struct switch_lane *lane = &sw->lanes[number];

    if (status == LANE_BAD_RECORD || status == LANE_NO_ROOM) {
        switch_move_abandon(sw, lane->shard,
                            status == LANE_NO_ROOM ? "a flow is too large to be copied"
                                                   : "a flow could not be encoded");
        return;
    }
    STEP();
    lane->last = status == LANE_DONE;
    lane->filled = true;
    lane->state = LANE_IMPORTING;
    ask(sw, number, lane->to, IN_IMPORT);
}

static void imported(struct sm_switch *sw, unsigned number, enum lane_status status)
{
    struct switch_lane *lane = &sw->lanes[number];

    STEP();
    if (status != LANE_DONE)
        switch_move_abandon(sw, lane->shard,
                            status == LANE_NO_ROOM ? "no room for a copy within limits.memory"
                                                   : "a flow could not be decoded");
    else if (lane->last)
        switch_copied(sw, lane->shard);
    else
        switch_lane_export(sw, number);
}

/* Whether the lane's move still waits for it; a move that does not has discarded it. */
static bool is_wanted(const struct sm_switch *sw, unsigned number)
{
    const struct shard_move *move = &sw->shards[sw->lanes[number].shard].move;

    return move->state == MOVE_COPYING && move->lane == number;
}

/* False: it was not asked for. */
bool switch_lane_answered(struct sm_switch *sw, unsigned slot, const struct out_entry *entry)
{
    struct switch_lane *lane = entry->buffer < EXPORT_LANES ? &sw->lanes[entry->buffer] : NULL;

    if (!lane || lane->state == LANE_FREE || lane->awaits != slot || lane->ticket != entry->length ||
        entry->reason >= LANE_STATUSES)
        return false;
    bool copying = lane->state == LANE_EXPORTING || lane->state == LANE_IMPORTING;
    if (copying && !lane->discarded && !is_wanted(sw, entry->buffer))
        return false;
    lane->awaits = SWITCH_NONE;
    if (lane->state == LANE_CLEARING && entry->reason == LANE_DONE)
        lane->filled = false;
    if (lane->discarded || !copying)
        clear(sw, entry->buffer);
    else if (lane->state == LANE_EXPORTING)
        exported(sw, entry->buffer, (enum lane_status)entry->reason);
    else
        imported(sw, entry->buffer, (enum lane_status)entry->reason);
    return true;
}

/* Answers of a dead replica that were not committed will not come. Its moves discard their lanes themselves. */
void switch_lanes_forsaken(struct sm_switch *sw, unsigned slot)
{
    for (unsigned i = 0; i < EXPORT_LANES; i++) {
        struct switch_lane *lane = &sw->lanes[i];
        if (lane->state == LANE_FREE || lane->awaits != slot)
            continue;
        STEP();
        lane->awaits = SWITCH_NONE;
        if (lane->discarded || lane->state == LANE_INSTALLING)
            lane->state = LANE_CLEARING;
    }
}

void switch_lanes_poll(struct sm_switch *sw)
{
    for (unsigned i = 0; sw->lanes_used > 0 && i < EXPORT_LANES; i++)
        if (sw->lanes[i].state == LANE_CLEARING && sw->lanes[i].awaits == SWITCH_NONE)
            clear(sw, i);
}

bool switch_lanes_busy(const struct sm_switch *sw)
{
    for (unsigned i = 0; sw->lanes_used > 0 && i < sw->slot_count; i++)
        if (sw->slots[i].state == SLOT_READY)
            return true;
    return false;
}
