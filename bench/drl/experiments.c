/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The experiments of "Cloud Control with Distributed Rate Limiting" (SIGCOMM 2007), in the simulator: each way of
 * sharing a limit, and one central bucket beside them, in the same run. figures.h says what the columns mean.
 *
 * Small ones are repeated with other seeds, and their figures are means; those with thousands of flows are run once.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "drl/outcome.h"
#include "drl/page.h"
#include "drl/paper.h"

#define EVEN 0.95      /* rates per flow are even from this index on; */
#define EVEN_SOME 0.98 /* where those under one bucket are not, from this part of theirs on */
#define SMALL 200u     /* flows */

/* What the default mode is held to. */
#define WITHIN_SECOND 0.01
#define WITHIN_TENTH 0.03
#define JAIN_LEAST 0.99
#define SETTLED_MOST 1.0
#define CONTROL_MOST 5.0
#define ROUNDING 0.0005

const char *outcome_mode_name(unsigned mode)
{
    return mode == SIM_CENTRAL ? "central" : drl_mode_names[mode];
}

static void add(struct figures *sum, const struct figures *one, double part)
{
    sum->mean += part * one->mean;
    sum->miss_second += part * one->miss_second;
    sum->miss_tenth += part * one->miss_tenth;
    sum->beside_second += part * one->beside_second;
    sum->beside_tenth += part * one->beside_tenth;
    sum->jain += part * one->jain;
    sum->even += part * one->even;
    sum->control += part * one->control;
    sum->highest = fmax(sum->highest, one->highest);
    sum->settled = sum->settled < 0 || one->settled < 0 ? -1 : fmax(sum->settled, one->settled);
}

/* All modes with one seed; the first one's runs are kept. */
static bool run_seed(struct outcome *outcome, uint64_t seed, double part, bool keep)
{
    static struct sim_flow flows[PLAN_MAX_FLOWS];
    const struct experiment *experiment = outcome->experiment;
    double even = EVEN;

    experiment->plan(experiment, seed, flows);
    for (unsigned i = 0; i < OUTCOME_MODES; i++) {
        unsigned mode = i == 0 ? SIM_CENTRAL : i - 1; /* which says what is even */
        struct sim_result result;
        struct figures figures;
        if (!plan_run(experiment, mode, seed, flows, &result)) {
            sim_free(&result);
            return false;
        }
        figures_read(experiment, flows, &result, even, &figures);
        if (mode == SIM_CENTRAL && EVEN_SOME * figures.even < EVEN) {
            even = EVEN_SOME * figures.even;
            figures_read(experiment, flows, &result, even, &figures);
        }
        add(&outcome->figures[mode], &figures, part);
        if (keep)
            outcome->runs[mode] = result;
        else
            sim_free(&result);
    }
    return true;
}

static void print_outcome(const struct outcome *outcome)
{
    const struct experiment *experiment = outcome->experiment;

    printf("%s: %s; %u limiter%s, %.0f Mbit/s, %u seed%s\n"
           "  mode         mean  miss 1s  miss .1s  beside 1s  beside .1s  highest   Jain  settled  kbit/s\n",
           experiment->name, experiment->what, experiment->limiters, experiment->limiters == 1 ? "" : "s",
           experiment->mbit, outcome->seeds, outcome->seeds == 1 ? "" : "s");
    for (unsigned mode = 0; mode < OUTCOME_MODES; mode++) {
        const struct figures *f = &outcome->figures[mode];
        char settled[16] = "-";
        if (experiment->settles)
            snprintf(settled, sizeof settled, f->settled < 0 ? "never" : "%.1f s", f->settled);
        printf("  %-8s %6.1f %%  %5.1f %%   %5.1f %%    %5.1f %%     %5.1f %%  %5.1f %%  %.3f  %7s  %6.1f\n",
               outcome_mode_name(mode), 100 * f->mean, 100 * f->miss_second, 100 * f->miss_tenth,
               100 * f->beside_second, 100 * f->beside_tenth, 100 * f->highest, f->jain, settled, f->control);
    }
}

static void outcome_json(const struct outcome *outcome, json_t *rows)
{
    for (unsigned mode = 0; mode < OUTCOME_MODES; mode++) {
        const struct figures *f = &outcome->figures[mode];
        json_array_append_new(rows, json_pack("{s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                                              "experiment", outcome->experiment->name, "mode", outcome_mode_name(mode),
                                              "limiters", (int)outcome->experiment->limiters, "seeds",
                                              (int)outcome->seeds, "mean", f->mean, "miss_1s", f->miss_second,
                                              "miss_100ms", f->miss_tenth, "beside_1s", f->beside_second,
                                              "beside_100ms", f->beside_tenth, "highest_1s", f->highest, "jain",
                                              f->jain, "settled_seconds", f->settled, "control_kbit_s", f->control));
    }
}

void outcome_judge(const struct outcome *outcome, struct verdict *verdict)
{
    const struct figures *ours = &outcome->figures[DRL_POOL], *central = &outcome->figures[SIM_CENTRAL];

    verdict->second = ours->miss_second - central->miss_second;
    verdict->tenth = ours->miss_tenth - central->miss_tenth;
    verdict->jain = ours->jain - central->jain;
    verdict->within_second = verdict->second <= WITHIN_SECOND + ROUNDING;
    verdict->within_tenth = verdict->tenth <= WITHIN_TENTH + ROUNDING;
    verdict->fair =
        verdict->jain >= -ROUNDING && (!outcome->experiment->settles || ours->jain >= JAIN_LEAST - ROUNDING);
    verdict->settled = !outcome->experiment->settles || (ours->settled >= 0 && ours->settled <= SETTLED_MOST);
    verdict->frugal = ours->control <= CONTROL_MOST;
}

/* What is asked of the default mode: the worst over the experiments. */
static void worst(const struct outcome *outcomes, unsigned count, struct report *report)
{
    double second = -INFINITY, tenth = -INFINITY, jain = INFINITY, above = INFINITY, settled = 0, control = 0;

    for (unsigned i = 0; i < count; i++) {
        const struct figures *ours = &outcomes[i].figures[DRL_POOL];
        struct verdict verdict;
        /* Where demand shifts. */
        if (outcomes[i].experiment->epoch == 0)
            continue;
        outcome_judge(&outcomes[i], &verdict);
        second = fmax(second, verdict.second);
        tenth = fmax(tenth, verdict.tenth);
        jain = fmin(jain, ours->jain);
        above = fmin(above, verdict.jain);
        settled = fmax(settled, ours->settled < 0 ? INFINITY : ours->settled);
        control = fmax(control, ours->control);
    }
    const struct {
        const char *name, *unit;
        double value;
        struct target target;
    } rows[] = {
        {"drl: shifts, pool, miss over 1 s above central's", "%", 100 * second, {TARGET_AT_MOST, 100 * WITHIN_SECOND}},
        {"drl: shifts, pool, miss over 0.1 s above central's", "%", 100 * tenth, {TARGET_AT_MOST, 100 * WITHIN_TENTH}},
        {"drl: shifts, pool, Jain index of the flows", "", jain, {TARGET_AT_LEAST, JAIN_LEAST}},
        {"drl: shifts, pool, Jain above central's", "", above, {TARGET_AT_LEAST, 0}},
        {"drl: shifts, pool, settled", "s", settled, {TARGET_AT_MOST, SETTLED_MOST}},
        {"drl: shifts, pool, control of a limiter", "kbit/s", control, {TARGET_AT_MOST, CONTROL_MOST}},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct figure *figure = report_figure(report, rows[i].name, rows[i].unit);
        samples_add(&figure->ours, rows[i].value);
        figure->target = rows[i].target;
    }
}

static bool run_experiment(struct outcome *outcome, const struct bench_options *options)
{
    const struct experiment *experiment = outcome->experiment;

    outcome->seeds = experiment->flows <= SMALL ? options->repeat : 1;
    for (unsigned i = 0; i < outcome->seeds; i++)
        if (!run_seed(outcome, options->seed + i, 1.0 / outcome->seeds, i == 0))
            return false;
    return true;
}

int bench_drl(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct outcome *outcomes = calloc(experiment_count, sizeof *outcomes);
    json_t *rows = json_array();
    unsigned count = 0;
    int result = outcomes ? 0 : SM_E_NO_MEMORY;

    for (unsigned i = 0; result == 0 && i < experiment_count; i++) {
        /* What has many flows takes seconds. */
        if (options->quick && experiments[i].flows > 100)
            continue;
        outcomes[count].experiment = &experiments[i];
        if (!run_experiment(&outcomes[count], options))
            result = SM_E_NO_MEMORY;
        if (result == 0 && !options->json)
            print_outcome(&outcomes[count]);
        if (result == 0)
            outcome_json(&outcomes[count], rows);
        count++;
    }
    if (result == 0 && !options->json)
        paper_print(outcomes, count);
    if (result == 0)
        worst(outcomes, count, report);
    if (result == 0 && options->report)
        result = page_write(options->report, outcomes, count, options->seed, error);
    for (unsigned i = 0; i < count; i++)
        for (unsigned mode = 0; mode < OUTCOME_MODES; mode++)
            sim_free(&outcomes[i].runs[mode]);
    free(outcomes);
    json_object_set_new(report->parameters, "drl", rows);
    return result;
}
