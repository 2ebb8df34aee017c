/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From a replica's output ring to a port: the way out of the packet path.
 *
 * order: flow. A packet leaves when it comes back; packets of a flow come back in order, since they had one owner at a
 * time and a move drains the old one first.
 * order: arrival. The reorder window has a place for every packet that entered and has not left, by its sequence; what
 * is complete at its front leaves. Every place holds a buffer or waits for one, so the pool's size is the window's.
 */

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "switch/fault.h"
#include "switch/switch.h"

static bool is_tap(const struct sm_switch *sw)
{
    return sw->arena->mode == ARENA_TAP;
}

/* The port that a packet leaves by: a file's output, or the other interface. */
static struct sm_port *way_out(const struct sm_switch *sw, unsigned from)
{
    return from == 0 ? sw->ports[1] : sw->ports[0];
}

static void send(struct sm_switch *sw, uint32_t buffer, uint32_t caplen, uint32_t len)
{
    struct switch_packet *packet = &sw->packets[buffer];
    struct sm_port *port = way_out(sw, packet->from);

    if (is_tap(sw) || !port) {
        sw->out++;
        return;
    }
    uint64_t refused = port->counters.tx_failed;
    struct sm_frame frame = {
        .data = pool_data(&sw->pool, buffer),
        .caplen = caplen,
        .len = len,
        .seconds = packet->seconds,
        .fraction = packet->fraction,
    };
    if (port->ops->send(port, &frame) != 0)
        switch_fail(sw, "%s", port->error.text);
    if (port->counters.tx_failed == refused)
        sw->out++;
    else
        sw->dropped[DROP_REFUSED]++;
}

/* A packet that entered leaves, one way or the other. */
static void leave(struct sm_switch *sw, uint32_t buffer, bool drop, bool written)
{
    struct switch_packet *packet = &sw->packets[buffer];

    if (FAULT(ALTER))
        pool_data(&sw->pool, buffer)[0] ^= packet->late;
    audit_leave(&sw->audit, buffer, pool_data(&sw->pool, buffer), packet->caplen, packet->len, written);
    if (!drop)
        send(sw, buffer, packet->caplen, packet->len);
    sw->in_flight--;
    switch_buffer_free(sw, buffer);
}

static void leave_generated(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];

    send(sw, buffer, packet->caplen, packet->len);
    switch_buffer_free(sw, buffer);
}

/* The packet's fate is known: leave now, or take the place in the window. */
static void settle(struct sm_switch *sw, uint32_t buffer, bool drop, bool written)
{
    struct switch_packet *packet = &sw->packets[buffer];

    if (!sw->options.order_arrival) {
        leave(sw, buffer, drop, written);
        return;
    }
    struct window_place *place = &sw->window[packet->sequence & sw->window_mask];
    assert(place->buffer == POOL_NONE);
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

/* A replica's answer to a packet; the caller has checked that the buffer was in its ring. */
void switch_back(struct sm_switch *sw, uint32_t buffer, const struct out_entry *entry)
{
    struct switch_packet *packet = &sw->packets[buffer];
    struct switch_slot *slot = &sw->slots[packet->slot];

    slot->in_flight--;
    slot->packets++;
    if (sw->sends > 0) {
        switch_reserve_free(sw, &slot->last, slot->last_used);
        slot->last = *packet;
        slot->last_used = 0;
    }
    if (packet->late)
        switch_late_back(sw, packet->slot, buffer);
    if (entry->verdict == VERDICT_DROP && !is_tap(sw)) {
        bool known = entry->reason < sw->reason_count;
        sw->dropped[known ? SWITCH_DROP_COUNT + entry->reason : DROP_UNKNOWN]++;
        settle(sw, buffer, true, entry->written);
    } else {
        settle(sw, buffer, false, entry->written);
    }
}

void switch_back_generated(struct sm_switch *sw, unsigned slot, const struct out_entry *entry)
{
    struct switch_slot *s = &sw->slots[slot];
    struct switch_packet *packet = &sw->packets[entry->buffer];
    const struct switch_packet *cause = &s->last;

    sw->generated++;
    packet->seconds = cause->seconds;
    packet->fraction = cause->fraction;
    packet->from = cause->from;
    packet->caplen = packet->len = entry->length;
    packet->next = POOL_NONE;
    packet->place = PLACE_WINDOW;
    if (!sw->options.order_arrival) {
        leave_generated(sw, entry->buffer);
        return;
    }
    struct window_place *place = &sw->window[cause->sequence & sw->window_mask];
    if (place->generated_head == POOL_NONE)
        place->generated_head = entry->buffer;
    else
        sw->packets[place->generated_tail].next = entry->buffer;
    place->generated_tail = entry->buffer;
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
    }
}
