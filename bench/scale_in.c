/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * FreeFlow's scale-in: how long until a replica is empty and can be ended. Ours: its flows move to the other replica,
 * under traffic of all of them. The reference, drain: it gets no new flows, and is empty once its last flow has ended;
 * that is a matter of how long flows last, so it is drawn from their lengths (lengths.h), not waited for.
 */

#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "lengths.h"
#include "service.h"

#define RATE 200000u /* packets a second */
#define REST_NS 20000000ull
#define PATIENCE_NS 20000000000ull
#define DRAWN 500u /* points of a curve */

struct findings {
    struct figure *empty, *half;
    struct plot *plot;
    struct curve *moving, *draining;
};

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

/* What is left of each flow, s, ascending. The caller frees. NULL: no memory. */
static double *residuals(uint32_t flows, uint64_t seed)
{
    double *left = malloc(flows * sizeof *left);

    for (uint32_t i = 0; left && i < flows; i++)
        left[i] = lengths_residual(&seed);
    if (left)
        qsort(left, flows, sizeof *left, ascending);
    return left;
}

static int drain(uint32_t flows, uint64_t seed, struct findings *found, bool draw)
{
    double *left = residuals(flows, seed);

    if (!left)
        return SM_E_NO_MEMORY;
    samples_add(&found->empty->reference, left[flows - 1] * 1e3);
    samples_add(&found->half->reference, left[flows / 2] * 1e3);
    for (uint32_t i = 0; draw && i < flows; i += 1 + flows / DRAWN)
        curve_add(found->draining, left[i], 100.0 * (flows - i) / flows);
    if (draw) {
        curve_add(found->draining, left[flows - 1], 0);
        plot_mark(found->plot, "the paper: 50 % quicker", true, left[flows - 1] / 2);
        plot_mark(found->plot, "asked: 99 % quicker", true, left[flows - 1] / 100);
    }
    free(left);
    return 0;
}

/* The upper half of the shards to a slot; the times until half of them and until all have gone, ms. */
static int empty(struct service *service, unsigned to, double *half, double *all, struct curve *curve,
                 struct sm_errbuf *error)
{
    struct sm_switch *sw = service->sw;
    const uint32_t shards = SM_SHARDS / 2;
    uint32_t shown = 0;
    int result = switch_move_begin(sw, bench_now() + PATIENCE_NS, false);

    if (result == 0)
        result = switch_move_add(sw, shards, SM_SHARDS - 1, to);
    *half = 0;
    uint64_t begin = bench_now();
    if (result == 0)
        switch_move_go(sw);
    while (result == 0 && sw->operation.active) {
        service_turn(service);
        double now = (double)(bench_now() - begin);
        if (*half == 0 && sw->operation.completed >= shards / 2)
            *half = now / 1e6;
        if (curve && sw->operation.completed >= shown) {
            curve_add(curve, now / 1e9, 100.0 * (shards - sw->operation.completed) / shards);
            shown = sw->operation.completed + shards / DRAWN;
        }
    }
    *all = (double)(bench_now() - begin) / 1e6;
    if (result == 0 && sw->operation.completed == shards)
        return 0;
    snprintf(error->text, sizeof error->text, "moves were abandoned: %s", sw->operation.cause);
    return SM_E_STATE;
}

/* The second replica empties, and gets its flows back. */
static int repeat(const struct bench_options *options, struct service *service, struct findings *found, bool draw,
                  struct sm_errbuf *error)
{
    struct sm_port *generator;
    double half, all, ignored;

    int result = sm_port_open_generator(&generator, 2 * options->flows, 64, 0, RATE);
    if (result)
        return result;
    service_input(service, generator);
    service_rest(service, REST_NS);
    result = empty(service, 0, &half, &all, draw ? found->moving : NULL, error);
    if (result)
        return result;
    samples_add(&found->empty->ours, all);
    samples_add(&found->half->ours, half);
    service_rest(service, REST_NS);
    result = empty(service, 1, &ignored, &ignored, NULL, error);
    return result ? result : drain(options->flows, options->seed + found->empty->ours.count, found, draw);
}

static void name_figures(struct report *report, struct findings *found)
{
    struct plot *plot = report_plot(report, "scale-in", "scale-in: what is left on the replica", "s", "% of its flows");

    *found = (struct findings){
        .empty = report_figure(report, "scale-in: until a replica is empty, beside drain", "ms"),
        .half = report_figure(report, "scale-in: until half of its flows have gone", "ms"),
        .plot = plot,
        .moving = plot_curve(plot, "move"),
        .draining = plot_curve(plot, "drain (from flow lengths)"),
    };
    found->empty->target = (struct target){TARGET_AT_MOST, 100};
    found->empty->ratio = (struct target){TARGET_AT_MOST, 0.01};
    plot->log_x = true;
}

int bench_scale_in(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct service service;
    struct findings found;
    sm_class cls;
    struct service_options wanted = service_of_counters(2, 2 * options->flows, options->seed, &cls);

    wanted.threads = wanted.halves = true;
    bench_pin(0);
    name_figures(report, &found);
    int result = service_open(&service, &wanted, error);
    if (result == 0)
        result = service_warm(&service, 2ull * options->flows, error);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        result = repeat(options, &service, &found, i == 0, error);
    result = service_close(&service, result, error);
    json_object_set_new(report->parameters, "scale-in",
                        json_pack("{s:i, s:i, s:s}", "rate_pps", (int)RATE, "flows_of_the_replica", (int)options->flows,
                                  "flow_lengths", LENGTHS_WORDS));
    return result;
}
