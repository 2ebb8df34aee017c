/* SPDX-License-Identifier: BSD-2-Clause */
/* Copies of shards: made beside them, installed, cleared; and what a death leaves of each. */

#include "support.h"

#include <criterion/criterion.h>

#define SHARD 11u
#define FLOWS 3000u

static struct fixture f;
static unsigned cls;

static void setup(void)
{
    f = fixture_open(64u << 20, FLOWS); /* no room for more flows: copies count for no limit */
    cls = fixture_class(&f, 64, 2, FLOWS);
}

static void sound(void)
{
    struct sm_errbuf error = {""};
    cr_expect_eq(state_check(f.state, &error), 0, "%s", error.text);
}

static void teardown(void)
{
    sound();
    fixture_close(&f);
}

TestSuite(state_copy, .init = setup, .fini = teardown);

static void fill(uint32_t shard, uint32_t flows, uint8_t mark)
{
    for (uint32_t i = 0; i < flows; i++) {
        struct flow *flow = insert_key(f.actor, shard, cls, i);
        cr_assert_not_null(flow);
        *(uint8_t *)flow_record(flow) = mark;
        cr_assert_eq(state_timer_set(f.actor, shard, flow, i % 2, (sm_time){1000 + i}), 0);
    }
}

static void expect(uint32_t shard, uint32_t flows, uint8_t mark)
{
    cr_assert_eq(state_shard_flows(f.state, shard), flows);
    for (uint32_t i = 0; i < flows; i++) {
        struct flow *flow = find_key(f.state, shard, cls, i);
        cr_assert_not_null(flow);
        cr_assert_eq(*(uint8_t *)flow_record(flow), mark);
        cr_assert_eq(state_timer_get(f.state, flow, i % 2).ns, 1000 + i);
    }
}

static struct state_usage usage(void)
{
    struct state_usage now;
    state_usage(f.state, &now);
    return now;
}

static void clear(uint32_t copy, uint32_t flows)
{
    unsigned parts = 1;
    while (!state_copy_clear(f.actor, copy, 100)) {
        sound();
        parts++;
    }
    cr_assert_geq(parts, flows / 107, "bounded work at a time");
    cr_assert_eq(state_shard_flows(f.state, copy), 0);
}

static void through(uint32_t flows)
{
    const uint32_t copy = state_copy(3);
    fill(SHARD, flows, 1);
    struct state_usage before = usage();
    fill(copy, flows, 2);
    sound();
    cr_assert_eq(usage().flows_live, flows);
    cr_assert_eq(usage().flows_created, before.flows_created);
    expect(SHARD, flows, 1);
    state_copy_install(f.actor, SHARD, copy);
    sound();
    expect(SHARD, flows, 2);
    expect(copy, flows, 1);
    clear(copy, flows);
    expect(SHARD, flows, 2);
    cr_assert_eq(usage().flows_live, flows);
    cr_assert_eq(usage().flows_closed, 0);
    uint64_t now = 1000;
    unsigned slot;
    sm_time deadline;
    for (struct flow *flow; state_timer_expire(f.actor, SHARD, (sm_time){UINT64_MAX - 1}, &flow, &slot, &deadline);
         now++) {
        cr_assert_eq(deadline.ns, now);
    }
    cr_assert_eq(now, 1000 + flows, "timers came along");
}

Test(state_copy, empty)
{
    through(0);
}

Test(state_copy, few_flows)
{
    through(5);
}

Test(state_copy, many_flows)
{
    through(FLOWS);
}

Test(state_copy, half_made_is_cleared)
{
    fill(SHARD, 200, 1);
    uint64_t before = usage().memory_used;
    fill(state_copy(0), 150, 2);
    clear(state_copy(0), 150);
    state_actor_leave(f.actor);
    cr_assert_leq(usage().memory_used, before);
    cr_assert_eq(state_actor_join(&f.actor, f.state, 0), 0);
    expect(SHARD, 200, 1);
}

Test(state_copy, chunks_go_with_it)
{
    const struct state_class with_chunks = {.name = "chunks", .record_size = 16, .alloc_limit = 400000};
    int id = state_class_add(f.state, &with_chunks);
    for (uint32_t i = 0; i < 20; i++) {
        struct flow *flow = insert_key(f.actor, state_copy(1), (unsigned)id, i);
        cr_assert_not_null(state_chunk_new(f.actor, state_copy(1), flow, NULL, 100 + 5000 * i));
    }
    sound();
    clear(state_copy(1), 20);
}

static unsigned char region[8 << 20];
static uint64_t commits;

/* With a journal, as a replica has it; then it dies before it commits. */
static struct journal journal_on(void)
{
    struct journal journal;
    journal_format((struct journal_region *)(void *)region, sizeof region);
    journal_open(&journal, (struct journal_region *)(void *)region, f.actor, commits);
    return journal;
}

static void die(void)
{
    f.actor->journal = NULL;
    cr_assert_geq(journal_recover(f.state, (struct journal_region *)(void *)region, sizeof region, commits, f.memory,
                                  (char *)f.memory + f.bytes, NULL, NULL),
                  0);
    state_actor_abandon(f.state, 0);
    cr_assert_eq(state_actor_join(&f.actor, f.state, 0), 0);
    sound();
}

Test(state_copy, uncommitted_is_undone)
{
    fill(SHARD, 300, 1);
    fill(state_copy(2), 300, 2);

    struct journal journal = journal_on();
    f.actor->journal = &journal;
    state_copy_install(f.actor, SHARD, state_copy(2));
    expect(SHARD, 300, 2);
    die();
    expect(SHARD, 300, 1);
    expect(state_copy(2), 300, 2);

    journal = journal_on();
    f.actor->journal = &journal;
    (void)state_copy_clear(f.actor, state_copy(2), 1000);
    die();
    expect(state_copy(2), 300, 2);
    clear(state_copy(2), 300);
}
