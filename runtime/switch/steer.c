/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From a port to a replica's ring: receive, parse, hash, steer. The way in of the packet path.
 *
 * Admission is the only place that waits or drops for want of room (design D11): once a packet has a buffer, rings,
 * holds and the reorder window have room for it.
 */

#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#include "state/prefetch.h"
#include "switch/bind.h"
#include "switch/switch.h"

#define BUFFERS_AHEAD 8u /* free buffers whose lines are fetched before they are written */

/*
 * Packets that were held reach their replica behind later ones. Until they are back, their time bounds how far shared
 * token buckets may refill; the word must be set before packets of later times are published. It is exact: replicas
 * wait for it to pass a packet of theirs, and a release that it depends on may be behind that packet.
 */
static void tell_late(struct sm_switch *sw, unsigned slot)
{
    uint32_t first = sw->slots[slot].late_first;
    uint64_t time = first == POOL_NONE ? UINT64_MAX : sw->packets[first].time;

    STEP();
    if (atomic_load_explicit(&sw->arena->late_time[slot], memory_order_relaxed) != time)
        atomic_store_explicit(&sw->arena->late_time[slot], time, memory_order_release);
    STEP();
}

/* Enter it in its slot's list, which is in order of time: nearly always at the end. */
static void link_late(struct sm_switch *sw, unsigned slot, uint32_t buffer)
{
    struct switch_slot *s = &sw->slots[slot];
    uint32_t before = s->late_last, after = POOL_NONE;

    while (before != POOL_NONE && sw->packets[before].time > sw->packets[buffer].time) {
        after = before;
        before = sw->late[before].before;
    }
    sw->late[buffer] = (struct late_link){.before = before, .after = after};
    *(before == POOL_NONE ? &s->late_first : &sw->late[before].after) = buffer;
    *(after == POOL_NONE ? &s->late_last : &sw->late[after].before) = buffer;
}

static void unlink_late(struct sm_switch *sw, unsigned slot, uint32_t buffer)
{
    struct switch_slot *s = &sw->slots[slot];
    struct late_link link = sw->late[buffer];

    *(link.before == POOL_NONE ? &s->late_first : &sw->late[link.before].after) = link.after;
    *(link.after == POOL_NONE ? &s->late_last : &sw->late[link.after].before) = link.before;
}

void switch_late_enter(struct sm_switch *sw, unsigned slot, uint32_t buffer)
{
    link_late(sw, slot, buffer);
    tell_late(sw, slot);
}

void switch_late_back(struct sm_switch *sw, unsigned slot, uint32_t buffer)
{
    unlink_late(sw, slot, buffer);
    tell_late(sw, slot);
}

/* The new slot's word first: whoever reads all of them twice sees the packet in one of the two. */
void switch_late_change(struct sm_switch *sw, unsigned from, unsigned to, uint32_t buffer)
{
    unlink_late(sw, from, buffer);
    link_late(sw, to, buffer);
    tell_late(sw, to);
    tell_late(sw, from);
}

static __attribute__((noinline)) void hold(struct sm_switch *sw, struct switch_shard *shard, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];

    bool moving = move_under_way(&shard->move);

    if (!moving && sw->cannot_wait && sw->hold_bytes > sw->options.hold_bytes) {
        switch_reserve_free(sw, buffer, 0);
        switch_drop(sw, buffer, DROP_HOLD);
        return;
    }
    packet->place = PLACE_HOLD;
    packet->next = POOL_NONE;
    packet->late = moving;
    if (shard->hold_head == POOL_NONE)
        shard->hold_head = buffer;
    else
        sw->packets[shard->hold_tail].next = buffer;
    shard->hold_tail = buffer;
    STEP();
    sw->hold_bytes += packet->caplen;
    sw->held_packets++;
    sw->operation.held_packets++;
    if (!moving)
        return;
    switch_late_enter(sw, shard->move.to, buffer);
    if (sw->cannot_wait && sw->hold_bytes > sw->options.hold_bytes)
        switch_move_abandon(sw, packet->shard, "limits.hold.bytes");
}

static inline void push(struct switch_slot *slot, enum in_kind kind, uint32_t buffer, uint32_t shard, uint64_t time)
{
    slot->in[slot->in_head++ & slot->ring_mask] = (struct in_entry){
        .time = time,
        .buffer = buffer,
        .shard = (uint16_t)shard,
        .kind = (uint8_t)kind,
    };
}

/* The slot that a shard's packets go to now. */
static inline unsigned slot_of(const struct switch_shard *shard)
{
    return shard->move.state >= MOVE_RELEASING ? SWITCH_NONE : shard->owner;
}

/* What a packet says of its TCP connection: of AFFINITY_CLOSED; *opens: it is the first of one. */
static unsigned tcp_says(const struct sm_switch *sw, const struct packet_meta *meta, const uint8_t *data, bool *opens)
{
    enum { FLAGS = 13, FIN = 1, SYN = 2, RST = 4, ACK = 16 };
    const struct sm_headers headers = meta->headers;

    *opens = false;
    if (sw->steering.granularity != SM_BY_FLOW || headers.protocol != IPPROTO_TCP || headers.l4 == 0 ||
        (headers.flags & SM_HDR_ICMP_ERROR) || (uint32_t)headers.l4 + FLAGS >= meta->caplen)
        return 0;
    const uint8_t flags = data[headers.l4 + FLAGS];
    *opens = (flags & (SYN | ACK)) == SYN;
    if (flags & RST)
        return AFFINITY_CLOSED;
    return !(flags & FIN) ? 0 : headers.flags & SM_HDR_REVERSE ? AFFINITY_FIN_B : AFFINITY_FIN_A;
}

/* With affinity: where the packet's flow is, or from now on will be. */
static __attribute__((noinline)) unsigned slot_of_flow(struct sm_switch *sw, const struct switch_shard *shard,
                                                       uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];
    const struct packet_meta *meta = pool_meta(&sw->pool, buffer);
    bool opens;
    unsigned closed = tcp_says(sw, meta, pool_data(&sw->pool, buffer), &opens), slot = slot_of(shard);

    packet->flow = affinity_find(sw->affinity, meta->hash, packet->time, opens);
    if (packet->flow == AFFINITY_NONE && slot != SWITCH_NONE)
        packet->flow = affinity_enter(sw->affinity, meta->hash, slot);
    if (packet->flow == AFFINITY_NONE)
        return slot;
    affinity_sent(sw->affinity, packet->flow, packet->time, closed);
    return sw->affinity->flows[packet->flow].slot;
}

/* Put a packet in its owner's ring, or in its shard's hold. */
static inline void steer(struct sm_switch *sw, struct switch_shard *shard, struct switch_packet *packet,
                         uint32_t buffer)
{
    const unsigned slot = sw->affinity ? slot_of_flow(sw, shard, buffer) : slot_of(shard);

    if (slot == SWITCH_NONE && shard->move.state >= MOVE_RELEASING) {
        hold(sw, shard, buffer);
        return;
    }
    if (slot == SWITCH_NONE) {
        switch_reserve_free(sw, buffer, 0);
        switch_drop(sw, buffer, DROP_NO_REPLICA);
        return;
    }
    packet->place = PLACE_RING;
    packet->slot = (uint8_t)slot;
    sw->slots[slot].in_flight++;
    STEP();
    push(&sw->slots[slot], IN_PACKET, buffer, packet->shard, packet->time);
    STEP();
}

void switch_push(struct sm_switch *sw, unsigned slot, enum in_kind kind, uint32_t buffer, uint32_t shard, uint64_t time)
{
    push(&sw->slots[slot], kind, buffer, shard, time);
    sw->slots[slot].urgent |= kind != IN_PACKET && kind != IN_TICK;
    STEP();
}

void switch_push_lane(struct sm_switch *sw, unsigned slot, enum in_kind kind, uint32_t ticket, uint32_t shard,
                      unsigned lane)
{
    struct switch_slot *s = &sw->slots[slot];

    s->in[s->in_head++ & s->ring_mask] = (struct in_entry){
        .time = sw->clock, .buffer = ticket, .shard = (uint16_t)shard, .kind = (uint8_t)kind, .lane = (uint8_t)lane};
    s->urgent = true;
    STEP();
}

void switch_steer(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];

    steer(sw, &sw->shards[packet->shard], packet, buffer);
}

/* The shortest packets are the most: no call for these. */
static inline void copy_frame(uint8_t *to, const uint8_t *from, uint32_t bytes)
{
    enum { SHORT = 64 };

    if (bytes < SHORT) {
        memcpy(to, from, bytes);
        return;
    }
    memcpy(to, from, SHORT);
    if (bytes > SHORT)
        memcpy(to + SHORT, from + SHORT, bytes - SHORT);
}

/* Give the received packet its buffer, place in order, key and shard. Returns whether it is to be steered. */
static bool admit(struct sm_switch *sw, const struct sm_frame *frame, uint32_t buffer, struct sm_port *port)
{
    struct switch_packet *packet = &sw->packets[buffer];
    struct packet_meta *meta = pool_meta(&sw->pool, buffer);
    struct sm_parsed *parsed = (struct sm_parsed *)(void *)meta; /* the first part of it */

    packet->sequence = sw->admitted++;
    sw->entered++;
    packet->seconds = frame->seconds;
    packet->fraction = frame->fraction;
    packet->caplen = frame->caplen;
    packet->len = frame->len;
    packet->time = packet->departure = sw->clock;
    packet->from = sw->pending_port;
    packet->late = false;
    packet->deaths = 0;
    sw->in_flight++;

    /* Here and below the port's copy of the bytes is read: it is in the cache, the buffer may just be on its way there.
     */
    sm_parse(sw->parser, port->linktype, frame->data, frame->caplen, frame->len, (sm_time){sw->clock}, parsed);
    if (!port->lends || frame->data != (uint8_t *)meta + POOL_DATA_OFFSET)
        copy_frame((uint8_t *)meta + POOL_DATA_OFFSET, frame->data, frame->caplen);
    if (parsed->headers.family == 0 && !sw->others) {
        switch_reserve_free(sw, buffer, 0);
        packet->shard = 0; /* so that ports keep them in order */
        audit_enter(&sw->audit, buffer, SM_SHARDS, frame->data, frame->caplen, frame->len);
        switch_unprocessed(sw, buffer);
        return false;
    }
    struct sm_key other;
    const struct sm_key *key = &parsed->key;
    if (parsed->headers.family == 0) {
        other = (struct sm_key){.family = 0}; /* of one shard, so that they stay in order */
        key = &other;
    } else if (sw->steering.granularity != SM_BY_FLOW) {
        sm_parsed_key(parsed, frame->data, frame->caplen, sw->steering.granularity, &other);
        sm_key_narrow(&other, sw->steering.prefix4, sw->steering.prefix6);
        key = &other;
    }
    meta->hash = state_hash(sw->arena->state, key);
    meta->caplen = frame->caplen;
    meta->len = frame->len;
    packet->shard = (uint16_t)state_shard_of(meta->hash);
    STEP();
    if (sw->bindings)
        switch_bind_steer(sw, buffer);
    STEP();
    prefetch_for_read(&sw->shards[packet->shard]); /* it is looked at when the whole burst has been admitted */
    audit_enter(&sw->audit, buffer, packet->shard, frame->data, frame->caplen, frame->len);
    if (sw->affinity)
        audit_flow(&sw->audit, buffer, meta->hash);
    return true;
}

/* Receive into sw->pending from one of the ports: whether there was anything. */
static inline bool receive_from(struct sm_switch *sw, uint8_t port)
{
    int result = sw->ports[port]->ops->receive(sw->ports[port], &sw->pending);

    if (result == 1) {
        sw->has_pending = true;
        sw->pending_port = port;
    } else if (result < 0) {
        sw->input_ended = true;
        sw->input_result = result;
        if (result != SM_E_END)
            sw->input_error = sw->ports[port]->error;
    }
    return result == 1;
}

/* False when there is nothing now, or nothing any more. */
static inline bool receive(struct sm_switch *sw)
{
    if (!sw->two_way)
        return receive_from(sw, 0);
    return receive_from(sw, sw->next_port ^= 1) || (!sw->input_ended && receive_from(sw, sw->next_port ^= 1));
}

/* A file stands still; an interface cannot, and its gate only tells. */
static void gate_reached(struct sm_switch *sw)
{
    /* It is used up: the next one may be set while reading stands still, and holds once it goes on. */
    sw->gate_packet = sw->gate_time = 0;
    if (!sw->cannot_wait)
        sw->state = SWITCH_GATED;
    switch_notify(sw, NOTICE_GATED);
}

/* Whether the pending packet's time has come: it is not behind the gate, and due at the pace asked for. */
static bool its_turn(struct sm_switch *sw, uint64_t time, bool *gated)
{
    *gated = sw->gate_time && sw->entered > 0 && time - sw->first_time > sw->gate_time - 1;
    if (*gated)
        return false;
    if (sw->options.pace_pps > 0)
        return (double)(sw->now - sw->start_wall) * sw->options.pace_pps >= (double)sw->entered * 1e9;
    if (!sw->options.pace_recorded)
        return true;
    if (sw->start_time == 0) {
        sw->start_time = time;
        sw->start_wall = sw->now;
    }
    return time <= sw->start_time || sw->now - sw->start_wall >= time - sw->start_time;
}

/* A packet for which there is no room: an interface drops it, a file waits. Returns whether the packet is done with. */
static bool no_room(struct sm_switch *sw, const struct sm_port *port)
{
    bool oversize = sw->pending.caplen > POOL_JUMBO_BYTES - POOL_DATA_OFFSET;

    if (!oversize && !port->is_interface)
        return false;
    sw->entered++;
    sw->dropped[oversize ? DROP_OVERSIZE : DROP_POOL]++;
    return true;
}

/* Fetch the lines that admit() writes of the `n`th small buffer from now on; the replica's core may hold them. */
static inline void fetch_buffer(const struct sm_switch *sw, uint32_t n)
{
    const struct switch_stack *free = &sw->free_small;

    if (free->count < n)
        return;
    const uint8_t *start = sw->pool.small + (size_t)free->buffers[free->count - n] * POOL_SMALL_BYTES;
    prefetch_for_write(start);
    prefetch_for_write(start + POOL_DATA_OFFSET);
}

/* Whether a file is so far ahead of the replicas that a burst more would only wait, and push what they need soon out of
 * the caches. */
static bool far_ahead(const struct sm_switch *sw)
{
    uint32_t replicas = 0;

    if (sw->cannot_wait || sw->in_flight + CHANNEL_BURST <= SWITCH_FILE_AHEAD)
        return false;
    for (unsigned i = 0; i < sw->slot_count; i++)
        replicas += sw->slots[i].state == SLOT_READY;
    return sw->in_flight + CHANNEL_BURST > replicas * SWITCH_FILE_AHEAD;
}

/* Whether anything is read at all. */
static bool reads(const struct sm_switch *sw)
{
    return sw->state == SWITCH_RUNNING && !sw->input_ended && !sw->paused && !sw->input_held && !sw->check.active;
}

/* How many packets may enter before the gate. */
static uint64_t before_gate(const struct sm_switch *sw)
{
    if (sw->gate_packet == 0)
        return UINT64_MAX;
    return sw->gate_packet > sw->entered ? sw->gate_packet - sw->entered : 0;
}

/* The buffer that the pending packet came in; POOL_NONE: it is not in any. */
static inline uint32_t take_lent(struct sm_switch *sw)
{
    size_t at = (size_t)(sw->pending.data - sw->pool.small);

    if (at >= (size_t)sw->pool.small_count * POOL_SMALL_BYTES)
        return POOL_NONE;
    uint32_t buffer = (uint32_t)(at / POOL_SMALL_BYTES);
    assert(sw->packets[buffer].place == PLACE_PORT);
    sw->packets[buffer].place = PLACE_WINDOW;
    return buffer;
}

/* A buffer for the pending packet and for what may be sent because of it; POOL_NONE: there is no room. */
static inline uint32_t take_room(struct sm_switch *sw, const struct sm_port *port)
{
    if (sw->pending.caplen > POOL_JUMBO_BYTES - POOL_DATA_OFFSET)
        return POOL_NONE;
    uint32_t buffer = port->lends ? take_lent(sw) : POOL_NONE;
    if (buffer == POOL_NONE)
        buffer = switch_buffer_take(sw, sw->pending.caplen);
    if (sw->sends == 0 || buffer == POOL_NONE || switch_reserve_take(sw, buffer))
        return buffer;
    switch_buffer_free(sw, buffer);
    return POOL_NONE;
}

/* Receive and admit up to `most` packets, while reading goes on. Returns how many were done with. */
static unsigned read_burst(struct sm_switch *sw, unsigned most, uint32_t admitted[CHANNEL_BURST], unsigned *count,
                           bool *gated)
{
    const bool timed = sw->gate_time || sw->options.pace_pps > 0 || sw->options.pace_recorded;
    unsigned done = 0;

    for (unsigned i = 1; i <= BUFFERS_AHEAD; i++)
        fetch_buffer(sw, i);
    while (done < most && !sw->paused && (sw->has_pending || receive(sw))) {
        struct sm_port *port = sw->ports[sw->pending_port];
        uint64_t time = sm_frame_time(port, &sw->pending).ns;
        if (sw->live.begun)
            time = live_stamp(&sw->live, sw->now, time);
        if (time < sw->clock)
            time = sw->clock;
        if (timed && !its_turn(sw, time, gated))
            break;
        uint32_t buffer = take_room(sw, port);
        if (buffer == POOL_NONE && !no_room(sw, port))
            break;
        if (sw->first_time == 0)
            sw->first_time = time; /* the clock may go on from a checkpoint's */
        sw->clock = time;
        sw->has_pending = false;
        if (done++ == 0)
            switch_ledger_ahead(sw);
        STEP();
        fetch_buffer(sw, BUFFERS_AHEAD);
        if (buffer != POOL_NONE && admit(sw, &sw->pending, buffer, port))
            admitted[(*count)++] = buffer;
    }
    return done;
}

unsigned switch_input(struct sm_switch *sw)
{
    uint32_t admitted[CHANNEL_BURST];
    unsigned done = 0, count = 0;
    bool gated = false;

    sw->paused = sw->paused && sw->in_flight > 0;
    uint64_t most = reads(sw) && !far_ahead(sw) ? before_gate(sw) : 0;
    if (most > 0)
        done = read_burst(sw, most < CHANNEL_BURST ? (unsigned)most : CHANNEL_BURST, admitted, &count, &gated);
    for (unsigned i = 0; i < count; i++) {
        struct switch_packet *packet = &sw->packets[admitted[i]];
        struct switch_shard *shard = &sw->shards[packet->shard];
        shard->packets++;
        steer(sw, shard, packet, admitted[i]);
    }
    if (gated || (reads(sw) && before_gate(sw) == 0))
        gate_reached(sw);
    return done;
}
