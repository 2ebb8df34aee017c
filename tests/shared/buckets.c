/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Token buckets that the runtime keeps: one for all packets, one for each source, one for each flow, and a budget,
 * which has so little rate that what was taken and what is left must add up to the burst, to the token. Split, merged
 * and moved at random, with a thread for each replica or, built with KILLS, with replicas killed at random steps:
 *
 *   flow    is partitioned: each packet finds exactly the level of a bucket of one unsplit instance
 *   all,    are shared: what they let pass never exceeds rate x t + burst, and is nearly what an unsplit one lets pass
 *   source
 *   budget  each packet takes twice; what dead replicas had taken and not committed is there again, once
 *
 * SM_SEED fixes the schedules.
 */

#include <splitmerge/testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/random.h"

#ifndef KILLS
#define KILLS 0
#endif

#define PACKETS 3000u
#define HEADERS 28u
#define SOURCES 6u
#define FLOWS 48u
#define START 1000000000000000000ull

/*
 * Percent of what an unsplit bucket lets pass. Other packets pass than there, of other costs, and some that a move had
 * held come too late for their time.
 */
#define LEAST 90u

/*
 * Where replicas take turns on one thread nobody may wait: as many packets may be in flight as a bucket keeps debits
 * apart, 64 of the one for all packets and 8 of those by source, which every other run has.
 */
#define IN_FLIGHT(by_source) (KILLS && (by_source) ? 8u : 48u)

enum { ALL, SOURCE, FLOW, BUDGET, KINDS };

static const struct sm_buckets_options kinds[KINDS] = {
    [ALL] = {.name = "all", .granularity = SM_BY_ALL, .rate = {.rate = 400000, .burst = 12000}},
    [SOURCE] = {.name = "source", .granularity = SM_BY_SOURCE, .rate = {.rate = 100000, .burst = 6000}},
    [FLOW] = {.name = "flow", .granularity = SM_BY_FLOW, .rate = {.rate = 20000, .burst = 2500}},
    [BUDGET] = {.name = "budget", .granularity = SM_BY_ALL, .rate = {.rate = 1, .burst = 900000}},
};

struct packet {
    uint64_t time;
    uint32_t cost, source, flow;
};

static struct packet packets[PACKETS];
static sm_buckets buckets[KINDS];
static bool by_source;

/* By packet; whoever processes it last has the say, since others died before they committed. */
static struct found {
    uint32_t taken[KINDS];
    uint64_t level; /* of the flow's bucket, before */
} found[PACKETS];

static struct sm_trace *make(uint64_t seed)
{
    struct sm_trace *trace = sm_trace_create();
    uint64_t now = START;

    for (uint32_t i = 0; trace && i < PACKETS; i++) {
        uint64_t random = sm_test_random(&seed) >> 8;
        uint8_t payload[1200] = {0};
        char from[32], to[32];
        now += random % 16 < 4 ? 0 : i % 500 == 499 ? 300000000 : random % 4000000;
        struct packet *packet = &packets[i];
        *packet = (struct packet){.time = now, .flow = (uint32_t)(random >> 24) % FLOWS};
        packet->source = packet->flow % SOURCES;
        packet->cost = HEADERS + 4 + (uint32_t)(random >> 40) % 1100;
        memcpy(payload, &i, sizeof i);
        snprintf(from, sizeof from, "10.0.0.%u:%u", 1 + packet->source, 1024 + packet->flow);
        snprintf(to, sizeof to, "10.1.0.%u:53", 1 + packet->flow);
        if (sm_trace_udp(trace, (sm_time){now}, from, to, payload, packet->cost - HEADERS) != 0)
            abort();
    }
    return trace;
}

static uint32_t take(struct sm_replica *replica, unsigned kind, const struct sm_packet *packet, uint32_t cost)
{
    int result = sm_buckets_take(replica, buckets[kind], packet, cost);

    if (result != 0 && result != SM_E_LIMIT)
        abort();
    return result == 0 ? cost : 0;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct found here = {.level = sm_buckets_level(replica, buckets[FLOW], packet)};
    uint32_t cost = sm_packet_len(packet), number;

    (void)user;
    memcpy(&number, sm_packet_data(packet) + HEADERS, sizeof number);
    here.taken[ALL] = take(replica, ALL, packet, cost);
    if (by_source)
        here.taken[SOURCE] = take(replica, SOURCE, packet, cost);
    here.taken[BUDGET] = take(replica, BUDGET, packet, cost / 3) + take(replica, BUDGET, packet, cost - cost / 3);
    here.taken[FLOW] = take(replica, FLOW, packet, cost);
    found[number] = here;
}

/* What cannot be is refused, and takes no name. */
static bool refuses(struct sm_replica *replica)
{
    struct sm_buckets_options wrong[5];
    bool all = true;

    for (unsigned i = 0; i < 5; i++) {
        wrong[i] = kinds[ALL];
        wrong[i].size = sizeof wrong[i];
    }
    wrong[0].size--;
    wrong[1].rate.rate = 0;
    wrong[2].rate.burst = 0;
    wrong[3].rate.rate = SM_BUCKET_MAX_RATE + 1;
    wrong[4].rate.burst = SM_BUCKET_MAX_BURST + 1;
    for (unsigned i = 0; i < 5; i++)
        all &= sm_buckets_register(replica, &wrong[i], &buckets[ALL]) == SM_E_INVALID;
    return all;
}

static int setup(struct sm_replica *replica, void **user)
{
    int result = refuses(replica) ? 0 : SM_E_STATE;

    (void)user;
    for (unsigned i = 0; result == 0 && i < KINDS; i++) {
        struct sm_buckets_options options = kinds[i];
        options.size = sizeof options;
        result = sm_buckets_register(replica, &options, &buckets[i]);
    }
    /* So that flow steers, not source. */
    const struct sm_class_options more = {
        .size = sizeof more, .name = "more", .version = 1, .record_size = 8, .granularity = SM_BY_FLOW};
    sm_class cls;
    return result ? result : sm_class_register(replica, &more, &cls);
}

static unsigned key_of(const struct packet *packet, unsigned kind)
{
    return kind == SOURCE ? packet->source : kind == FLOW ? packet->flow : 0;
}

/* One unsplit instance: what it lets pass of a kind. `level`, may be NULL: of each packet's bucket before it. */
static uint64_t unsplit(unsigned kind, uint32_t *passed, uint64_t *level)
{
    struct sm_bucket bucket[FLOWS];
    uint64_t sum = 0;

    for (unsigned i = 0; i < FLOWS; i++)
        sm_bucket_init(&bucket[i], &kinds[kind].rate, START);
    for (unsigned i = 0; i < PACKETS; i++) {
        struct sm_bucket *own = &bucket[key_of(&packets[i], kind)];
        bool has = sm_bucket_has(own, &kinds[kind].rate, packets[i].time, packets[i].cost);
        if (level)
            level[i] = sm_bucket_level(own, &kinds[kind].rate, packets[i].time);
        if (has)
            sm_bucket_take(own, &kinds[kind].rate, packets[i].time, packets[i].cost);
        passed[i] = has ? packets[i].cost : 0;
        sum += passed[i];
    }
    return sum;
}

static const char *judge_flows(void)
{
    static uint32_t passed[PACKETS];
    static uint64_t level[PACKETS];

    unsplit(FLOW, passed, level);
    for (unsigned i = 0; i < PACKETS; i++)
        if (found[i].taken[FLOW] != passed[i] || found[i].level != level[i])
            return "a partitioned bucket is not what it is unsplit";
    return NULL;
}

static const char *judge_shared(unsigned kind)
{
    static uint32_t alone[PACKETS];
    struct sm_bucket bucket[SOURCES];
    uint64_t sum = 0, most = unsplit(kind, alone, NULL);

    for (unsigned i = 0; i < SOURCES; i++)
        sm_bucket_init(&bucket[i], &kinds[kind].rate, START);
    for (unsigned i = 0; i < PACKETS; i++) {
        struct sm_bucket *own = &bucket[key_of(&packets[i], kind)];
        if (found[i].taken[kind] == 0)
            continue;
        if (!sm_bucket_has(own, &kinds[kind].rate, packets[i].time, packets[i].cost))
            return "more than rate x t + burst passed";
        sm_bucket_take(own, &kinds[kind].rate, packets[i].time, packets[i].cost);
        sum += packets[i].cost;
    }
    return sum * 100 < most * LEAST ? "too little of what passes unsplit" : NULL;
}

static bool find_budget(const struct sm_test_flow *flow, void *arg)
{
    if (flow->cls.id == buckets[BUDGET].cls.id)
        *(uint64_t *)arg = sm_shared_bucket_level(flow->record, &kinds[BUDGET].rate, packets[PACKETS - 1].time);
    return true;
}

static const char *judge_budget(struct sm_test *test)
{
    uint64_t left = UINT64_MAX, taken = 0;

    sm_test_flows(test, find_budget, &left);
    for (unsigned i = 0; i < PACKETS; i++)
        taken += found[i].taken[BUDGET];
    return taken + left == kinds[BUDGET].rate.burst ? NULL : "the budget is not what was taken and what is left";
}

int main(void)
{
    const unsigned rounds = getenv("SM_FULL") ? 300 : 40;
    uint64_t seed = random_seed(), deaths = 0;
    unsigned failures = 0;

    for (unsigned round = 0; round < rounds; round++, seed++) {
        struct sm_trace *trace = make(seed);
        by_source = !KILLS || seed % 2 == 0;
        const struct sm_test_options options = {.size = sizeof options,
                                                .input = trace,
                                                .seed = seed,
                                                .replicas = 1 + (unsigned)(seed / 2 % SM_TEST_REPLICAS),
                                                .buffers = IN_FLIGHT(by_source),
                                                .in_step = KILLS ? 8 : 0,
                                                .order_arrival = true,
                                                .schedule = true,
                                                .kills = KILLS,
                                                .threads = KILLS == 0,
                                                .on_packet = on_packet,
                                                .setup = setup};
        struct sm_errbuf error = {""};
        const char *wrong = NULL;
        struct sm_test *test;
        if (sm_test_create(&test, &options, &error) != 0) {
            printf("%s\n", error.text);
            return 1;
        }
        sm_test_finish(test);
        const struct sm_test_result *result = sm_test_result(test);
        wrong = result->broken[0] ? result->broken : judge_flows();
        wrong = wrong ? wrong : judge_shared(ALL);
        wrong = wrong || !by_source ? wrong : judge_shared(SOURCE);
        wrong = wrong ? wrong : judge_budget(test);
        if (wrong)
            printf("FAILED: SM_SEED=%llu: %s\n", (unsigned long long)seed, wrong);
        failures += wrong != NULL;
        deaths += result->deaths;
        sm_test_destroy(test, &error);
        sm_trace_destroy(trace);
    }
    printf("SM_SEED=%llu: %u of %u runs failed, %llu deaths\n", (unsigned long long)seed - rounds, failures, rounds,
           (unsigned long long)deaths);
    return failures != 0 || (KILLS && deaths == 0);
}
