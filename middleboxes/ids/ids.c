/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A packet of TCP -> its connection's stream, in order (streams.c) -> the engine -> rules whose contents are there ->
 * those whose addresses, ports and flow fit -> lines (eve.c) -> the log (lines.c). Of another packet: its payload ->
 * the engine, and on from there.
 *
 * A process keeps nothing of a flow: a packet finds all in its flow's record and chunks, and leaves all there.
 */
#include "ids.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "eve.h"
#include "streams.h"

#define IDLE_NS 600000000000u
#define LINES_BYTES 65536u /* are written at once */

enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58, SCTP = 132, TCP_HEADER = 20 };

enum tally { ALERTS, UNWRITTEN, GAPS, LOST, FRAGMENTS, TALLIES };
static const char *const tally_names[TALLIES] = {[ALERTS] = "alerts",
                                                 [UNWRITTEN] = "alerts_unwritten",
                                                 [GAPS] = "stream_gaps",
                                                 [LOST] = "streams_begun_anew",
                                                 [FRAGMENTS] = "fragments_not_looked_at"};

struct ids {
    struct engine *engine;
    struct lines *log;
    sm_class connections;
    sm_counter tallies[TALLIES];
    /* The packet in hand. */
    sm_time now;
    size_t used;
    char lines[LINES_BYTES];
};

static const struct sm_field fields[] = {
    {"began", SM_FIELD_TIME, offsetof(struct connection, began), 8, NULL, 0},
    {"client", SM_FIELD_UINT, offsetof(struct connection, client), 4, NULL, 0},
    {"stage", SM_FIELD_UINT, offsetof(struct connection, stage), 4, NULL, 0},
    {"a_next", SM_FIELD_UINT, offsetof(struct connection, streams[0].next), 4, NULL, 0},
    {"a_held", SM_FIELD_UINT, offsetof(struct connection, streams[0].held_bytes), 4, "B", 0},
    {"a_flags", SM_FIELD_UINT, offsetof(struct connection, streams[0].flags), 4, NULL, 0},
    {"b_next", SM_FIELD_UINT, offsetof(struct connection, streams[1].next), 4, NULL, 0},
    {"b_held", SM_FIELD_UINT, offsetof(struct connection, streams[1].held_bytes), 4, "B", 0},
    {"b_flags", SM_FIELD_UINT, offsetof(struct connection, streams[1].flags), 4, NULL, 0},
};

/* ---- alerts ---- */

static bool from_to(const struct rule *rule, const struct ends *ends)
{
    const size_t width = ends->family == 6 ? 16 : 4;
    uint8_t source_port[2], destination_port[2];

    store16(source_port, ends->source_port);
    store16(destination_port, ends->destination_port);
    return span_has(rule->source, ends->family, ends->source, width) &&
           span_has(rule->source_ports, 0, source_port, 2) &&
           span_has(rule->destination, ends->family, ends->destination, width) &&
           span_has(rule->destination_ports, 0, destination_port, 2);
}

static struct ends turned(const struct ends *ends)
{
    struct ends other = *ends;

    memcpy(other.source, ends->destination, sizeof other.source);
    memcpy(other.destination, ends->source, sizeof other.destination);
    other.source_port = ends->destination_port;
    other.destination_port = ends->source_port;
    return other;
}

static bool is_about(const struct rule *rule, const struct ends *ends)
{
    const bool icmp = ends->protocol == ICMP || ends->protocol == ICMP6;
    const bool protocol = rule->protocol == RULE_IP || (rule->protocol == RULE_TCP && ends->protocol == TCP) ||
                          (rule->protocol == RULE_UDP && ends->protocol == UDP) ||
                          (rule->protocol == RULE_ICMP && icmp);

    if (!protocol || from_to(rule, ends))
        return protocol;
    const struct ends other = turned(ends);
    return rule->both_ways && from_to(rule, &other);
}

static void write_lines(struct ids *ids, struct sm_replica *replica)
{
    if (ids->used > 0 && !lines_write(ids->log, replica, ids->lines, ids->used)) {
        sm_counter_add(replica, ids->tallies[UNWRITTEN], 1);
        fprintf(stderr, "sm-ids: the log cannot be written: %s\n", strerror(errno));
    }
    ids->used = 0;
}

static void alert(struct ids *ids, struct sm_replica *replica, const struct rule *rule, const struct ends *ends)
{
    if (!is_about(rule, ends))
        return;
    if (LINES_BYTES - ids->used < EVE_LINE)
        write_lines(ids, replica);
    ids->used += eve_alert(ids->lines + ids->used, rule, ends, ids->now);
    sm_counter_add(replica, ids->tallies[ALERTS], 1);
}

/* ---- streams ---- */

/* A connection in hand, and the middlebox that has it. */
struct ids_hand {
    struct hand hand;
    struct ids *ids;
};

static void on_found(struct hand *hand, unsigned from)
{
    struct ids *ids = ((struct ids_hand *)hand)->ids;
    const struct connection *connection = hand->connection;
    const struct sm_key *key = sm_flow_key(hand->flow);
    const enum rule_toward toward = from == connection->client ? RULE_TO_SERVER : RULE_TO_CLIENT;
    const bool late = connection->streams[from].flags & STREAM_LATE;
    struct ends ends = {.family = key->family,
                        .protocol = TCP,
                        .source_port = key->a_port,
                        .destination_port = key->b_port,
                        .began = connection->began};
    unsigned count;
    const struct rule *const *rules = engine_found(hand->engine, &count);

    memcpy(ends.source, key->a, sizeof ends.source);
    memcpy(ends.destination, key->b, sizeof ends.destination);
    if (from == 1)
        ends = turned(&ends);
    for (unsigned i = 0; i < count; i++)
        if (!(rules[i]->anchored && late) && !(rules[i]->established && connection->stage != STAGE_ESTABLISHED) &&
            (rules[i]->toward == RULE_EITHER || rules[i]->toward == toward))
            alert(ids, hand->replica, rules[i], &ends);
}

static struct ids_hand take_in_hand(struct ids *ids, struct sm_replica *replica, sm_flow flow)
{
    return (struct ids_hand){.hand = {.replica = replica,
                                      .cls = ids->connections,
                                      .flow = flow,
                                      .connection = flow.state,
                                      .engine = ids->engine,
                                      .gaps = ids->tallies[GAPS],
                                      .lost = ids->tallies[LOST],
                                      .open = -1,
                                      .found = on_found},
                             .ids = ids};
}

/* Bytes from `at` to the end of the outermost IP packet: on the wire, and (*captured) of those that are there. */
static uint32_t payload(const struct sm_packet *packet, uint32_t at, uint32_t *captured)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const uint8_t *ip = sm_packet_data(packet) + headers->l3;
    const uint32_t caplen = sm_packet_caplen(packet);
    uint32_t length = headers->family == 4 ? load16(ip + 2) : load16(ip + 4);

    if (length == 0) /* a segment that is still to be cut, or a jumbogram */
        length = sm_packet_len(packet) - headers->l3;
    else if (headers->family == 6)
        length += 40;
    uint32_t end = headers->l3 + length;
    *captured = at < caplen && at < end ? (caplen < end ? caplen : end) - at : 0;
    return at < end ? end - at : 0;
}

static void tcp_packet(struct ids *ids, struct sm_replica *replica, struct sm_packet *packet)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const uint8_t *header = sm_packet_data(packet) + headers->l4;
    bool created = false;

    if (headers->l4 + (uint32_t)TCP_HEADER > sm_packet_caplen(packet) || header[12] >> 4 < 5)
        return; /* counted by the runtime, as truncated or malformed */
    const uint32_t at = headers->l4 + (header[12] >> 4) * 4u;
    struct tcp tcp = {.from = (headers->flags & SM_HDR_REVERSE) != 0,
                      .sequence = (uint32_t)load16(header + 4) << 16 | load16(header + 6),
                      .acknowledged = (uint32_t)load16(header + 8) << 16 | load16(header + 10),
                      .flags = header[13],
                      .data = sm_packet_data(packet) + at};
    tcp.length = payload(packet, at, &tcp.bytes);
    sm_flow flow = sm_flow_get(replica, ids->connections, packet, 0);
    if (!flow.state && tcp.flags & TCP_RST)
        return;
    if (!flow.state && sm_flow_create(replica, ids->connections, packet, 0, &flow, &created) != 0)
        return; /* no room: not looked at, reported as flow_limit */
    struct ids_hand hand = take_in_hand(ids, replica, flow);
    streams_segment(&hand.hand, &tcp, created, ids->now);
}

static void on_expire(struct sm_replica *replica, sm_class cls, sm_flow ended, enum sm_ending why, sm_time now,
                      void *user)
{
    struct ids *ids = user;
    struct ids_hand hand = take_in_hand(ids, replica, ended);

    (void)cls, (void)why;
    ids->now = now;
    ids->used = 0;
    if (hand.hand.connection->rules == engine_fingerprint(ids->engine))
        streams_end(&hand.hand);
    write_lines(ids, replica);
}

/* ---- other packets ---- */

static struct ends ends_of(const struct sm_packet *packet)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const uint8_t *ip = sm_packet_data(packet) + headers->l3, *transport = sm_packet_data(packet) + headers->l4;
    const size_t width = headers->family == 6 ? 16 : 4, at = headers->family == 6 ? 8 : 12;
    struct ends ends = {.family = headers->family, .protocol = headers->protocol};

    memcpy(ends.source, ip + at, width);
    memcpy(ends.destination, ip + at + width, width);
    if (ends.protocol == UDP || ends.protocol == SCTP)
        ends.source_port = load16(transport), ends.destination_port = load16(transport + 2);
    else if (ends.protocol == ICMP || ends.protocol == ICMP6)
        ends.source_port = transport[0], ends.destination_port = transport[1];
    return ends;
}

static void other_packet(struct ids *ids, struct sm_replica *replica, struct sm_packet *packet)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    const bool header = headers->protocol == UDP || headers->protocol == ICMP || headers->protocol == ICMP6;
    const uint32_t at = headers->l4 + (header ? 8u : 0);
    uint32_t bytes;
    unsigned count;

    payload(packet, at, &bytes);
    if (bytes == 0 || headers->l4 + 4u > sm_packet_caplen(packet))
        return;
    engine_scan_packet(ids->engine, sm_packet_data(packet) + at, bytes);
    const struct rule *const *rules = engine_found(ids->engine, &count);
    const struct ends ends = ends_of(packet);
    for (unsigned i = 0; i < count; i++)
        alert(ids, replica, rules[i], &ends);
}

void ids_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct sm_headers *headers = sm_packet_headers(packet);
    struct ids *ids = user;

    lines_start(ids->log, replica);
    if (headers->family == 0)
        return;
    if (headers->l4 == 0) {
        if (headers->flags & SM_HDR_LATER_FRAGMENT)
            sm_counter_add(replica, ids->tallies[FRAGMENTS], 1);
        return;
    }
    ids->now = sm_packet_time(packet);
    ids->used = 0;
    if (headers->protocol != TCP && engine_has_packets(ids->engine))
        other_packet(ids, replica, packet);
    else if (headers->protocol == TCP && engine_has_streams(ids->engine))
        tcp_packet(ids, replica, packet);
    write_lines(ids, replica);
}

/* ---- the middlebox ---- */

static int encode(struct sm_replica *replica, sm_class cls, sm_flow from, struct sm_writer *writer, void *user)
{
    (void)replica, (void)cls, (void)user;
    streams_write(from.state, writer);
    return 0;
}

static int decode(struct sm_replica *replica, sm_class cls, sm_flow to, uint32_t version, sm_value value, void *user)
{
    struct ids_hand hand = take_in_hand(user, replica, to);

    (void)cls, (void)version;
    return streams_read(&hand.hand, value);
}

struct ids *ids_create(struct engine *engine, struct lines *log)
{
    struct ids *ids = calloc(1, sizeof *ids);

    if (ids) {
        ids->engine = engine;
        ids->log = log;
    }
    return ids;
}

void ids_destroy(struct ids *ids)
{
    free(ids);
}

int ids_register(struct ids *ids, struct sm_replica *replica)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "connections",
                                             .version = 1,
                                             .record_size = sizeof(struct connection),
                                             .granularity = SM_BY_FLOW,
                                             .fields = fields,
                                             .field_count = sizeof fields / sizeof *fields,
                                             .user = ids,
                                             .idle_timeout_ns = IDLE_NS,
                                             .on_expire = on_expire,
                                             .alloc_limit = STREAMS_ALLOC_LIMIT,
                                             .encode = encode,
                                             .decode = decode};
    int result = sm_class_register(replica, &options, &ids->connections);

    for (unsigned i = 0; i < TALLIES && result == 0; i++)
        result = sm_counter_register(replica, tally_names[i], &ids->tallies[i]);
    return result ? result : lines_register(ids->log, replica);
}
