/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * OpenNF's experiment (SIGCOMM 2014, figure 10): 500 flows move from one function to another while 2,500 packets a
 * second come. Ours, as a relabel and as a copy, beside its loss-free ordered and its loss-free move, and FreeFlow's
 * suspend-and-buffer, rebuilt on our ports, parser, tables and rings (rivals/). With each goes the latency of the worst
 * packet that was due between the move's begin and a few milliseconds past its end.
 *
 * Ours moves the shards that have one of the flows: as many shards as flows, nearly.
 */

#include "opennf.h"

#include <stdio.h>

#include "latency.h"
#include "rivals/rival.h"
#include "service.h"

#define FLOWS 500u
#define RATE 2500u
#define MOVES 5u /* in one repetition */
#define REST_NS 20000000ull
#define WARM_NS (FLOWS * 1100000000ull / RATE) /* a packet of each flow */
#define PATIENCE_NS 20000000000ull

enum way { RELABEL, COPY, ORDERED, LOSS_FREE, SUSPEND, WAYS };

static const enum rival_move rival_ways[WAYS] = {
    [ORDERED] = RIVAL_ORDERED, [LOSS_FREE] = RIVAL_LOSS_FREE, [SUSPEND] = RIVAL_SUSPEND};

/* Of one repetition. */
struct result {
    struct samples ms, worst_ms;
    uint64_t reordered;
};

/* The shards that have a flow, from whoever has them to the other replica; ms. */
static int move(struct service *service, bool copy, double *ms, struct sm_errbuf *error)
{
    struct sm_switch *sw = service->sw;
    const struct state *state = service->arena->state;
    int result = switch_move_begin(sw, bench_now() + PATIENCE_NS, false);

    if (result == 0 && copy)
        result = switch_move_copy(sw, error);
    for (uint32_t shard = 0; result == 0 && shard < SM_SHARDS; shard++)
        if (state_shard_flows(state, shard) > 0)
            result = switch_move_add(sw, shard, shard, 1u - sw->shards[shard].owner);
    if (result)
        return result;
    uint64_t begin = bench_now();
    switch_move_go(sw);
    while (sw->operation.active)
        service_turn(service);
    *ms = (double)(bench_now() - begin) / 1e6;
    if (sw->operation.abandoned == 0 && sw->operation.flows == FLOWS)
        return 0;
    snprintf(error->text, sizeof error->text, "%u of %u flows moved: %s", (unsigned)sw->operation.flows, FLOWS,
             sw->operation.cause);
    return SM_E_STATE;
}

static int repeat_ours(struct service *service, struct latency_port *out, bool copy, struct result *found,
                       struct sm_errbuf *error)
{
    for (unsigned i = 0; i < MOVES; i++) {
        double ms;
        latency_begin(out);
        int result = move(service, copy, &ms, error);
        if (result)
            return result;
        service_rest(service, REST_NS);
        samples_add(&found->ms, ms);
        samples_add(&found->worst_ms, (double)out->latencies.max / 1e6);
    }
    return 0;
}

static int repeat_rival(enum rival_move how, struct result *found, struct sm_errbuf *error)
{
    static struct rival rival;
    struct sm_errbuf closing;
    int result = rival_open(&rival, FLOWS, RATE, error);

    if (result == 0)
        rival_rest(&rival, WARM_NS);
    for (unsigned i = 0; i < MOVES && result == 0; i++) {
        double ms;
        latency_begin(rival.out);
        result = rival_move(&rival, how, &ms, error);
        rival_rest(&rival, REST_NS);
        samples_add(&found->ms, ms);
        samples_add(&found->worst_ms, (double)rival.out->latencies.max / 1e6);
    }
    int closed = rival_close(&rival, &closing);
    found->reordered = rival.reordered;
    if (result == 0 && closed != 0) {
        result = closed;
        *error = closing;
    }
    if (result == 0 && how == RIVAL_ORDERED && rival.reordered > 0) {
        snprintf(error->text, sizeof error->text, "OpenNF's ordered move, rebuilt, has reordered packets");
        result = SM_E_STATE;
    }
    return result;
}

/* Ours beside theirs: time, latency. */
struct pair {
    enum way ours, theirs;
    const char *time, *latency;
    struct target target;
    struct figure *time_figure, *latency_figure;
};

static struct pair pairs[] = {
    {RELABEL,
     ORDERED,
     "move: 500 flows at 2,500/s, beside OpenNF ordered",
     "move: 500 flows, worst packet, beside OpenNF ordered",
     {TARGET_AT_MOST, 0.002},
     NULL,
     NULL},
    {COPY,
     ORDERED,
     "move: 500 flows by copying, beside OpenNF ordered",
     "move: 500 flows by copying, worst packet, beside that",
     {TARGET_AT_MOST, 0.02},
     NULL,
     NULL},
    {RELABEL,
     LOSS_FREE,
     "move: 500 flows, beside OpenNF loss-free",
     "move: 500 flows, worst packet, beside that",
     {0},
     NULL,
     NULL},
    {RELABEL,
     SUSPEND,
     "move: 500 flows, beside FreeFlow's suspend-and-buffer",
     "move: 500 flows, worst packet, beside that one",
     {0},
     NULL,
     NULL},
};

#define PAIRS (sizeof pairs / sizeof *pairs)

static void note(const struct result *results)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        const struct result *ours = &results[pairs[i].ours], *theirs = &results[pairs[i].theirs];
        samples_add(&pairs[i].time_figure->ours, samples_median(&ours->ms));
        samples_add(&pairs[i].time_figure->reference, samples_median(&theirs->ms));
        samples_add(&pairs[i].latency_figure->ours, samples_median(&ours->worst_ms));
        samples_add(&pairs[i].latency_figure->reference, samples_median(&theirs->worst_ms));
    }
}

static int repeat(struct service *service, struct latency_port *out, struct result *results, struct sm_errbuf *error)
{
    struct sm_port *generator;
    int result = sm_port_open_generator(&generator, FLOWS, 64, 0, RATE);

    if (result)
        return result;
    service_input(service, generator); /* of its own: one that waited meanwhile would make up for it */
    service_rest(service, REST_NS);
    for (enum way way = 0; way < WAYS && result == 0; way++)
        result = way <= COPY ? repeat_ours(service, out, way == COPY, &results[way], error)
                             : repeat_rival(rival_ways[way], &results[way], error);
    return result;
}

static int open_service(struct service *service, sm_class *cls, const struct bench_options *options,
                        struct sm_errbuf *error)
{
    struct service_options wanted = service_of_counters(2, FLOWS, options->seed, cls);

    wanted.threads = true;
    int result = service_open(service, &wanted, error);

    return result ? result : service_warm(service, FLOWS, error);
}

int bench_opennf(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct service service;
    struct latency_port *out = NULL;
    sm_class cls;

    bench_pin(0);
    int result = open_service(&service, &cls, options, error);
    if (result == 0 && !(out = latency_output(&service)))
        result = SM_E_NO_MEMORY;
    for (unsigned i = 0; i < PAIRS; i++) {
        pairs[i].time_figure = report_figure(report, pairs[i].time, "ms");
        pairs[i].latency_figure = report_figure(report, pairs[i].latency, "ms");
        pairs[i].time_figure->ratio = pairs[i].target;
    }
    struct figure *reordered = report_figure(report, "move: packets that OpenNF's loss-free move reordered", "");
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        struct result results[WAYS] = {0};
        result = repeat(&service, out, results, error);
        if (result == 0)
            note(results);
        samples_add(&reordered->ours, (double)results[LOSS_FREE].reordered);
    }
    result = service_close(&service, result, error);
    json_object_set_new(json_object_get(report->parameters, "move"), "opennf",
                        json_pack("{s:i, s:i, s:i, s:s}", "flows", (int)FLOWS, "rate_pps", (int)RATE, "moves",
                                  (int)MOVES, "messages", "JSON over stream sockets"));
    return result;
}
