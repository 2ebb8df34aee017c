/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A million flows move from one replica to the other and back, by relabelling, while a million packets a second come:
 * flows and shards a second, how long shards' packets were held, and what packets notice of it, beside as long a while
 * without moves: one move alone is over so soon that a single thread that the machine stops decides on its packets.
 * Once with each replica on a thread of its own, as in a service (two threads want the second core), and once with one
 * thread that runs both, so that no core has two.
 *
 * What a shard's move costs in work, the switch's and both replicas', is how long all moves take with one thread for
 * everything and without packets.
 */

#include "relabel.h"

#include "latency.h"
#include "service.h"

#define FLOWS 1000000u
#define RATE 1000000u
#define LEAST_MOVES 4u /* in one repetition, back and forth, one behind the other */
#define PART 0.3       /* of a measurement's length that moves go on, and that there are none */
#define SETTLE_NS 50000000ull

struct findings {
    struct figure *flows, *shards, *p50, *p99, *through, *latency, *lost, *reordered;
};

/* How replicas run. */
enum way { APART, TOGETHER, WAYS };

struct contest {
    struct service service;
    struct latency_port *out;
    struct findings found;
    sm_class cls;
    uint32_t flows;
    uint64_t steady_ns;
};

static int open_contest(struct contest *contest, const struct bench_options *options, bool threads, bool together,
                        struct sm_errbuf *error)
{
    contest->flows = options->quick ? options->flows : FLOWS;
    struct service_options wanted = service_of_counters(2, contest->flows, options->seed, &contest->cls);
    wanted.threads = threads;
    wanted.together = together;
    int result = service_open(&contest->service, &wanted, error);

    if (result == 0)
        result = service_warm(&contest->service, contest->flows, error);
    if (result == 0 && !(contest->out = latency_output(&contest->service)))
        result = SM_E_NO_MEMORY;
    contest->steady_ns = (uint64_t)(options->seconds * PART * 1e9);
    return result;
}

/* Packets a second, in thousands, since there were `out` at `begin`. */
static double kpps(const struct sm_switch *sw, uint64_t out, uint64_t begin)
{
    return (double)(sw->out - out) * 1e6 / (double)(bench_now() - begin);
}

static int repeat(struct contest *contest, struct sm_errbuf *error)
{
    struct sm_switch *sw = contest->service.sw;
    const struct findings *found = &contest->found;
    struct sm_port *generator;
    double ms, all = 0;
    unsigned moves = 0;

    /* A generator of its own: one that waited meanwhile would make up for it. */
    int result = sm_port_open_generator(&generator, contest->flows, 64, 0, RATE);
    if (result)
        return result;
    service_input(&contest->service, generator);
    service_rest(&contest->service, SETTLE_NS);
    uint64_t begin = bench_now(), out = sw->out;
    latency_begin(contest->out);
    service_rest(&contest->service, contest->steady_ns);
    samples_add(&found->through->reference, kpps(sw, out, begin));
    samples_add(&found->latency->reference, latency_us(contest->out, 0.99));
    sw->pauses = (struct histogram){.count = 0};
    latency_begin(contest->out);
    begin = bench_now();
    out = sw->out;
    do {
        if ((result = service_move_all(&contest->service, ++moves % 2, false, &ms, error)) != 0)
            return result;
        all += ms;
    } while (moves < LEAST_MOVES || moves % 2 == 1 || bench_now() - begin < contest->steady_ns);
    samples_add(&found->through->ours, kpps(sw, out, begin));
    samples_add(&found->latency->ours, latency_us(contest->out, 0.99));
    samples_add(&found->flows->ours, moves * (double)contest->flows / all / 1e3);
    samples_add(&found->shards->ours, moves * (double)SM_SHARDS / all / 1e3);
    samples_add(&found->p50->ours, (double)histogram_quantile(&sw->pauses, 0.5) / 1e3);
    samples_add(&found->p99->ours, (double)histogram_quantile(&sw->pauses, 0.99) / 1e6);
    samples_add(&found->lost->ours, (double)(sw->audit.entered - sw->audit.left - sw->in_flight));
    samples_add(&found->reordered->ours, (double)sw->audit.reordered);
    return 0;
}

static void name_figures(struct report *report, struct findings *found, enum way way)
{
    static const char *const names[WAYS][8] = {
        {"move: 1 M flows under 1 M packets/s", "move: the same, shards", "move: the same, hold of a shard, p50",
         "move: the same, hold of a shard, p99", "move: the same, packets meanwhile, beside without",
         "move: the same, packet latency, p99, beside without", "move: the same, lost", "move: the same, reordered"},
        {"move: 1 M flows, one thread a core", "move: one thread a core, shards",
         "move: one thread a core, hold of a shard, p50", "move: one thread a core, hold of a shard, p99",
         "move: one thread a core, packets meanwhile", "move: one thread a core, packet latency, p99",
         "move: one thread a core, lost", "move: one thread a core, reordered"},
    };
    static const char *const units[] = {"M/s", "M/s", "us", "ms", "kpps", "us", "", ""};
    struct figure *figures[8];

    for (unsigned i = 0; i < 8; i++)
        figures[i] = report_figure(report, names[way][i], units[i]);
    *found = (struct findings){figures[0], figures[1], figures[2], figures[3],
                               figures[4], figures[5], figures[6], figures[7]};
    found->lost->target = found->reordered->target = (struct target){TARGET_AT_MOST, 0};
    found->latency->ratio = (struct target){TARGET_AT_MOST, 2};
    if (way == TOGETHER)
        return;
    found->flows->target = (struct target){TARGET_AT_LEAST, 30};
    found->p50->target = (struct target){TARGET_AT_MOST, 20};
    found->p99->target = (struct target){TARGET_AT_MOST, 1};
    found->through->ratio = (struct target){TARGET_AT_LEAST, 0.95};
}

static int under_load(const struct bench_options *options, struct report *report, enum way way, struct sm_errbuf *error)
{
    static struct contest contest;

    contest = (struct contest){.out = NULL};
    name_figures(report, &contest.found, way);
    int result = open_contest(&contest, options, true, way == TOGETHER, error);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        result = repeat(&contest, error);
    return service_close(&contest.service, result, error);
}

static int work(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    static struct contest contest;
    struct figure *figure = report_figure(report, "move: work of a shard, 61 flows, one thread for all", "us");
    double ms;

    contest = (struct contest){.out = NULL};
    figure->target = (struct target){TARGET_AT_MOST, 2};
    int result = open_contest(&contest, options, false, false, error);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        result = service_move_all(&contest.service, (i + 1) % 2, false, &ms, error);
        samples_add(&figure->ours, ms * 1e3 / SM_SHARDS);
    }
    return service_close(&contest.service, result, error);
}

int bench_relabel(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    int result = 0;

    bench_pin(0);
    for (enum way way = 0; result == 0 && way < WAYS; way++)
        result = under_load(options, report, way, error);
    if (result == 0)
        result = work(options, report, error);
    json_object_set_new(
        json_object_get(report->parameters, "move"), "relabel",
        json_pack("{s:i, s:i, s:f}", "flows", (int)FLOWS, "rate_pps", (int)RATE, "seconds", PART * options->seconds));
    return result;
}
