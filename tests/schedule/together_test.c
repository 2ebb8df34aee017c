/* SPDX-License-Identifier: BSD-2-Clause */

/* Replicas that die at the same instant, as threads of one process do: nobody who is dead inherits. */

#include <criterion/criterion.h>
#include <stdio.h>

#include <splitmerge/testing.h>

#include "testing/test.h"

#define PACKETS 4000u
#define FLOWS 200u

static const sm_class cls = {0};

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    cr_assert_eq(sm_flow_create(replica, cls, packet, 0, &flow, NULL), 0);
    ++*(uint64_t *)flow.state;
}

static int setup(struct sm_replica *replica, void **user)
{
    static const struct sm_field field = {"packets", SM_FIELD_UINT, 0, sizeof(uint64_t), NULL, 0};
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "counted",
                                             .record_size = sizeof(uint64_t),
                                             .fields = &field,
                                             .field_count = 1,
                                             .granularity = SM_BY_FLOW};
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static struct sm_trace *trace;
static struct sm_errbuf error;

/* Packets are under way in all replicas. */
static struct sm_test *begin(unsigned replicas, uint64_t seed)
{
    struct sm_test_options options = {.size = sizeof options,
                                      .on_packet = on_packet,
                                      .setup = setup,
                                      .input = trace,
                                      .replicas = replicas,
                                      .seed = seed,
                                      .order_arrival = true};
    struct sm_test *test;

    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_until_packet(test, PACKETS / 4), 0);
    return test;
}

static void die(struct sm_test *test, uint64_t slots)
{
    switch_slots_died(test->sw, slots);
    for (; slots; slots &= slots - 1)
        test_free_member(test, (unsigned)__builtin_ctzll(slots));
}

static bool add_up(const struct sm_test_flow *flow, void *sum)
{
    *(uint64_t *)sum += *(const uint64_t *)flow->record;
    return true;
}

static void end(struct sm_test *test)
{
    uint64_t counted = 0;
    int result = 0;

    for (unsigned steps = 0; steps < 100000 && result == 0; steps++)
        result = sm_test_step(test);
    cr_assert_eq(result, SM_E_END, "it comes to an end");
    cr_expect_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    cr_expect_eq(sm_test_result(test)->out, PACKETS);
    sm_test_flows(test, add_up, &counted);
    cr_expect_eq(counted, PACKETS, "each packet counts once");
    sm_test_destroy(test, NULL);
}

/* The packet that a dead replica was at. */
static uint32_t in_hand(const struct sm_test *test, unsigned slot)
{
    const struct switch_slot *s = &test->sw->slots[slot];
    uint32_t at = s->channel->at, consumed = commit_consumed(s->channel->commit);
    const struct in_entry *entry = &s->in[at & s->ring_mask];

    return at - consumed < s->in_head - consumed && entry->kind == IN_PACKET ? entry->buffer : POOL_NONE;
}

static void make_trace(void)
{
    trace = sm_trace_create();
    for (unsigned i = 0; i < PACKETS; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.0.1:%u", 1024 + i % FLOWS);
        cr_assert_eq(sm_trace_udp(trace, (sm_time){1000000000000 + i * 1000ull}, from, "10.0.0.2:53", "x", 1), 0);
    }
}

static void free_trace(void)
{
    sm_trace_destroy(trace);
}

/* A run in which two of three replicas have died with a packet in hand, and nobody knows of it yet. */
static struct sm_test *two_die_over_a_packet(uint32_t hands[static 2])
{
    for (uint64_t seed = 1;; seed++) {
        struct sm_test *test = begin(3, seed);
        for (unsigned slot = 0; slot < 2; slot++) {
            test_burst_to_death(test, slot);
            hands[slot] = in_hand(test, slot);
        }
        if (hands[0] != POOL_NONE && hands[1] != POOL_NONE)
            return test;
        sm_test_destroy(test, NULL);
    }
}

TestSuite(together, .init = make_trace, .fini = free_trace);

Test(together, what_each_had_in_hand_is_suspected_once)
{
    uint32_t hands[2];
    struct sm_test *test = two_die_over_a_packet(hands);

    die(test, 3);
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_eq(test->sw->packets[hands[i]].deaths, 1);
        cr_expect_eq(test->sw->packets[hands[i]].slot, 2, "the survivor has it");
    }
    cr_expect_eq(test->sw->slots[2].shards, SM_SHARDS);
    cr_expect_eq(test->sw->deaths, 2);
    end(test);
}

Test(together, where_one_was_to_be_killed_the_others_are_not_suspected)
{
    uint32_t hands[2];
    struct sm_test *test = two_die_over_a_packet(hands);

    test->sw->slots[1].condemned = "hangs";
    die(test, 3);
    cr_expect_eq(test->sw->packets[hands[0]].deaths, 0);
    cr_expect_eq(test->sw->packets[hands[1]].deaths, 1);
    end(test);
}

/* Moves from one to the other are under way, by copying or not. */
static struct sm_test *begin_moves(bool copying)
{
    struct sm_test *test = begin(3, 1);

    cr_assert_eq(sm_test_copying(test, copying, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_merge(test, sm_test_replica(test, 0), sm_test_replica(test, 1)), 0);
    while (test->sw->moves_in_flight < SWITCH_MOVES_IN_FLIGHT / 2)
        switch_poll(test->sw);
    cr_assert(!copying || test->sw->lanes_used > 0);
    return test;
}

static void moves_between_the_dead_end(bool copying)
{
    struct sm_test *test = begin_moves(copying);
    const uint32_t given = test->sw->slots[1].in_head;

    die(test, 3);
    cr_expect_eq(test->sw->slots[1].in_head, given, "nothing is given to one who is dead");
    for (unsigned shard = 0; shard < SM_SHARDS; shard++)
        cr_assert_eq(test->sw->shards[shard].owner, 2);
    end(test);
}

Test(together, moves_between_the_dead_end)
{
    moves_between_the_dead_end(false);
    moves_between_the_dead_end(true);
}

/* The shards are nobody's; what was to be copied is nowhere. */
Test(together, nobody_survives_a_copying_move)
{
    struct sm_test *test = begin_moves(true);

    die(test, 7);
    cr_expect_eq(test->sw->orphans, SM_SHARDS);
    cr_assert_geq(sm_test_start_replica(test), 1);
    end(test);
}
