/* SPDX-License-Identifier: BSD-2-Clause */
/* Placement, by properties over random histories: one owner, even, and no shard moves without need. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "placement.h"
#include "testing/random.h"

static uint64_t state;

static unsigned roll(unsigned below)
{
    return (unsigned)(random_linear(&state) >> 33) % below;
}

struct fleet {
    uint32_t ids[PLACEMENT_MAX_IDS];
    unsigned count;
    uint32_t last;
    placement_table owners;
};

static void begin(struct fleet *f, unsigned count)
{
    f->count = count;
    f->last = count;
    for (unsigned i = 0; i < count; i++)
        f->ids[i] = i + 1;
    placement_even(f->owners, f->ids, count);
}

static bool live(const struct fleet *f, uint32_t id)
{
    for (unsigned i = 0; i < f->count; i++)
        if (f->ids[i] == id)
            return true;
    return false;
}

static void check_owned(const struct fleet *f)
{
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        cr_assert(live(f, f->owners[i]), "shard %u has no live owner", i);
}

static void check_even(const struct fleet *f)
{
    unsigned least = UINT32_MAX, most = 0;
    for (unsigned i = 0; i < f->count; i++) {
        unsigned n = placement_count(f->owners, f->ids[i]);
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    cr_assert_leq(most - least, 1);
}

static unsigned differences(const placement_table a, const placement_table b)
{
    unsigned count = 0;
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        count += a[i] != b[i];
    return count;
}

/* The ranges carry out exactly the difference. */
static void check_ranges(const placement_table before, const placement_table after)
{
    static struct placement_range ranges[PLACEMENT_SHARDS];
    placement_table applied;
    memcpy(applied, before, sizeof(applied));
    size_t count = placement_ranges(before, after, ranges);
    unsigned moved = 0;
    for (size_t i = 0; i < count; i++) {
        cr_assert(ranges[i].first <= ranges[i].last && ranges[i].last < PLACEMENT_SHARDS);
        for (uint32_t shard = ranges[i].first; shard <= ranges[i].last; shard++) {
            cr_assert_neq(applied[shard], ranges[i].to);
            applied[shard] = ranges[i].to;
            moved++;
        }
    }
    cr_assert_eq(memcmp(applied, after, sizeof(applied)), 0);
    cr_assert_eq(moved, differences(before, after));
}

/* What no spread over these ids can do without: shards of others, and what somebody has beyond the larger share. */
static unsigned needed(const placement_table owners, const uint32_t *ids, unsigned count)
{
    unsigned share = PLACEMENT_SHARDS / count, spare = PLACEMENT_SHARDS % count, kept = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned has = placement_count(owners, ids[i]);
        if (has > share && spare > 0) {
            kept += share + 1;
            spare--;
        } else {
            kept += has < share ? has : share;
        }
    }
    return PLACEMENT_SHARDS - kept;
}

static void scale(struct fleet *f, unsigned to)
{
    placement_table before;
    memcpy(before, f->owners, sizeof(before));
    while (f->count < to)
        f->ids[f->count++] = ++f->last;
    f->count = to;
    placement_spread(f->owners, f->ids, f->count);
    check_owned(f);
    check_even(f);
    check_ranges(before, f->owners);
    cr_assert_eq(differences(before, f->owners), needed(before, f->ids, f->count));
}

static void split(struct fleet *f)
{
    placement_table before;
    if (f->count == PLACEMENT_MAX_IDS)
        return;
    uint32_t from = f->ids[roll(f->count)];
    unsigned had = placement_count(f->owners, from);
    memcpy(before, f->owners, sizeof(before));
    f->ids[f->count++] = ++f->last;
    placement_split(f->owners, from, f->last);
    check_owned(f);
    check_ranges(before, f->owners);
    cr_assert_eq(placement_count(f->owners, f->last), had / 2);
    cr_assert_eq(differences(before, f->owners), had / 2);
}

static void merge(struct fleet *f)
{
    if (f->count < 2)
        return;
    unsigned place = roll(f->count);
    uint32_t from = f->ids[place];
    f->ids[place] = f->ids[--f->count];
    uint32_t to = f->ids[roll(f->count)];
    unsigned sum = placement_count(f->owners, from) + placement_count(f->owners, to);
    placement_merge(f->owners, from, to);
    check_owned(f);
    cr_assert_eq(placement_count(f->owners, to), sum);
}

static void drain(struct fleet *f)
{
    placement_table before;
    if (f->count < 2)
        return;
    uint32_t others[PLACEMENT_MAX_IDS], from = f->ids[roll(f->count)];
    unsigned count = 0, had = placement_count(f->owners, from);
    for (unsigned i = 0; i < f->count; i++)
        if (f->ids[i] != from)
            others[count++] = f->ids[i];
    memcpy(before, f->owners, sizeof(before));
    placement_drain(f->owners, from, others, count);
    check_owned(f);
    check_ranges(before, f->owners);
    cr_assert_eq(placement_count(f->owners, from), 0);
    cr_assert_eq(differences(before, f->owners), had, "only its own shards move");
}

Test(placement, random_histories)
{
    static struct fleet f;
    for (state = 1; state < 20; state++) {
        uint64_t seed = state;
        begin(&f, 1 + roll(8));
        check_even(&f);
        for (unsigned step = 0; step < 40; step++) {
            switch (roll(5)) {
            case 0:
                scale(&f, 1 + roll(12));
                break;
            case 1:
                split(&f);
                break;
            case 2:
                merge(&f);
                break;
            case 3:
                drain(&f);
                break;
            default:
                scale(&f, f.count); /* rebalance */
            }
        }
        state = seed;
    }
}

Test(placement, the_initial_assignment_is_contiguous)
{
    for (unsigned count = 1; count <= PLACEMENT_MAX_IDS; count++) {
        static struct fleet f;
        static struct placement_range ranges[PLACEMENT_SHARDS];
        static const placement_table none;
        begin(&f, count);
        check_even(&f);
        cr_expect_eq(placement_ranges(none, f.owners, ranges), count);
    }
}

Test(placement, scale_up_moves_in_few_ranges)
{
    static struct fleet f;
    static struct placement_range ranges[PLACEMENT_SHARDS];
    placement_table before;
    begin(&f, 1);
    memcpy(before, f.owners, sizeof(before));
    scale(&f, 4);
    cr_expect_eq(placement_ranges(before, f.owners, ranges), 3);
}

Test(placement, a_set_moves_and_nothing_else)
{
    static struct fleet f;
    static bool set[PLACEMENT_SHARDS];
    begin(&f, 3);
    set[0] = set[5000] = set[16383] = true;
    placement_table before;
    memcpy(before, f.owners, sizeof(before));
    placement_move(f.owners, set, 2);
    cr_expect_eq(f.owners[0], 2);
    cr_expect_eq(f.owners[16383], 2);
    cr_expect_eq(differences(before, f.owners), 3);
}

Test(placement, shards_of_nobody_stay_so)
{
    static struct fleet f;
    begin(&f, 2);
    f.owners[7] = 0;
    placement_spread(f.owners, f.ids, 1);
    cr_expect_eq(f.owners[7], 0);
    cr_expect_eq(placement_count(f.owners, 1), PLACEMENT_SHARDS - 1);
}
