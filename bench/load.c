/* SPDX-License-Identifier: BSD-2-Clause */
#include "load.h"

#include <splitmerge/packet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "lengths.h"
#include "ports/internal.h"
#include "testing/random.h"

#define PACKET_BYTES 64u
#define LINK_ETHERNET 1 /* DLT_EN10MB */
#define IP 14u
#define UDP 34u
#define STAMP 42u /* of the payload: when the packet was due */

struct load_flow {
    uint8_t source[4], destination[4];
    uint16_t port;
    uint64_t end; /* ns since the load began */
};

struct load_port {
    struct sm_port port;
    struct load *load;
    uint8_t packet[PACKET_BYTES];
};

/* A key in the range that new flows are to be in. */
static void begin_flow(struct load *load, struct load_flow *flow)
{
    uint32_t shard;

    do {
        uint64_t random = random_star(&load->random);
        struct sm_key key;
        memcpy(flow->source, &random, 4);
        memcpy(flow->destination, (uint8_t *)&random + 4, 4);
        flow->source[0] = 10;
        flow->destination[0] = 198;
        flow->port = (uint16_t)(1024 + random_star(&load->random) % 60000);
        sm_key_make(&key, 4, 17, flow->source, flow->port, flow->destination, 9);
        shard = state_shard_of(state_hash(load->options.state, &key));
    } while (shard < load->first_shard || shard > load->last_shard);
}

static void put16(uint8_t *to, unsigned value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static void write_packet(const struct load *load, const struct load_flow *flow, uint8_t *packet)
{
    uint8_t *ip = packet + IP;
    uint32_t sum = 0;

    memset(packet, 0, PACKET_BYTES);
    packet[12] = 8;
    ip[0] = 0x45;
    put16(ip + 2, PACKET_BYTES - IP);
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, flow->source, 4);
    memcpy(ip + 16, flow->destination, 4);
    for (unsigned i = 0; i < 20; i += 2)
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    sum = (sum >> 16) + (sum & 0xffff);
    put16(ip + 10, ~(sum + (sum >> 16)));
    put16(packet + UDP, flow->port);
    put16(packet + UDP + 2, 9);
    put16(packet + UDP + 4, PACKET_BYTES - UDP);
    memcpy(packet + STAMP, &load->due, sizeof load->due);
}

/* ns to the next packet. */
static uint64_t gap(const struct load *load)
{
    const struct load_options *options = &load->options;
    double at = (double)(load->due - load->begin) / 1e9 / options->rise;
    double rate = options->rate_from + (options->rate_to - options->rate_from) * (at < 1 ? at : 1);

    return (uint64_t)(1e9 / rate);
}

static int load_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct load_port *self = (struct load_port *)port;
    struct load *load = self->load;
    uint64_t now = bench_now();
    struct timespec wall;

    if (load->begin == 0)
        load->begin = load->due = now;
    if (load->stopped || now < load->due)
        return 0;
    struct load_flow *flow = &load->flows[load->next];
    load->next = load->next + 1 == load->options.flows ? 0 : load->next + 1;
    if (load->due - load->begin > flow->end) {
        begin_flow(load, flow);
        flow->end = load->due - load->begin + (uint64_t)(lengths_draw(&load->random) * 1e9);
    }
    write_packet(load, flow, self->packet);
    clock_gettime(CLOCK_REALTIME, &wall);
    *frame = (struct sm_frame){.data = self->packet,
                               .caplen = PACKET_BYTES,
                               .len = PACKET_BYTES,
                               .seconds = wall.tv_sec,
                               .fraction = wall.tv_nsec};
    load->due += gap(load);
    load->sent++;
    return 1;
}

static int load_send(struct sm_port *port, const struct sm_frame *frame)
{
    struct load *load = ((struct load_port *)port)->load;
    uint64_t due, now = bench_now();

    memcpy(&due, frame->data + STAMP, sizeof due);
    uint64_t late = now - due, bin = (now - load->begin) / LOAD_BIN_NS;
    if (bin < LOAD_BINS && late > load->worst[bin])
        load->worst[bin] = late;
    if (due >= load->counting_from)
        histogram_add(&load->late, late);
    load->received++;
    return 0;
}

static const struct sm_port_ops in_ops = {
    .receive = load_receive, .flush = sm_port_flush_nothing, .fd = sm_port_fd_none, .close = sm_port_close_plain};
static const struct sm_port_ops out_ops = {
    .send = load_send, .flush = sm_port_flush_nothing, .fd = sm_port_fd_none, .close = sm_port_close_plain};

static int open_port(struct load *load, const struct sm_port_ops *ops, struct sm_port **port)
{
    struct load_port *self = calloc(1, sizeof *self);

    if (!self)
        return SM_E_NO_MEMORY;
    self->port = (struct sm_port){.ops = ops,
                                  .name = "load",
                                  .linktype = LINK_ETHERNET,
                                  .snaplen = 65535,
                                  .nanoseconds = true,
                                  .is_interface = true};
    self->load = load;
    *port = &self->port;
    return 0;
}

int load_in(struct load *load, struct sm_port **port)
{
    return open_port(load, &in_ops, port);
}

int load_out(struct load *load, struct sm_port **port)
{
    return open_port(load, &out_ops, port);
}

int load_open(struct load *load, const struct load_options *options)
{
    *load = (struct load){.options = *options, .random = options->seed, .counting_from = UINT64_MAX};
    load->flows = calloc(options->flows, sizeof *load->flows);
    if (!load->flows)
        return SM_E_NO_MEMORY;
    load->last_shard = SM_SHARDS / 2 - 1;
    for (uint32_t i = 0; i < options->flows; i++) {
        begin_flow(load, &load->flows[i]);
        load->flows[i].end = (uint64_t)(lengths_residual(&load->random) * 1e9);
    }
    return 0;
}

void load_free(struct load *load)
{
    free(load->flows);
    load->flows = NULL;
}
