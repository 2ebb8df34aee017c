/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hierarchy's promises over random traffic: a parent never lets more than rate x t + burst through, what comes
 * within its guarantee is never refused by a parent whose rate and reserve cover its children's, and borrowers get what
 * is left.
 */
#include <criterion/criterion.h>

#include <stdio.h>

#include "pair.h"
#include "testing/random.h"

#define CHILDREN 4

static uint64_t state;

static uint64_t rnd(uint64_t below)
{
    return (random_xorshift(&state) * RANDOM_STAR >> 11) % below;
}

struct tree {
    struct allowance child[CHILDREN], parent;
    uint64_t reserve;
    struct sm_bucket of_child[CHILDREN][2], of_parent;
};

static void make_tree(struct tree *tree, uint64_t now)
{
    uint64_t rates = 0;

    tree->reserve = 0;
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct sm_bucket_rate own = {.rate = 1000 + rnd(1000000), .burst = 100 + rnd(5000)};

        tree->child[i] = (struct allowance){.rate = own, .own = own};
        tree->child[i].rate.rate += rnd(5000000);
        rates += own.rate;
        tree->reserve += own.burst;
        pair_init(tree->of_child[i], &tree->child[i], now);
    }
    tree->parent = (struct allowance){.rate = {.rate = rates + rnd(3) * rnd(1000000), .burst = 2 * tree->reserve}};
    pair_init(&tree->of_parent, &tree->parent, now);
}

/* One packet of a child: whether it passes; *within is its answer. */
static bool ask(struct tree *tree, unsigned child, uint64_t now, uint32_t cost, bool *within)
{
    struct allowance parent = tree->parent;
    bool unused;

    if (!pair_has(tree->of_child[child], &tree->child[child], now, cost, within))
        return false;
    parent.rate.reserve = *within ? 0 : tree->reserve;
    if (!pair_has(&tree->of_parent, &parent, now, cost, &unused)) {
        cr_assert_not(*within, "within its guarantee, and refused");
        return false;
    }
    pair_take(tree->of_child[child], &tree->child[child], now, cost, *within);
    pair_take(&tree->of_parent, &parent, now, cost, true);
    return true;
}

Test(pair, guarantees_are_kept_and_the_parent_too)
{
    uint64_t borrowed = 0, guaranteed = 0, refused = 0;

    state = random_seed();
    printf("SM_SEED=%llu\n", (unsigned long long)state);
    for (unsigned round = 0; round < 100; round++) {
        uint64_t now = 1000000000000ull;
        struct sm_bucket judge;
        struct tree tree;

        make_tree(&tree, now);
        sm_bucket_init(&judge, &tree.parent.rate, now);
        for (unsigned i = 0; i < 3000; i++) {
            uint32_t cost = (uint32_t)(40 + rnd(1460));
            bool within;

            now += rnd(4) ? rnd(20000000) : 0;
            if (!ask(&tree, (unsigned)rnd(i % 1000 < 500 ? CHILDREN : 2), now, cost, &within)) {
                refused++;
                continue;
            }
            cr_assert(sm_bucket_has(&judge, &tree.parent.rate, now, cost), "more than the parent allows");
            sm_bucket_take(&judge, &tree.parent.rate, now, cost);
            *(within ? &guaranteed : &borrowed) += 1;
        }
    }
    printf("%llu within guarantees, %llu borrowed, %llu refused\n", (unsigned long long)guaranteed,
           (unsigned long long)borrowed, (unsigned long long)refused);
    cr_assert(guaranteed > 1000 && borrowed > 1000 && refused > 1000);
}

/* With one replica, a shared pair gives the answers of one that is not shared. */
Test(pair, shared_is_the_same_alone)
{
    enum { SPANS = 8 };
    struct allowance allowed = {.rate = {.rate = 800000, .burst = 5000}, .own = {.rate = 200000, .burst = 3000}};
    char room[2][SM_SHARED_BUCKET_SIZE(SPANS)] __attribute__((aligned(16)));
    struct sm_shared_bucket *first = (void *)room[0], *second = (void *)room[1];
    struct sm_bucket pair[2];
    uint64_t now = 1000;

    state = 7;
    pair_init(pair, &allowed, now);
    sm_shared_bucket_init(first, &allowed.rate, now, SPANS);
    sm_shared_bucket_init(second, &allowed.own, now, SPANS);
    for (unsigned i = 0; i < 20000; i++) {
        struct allowance asked = allowed;
        struct pair_debit debit;
        uint32_t cost = (uint32_t)rnd(1500);
        bool within, shared_within, has;
        enum sm_bucket_verdict verdict;

        now += rnd(2000000);
        asked.rate.reserve = asked.own.reserve = rnd(2) * 1000;
        has = pair_has(pair, &asked, now, cost, &within);
        verdict = shared_pair_take(first, second, &asked, now, now, cost, true, &debit, &shared_within);
        cr_assert_eq(verdict, has ? SM_BUCKET_HAS : SM_BUCKET_LACKS);
        if (!has)
            continue;
        cr_assert_eq(shared_within, within);
        if (rnd(4) == 0)
            shared_pair_undo(first, second, &allowed, &debit);
        else
            pair_take(pair, &asked, now, cost, within);
    }
}
