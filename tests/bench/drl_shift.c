/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Demand that shifts every 5 s, in the simulator, over several seeds: the default mode beside one central bucket.
 * Held to medians; the worst are printed.
 *
 * usage: drl_shift [SEEDS]
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drl/figures.h"

#define SEEDS 21u
#define MOST_SEEDS 1000u
#define EVEN 0.95

enum { TENTH, SECOND_LONG, UNFAIR, CONTROL, COLUMNS }; /* the less the better */

static const char *const names[COLUMNS] = {"miss over 0.1 s above central's, %", "miss over 1 s above central's, %",
                                           "1 - Jain index", "control of a limiter, kbit/s"};
static const double most[COLUMNS] = {3, 1, 0.01, 5};

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static struct figures run(const struct experiment *experiment, unsigned mode, uint64_t seed)
{
    static struct sim_flow flows[PLAN_MAX_FLOWS];
    struct sim_result result;
    struct figures figures;

    experiment->plan(experiment, seed, flows);
    if (!plan_run(experiment, mode, seed, flows, &result)) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    figures_read(experiment, flows, &result, EVEN, &figures);
    sim_free(&result);
    return figures;
}

/* Whether medians are within what is asked. */
static bool hold(const struct experiment *experiment, unsigned seeds)
{
    static double values[COLUMNS][MOST_SEEDS];
    double central_jain = 0, jain = 0;
    bool held = true;

    for (unsigned i = 0; i < seeds; i++) {
        struct figures ours = run(experiment, DRL_POOL, i + 1), central = run(experiment, SIM_CENTRAL, i + 1);
        values[TENTH][i] = 100 * (ours.miss_tenth - central.miss_tenth);
        values[SECOND_LONG][i] = 100 * (ours.miss_second - central.miss_second);
        values[UNFAIR][i] = 1 - ours.jain;
        values[CONTROL][i] = ours.control;
        held &= ours.settled >= 0 && ours.settled <= 1;
        jain += ours.jain / seeds;
        central_jain += central.jain / seeds;
    }
    printf("%s: Jain index %.3f, central's %.3f; settled within 1 s: %s\n", experiment->name, jain, central_jain,
           held ? "always" : "no");
    for (unsigned k = 0; k < COLUMNS; k++) {
        qsort(values[k], seeds, sizeof values[k][0], compare);
        double median = values[k][seeds / 2];
        printf("  %-36s median %.3f, worst %.3f of %u seeds; at most %.2f\n", names[k], median, values[k][seeds - 1],
               seeds, most[k]);
        held &= median <= most[k];
    }
    return held && jain >= central_jain;
}

int main(int argc, char **argv)
{
    unsigned seeds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : SEEDS;
    bool held = seeds >= 1 && seeds <= MOST_SEEDS;

    for (unsigned i = 0; held && i < experiment_count; i++) {
        bool small = experiments[i].epoch > 0 && experiments[i].limiters <= 10;
        if (small && !hold(&experiments[i], seeds)) {
            printf("%s is not within what is asked\n", experiments[i].name);
            held = false;
        }
    }
    return held ? 0 : 1;
}
