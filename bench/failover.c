/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How long it takes from a replica's SIGKILL until a survivor serves its flows, while packets flow: until every packet
 * has left that had entered when the kernel reported the death, those that the dead one had in its hands too. Replicas
 * are processes that share one core; the switch has the other. After each death a new replica gets half of the shards.
 */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "process.h"
#include "testing/random.h"

#define RATE 500000u /* packets a second */
#define KILLS 40u    /* in one repetition */
#define QUICK_KILLS 3u
#define REPLICAS 2u
#define REST_NS 10000000ull
#define PATIENCE_NS 20000000000ull

struct failover {
    struct service service;
    sm_class cls;
    struct process processes[REPLICAS];
    uint32_t next_id;
    uint64_t useful;                      /* when the new replica had processed a packet; 0: not yet */
    double noticed[KILLS], served[KILLS]; /* ms */
    double cold[KILLS], warm[KILLS];      /* ms */
    unsigned count;
};

/* One death, measured. */
static void kill_one(struct failover *f, struct process *victim)
{
    struct sm_switch *sw = f->service.sw;
    struct pollfd gone = {.fd = victim->pidfd, .events = POLLIN};
    uint64_t begin = bench_now();

    kill(victim->pid, SIGKILL);
    while (poll(&gone, 1, 0) == 0)
        switch_poll(sw);
    f->noticed[f->count] = (double)(bench_now() - begin) / 1e6;
    switch_slot_died(sw, (unsigned)victim->slot);
    for (uint64_t entered = sw->audit.entered; sw->audit.left < entered && !sw->error[0];)
        switch_poll(sw);
    f->served[f->count++] = (double)(bench_now() - begin) / 1e6;
    process_bury(victim);
}

/* Half of the shards to a replica that has none. */
static int give_half(struct failover *f, const struct process *process, struct sm_errbuf *error)
{
    struct sm_switch *sw = f->service.sw;
    int result = switch_move_begin(sw, bench_now() + PATIENCE_NS, false);

    if (result == 0)
        result = switch_move_add(sw, 0, SM_SHARDS / 2 - 1, (unsigned)process->slot);
    if (result == 0)
        switch_move_go(sw);
    const struct channel *channel = arena_channel(f->service.arena, 0, (unsigned)process->slot);
    while (result == 0 && (sw->operation.active || f->useful == 0)) {
        service_turn(&f->service);
        if (f->useful == 0 && atomic_load_explicit(&channel->counters.packets, memory_order_relaxed) > 0)
            f->useful = bench_now();
    }
    if (result == 0 && sw->operation.abandoned == 0)
        return 0;
    snprintf(error->text, sizeof error->text, "moves were abandoned: %s", sw->operation.cause);
    return SM_E_STATE;
}

/* A new replica, until the first packet has come back from it: from its start, and from when it stood by. */
static int replace(struct failover *f, struct process *process, struct sm_errbuf *error)
{
    uint64_t begin = bench_now();
    int result = process_start(&f->service, process, ++f->next_id);
    uint64_t ready = bench_now();

    f->useful = 0;
    if (result == 0)
        result = give_half(f, process, error);
    f->cold[f->count - 1] = (double)(f->useful - begin) / 1e6;
    f->warm[f->count - 1] = (double)(f->useful - ready) / 1e6;
    return result;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static double quantile(double *values, unsigned count, double share)
{
    unsigned at = (unsigned)(share * count);

    qsort(values, count, sizeof *values, ascending);
    return values[at < count ? at : count - 1];
}

struct findings {
    struct figure *noticed, *p50, *p99, *max, *warm, *warm_p99, *cold, *rate, *lost, *reordered;
};

static int repeat(const struct bench_options *options, struct failover *f, struct findings *found,
                  struct sm_errbuf *error)
{
    struct sm_switch *sw = f->service.sw;
    struct sm_port *generator;
    unsigned kills = options->quick ? QUICK_KILLS : KILLS;
    uint64_t random = options->seed;

    int result = sm_port_open_generator(&generator, options->flows, 64, 0, RATE);
    if (result)
        return result;
    service_input(&f->service, generator);
    service_rest(&f->service, REST_NS);
    uint64_t begin = bench_now(), out = sw->out;
    for (f->count = 0; f->count < kills;) {
        struct process *victim = &f->processes[random_star(&random) % REPLICAS];
        kill_one(f, victim);
        result = replace(f, victim, error);
        if (result)
            return result;
        service_rest(&f->service, REST_NS);
    }
    samples_add(&found->rate->ours, (double)(sw->out - out) * 1e6 / (double)(bench_now() - begin));
    samples_add(&found->noticed->ours, quantile(f->noticed, f->count, 0.5));
    samples_add(&found->p50->ours, quantile(f->served, f->count, 0.5));
    samples_add(&found->p99->ours, quantile(f->served, f->count, 0.99));
    samples_add(&found->max->ours, quantile(f->served, f->count, 1));
    samples_add(&found->warm->ours, quantile(f->warm, f->count, 0.5));
    samples_add(&found->warm_p99->ours, quantile(f->warm, f->count, 0.99));
    samples_add(&found->cold->ours, quantile(f->cold, f->count, 0.5));
    samples_add(&found->lost->ours, (double)(sw->audit.entered - sw->audit.left - sw->in_flight));
    samples_add(&found->reordered->ours, (double)sw->audit.reordered);
    return 0;
}

/* The distribution of the last repetition's deaths. */
static void draw_deaths(struct report *report, struct failover *f)
{
    struct plot *plot = report_plot(report, "deaths", "failover: from SIGKILL until the survivor serves the flows",
                                    "ms", "% of the deaths");

    plot->steps = true;
    struct curve *noticed = plot_curve(plot, "the kernel reports it"), *served = plot_curve(plot, "flows are served");
    for (unsigned i = 0; i < f->count; i++) {
        curve_add(noticed, quantile(f->noticed, f->count, (double)i / f->count), 100.0 * (i + 1) / f->count);
        curve_add(served, quantile(f->served, f->count, (double)i / f->count), 100.0 * (i + 1) / f->count);
    }
}

static void name_figures(struct report *report, struct findings *found)
{
    *found = (struct findings){
        .noticed = report_figure(report, "failover: until the kernel reports it, p50", "ms"),
        .p50 = report_figure(report, "failover: until flows are served, p50", "ms"),
        .p99 = report_figure(report, "failover: until flows are served, p99", "ms"),
        .max = report_figure(report, "failover: until flows are served, max", "ms"),
        .warm = report_figure(report, "failover: new replica useful, warm standby, p50", "ms"),
        .warm_p99 = report_figure(report, "failover: new replica useful, warm standby, p99", "ms"),
        .cold = report_figure(report, "failover: new replica useful, from its fork, p50", "ms"),
        .rate = report_figure(report, "failover: packets that flowed", "kpps"),
        .lost = report_figure(report, "failover: lost", ""),
        .reordered = report_figure(report, "failover: reordered", ""),
    };
    found->p99->target = (struct target){TARGET_AT_MOST, 5};
    found->warm->target = (struct target){TARGET_AT_MOST, 10};
    found->lost->target = found->reordered->target = (struct target){TARGET_AT_MOST, 0};
}

static int open_service(struct failover *f, const struct bench_options *options, struct sm_errbuf *error)
{
    struct service_options wanted = service_of_counters(0, options->flows, options->seed, &f->cls);

    wanted.threads = true;
    int result = service_open(&f->service, &wanted, error);

    if (result == 0)
        result = processes_register(&f->service, error);
    for (unsigned i = 0; result == 0 && i < REPLICAS; i++)
        result = process_start(&f->service, &f->processes[i], ++f->next_id);
    for (unsigned i = 0; result == 0 && i < REPLICAS; i++)
        result = switch_assign(f->service.sw, i * (SM_SHARDS / REPLICAS), (i + 1) * (SM_SHARDS / REPLICAS) - 1,
                               (unsigned)f->processes[i].slot);
    if (result == 0) {
        switch_start(f->service.sw);
        result = service_warm(&f->service, options->flows, error);
    }
    return result;
}

int bench_failover(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    static struct failover f;
    struct findings found;

    bench_pin(0);
    int result = open_service(&f, options, error);
    name_figures(report, &found);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        result = repeat(options, &f, &found, error);
    if (result == 0)
        draw_deaths(report, &f);
    result = service_close(&f.service, result, error);
    for (unsigned i = 0; i < REPLICAS; i++)
        if (f.processes[i].pid > 0) {
            if (result)
                kill(f.processes[i].pid, SIGKILL);
            process_bury(&f.processes[i]);
        }
    json_object_set_new(report->parameters, "failover",
                        json_pack("{s:i, s:i, s:i}", "rate_pps", (int)RATE, "kills",
                                  (int)(options->quick ? QUICK_KILLS : KILLS), "replicas", (int)REPLICAS));
    return result;
}
