/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the library costs: CPU time per packet of the rate limiter, on one thread as a standalone program runs it,
 * against the same limiter over a plain table in a plain loop (plain.h): the same sources, ports and parser. Both must
 * decide alike, packet by packet in number. The plain loop keeps no order, and neither prefetches nor can be split.
 */

#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "limiter.h"
#include "plain.h"
#include "replay.h"
#include "service.h"

/* A packet of each flow every 10 ms of made-up time when there are 100,000: a fifth of them is too much. */
static const char policy_text[] = "limits:\n"
                                  "  - name: flow\n"
                                  "    per: flow\n"
                                  "    rate: 40kbit\n"
                                  "    burst: 512B\n";
#define WARM_ROUNDS 40u /* until the buckets have found their level */
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

static void plain_more(struct plain *plain, struct sm_port *in, uint64_t count)
{
    replay_more(in, count);
    plain_run(plain);
}

/* CPU time of a packet, ns, over the library and over the plain table, in turns. */
static int measure(struct limiter_run *run, struct plain *plain, struct sm_port *in,
                   const struct bench_options *options, struct figure *figure, struct sm_errbuf *error)
{
    uint64_t count = options->flows;

    plain_more(plain, in, count * WARM_ROUNDS);
    int result = service_warm(&run->service, count * WARM_ROUNDS, error);
    uint64_t start = bench_thread_cpu();
    plain_more(plain, in, count);
    if (result == 0)
        result = service_warm(&run->service, count, error);
    /* From what both took for a round of the flows: how many rounds make the time asked for? */
    double rounds = options->seconds * 2e9 / (double)(bench_thread_cpu() - start);
    count *= rounds < 1 ? 1 : (uint64_t)rounds;
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        uint64_t before = bench_thread_cpu();
        result = service_warm(&run->service, count, error);
        uint64_t between = bench_thread_cpu();
        plain_more(plain, in, count);
        uint64_t after = bench_thread_cpu();
        samples_add(&figure->ours, (double)(between - before) / (double)count);
        samples_add(&figure->reference, (double)(after - between) / (double)count);
    }
    if (result == 0 && plain_passed(plain) != run->service.sw->out) {
        snprintf(error->text, sizeof error->text, "the limiters disagree: %llu packets passed, %llu in the plain one",
                 (unsigned long long)run->service.sw->out, (unsigned long long)plain_passed(plain));
        result = SM_E_STATE;
    }
    return result;
}

int bench_library(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct limiter_run run;
    struct plain *plain = NULL;
    struct sm_port *in = NULL;
    struct figure *figure = report_figure(report, "library: limiter, CPU of a packet", "ns");
    struct sm_errbuf closing;

    bench_pin(0);
    figure->ratio = (struct target){TARGET_AT_MOST, 1.3};
    int result = replay_open(&in, options->flows, 0, options->seed);
    if (result == 0)
        result = plain_open(&plain, in, policy_text, options->flows, error);
    int opened = limiter_open(&run, options, error);
    if (result == 0)
        result = opened;
    if (result == 0)
        result = measure(&run, plain, in, options, figure, error);
    int closed = limiter_close(&run, &closing);
    if (result == 0 && closed != 0) {
        result = closed;
        *error = closing;
    }
    if (result == 0) {
        double dropped = (double)plain_dropped(plain);
        dropped *= 100.0 / ((double)plain_passed(plain) + dropped);
        samples_add(&report_figure(report, "library: dropped, both alike", "%")->ours, dropped);
    }
    plain_close(plain);
    if (in)
        in->ops->close(in, false, &closing);
    json_object_set_new(
        report->parameters, "library",
        json_pack("{s:s, s:s, s:i}", "order", "arrival", "policy", policy_text, "packet_bytes", (int)REPLAY_BYTES));
    return result;
}
