/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  Each direction of a connection is a stream of bytes, which the engine is given in order and once. Between
 * packets all of it is in the flow's record and chunks: what comes next, what was held because something is missing
 * before it, and the engine's knowledge, packed.
 *
 * Order.  Bytes before `next` were seen: what repeats them is ignored. Bytes ahead are held, at most HELD_BYTES in
 * HELD_COUNT pieces. Of two that say different things of one byte the one that came first holds.
 *
 * Gaps.  What is missing is given up when its receiver acknowledges what is held behind it, when there is no room to
 * hold more, and at the end. The engine begins anew behind a gap: nothing is found across it, a rule may be found once
 * more, and rules that depend on where the stream begins are not found any more (STREAM_LATE). So it is where the
 * beginning was not seen, where there is no memory to keep what the engine knows, and when the rules are others.
 *
 * Life-cycle.  A connection begins with a SYN (or with whatever comes first: the sender is the client then, and it is
 * established). A stream ends behind its FIN, and both with a RST that is in order. A SYN with another sequence number
 * begins another connection in its place, where both have ended its answer, too.
 */
#include "streams.h"

#include <assert.h>
#include <string.h>

/* How far a sequence number is behind another one. */
static int32_t distance(uint32_t from, uint32_t to)
{
    return (int32_t)(to - from);
}

static struct stream *stream_of(const struct hand *hand, unsigned from)
{
    return &hand->connection->streams[from];
}

/* ---- the engine's knowledge ---- */

static void forget(struct hand *hand, struct stream *stream)
{
    sm_free(hand->replica, hand->cls, hand->flow, stream->packed);
    stream->packed = NULL;
    stream->packed_bytes = stream->packed_room = 0;
}

static void open_stream(struct hand *hand, unsigned from)
{
    struct stream *stream = stream_of(hand, from);

    if (hand->open == (int)from)
        return;
    assert(hand->open < 0);
    hand->open = (int)from;
    if (engine_open(hand->engine, stream->packed, stream->packed_bytes))
        return;
    engine_open(hand->engine, NULL, 0); /* a copy that was not one of ours */
    stream->flags |= STREAM_LATE;
    sm_counter_add(hand->replica, hand->lost, 1);
}

/* A chunk for so many bytes that may be written. */
static bool make_room(struct hand *hand, struct stream *stream, size_t bytes)
{
    if (bytes <= stream->packed_room)
        return sm_writable(hand->replica, stream->packed, 0, bytes);
    uint32_t room = ((uint32_t)bytes + 16 + 63) / 64 * 64 - 16; /* chunks take 16 bytes more, and multiples of 64 */
    uint8_t *chunk = sm_realloc(hand->replica, hand->cls, hand->flow, stream->packed, room);
    if (!chunk)
        return false;
    stream->packed = chunk;
    stream->packed_room = room;
    return true;
}

/* Give the stream in hand back: say what was found, and keep what the engine knows. */
static void close_stream(struct hand *hand)
{
    if (hand->open < 0)
        return;
    struct stream *stream = stream_of(hand, (unsigned)hand->open);
    size_t bytes;

    hand->found(hand, (unsigned)hand->open);
    hand->open = -1;
    if (stream->flags & STREAM_ENDED)
        return;
    const void *packed = engine_pack(hand->engine, &bytes);
    if (make_room(hand, stream, bytes)) {
        memcpy(stream->packed, packed, bytes);
        stream->packed_bytes = (uint32_t)bytes;
        return;
    }
    forget(hand, stream);
    stream->flags |= STREAM_LATE;
    sm_counter_add(hand->replica, hand->lost, 1);
}

/* ---- order ---- */

static void deliver(struct hand *hand, unsigned from, const uint8_t *data, uint32_t bytes)
{
    open_stream(hand, from);
    engine_scan(hand->engine, data, bytes);
    stream_of(hand, from)->next += bytes;
}

static void drop_first(struct hand *hand, struct stream *stream)
{
    struct segment *segment = stream->held;

    stream->held = segment->next;
    stream->held_bytes -= segment->bytes;
    stream->held_count--;
    sm_free(hand->replica, hand->cls, hand->flow, segment);
}

static void end_stream(struct hand *hand, unsigned from)
{
    struct stream *stream = stream_of(hand, from);

    if (stream->flags & STREAM_ENDED)
        return;
    if (stream->packed || hand->open == (int)from) { /* else nothing ever came */
        open_stream(hand, from);
        engine_end(hand->engine);
    }
    stream->flags |= STREAM_ENDED;
    close_stream(hand);
    while (stream->held)
        drop_first(hand, stream);
    forget(hand, stream);
}

/* What is held and has its turn now. Nothing that is held was delivered already: take() stops before it. */
static void drain(struct hand *hand, unsigned from)
{
    struct stream *stream = stream_of(hand, from);

    while (stream->held && stream->held->sequence == stream->next) {
        deliver(hand, from, stream->held->data, stream->held->bytes);
        drop_first(hand, stream);
    }
    if (stream->flags & STREAM_FIN && distance(stream->fin, stream->next) >= 0)
        end_stream(hand, from);
}

/* Give up what is missing before `to`. */
static void skip(struct hand *hand, unsigned from, uint32_t to)
{
    struct stream *stream = stream_of(hand, from);

    if (hand->open == (int)from)
        hand->found(hand, from); /* before the gap */
    hand->open = (int)from;
    engine_open(hand->engine, NULL, 0);
    stream->next = to;
    stream->flags |= STREAM_LATE;
    sm_counter_add(hand->replica, hand->gaps, 1);
    drain(hand, from);
}

/* Hold a piece behind `before` (NULL: first). False: there is no room. */
static bool insert(struct hand *hand, struct stream *stream, struct segment *before, uint32_t sequence,
                   const uint8_t *data, uint32_t bytes)
{
    if (stream->held_bytes + bytes > HELD_BYTES || stream->held_count == HELD_COUNT)
        return false;
    if (before && !sm_writable(hand->replica, before, 0, sizeof before->next))
        return false;
    struct segment *segment = sm_alloc(hand->replica, hand->cls, hand->flow, sizeof *segment + bytes);
    if (!segment)
        return false;
    *segment = (struct segment){.next = before ? before->next : stream->held, .sequence = sequence, .bytes = bytes};
    memcpy(segment->data, data, bytes);
    if (before)
        before->next = segment;
    else
        stream->held = segment;
    stream->held_bytes += bytes;
    stream->held_count++;
    return true;
}

/* Hold what of these bytes is not held yet. False: there is no room for all of it. */
static bool hold(struct hand *hand, struct stream *stream, uint32_t sequence, const uint8_t *data, uint32_t bytes)
{
    struct segment *before = NULL, *at = stream->held;

    while (bytes > 0) {
        uint32_t piece = bytes;
        if (at && distance(at->sequence, sequence) >= 0) { /* it begins in this one, or behind it */
            uint32_t into = sequence - at->sequence;
            uint32_t held = into < at->bytes ? at->bytes - into : 0;
            piece = held < bytes ? held : bytes;
            before = at;
            at = at->next;
        } else {
            if (at && at->sequence - sequence < piece)
                piece = at->sequence - sequence;
            if (!insert(hand, stream, before, sequence, data, piece))
                return false;
            before = before ? before->next : stream->held;
        }
        sequence += piece;
        data += piece;
        bytes -= piece;
    }
    return true;
}

/* Bytes of a stream, wherever they are. */
static void take(struct hand *hand, unsigned from, uint32_t sequence, const uint8_t *data, uint32_t bytes)
{
    struct stream *stream = stream_of(hand, from);

    while (bytes > 0 && !(stream->flags & STREAM_ENDED)) {
        int32_t ahead = distance(stream->next, sequence);
        if (ahead < 0) { /* seen before */
            uint32_t seen = (uint32_t)-ahead < bytes ? (uint32_t)-ahead : bytes;
            sequence += seen, data += seen, bytes -= seen;
        } else if (ahead == 0) {
            uint32_t piece = bytes;
            if (stream->held && stream->held->sequence - sequence < piece)
                piece = stream->held->sequence - sequence; /* what came first holds */
            deliver(hand, from, data, piece);
            drain(hand, from);
        } else if (hold(hand, stream, sequence, data, bytes)) {
            return;
        } else {
            bool first = stream->held && distance(stream->held->sequence, sequence) >= 0;
            skip(hand, from, first ? stream->held->sequence : sequence);
        }
    }
}

/* ---- packets ---- */

static void begin(struct stream *stream, uint32_t next, uint32_t flags)
{
    if (stream->flags & STREAM_BEGUN)
        return;
    stream->first = stream->next = next;
    stream->flags |= STREAM_BEGUN | flags;
}

static void restart(struct hand *hand, sm_time now)
{
    struct connection *connection = hand->connection;

    end_stream(hand, 0);
    end_stream(hand, 1);
    *connection = (struct connection){.began = now.ns, .rules = engine_fingerprint(hand->engine)};
}

static void begin_connection(struct hand *hand, const struct tcp *tcp, sm_time now)
{
    struct connection *connection = hand->connection;

    connection->began = now.ns;
    connection->rules = engine_fingerprint(hand->engine);
    connection->client = tcp->from;
    connection->stage = STAGE_ESTABLISHED;
    if (tcp->flags & TCP_SYN)
        connection->stage = tcp->flags & TCP_ACK ? STAGE_SYN_ACK : STAGE_SYN;
    if (connection->stage == STAGE_SYN_ACK) {
        connection->client = !tcp->from;
        begin(stream_of(hand, !tcp->from), tcp->acknowledged, 0);
    }
}

/* Whether a SYN is of another connection: not one that is known, nor the answer to one. */
static bool begins_anew(const struct connection *connection, const struct tcp *tcp)
{
    const struct stream *stream = &connection->streams[tcp->from], *other = &connection->streams[!tcp->from];

    if (stream->flags & STREAM_BEGUN && tcp->sequence + 1 == stream->first)
        return false;
    if (tcp->flags & TCP_ACK) /* its SYN was not seen */
        return stream->flags & STREAM_ENDED && other->flags & STREAM_ENDED;
    return connection->stage != STAGE_SYN || connection->client == tcp->from;
}

/* Where the connection stands after a packet's flags. */
static void follow(struct hand *hand, const struct tcp *tcp, bool created, sm_time now)
{
    struct connection *connection = hand->connection;
    struct stream *stream = stream_of(hand, tcp->from);
    const bool syn = tcp->flags & TCP_SYN, ack = tcp->flags & TCP_ACK;

    if (!created && syn && begins_anew(connection, tcp)) {
        restart(hand, now);
        created = true;
    }
    if (created)
        begin_connection(hand, tcp, now);
    else if (syn && ack && connection->stage == STAGE_SYN)
        connection->stage = STAGE_SYN_ACK;
    else if (!syn && ack && !(tcp->flags & TCP_RST))
        connection->stage = STAGE_ESTABLISHED;
    if (syn)
        begin(stream, tcp->sequence + 1, 0);
    else if (tcp->bytes > 0)
        begin(stream, tcp->sequence, STREAM_LATE);
}

/* What was acknowledged will not come again: what is missing of it is missing for good. */
static void acknowledge(struct hand *hand, unsigned from, uint32_t acknowledged)
{
    struct stream *stream = stream_of(hand, from);

    while (stream->held && distance(stream->held->sequence, acknowledged) >= 0)
        skip(hand, from, stream->held->sequence);
    close_stream(hand);
}

/* Other rules than those that the engine's knowledge is of. */
static void change_rules(struct hand *hand)
{
    for (unsigned from = 0; from < 2; from++) {
        struct stream *stream = stream_of(hand, from);
        if (stream->packed == NULL)
            continue;
        forget(hand, stream);
        stream->flags |= STREAM_LATE;
        sm_counter_add(hand->replica, hand->lost, 1);
    }
    hand->connection->rules = engine_fingerprint(hand->engine);
}

void streams_segment(struct hand *hand, const struct tcp *tcp, bool created, sm_time now)
{
    struct stream *stream = stream_of(hand, tcp->from);
    const uint32_t sequence = tcp->sequence + (tcp->flags & TCP_SYN ? 1 : 0);

    if (!created && hand->connection->rules != engine_fingerprint(hand->engine))
        change_rules(hand);
    follow(hand, tcp, created, now);
    if (tcp->flags & TCP_ACK)
        acknowledge(hand, !tcp->from, tcp->acknowledged);
    take(hand, tcp->from, sequence, tcp->data, tcp->bytes);
    if (tcp->flags & TCP_FIN && stream->flags & STREAM_BEGUN && !(stream->flags & (STREAM_FIN | STREAM_ENDED))) {
        stream->fin = sequence + tcp->length;
        stream->flags |= STREAM_FIN;
        drain(hand, tcp->from);
    }
    close_stream(hand);
    if (tcp->flags & TCP_RST && (!(stream->flags & STREAM_BEGUN) || tcp->sequence == stream->next)) {
        end_stream(hand, 0);
        end_stream(hand, 1);
    }
}

void streams_end(struct hand *hand)
{
    for (unsigned from = 0; from < 2; from++) {
        struct stream *stream = stream_of(hand, from);
        while (stream->held)
            skip(hand, from, stream->held->sequence);
        end_stream(hand, from);
    }
}

/* ---- copies ---- */

static void write_stream(const struct stream *stream, struct sm_writer *writer)
{
    sm_write_map(writer, NULL);
    sm_write_uint(writer, "first", stream->first);
    sm_write_uint(writer, "next", stream->next);
    sm_write_uint(writer, "fin", stream->fin);
    sm_write_uint(writer, "flags", stream->flags);
    if (stream->packed)
        sm_write_bytes(writer, "packed", stream->packed, stream->packed_bytes);
    sm_write_list(writer, "held");
    for (const struct segment *segment = stream->held; segment; segment = segment->next) {
        sm_write_uint(writer, NULL, segment->sequence);
        sm_write_bytes(writer, NULL, segment->data, segment->bytes);
    }
    sm_write_end(writer);
    sm_write_end(writer);
}

void streams_write(const struct connection *connection, struct sm_writer *writer)
{
    sm_write_uint(writer, "began", connection->began);
    sm_write_uint(writer, "rules", connection->rules);
    sm_write_uint(writer, "client", connection->client);
    sm_write_uint(writer, "stage", connection->stage);
    sm_write_list(writer, "streams");
    for (unsigned from = 0; from < 2; from++)
        write_stream(&connection->streams[from], writer);
    sm_write_end(writer);
}

static int read_stream(struct hand *hand, struct stream *stream, sm_value value)
{
    size_t bytes;
    const void *packed = sm_value_bytes(sm_value_get(value, "packed"), &bytes);
    sm_value held = sm_value_get(value, "held"), item = {0};

    stream->first = (uint32_t)sm_value_uint(sm_value_get(value, "first"), 0);
    stream->next = (uint32_t)sm_value_uint(sm_value_get(value, "next"), 0);
    stream->fin = (uint32_t)sm_value_uint(sm_value_get(value, "fin"), 0);
    stream->flags = (uint32_t)sm_value_uint(sm_value_get(value, "flags"), 0);
    if (packed && hand->connection->rules == engine_fingerprint(hand->engine)) {
        if (bytes == 0 || bytes > ENGINE_PACKED_MOST)
            return SM_E_DAMAGED;
        if (!make_room(hand, stream, bytes))
            return SM_E_NO_MEMORY;
        memcpy(stream->packed, packed, bytes);
        stream->packed_bytes = (uint32_t)bytes;
    }
    while (sm_value_next(held, &item)) {
        uint32_t sequence = (uint32_t)sm_value_uint(item, 0);
        if (!sm_value_next(held, &item))
            return SM_E_DAMAGED;
        const void *data = sm_value_bytes(item, &bytes);
        if (!data || bytes == 0 || bytes > HELD_BYTES || distance(stream->next, sequence) <= 0)
            return SM_E_DAMAGED;
        if (!hold(hand, stream, sequence, data, (uint32_t)bytes))
            return SM_E_NO_MEMORY;
    }
    return 0;
}

int streams_read(struct hand *hand, sm_value value)
{
    struct connection *connection = hand->connection;
    sm_value streams = sm_value_get(value, "streams"), item = {0};
    int result = 0;

    connection->began = sm_value_uint(sm_value_get(value, "began"), 0);
    connection->rules = sm_value_uint(sm_value_get(value, "rules"), 0);
    connection->client = sm_value_uint(sm_value_get(value, "client"), 0) != 0;
    connection->stage = (uint32_t)sm_value_uint(sm_value_get(value, "stage"), STAGE_ESTABLISHED);
    for (unsigned from = 0; from < 2 && result == 0; from++)
        result = sm_value_next(streams, &item) ? read_stream(hand, &connection->streams[from], item) : SM_E_DAMAGED;
    return result;
}
