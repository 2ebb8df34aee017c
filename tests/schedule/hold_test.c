/* SPDX-License-Identifier: BSD-2-Clause */

/* Flows that a middlebox holds across packets: their moves wait, or are abandoned and say why. */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <splitmerge/testing.h>

#include "testing/random.h"
#include "testing/test.h"

#define PACKET_NS 1000000ull
#define HELD 8u
#define HOARD 200u

struct record {
    uint64_t packets, touched;
};

/* What a replica holds: flows that it puts a few packets later. */
struct holder {
    struct sm_replica *replica;
    sm_flow flows[HELD];
    uint64_t packets;
};

static const sm_class cls = {0};
static struct holder *latest; /* who held last */
static bool closes, lets_go, hoards;
static sm_flow hoard[HOARD];
static unsigned hoarded;

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct holder *holder = user;
    sm_flow flow;

    cr_assert_eq(sm_flow_create(replica, cls, packet, 0, &flow, NULL), 0);
    struct record *record = flow.state;
    if (record->packets++ == 0 && hoards) {
        cr_assert_eq(sm_flow_hold(replica, cls, flow), 0);
        hoard[hoarded++] = flow;
    }
    if (hoards)
        return;
    sm_flow *place = &holder->flows[holder->packets++ % HELD];
    if (lets_go && place->state) {
        sm_flow_put(replica, cls, *place);
        place->state = NULL;
    }
    if (place->state)
        return;
    cr_assert_eq(sm_flow_hold(replica, cls, flow), 0);
    *place = flow;
    holder->replica = replica;
    latest = holder;
    if (closes) {
        cr_assert_eq(sm_flow_hold(replica, cls, flow), 0, "twice");
        sm_flow_close(replica, cls, flow);
        place->state = NULL;
    }
}

static int setup(struct sm_replica *replica, void **user)
{
    static const struct sm_field fields[] = {
        {"packets", SM_FIELD_UINT, offsetof(struct record, packets), 8, NULL, 0},
        {"touched", SM_FIELD_UINT, offsetof(struct record, touched), 8, NULL, 0},
    };
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "held",
                                             .record_size = sizeof(struct record),
                                             .fields = fields,
                                             .field_count = 2,
                                             .granularity = SM_BY_FLOW};
    sm_class got;

    *user = calloc(1, sizeof(struct holder));
    return sm_class_register(replica, &options, &got);
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)replica;
    free(user);
}

static struct sm_trace *make_trace(unsigned flows, unsigned packets)
{
    struct sm_trace *trace = sm_trace_create();

    for (unsigned i = 0; i < packets; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.0.1:%u", 1024 + i * 7 % flows);
        sm_trace_udp(trace, (sm_time){1000000000000 + i * PACKET_NS}, from, "10.0.0.2:53", "x", 1);
    }
    return trace;
}

static struct sm_test_options options = {
    .size = sizeof options, .on_packet = on_packet, .setup = setup, .ended = ended, .seed = 7, .order_arrival = true};

/* One flow, held by replica 1; its shard is on the way to replica 2. */
static struct sm_test *begin_move(struct sm_trace *trace, uint64_t hold_ns, bool copying)
{
    struct sm_test *test;
    struct sm_errbuf error;

    options.input = trace;
    options.replicas = 1;
    options.hold_ns = hold_ns;
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_start_replica(test), 2);
    while (sm_test_result(test)->flows_created == 0 && sm_test_result(test)->in == 0)
        sm_test_step(test);
    latest = NULL;
    while (!latest)
        sm_test_step(test);
    cr_assert_eq(sm_test_copying(test, copying, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_move(test, trace, 0, 2), 0);
    return test;
}

static void end(struct sm_test *test, struct sm_trace *trace)
{
    cr_assert_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    cr_assert_eq(sm_test_result(test)->out, sm_trace_count(trace));
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

static bool find_record(const struct sm_test_flow *flow, void *record)
{
    *(const struct record **)record = flow->record;
    return false;
}

/* Of the only flow. */
static const struct record *record_of(const struct sm_test *test)
{
    const struct record *record = NULL;

    sm_test_flows(test, find_record, &record);
    return record;
}

/* What is done by the reference while the move waits goes along. */
static void a_move_waits(bool copying)
{
    struct sm_trace *trace = make_trace(1, 300);
    struct sm_test *test = begin_move(trace, 0, copying);

    for (unsigned i = 0; i < 500; i++)
        sm_test_step(test);
    cr_assert(sm_test_moving(test), "the flow is held");
    cr_assert_eq(sm_test_result(test)->moves, 0);
    struct record *record = latest->flows[0].state;
    uint64_t packets = record->packets;
    cr_assert(packets > 0 && sm_flow_writable(latest->replica, cls, latest->flows[0]));
    record->touched = 42;
    for (unsigned i = 0; i < HELD; i++)
        if (latest->flows[i].state)
            sm_flow_put(latest->replica, cls, latest->flows[i]);
    memset(latest->flows, 0, sizeof latest->flows);
    sm_test_settle(test);
    cr_assert_eq(sm_test_result(test)->moves, 1);
    cr_assert_eq(sm_test_result(test)->copied, copying);
    cr_assert_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    cr_assert_eq(record_of(test)->touched, 42);
    cr_assert_eq(record_of(test) != record, copying);
    end(test, trace);
}

Test(hold, a_move_waits_for_the_reference)
{
    a_move_waits(false);
}

Test(hold, a_copying_move_waits_for_the_reference)
{
    a_move_waits(true);
}

/* The reference is as good as before. */
static void a_move_is_abandoned(bool copying)
{
    struct sm_trace *trace = make_trace(1, 300);
    struct sm_test *test = begin_move(trace, 2000000, copying);
    const struct record *record = record_of(test);

    sm_test_settle(test);
    cr_assert_eq(record_of(test), record);
    cr_assert_eq(sm_test_result(test)->copied, 0);
    cr_assert_eq(sm_test_result(test)->moves, 0);
    cr_assert_eq(sm_test_result(test)->abandoned, 1);
    cr_assert_str_eq(sm_test_result(test)->abandoned_for, "limits.hold.time: the middlebox holds a flow");
    end(test, trace);
}

Test(hold, past_the_deadline_the_move_is_abandoned)
{
    a_move_is_abandoned(false);
}

Test(hold, past_the_deadline_the_copying_move_is_abandoned)
{
    a_move_is_abandoned(true);
}

Test(hold, a_flow_that_ends_is_not_held)
{
    closes = true;
    struct sm_trace *trace = make_trace(1, 300);
    struct sm_test *test = begin_move(trace, 0, false);

    sm_test_settle(test);
    cr_assert_eq(sm_test_result(test)->moves, 1);
    end(test, trace);
}

/* More shards wait for references than are let in together where none does. */
Test(hold, many_flows_are_held)
{
    struct sm_trace *trace = make_trace(HOARD, 2000);
    struct sm_test *test;
    struct sm_errbuf error;

    hoards = true;
    options.input = trace;
    options.replicas = 1;
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_start_replica(test), 2);
    while (hoarded < HOARD)
        cr_assert_eq(sm_test_step(test), 0);
    struct sm_replica *hoarder = test->members[0].replica;
    cr_assert_eq(sm_test_merge(test, 1, 2), 0);
    for (unsigned i = 0; i < 20000 && hoarder->kept_count < HOARD * 3 / 4; i++)
        cr_assert_eq(sm_test_step(test), 0);
    cr_assert_gt(hoarder->kept_count, SWITCH_MOVES_IN_FLIGHT);
    for (unsigned i = 0; i < HOARD; i++)
        sm_flow_put(hoarder, cls, hoard[i]);
    cr_assert_eq(sm_test_settle(test), 0);
    cr_assert_eq(sm_test_result(test)->moves, SM_SHARDS);
    end(test, trace);
}

Test(hold, random_schedules)
{
    uint64_t seed = random_seed();
    struct sm_trace *trace = make_trace(60, 3000);

    lets_go = true;
    options.input = trace;
    options.hold_ns = 300000;
    options.schedule = true;
    for (unsigned i = 0; i < 24; i++, seed++) {
        struct sm_errbuf error = {""};
        options.seed = seed;
        options.replicas = 2 + i % 4;
        options.kills = i % 3 == 2 ? 60 : 0;
        options.copies = i % 2;
        cr_assert_eq(sm_test_compare(&options, &error), 0, "%s", error.text);
    }
    sm_trace_destroy(trace);
}

/* ---- moves that cannot be begun ---- */

static void pass(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    (void)replica, (void)packet, (void)user;
}

/* The owner dies, and the only other replica, where its shards were to go, is about to be killed. */
Test(hold, shards_of_nobody_do_not_go_to_one_that_is_condemned)
{
    struct sm_trace *trace = sm_trace_create();
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = pass, .input = trace, .replicas = 1, .seed = 1};
    struct sm_errbuf error;
    struct sm_test *test;

    for (unsigned i = 0; i < 1000; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.0.1:%u", 1024 + i);
        sm_trace_udp(trace, (sm_time){1000000000ull + i * PACKET_NS}, from, "10.0.0.2:53", NULL, 0);
    }
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    sm_test_until_packet(test, 100);
    const uint32_t owner = sm_test_replica(test, 0), other = (uint32_t)sm_test_start_replica(test);
    struct sm_switch *sw = test->sw;
    const unsigned slot = (unsigned)switch_slot_of(sw, other);
    cr_assert_eq(switch_move_begin(sw, UINT64_MAX, false), 0);
    cr_assert_eq(switch_move_add(sw, 0, SM_SHARDS - 1, slot), 0);
    switch_move_go(sw);
    sw->slots[slot].condemned = "hangs";
    cr_assert_eq(sm_test_kill(test, owner), 0);
    cr_assert_eq(sw->orphans, SM_SHARDS);
    while (sm_test_moving(test))
        cr_assert_eq(sm_test_step(test), 0);
    cr_expect_eq(sw->operation.abandoned, SM_SHARDS);
    cr_expect_not_null(strstr(sw->operation.cause, "is gone"), "%s", sw->operation.cause);
    cr_assert_eq(sm_test_kill(test, other), 0);
    cr_expect_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}
