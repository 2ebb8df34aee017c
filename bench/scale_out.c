/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * FreeFlow's scale-out: load rises until the one replica at work is a hot spot; then a second one, which stands by, is
 * used. Either half of the flows move to it, or it gets new flows only, as load balancers do it. The same load for
 * both: flows that last as real ones do, each sending faster and faster until the first replica would need a third more
 * than it has. A run has one worst packet, which says little:
 * what counts is the median of several runs, and their spread.
 *
 * Latency is that of packets due from the moment on at which the second replica is used, from when each was due until
 * it left: so those count that come behind the backlog, not those that it is made of, which are late with either
 * strategy.
 *
 * Replicas are processes, each held to a part of a core; a packet costs them a fixed time of it, and about a fifth more
 * where they slept before. So two of them are well able to carry the load. New flows only: flows'
 * keys are such that all old flows are in the first replica's shards and all later ones in the second's, from the
 * moment on at which the other strategy moves; with that one old and later ones are spread over both. The switch is the
 * same for both.
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "lengths.h"
#include "load.h"
#include "process.h"
#include "share.h"

#define PART 0.25       /* of a core that a replica has */
#define WORK_NS 100000u /* of it that a packet takes */
#define RATE_FROM 0.5   /* load, in what one replica can do */
#define RATE_TO 1.3
#define HOT 0.7  /* what wakes and switches of context take is not a replica's */
#define RISE 0.3 /* of a run's time */
#define HOT_FROM                                                                                                       \
    (RISE * (HOT - RATE_FROM) / (RATE_TO - RATE_FROM)) /* of it: from then on a replica may be a hot spot */
#define LATEST 0.6                                     /* of it: from then on nothing more is waited for */
#define RUN_SECONDS 3.0                                /* of one second that a measurement lasts */
#define HOT_NS 10000000u                               /* of waiting: a hot spot, if the load is one; this is */
#define HOT_PACKETS (HOT_NS * PART / WORK_NS)          /* so many packets */
#define LATE_NS (2 * HOT_NS)                           /* too late, whoever is slow */
#define FLOWS 1000u
#define REPLICAS 2u
#define PATIENCE_NS 20000000000ull

enum strategy { NEW_FLOWS_ONLY, MOVE, STRATEGIES };

struct run {
    struct service service;
    struct load load;
    struct process processes[REPLICAS];
    struct share shares[REPLICAS];
    sm_class cls;
    double scaled; /* seconds */
};

/* The counter's work, and the rest of what a packet costs. */
static void work(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint64_t until = bench_thread_cpu() + WORK_NS;

    counter_packet(replica, packet, user);
    while (bench_thread_cpu() < until)
        ;
}

static int open_run(struct run *run, const struct bench_options *options, struct sm_errbuf *error)
{
    const double capacity = PART * 1e9 / WORK_NS;
    struct service_options wanted = service_of_counters(0, 100 * FLOWS, options->seed, &run->cls);

    wanted.threads = wanted.sleepy = true;
    wanted.on_packet = work;
    int result = load_in(&run->load, &wanted.in);

    if (result == 0)
        result = load_out(&run->load, &wanted.out);
    if (result == 0)
        result = service_open(&run->service, &wanted, error);
    if (result)
        return result;
    const struct load_options load = {.state = run->service.arena->state,
                                      .flows = FLOWS,
                                      .rate_from = RATE_FROM * capacity,
                                      .rate_to = RATE_TO * capacity,
                                      .rise = RISE * RUN_SECONDS * options->seconds,
                                      .seed = options->seed};
    result = load_open(&run->load, &load);
    if (result == 0)
        result = processes_register(&run->service, error);
    for (unsigned i = 0; result == 0 && i < REPLICAS; i++) {
        result = process_start(&run->service, &run->processes[i], i + 1);
        if (result == 0)
            result = switch_assign(run->service.sw, i * (SM_SHARDS / 2), (i + 1) * (SM_SHARDS / 2) - 1,
                                   (unsigned)run->processes[i].slot);
        if (result == 0 && !share_add(&run->shares[i], run->processes[i].pid))
            result = SM_E_PERMISSION;
    }
    if (result == 0)
        switch_start(run->service.sw);
    return result;
}

/* The second replica is used from now on. */
static int scale(struct run *run, enum strategy strategy)
{
    struct sm_switch *sw = run->service.sw;

    run->load.counting_from = bench_now();
    run->scaled = (double)(run->load.counting_from - run->load.begin) / 1e9;
    if (strategy == NEW_FLOWS_ONLY) {
        run->load.first_shard = SM_SHARDS / 2;
        run->load.last_shard = SM_SHARDS - 1;
        return 0;
    }
    int result = switch_move_begin(sw, bench_now() + PATIENCE_NS, false);
    if (result == 0)
        result = switch_move_add(sw, SM_SHARDS / 4, SM_SHARDS / 2 - 1, (unsigned)run->processes[1].slot);
    if (result == 0)
        switch_move_go(sw);
    return result;
}

/* All of the load, and until nothing is on its way any more. */
static int pass(struct run *run, enum strategy strategy, double seconds, struct sm_errbuf *error)
{
    struct sm_switch *sw = run->service.sw;
    uint64_t begin = bench_now(), patience = begin + (uint64_t)(seconds * 1e9) + PATIENCE_NS;
    int result = 0;

    run->scaled = -1;
    while (result == 0 && (!run->load.stopped || sw->in_flight > 0 || sw->operation.active)) {
        service_turn(&run->service);
        uint64_t now = bench_now();
        double at = (double)(now - begin) / 1e9 / seconds;
        /* Packets that wait earlier do so because the machine has stopped for a moment. */
        if (run->scaled < 0 && at > HOT_FROM && (sw->in_flight > HOT_PACKETS || at > LATEST))
            result = scale(run, strategy);
        run->load.stopped = at >= 1 && run->load.late.count > 0;
        if (now > patience || sw->error[0])
            result = SM_E_STATE;
    }
    if (result)
        snprintf(error->text, sizeof error->text, "%.200s",
                 sw->error[0] ? sw->error : "the replicas do not keep up, or cannot be moved");
    return result;
}

static int close_run(struct run *run, int result, struct sm_errbuf *error)
{
    result = service_close(&run->service, result, error);
    for (unsigned i = 0; i < REPLICAS; i++)
        if (run->processes[i].pid > 0) {
            if (result)
                kill(run->processes[i].pid, SIGKILL);
            process_bury(&run->processes[i]);
        }
    load_free(&run->load);
    return result;
}

struct findings {
    struct figure *max, *p99, *p50, *above[STRATEGIES], *unsent[STRATEGIES];
    struct plot *plot;
};

static void draw(struct findings *found, const struct run *run, enum strategy strategy)
{
    struct curve *curve = plot_curve(found->plot, strategy == MOVE ? "half of the flows move" : "new flows only");

    for (unsigned bin = 0; bin < LOAD_BINS; bin++)
        if (run->load.worst[bin] > 0)
            curve_add(curve, bin * (LOAD_BIN_NS / 1e9), (double)run->load.worst[bin] / 1e6);
    double most = (double)run->load.late.max / 1e6;
    if (strategy == NEW_FLOWS_ONLY) {
        plot_mark(found->plot, "the paper: 25 % lower", false, 0.75 * most);
        plot_mark(found->plot, "asked: 90 % lower", false, 0.1 * most);
    } else {
        plot_mark(found->plot, "second replica used", true, run->scaled);
    }
}

/* For how long packets left that were LATE_NS late or more, ms. */
static double time_above(const struct run *run)
{
    unsigned above = 0;

    for (unsigned bin = 0; bin < LOAD_BINS; bin++)
        above += run->load.worst[bin] >= LATE_NS;
    return above * (LOAD_BIN_NS / 1e6);
}

static int measure(const struct bench_options *options, struct run *run, enum strategy strategy, struct findings *found,
                   struct sm_errbuf *error)
{
    double seconds = RUN_SECONDS * options->seconds;

    int result = open_run(run, options, error);
    if (result == 0)
        result = pass(run, strategy, seconds, error);
    if (result == 0) {
        const struct histogram *late = &run->load.late;
        bool ours = strategy == MOVE;
        samples_add(ours ? &found->max->ours : &found->max->reference, (double)late->max / 1e6);
        samples_add(ours ? &found->p99->ours : &found->p99->reference, (double)histogram_quantile(late, 0.99) / 1e6);
        samples_add(ours ? &found->p50->ours : &found->p50->reference, (double)histogram_quantile(late, 0.5) / 1e6);
        samples_add(&found->above[strategy]->ours, time_above(run));
        samples_add(&found->unsent[strategy]->ours,
                    100 * (double)(run->load.sent - run->load.received) / (double)run->load.sent);
        if (found->max->ours.count + found->max->reference.count <= STRATEGIES)
            draw(found, run, strategy);
    }
    return close_run(run, result, error);
}

static void name_figures(struct report *report, struct findings *found)
{
    *found = (struct findings){
        .max = report_figure(report, "scale-out: latency once scaled, max, beside new flows only", "ms"),
        .p99 = report_figure(report, "scale-out: latency once scaled, p99, beside new flows only", "ms"),
        .p50 = report_figure(report, "scale-out: latency once scaled, p50, beside new flows only", "ms"),
        .above = {[MOVE] = report_figure(report, "scale-out: time with packets over 20 ms late, moving", "ms"),
                  [NEW_FLOWS_ONLY] =
                      report_figure(report, "scale-out: time with packets over 20 ms late, new flows only", "ms")},
        .unsent = {[MOVE] = report_figure(report, "scale-out: packets without room, moving", "%"),
                   [NEW_FLOWS_ONLY] = report_figure(report, "scale-out: packets without room, new flows only", "%")},
        .plot = report_plot(report, "scale-out", "scale-out: the worst packet of each 10 ms", "s", "latency, ms"),
    };
    found->max->ratio = (struct target){TARGET_AT_MOST, 0.1};
    found->unsent[MOVE]->target = (struct target){TARGET_AT_MOST, 0};
    found->plot->log_y = true;
}

static void say_missing(struct report *report)
{
    for (unsigned i = 0; i < report->count; i++)
        if (strncmp(report->figures[i].name, "scale-out:", 10) == 0)
            snprintf(report->figures[i].missing, sizeof report->figures[i].missing,
                     "missing: no control group with a CPU quota here");
}

int bench_scale_out(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    static struct run run;
    struct findings found;
    bool held = true;
    int result = 0;

    bench_pin(0);
    name_figures(report, &found);
    for (unsigned i = 0; i < REPLICAS; i++)
        held &= share_open(&run.shares[i], i, PART);
    for (unsigned i = 0; held && result == 0 && i < options->repeat; i++)
        for (unsigned strategy = 0; result == 0 && strategy < STRATEGIES; strategy++)
            result = measure(options, &run, strategy, &found, error);
    if (!held)
        say_missing(report);
    for (unsigned i = 0; i < REPLICAS; i++)
        share_close(&run.shares[i]);
    json_object_set_new(report->parameters, "scale-out",
                        json_pack("{s:f, s:i, s:f, s:f, s:i, s:i, s:i, s:s, s:s}", "core_part", PART, "packet_work_ns",
                                  (int)WORK_NS, "load_from", RATE_FROM, "load_to", RATE_TO, "flows", (int)FLOWS,
                                  "buffers", (int)SERVICE_BUFFERS, "hot_spot_packets", (int)HOT_PACKETS, "flow_lengths",
                                  LENGTHS_WORDS, "latency",
                                  "of packets due once the second replica is used, until they left"));
    return result;
}
