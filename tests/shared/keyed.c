/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Coherent state by key, flows of shared classes: a counter for each source by sm_flow_add(), and one record for all
 * packets, changed under its lock, whose changes are undone by notes. Some packets change it and then take that back
 * themselves. Split, merged and moved at random, and, built with KILLS, with replicas killed at random steps, each
 * packet counts once. SM_SEED fixes the schedules.
 */

#include <splitmerge/testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/random.h"

#ifndef KILLS
#define KILLS 0
#endif

struct record {
    uint64_t packets;
    int64_t bytes;
};

struct flow_record {
    uint64_t packets;
};

static sm_class flows, sources, all;
static uint64_t noted_twice;

static uint32_t digest_of(const struct sm_packet *packet)
{
    const uint8_t *data = sm_packet_data(packet);
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (uint32_t i = 0; i < sm_packet_caplen(packet); i++)
        hash = (hash ^ data[i]) * 16777619u;
    return hash;
}

static void change_all(struct sm_replica *replica, struct sm_packet *packet, int64_t bytes, bool again)
{
    sm_flow flow;

    if (sm_flow_create(replica, all, packet, 0, &flow, NULL) != 0)
        return;
    struct record *record = flow.state;
    record->packets += again ? -1ull : 1;
    record->bytes += bytes;
    if (again)
        sm_flow_unescrow(replica, all, flow);
    else if (sm_flow_escrow(replica, all, flow, &bytes, sizeof bytes) != 0)
        abort();
    noted_twice += !again && sm_flow_escrow(replica, all, flow, &bytes, sizeof bytes) != SM_E_STATE;
    sm_flow_put(replica, all, flow);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    int64_t bytes = sm_packet_len(packet);
    sm_flow flow;

    (void)user;
    sm_flow_add(replica, sources, packet, 0, offsetof(struct record, packets), 1);
    sm_flow_add(replica, sources, packet, 0, offsetof(struct record, bytes), bytes);
    if (sm_flow_add(replica, sources, packet, 0, sizeof(struct record), 1) != SM_E_INVALID)
        abort();
    change_all(replica, packet, bytes, false);
    if (sm_flow_create(replica, flows, packet, 0, &flow, NULL) == 0)
        ((struct flow_record *)flow.state)->packets++;
    if (digest_of(packet) % 4 == 0)
        change_all(replica, packet, -bytes, true);
    sm_flow_add(replica, flows, packet, 0, 0, 1);
}

static void undo_all(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t size, void *user)
{
    struct record *record = flow.state;
    int64_t bytes;

    (void)replica, (void)cls, (void)user;
    memcpy(&bytes, note, size);
    record->packets--;
    record->bytes -= bytes;
}

static int add_class(struct sm_replica *replica, const char *name, enum sm_granularity granularity, uint32_t size,
                     sm_class *cls)
{
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = name,
        .version = 1,
        .record_size = size,
        .granularity = granularity,
        .may_share = granularity != SM_BY_FLOW,
        .on_undo = granularity == SM_BY_ALL ? undo_all : NULL,
    };

    return sm_class_register(replica, &options, cls);
}

static int setup(struct sm_replica *replica, void **user)
{
    sm_class more;

    (void)user;
    int result = add_class(replica, "flows", SM_BY_FLOW, sizeof(struct flow_record), &flows);
    result |= add_class(replica, "more-flows", SM_BY_FLOW, sizeof(struct flow_record), &more); /* so that flow steers */
    result |= add_class(replica, "sources", SM_BY_SOURCE, sizeof(struct record), &sources);
    return result | add_class(replica, "all", SM_BY_ALL, sizeof(struct record), &all);
}

/* What the packets of the capture come to; of all of them, and of those that do not take it back. */
struct sums {
    struct record sources, all;
    uint64_t flows;
};

static bool sum(const struct sm_test_flow *flow, void *arg)
{
    struct sums *sums = arg;
    const struct record *record = flow->record;

    if (flow->cls.id == flows.id)
        sums->flows += ((const struct flow_record *)flow->record)->packets;
    if (flow->cls.id == sources.id) {
        sums->sources.packets += record->packets;
        sums->sources.bytes += record->bytes;
    }
    if (flow->cls.id == all.id)
        sums->all = *record;
    return true;
}

static int expect(struct sums *expected)
{
    struct sm_errbuf error;
    struct sm_trace *trace;

    *expected = (struct sums){.flows = 0};
    if (sm_trace_read(&trace, SM_SAMPLE, &error) != 0)
        return 1;
    for (size_t i = 0; i < sm_trace_count(trace); i++) {
        struct sm_trace_packet packet = sm_trace_at(trace, i);
        uint32_t hash = 2166136261u;
        for (uint32_t k = 0; k < packet.caplen; k++)
            hash = (hash ^ packet.data[k]) * 16777619u;
        expected->flows += 2;
        expected->sources.packets++;
        expected->sources.bytes += packet.len;
        expected->all.packets += hash % 4 != 0;
        expected->all.bytes += hash % 4 != 0 ? packet.len : 0;
    }
    sm_trace_destroy(trace);
    return 0;
}

int main(void)
{
    const unsigned rounds = getenv("SM_FULL") ? 300 : 40;
    uint64_t seed = random_seed(), deaths = 0;
    unsigned failures = 0;
    struct sums expected;

    if (expect(&expected) != 0)
        return 1;
    for (unsigned round = 0; round < rounds; round++, seed++) {
        const struct sm_test_options options = {.size = sizeof options,
                                                .capture = SM_SAMPLE,
                                                .seed = seed,
                                                .replicas = 1 + (unsigned)(seed % SM_TEST_REPLICAS),
                                                .schedule = true,
                                                .kills = KILLS,
                                                .threads = KILLS == 0,
                                                .on_packet = on_packet,
                                                .setup = setup};
        struct sums sums = {.flows = 0};
        struct sm_errbuf error = {""};
        struct sm_test *test;
        if (sm_test_create(&test, &options, &error) != 0) {
            printf("%s\n", error.text);
            return 1;
        }
        sm_test_finish(test);
        sm_test_flows(test, sum, &sums);
        const struct sm_test_result *result = sm_test_result(test);
        bool right = !result->broken[0] && memcmp(&sums, &expected, sizeof sums) == 0 && noted_twice == 0;
        if (!right)
            printf("FAILED: SM_SEED=%llu: %llu of %llu by source, %llu of %llu of all, %llu of %llu by flow; %s\n",
                   (unsigned long long)seed, (unsigned long long)sums.sources.packets,
                   (unsigned long long)expected.sources.packets, (unsigned long long)sums.all.packets,
                   (unsigned long long)expected.all.packets, (unsigned long long)sums.flows,
                   (unsigned long long)expected.flows, result->broken);
        failures += !right;
        deaths += result->deaths;
        sm_test_destroy(test, &error);
    }
    printf("SM_SEED=%llu: %u of %u runs failed, %llu deaths\n", (unsigned long long)seed - rounds, failures, rounds,
           (unsigned long long)deaths);
    return failures != 0 || (KILLS && deaths == 0);
}
