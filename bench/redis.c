/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * State and limits beside a Redis server on the same machine (references/redis.c). Ours: getting and putting a flow in
 * bursts, as bench_tables() has just measured it; and the limiter's decisions, one replica on one core, with all that a
 * replica does for a packet.
 */

#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "reference.h"
#include "tables.h"

#define TIMES 100.0

enum { STATE_ONE, STATE_PIPELINED, DECIDE_ONE, DECIDE_PIPELINED, ROWS };

int bench_redis(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    static const char *const names[ROWS] = {
        "state: get and put, beside Redis GET+SET",
        "state: get and put, beside Redis GET+SET, 32 at a time",
        "state: limiter's decisions, beside a GCRA in Redis",
        "state: limiter's decisions, beside that, 32 at a time",
    };
    struct figure *figures[ROWS];
    struct reference redis;
    char flows[16], seconds[32], seed[24];
    const char *const arguments[] = {flows, seconds, seed, NULL};
    int result = 0;

    snprintf(flows, sizeof flows, "%u", options->flows);
    snprintf(seconds, sizeof seconds, "%g", options->seconds);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)options->seed);
    reference_start(&redis, "sm-bench-redis", "libhiredis-dev", arguments);
    for (unsigned row = 0; row < ROWS; row++) {
        figures[row] = report_figure(report, names[row], "M/s");
        strcpy(figures[row]->missing, redis.missing);
    }
    figures[STATE_PIPELINED]->ratio = figures[DECIDE_PIPELINED]->ratio = (struct target){TARGET_AT_LEAST, TIMES};
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        double found[ROWS], decisions = 0;
        result = bench_decisions(options, &decisions, error);
        if (result == 0 && !redis.missing[0])
            result = reference_ask(&redis, found, ROWS, error);
        for (unsigned row = 0; result == 0 && row < ROWS; row++) {
            samples_add(&figures[row]->ours, row < DECIDE_ONE ? 1e3 / bench_get_and_put.value[i] : decisions / 1e6);
            if (!redis.missing[0])
                samples_add(&figures[row]->reference, found[row] / 1e6);
        }
    }
    reference_end(&redis);
    return result;
}
