/* SPDX-License-Identifier: BSD-2-Clause */
/* Tags go by what a policy has, whatever its order. */
#include <criterion/criterion.h>

#include <splitmerge/splitmerge.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tags.h"
#include "testing/random.h"

#define MOST 4000

static uint64_t state;

static uint64_t rnd(void)
{
    return random_xorshift(&state) * RANDOM_STAR;
}

/* A policy with a table of prefixes, each in a /`bits` of its own of 10.0.0.0/8, and another limit by the same key. */
static struct policy *table_of(const uint32_t *numbers, unsigned count, unsigned bits, const char *more)
{
    static char text[64 * MOST + 512];
    size_t at = (size_t)sprintf(text, "limits:\n  - {name: a, rate: 1Mbit, burst: 2KiB, prefixes: {source: [");
    struct sm_errbuf error;

    for (unsigned i = 0; i < count; i++) {
        uint32_t address = 10u << 24 | numbers[i] << (32 - bits);
        at += (size_t)sprintf(text + at, "%s%u.%u.%u.%u/%u", i ? ", " : "", address >> 24, address >> 16 & 255,
                              address >> 8 & 255, address & 255, bits);
    }
    at += (size_t)sprintf(text + at, "%s]}}\n  - {name: b, per: source, rate: 1Mbit, burst: 2KiB}\n", more);
    struct policy *policy = policy_parse("p.yaml", text, at, &error);
    cr_assert_not_null(policy, "%s", error.text);
    return policy;
}

static void shuffle(uint32_t *numbers, unsigned count)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned k = (unsigned)(rnd() % i);
        uint32_t held = numbers[i - 1];
        numbers[i - 1] = numbers[k];
        numbers[k] = held;
    }
}

static bool same_prefix(const struct prefix *a, const struct prefix *b)
{
    return a->family == b->family && a->bits == b->bits && a->word[0] == b->word[0] && a->word[1] == b->word[1];
}

/* How many of the prefixes that both policies have are known by another tag in the second; none by another name. */
static unsigned moved(const struct policy *old, const struct policy *new)
{
    const uint16_t reasons[] = {7, 9};
    struct tags before, after;
    unsigned count = 0;

    cr_assert_eq(tags_make(&before, old, reasons), 0);
    cr_assert_eq(tags_make(&after, new, reasons), 0);
    for (uint32_t i = 0; i < old->allowed_count; i++) {
        int64_t now = tags_number(&after, before.of[i]);
        cr_assert_eq(tags_number(&before, before.of[i]) == (int64_t)i, before.of[i] != 0, "found by what it is");
        if (before.of[i] == 0 || now < 0)
            continue;
        if (i >= old->count)
            cr_assert(same_prefix(policy_prefix(old, i), policy_prefix(new, (uint32_t)now)));
        count += before.tag[i] != after.tag[now];
    }
    tags_free(&before);
    tags_free(&after);
    return count;
}

Test(tags, the_order_says_nothing)
{
    static uint32_t numbers[MOST];

    state = 1;
    for (unsigned i = 0; i < MOST; i++)
        numbers[i] = i;
    for (unsigned bits = 20; bits <= 24; bits += 4) {
        /* Within 10.0.0.0/8 itself all share their first bits, so that tags have to differ. */
        const char *more = bits == 20 ? ", 10.0.0.0/8" : ", 11.0.0.0/8";
        struct policy *old = table_of(numbers, MOST, bits, more);
        shuffle(numbers, MOST);
        struct policy *new = table_of(numbers, MOST, bits, more);
        cr_expect_eq(moved(old, new), 0);
        policy_free(old);
        policy_free(new);
    }
}

Test(tags, what_is_added_and_taken_away_moves_next_to_none)
{
    static uint32_t numbers[MOST];
    unsigned apart = 0, nested = 0;

    state = 2;
    for (unsigned i = 0; i < MOST; i++)
        numbers[i] = i;
    for (unsigned round = 0; round < 20; round++) {
        shuffle(numbers, MOST);
        struct policy *old = table_of(numbers, MOST / 2, 20, ""), *new = table_of(numbers + 1, MOST / 2, 20, "");
        apart += moved(old, new);
        policy_free(old);
        policy_free(new);
        old = table_of(numbers, MOST / 2, 20, ", 10.0.0.0/8");
        new = table_of(numbers + 1, MOST / 2, 20, ", 10.0.0.0/8");
        nested += moved(old, new);
        policy_free(old);
        policy_free(new);
    }
    cr_expect_eq(apart, 0, "prefixes that no key can share never meet: %u", apart);
    cr_expect_leq(nested, 10, "of 40 changes to 2000 prefixes: %u", nested);
}

Test(tags, prefixes_that_a_key_can_share_have_tags_of_their_own)
{
    static uint32_t numbers[MOST];
    static uint8_t taken[65536];
    const uint16_t reasons[] = {7, 9};
    struct tags tags;

    for (unsigned i = 0; i < MOST; i++)
        numbers[i] = i;
    struct policy *policy = table_of(numbers, MOST, 24, ", 10.0.0.0/8");
    cr_assert_eq(tags_make(&tags, policy, reasons), 0);
    for (uint32_t i = policy->count; i < policy->allowed_count; i++) {
        cr_expect_geq(tags.tag[i], SM_MAX_REASONS);
        cr_expect_eq(taken[tags.tag[i]]++, 0, "tag %u twice", tags.tag[i]);
    }
    cr_expect_eq(tags.tag[policy->limits[1].tag], 9, "a limit without prefixes has its drop reason");
    tags_free(&tags);
    policy_free(policy);
}
