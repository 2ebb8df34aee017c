/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the library costs: CPU time per packet of the rate limiter, on one thread as a standalone program runs it,
 * against the same arithmetic over a plain table in a plain loop. Both read the same packets from memory by the same
 * port and parse them by the same code; both must decide alike, packet by packet in number.
 *
 * The plain loop is a lower bound: it handles one limit, sweeps nothing (its flows never end), records no time stamps,
 * keeps no order and sends nothing.
 */

#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "bucket.h"
#include "limiter.h"
#include "packet/packet.h"
#include "replay.h"
#include "service.h"
#include "table.h"

/* A packet of each flow every 10 ms of made-up time when there are 100,000: a fifth of them is too much. */
static const char policy_text[] = "limits:\n"
                                  "  - name: flow\n"
                                  "    per: flow\n"
                                  "    rate: 40kbit\n"
                                  "    burst: 512B\n";
#define WARM_ROUNDS 40u /* until the buckets have found their level */
static const struct bucket_rate rate = {.rate = 40000, .burst = 512};

struct plain {
    struct sm_port *in;
    struct sm_parser *parser;
    struct table table;
    uint64_t clock, out, dropped;
};

static int plain_open(struct plain *plain, const struct bench_options *options)
{
    *plain = (struct plain){.in = NULL};
    int result = replay_open(&plain->in, options->flows, 0, options->seed);

    if (result == 0)
        result = sm_parser_create(&plain->parser, 65536);
    if (result == 0 && !table_init(&plain->table, options->flows, sizeof(struct bucket)))
        result = SM_E_NO_MEMORY;
    return result;
}

static void plain_close(struct plain *plain)
{
    struct sm_errbuf ignored;

    if (plain->in)
        plain->in->ops->close(plain->in, false, &ignored);
    sm_parser_destroy(plain->parser);
    table_free(&plain->table);
}

static void plain_packet(struct plain *plain, const struct sm_frame *frame)
{
    struct sm_parsed parsed;
    uint64_t now = sm_frame_time(plain->in, frame).ns;

    if (now < plain->clock)
        now = plain->clock;
    plain->clock = now;
    sm_parse(plain->parser, plain->in->linktype, frame->data, frame->caplen, frame->len, (sm_time){now}, &parsed);
    uint64_t hash = table_hash(&parsed.key);
    struct bucket *bucket = table_find(&plain->table, &parsed.key, hash);
    if (!bucket) {
        bucket = table_insert(&plain->table, &parsed.key, hash);
        if (!bucket) {
            plain->dropped++;
            return;
        }
        bucket_init(bucket, &rate, now);
    }
    if (bucket_has(bucket, &rate, now, frame->len)) {
        bucket_take(bucket, &rate, now, frame->len);
        plain->out++;
    } else {
        plain->dropped++;
    }
}

static void plain_run(struct plain *plain, uint64_t count)
{
    struct sm_frame frame;

    replay_more(plain->in, count);
    while (plain->in->ops->receive(plain->in, &frame) == 1)
        plain_packet(plain, &frame);
}

struct limiter_run {
    struct policy *policy;
    struct limiter *limiter;
    struct service service;
};

static int setup(struct sm_replica *replica, void *user)
{
    return limiter_register(user, replica);
}

static int limiter_open(struct limiter_run *run, const struct bench_options *options, struct sm_errbuf *error)
{
    *run = (struct limiter_run){.policy = policy_parse("bench", policy_text, strlen(policy_text), error)};
    if (!run->policy)
        return SM_E_INVALID;
    run->limiter = limiter_create(run->policy);
    if (!run->limiter)
        return SM_E_NO_MEMORY;
    const struct service_options wanted = {
        .replicas = 1,
        .order_arrival = true, /* as standalone programs do over files */
        .buffers = 1024,
        .flows = options->flows,
        .seed = options->seed,
        .setup = setup,
        .on_packet = limiter_packet,
        .user = run->limiter,
    };
    int result = service_open(&run->service, &wanted, error);
    return result ? result : limiter_started(run->limiter, run->service.replicas[0].replica, error);
}

static int limiter_close(struct limiter_run *run, struct sm_errbuf *error)
{
    int result = service_close(&run->service, error);

    limiter_destroy(run->limiter);
    policy_free(run->policy);
    return result;
}

/* CPU time of a packet, ns, over the library and over the plain table, in turns. */
static int measure(struct limiter_run *run, struct plain *plain, const struct bench_options *options,
                   struct figure *figure, struct sm_errbuf *error)
{
    uint64_t count = options->flows;

    plain_run(plain, count * WARM_ROUNDS);
    int result = service_warm(&run->service, count * WARM_ROUNDS, error);
    uint64_t start = bench_thread_cpu();
    plain_run(plain, count);
    if (result == 0)
        result = service_warm(&run->service, count, error);
    /* From what both took for a round of the flows: how many rounds make the time asked for? */
    double rounds = options->seconds * 2e9 / (double)(bench_thread_cpu() - start);
    count *= rounds < 1 ? 1 : (uint64_t)rounds;
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        uint64_t before = bench_thread_cpu();
        result = service_warm(&run->service, count, error);
        uint64_t between = bench_thread_cpu();
        plain_run(plain, count);
        uint64_t after = bench_thread_cpu();
        samples_add(&figure->ours, (double)(between - before) / (double)count);
        samples_add(&figure->reference, (double)(after - between) / (double)count);
    }
    if (result == 0 && plain->out != run->service.sw->out) {
        snprintf(error->text, sizeof error->text, "the limiters disagree: %llu packets passed, %llu in the plain one",
                 (unsigned long long)run->service.sw->out, (unsigned long long)plain->out);
        result = SM_E_STATE;
    }
    return result;
}

int bench_library(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct limiter_run run;
    struct plain plain;
    struct figure *figure = report_figure(report, "library: limiter, CPU of a packet", "ns");
    struct sm_errbuf closing;

    bench_pin(0);
    figure->ratio = (struct target){TARGET_AT_MOST, 1.3};
    int result = plain_open(&plain, options);
    int opened = limiter_open(&run, options, error);
    if (result == 0)
        result = opened;
    if (result == 0)
        result = measure(&run, &plain, options, figure, error);
    int closed = limiter_close(&run, &closing);
    if (result == 0 && closed != 0) {
        result = closed;
        *error = closing;
    }
    if (result == 0) {
        double dropped = 100.0 * (double)plain.dropped / (double)(plain.out + plain.dropped);
        samples_add(&report_figure(report, "library: dropped, both alike", "%")->ours, dropped);
    }
    plain_close(&plain);
    json_object_set_new(
        report->parameters, "library",
        json_pack("{s:s, s:s, s:i}", "order", "arrival", "policy", policy_text, "packet_bytes", (int)REPLAY_BYTES));
    return result;
}
