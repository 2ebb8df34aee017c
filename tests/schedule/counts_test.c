/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What limits count, for themselves and for each key, under random splits, merges, moves and deaths. Where keys are
 * partitioned every number is the unsplit run's; where they are shared, who gets a token is chance, and the numbers are
 * those of the packets: what was dropped, and what went on. SM_SEED gives the first seed.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <splitmerge/testing.h>

#include "../kit/limiter_middlebox.h"
#include "record.h"

#define LIMITS 3

static const struct {
    const char *policy;
    bool shared;
} cases[] = {
    {"limits: [{name: a, per: flow, rate: 40kbit, burst: 3KiB}, {name: b, per: host-pair, rate: 20pps, burst: 5},"
     " {name: c, per: flow, rate: 8kbit, burst: 1KiB, exceed: {mark: {dscp: CS1}}}]\n",
     false},
    {"limits: [{name: a, per: source, rate: 20kbit, ceil: 80kbit, burst: 3KiB, parent: b},"
     " {name: b, per: source/20/48, rate: 90kbit, burst: 10KiB},"
     " {name: c, per: source/24/64, rate: 30kbit, burst: 3KiB, exceed: {shape: {queue: 300ms}}}]\n",
     false},
    {"limits: [{name: a, prefixes: {source: [10.77.1.0/28 8kbit, 10.77.1.0/30, 10.77.0.0/20, 'fd77::/64']},"
     " rate: 60kbit, burst: 3KiB}, {name: b, per: source, rate: 80kbit, burst: 3KiB},"
     " {name: c, per: source, rate: 20pps, burst: 5}]\n",
     false},
    {"limits: [{name: a, per: source, rate: 80kbit, burst: 4KiB}, {name: b, per: all, rate: 600kbit, burst: 16KiB},"
     " {name: c, per: destination, rate: 20pps, burst: 5, exceed: {mark: {dscp: CS1}}}]\n",
     true},
};

/* Of a run: by limit, and summed over the records that there are at the end. */
struct counts {
    struct limiter_counts limit[LIMITS];
    uint64_t passed[LIMITS], exceeded[LIMITS], records;
};

static struct counts now;
static const struct policy *policy;

/* The last to end has seen it all. */
static void ended(struct sm_replica *replica, void *user)
{
    for (unsigned i = 0; i < LIMITS; i++)
        now.limit[i] = limiter_counts(user, replica, i);
    limiter_ended(replica, user);
}

/* The drop reasons follow one another, in the order of the policy's limits, behind flow_limit. */
static bool add_record(const struct sm_test_flow *flow, void *arg)
{
    const struct record *record = flow->record;

    (void)arg;
    if (record->limit >= 1 && record->limit <= LIMITS) {
        now.passed[record->limit - 1] += record->passed;
        now.exceeded[record->limit - 1] += record->exceeded;
        now.records++;
    }
    return true;
}

static bool run(struct sm_test_options options, struct counts *counts, struct sm_test_result *result,
                uint64_t dropped[LIMITS])
{
    struct sm_test *test;
    struct sm_errbuf error;

    memset(&now, 0, sizeof now);
    if (sm_test_create(&test, &options, &error) != 0) {
        printf("%s\n", error.text);
        return false;
    }
    sm_test_finish(test);
    *result = *sm_test_result(test);
    sm_test_flows(test, add_record, NULL);
    for (unsigned i = 0; i < LIMITS; i++) {
        char name[sizeof "limit:" + POLICY_MAX_NAME];
        snprintf(name, sizeof name, "limit:%s", policy->limits[i].name);
        dropped[i] = sm_test_dropped(test, name);
    }
    sm_test_destroy(test, NULL);
    *counts = now;
    if (result->broken[0])
        printf("%s\n", result->broken);
    return !result->broken[0];
}

/* What must hold of a run alone: limits that only drop have dropped what exceeded them. */
static bool agrees(const struct counts *counts, const uint64_t dropped[LIMITS])
{
    bool right = true;

    for (unsigned i = 0; i < LIMITS; i++) {
        const struct limiter_counts *limit = &counts->limit[i];
        bool marks = !policy->limits[i].drops;
        right &= marks ? limit->exceeded >= dropped[i] : limit->exceeded == dropped[i];
        right &= limit->packets <= limit->bytes && counts->exceeded[i] <= limit->exceeded;
        right &= counts->passed[i] <= (policy->limits[i].packets ? limit->packets : limit->bytes);
    }
    return right;
}

static void print(const struct counts *counts, const uint64_t dropped[LIMITS])
{
    for (unsigned i = 0; i < LIMITS; i++)
        printf("     %s: %llu packets, %llu bytes, %llu exceeded, %llu dropped; in records %llu, %llu\n",
               policy->limits[i].name, (unsigned long long)counts->limit[i].packets,
               (unsigned long long)counts->limit[i].bytes, (unsigned long long)counts->limit[i].exceeded,
               (unsigned long long)dropped[i], (unsigned long long)counts->passed[i],
               (unsigned long long)counts->exceeded[i]);
}

/* One policy, unsplit and under a random schedule. */
static bool compare(const char *text, bool shared, uint64_t seed, uint64_t *deaths)
{
    struct sm_test_options options = {.size = sizeof options,
                                      .capture = SM_SAMPLE,
                                      .order_arrival = true,
                                      .delays = true,
                                      .seed = seed,
                                      .replicas = 1,
                                      .on_packet = limiter_packet,
                                      .setup = limiter_setup,
                                      .started = limiter_ready,
                                      .ended = ended};
    struct counts alone = {0}, split = {0};
    uint64_t dropped[LIMITS], dropped_split[LIMITS];
    struct sm_test_result result;
    struct sm_errbuf error;
    struct policy *made = policy_parse("p.yaml", text, strlen(text), &error);

    policy = options.user = made;
    bool right = made && run(options, &alone, &result, dropped) && agrees(&alone, dropped);
    options.replicas = 1 + (unsigned)seed % SM_TEST_REPLICAS;
    options.schedule = true;
    options.kills = 25;
    options.buffers = shared ? 16 : 0; /* few enough for nobody to have to wait */
    options.in_step = shared ? 8 : 0;
    right = right && run(options, &split, &result, dropped_split) && agrees(&split, dropped_split);
    if (right && !shared)
        right = memcmp(&alone, &split, sizeof alone) == 0 && memcmp(dropped, dropped_split, sizeof dropped) == 0;
    if (right && shared) /* what went on, of all; and the records of the third limit stay for good */
        right = split.limit[0].packets + dropped_split[0] + dropped_split[1] + dropped_split[2] ==
                    alone.limit[0].packets + dropped[0] + dropped[1] + dropped[2] &&
                split.limit[1].packets == split.limit[0].packets && split.passed[2] == split.limit[2].packets &&
                split.exceeded[2] == split.limit[2].exceeded;
    *deaths += result.deaths;
    printf("%s: seed %llu, %u replicas, %llu deaths, %llu records\n", right ? "ok" : "FAILED", (unsigned long long)seed,
           options.replicas, (unsigned long long)result.deaths, (unsigned long long)split.records);
    if (!right) {
        print(&alone, dropped);
        print(&split, dropped_split);
    }
    policy_free(made);
    return right;
}

int main(void)
{
    const char *first = getenv("SM_SEED"), *full = getenv("SM_FULL");
    uint64_t from = first ? strtoull(first, NULL, 0) : 1, deaths = 0;
    unsigned failures = 0, rounds = full && *full == '1' ? 60 : 6;

    for (uint64_t seed = from; seed < from + rounds; seed++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            failures += !compare(cases[i].policy, cases[i].shared, seed, &deaths);
    return failures != 0 || deaths == 0;
}
