/* SPDX-License-Identifier: BSD-2-Clause */
/* The test kit: packets in memory, and ports that lead there. */

#include "testing/test.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet/packet.h"
#include "ports/internal.h"

#define LINK_RAW 12 /* DLT_RAW */
#define SNAPLEN 262144u
#define PAYLOAD_MAX 1400u
#define SECOND 1000000000ull

struct packet {
    uint8_t *data;
    uint32_t caplen, len;
    int64_t seconds, fraction;
};

struct sm_trace {
    int linktype;
    uint32_t snaplen;
    bool nanoseconds;
    int ended; /* what an input says at its end: SM_E_END, or how it was damaged */
    struct packet *packets;
    size_t count, room;
};

struct sm_trace *sm_trace_create(void)
{
    struct sm_trace *trace = calloc(1, sizeof *trace);

    if (trace) {
        trace->linktype = LINK_RAW;
        trace->snaplen = SNAPLEN;
        trace->nanoseconds = true;
        trace->ended = SM_E_END;
    }
    return trace;
}

void sm_trace_destroy(struct sm_trace *trace)
{
    for (size_t i = 0; trace && i < trace->count; i++)
        free(trace->packets[i].data);
    if (trace)
        free(trace->packets);
    free(trace);
}

static int append(struct sm_trace *trace, const struct sm_frame *frame)
{
    if (trace->count == trace->room) {
        size_t room = trace->room ? 2 * trace->room : 256;
        struct packet *more = realloc(trace->packets, room * sizeof *more);
        if (!more)
            return SM_E_NO_MEMORY;
        trace->packets = more;
        trace->room = room;
    }
    struct packet packet = {.data = malloc(frame->caplen ? frame->caplen : 1),
                            .caplen = frame->caplen,
                            .len = frame->len,
                            .seconds = frame->seconds,
                            .fraction = frame->fraction};
    if (!packet.data)
        return SM_E_NO_MEMORY;
    memcpy(packet.data, frame->data, frame->caplen);
    trace->packets[trace->count++] = packet;
    return 0;
}

static struct sm_frame frame_of(const struct packet *packet)
{
    return (struct sm_frame){.data = packet->data,
                             .caplen = packet->caplen,
                             .len = packet->len,
                             .seconds = packet->seconds,
                             .fraction = packet->fraction};
}

int sm_trace_add(struct sm_trace *trace, sm_time time, const void *data, uint32_t length)
{
    const uint64_t unit = trace->nanoseconds ? 1 : 1000;
    const struct sm_frame frame = {.data = data,
                                   .caplen = length,
                                   .len = length,
                                   .seconds = (int64_t)(time.ns / SECOND),
                                   .fraction = (int64_t)(time.ns % SECOND / unit)};

    return append(trace, &frame);
}

size_t sm_trace_count(const struct sm_trace *trace)
{
    return trace->count;
}

struct sm_trace_packet sm_trace_at(const struct sm_trace *trace, size_t index)
{
    const struct packet *packet = &trace->packets[index];
    const struct sm_port units = {.nanoseconds = trace->nanoseconds};
    const struct sm_frame frame = frame_of(packet);

    return (struct sm_trace_packet){
        .time = sm_frame_time(&units, &frame), .data = packet->data, .caplen = packet->caplen, .len = packet->len};
}

int sm_trace_read(struct sm_trace **out, const char *file, struct sm_errbuf *error)
{
    struct sm_trace *trace = sm_trace_create();
    struct sm_errbuf ignored;
    struct sm_frame frame;
    struct sm_port *port;
    int result = trace ? sm_port_open_capture(&port, file, error ? error : &ignored) : SM_E_NO_MEMORY, said;

    *out = NULL;
    if (result) {
        sm_trace_destroy(trace);
        return result;
    }
    trace->linktype = port->linktype;
    trace->snaplen = port->snaplen;
    trace->nanoseconds = port->nanoseconds;
    while (result == 0 && (said = port->ops->receive(port, &frame)) == 1)
        result = append(trace, &frame);
    if (result == 0)
        trace->ended = said;
    port->ops->close(port, true, &ignored);
    if (result == 0)
        *out = trace;
    else
        sm_trace_destroy(trace);
    return result;
}

int sm_trace_write(const struct sm_trace *trace, const char *file, struct sm_errbuf *error)
{
    const struct sm_port model = {
        .linktype = trace->linktype, .snaplen = trace->snaplen, .nanoseconds = trace->nanoseconds};
    struct sm_errbuf ignored;
    struct sm_port *port;

    if (!error)
        error = &ignored;
    int result = sm_port_create_capture(&port, file, &model, error);
    if (result)
        return result;
    for (size_t i = 0; result == 0 && i < trace->count; i++) {
        const struct sm_frame frame = frame_of(&trace->packets[i]);
        if ((result = port->ops->send(port, &frame)) != 0)
            *error = port->error;
    }
    int closed = port->ops->close(port, result == 0, result ? &ignored : error);
    return result ? result : closed;
}

/* ---- packets of their parts ---- */

struct endpoint {
    int family;
    uint8_t address[16];
    uint16_t port;
};

static bool parse_endpoint(const char *text, struct endpoint *endpoint)
{
    const char *colon = strrchr(text, ':');
    char address[64], *end;
    bool bracketed = text[0] == '[';

    if (!colon || colon == text || (bracketed && colon[-1] != ']'))
        return false;
    size_t length = (size_t)(colon - text) - (bracketed ? 2 : 0);
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (length >= sizeof address || colon[1] == '\0' || *end != '\0' || port > UINT16_MAX)
        return false;
    memcpy(address, text + bracketed, length);
    address[length] = '\0';
    endpoint->family = bracketed ? AF_INET6 : AF_INET;
    endpoint->port = (uint16_t)port;
    return inet_pton(endpoint->family, address, endpoint->address) == 1;
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

/* The IP header of a packet whose transport part has `bytes`; returns its length. */
static uint32_t put_ip(uint8_t *at, const struct endpoint *from, const struct endpoint *to, uint8_t protocol,
                       uint32_t bytes)
{
    if (from->family == AF_INET6) {
        put32(at, 6u << 28);
        put16(at + 4, bytes);
        at[6] = protocol;
        at[7] = 64;
        memcpy(at + 8, from->address, 16);
        memcpy(at + 24, to->address, 16);
        return 40;
    }
    uint32_t sum = 0;
    at[0] = 0x45;
    put16(at + 2, 20 + bytes);
    at[8] = 64;
    at[9] = protocol;
    memcpy(at + 12, from->address, 4);
    memcpy(at + 16, to->address, 4);
    for (unsigned i = 0; i < 20; i += 2)
        sum += (uint32_t)at[i] << 8 | at[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    put16(at + 10, ~(sum + (sum >> 16)));
    return 20;
}

static int add_transport(struct sm_trace *trace, sm_time time, const char *from, const char *to, uint8_t protocol,
                         const uint8_t *rest, uint32_t rest_bytes, const void *payload, uint32_t bytes)
{
    uint8_t packet[40 + 20 + PAYLOAD_MAX] = {0};
    struct endpoint a, b;

    if (!parse_endpoint(from, &a) || !parse_endpoint(to, &b) || a.family != b.family || bytes > PAYLOAD_MAX ||
        trace->linktype != LINK_RAW)
        return SM_E_INVALID;
    uint32_t at = put_ip(packet, &a, &b, protocol, 4 + rest_bytes + bytes);
    put16(packet + at, a.port);
    put16(packet + at + 2, b.port);
    memcpy(packet + at + 4, rest, rest_bytes);
    if (bytes)
        memcpy(packet + at + 4 + rest_bytes, payload, bytes);
    return sm_trace_add(trace, time, packet, at + 4 + rest_bytes + bytes);
}

int sm_trace_udp(struct sm_trace *trace, sm_time time, const char *from, const char *to, const void *payload,
                 uint32_t bytes)
{
    uint8_t rest[4] = {0};

    put16(rest, 8 + bytes);
    return add_transport(trace, time, from, to, 17, rest, sizeof rest, payload, bytes);
}

int sm_trace_tcp(struct sm_trace *trace, sm_time time, const char *from, const char *to, unsigned flags,
                 uint32_t sequence, const void *payload, uint32_t bytes)
{
    uint8_t rest[16] = {0};

    put32(rest, sequence);
    rest[8] = 5 << 4;
    rest[9] = (uint8_t)flags;
    put16(rest + 10, UINT16_MAX);
    return add_transport(trace, time, from, to, 6, rest, sizeof rest, payload, bytes);
}

/* ---- comparing ---- */

static bool same_packet(const struct packet *a, const struct packet *b)
{
    return a->caplen == b->caplen && a->len == b->len && a->seconds == b->seconds && a->fraction == b->fraction &&
           memcmp(a->data, b->data, a->caplen) == 0;
}

/* A packet with its flow: sorted by flow, ties by place, two traces can be compared side by side. */
struct placed {
    struct sm_key key;
    bool loose; /* a fragment without its first: it has no order */
    const struct packet *packet;
    size_t place;
};

static int by_bytes(const struct packet *a, const struct packet *b)
{
    uint32_t least = a->caplen < b->caplen ? a->caplen : b->caplen;
    int order = memcmp(a->data, b->data, least);

    if (order == 0 && a->caplen != b->caplen)
        order = a->caplen < b->caplen ? -1 : 1;
    return order;
}

static int by_flow(const void *left, const void *right)
{
    const struct placed *a = left, *b = right;
    int order = memcmp(&a->key, &b->key, sizeof a->key);

    if (order == 0 && a->loose != b->loose)
        order = a->loose ? 1 : -1;
    if (order == 0 && a->loose)
        order = by_bytes(a->packet, b->packet);
    return order ? order : (a->place > b->place) - (a->place < b->place);
}

static struct placed *placed_of(const struct sm_trace *trace, enum sm_granularity key)
{
    struct placed *placed = calloc(trace->count + 1, sizeof *placed);
    struct sm_parser *parser;
    uint64_t clock = 0;

    if (!placed || sm_parser_create(&parser, 65536) != 0) {
        free(placed);
        return NULL;
    }
    for (size_t i = 0; i < trace->count; i++) {
        const struct sm_trace_packet packet = sm_trace_at(trace, i);
        struct sm_parsed parsed;
        clock = packet.time.ns > clock ? packet.time.ns : clock;
        sm_parse(parser, trace->linktype, packet.data, packet.caplen, packet.len, (sm_time){clock}, &parsed);
        placed[i].packet = &trace->packets[i];
        placed[i].place = i;
        placed[i].loose = (parsed.headers.flags & SM_HDR_LATER_FRAGMENT) != 0;
        sm_parsed_key(&parsed, packet.data, packet.caplen, key, &placed[i].key);
    }
    sm_parser_destroy(parser);
    qsort(placed, trace->count, sizeof *placed, by_flow);
    return placed;
}

static bool same_by_flow(const struct sm_trace *a, const struct sm_trace *b, enum sm_granularity key,
                         struct sm_errbuf *error)
{
    struct placed *x = placed_of(a, key), *y = placed_of(b, key);
    bool same = x && y;

    if (!same)
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
    for (size_t i = 0; same && i < a->count; i++) {
        same = memcmp(&x[i].key, &y[i].key, sizeof x[i].key) == 0 && same_packet(x[i].packet, y[i].packet);
        if (!same)
            snprintf(error->text, sizeof error->text, "packet %zu of one and packet %zu of the other differ",
                     x[i].place, y[i].place);
    }
    free(x);
    free(y);
    return same;
}

bool sm_trace_same(const struct sm_trace *a, const struct sm_trace *b, enum sm_granularity key, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;

    if (!error)
        error = &ignored;
    if (a->count != b->count || a->linktype != b->linktype) {
        snprintf(error->text, sizeof error->text, "%zu packets of link type %d, and %zu of %d", a->count, a->linktype,
                 b->count, b->linktype);
        return false;
    }
    if (key != SM_BY_ALL)
        return same_by_flow(a, b, key, error);
    for (size_t i = 0; i < a->count; i++)
        if (!same_packet(&a->packets[i], &b->packets[i])) {
            snprintf(error->text, sizeof error->text, "packet %zu differs", i);
            return false;
        }
    return true;
}

/* ---- ports ---- */

struct memory_port {
    struct sm_port port;
    const struct sm_trace *from;
    size_t next;
    struct sm_trace *to;
};

static int memory_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct memory_port *memory = (struct memory_port *)port;

    if (memory->next == memory->from->count)
        return memory->from->ended;
    *frame = frame_of(&memory->from->packets[memory->next++]);
    port->counters.rx_packets++;
    port->counters.rx_bytes += frame->caplen;
    return 1;
}

static int memory_send(struct sm_port *port, const struct sm_frame *frame)
{
    port->counters.tx_packets++;
    port->counters.tx_bytes += frame->caplen;
    return append(((struct memory_port *)port)->to, frame) ? SM_E_IO : 0;
}

static const struct sm_port_ops in_ops = {
    .receive = memory_receive, .flush = sm_port_flush_nothing, .fd = sm_port_fd_none, .close = sm_port_close_plain};
static const struct sm_port_ops out_ops = {
    .send = memory_send, .flush = sm_port_flush_nothing, .fd = sm_port_fd_none, .close = sm_port_close_plain};

size_t trace_port_next(const struct sm_port *port)
{
    return ((const struct memory_port *)port)->next;
}

int trace_port_in(struct sm_port **port, const struct sm_trace *trace, size_t next)
{
    struct memory_port *memory = calloc(1, sizeof *memory);

    if (!memory)
        return SM_E_NO_MEMORY;
    memory->from = trace;
    memory->next = next;
    memory->port = (struct sm_port){.ops = &in_ops,
                                    .name = "input",
                                    .linktype = trace->linktype,
                                    .snaplen = trace->snaplen,
                                    .nanoseconds = trace->nanoseconds};
    *port = &memory->port;
    return 0;
}

int trace_port_out(struct sm_port **port, struct sm_trace *trace, const struct sm_port *model)
{
    struct memory_port *memory = calloc(1, sizeof *memory);

    if (!memory)
        return SM_E_NO_MEMORY;
    trace->linktype = model->linktype;
    trace->snaplen = model->snaplen;
    trace->nanoseconds = model->nanoseconds;
    memory->to = trace;
    memory->port = (struct sm_port){.ops = &out_ops,
                                    .name = "output",
                                    .linktype = model->linktype,
                                    .snaplen = model->snaplen,
                                    .nanoseconds = model->nanoseconds};
    *port = &memory->port;
    return 0;
}
