/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several replicas take from one shared bucket, each running at a point of packet time of its own. The model knows
 * nothing of spans: it checks, over every interval of packet time, that what conformed is not above
 * rate * t + burst, and that nearly as much conforms as in an unsplit run.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include <splitmerge/bucket.h>

#include "testing/random.h"

#define REPLICAS_MAX 6
#define PACKETS_MAX 20000

typedef __int128 wide;

struct packet {
    uint64_t time;
    uint32_t cost;
    unsigned replica;
    bool conforms;
};

enum waits { WAITS_ALWAYS, WAITS_NEVER, WAITS_SOMETIMES };

struct replica {
    uint32_t next; /* its next packet, an index; `count` when it has none left */
    bool waiting;  /* its packet was uncertain: it waits for low to come */
    bool held;     /* it has a debit that it may yet give back */
    struct sm_bucket_debit debit;
};

struct model {
    struct sm_bucket_rate rate;
    union {
        struct sm_shared_bucket bucket;
        char room[SM_SHARED_BUCKET_SIZE(SM_BUCKET_MAX_SPANS)];
    };
    uint32_t capacity;
    struct packet packets[PACKETS_MAX];
    uint32_t count, entered; /* packets that the switch has given out are below `entered` */
    unsigned replicas;
    struct replica replica[REPLICAS_MAX];
    enum waits waits;
    bool undoes;
    uint64_t state;
    uint64_t uncertain;
};

static uint64_t rnd(struct model *m)
{
    return random_xorshift(&m->state) * RANDOM_STAR;
}

static uint32_t next_of(const struct model *m, unsigned replica, uint32_t from)
{
    while (from < m->count && m->packets[from].replica != replica)
        from++;
    return from;
}

/* The lowest time that may still be presented: that of the oldest packet not done. */
static uint64_t low_of(const struct model *m)
{
    uint32_t oldest = m->entered;

    for (unsigned r = 0; r < m->replicas; r++)
        if (m->replica[r].next < oldest)
            oldest = m->replica[r].next;
    return oldest < m->count ? m->packets[oldest].time : UINT64_MAX;
}

static void done(struct model *m, unsigned r, bool conforms)
{
    struct replica *replica = &m->replica[r];

    m->packets[replica->next].conforms = conforms;
    replica->next = next_of(m, r, replica->next + 1);
    replica->waiting = false;
    replica->held = false;
}

static void step(struct model *m, unsigned r)
{
    struct replica *replica = &m->replica[r];
    struct packet *packet = &m->packets[replica->next];
    uint64_t low = low_of(m);
    bool waited = replica->waiting;
    enum sm_bucket_verdict verdict;

    if (replica->held) { /* the packet's other limits have decided meanwhile */
        bool keep = rnd(m) % 2;

        if (!keep)
            sm_shared_bucket_undo(&m->bucket, &m->rate, &replica->debit);
        done(m, r, keep);
        return;
    }
    if (waited && low < packet->time)
        return;
    if (!waited && rnd(m) % 8 == 0)
        low -= low % 1000; /* read a while ago */
    verdict = sm_shared_bucket_take(&m->bucket, &m->rate, low, packet->time, packet->cost, true, &replica->debit);
    if (waited)
        cr_assert_neq(verdict, SM_BUCKET_UNCERTAIN, "after the wait all is known");
    if (verdict == SM_BUCKET_UNCERTAIN) {
        m->uncertain++;
        if (m->waits == WAITS_ALWAYS || (m->waits == WAITS_SOMETIMES && rnd(m) % 2)) {
            replica->waiting = true;
            return;
        }
        verdict = sm_shared_bucket_take(&m->bucket, &m->rate, low, packet->time, packet->cost, false, &replica->debit);
    }
    if (verdict == SM_BUCKET_HAS && m->undoes && rnd(m) % 3 == 0) {
        replica->held = true;
    } else {
        done(m, r, verdict == SM_BUCKET_HAS);
    }
}

static void run(struct model *m)
{
    unsigned favourite = 0, patience = 0;

    sm_shared_bucket_init(&m->bucket, &m->rate, m->packets[0].time, m->capacity);
    for (unsigned r = 0; r < m->replicas; r++)
        m->replica[r] = (struct replica){.next = next_of(m, r, 0)};
    m->entered = 0;
    for (;;) {
        uint64_t dice = rnd(m);

        if (m->entered < m->count && dice % 4 == 0)
            m->entered += 1 + (dice >> 8) % 64;
        if (m->entered > m->count)
            m->entered = m->count;
        if (low_of(m) == UINT64_MAX)
            return;
        if (patience-- == 0) { /* one replica runs ahead for a while, another falls behind */
            favourite = (unsigned)(dice >> 16) % m->replicas;
            patience = (unsigned)(dice >> 32) % 200;
        }
        unsigned r = (dice >> 24) % 4 ? favourite : (unsigned)(dice >> 40) % m->replicas;

        if (m->replica[r].next < m->entered)
            step(m, r);
    }
}

static void fill(struct model *m, uint32_t count, unsigned replicas, uint64_t gap)
{
    uint64_t now = 1000000000 + rnd(m) % 1000;

    m->count = count;
    m->replicas = replicas;
    for (uint32_t i = 0; i < count; i++) {
        now += rnd(m) % 3 ? rnd(m) % (gap + 1) : 0;
        if (rnd(m) % 200 == 0)
            now += gap * 100;
        m->packets[i] = (struct packet){
            .time = now, .cost = (uint32_t)(60 + rnd(m) % 1440), .replica = (unsigned)(rnd(m) % replicas)};
    }
}

static wide allowed(const struct model *m, uint64_t elapsed)
{
    return (wide)m->rate.burst * SM_BUCKET_UNIT + (wide)m->rate.rate * elapsed;
}

static void check_every_interval(const struct model *m, uint64_t seed)
{
    for (uint32_t from = 0; from < m->count; from++) {
        wide sum = 0;

        for (uint32_t to = from; to < m->count; to++) {
            if (m->packets[to].conforms)
                sum += (wide)m->packets[to].cost * SM_BUCKET_UNIT;
            cr_assert(sum <= allowed(m, m->packets[to].time - m->packets[from].time),
                      "seed %lu: packets %u to %u are above the limit", (unsigned long)seed, from, to);
        }
    }
}

Test(shared, never_above_the_limit_over_any_interval, .timeout = 240)
{
    struct model *m = calloc(1, sizeof *m);
    uint64_t uncertain = 0;

    for (uint64_t seed = 1; seed <= 3000; seed++) {
        *m = (struct model){.state = seed * 0x9e3779b97f4a7c15ull};
        for (int i = 0; i < 10; i++)
            rnd(m);
        m->rate.rate = 1 + rnd(m) % 10000000000ull;
        m->rate.burst = 60 + rnd(m) % (1u << (6 + rnd(m) % 12));
        m->waits = (enum waits)(rnd(m) % 3);
        m->undoes = rnd(m) % 2;
        m->capacity = 1 + (uint32_t)(rnd(m) % (seed % 2 ? 3 : SM_BUCKET_MAX_SPANS));
        fill(m, 300, 1 + (unsigned)(rnd(m) % REPLICAS_MAX), 8000000000000ull / m->rate.rate * (1 + rnd(m) % 3));
        run(m);
        check_every_interval(m, seed);
        uncertain += m->uncertain;
    }
    cr_assert(uncertain > 10000, "the test meets the hard case");
    free(m);
}

/* A shared bucket that shapes is an own one, in whatever order the last debits are given back. */
static void depart_and_undo(struct model *m, struct sm_shared_bucket *shared, struct sm_bucket *own, uint64_t now)
{
    struct sm_bucket_debit debits[8];
    struct sm_bucket before = *own;
    unsigned count = 1 + (unsigned)(rnd(m) % 8), made = 0, undone;
    bool undo = rnd(m) % 2;
    uint64_t at, exact, queue = 1000000000;

    for (unsigned i = 0; i < count; i++) {
        uint32_t cost = (uint32_t)(1 + rnd(m) % (m->rate.burst + m->rate.burst / 8));
        uint64_t expected = sm_bucket_departure(own, &m->rate, now, cost);
        bool has = expected != UINT64_MAX && expected - now <= queue;

        cr_assert_eq(sm_shared_bucket_depart(shared, &m->rate, now - 1, now, cost, queue, true, &debits[made], &at),
                     cost > m->rate.burst ? SM_BUCKET_LACKS : SM_BUCKET_UNCERTAIN);
        cr_assert_eq(sm_shared_bucket_depart(shared, &m->rate, now, now, cost, queue, true, &debits[made], &at),
                     has ? SM_BUCKET_HAS : SM_BUCKET_LACKS);
        if (!has)
            continue;
        cr_assert_eq(at, expected);
        sm_bucket_take(own, &m->rate, at, cost);
        made++;
    }
    if (!undo)
        return;
    for (undone = made; made > 0; made--) {
        unsigned last = (unsigned)(rnd(m) % made);
        sm_shared_bucket_undo(shared, &m->rate, &debits[last]);
        debits[last] = debits[made - 1];
    }
    at = sm_bucket_departure(&shared->bucket, &m->rate, now, 1);
    exact = sm_bucket_departure(&before, &m->rate, now, 1);
    cr_assert(at >= exact && at - exact <= undone, "given back: departs at %lu, not %lu", (unsigned long)at,
              (unsigned long)exact);
    *own = shared->bucket;
}

Test(shared, departures_are_those_of_a_bucket_of_ones_own)
{
    struct model *m = calloc(1, sizeof *m);
    struct sm_shared_bucket *shared = calloc(1, SM_SHARED_BUCKET_SIZE(4));

    for (uint64_t seed = 1; seed <= 2000; seed++) {
        *m = (struct model){.state = seed * 0x9e3779b97f4a7c15ull};
        for (int i = 0; i < 10; i++)
            rnd(m);
        m->rate.rate = 1 + rnd(m) % 10000000000ull;
        m->rate.burst = 60 + rnd(m) % (1u << (6 + rnd(m) % 12));
        struct sm_bucket own;
        uint64_t now = 1000000000, gap = 8000000000000ull / m->rate.rate * (1 + rnd(m) % 3);
        sm_shared_bucket_init(shared, &m->rate, now, 4);
        sm_bucket_init(&own, &m->rate, now);
        for (unsigned i = 0; i < 50; i++) {
            now += rnd(m) % (8 * gap + 1);
            depart_and_undo(m, shared, &own, now);
        }
    }
    free(shared);
    free(m);
}

/* What an unsplit bucket passes of the same packets. */
static uint64_t unsplit(const struct model *m)
{
    struct sm_bucket bucket;
    uint64_t sum = 0;

    sm_bucket_init(&bucket, &m->rate, m->packets[0].time);
    for (uint32_t i = 0; i < m->count; i++) {
        const struct packet *packet = &m->packets[i];

        if (sm_bucket_has(&bucket, &m->rate, packet->time, packet->cost)) {
            sm_bucket_take(&bucket, &m->rate, packet->time, packet->cost);
            sum += packet->cost;
        }
    }
    return sum;
}

Test(shared, passes_nearly_what_an_unsplit_bucket_passes, .timeout = 240)
{
    struct model *m = calloc(1, sizeof *m);

    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t passed = 0, reference;

        *m = (struct model){.state = seed * 0x9e3779b97f4a7c15ull, .waits = WAITS_ALWAYS};
        for (int i = 0; i < 10; i++)
            rnd(m);
        m->rate.rate = 100000 + rnd(m) % 10000000000ull;
        m->capacity = seed % 3 ? SM_BUCKET_MAX_SPANS : 8;
        m->rate.burst = 1500u << (1 + seed % 8);
        /* About 1 to 4 times the rate is offered. */
        fill(m, PACKETS_MAX, 1 + (unsigned)(seed % REPLICAS_MAX), 8000000000000ull / m->rate.rate * (1 + rnd(m) % 3));
        run(m);
        for (uint32_t i = 0; i < m->count; i++)
            passed += m->packets[i].conforms ? m->packets[i].cost : 0;
        reference = unsplit(m);
        cr_assert(passed * 100 >= reference * 98, "seed %lu, %u replicas, burst %lu: %.2f %% of the unsplit bucket",
                  (unsigned long)seed, m->replicas, (unsigned long)m->rate.burst, 100.0 * passed / reference);
        if (m->replicas == 1)
            cr_assert_eq(passed, reference, "alone, it is exact");
    }
    free(m);
}

static struct sm_shared_bucket *small_bucket(const struct sm_bucket_rate *rate, uint32_t capacity)
{
    struct sm_shared_bucket *shared = malloc(SM_SHARED_BUCKET_SIZE(capacity));

    sm_shared_bucket_init(shared, rate, 0, capacity);
    return shared;
}

/* Debits given back at once or later leave the bucket as if they had not been. */
Test(shared, debits_given_back_leave_no_trace)
{
    struct sm_bucket_rate rate = {.rate = 8000, .burst = 10000};
    struct sm_shared_bucket *shared = small_bucket(&rate, 2);
    struct sm_bucket_debit a, b, c, d;

    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 50000000, 4000, true, &a), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 70000000, 3000, true, &b), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 60000000, 2000, true, &c), SM_BUCKET_HAS, "merges");
    cr_assert_eq(shared->count, 2);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 0, 1071, true, &d), SM_BUCKET_LACKS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 0, 1070, true, &d), SM_BUCKET_HAS);
    sm_shared_bucket_undo(shared, &rate, &b);
    sm_shared_bucket_undo(shared, &rate, &d);
    sm_shared_bucket_undo(shared, &rate, &a);
    sm_shared_bucket_undo(shared, &rate, &c);
    cr_assert_eq(shared->count, 0);
    cr_assert_eq(shared->bucket.level, rate.burst * SM_BUCKET_UNIT);
    free(shared);
}

/* Debits that are close, against the time that fills the bucket, are one span from the start: so spans are few. */
Test(shared, near_debits_are_put_together)
{
    struct sm_bucket_rate rate = {.rate = 8000, .burst = 10000};
    struct sm_shared_bucket *shared = small_bucket(&rate, 2);
    struct sm_bucket_debit debit[3];

    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 50 + i * 1000000, 3333, false, &debit[i]), SM_BUCKET_HAS);
    cr_assert_eq(shared->count, 1);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 2000050, 2, true, &debit[0]), SM_BUCKET_LACKS,
                 "and nobody waits");
    for (unsigned i = 0; i < 3; i++)
        sm_shared_bucket_undo(
            shared, &rate,
            &(struct sm_bucket_debit){.time = 50 + i * 1000000, .amount = 3333 * SM_BUCKET_UNIT, .ahead = true});
    cr_assert_eq(shared->count, 0);
    free(shared);
}

/* What a replica ahead has taken is not there for one behind, but the refill up to then is. */
Test(shared, the_past_is_judged_with_what_was_taken_ahead)
{
    struct sm_bucket_rate rate = {.rate = 8000000000, .burst = 1000}; /* a byte a nanosecond */
    struct sm_shared_bucket *shared = small_bucket(&rate, 4);
    struct sm_bucket_debit debit;

    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 500, 1000, true, &debit), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 100, 400, true, &debit), SM_BUCKET_HAS,
                 "not kept back by the cap");
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 200, 1, true, &debit), SM_BUCKET_LACKS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 501, 1, true, &debit), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 501, 1, true, &debit), SM_BUCKET_LACKS);
    free(shared);
}

Test(shared, a_packet_before_the_buckets_time_is_refused)
{
    struct sm_bucket_rate rate = {.rate = 8000, .burst = 10000};
    struct sm_shared_bucket *shared = small_bucket(&rate, 1);
    struct sm_bucket_debit debit;

    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 100, 100, 1, true, &debit), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 50, 99, 1, true, &debit), SM_BUCKET_LACKS);
    free(shared);
}

/* What a packet is told is there, it may take; what later ones have taken is not there. */
Test(shared, the_level_is_what_can_be_taken)
{
    struct sm_bucket_rate rate = {.rate = 8000, .burst = 10000}; /* a byte a millisecond */
    struct sm_shared_bucket *shared = small_bucket(&rate, 4);
    struct sm_bucket_debit debit;

    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 0), 10000);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 5000000000, 7000, true, &debit), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 0), 3000, "the refill up to then finds a full bucket");
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 1000000000, 4000, true, &debit), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 1000000000), 3000, "four seconds are no more than it took");
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 2000000000), 3000);
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 6000000000), 4000);
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 5999999999), 3999, "whole bytes");
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, UINT64_MAX), 10000);
    cr_assert_eq(sm_shared_bucket_take(shared, &rate, 0, 2000000000, 3000, true, &debit), SM_BUCKET_HAS);
    cr_assert_eq(sm_shared_bucket_level(shared, &rate, 2000000000), 0);
    free(shared);
}
