/* SPDX-License-Identifier: BSD-2-Clause */

/* Shards chosen by load: balance is reached, and few move; beside brute force where that can be afforded. SM_SEED. */

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "balance.h"
#include "testing/random.h"

static uint64_t random_state;
static const uint32_t ids[] = {3, 5, 8, 9};
static placement_table owners, before;
static uint64_t load[PLACEMENT_SHARDS];

static uint64_t below(uint64_t bound)
{
    return random_xorshift(&random_state) % bound;
}

static void seed(void)
{
    uint64_t value = random_seed();

    fprintf(stderr, "SM_SEED=%" PRIu64 "\n", value);
    random_state = value * 2654435761u + 88172645463325252ull;
}

/* `shards` of them, at random with one of `count`; the others are nobody's. */
static void deal(unsigned shards, unsigned count, uint64_t most)
{
    memset(owners, 0, sizeof owners);
    memset(load, 0, sizeof load);
    for (unsigned i = 0; i < shards; i++) {
        owners[i] = ids[below(2) ? 0 : below(count)];
        load[i] = below(most);
    }
    memcpy(before, owners, sizeof owners);
}

static uint64_t weight(const placement_table of, uint32_t id)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        sum += of[i] == id ? load[i] : 0;
    return sum;
}

static unsigned moved(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        count += owners[i] != before[i];
    return count;
}

/* What no choice can do without: the heaviest of whoever has too much. */
static unsigned must_move(unsigned count, uint64_t limit)
{
    unsigned sum = 0;
    for (unsigned i = 0; i < count; i++) {
        uint64_t has = weight(before, ids[i]);
        placement_table left;
        memcpy(left, before, sizeof left);
        for (; has > limit; sum++) {
            unsigned heaviest = PLACEMENT_SHARDS;
            for (unsigned s = 0; s < PLACEMENT_SHARDS; s++)
                if (left[s] == ids[i] && (heaviest == PLACEMENT_SHARDS || load[s] > load[heaviest]))
                    heaviest = s;
            has -= load[heaviest];
            left[heaviest] = 0;
        }
    }
    return sum;
}

static uint64_t limit_of(unsigned shards, unsigned count)
{
    uint64_t total = 0, most = 0;
    for (unsigned i = 0; i < shards; i++) {
        total += load[i];
        most = load[i] > most ? load[i] : most;
    }
    uint64_t share = (total + count - 1) / count;
    return (share > most ? share : most) * (100 + BALANCE_PERCENT) / 100;
}

Test(balance, many_shards_come_to_it_with_the_fewest_moves)
{
    seed();
    for (unsigned run = 0; run < 40; run++) {
        unsigned count = 2 + (unsigned)below(3), shards = 200 + (unsigned)below(800);
        struct balance balance;
        deal(shards, count, 1 + below(100000));
        load[0]++;
        uint64_t limit = limit_of(shards, count);
        unsigned least = must_move(count, limit);
        cr_assert(balance_by_load(owners, load, ids, count, &balance));
        for (unsigned i = 0; i < count; i++)
            cr_assert_leq(weight(owners, ids[i]), limit, "run %u: %u has %" PRIu64 " of at most %" PRIu64, run, ids[i],
                          weight(owners, ids[i]), limit);
        cr_assert_leq(moved(), least + count, "run %u: %u moved, %u had to", run, moved(), least);
        cr_assert_leq(balance.after, balance.before);
    }
}

/* The fewest moves to the limit, over all assignments; UINT32_MAX: it cannot be. */
static unsigned brute_force(unsigned shards, unsigned count, uint64_t limit)
{
    unsigned best = UINT32_MAX, all = 1;
    for (unsigned i = 0; i < shards; i++)
        all *= count;
    for (unsigned code = 0; code < all; code++) {
        uint64_t has[4] = {0};
        unsigned moves = 0, rest = code;
        bool right = true;
        for (unsigned i = 0; i < shards; i++, rest /= count) {
            has[rest % count] += load[i];
            moves += ids[rest % count] != before[i];
        }
        for (unsigned i = 0; i < count; i++)
            right &= has[i] <= limit;
        if (right && moves < best)
            best = moves;
    }
    return best;
}

Test(balance, few_shards_beside_brute_force)
{
    unsigned fewest = 0, reached = 0, possible = 0, runs = 300;
    seed();
    for (unsigned run = 0; run < runs; run++) {
        unsigned count = 2 + (unsigned)below(2), shards = count == 2 ? 10 : 7;
        struct balance balance;
        deal(shards, count, 50);
        load[0]++;
        uint64_t limit = limit_of(shards, count);
        unsigned best = brute_force(shards, count, limit);
        cr_assert(balance_by_load(owners, load, ids, count, &balance));
        possible += best != UINT32_MAX;
        bool right = true;
        for (unsigned i = 0; i < count; i++)
            right &= weight(owners, ids[i]) <= limit;
        cr_assert(!right || best != UINT32_MAX);
        reached += right;
        if (right) {
            cr_assert_geq(moved(), best);
            cr_assert_leq(moved(), best + 4, "run %u: %u moved, %u do", run, moved(), best);
            fewest += moved() == best;
        }
    }
    fprintf(stderr, "%u of %u possible, %u reached, %u with the fewest moves\n", possible, runs, reached, fewest);
    cr_assert_gt(reached * 100, possible * 60);
    cr_assert_gt(fewest * 100, reached * 80);
}

Test(balance, an_elephant_is_named_and_left_alone)
{
    struct balance balance;
    memset(load, 0, sizeof load);
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++) {
        owners[i] = ids[i % 2];
        load[i] = 1;
    }
    load[7] = 100000; /* of the second */
    cr_assert(balance_by_load(owners, load, ids, 2, &balance));
    cr_expect_eq(balance.elephants, 1);
    cr_expect_eq(balance.elephant[0].shard, 7);
    cr_expect(balance.elephant[0].share > 0.85 && balance.elephant[0].share < 0.87);
    cr_expect_eq(owners[7], ids[1]);
    cr_expect_leq(weight(owners, ids[1]), 105000);
}

Test(balance, the_heaviest_elephants_are_named)
{
    struct balance balance;
    memset(load, 0, sizeof load);
    memset(owners, 0, sizeof owners);
    for (unsigned i = 0; i < 12; i++) {
        owners[100 + i] = ids[0];
        load[100 + i] = 50 + (i * 7) % 12;
    }
    uint32_t many[16];
    for (unsigned i = 0; i < 16; i++)
        many[i] = i + 3;
    cr_assert(balance_by_load(owners, load, many, 16, &balance));
    cr_expect_eq(balance.elephants, BALANCE_ELEPHANTS);
    for (unsigned i = 1; i < balance.elephants; i++)
        cr_expect(balance.elephant[i - 1].share >= balance.elephant[i].share);
    cr_expect_eq(load[balance.elephant[0].shard], 61);
}

Test(balance, without_load_nothing_is_done)
{
    struct balance balance;
    deal(100, 3, 1);
    cr_expect_not(balance_by_load(owners, load, ids, 3, &balance));
    cr_expect_eq(moved(), 0);
}
