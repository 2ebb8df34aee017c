/* SPDX-License-Identifier: BSD-2-Clause */
/* Slabs: exact limits, use for other sizes, runs, actors that leave or die. */

#include "support.h"

#include <criterion/criterion.h>

static struct fixture f;

static struct fixture open_slabs(uint32_t slabs)
{
    return fixture_open((uint64_t)slabs * SLAB_BYTES, 1u << 20);
}

static void expect_consistent(void)
{
    struct sm_errbuf error = {""};
    cr_expect_eq(state_check(f.state, &error), 0, "%s", error.text);
}

Test(state_slab, format_refuses_what_cannot_be)
{
    struct state_config config = {.memory = 1 << 20, .flows = 1};
    struct state *state;
    size_t bytes = state_bytes(&config);
    void *memory = aligned_alloc(4096, (bytes + 8191) / 4096 * 4096);
    cr_assert_eq(state_format(&state, memory, bytes - 1, &config), SM_E_INVALID);
    cr_assert_eq(state_format(&state, (char *)memory + 64, bytes, &config), SM_E_INVALID);
    cr_assert_eq(state_format(&state, NULL, bytes, &config), SM_E_INVALID);
    config.flows = 0;
    cr_assert_eq(state_bytes(&config), 0);
    cr_assert_eq(state_format(&state, memory, bytes, &config), SM_E_INVALID);
    config = (struct state_config){.memory = UINT64_C(1) << 40, .flows = 1};
    cr_assert_eq(state_bytes(&config), 0);
    free(memory);
}

Test(state_slab, classes_are_checked)
{
    f = open_slabs(4);
    struct state_class cls = {.record_size = 0};
    cr_assert_eq(state_class_add(f.state, &cls), SM_E_INVALID);
    cls.record_size = SM_MAX_RECORD + 1;
    cr_assert_eq(state_class_add(f.state, &cls), SM_E_INVALID);
    cls = (struct state_class){.record_size = 1, .timers = STATE_TIMERS + 1};
    cr_assert_eq(state_class_add(f.state, &cls), SM_E_INVALID);
    for (unsigned i = 0; i < SM_MAX_CLASSES; i++) { /* each of a size of its own */
        cls = (struct state_class){.record_size = 5000 + 64 * i};
        cr_assert_eq(state_class_add(f.state, &cls), (int)i);
        cr_assert_eq(state_class(f.state, i)->record_size, 5000 + 64 * i);
    }
    cls.record_size++;
    cr_assert_eq(state_class_add(f.state, &cls), SM_MAX_CLASSES, "other versions may be of the same sizes");
    for (unsigned i = SM_MAX_CLASSES + 1; i < STATE_FORMS; i++) {
        cr_assert_eq(state_class_add(f.state, &cls), (int)i);
    }
    cr_assert_eq(state_class_add(f.state, &cls), SM_E_LIMIT);
    cr_assert_eq(state_class_count(f.state), STATE_FORMS);
    cr_assert_null(state_class(f.state, STATE_FORMS));
    fixture_close(&f);
}

Test(state_slab, memory_is_used_to_the_last_object)
{
    f = open_slabs(5);
    unsigned cls = fixture_class(&f, 464, 0, 0); /* 512 bytes: 128 in a slab */
    uint32_t n = 0;
    while (insert_key(f.actor, n % SM_SHARDS, cls, n) != NULL) {
        n++;
    }
    cr_assert_eq(n, 5 * 128);
    struct state_usage usage;
    state_usage(f.state, &usage);
    cr_assert_eq(usage.memory_used, 5 * SLAB_BYTES);
    cr_assert_eq(usage.memory_limit, 5 * SLAB_BYTES);
    expect_consistent();
    /* One goes, one comes, wherever it was. */
    for (uint32_t i = 0; i < n; i += 7) {
        state_remove(f.actor, i, find_key(f.state, i, cls, i));
        cr_assert_not_null(insert_key(f.actor, i, cls, n + i));
        cr_assert_null(insert_key(f.actor, i, cls, 2 * n + i));
    }
    expect_consistent();
    fixture_close(&f);
}

Test(state_slab, a_refused_flow_changes_nothing)
{
    f = open_slabs(2);
    unsigned cls = fixture_class(&f, 32000, 1, 0); /* a heap takes one slab, flows the other: two fit */
    cr_assert_not_null(insert_key(f.actor, 0, cls, 0));
    cr_assert_not_null(insert_key(f.actor, 0, cls, 1));
    for (uint32_t i = 2; i < 30; i++) {
        cr_assert_null(insert_key(f.actor, i, cls, i));
        cr_assert_eq(state_shard_flows(f.state, i), 0);
    }
    expect_consistent();
    struct state_usage usage;
    state_usage(f.state, &usage);
    cr_assert_eq(usage.flows_live, 2);
    cr_assert_eq(usage.flows_refused, 28);
    fixture_close(&f);
}

Test(state_slab, empty_slabs_serve_other_sizes)
{
    f = open_slabs(8);
    unsigned small = fixture_class(&f, 16, 0, 0), large = fixture_class(&f, 30000, 0, 0);
    for (unsigned round = 0; round < 3; round++) {
        uint32_t n = 0, m = 0;
        while (insert_key(f.actor, n % SM_SHARDS, small, n) != NULL) {
            n++;
        }
        cr_assert_eq(n, 8 * SLAB_OBJECTS);
        for (uint32_t i = 0; i < n; i++) {
            state_remove(f.actor, i % SM_SHARDS, find_key(f.state, i % SM_SHARDS, small, i));
        }
        while (insert_key(f.actor, m, large, m) != NULL) {
            m++;
        }
        cr_assert_eq(m, 8 * 2);
        for (uint32_t i = 0; i < m; i++) {
            state_remove(f.actor, i, find_key(f.state, i, large, i));
        }
        expect_consistent();
    }
    fixture_close(&f);
}

Test(state_slab, runs_come_and_go)
{
    f = open_slabs(12);
    expect_consistent();
    void *a = slab_alloc_run(f.actor, 5), *b = slab_alloc_run(f.actor, 5);
    cr_assert_not_null(a);
    cr_assert_not_null(b);
    cr_assert_null(slab_alloc_run(f.actor, 5));
    void *c = slab_alloc_run(f.actor, 2);
    cr_assert_not_null(c); /* out of what was left */
    cr_assert_null(slab_alloc_run(f.actor, 2));
    slab_free(f.actor, a);
    slab_free(f.actor, b);
    void *d = slab_alloc_run(f.actor, 10); /* both together */
    cr_assert_eq(d, a);
    slab_free(f.actor, d);
    slab_free(f.actor, c);
    unsigned cls = fixture_class(&f, 32000, 0, 0);
    uint32_t n = 0;
    while (insert_key(f.actor, n, cls, n) != NULL) {
        n++;
    }
    cr_assert_eq(n, 24);
    expect_consistent();
    fixture_close(&f);
}

Test(state_slab, another_actor_goes_on_where_one_left)
{
    f = open_slabs(3);
    unsigned cls = fixture_class(&f, 16, 0, 0);
    struct state_actor *other, *again;
    cr_assert_eq(state_actor_join(&other, f.state, STATE_ACTORS - 1), 0);
    cr_assert_eq(state_actor_join(&again, f.state, STATE_ACTORS - 1), SM_E_CONFLICT);
    cr_assert_eq(state_actor_join(&again, f.state, STATE_ACTORS), SM_E_INVALID);
    uint32_t n = 0;
    while (insert_key(other, n % 1000, cls, n) != NULL) {
        n++;
    }
    cr_assert_eq(n, 3 * SLAB_OBJECTS);
    for (uint32_t i = 0; i < n; i++) { /* freed by the one that did not allocate */
        state_remove(f.actor, i % 1000, find_key(f.state, i % 1000, cls, i));
    }
    expect_consistent();
    state_actor_leave(other);
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_not_null(insert_key(f.actor, i % 1000, cls, i));
    }
    cr_assert_eq(state_actor_join(&other, f.state, STATE_ACTORS - 1), 0);
    cr_assert_null(insert_key(other, 1, cls, n));
    expect_consistent();
    fixture_close(&f);
}

Test(state_slab, what_a_dead_actor_held_is_free_again)
{
    f = open_slabs(6);
    unsigned cls = fixture_class(&f, 16, 0, 0);
    struct state_actor *dead;
    cr_assert_eq(state_actor_join(&dead, f.state, 3), 0);
    cr_assert_not_null(insert_key(dead, 0, cls, 0));
    /* as if killed between building a run of slabs 1..3 and using it, and while taking slabs 4 and 5 */
    void *run = slab_alloc_run(dead, 3), *next = slab_alloc_run(dead, 2);
    slab_free(dead, run);
    slab_free(dead, next);
    struct slab *slabs = f.state->slabs;
    slabs[1].control = slab_pack((struct slab_control){.holder = 4, .kind = SLAB_RUN, .length = 3});
    slabs[3].control = slab_pack((struct slab_control){.holder = 4, .kind = SLAB_BUILDING});
    slabs[4].control = slab_pack((struct slab_control){.holder = 4, .kind = SLAB_BUILDING});
    slabs[5].control = slab_pack((struct slab_control){.holder = 4, .kind = SLAB_BUILDING});
    state_actor_abandon(f.state, 3);
    expect_consistent();
    uint32_t n = 1;
    while (insert_key(f.actor, n % 1000, cls, n) != NULL) {
        n++;
    }
    cr_assert_eq(n, 6 * SLAB_OBJECTS);
    cr_assert_eq(state_actor_join(&dead, f.state, 3), 0);
    expect_consistent();
    fixture_close(&f);
}
