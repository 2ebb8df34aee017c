/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How many flows a second a copying move takes from one replica to another, in a service that does nothing else: one
 * replica on each core, the switch shares the first's. And from one arena to another: one thread encodes, shard by
 * shard, the other decodes. A flow has a record of 64 bytes. Beside that, what operators run today: conntrackd's bulk
 * resynchronisation and HAProxy's peers, with as many entries (references/).
 */

#include "copying.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"
#include "replica/export.h"
#include "service.h"

#define AREAS 16u /* parts between the two threads */

/* From one arena to another. */
struct passage {
    struct sm_replica *from, *to;
    struct export_area *areas;
    _Atomic uint32_t filled, emptied; /* parts so far */
    uint32_t shards[AREAS];
    bool failed;
};

static struct export_area *wait_for_room(struct passage *passage, uint32_t filled)
{
    while (filled - atomic_load_explicit(&passage->emptied, memory_order_acquire) == AREAS)
        sched_yield();
    return &passage->areas[filled % AREAS];
}

/* Encode one shard, in as many parts as it takes. */
static uint32_t export_shard(struct passage *passage, uint32_t shard, uint32_t filled)
{
    uint32_t cursor = 0;

    do {
        struct export_area *area = wait_for_room(passage, filled);
        area->cursor = cursor;
        passage->failed |= export_part(passage->from, shard, area) > LANE_MORE;
        cursor = area->cursor;
        passage->shards[filled % AREAS] = shard;
        atomic_store_explicit(&passage->filled, ++filled, memory_order_release);
        if (!area->more)
            break;
    } while (!passage->failed);
    return filled;
}

static void *decode_all(void *arg)
{
    struct passage *passage = arg;
    bool last = false;

    bench_pin(1);
    for (uint32_t emptied = 0; !last; emptied++) {
        while (atomic_load_explicit(&passage->filled, memory_order_acquire) == emptied)
            sched_yield();
        const struct export_area *area = &passage->areas[emptied % AREAS];
        last = passage->shards[emptied % AREAS] == SM_SHARDS;
        if (!last && import_flows(passage->to, passage->shards[emptied % AREAS], area) != LANE_DONE)
            passage->failed = true;
        atomic_store_explicit(&passage->emptied, emptied + 1, memory_order_release);
    }
    return NULL;
}

static int pass(struct passage *passage, double *ms)
{
    pthread_t thread;
    uint32_t filled = 0;

    uint64_t begin = bench_now();
    if (pthread_create(&thread, NULL, decode_all, passage) != 0)
        return SM_E_NO_MEMORY;
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        if (state_shard_flows(passage->from->state, shard) > 0)
            filled = export_shard(passage, shard, filled);
    (void)wait_for_room(passage, filled);
    passage->shards[filled % AREAS] = SM_SHARDS;
    atomic_store_explicit(&passage->filled, filled + 1, memory_order_release);
    pthread_join(thread, NULL);
    *ms = (double)(bench_now() - begin) / 1e6;
    return passage->failed ? SM_E_STATE : 0;
}

static struct service_options spread(const struct bench_options *options, sm_class *cls, unsigned replicas)
{
    struct service_options wanted = service_of_counters(replicas, options->flows, options->seed, cls);

    wanted.threads = replicas > 1;
    wanted.spread = true;
    return wanted;
}

/* All flows of a service to an arena that has none. */
static int pass_all(const struct bench_options *options, struct service *from, struct samples *rates,
                    struct sm_errbuf *error)
{
    sm_class cls;
    const struct service_options other = spread(options, &cls, 1);
    struct passage passage = {.from = from->replicas[0].replica, .areas = calloc(AREAS, sizeof *passage.areas)};
    struct service to;
    double ms = 0;
    int result = passage.areas ? service_open(&to, &other, error) : SM_E_NO_MEMORY;

    if (result == 0) {
        service_populate(&to);
        passage.to = to.replicas[0].replica;
        result = pass(&passage, &ms);
        replica_progress(passage.to);
        struct state_usage usage;
        state_usage(to.arena->state, &usage);
        if (result == 0 && usage.flows_live != options->flows) {
            snprintf(error->text, sizeof error->text, "not all flows arrived");
            result = SM_E_STATE;
        }
    }
    if (passage.areas)
        result = service_close(&to, result, error);
    free(passage.areas);
    samples_add(rates, options->flows / ms / 1e3);
    return result;
}

/* What operators run today. */
enum { CONNTRACKD, HAPROXY, OPERATORS };

static const char *const programs[OPERATORS] = {"sm-bench-conntrackd", "sm-bench-haproxy"};

struct findings {
    struct figure *copy, *relabel, *arenas, *operators[OPERATORS];
    struct reference references[OPERATORS];
};

static void start_operators(const struct bench_options *options, struct findings *found)
{
    char flows[16], seconds[32], seed[24];
    const char *const arguments[] = {flows, seconds, seed, NULL};

    snprintf(flows, sizeof flows, "%u", options->flows);
    snprintf(seconds, sizeof seconds, "%g", options->seconds);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)options->seed);
    for (unsigned i = 0; i < OPERATORS; i++) {
        reference_start(&found->references[i], programs[i], "all of bench", arguments);
        strcpy(found->operators[i]->missing, found->references[i].missing);
    }
}

/* One that fails is not asked again. */
static void ask_operators(struct findings *found)
{
    struct sm_errbuf ignored;

    for (unsigned i = 0; i < OPERATORS; i++) {
        struct figure *figure = found->operators[i];
        double rate;
        samples_add(&figure->ours, found->arenas->ours.value[found->arenas->ours.count - 1]);
        if (figure->missing[0])
            continue;
        if (reference_ask(&found->references[i], &rate, 1, &ignored) == 0) {
            samples_add(&figure->reference, rate / 1e6);
        } else {
            snprintf(figure->missing, sizeof figure->missing, "missing: %s has failed", programs[i]);
            figure->reference.count = 0;
        }
    }
}

static int repeat(const struct bench_options *options, struct service *service, struct findings *found, unsigned round,
                  struct sm_errbuf *error)
{
    double bare, copy, relabel;
    int result = bench_copying_reference(options, &bare);

    if (result == 0)
        result = service_move_all(service, (round + 1) % 2, true, &copy, error);
    if (result == 0)
        result = service_move_all(service, round % 2, false, &relabel, error);
    if (result == 0)
        result = service_move_all(service, (round + 1) % 2, false, &relabel, error);
    if (result)
        return result;
    samples_add(&found->copy->ours, options->flows / copy / 1e3);
    samples_add(&found->copy->reference, options->flows / bare / 1e3);
    samples_add(&found->relabel->ours, options->flows / relabel / 1e3);
    samples_add(&found->arenas->reference, options->flows / bare / 1e3);
    result = pass_all(options, service, &found->arenas->ours, error);
    if (result == 0)
        ask_operators(found);
    return result;
}

int bench_copying(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    sm_class cls;
    const struct service_options both = spread(options, &cls, 2);
    struct findings found = {
        .copy = report_figure(report, "move: flows, by copying, idle", "M/s"),
        .relabel = report_figure(report, "move: flows, by relabelling, idle", "M/s"),
        .arenas = report_figure(report, "move: flows, from one arena to another", "M/s"),
        .operators = {[CONNTRACKD] =
                          report_figure(report, "move: the same, beside conntrackd's bulk resynchronisation", "M/s"),
                      [HAPROXY] = report_figure(report, "move: the same, beside HAProxy's peers on restart", "M/s")},
    };
    struct service service;
    int result = service_open(&service, &both, error);

    found.arenas->target = (struct target){TARGET_AT_LEAST, 5};
    if (result == 0) {
        service_populate(&service);
        result = service_warm(&service, options->flows, error);
    }
    start_operators(options, &found);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        result = repeat(options, &service, &found, i, error);
    for (unsigned i = 0; i < OPERATORS; i++)
        reference_end(&found.references[i]);
    return service_close(&service, result, error);
}
