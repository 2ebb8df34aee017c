/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A service is upgraded at random packets, once or several times, forward and back, while replicas are killed at random
 * steps, of both versions, also in the middle of bringing a shard into other forms. What it sends is what the unsplit
 * first version sends; every flow that is left has what the unsplit one's has. SM_SEED fixes the schedules, SM_FULL=1
 * takes more of them.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/random.h"
#include "versions.h"

#define PACKETS 6000u
#define FLOWS 400u

static unsigned failures;

static struct sm_trace *make_trace(uint64_t seed)
{
    struct sm_trace *trace = sm_trace_create();
    uint64_t now = 1000000000000000000ull;
    char from[32];

    for (unsigned i = 0; trace && i < PACKETS; i++) {
        uint64_t random = sm_test_random(&seed) >> 8;
        now += random % 16 < 8 ? 0 : random % 997 == 0 ? 70000000 : random % 300000;
        uint32_t flow = (uint32_t)(random >> 24) % FLOWS;
        flow = random & 1 << 20 ? flow % (FLOWS / 8) : flow;
        snprintf(from, sizeof from, "10.0.0.1:%u", 1024 + flow);
        if (sm_trace_udp(trace, (sm_time){now}, from, "10.0.0.2:53", &i, sizeof i) != 0)
            abort();
    }
    return trace;
}

struct totals {
    uint64_t upgrades, backs, deaths, moves;
};

struct comparison {
    struct sm_test *other;
    const char *wrong;
};

static bool compare_flow(const struct sm_test_flow *flow, void *arg)
{
    struct comparison *comparison = arg;
    struct sm_test_flow unsplit = *flow;

    unsplit.record = sm_test_flow(comparison->other, flow->cls, flow->key);
    unsplit.record_size = 1; /* not that of version 2 */
    if (!unsplit.record)
        comparison->wrong = "a flow is left that the unsplit run does not have";
    else if (kept(flow) != kept(&unsplit))
        comparison->wrong = "a flow has not what the unsplit run's has";
    return !comparison->wrong;
}

/* Upgrades at random until the input ends. What went wrong, or NULL. */
static const char *drive(struct sm_test *test, uint64_t seed, struct totals *totals)
{
    static struct sm_errbuf error;
    const struct sm_test_upgrade two = {.size = sizeof two,
                                        .on_packet = on_packet_two,
                                        .setup = setup_two,
                                        .forward_only = with_lists && !lists_return};
    const struct sm_test_upgrade one = {.size = sizeof one, .on_packet = on_packet_one, .setup = setup_one};
    bool upgrading = false, back = false;
    unsigned version = 1;
    int result;

    while ((result = sm_test_step(test)) == 0) {
        uint64_t random = sm_test_random(&seed) >> 8;
        if (!upgrading && !sm_test_moving(test) && random % 400 == 0 &&
            sm_test_replicas(test) <= SM_TEST_REPLICAS / 2 && (version == 1 || !with_lists)) {
            result = sm_test_upgrade(test, version == 1 ? &two : &one, &error);
            if (result)
                return error.text;
            upgrading = true;
        } else if (upgrading && !back && (!with_lists || lists_return) && random % (lists_return ? 60 : 300) == 0) {
            back = true;
        } else if (upgrading && back && !(lists_return && sm_test_moving(test))) {
            int end = sm_test_upgrade_back(test);
            if (end == SM_E_NOT_FOUND)
                sm_test_start_replica(test); /* all of the new version have died: nobody else gives their flows back */
            else if (end != 0 && end != SM_E_AGAIN)
                return "no way back";
            upgrading = back = end != 0;
            totals->backs += end == 0;
        } else if (upgrading && !sm_test_moving(test)) {
            int end = sm_test_upgrade_forward(test);
            if (end == SM_E_NOT_FOUND)
                sm_test_start_replica(test); /* all of the new version have died: nobody else reads their flows */
            if (end != 0)
                continue;
            upgrading = false;
            version = 3 - version;
            totals->upgrades++;
        }
    }
    return result == SM_E_END ? NULL : sm_test_result(test)->broken;
}

static const char *compare(struct sm_test *test, struct sm_test *unsplit)
{
    static struct sm_errbuf error;
    struct comparison comparison = {.other = unsplit};

    if (sm_test_finish(test) != 0)
        return sm_test_result(test)->broken;
    const struct sm_test_result *a = sm_test_result(test), *b = sm_test_result(unsplit);
    if (!sm_trace_same(sm_test_output(test), sm_test_output(unsplit), SM_BY_ALL, &error))
        return error.text;
    if (a->flows_live != b->flows_live || a->flows_created != b->flows_created)
        return "other numbers of flows than unsplit";
    sm_test_flows(test, compare_flow, &comparison);
    return comparison.wrong;
}

static void attempt(uint64_t seed, struct sm_test *unsplit, const struct sm_trace *trace, struct totals *totals)
{
    const struct sm_test_options options = {
        .size = sizeof options,
        .on_packet = on_packet_one,
        .setup = setup_one,
        .input = trace,
        .order_arrival = true,
        .replicas = 1 + seed % 3,
        .seed = seed,
        .schedule = !with_lists && seed % 4 == 3,
        .kills = 150,
        .check_every = 256,
    };
    struct sm_errbuf error;
    struct sm_test *test;

    if (sm_test_create(&test, &options, &error) != 0) {
        printf("FAILED: %s\n", error.text);
        failures++;
        return;
    }
    const char *wrong = drive(test, seed | 1, totals);
    if (!wrong)
        wrong = compare(test, unsplit);
    totals->deaths += sm_test_result(test)->deaths;
    totals->moves += sm_test_result(test)->moves;
    if (wrong)
        printf("FAILED, SM_SEED=%llu%s: %s\n", (unsigned long long)seed,
               lists_return ? ", with lists that return"
               : with_lists ? ", with lists"
                            : "",
               wrong);
    failures += wrong != NULL;
    sm_test_destroy(test, NULL);
}

/* Whether the rounds have done what they are for. */
static bool tried(const struct totals *totals)
{
    return totals->upgrades > 0 && (totals->backs > 0 || (with_lists && !lists_return)) &&
           (upgrades > 0 || !with_lists) && (downgrades > 0 || !lists_return);
}

static void rounds(const struct sm_trace *trace, uint64_t seed, unsigned count)
{
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_packet_one, .setup = setup_one, .input = trace, .order_arrival = true};
    struct totals totals = {0};
    struct sm_test *unsplit;

    upgrades = downgrades = 0;
    if (sm_test_create(&unsplit, &options, NULL) != 0 || sm_test_finish(unsplit) != 0) {
        printf("FAILED: the unsplit run\n");
        failures++;
        return;
    }
    unsigned i = 0;
    for (; (i < count || (i < 10 * count && !tried(&totals))) && failures == 0; i++)
        attempt(seed + i, unsplit, trace, &totals);
    printf("SM_SEED=%llu, %u rounds%s: %llu upgrades, %llu back, %llu killed, %llu moves, %llu records by callback, "
           "%llu back\n",
           (unsigned long long)seed, i, with_lists ? lists_return ? " with lists that return" : " with lists" : "",
           (unsigned long long)totals.upgrades, (unsigned long long)totals.backs, (unsigned long long)totals.deaths,
           (unsigned long long)totals.moves, (unsigned long long)upgrades, (unsigned long long)downgrades);
    if (!tried(&totals) || mistakes) {
        printf("FAILED: the rounds did not try what they are for\n");
        failures++;
    }
    sm_test_destroy(unsplit, NULL);
}

int main(void)
{
    uint64_t seed = random_seed();
    unsigned count = getenv("SM_FULL") ? 400 : 32;
    struct sm_trace *trace = make_trace(seed | 1);

    setvbuf(stdout, NULL, _IOLBF, 0);
    lists_hold_code = true;
    rounds(trace, seed, count);
    with_lists = true;
    rounds(trace, seed, count);
    lists_return = true;
    rounds(trace, seed, count);
    with_lists = lists_return = false;
    failures += refusals(trace);
    sm_trace_destroy(trace);
    return failures != 0;
}
