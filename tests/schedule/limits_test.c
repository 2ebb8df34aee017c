/* SPDX-License-Identifier: BSD-2-Clause */

/* P9: at each limit the documented thing happens, is counted, and every promise still holds. */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <splitmerge/testing.h>

#include "testing/test.h"

struct record {
    uint64_t packets;
    uint8_t room[120];
};

static sm_class cls;
static uint16_t reason;
static bool drop_refused;

static void count(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) == 0)
        ((struct record *)flow.state)->packets++;
    else if (drop_refused)
        sm_packet_drop(packet, reason);
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "count",
                                             .record_size = sizeof(struct record),
                                             .granularity = SM_BY_FLOW,
                                             .limit = *(const uint32_t *)*user};

    int result = sm_drop_reason(replica, "flow_limit", &reason);
    return result ? result : sm_class_register(replica, &options, &cls);
}

static uint64_t pool_drops; /* of the last run */

static struct sm_test_result run(struct sm_test_options options, uint32_t class_limit)
{
    struct sm_test *test;
    char folder[] = "/tmp/splitmerge-limits-XXXXXX", output[64];
    struct sm_test_result result;
    struct sm_errbuf error;

    cr_assert_not_null(mkdtemp(folder));
    snprintf(output, sizeof output, "%s/out.pcap", folder);
    options.size = sizeof options;
    options.capture = SM_SAMPLE;
    options.output = output;
    options.replicas = 3;
    options.schedule = true;
    options.on_packet = count;
    options.setup = setup;
    options.user = &class_limit;
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    sm_test_finish(test);
    result = *sm_test_result(test);
    pool_drops = sm_test_dropped(test, "pool");
    cr_assert_eq(sm_test_destroy(test, &error), 0, "%s", error.text);
    unlink(output);
    rmdir(folder);
    cr_assert_str_empty(result.broken, "%s", result.broken);
    cr_assert_eq(result.in + result.generated, result.out + result.dropped);
    return result;
}

Test(limits, flows_of_the_service)
{
    drop_refused = true;
    struct sm_test_result result = run((struct sm_test_options){.seed = 1, .order_arrival = true, .max_flows = 50}, 0);
    cr_assert_eq(result.flows_live, 50);
    cr_assert_eq(result.flows_created, 50);
    cr_assert_gt(result.flows_refused, 0);
    cr_assert_eq(result.dropped, result.flows_refused, "each refusal is a drop under its reason");
}

Test(limits, flows_of_a_class)
{
    drop_refused = false;
    struct sm_test_result result = run((struct sm_test_options){.seed = 2}, 20);
    cr_assert_eq(result.flows_live, 20);
    cr_assert_gt(result.flows_refused, 0);
    cr_assert_eq(result.dropped, 0, "what to do with the packet is the middlebox's choice");
}

Test(limits, memory)
{
    drop_refused = true;
    struct sm_test_result result = run((struct sm_test_options){.seed = 3, .memory = 65536}, 0);
    cr_assert_gt(result.flows_refused, 0);
    cr_assert_leq(result.memory_used, 65536);
}

Test(limits, a_file_waits_for_buffers)
{
    struct sm_test_result result = run((struct sm_test_options){.seed = 4, .order_arrival = true, .buffers = 16}, 0);
    cr_assert_eq(result.dropped, 0);
}

Test(limits, an_interface_drops_for_want_of_buffers)
{
    drop_refused = false;
    struct sm_test_result result = run((struct sm_test_options){.seed = 5, .buffers = 16, .cannot_wait = true}, 0);
    cr_assert_gt(pool_drops, 0);
    cr_assert_eq(result.dropped, pool_drops);
}

Test(limits, the_hold_of_an_interface)
{
    uint64_t abandoned = 0;

    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct sm_test_result result =
            run((struct sm_test_options){.seed = seed, .cannot_wait = true, .hold_bytes = 1}, 0);
        if (strcmp(result.abandoned_for, "limits.hold.bytes") == 0)
            abandoned += result.abandoned;
    }
    cr_assert_gt(abandoned, 0, "a hold over its bound ends its move");
}

static void bind_some_key(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct sm_key key;
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) != 0)
        return;
    sm_packet_key(packet, SM_BY_FLOW, &key);
    key.a[3] ^= 0x55;
    int result = sm_flow_bind(replica, cls, flow, &key);
    cr_assert(result == 0 || result == SM_E_LIMIT, "%d", result);
}

static int setup_binding(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "bind", .record_size = 8, .granularity = SM_BY_FLOW, .binds = "ip or ip6"};
    const struct sm_class_options coarser = {
        .size = sizeof options, .name = "pairs", .record_size = 8, .granularity = SM_BY_HOST_PAIR};
    sm_class got;

    int result = sm_class_register(replica, &options, &cls);
    return result == 0 && *user ? sm_class_register(replica, &coarser, &got) : result;
}

static const struct sm_test_options binding = {.size = sizeof binding,
                                               .capture = SM_SAMPLE,
                                               .replicas = 3,
                                               .schedule = true,
                                               .max_bindings = 10,
                                               .hold_bytes = 1 << 20,
                                               .on_packet = bind_some_key,
                                               .setup = setup_binding};

Test(limits, bindings)
{
    for (unsigned waits = 0; waits < 2; waits++) {
        struct sm_test_options options = binding;
        struct sm_test *test;
        struct sm_errbuf error;
        options.cannot_wait = waits == 0;
        options.seed = 5 + waits;
        cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
        sm_test_finish(test);
        const struct sm_test_result *result = sm_test_result(test);
        cr_assert_str_empty(result->broken, "%s", result->broken);
        cr_assert_eq(result->bindings_live, 10);
        cr_assert_gt(result->bindings_refused, 0);
        sm_test_destroy(test, NULL);
    }
}

Test(limits, bindings_need_steering_by_flow)
{
    struct sm_test_options options = binding;
    struct sm_test *test;
    struct sm_errbuf error;

    options.user = &cls;
    cr_assert_eq(sm_test_create(&test, &options, &error), SM_E_CONFLICT);
    cr_assert(strstr(error.text, "'bind' binds keys") != NULL, "%s", error.text);
}

/*
 * A handler that takes thousands of flows in hand, arms their timers and then closes them all: it is refused what could
 * not be undone, the same wherever in a burst it is and whoever dies.
 */
#define MANY 3000u

static sm_class many;
static uint64_t most, least;

static void hoard(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    static sm_flow flows[MANY];
    const sm_time soon = {sm_packet_time(packet).ns + 1000};
    unsigned count = 0;

    (void)user;
    while (count < MANY && sm_flow_create(replica, many, packet, (uint16_t)(count + 1), &flows[count], NULL) == 0)
        count++;
    for (unsigned i = 0; i < count; i++)
        for (unsigned slot = 0; slot < SM_MAX_TIMERS; slot++)
            sm_flow_timer_set(replica, many, flows[i], slot, (sm_time){soon.ns + slot + i % 7});
    for (unsigned i = 0; i < count; i++)
        sm_flow_close(replica, many, flows[i]);
    most = count > most ? count : most;
    least = count < least ? count : least;
}

static void never(struct sm_replica *replica, sm_class of, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    (void)replica, (void)of, (void)flow, (void)slot, (void)now, (void)user;
}

static int setup_many(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "many",
                                             .record_size = 16,
                                             .granularity = SM_BY_FLOW,
                                             .timers = SM_MAX_TIMERS,
                                             .on_timer = never};

    (void)user;
    return sm_class_register(replica, &options, &many);
}

Test(limits, flows_in_hand)
{
    struct sm_trace *trace = sm_trace_create();
    struct sm_test_options options = {.size = sizeof options,
                                      .on_packet = hoard,
                                      .setup = setup_many,
                                      .input = trace,
                                      .replicas = 2,
                                      .schedule = true,
                                      .kills = 10};
    struct sm_test_result result;
    struct sm_errbuf error;

    for (unsigned i = 0; i < 60; i++)
        cr_assert_eq(sm_trace_udp(trace, (sm_time){1000000 + i}, "10.0.0.1:1", "10.0.0.2:2", &i, sizeof i), 0);
    least = UINT64_MAX;
    cr_assert_eq(sm_test_run(&options, &result, &error), 0, "%s", error.text);
    cr_assert_str_empty(result.broken, "%s", result.broken);
    cr_assert_geq(least, SM_MAX_IN_HAND);
    cr_assert_eq(least, most, "between %lu and %lu", (unsigned long)least, (unsigned long)most);
    cr_assert_lt(most, MANY);
    cr_assert_eq(result.flows_live, 0);
    sm_trace_destroy(trace);
}

/* Polls of the switch alone: the replicas answer nothing. */
static void wait_in_vain(struct sm_test *test, unsigned polls)
{
    for (unsigned i = 0; i < polls; i++) {
        test->clock += 100000;
        switch_poll(test->sw);
        cr_assert_leq(test->sw->moves_in_flight, SWITCH_MOVES_WAITING);
    }
}

static void shards_wait_together(bool die)
{
    const uint32_t unlimited = 0;
    struct sm_trace *trace = sm_trace_create();
    struct sm_test_options options = {.size = sizeof options,
                                      .on_packet = count,
                                      .setup = setup,
                                      .user = (void *)(uintptr_t)&unlimited,
                                      .input = trace,
                                      .replicas = 1};
    struct sm_test *test;
    struct sm_errbuf error;

    drop_refused = false;
    for (unsigned i = 0; i < 4000; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.0.1:%u", 1 + i % 2000);
        cr_assert_eq(sm_trace_udp(trace, (sm_time){1000000 + i}, from, "10.0.0.2:53", &i, sizeof i), 0);
    }
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_start_replica(test), 2);
    cr_assert_eq(sm_test_until_packet(test, 100), 0);
    cr_assert_eq(sm_test_merge(test, 1, 2), 0);
    wait_in_vain(test, 1);
    cr_assert_eq(test->sw->moves_in_flight, SWITCH_MOVES_IN_FLIGHT);
    wait_in_vain(test, 1);
    cr_assert_gt(test->sw->moves_in_flight, SWITCH_MOVES_IN_FLIGHT);
    wait_in_vain(test, 100);
    cr_assert_eq(test->sw->moves_in_flight, SWITCH_MOVES_WAITING);
    cr_assert_gt(test->sw->held_packets, 0);
    if (die)
        cr_assert_eq(sm_test_kill(test, 1), 0);
    cr_assert_eq(sm_test_settle(test), 0);
    cr_assert_eq(test->sw->slots[0].shards, 0);
    cr_assert_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    cr_assert_eq(sm_test_result(test)->out, sm_trace_count(trace));
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

Test(limits, shards_behind_a_backlog_wait_together)
{
    shards_wait_together(false);
}

Test(limits, their_owner_dies)
{
    shards_wait_together(true);
}
