/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The private bucket against the same limit written another way: a virtual schedule (GCRA, ITU-T I.371) in 128-bit
 * integers that never refills anything. `ahead` is the theoretical time of the next packet times the rate.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include <splitmerge/bucket.h>

#include "testing/random.h"

typedef unsigned __int128 wide;

static uint64_t seed = 1;

static uint64_t rnd(void)
{
    return random_xorshift(&seed) * RANDOM_STAR;
}

/* Numbers of every magnitude, 1..max, with the ends of the range more often than chance has it. */
static uint64_t spread(uint64_t max)
{
    switch (rnd() % 8) {
    case 0:
        return 1;
    case 1:
        return max;
    default: {
        uint64_t n = rnd() >> (rnd() % 64);

        return 1 + n % max;
    }
    }
}

struct schedule {
    wide ahead;
};

static bool schedule_packet(struct schedule *schedule, const struct sm_bucket_rate *rate, uint64_t now, uint32_t cost)
{
    wide at = (wide)now * rate->rate, start = schedule->ahead > at ? schedule->ahead : at;
    wide next = start + (wide)cost * SM_BUCKET_UNIT;

    if (next - at > (wide)rate->burst * SM_BUCKET_UNIT)
        return false;
    schedule->ahead = next;
    return true;
}

static void random_case(void)
{
    struct sm_bucket_rate rate = {.rate = spread(SM_BUCKET_MAX_RATE), .burst = spread(SM_BUCKET_MAX_BURST)};
    uint64_t now = rnd() % 2 ? 0 : 1700000000000000000ull;
    uint64_t scale = spread(1ull << 40);
    struct schedule schedule = {0};
    struct sm_bucket bucket;

    sm_bucket_init(&bucket, &rate, now);
    for (int i = 0; i < 200; i++) {
        uint64_t step = rnd() % 4 == 0 ? 0 : spread(scale);
        uint32_t cost = (uint32_t)(rnd() % 16 ? spread(2 * rate.burst) : rnd());
        bool has;

        /* Now and then step to just before, at, or just after the moment when the packet would conform. */
        if (rnd() % 3 == 0 && cost <= rate.burst && !sm_bucket_has(&bucket, &rate, now, cost)) {
            uint64_t missing = cost * SM_BUCKET_UNIT - bucket.level;

            step = missing / rate.rate + rnd() % 3 + bucket.time - now;
            step -= step > 0;
        }
        if (now + step < now || now + step >= 1ull << 63)
            step = 0;
        now += step;
        has = sm_bucket_has(&bucket, &rate, now, cost);
        cr_assert_eq(has, schedule_packet(&schedule, &rate, now, cost), "rate %lu burst %lu at %lu cost %u",
                     (unsigned long)rate.rate, (unsigned long)rate.burst, (unsigned long)now, cost);
        if (has)
            sm_bucket_take(&bucket, &rate, now, cost);
    }
}

Test(bucket, equals_a_virtual_schedule)
{
    for (int i = 0; i < 20000; i++)
        random_case();
}

/* The same by the schedule: the first nanosecond at which it would pass, not before the last departure. */
static uint64_t schedule_departure(struct schedule *schedule, const struct sm_bucket_rate *rate, uint64_t now,
                                   uint32_t cost)
{
    wide needed = schedule->ahead + (wide)cost * SM_BUCKET_UNIT, burst = (wide)rate->burst * SM_BUCKET_UNIT;
    wide at = needed > burst ? (needed - burst + rate->rate - 1) / rate->rate : 0;

    return at > now ? (uint64_t)at : now;
}

static void random_departures(void)
{
    struct sm_bucket_rate rate = {.rate = spread(SM_BUCKET_MAX_RATE), .burst = spread(1u << 16)};
    uint64_t now = rnd() % 2 ? 0 : 1700000000000000000ull, last = 0, scale = spread(1ull << 24);
    struct schedule schedule = {0};
    struct sm_bucket bucket;

    sm_bucket_init(&bucket, &rate, now);
    for (int i = 0; i < 200; i++) {
        uint32_t cost = (uint32_t)spread(2 * rate.burst);
        uint64_t at, expected;

        now += rnd() % 4 == 0 ? 0 : spread(scale);
        at = sm_bucket_departure(&bucket, &rate, now, cost);
        cr_assert_eq(at == UINT64_MAX, cost > rate.burst);
        if (at == UINT64_MAX)
            continue;
        expected = schedule_departure(&schedule, &rate, now > last ? now : last, cost);
        cr_assert_eq(at, expected, "rate %lu burst %lu at %lu cost %u: departs at %lu, not %lu",
                     (unsigned long)rate.rate, (unsigned long)rate.burst, (unsigned long)now, cost, (unsigned long)at,
                     (unsigned long)expected);
        cr_assert(schedule_packet(&schedule, &rate, at, cost), "and conforms then");
        sm_bucket_take(&bucket, &rate, at, cost);
        last = at;
    }
}

Test(bucket, departures_equal_a_virtual_schedule)
{
    for (int i = 0; i < 20000; i++)
        random_departures();
}

Test(bucket, starts_full_and_counts_to_the_nanosecond)
{
    struct sm_bucket_rate rate = {.rate = 3, .burst = 10}; /* 3 bit/s: a byte takes 2,666,666,666.66 ns */
    struct sm_bucket bucket;

    sm_bucket_init(&bucket, &rate, 100);
    cr_assert(sm_bucket_has(&bucket, &rate, 100, 10));
    cr_assert_not(sm_bucket_has(&bucket, &rate, 100, 11));
    sm_bucket_take(&bucket, &rate, 100, 10);
    cr_assert_not(sm_bucket_has(&bucket, &rate, 100, 1));
    cr_assert(sm_bucket_has(&bucket, &rate, 100, 0));
    cr_assert_not(sm_bucket_has(&bucket, &rate, 100 + 2666666666, 1));
    cr_assert(sm_bucket_has(&bucket, &rate, 100 + 2666666667, 1));
    cr_assert_eq(sm_bucket_full_at(&bucket, &rate), 100 + 26666666667);
}

Test(bucket, is_full_at_the_time_it_says_and_not_before)
{
    for (int i = 0; i < 20000; i++) {
        struct sm_bucket_rate rate = {.rate = spread(SM_BUCKET_MAX_RATE), .burst = spread(SM_BUCKET_MAX_BURST)};
        uint64_t now = rnd() >> 1, full;
        uint32_t cost = (uint32_t)spread(rate.burst);
        struct sm_bucket bucket;

        sm_bucket_init(&bucket, &rate, now);
        sm_bucket_take(&bucket, &rate, now, cost);
        full = sm_bucket_full_at(&bucket, &rate);
        cr_assert(full > now);
        cr_assert(sm_bucket_has(&bucket, &rate, full, (uint32_t)rate.burst));
        cr_assert_not(sm_bucket_has(&bucket, &rate, full - 1, (uint32_t)rate.burst));
    }
}

Test(bucket, a_length_beyond_the_burst_never_conforms)
{
    struct sm_bucket_rate rate = {.rate = SM_BUCKET_MAX_RATE, .burst = SM_BUCKET_MAX_BURST};
    struct sm_shared_bucket *shared = malloc(SM_SHARED_BUCKET_SIZE(1));
    struct sm_bucket_debit debit;
    struct sm_bucket bucket;

    sm_bucket_init(&bucket, &rate, 0);
    sm_shared_bucket_init(shared, &rate, 0, 1);
    cr_assert(sm_bucket_has(&bucket, &rate, UINT64_MAX, 1u << 30));
    cr_assert_not(sm_bucket_has(&bucket, &rate, UINT64_MAX, (1u << 30) + 1));
    cr_assert_not(sm_bucket_has(&bucket, &rate, UINT64_MAX, UINT32_MAX));
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, UINT64_MAX, UINT64_MAX, UINT32_MAX, true, &debit),
                 SM_BUCKET_LACKS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, UINT64_MAX, 1u << 30, true, &debit), SM_BUCKET_HAS);
    free(shared);
}

/* With nobody else about, `low` is the packet's own time and a shared bucket is as exact as a private one. */
Test(bucket, shared_alone_equals_private)
{
    struct sm_shared_bucket *shared = malloc(SM_SHARED_BUCKET_SIZE(1));

    for (int i = 0; i < 2000; i++) {
        struct sm_bucket_rate rate = {.rate = spread(SM_BUCKET_MAX_RATE), .burst = spread(SM_BUCKET_MAX_BURST)};
        uint64_t now = rnd() >> 2, scale = spread(1ull << 40);
        struct sm_bucket own;

        sm_bucket_init(&own, &rate, now);
        sm_shared_bucket_init(shared, &rate, now, 1);
        for (int j = 0; j < 100; j++) {
            uint32_t cost = (uint32_t)spread(2 * rate.burst);
            bool has = sm_bucket_has(&own, &rate, now, cost);
            struct sm_bucket_debit debit;

            cr_assert_eq(sm_shared_bucket_take(shared, &rate, now, now, cost, true, &debit),
                         has ? SM_BUCKET_HAS : SM_BUCKET_LACKS);
            if (has && rnd() % 4 == 0)
                sm_shared_bucket_undo(shared, &rate, &debit);
            else if (has)
                sm_bucket_take(&own, &rate, now, cost);
            now += rnd() % 2 * spread(scale);
        }
    }
    free(shared);
}
