/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The experiments of "Cloud Control with Distributed Rate Limiting" (SIGCOMM 2007), in the simulator: each way of
 * sharing a limit, and one central bucket beside them, in the same runs.
 *
 * Figures.  The aggregate over windows of 1 s and of 0.1 s, as a share of the limit: mean, deviation, and the highest
 * second. Jain's index of the flows' rates. Settled: how long after the last change the limiters' rates per flow, over
 * one second, are first even to an index of 0.95. Control: what a limiter sends, IP and UDP headers included.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "drl/sim.h"

#define SECOND 1000000000ull
#define MILLISECOND 1000000ull
#define BINS_A_SECOND ((unsigned)(SECOND / SIM_BIN_NS))
#define MAX_FLOWS 5000u
#define EVEN 0.95

struct experiment {
    const char *name, *what;
    double mbit;
    unsigned limiters, flows;
    unsigned seconds;
    unsigned changes_at; /* seconds: figures are of what follows */
    double burst;
    void (*plan)(const struct experiment *experiment, struct sim_flow *flows);
    double control_loss;
    unsigned parted_from, parted_to; /* seconds */
    double paper_fps, paper_grd;     /* Jain's index there; 0: not given */
};

struct row {
    double mean, deviation, deviation_tenth, highest, jain, settled, control;
};

static struct sim_flow bulk(unsigned limiter, unsigned rtt_ms, unsigned start_ms)
{
    return (struct sim_flow){
        .limiter = limiter, .rtt_ns = rtt_ms * MILLISECOND, .start_ns = start_ms * MILLISECOND, .access = 12.5e6};
}

static void three_and_seven(const struct experiment *experiment, struct sim_flow *flows)
{
    for (unsigned i = 0; i < experiment->flows; i++)
        flows[i] = bulk(i >= 3, 40, 10 * i);
}

/* One more limiter gets flows every ten seconds. */
static void joining(const struct experiment *experiment, struct sim_flow *flows)
{
    for (unsigned i = 0; i < experiment->flows; i++)
        flows[i] = bulk(i % experiment->limiters, 40, i % experiment->limiters * 10000 + 10 * i);
}

static void bulk_and_web(const struct experiment *experiment, struct sim_flow *flows)
{
    for (unsigned i = 0; i < experiment->flows; i++) {
        flows[i] = bulk(i >= 10, 40, 10 * i);
        if (i < 10)
            continue;
        flows[i].packets = 5 + i % 3 * 10;
        flows[i].think_ns = 2 * SECOND;
    }
}

/* Half way, the seven flows of the second limiter find 100 kbit/s each elsewhere. */
static void bottleneck(const struct experiment *experiment, struct sim_flow *flows)
{
    three_and_seven(experiment, flows);
    for (unsigned i = 3; i < experiment->flows; i++) {
        flows[i].access_later = 12500;
        flows[i].access_at_ns = experiment->changes_at * SECOND;
    }
}

static void mixed_rtt(const struct experiment *experiment, struct sim_flow *flows)
{
    for (unsigned i = 0; i < experiment->flows; i++)
        flows[i] = bulk(i >= experiment->flows / 2, i >= experiment->flows / 2 ? 100 : 20, 10 * i);
}

static void evenly(const struct experiment *experiment, struct sim_flow *flows)
{
    for (unsigned i = 0; i < experiment->flows; i++) {
        flows[i] = bulk(i % experiment->limiters, 40, i % 1000);
        flows[i].tcp = i / experiment->limiters % 2 ? SIM_CUBIC : SIM_RENO;
    }
}

static const struct experiment experiments[] = {
    {"baseline", "3 and 7 flows", 10, 2, 10, 60, 10, 75000, three_and_seven, 0, 0, 0, 0.962, 0.997},
    {"start-up", "the same, from the start", 10, 2, 10, 20, 0, 75000, three_and_seven, 0, 0, 0, 0, 0},
    {"join", "flows join, one limiter more every 10 s", 50, 5, 50, 90, 40, 75000, joining, 0, 0, 0, 0, 0},
    {"web", "10 bulk flows; 60 short ones elsewhere", 10, 2, 70, 60, 10, 75000, bulk_and_web, 0, 0, 0, 0, 0},
    {"bottleneck", "7 of 10 flows slow down", 10, 2, 10, 90, 30, 75000, bottleneck, 0, 0, 0, 0, 0},
    {"rtt", "round trips of 20 and 100 ms", 10, 2, 10, 60, 10, 75000, mixed_rtt, 0, 0, 0, 0, 0},
    {"loss-5%", "10 limiters, control lost", 50, 10, 50, 60, 10, 75000, evenly, 0.05, 0, 0, 0, 0},
    {"loss-20%", "10 limiters, control lost", 50, 10, 50, 60, 10, 75000, evenly, 0.2, 0, 0, 0, 0},
    {"partition", "two halves that do not hear each other", 50, 10, 50, 60, 20, 75000, evenly, 0, 20, 60, 0, 0},
    {"flows", "5,000 flows", 500, 10, 5000, 30, 10, 750000, evenly, 0, 0, 0, 0, 0},
    {"490", "490 limiters", 50, 490, 980, 60, 20, 6000, evenly, 0, 0, 0, 0, 0},
    {"1000", "1,000 limiters", 500, 1000, 2000, 30, 10, 6000, evenly, 0, 0, 0, 0, 0},
};

static double jain(const double *values, unsigned count)
{
    double sum = 0, squares = 0;

    for (unsigned i = 0; i < count; i++) {
        sum += values[i];
        squares += values[i] * values[i];
    }
    return squares > 0 ? sum * sum / (count * squares) : 0;
}

/* Seconds until the limiters' rates per flow are even; -1: never. */
static double settled(const struct experiment *experiment, const struct sim_flow *flows,
                      const struct sim_result *result)
{
    static double rates[DRL_MAX_LIMITERS], flows_of[DRL_MAX_LIMITERS];
    unsigned from = experiment->changes_at * BINS_A_SECOND;

    memset(flows_of, 0, sizeof flows_of);
    for (unsigned i = 0; i < experiment->flows; i++)
        flows_of[flows[i].limiter]++;
    for (unsigned bin = from; bin + BINS_A_SECOND <= result->bins; bin++) {
        unsigned count = 0;
        for (unsigned l = 0; l < experiment->limiters; l++) {
            if (flows_of[l] == 0)
                continue;
            rates[count] = 0;
            for (unsigned i = bin; i < bin + BINS_A_SECOND; i++)
                rates[count] += result->limiter_bins[(size_t)l * result->bins + i];
            rates[count++] /= flows_of[l];
        }
        if (jain(rates, count) >= EVEN)
            return (double)(bin - from + BINS_A_SECOND) / BINS_A_SECOND;
    }
    return -1;
}

/* Mean, deviation and the highest of windows of so many bins, as shares of the limit. */
static void windows(const struct experiment *experiment, const struct sim_result *result, unsigned bins, double *mean,
                    double *deviation, double *highest)
{
    double sum = 0, squares = 0, most = 0, full = experiment->mbit * 1e6 / 8 * bins / BINS_A_SECOND;
    unsigned count = 0;

    for (unsigned bin = experiment->changes_at * BINS_A_SECOND; bin + bins <= result->bins; bin += bins) {
        double bytes = 0;
        for (unsigned i = bin; i < bin + bins; i++)
            bytes += result->passed[i] / full;
        sum += bytes;
        squares += bytes * bytes;
        most = fmax(most, bytes);
        count++;
    }
    *mean = sum / count;
    *deviation = sqrt(fmax(squares / count - *mean * *mean, 0));
    *highest = most;
}

static bool measure(const struct experiment *experiment, unsigned mode, uint64_t seed, const struct sim_flow *flows,
                    struct row *row)
{
    const struct sim_setup setup = {
        .mode = mode,
        .rate = experiment->mbit * 1e6 / 8,
        .burst = experiment->burst,
        .interval_ns = 50 * MILLISECOND,
        .limiters = experiment->limiters,
        .fanout = 3,
        .flows = flows,
        .flow_count = experiment->flows,
        .duration_ns = experiment->seconds * SECOND,
        .control_delay_ns = 10 * MILLISECOND,
        .control_loss = experiment->control_loss,
        .partition_from_ns = experiment->parted_from * SECOND,
        .partition_to_ns = experiment->parted_to * SECOND,
        .seed = seed,
    };
    struct sim_result result;
    bool done = sim_run(&setup, experiment->changes_at * SECOND, &result);
    double mean, highest;

    if (done) {
        windows(experiment, &result, BINS_A_SECOND, &row->mean, &row->deviation, &row->highest);
        windows(experiment, &result, 1, &mean, &row->deviation_tenth, &highest);
        row->jain = jain(result.flow_passed, experiment->flows);
        row->settled = settled(experiment, flows, &result);
        row->control =
            (double)result.updates * (SIM_HEADERS + SIM_UPDATE) * 8 / 1000 / experiment->seconds / experiment->limiters;
    }
    sim_free(&result);
    return done;
}

static void print_row(const struct experiment *experiment, const char *mode, const struct row *row)
{
    double paper = strcmp(mode, "fps") == 0   ? experiment->paper_fps
                   : strcmp(mode, "grd") == 0 ? experiment->paper_grd
                                              : 0;
    char settled[16] = "never", published[16] = "";

    if (row->settled >= 0)
        snprintf(settled, sizeof settled, "%.1f s", row->settled);
    if (paper > 0)
        snprintf(published, sizeof published, "  %.3f", paper);
    printf("  %-8s %6.1f %%  %6.1f %%  %6.1f %%  %6.1f %%   %.3f  %7s  %6.1f%s\n", mode, 100 * row->mean,
           100 * row->deviation, 100 * row->deviation_tenth, 100 * row->highest, row->jain, settled, row->control,
           published);
}

static json_t *row_json(const struct experiment *experiment, const char *mode, const struct row *row)
{
    return json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "experiment", experiment->name, "mode", mode,
                     "mean", row->mean, "deviation_1s", row->deviation, "deviation_100ms", row->deviation_tenth,
                     "highest_1s", row->highest, "jain", row->jain, "settled_seconds", row->settled, "control_kbit_s",
                     row->control);
}

/* Each way's fairness beside the central bucket's. */
static void compare(const struct experiment *experiment, const struct row *rows, struct report *report)
{
    static char names[DRL_MODES][32];

    for (unsigned mode = 0; mode < DRL_MODES; mode++) {
        snprintf(names[mode], sizeof names[mode], "drl: %s %s, Jain", experiment->name, drl_mode_names[mode]);
        struct figure *figure = report_figure(report, names[mode], "");
        samples_add(&figure->ours, rows[mode].jain);
        samples_add(&figure->reference, rows[SIM_CENTRAL].jain);
    }
}

static bool run_experiment(const struct experiment *experiment, const struct bench_options *options,
                           struct report *report, json_t *json)
{
    static struct sim_flow flows[MAX_FLOWS];
    struct row rows[SIM_CENTRAL + 1];

    experiment->plan(experiment, flows);
    if (!options->json)
        printf("%s: %s; %u limiters, %.0f Mbit/s\n"
               "  mode         mean  dev. 1s  dev. .1s  highest    Jain  settled  kbit/s  the paper's Jain\n",
               experiment->name, experiment->what, experiment->limiters, experiment->mbit);
    for (unsigned mode = 0; mode <= SIM_CENTRAL; mode++) {
        const char *name = mode == SIM_CENTRAL ? "central" : drl_mode_names[mode];
        if (!measure(experiment, mode, options->seed, flows, &rows[mode]))
            return false;
        json_array_append_new(json, row_json(experiment, name, &rows[mode]));
        if (!options->json)
            print_row(experiment, name, &rows[mode]);
    }
    if (experiment == experiments)
        compare(experiment, rows, report);
    return true;
}

int bench_drl(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    json_t *rows = json_array();
    bool done = true;

    (void)error;
    for (unsigned i = 0; done && i < sizeof experiments / sizeof *experiments; i++) {
        /* What has many flows takes seconds. */
        if (!options->quick || experiments[i].flows <= 100)
            done = run_experiment(&experiments[i], options, report, rows);
    }
    json_object_set_new(report->parameters, "drl", rows);
    return done ? 0 : SM_E_NO_MEMORY;
}
