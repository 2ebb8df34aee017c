/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From a replica's output ring to a port: the way out of the packet path.
 *
 * order: flow. A packet leaves when it comes back; packets of a flow come back in order, since they had one owner at a
 * time and a move drains the old one first.
 * order: arrival. The reorder window has a place for every packet that entered and has not left, by its sequence; what
 * is complete at its front leaves. Every place holds a buffer or waits for one, so the pool's size is the window's.
 *
 * What leaves and was delayed goes to the shaper instead (shape.c), and from there to the port at its departure.
 */

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "state/prefetch.h"
#include "switch/bind.h"
#include "switch/fault.h"
#include "switch/switch.h"

#define ANSWERS_AHEAD 8u /* whose lines are fetched before they are handled */
#define ANSWERS_NEXT 4u  /* whose tickets have come and say what else */

static bool is_tap(const struct sm_switch *sw)
{
    return sw->arena->mode == ARENA_TAP;
}

/* The port that a packet leaves by: a file's output, or the other interface. */
static struct sm_port *way_out(const struct sm_switch *sw, unsigned from)
{
    return from == 0 ? sw->ports[1] : sw->ports[0];
}

/* What the port refuses, or has not yet sent, is taken back out of `out` at the end of the turn: some say so only then.
 * True: the buffer that the frame is in is the port's now. */
static inline __attribute__((always_inline)) bool send_frame(struct sm_switch *sw, unsigned from,
                                                             const struct sm_frame *frame)
{
    struct sm_port *port = way_out(sw, from);

    sw->out++;
    if (is_tap(sw) || !port)
        return false;
    int result = port->ops->send(port, frame);
    if (result < 0)
        switch_fail(sw, "%s", port->error.text);
    return result == SM_PORT_KEEPS;
}

void switch_flush(struct sm_switch *sw)
{
    for (unsigned i = 0; i < 2; i++) {
        struct sm_port *port = sw->ports[i];
        if (!port)
            continue;
        if (port->pending && port->ops->flush(port) != 0)
            switch_fail(sw, "%s", port->error.text);
        uint64_t *refused = &sw->port_reports[i].refused, more = port->counters.tx_failed - *refused;
        *refused += more;
        sw->out += sw->port_reports[i].under_way;
        sw->out -= port->under_way + more;
        sw->port_reports[i].under_way = port->under_way;
        sw->dropped[DROP_REFUSED] += more;
    }
}

void switch_send(struct sm_switch *sw, unsigned from, const struct sm_frame *frame)
{
    send_frame(sw, from, frame);
}

/* Whether the buffer is the port's now. */
static inline __attribute__((always_inline)) bool send(struct sm_switch *sw, uint32_t buffer,
                                                       struct switch_packet *packet)
{
    const struct sm_frame frame = switch_frame_of(sw, buffer);

    if (!send_frame(sw, packet->from, &frame))
        return false;
    packet->place = PLACE_PORT;
    return true;
}

/* A packet whose departure is later than its time. False: there is no room for it, and it is dropped. */
static __attribute__((noinline)) bool delay(struct sm_switch *sw, uint32_t buffer, bool entered, bool written)
{
    if (switch_shape_enter(sw, buffer, entered, written))
        return true;
    sw->dropped[DROP_SHAPE]++;
    return false;
}

/* A packet that entered leaves, one way or the other. */
static inline __attribute__((always_inline)) void leave(struct sm_switch *sw, uint32_t buffer, bool drop, bool written)
{
    struct switch_packet *packet = &sw->packets[buffer];
    bool late = packet->departure != packet->time, delayed = false, kept = false;

    if (FAULT(ALTER))
        pool_data(&sw->pool, buffer)[0] ^= packet->late;
    if (__builtin_expect(sw->shape_first <= packet->time, 0))
        switch_shape_release(sw, packet->time);
    if (__builtin_expect(late, 0))
        drop = !(delayed = delay(sw, buffer, true, written));
    if (!delayed) {
        audit_leave(&sw->audit, buffer, pool_data(&sw->pool, buffer), packet->caplen, packet->len, written,
                    packet->time);
        STEP();
        if (!drop)
            kept = send(sw, buffer, packet);
        STEP();
    }
    sw->in_flight--;
    if (!kept)
        switch_buffer_free(sw, buffer);
}

static __attribute__((noinline)) void leave_generated(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];

    bool kept = false;

    STEP();
    if (packet->departure == packet->time)
        kept = send(sw, buffer, packet);
    else
        delay(sw, buffer, false, true);
    STEP();
    if (!kept)
        switch_buffer_free(sw, buffer);
}

/* The packet's fate is known: leave now, or take the place in the window. */
static inline __attribute__((always_inline)) void settle(struct sm_switch *sw, uint32_t buffer, bool drop, bool written)
{
    struct switch_packet *packet = &sw->packets[buffer];

    if (!sw->options.order_arrival) {
        leave(sw, buffer, drop, written);
        return;
    }
    struct window_place *place = &sw->window[packet->sequence & sw->window_mask];
    assert(place->buffer == POOL_NONE);
    STEP();
    packet->place = PLACE_WINDOW;
    place->buffer = buffer;
    place->drop = drop;
    place->written = written;
}

void switch_unprocessed(struct sm_switch *sw, uint32_t buffer)
{
    settle(sw, buffer, false, false);
}

void switch_drop(struct sm_switch *sw, uint32_t buffer, unsigned reason)
{
    sw->dropped[reason]++;
    settle(sw, buffer, true, true);
}

/* Nothing more can be sent because of the last packet. */
static void forget_last(struct sm_switch *sw, struct switch_slot *slot)
{
    if (slot->last_buffer != POOL_NONE)
        switch_reserve_free(sw, slot->last_buffer, slot->last_used);
    slot->last_buffer = POOL_NONE;
}

static inline uint64_t delay_of(struct out_entry entry)
{
    return (entry.flags & (ANSWER_DELAY | ANSWER_DROP)) == ANSWER_DELAY ? answer_delay(&entry) : 0;
}

/* A replica's answer to a packet. False: it cannot be: the buffer was not in its ring, or the delay is too long. */
static inline __attribute__((always_inline)) bool take_packet(struct sm_switch *sw, unsigned number,
                                                              struct out_entry entry)
{
    struct switch_slot *slot = &sw->slots[number];

    if (entry.buffer >= sw->buffers)
        return false;
    struct switch_packet *packet = &sw->packets[entry.buffer];
    const uint64_t later = delay_of(entry);
    if (packet->place != PLACE_RING || packet->slot != number || later > sw->delay_max)
        return false;
    slot->in_flight--;
    slot->packets++;
    if (sw->affinity && packet->flow != AFFINITY_NONE)
        affinity_back(sw->affinity, packet->flow);
    if (!is_tap(sw))
        packet->departure = packet->time + later;
    if (sw->sends > 0) {
        forget_last(sw, slot);
        slot->last = *packet;
        slot->last_buffer = entry.buffer;
        slot->last_used = 0;
    }
    if (packet->late)
        switch_late_back(sw, packet->slot, entry.buffer);
    bool drop = (entry.flags & ANSWER_DROP) && !is_tap(sw);
    if (drop)
        sw->dropped[entry.reason < sw->reason_count ? SWITCH_DROP_COUNT + entry.reason : DROP_UNKNOWN]++;
    settle(sw, entry.buffer, drop, entry.flags & ANSWER_WRITTEN);
    return true;
}

/* A packet that was sent because of the last one. False: it is not of that one's reserve, or of no possible length. */
static bool take_generated(struct sm_switch *sw, struct switch_slot *slot, const struct out_entry *entry)
{
    const struct switch_packet *cause = &slot->last;
    const struct switch_reserve *reserve = slot->last_buffer != POOL_NONE ? &sw->reserves[slot->last_buffer] : NULL;

    if (!reserve || slot->last_used == reserve->count || entry->buffer != reserve->buffers[slot->last_used] ||
        entry->length == 0 || entry->length > SM_MAX_SEND_BYTES)
        return false;
    STEP();
    slot->last_used++;
    sw->generated++;
    switch_ledger_generated(sw);
    struct switch_packet *packet = &sw->packets[entry->buffer];
    packet->seconds = cause->seconds;
    packet->fraction = cause->fraction;
    packet->sequence = cause->sequence;
    packet->time = cause->time;
    packet->departure = cause->departure;
    packet->from = cause->from;
    packet->shard = cause->shard;
    packet->caplen = packet->len = entry->length;
    packet->next = POOL_NONE;
    packet->place = PLACE_WINDOW;
    if (!sw->options.order_arrival) {
        leave_generated(sw, entry->buffer);
        return true;
    }
    struct window_place *place = &sw->window[cause->sequence & sw->window_mask];
    if (place->generated_head == POOL_NONE)
        place->generated_head = entry->buffer;
    else
        sw->packets[place->generated_tail].next = entry->buffer;
    place->generated_tail = entry->buffer;
    return true;
}

/* What is not the answer to a packet. Out of line: packets are nearly all that comes. */
static __attribute__((noinline)) bool take_other(struct sm_switch *sw, unsigned slot, struct out_entry copy)
{
    struct switch_slot *s = &sw->slots[slot];
    const struct out_entry *entry = &copy;

    switch (entry->kind) {
    case OUT_GENERATED:
        return take_generated(sw, s, entry);
    case OUT_RELEASED:
        if (entry->reason >= SM_SHARDS)
            return false;
        return switch_released(sw, slot, entry->reason, entry->buffer);
    case OUT_LANE:
        return switch_lane_answered(sw, slot, entry);
    case OUT_HELD:
        return entry->reason < SM_SHARDS && switch_flow_held(sw, slot, entry->reason, entry->buffer);
    case OUT_TICKED:
        s->ticking = false;
        return true;
    case OUT_PROGRESS:
        return true;
    case OUT_QUERIED:
        if (!sw->query.active || sw->query.slot != slot)
            return false;
        sw->query.active = false;
        switch_notify(sw, NOTICE_QUERIED);
        return true;
    case OUT_RESTORED:
        return switch_restore_answered(sw, slot, entry);
    case OUT_SNAPSHOT:
        return switch_snapshot_answered(sw, slot, entry->buffer);
    default:
        return false;
    }
}

/* Everything a replica writes is checked before it is used; what does not hold is the end of trust in it. */
static inline __attribute__((always_inline)) bool take_back_one(struct sm_switch *sw, unsigned slot,
                                                                struct out_entry entry)
{
    if (entry.bound != sw->slots[slot].bind_tail && !switch_bind_take(sw, slot, entry.bound))
        return false;
    return entry.kind == OUT_PACKET ? take_packet(sw, slot, entry) : take_other(sw, slot, entry);
}

/* The lines of an answer that will soon be handled. */
static void fetch_answer(const struct sm_switch *sw, uint32_t buffer)
{
    if (buffer >= sw->buffers)
        return;
    prefetch_for_read(&sw->packets[buffer]);
    prefetch_for_read(sw->audit.tickets[buffer].bytes);
    prefetch_for_read(&sw->audit.tickets[buffer].number);
    prefetch_for_read(pool_data(&sw->pool, buffer));
}

/* What the audit will look at for an answer whose ticket has come. */
static void fetch_order(const struct sm_switch *sw, uint32_t buffer)
{
    if (buffer < sw->buffers)
        prefetch_for_read(&sw->audit.last[sw->audit.tickets[buffer].shard]);
}

unsigned switch_take_back(struct sm_switch *sw, unsigned slot)
{
    struct switch_slot *s = &sw->slots[slot];
    uint64_t commit = atomic_load_explicit(&s->channel->commit, memory_order_acquire);
    uint32_t produced = commit_produced(commit);
    uint32_t n = produced - s->out_tail;

    if (s->distrusted)
        return 0;
    if (n > s->ring_mask + 1) {
        switch_condemn(sw, slot, true, "committed more than its ring holds");
        return 0;
    }
    for (; s->out_tail != produced; s->out_tail++) {
        if (produced - s->out_tail > ANSWERS_AHEAD)
            fetch_answer(sw, s->out[(s->out_tail + ANSWERS_AHEAD) & s->ring_mask].buffer);
        if (produced - s->out_tail > ANSWERS_NEXT)
            fetch_order(sw, s->out[(s->out_tail + ANSWERS_NEXT) & s->ring_mask].buffer);
        STEP();
        if (take_back_one(sw, slot, s->out[s->out_tail & s->ring_mask]))
            continue;
        switch_condemn(sw, slot, true, "returned a descriptor that it was not given");
        if (s->distrusted)
            break; /* what came before stands */
    }
    forget_last(sw, s);
    return n;
}

void switch_output_poll(struct sm_switch *sw)
{
    for (;;) {
        struct window_place *place = &sw->window[sw->window_next & sw->window_mask];
        if (place->buffer == POOL_NONE)
            break;
        leave(sw, place->buffer, place->drop, place->written);
        for (uint32_t buffer = place->generated_head; buffer != POOL_NONE;) {
            uint32_t next = sw->packets[buffer].next;
            leave_generated(sw, buffer);
            buffer = next;
        }
        *place = (struct window_place){.buffer = POOL_NONE, .generated_head = POOL_NONE};
        sw->window_next++;
        STEP();
    }
}
