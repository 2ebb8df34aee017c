/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Carrying moves out (design D4): the actions of move.c on rings and holds.
 *
 * An operation is a list of (shard, new owner); at most SWITCH_MOVES_IN_FLIGHT of them are between owners at a time, so
 * that each shard is held for little more than one round trip. The answer to a release marker comes in the old owner's
 * output ring behind every packet of the shard, so when it is met, all of them have been taken back.
 *
 * Behind a backlog a round trip lasts as long as the backlog, however many shards make it together; and a hot spot,
 * whose backlog grows, is what moves are to relieve. So while no answer comes more are let in: as many as take the old
 * owner less time than has passed in waiting.
 */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "arena/builds.h"
#include "state/layout.h"
#include "switch/fault.h"
#include "switch/switch.h"

/* The rest of the markers in a ring is for what each shard needs besides, and for ticks and the like. */
_Static_assert(2 * CHANNEL_RELEASES + 8 * SWITCH_MOVES_IN_FLIGHT <= CHANNEL_MARKERS, "a ring has room for all answers");

#define RELEASE_NS 4000u /* what giving up a shard takes at most, if nothing else does */

/* Whether a ring has room for markers besides every buffer of the pool. */
bool switch_room_for_markers(const struct sm_switch *sw, unsigned slot)
{
    const struct switch_slot *s = &sw->slots[slot];
    uint64_t commit = atomic_load_explicit(&s->channel->commit, memory_order_acquire);
    uint32_t waiting = s->in_head - commit_consumed(commit);

    return waiting + sw->buffers - s->in_flight + 8 * SWITCH_MOVES_IN_FLIGHT + sw->moves_in_flight < s->ring_mask;
}

void switch_flush_hold(struct sm_switch *sw, struct switch_shard *shard, unsigned late_slot)
{
    uint32_t buffer = shard->hold_head;

    shard->hold_head = shard->hold_tail = POOL_NONE;
    while (buffer != POOL_NONE) {
        struct switch_packet *packet = &sw->packets[buffer];
        uint32_t next = packet->next;
        sw->hold_bytes -= packet->caplen;
        STEP();
        if (packet->late && late_slot != shard->owner)
            switch_late_change(sw, late_slot, shard->owner, buffer);
        if (FAULT(LOSE)) {
            sw->in_flight--;
            switch_late_back(sw, shard->owner, buffer);
            switch_buffer_free(sw, buffer);
            buffer = next;
            continue;
        }
        if (FAULT(REORDER) && next != POOL_NONE) {
            uint32_t third = sw->packets[next].next;
            switch_steer(sw, next);
            next = third;
        }
        switch_steer(sw, buffer);
        buffer = next;
    }
}

/* Whether a shard is on its way to an older build, which its flows have to be brought back for. */
static unsigned goes_back(const struct sm_switch *sw, const struct switch_shard *shard)
{
    const uint8_t build = builds_number(sw->arena, shard->owner);

    return builds_reads(sw->arena, shard->move.to, build) ? 0 : IN_RELEASE_BACK;
}

/* Carry out what the state machine says, in its order. */
static void act(struct sm_switch *sw, uint32_t number, unsigned actions)
{
    struct switch_shard *shard = &sw->shards[number];

    if (actions & MOVE_DO_RELEASE) {
        shard->held_since = sw->now;
        shard->flow_held = false;
        if (FAULT(TWO_OWNERS))
            switch_push(sw, shard->move.to, IN_ADOPT, number, number, sw->clock);
        switch_push_lane(sw, shard->owner, IN_RELEASE, shard->move.generation, number, goes_back(sw, shard));
    }
    if (actions & MOVE_DO_EXPORT)
        switch_lane_export(sw, shard->move.lane);
    if (actions & MOVE_DO_DISCARD)
        switch_lane_discard(sw, shard->move.lane);
    STEP();
    if (actions & MOVE_DO_OWN) {
        sw->slots[shard->owner].shards--;
        shard->owner = shard->move.to;
        sw->slots[shard->owner].shards++;
        sw->epoch++;
    }
    if (actions & MOVE_DO_INSTALL)
        switch_lane_install(sw, shard->move.lane);
    if (actions & MOVE_DO_ADOPT)
        switch_push(sw, shard->owner, IN_ADOPT, number, number, sw->clock);
    if (actions & MOVE_DO_FLUSH)
        switch_flush_hold(sw, shard, shard->move.to);
}

/* A shard comes to its new owner. */
static void arrive(struct sm_switch *sw, uint32_t number, unsigned actions)
{
    struct switch_shard *shard = &sw->shards[number];
    struct switch_operation *operation = &sw->operation;
    uint32_t flows = state_shard_flows(sw->arena->state, number);
    act(sw, number, actions);
    operation->given |= 1ull << shard->owner;
    STEP();
    histogram_add(&sw->pauses, sw->now - shard->held_since);
    sw->moves_in_flight--;
    sw->moves_completed++;
    sw->flows_moved += flows;
    operation->heard = sw->now;
    operation->in_flight--;
    operation->completed++;
    operation->flows += flows;
}

/* False: the answer was not asked for. */
bool switch_released(struct sm_switch *sw, unsigned slot, uint32_t number, uint32_t generation)
{
    unsigned actions = move_step(&sw->shards[number].move, MOVE_RELEASED, slot, 0, generation);

    if (actions & MOVE_DO_REFUSE)
        return false;
    if (actions & MOVE_DO_OWN)
        arrive(sw, number, actions);
    else
        act(sw, number, actions);
    return true;
}

/* The copy of a shard is whole. */
void switch_copied(struct sm_switch *sw, uint32_t number)
{
    unsigned actions = move_step(&sw->shards[number].move, MOVE_COPIED, 0, 0, 0);

    assert(!(actions & MOVE_DO_REFUSE));
    sw->moves_copied++;
    arrive(sw, number, actions);
}

void switch_move_abandon(struct sm_switch *sw, uint32_t number, const char *cause)
{
    struct switch_shard *shard = &sw->shards[number];
    unsigned actions = move_step(&shard->move, MOVE_ABANDON, 0, 0, 0);

    if (actions & MOVE_DO_REFUSE)
        return;
    act(sw, number, actions);
    STEP();
    sw->moves_in_flight--;
    sw->moves_abandoned++;
    sw->operation.in_flight--;
    sw->operation.abandoned++;
    snprintf(sw->operation.cause, sizeof sw->operation.cause, "%s", cause);
}

/* Why a replica cannot have a shard; NULL: it can. */
static const char *obstacle_to(const struct sm_switch *sw, const struct switch_shard *shard, unsigned to)
{
    const uint8_t build = shard->owner == SWITCH_NONE ? shard->build : builds_number(sw->arena, shard->owner);

    if (sw->slots[to].state != SLOT_READY || sw->slots[to].condemned)
        return "is gone";
    if (!builds_reads(sw->arena, to, build) &&
        (shard->owner == SWITCH_NONE || !builds_returns(sw->arena, shard->owner)))
        return "runs an older version, which cannot read these flows";
    if (sw->operation.copy && build != builds_number(sw->arena, to))
        return "runs another version, so nothing is copied to it";
    return NULL;
}

/* Start the next shard of the operation; false when it has to wait. */
static bool start_next(struct sm_switch *sw)
{
    struct switch_operation *operation = &sw->operation;
    uint32_t number = operation->shards[operation->next];
    unsigned to = operation->to[operation->next];
    struct switch_shard *shard = &sw->shards[number];

    if (shard->owner == to && shard->move.state == MOVE_STEADY) {
        operation->next++;
        return true;
    }
    const char *obstacle = obstacle_to(sw, shard, to);
    if (obstacle) {
        operation->next++;
        operation->abandoned++;
        sw->moves_abandoned++;
        snprintf(operation->cause, sizeof operation->cause, "replica %s %s", sw->slots[to].name, obstacle);
        return true;
    }
    if (!switch_room_for_markers(sw, shard->owner) || !switch_room_for_markers(sw, to))
        return false;
    if (shard->move.state != MOVE_STEADY)
        return false;
    int lane = operation->copy ? switch_lane_take(sw, number, shard->owner, to) : (int)MOVE_NO_LANE;
    if (lane < 0)
        return false;
    shard->move.lane = (uint8_t)lane;
    unsigned actions = move_step(&shard->move, MOVE_START, shard->owner, to, 0);
    assert(!(actions & MOVE_DO_REFUSE));
    act(sw, number, actions);
    STEP();
    if (operation->in_flight == 0)
        operation->heard = sw->now;
    operation->next++;
    operation->in_flight++;
    sw->moves_in_flight++;
    sw->moves_started++;
    return true;
}

/* The answer to a release waits for the middlebox. False: no release was asked for. */
bool switch_flow_held(struct sm_switch *sw, unsigned slot, uint32_t number, uint32_t generation)
{
    struct switch_shard *shard = &sw->shards[number];
    const struct shard_move *move = &shard->move;

    if ((move->state != MOVE_RELEASING && move->state != MOVE_RETURNING) || move->from != slot ||
        move->generation != generation)
        return false;
    shard->flow_held = true;
    return true;
}

/* On interfaces, and where the middlebox holds a flow, a shard is held no longer than limits.hold.time; anywhere no
 * longer than the operation's deadline. */
static void check_deadlines(struct sm_switch *sw)
{
    struct switch_operation *operation = &sw->operation;
    bool late = sw->now > operation->deadline;
    uint32_t left = operation->in_flight;

    while (operation->first < operation->next && !move_under_way(&sw->shards[operation->shards[operation->first]].move))
        operation->first++;
    /* They were held in this order. */
    if (!late && (operation->first == operation->next ||
                  sw->now - sw->shards[operation->shards[operation->first]].held_since <= sw->options.hold_ns))
        return;
    for (uint32_t i = operation->next; left > 0 && i-- > 0;) {
        struct switch_shard *shard = &sw->shards[operation->shards[i]];
        if (!move_under_way(&shard->move))
            continue;
        left--;
        uint64_t patience = sw->cannot_wait || shard->flow_held ? sw->options.hold_ns : UINT64_MAX;
        if (late)
            switch_move_abandon(sw, operation->shards[i], "the deadline has passed");
        else if (sw->now - shard->held_since > patience)
            switch_move_abandon(sw, operation->shards[i],
                                shard->flow_held ? "limits.hold.time: the middlebox holds a flow" : "limits.hold.time");
    }
    if (late && operation->next < operation->count) {
        operation->abandoned += operation->count - operation->next;
        sw->moves_abandoned += operation->count - operation->next;
        operation->next = operation->count;
        snprintf(operation->cause, sizeof operation->cause, "the deadline has passed");
    }
}

/* Whether the new owners have taken up all that this operation gave them; one that dawdles is too late some day. */
static bool settled(struct sm_switch *sw)
{
    struct switch_operation *operation = &sw->operation;

    for (unsigned slot = 0; !operation->settling && slot < ARENA_SLOTS; slot++)
        operation->settle_at[slot] = sw->slots[slot].in_head;
    operation->settling = true;
    for (uint64_t left = operation->given; left; left &= left - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(left);
        const struct switch_slot *s = &sw->slots[slot];
        if (s->state != SLOT_READY)
            continue;
        uint32_t consumed = commit_consumed(atomic_load_explicit(&s->channel->commit, memory_order_acquire));
        if ((int32_t)(consumed - operation->settle_at[slot]) >= 0)
            continue;
        if (sw->now <= operation->deadline)
            return false;
        operation->abandoned++;
        snprintf(operation->cause, sizeof operation->cause, "replica %s does not take up what it was given", s->name);
    }
    return true;
}

uint32_t switch_flows_left(const struct sm_switch *sw)
{
    uint32_t left = 0;

    for (unsigned slot = 0; sw->affinity && slot < sw->slot_count; slot++)
        if (sw->slots[slot].state == SLOT_READY && sw->slots[slot].shards == 0)
            left += sw->affinity->known[slot];
    return left;
}

/* Whether those who have no shards any more have no flows either, or it is too late. */
static bool drained(struct sm_switch *sw)
{
    struct switch_operation *operation = &sw->operation;

    operation->flows_left = switch_flows_left(sw);
    if (operation->flows_left == 0 || sw->now > operation->drain_deadline)
        return true;
    switch_open_gate(sw); /* flows end as packet time goes by: an input that waits for this operation goes on */
    return false;
}

/* Whether one more shard may be between owners. */
static bool has_room(const struct sm_switch *sw)
{
    if (sw->moves_in_flight < SWITCH_MOVES_IN_FLIGHT)
        return true;
    return sw->moves_in_flight < SWITCH_MOVES_WAITING &&
           sw->moves_in_flight - SWITCH_MOVES_IN_FLIGHT < (sw->now - sw->operation.heard) / RELEASE_NS;
}

void switch_moves_poll(struct sm_switch *sw)
{
    struct switch_operation *operation = &sw->operation;

    if (!operation->active)
        return;
    while (operation->next < operation->count && has_room(sw) && start_next(sw))
        ;
    if (operation->open_gate) {
        operation->open_gate = false;
        switch_open_gate(sw);
    }
    check_deadlines(sw);
    if (operation->next == operation->count && operation->in_flight == 0 && (!operation->settle || settled(sw)) &&
        (!operation->drain || drained(sw))) {
        STEP();
        operation->active = false;
        switch_notify(sw, NOTICE_MOVED);
    }
}

int switch_move_begin(struct sm_switch *sw, uint64_t deadline_ns, bool open_gate)
{
    struct switch_operation *operation = &sw->operation;

    if (operation->active || sw->input_held || sw->check.active)
        return SM_E_STATE;
    uint32_t id = operation->id + 1;
    memset(operation, 0, sizeof *operation);
    operation->id = id;
    operation->deadline = deadline_ns;
    operation->open_gate = open_gate;
    return 0;
}

void switch_move_drain(struct sm_switch *sw, uint64_t deadline_ns)
{
    sw->operation.drain = sw->affinity != NULL;
    sw->operation.drain_deadline = deadline_ns;
}

int switch_can_copy(const struct sm_switch *sw, struct sm_errbuf *error)
{
    const struct state_class *cls;

    for (unsigned i = 0; (cls = builds_class(sw->arena, i)) != NULL; i++) {
        if (cls->partitioned && cls->copy == CLASS_NOT_COPIED) {
            layout_why_not(cls, error);
            return SM_E_CONFLICT;
        }
    }
    return 0;
}

int switch_move_copy(struct sm_switch *sw, struct sm_errbuf *error)
{
    int result = switch_can_copy(sw, error);

    sw->operation.copy = result == 0;
    return result;
}

int switch_move_add(struct sm_switch *sw, uint32_t first, uint32_t last, unsigned slot)
{
    struct switch_operation *operation = &sw->operation;

    if (first > last || last >= SM_SHARDS || slot >= ARENA_SLOTS || sw->slots[slot].state != SLOT_READY)
        return SM_E_INVALID;
    for (uint32_t shard = first; shard <= last; shard++) {
        if (sw->shards[shard].owner == SWITCH_NONE)
            return SM_E_STATE;
        if (sw->shards[shard].owner == slot && sw->shards[shard].move.state == MOVE_STEADY)
            continue;
        if (operation->count == SM_SHARDS)
            return SM_E_INVALID;
        operation->shards[operation->count] = (uint16_t)shard;
        operation->to[operation->count++] = (uint8_t)slot;
    }
    return 0;
}

uint32_t switch_move_go(struct sm_switch *sw)
{
    sw->operation.active = true;
    sw->operation.started = sw->now;
    return sw->operation.count;
}
