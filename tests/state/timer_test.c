/* SPDX-License-Identifier: BSD-2-Clause */
/* Timers: order, ties, lazy re-arming. */

#include "support.h"

#include <criterion/criterion.h>

#define SHARD 4

static struct fixture f;
static unsigned cls;

static void setup(void)
{
    f = fixture_open(8u << 20, 10000);
    cls = fixture_class(&f, 32, 2, 0);
}

static void teardown(void)
{
    struct sm_errbuf error = {""};
    cr_expect_eq(state_check(f.state, &error), 0, "%s", error.text);
    fixture_close(&f);
}

TestSuite(state_timer, .init = setup, .fini = teardown);

static void arm(struct flow *flow, unsigned slot, uint64_t deadline)
{
    cr_assert_eq(state_timer_set(f.actor, SHARD, flow, slot, (sm_time){deadline}), 0);
    cr_assert_eq(state_timer_get(f.state, flow, slot).ns, deadline);
}

static void expect(uint64_t now, const struct flow *flow, unsigned slot, uint64_t deadline)
{
    struct flow *got;
    unsigned got_slot;
    sm_time got_deadline;
    cr_assert(state_timer_expire(f.actor, SHARD, (sm_time){now}, &got, &got_slot, &got_deadline));
    cr_assert_eq(got, flow);
    cr_assert_eq(got_slot, slot);
    cr_assert_eq(got_deadline.ns, deadline);
    cr_assert_eq(state_timer_get(f.state, flow, slot).ns, 0);
}

static void expect_none(uint64_t now)
{
    struct flow *flow;
    unsigned slot;
    sm_time deadline;
    cr_assert_not(state_timer_expire(f.actor, SHARD, (sm_time){now}, &flow, &slot, &deadline));
}

Test(state_timer, nothing_armed)
{
    cr_assert_eq(state_timer_next(f.state, SHARD), UINT64_MAX);
    expect_none(UINT64_MAX);
    struct flow *flow = insert_key(f.actor, SHARD, cls, 1);
    cr_assert_eq(state_timer_next(f.state, SHARD), UINT64_MAX);
    cr_assert_eq(state_timer_get(f.state, flow, 1).ns, 0);
    state_timer_cancel(f.actor, SHARD, flow, 1);
    expect_none(UINT64_MAX);
}

Test(state_timer, due_by_deadline_inclusive)
{
    struct flow *flow = insert_key(f.actor, SHARD, cls, 1);
    arm(flow, 0, 100);
    cr_assert_eq(state_timer_next(f.state, SHARD), 100);
    expect_none(99);
    expect(100, flow, 0, 100);
    expect_none(UINT64_MAX);
    cr_assert_eq(state_timer_next(f.state, SHARD), UINT64_MAX);
}

Test(state_timer, ties_by_key_then_slot)
{
    struct flow *flows[5];
    static const uint32_t order[5] = {3, 0, 4, 2, 1};
    for (unsigned i = 0; i < 5; i++) {
        flows[order[i]] = insert_key(f.actor, SHARD, cls, order[i] * 300);
    }
    for (unsigned i = 0; i < 5; i++) {
        arm(flows[order[4 - i]], 1, 50);
        arm(flows[order[i]], 0, 50);
    }
    for (unsigned i = 0; i < 5; i++) {
        expect(60, flows[i], 0, 50);
        expect(60, flows[i], 1, 50);
    }
    expect_none(60);
}

Test(state_timer, ties_of_classes_by_class)
{
    unsigned second = fixture_class(&f, 32, 1, 0);
    struct flow *late = insert_key(f.actor, SHARD, second, 1), *early = insert_key(f.actor, SHARD, cls, 1);
    arm(late, 0, 50);
    arm(early, 0, 50);
    arm(early, 1, 50);
    expect(50, early, 0, 50);
    expect(50, late, 0, 50);
    expect(50, early, 1, 50);
}

Test(state_timer, a_stale_entry_does_not_win_a_tie)
{
    struct flow *low = insert_key(f.actor, SHARD, cls, 1), *high = insert_key(f.actor, SHARD, cls, 2);
    arm(low, 0, 50);
    arm(high, 0, 50);
    arm(low, 0, 51); /* its entry still says 50 and is first by key */
    cr_assert_leq(state_timer_next(f.state, SHARD), 50);
    expect(60, high, 0, 50);
    expect(60, low, 0, 51);
    /* and an entry put right joins a tie at its own place */
    arm(low, 0, 40);
    arm(high, 0, 50);
    arm(low, 0, 50);
    expect(50, low, 0, 50);
    expect(50, high, 0, 50);
}

Test(state_timer, later_is_lazy_earlier_is_not)
{
    struct flow *flow = insert_key(f.actor, SHARD, cls, 1), *other = insert_key(f.actor, SHARD, cls, 2);
    arm(flow, 0, 100);
    arm(other, 0, 150);
    arm(flow, 0, 1000);
    cr_assert_eq(f.state->shards[SHARD].heap[HEAP_ROOT].deadline, 100);
    arm(flow, 0, 500); /* earlier than asked for last, later than the entry */
    cr_assert_eq(f.state->shards[SHARD].heap[HEAP_ROOT].deadline, 100);
    arm(other, 0, 90);
    cr_assert_eq(state_timer_next(f.state, SHARD), 90);
    expect(499, other, 0, 90);
    expect_none(499);
    cr_assert_eq(state_timer_next(f.state, SHARD), 500);
    expect(500, flow, 0, 500);
}

Test(state_timer, ending_a_flow_disarms_it)
{
    struct flow *flows[100];
    for (uint32_t i = 0; i < 100; i++) {
        flows[i] = insert_key(f.actor, SHARD, cls, i);
        arm(flows[i], i % 2, 1000 - i);
    }
    for (uint32_t i = 0; i < 100; i += 3) {
        state_remove(f.actor, SHARD, flows[i]);
    }
    for (uint32_t i = 100; i-- > 0;) {
        if (i % 3 != 0) {
            expect(2000, flows[i], i % 2, 1000 - i);
        }
    }
    expect_none(UINT64_MAX);
}
