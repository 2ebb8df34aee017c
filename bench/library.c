/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the library costs: CPU time per packet of the rate limiter, on one thread as a standalone program runs it,
 * against the same limiter in a plain loop (plain.h): the same sources, ports and parser, over a plain table, and over
 * the library's own table and timers. All must decide alike, packet by packet in number. The plain loop keeps no order,
 * and neither prefetches nor can be split.
 */

#include <stdio.h>

#include "bench.h"
#include "limited.h"
#include "plain.h"
#include "replay.h"

/* A packet of each flow every 10 ms of made-up time when there are 100,000: a fifth of them is too much. */
static const char policy_text[] = "limits:\n"
                                  "  - name: flow\n"
                                  "    per: flow\n"
                                  "    rate: 40kbit\n"
                                  "    burst: 512B\n";
#define WARM_ROUNDS 40u /* until the buckets have found their level */

enum { OWN_TABLE, LIBRARYS_TABLE, PLAINS };

/* In turns over the same packets: the library, then both plain ones; with the journal, then without. */
struct contest {
    struct limited limited;
    struct plain *plain[PLAINS];
    struct sm_port *in[PLAINS];
    struct figure *beside_plain, *beside_same, *without_journal;
};

static int open_limited(struct limited *run, const struct bench_options *options, struct sm_errbuf *error)
{
    const struct service_options wanted = {
        .replicas = 1,
        .order_arrival = true, /* as standalone programs do over files */
        .buffers = 1024,
        .flows = options->flows,
        .seed = options->seed,
    };

    return limited_open(run, policy_text, &wanted, error);
}

/* CPU time of a packet, ns. */
static int library_pass(struct contest *contest, uint64_t count, bool journal, double *ns, struct sm_errbuf *error)
{
    uint64_t before = bench_thread_cpu();

    contest->limited.service.replicas[0].replica->journal.off = !journal;
    int result = service_warm(&contest->limited.service, count, error);
    *ns = (double)(bench_thread_cpu() - before) / (double)count;
    return result;
}

static double plain_pass(struct contest *contest, unsigned which, uint64_t count)
{
    uint64_t before = bench_thread_cpu();

    replay_more(contest->in[which], count);
    plain_run(contest->plain[which]);
    return (double)(bench_thread_cpu() - before) / (double)count;
}

/* One turn of each. */
static int turn(struct contest *contest, uint64_t count, bool journal, double *library, double *plain,
                struct sm_errbuf *error)
{
    int result = library_pass(contest, count, journal, library, error);

    for (unsigned which = 0; which < PLAINS; which++)
        plain[which] = plain_pass(contest, which, count);
    return result;
}

static int repeat(struct contest *contest, uint64_t count, struct sm_errbuf *error)
{
    double library, plain[PLAINS];
    int result = turn(contest, count, true, &library, plain, error);

    if (result)
        return result;
    samples_add(&contest->beside_plain->ours, library);
    samples_add(&contest->beside_plain->reference, plain[OWN_TABLE]);
    samples_add(&contest->beside_same->ours, library);
    samples_add(&contest->beside_same->reference, plain[LIBRARYS_TABLE]);
    result = turn(contest, count, false, &library, plain, error);
    samples_add(&contest->without_journal->ours, library);
    samples_add(&contest->without_journal->reference, plain[LIBRARYS_TABLE]);
    return result;
}

static int judge(const struct contest *contest, struct sm_errbuf *error)
{
    const uint64_t ours = contest->limited.service.sw->out;

    for (unsigned which = 0; which < PLAINS; which++) {
        uint64_t theirs = plain_passed(contest->plain[which]);
        if (theirs == ours)
            continue;
        snprintf(error->text, sizeof error->text, "the limiters disagree: %llu packets passed, %llu in a plain one",
                 (unsigned long long)ours, (unsigned long long)theirs);
        return SM_E_STATE;
    }
    return 0;
}

static int measure(struct contest *contest, const struct bench_options *options, struct sm_errbuf *error)
{
    uint64_t count = options->flows;
    double library, plain[PLAINS];
    int result = turn(contest, count * WARM_ROUNDS, true, &library, plain, error);

    if (result == 0)
        result = turn(contest, count, true, &library, plain, error);
    /* From what a round of the flows took: how many rounds make the time asked for? */
    double rounds = options->seconds * 1e9 / ((library + plain[OWN_TABLE] + plain[LIBRARYS_TABLE]) * (double)count);
    count *= rounds < 1 ? 1 : (uint64_t)rounds;
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        result = repeat(contest, count, error);
    return result ? result : judge(contest, error);
}

static int open_plain(struct contest *contest, const struct bench_options *options, struct sm_errbuf *error)
{
    int result = 0;

    for (unsigned which = 0; result == 0 && which < PLAINS; which++) {
        result = replay_open(&contest->in[which], options->flows, 0, options->seed);
        if (result == 0)
            result = plain_open(&contest->plain[which], contest->in[which], policy_text, options->flows,
                                which == LIBRARYS_TABLE, error);
    }
    return result;
}

static void name_figures(struct report *report, struct contest *contest)
{
    contest->beside_plain = report_figure(report, "library: limiter, CPU of a packet", "ns");
    contest->beside_same = report_figure(report, "library: the same, over the same table in a plain loop", "ns");
    contest->without_journal = report_figure(report, "library: the same, without the journal", "ns");
    contest->beside_plain->ratio = (struct target){TARGET_AT_MOST, 1.3};
    contest->beside_same->ratio = (struct target){TARGET_AT_MOST, 1.08};
    contest->without_journal->ratio = (struct target){TARGET_AT_MOST, 1.03};
}

int bench_library(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct contest contest = {.plain = {NULL}};
    struct sm_errbuf ignored;

    bench_pin(0);
    name_figures(report, &contest);
    int result = open_limited(&contest.limited, options, error);
    if (result == 0)
        result = open_plain(&contest, options, error);
    if (result == 0)
        result = measure(&contest, options, error);
    result = limited_close(&contest.limited, result, error);
    if (result == 0) {
        double dropped = (double)plain_dropped(contest.plain[0]);
        dropped *= 100.0 / ((double)plain_passed(contest.plain[0]) + dropped);
        samples_add(&report_figure(report, "library: dropped, all alike", "%")->ours, dropped);
    }
    for (unsigned which = 0; which < PLAINS; which++) {
        plain_close(contest.plain[which]);
        if (contest.in[which])
            contest.in[which]->ops->close(contest.in[which], false, &ignored);
    }
    json_object_set_new(
        report->parameters, "library",
        json_pack("{s:s, s:s, s:i}", "order", "arrival", "policy", policy_text, "packet_bytes", (int)REPLAY_BYTES));
    return result;
}
