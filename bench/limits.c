/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The rate limiter at work in a whole service, in packets a second:
 *  - ten thousand limits by prefix, beside ten over the same packets, one replica;
 *  - one limit that two replicas share, beside a limit for each flow, which they need not share.
 * The ratio counts. In each pair both see the same packets and are told to drop about a fifth of them.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "limited.h"
#include "replay.h"
#include "tables.h"

#define MANY 10000u
#define FEW 10u
#define SHARED_FLOWS 1000u

/* A packet takes REPLAY_BYTES every REPLAY_STEP_NS: what comes in all, and the part of it that is allowed. */
#define OFFERED_KBIT (REPLAY_BYTES * 8000000ull / REPLAY_STEP_NS)
#define ALLOWED_KBIT (OFFERED_KBIT / 5 * 4)

static int open_limited(struct limited *limited, const char *policy, unsigned replicas, uint32_t flows, uint64_t seed,
                        struct sm_errbuf *error)
{
    const struct service_options wanted = {
        .replicas = replicas,
        .halves = replicas > 1,
        .threads = replicas > 1,
        .spread = true,
        .buffers = 1024,
        .flows = flows,
        .seed = seed,
    };

    return limited_open(limited, policy, &wanted, error);
}

/* Packets a second, of `count`. */
static int rate(struct limited *limited, uint64_t count, struct samples *samples, struct sm_errbuf *error)
{
    uint64_t before = bench_now();
    int result = service_warm(&limited->service, count, error);

    samples_add(samples, (double)count * 1e9 / (double)(bench_now() - before));
    return result;
}

/* How many packets take the time asked for, in whole rounds of the flows. */
static int count_for(struct limited *limited, uint32_t flows, double seconds, uint64_t *count, struct sm_errbuf *error)
{
    uint64_t before = bench_now();
    int result = service_warm(&limited->service, flows, error);
    double rounds = seconds * 1e9 / (double)(bench_now() - before);

    *count = flows * (rounds < 1 ? 1 : (uint64_t)rounds);
    return result;
}

/* Two policies over the same packets, in turns. */
static int compare(const struct bench_options *options, const char *ours, const char *reference, unsigned replicas,
                   uint32_t flows, struct figure *figure, struct sm_errbuf *error)
{
    struct limited of[2];
    uint64_t count = 0;
    int result = open_limited(&of[0], ours, replicas, flows, options->seed, error);
    int other = open_limited(&of[1], reference, replicas, flows, options->seed, error);

    result = result ? result : other;
    for (unsigned i = 0; result == 0 && i < 2; i++)
        result = service_warm(&of[i].service, 4ull * flows, error);
    if (result == 0)
        result = count_for(&of[1], flows, options->seconds, &count, error);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        result = rate(&of[0], count, &figure->ours, error);
        if (result == 0)
            result = rate(&of[1], count, &figure->reference, error);
    }
    for (unsigned i = 0; i < 2; i++)
        result = limited_close(&of[i], result, error);
    return result;
}

/* A policy of `count` prefixes that cover `flows` addresses from 10.0.0.0 on. The caller frees. NULL: no memory. */
static char *prefixed(unsigned count, uint32_t flows)
{
    size_t size = count * 48ull + 200, at = 0;
    char *text = malloc(size);
    unsigned bits = 32;

    while (count << (32 - bits) < flows)
        bits--;
    if (!text)
        return NULL;
    at += (size_t)snprintf(text, size, "limits: [{name: prefixes, rate: %llukbit, burst: 4KiB, prefixes: {source: [",
                           ALLOWED_KBIT / (flows < count ? flows : (flows >> (32 - bits)) + 1));
    for (unsigned i = 0; i < count; i++) {
        uint32_t address = 0x0a000000 + (i << (32 - bits));
        at += (size_t)snprintf(text + at, size - at, "%u.%u.%u.%u/%u, ", address >> 24, address >> 16 & 255,
                               address >> 8 & 255, address & 255, bits);
    }
    snprintf(text + at, size - at, "]}}]\n");
    return text;
}

static int many_prefixes(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct figure *figure = report_figure(report, "limits: packets, 10,000 by prefix beside 10", "1/s");
    uint32_t flows = options->flows < MANY ? options->flows : options->flows / MANY * MANY;
    char *many = prefixed(MANY, flows), *few = prefixed(FEW, flows);

    figure->ratio = (struct target){TARGET_AT_LEAST, 0.7};
    bench_pin(0);
    int result = many && few ? compare(options, many, few, 1, flows, figure, error) : SM_E_NO_MEMORY;
    free(many);
    free(few);
    return result;
}

static int one_shared(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct figure *figure = report_figure(report, "limits: packets, one shared by 2 beside separate", "1/s");
    char shared[160], separate[160];

    snprintf(shared, sizeof shared, "limits: [{name: all, per: all, rate: %llukbit, burst: 1MiB}]\n", ALLOWED_KBIT);
    snprintf(separate, sizeof separate, "limits: [{name: each, per: flow, rate: %llukbit, burst: 4KiB}]\n",
             ALLOWED_KBIT / SHARED_FLOWS);
    figure->ratio = (struct target){TARGET_AT_LEAST, 0.8};
    bench_pin(0);
    return compare(options, shared, separate, 2, SHARED_FLOWS, figure, error);
}

int bench_decisions(const struct bench_options *options, double *rate, struct sm_errbuf *error)
{
    static const char policy[] = "limits: [{name: flow, per: flow, rate: 40kbit, burst: 512B}]\n";
    struct limited limited;
    uint64_t busy = 0, done = 0;

    int result = open_limited(&limited, policy, 1, options->flows, options->seed, error);
    if (result == 0)
        result = service_warm(&limited.service, 2ull * options->flows, error);
    if (result == 0) {
        struct sm_replica *replica = limited.service.replicas[0].replica;
        replay_more(limited.service.sw->ports[0], UINT32_MAX); /* no end */
        for (uint64_t begin = bench_now(); (double)(bench_now() - begin) < options->seconds * 1e9;) {
            switch_poll(limited.service.sw);
            uint64_t from = bench_now();
            done += replica_burst(replica, CHANNEL_BURST);
            busy += bench_now() - from;
        }
        *rate = (double)done * 1e9 / (double)busy;
    }
    result = limited_close(&limited, result, error);
    return result;
}

int bench_limits(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    int result = many_prefixes(options, report, error);

    if (result == 0)
        result = one_shared(options, report, error);
    json_object_set_new(report->parameters, "limits",
                        json_pack("{s:i, s:i, s:i, s:i}", "many", (int)MANY, "few", (int)FEW, "shared_flows",
                                  (int)SHARED_FLOWS, "packet_bytes", (int)REPLAY_BYTES));
    return result;
}
