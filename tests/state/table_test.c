/* SPDX-License-Identifier: BSD-2-Clause */
/* Flow tables: sizes, limits, look-up, iteration. */

#include "state/lookup.h"
#include "support.h"

#include <criterion/criterion.h>

static struct fixture f;

static void setup(void)
{
    f = fixture_open(64u << 20, 100000);
}

static void teardown(void)
{
    struct sm_errbuf error = {""};
    cr_expect_eq(state_check(f.state, &error), 0, "%s", error.text);
    fixture_close(&f);
}

TestSuite(state_table, .init = setup, .fini = teardown);

Test(state_table, hash_is_keyed_and_spread)
{
    struct fixture other = fixture_open(1 << 20, 10);
    other.state->secret[100] ^= 1;
    struct sm_key key = key_of(1), next = key_of(2);
    cr_assert_eq(state_hash(f.state, &key), state_hash(f.state, &key));
    cr_assert_neq(state_hash(f.state, &key), state_hash(f.state, &next));
    other.state->secret[5] ^= 0xff;
    for (unsigned i = 0; i < STATE_SECRET_BYTES; i++) {
        other.state->secret[i] ^= 0x5a;
    }
    cr_assert_neq(state_hash(f.state, &key), state_hash(other.state, &key));
    for (uint32_t i = 0; i < 1000; i++) {
        key = key_of(i);
        uint64_t hash = state_hash(f.state, &key);
        cr_assert_lt(state_shard_of(hash), SM_SHARDS);
        cr_assert_geq(state_stripe_of(hash), SM_SHARDS);
        cr_assert_lt(state_stripe_of(hash), SM_SHARDS + STATE_STRIPES);
    }
    fixture_close(&other);
}

/* What is fetched for a packet, by the hash of its key without a tag, is what a look-up with any tag meets. */
Test(state_table, a_tag_changes_neither_shard_nor_group)
{
    const struct sm_key bare = key_of(1);
    const uint64_t hash = state_hash(f.state, &bare);
    struct group group = {.tags = 0};
    for (uint32_t tag = 1; tag <= UINT16_MAX; tag++) {
        struct sm_key key = bare;
        key.tag = (uint16_t)tag;
        uint64_t tagged = state_hash(f.state, &key);
        cr_assert_eq(tagged, state_hash_tagged(hash, key.tag));
        cr_assert_neq(tagged, hash);
        cr_assert_eq(state_shard_of(tagged), state_shard_of(hash));
        cr_assert_eq(hash_group(tagged), hash_group(hash));
        cr_assert(tag >= STATE_STRIPES || state_stripe_of(tagged) != state_stripe_of(hash));
        group.tags = bytes_set(0, tag % GROUP_SLOTS, hash_tag(tagged));
        group.low = bytes_set(0, tag % GROUP_SLOTS, (uint8_t)tagged);
        cr_assert_neq(group_match_tags(&group, hash), 0);
    }
}

/* Such as differ in their tags' first bits have all that a flow keeps of the hash in common. */
Test(state_table, flows_of_one_key_are_told_apart_by_their_tags)
{
    const uint16_t tags[] = {0, 0x1000, 0x8000, 1, 0x1001};
    enum { TAGS = sizeof tags / sizeof tags[0] };
    unsigned cls = fixture_class(&f, 64, 0, 0);
    struct flow *flows[TAGS];
    for (unsigned i = 0; i < TAGS; i++) {
        struct sm_key key = key_of(1);
        key.tag = tags[i];
        uint64_t hash = state_hash(f.state, &key);
        cr_assert_null(state_find(f.state, 3, cls, &key, hash));
        cr_assert_eq(state_insert(f.actor, 3, cls, &key, hash, &flows[i]), 0);
    }
    for (unsigned i = 0; i < TAGS; i++) {
        struct sm_key key = key_of(1);
        key.tag = tags[i];
        cr_assert_eq(state_find(f.state, 3, cls, &key, state_hash(f.state, &key)), flows[i]);
    }
}

Test(state_table, few_flows_take_no_table)
{
    unsigned cls = fixture_class(&f, 64, 0, 0);
    for (uint32_t i = 0; i < 8; i++) {
        cr_assert_not_null(insert_key(f.actor, 9, cls, i));
    }
    cr_assert_eq(f.state->shards[9].table, 0);
    cr_assert_not_null(insert_key(f.actor, 9, cls, 8));
    cr_assert_neq(f.state->shards[9].table, 0);
    for (uint32_t i = 0; i < 9; i++) {
        struct flow *flow = find_key(f.state, 9, cls, i);
        cr_assert_not_null(flow);
        cr_assert_eq(flow_key(flow)->a[3], i);
        cr_assert_null(find_key(f.state, 10, cls, i));
        state_remove(f.actor, 9, flow);
        cr_assert_null(find_key(f.state, 9, cls, i));
    }
    cr_assert_eq(f.state->shards[9].table, 0);
}

Test(state_table, classes_share_a_key)
{
    unsigned one = fixture_class(&f, 16, 0, 0), two = fixture_class(&f, 16, 0, 0);
    struct flow *a = insert_key(f.actor, 3, one, 5), *b = insert_key(f.actor, 3, two, 5);
    cr_assert_neq(a, b);
    cr_assert_eq(find_key(f.state, 3, one, 5), a);
    cr_assert_eq(find_key(f.state, 3, two, 5), b);
    cr_assert_eq(flow_class(b), two);
    state_remove(f.actor, 3, a);
    cr_assert_null(find_key(f.state, 3, one, 5));
    cr_assert_eq(find_key(f.state, 3, two, 5), b);
}

Test(state_table, a_shard_has_a_limit)
{
    unsigned cls = fixture_class(&f, 16, 1, 0);
    for (uint32_t i = 0; i < STATE_SHARD_FLOWS; i++) {
        struct flow *flow = insert_key(f.actor, 100, cls, i);
        cr_assert_not_null(flow, "flow %u", i);
        state_timer_set(f.actor, 100, flow, 0, (sm_time){1000000 - i});
    }
    cr_assert_null(insert_key(f.actor, 100, cls, STATE_SHARD_FLOWS));
    cr_assert_eq(state_shard_flows(f.state, 100), STATE_SHARD_FLOWS);
    struct sm_errbuf error = {""};
    cr_assert_eq(state_check(f.state, &error), 0, "%s", error.text);
    for (uint32_t i = 0; i < STATE_SHARD_FLOWS; i++) {
        struct flow *flow = find_key(f.state, 100, cls, i);
        cr_assert_not_null(flow);
        if (i % 3 != 0) {
            state_remove(f.actor, 100, flow);
        }
    }
    cr_assert_eq(state_check(f.state, &error), 0, "%s", error.text);
    cr_assert_not_null(insert_key(f.actor, 100, cls, STATE_SHARD_FLOWS));
    uint32_t cursor = 0, seen = 0;
    for (struct flow *flow; (flow = state_next(f.state, 100, &cursor)) != NULL; seen++) {
        state_remove(f.actor, 100, flow);
    }
    cr_assert_eq(seen, (STATE_SHARD_FLOWS + 2) / 3 + 1);
    cr_assert_eq(state_shard_flows(f.state, 100), 0);
    struct state_usage usage;
    state_usage(f.state, &usage);
    cr_assert_eq(usage.flows_refused, 1);
    cr_assert_eq(usage.flows_created, STATE_SHARD_FLOWS + 1);
    cr_assert_eq(usage.flows_live, 0);
}

Test(state_table, tombstones_do_not_fill_a_table)
{
    unsigned cls = fixture_class(&f, 16, 0, 0);
    for (uint32_t i = 0; i < 200000; i++) { /* a window of 100 flows moves on */
        cr_assert_not_null(insert_key(f.actor, 1, cls, i));
        if (i >= 100) {
            state_remove(f.actor, 1, find_key(f.state, 1, cls, i - 100));
        }
    }
    uint32_t mask;
    (void)shard_groups(&f.state->shards[1], &mask);
    cr_assert_leq(mask + 1, 64);
}

Test(state_table, class_and_service_limits_are_exact)
{
    unsigned small = fixture_class(&f, 16, 0, 10), other = fixture_class(&f, 16, 0, 0);
    for (uint32_t i = 0; i < 12; i++) {
        cr_assert_eq(insert_key(f.actor, i, small, i) != NULL, i < 10);
    }
    state_remove(f.actor, 0, find_key(f.state, 0, small, 0));
    cr_assert_not_null(insert_key(f.actor, 50, small, 50));
    cr_assert_null(insert_key(f.actor, 51, small, 51));
    for (uint32_t i = 10; i < 100000; i++) {
        cr_assert_not_null(insert_key(f.actor, i % SM_SHARDS, other, i));
    }
    cr_assert_null(insert_key(f.actor, 7, other, 1));
    state_remove(f.actor, 50, find_key(f.state, 50, small, 50));
    cr_assert_not_null(insert_key(f.actor, 7, other, 1));
    struct state_usage usage;
    state_usage(f.state, &usage);
    cr_assert_eq(usage.flows_live, 100000);
    cr_assert_eq(usage.flows_refused, 4);
}

Test(state_table, records_of_all_sizes)
{
    static const uint32_t sizes[] = {1, 15, 16, 17, 64, 100, 1000, 4096, 5000, 16384, 32767, SM_MAX_RECORD};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned cls = fixture_class(&f, sizes[i], i % (SM_MAX_TIMERS + 1), 0);
        for (uint32_t n = 0; n < 20; n++) {
            struct flow *flow = insert_key(f.actor, 5 + n % 3, cls, n);
            cr_assert_not_null(flow);
            unsigned char *record = flow_record(flow);
            for (uint32_t k = 0; k < sizes[i]; k++) {
                cr_assert_eq(record[k], 0);
            }
            memset(record, 0xa5, sizes[i]);
        }
        for (uint32_t n = 0; n < 10; n++) { /* memory is zeroed when used again */
            state_remove(f.actor, 5 + n % 3, find_key(f.state, 5 + n % 3, cls, n));
        }
    }
}

Test(state_table, prefetching_is_harmless)
{
    unsigned cls = fixture_class(&f, 16, 0, 0);
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert_not_null(insert_key(f.actor, 2, cls, i));
    }
    struct random random = random_seeded("state_table");
    for (uint32_t i = 0; i < 10000; i++) {
        uint32_t shard = i % 2 ? 2 : random_below(&random, SM_SHARDS + STATE_STRIPES);
        uint64_t hash = random_next(&random);
        lookup_fetch_shard(f.state, shard);
        lookup_fetch_flow(f.state, lookup_group(f.state, shard, hash), hash);
    }
}
