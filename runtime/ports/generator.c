/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. Ports without a world behind them: a generator of UDP packets, and a port that swallows what it gets.
 * The generator patches one prebuilt packet, since it must cost less than anything it is used to measure.
 *
 * Time. Asked for a rate, packets are stamped with the moments at which they are due on the wall clock, and the clock
 * is read only when the next one is not known to be due. Without a rate time is made up, 100 ns a packet, so that a
 * run is a function of its parameters.
 */
#include "ports/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LINK_ETHERNET = 1, /* DLT_EN10MB */
    SECOND = 1000000000,
    PACKET_MIN = 64,
    PACKET_MAX = 1500,
    IP = 14, /* offsets into the packet */
    UDP = 34,
    DISCARD = 9,                /* destination port */
    MADE_UP_START = 1000000000, /* seconds since 1970 */
    MADE_UP_STEP = 100,         /* nanoseconds */
};

struct generator {
    struct sm_port port;
    uint32_t flows, flow; /* how many, and the next one */
    uint32_t size;
    uint64_t left;          /* packets to come; UINT64_MAX: no end */
    uint64_t step, rest;    /* nanoseconds between packets: step + rest / rate */
    uint64_t rate, carried; /* carried: rests that are not a whole nanosecond yet */
    int64_t seconds, fraction;
    int64_t known_seconds, known_fraction; /* the wall clock when it was last read */
    uint32_t checksum;                     /* of the template's IP header, unfolded, without addresses */
    uint8_t packet[PACKET_MAX];
};

static void put16(uint8_t *at, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(at, &value, sizeof value);
}

static void put32(uint8_t *at, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof value);
}

/* Not yet due? Reads the clock when it has to. */
static bool too_early(struct generator *g)
{
    if (g->seconds < g->known_seconds || (g->seconds == g->known_seconds && g->fraction <= g->known_fraction))
        return false;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    g->known_seconds = now.tv_sec;
    g->known_fraction = now.tv_nsec;
    return g->seconds > g->known_seconds || (g->seconds == g->known_seconds && g->fraction > g->known_fraction);
}

/* Flow i has source 10.0.0.0 + i, and one port and destination further wherever those wrap. */
static void address_packet(struct generator *g)
{
    uint32_t source = 0x0a000000 + (g->flow & 0xffffff);
    uint32_t destination = 0xc6120000 + (g->flow >> 24);
    uint32_t sum = g->checksum + (source >> 16) + (source & 0xffff) + (destination >> 16) + (destination & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum += sum >> 16;

    put32(g->packet + IP + 12, source);
    put32(g->packet + IP + 16, destination);
    put16(g->packet + IP + 10, (uint16_t)~sum);
    put32(g->packet + UDP, (1024 + (g->flow & 0x7fff)) << 16 | DISCARD);
    if (++g->flow == g->flows)
        g->flow = 0;
}

static void advance_time(struct generator *g)
{
    g->fraction += (int64_t)g->step;
    g->carried += g->rest;
    if (g->rate != 0 && g->carried >= g->rate) {
        g->carried -= g->rate;
        g->fraction++;
    }
    if (g->fraction >= SECOND) {
        g->fraction -= SECOND;
        g->seconds++;
    }
}

static int generator_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct generator *g = (struct generator *)port;
    if (g->left == 0)
        return sm_port_fail(&port->error, SM_E_END, "generator: all packets were made");
    if (g->rate != 0 && too_early(g))
        return 0;

    address_packet(g);
    frame->data = g->packet;
    frame->caplen = frame->len = g->size;
    frame->seconds = g->seconds;
    frame->fraction = g->fraction;
    advance_time(g);
    if (g->left != UINT64_MAX)
        g->left--;
    port->counters.rx_packets++;
    port->counters.rx_bytes += g->size;
    return 1;
}

static const struct sm_port_ops generator_ops = {
    .receive = generator_receive,
    .flush = sm_port_flush_nothing,
    .fd = sm_port_fd_none,
    .close = sm_port_close_plain,
};

static void build_template(struct generator *g)
{
    static const uint8_t ethernet[IP] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00};
    uint8_t *ip = g->packet + IP;

    memcpy(g->packet, ethernet, sizeof ethernet);
    ip[0] = 0x45;
    put16(ip + 2, (uint16_t)(g->size - IP));
    ip[8] = 64;
    ip[9] = 17;
    put16(g->packet + UDP + 4, (uint16_t)(g->size - UDP)); /* a checksum of 0 means none */
    for (int i = 0; i < 20; i += 2)
        g->checksum += (uint32_t)ip[i] << 8 | ip[i + 1];
}

int sm_port_open_generator(struct sm_port **port, uint32_t flows, uint32_t size, uint64_t count, uint64_t rate)
{
    *port = NULL;
    if (flows == 0 || size < PACKET_MIN || size > PACKET_MAX || rate > SECOND)
        return SM_E_INVALID;
    struct generator *g = calloc(1, sizeof *g);
    if (g == NULL)
        return SM_E_NO_MEMORY;
    g->port = (struct sm_port){
        .ops = &generator_ops,
        .name = "generator",
        .linktype = LINK_ETHERNET,
        .snaplen = 65535,
        .nanoseconds = true,
    };
    g->flows = flows;
    g->size = size;
    g->left = count != 0 ? count : UINT64_MAX;
    g->rate = rate;
    g->step = rate != 0 ? SECOND / rate : MADE_UP_STEP;
    g->rest = rate != 0 ? SECOND % rate : 0;
    g->seconds = MADE_UP_START;
    if (rate != 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        g->seconds = now.tv_sec;
        g->fraction = now.tv_nsec;
    }
    build_template(g);
    *port = &g->port;
    return 0;
}

static int null_send(struct sm_port *port, const struct sm_frame *frame)
{
    port->counters.tx_packets++;
    port->counters.tx_bytes += frame->caplen;
    return 0;
}

static const struct sm_port_ops null_ops = {
    .send = null_send,
    .flush = sm_port_flush_nothing,
    .fd = sm_port_fd_none,
    .close = sm_port_close_plain,
};

int sm_port_open_null(struct sm_port **port, const struct sm_port *model)
{
    *port = calloc(1, sizeof **port);
    if (*port == NULL)
        return SM_E_NO_MEMORY;
    **port = (struct sm_port){
        .ops = &null_ops,
        .name = "null",
        .linktype = model->linktype,
        .snaplen = model->snaplen,
        .nanoseconds = model->nanoseconds,
    };
    return 0;
}
