/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replicas with purses of one bucket, each at a point of packet time of its own, commit, die and take over from one
 * another at random. What is committed, replayed in packet time through one bucket of the whole burst, never overdraws
 * it: that is the limit, over every interval. And nearly as much passes as in an unsplit run.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "purse.h"
#include "testing/random.h"

#define REPLICAS 6u
#define PACKETS 4000u

struct packet {
    uint64_t time;
    uint32_t cost;
    unsigned replica;
    bool done, committed, conforms;
    bool debited; /* from the bucket: for itself or to fill the purse */
    struct sm_bucket_debit debit;
};

struct model {
    struct sm_bucket_rate rate;
    uint64_t holders;
    union {
        struct sm_shared_bucket bucket;
        char space[SM_SHARED_BUCKET_SIZE(SM_BUCKET_MAX_SPANS)];
    };
    struct packet packets[PACKETS];
    uint32_t entered, oldest; /* packets given out; the first that is not committed */
    unsigned replicas;
    struct purse purses[REPLICAS];
    uint64_t state, from_purse, deaths;
};

static uint64_t rnd(struct model *m)
{
    return random_xorshift(&m->state) * RANDOM_STAR >> 7;
}

static uint64_t low_of(const struct model *m)
{
    return m->oldest < PACKETS ? m->packets[m->oldest].time : UINT64_MAX;
}

/* As the limiter does. */
static enum sm_bucket_verdict ask(struct model *m, struct packet *packet, bool patient)
{
    struct purse *purse = &m->purses[packet->replica];
    const struct sm_bucket_rate left = purse_rate(&m->rate, m->holders);
    uint64_t low = patient ? low_of(m) : packet->time;
    enum sm_bucket_verdict verdict;

    if (!purse_serves(purse, &m->rate, packet->time, packet->cost)) {
        verdict = sm_shared_bucket_take(&m->bucket, &left, low, packet->time, packet->cost, patient, &packet->debit);
    } else {
        verdict = purse_take(purse, packet->time, packet->cost);
        m->from_purse += verdict == SM_BUCKET_HAS;
        if (verdict != SM_BUCKET_UNCERTAIN)
            return verdict;
        verdict = purse_fill(purse, packet->replica, &m->bucket, &m->holders, &m->rate, low, packet->time, packet->cost,
                             patient, &packet->debit);
    }
    packet->debited = verdict == SM_BUCKET_HAS;
    return verdict;
}

static struct packet *next_of(struct model *m, unsigned replica)
{
    for (uint32_t i = m->oldest; i < m->entered; i++)
        if (m->packets[i].replica == replica && !m->packets[i].done)
            return &m->packets[i];
    return NULL;
}

static void step(struct model *m, unsigned replica)
{
    struct packet *packet = next_of(m, replica);

    if (!packet)
        return;
    enum sm_bucket_verdict verdict = ask(m, packet, true);
    if (verdict == SM_BUCKET_UNCERTAIN)
        verdict = ask(m, packet, false);
    packet->conforms = verdict == SM_BUCKET_HAS;
    packet->done = true;
}

static void commit(struct model *m, unsigned replica)
{
    for (uint32_t i = m->oldest; i < m->entered; i++)
        m->packets[i].committed |= m->packets[i].replica == replica && m->packets[i].done;
    while (m->oldest < m->entered && m->packets[m->oldest].committed)
        m->oldest++;
}

/* Another one takes its packets over, and a new one its number. */
static void die(struct model *m, unsigned replica)
{
    const struct sm_bucket_rate left = purse_rate(&m->rate, m->holders);
    unsigned heir = (unsigned)(rnd(m) % m->replicas);

    for (uint32_t i = m->oldest; i < m->entered; i++) {
        struct packet *packet = &m->packets[i];
        if (packet->replica != replica || packet->committed)
            continue;
        if (packet->debited)
            sm_shared_bucket_undo(&m->bucket, &left, &packet->debit);
        packet->done = packet->conforms = packet->debited = false;
        packet->replica = heir;
    }
    m->purses[replica] = (struct purse){.time = m->entered ? m->packets[m->entered - 1].time : 0};
    m->deaths++;
}

static void run(struct model *m, unsigned deaths)
{
    while (m->oldest < PACKETS) {
        unsigned replica = (unsigned)(rnd(m) % m->replicas), chance = (unsigned)(rnd(m) % 1000);

        if (m->entered < PACKETS && m->entered - m->oldest < 200)
            m->entered++;
        if (chance < deaths)
            die(m, replica);
        else if (chance < 100)
            commit(m, replica);
        else
            for (unsigned i = 0; i < chance % 32; i++)
                step(m, replica);
    }
}

/* `large`: and some take a large part of the whole bucket. */
static void make(struct model *m, uint64_t seed, bool large)
{
    uint64_t time = 1000000000, gap;
    unsigned owner = 0, most;

    *m = (struct model){.state = seed * 0x9e3779b97f4a7c15ull};
    for (int i = 0; i < 10; i++)
        rnd(m);
    m->replicas = 1 + (unsigned)(seed % REPLICAS);
    m->rate.rate = 100000 + rnd(m) % 10000000ull;
    m->rate.burst = 4096 + rnd(m) % 20000;
    /* Most packets go by purses, some are too large; one to three times the rate is offered, and pauses. */
    most = (unsigned)(m->rate.burst / 256 / 3);
    gap = (most / 2 + 1) * SM_BUCKET_UNIT / m->rate.rate / (1 + rnd(m) % 3);
    for (uint32_t i = 0; i < PACKETS; i++) {
        struct packet *packet = &m->packets[i];
        if (rnd(m) % 8 == 0)
            owner = (unsigned)(rnd(m) % m->replicas);
        time += rnd(m) % 500 == 0 ? gap * (rnd(m) % 3000) : rnd(m) % (2 * gap);
        *packet = (struct packet){.time = time, .cost = 1 + (uint32_t)(rnd(m) % most), .replica = owner};
        if (large && rnd(m) % 32 == 0)
            packet->cost = (uint32_t)(rnd(m) % m->rate.burst);
    }
    sm_shared_bucket_init(&m->bucket, &m->rate, m->packets[0].time, SM_BUCKET_MAX_SPANS);
}

/* What one bucket has for these packets, or for those that conformed, of which none may lack. */
static uint64_t replay(const struct model *m, bool all, uint64_t seed)
{
    struct sm_bucket bucket;
    uint64_t sum = 0;

    sm_bucket_init(&bucket, &m->rate, m->packets[0].time);
    for (uint32_t i = 0; i < PACKETS; i++) {
        const struct packet *packet = &m->packets[i];
        if (!all && !packet->conforms)
            continue;
        bool has = sm_bucket_has(&bucket, &m->rate, packet->time, packet->cost);
        cr_assert(all || has, "seed %lu: more than rate x t + burst up to packet %u", (unsigned long)seed, i);
        if (!has)
            continue;
        sm_bucket_take(&bucket, &m->rate, packet->time, packet->cost);
        sum += packet->cost;
    }
    return sum;
}

Test(purse, never_above_the_limit_whoever_dies, .timeout = 240)
{
    struct model *m = calloc(1, sizeof *m);
    uint64_t from_purse = 0, deaths = 0;

    for (uint64_t seed = 1; seed <= 400; seed++) {
        make(m, seed, seed % 4 < 2);
        run(m, seed % 2 ? 20 : 2);
        replay(m, false, seed);
        from_purse += m->from_purse;
        deaths += m->deaths;
    }
    cr_assert(from_purse > 400 * PACKETS / 4, "most packets go by purses, not %lu", (unsigned long)from_purse);
    cr_assert(deaths > 400, "replicas die");
    free(m);
}

Test(purse, passes_nearly_what_an_unsplit_bucket_passes, .timeout = 240)
{
    struct model *m = calloc(1, sizeof *m);

    for (uint64_t seed = 1; seed <= 200; seed++) {
        make(m, seed, false);
        run(m, 0);
        uint64_t passed = replay(m, false, seed), reference = replay(m, true, seed);
        cr_assert(passed * 100 >= reference * 98, "seed %lu, %u replicas: %.2f %% of the unsplit bucket",
                  (unsigned long)seed, m->replicas, 100.0 * (double)passed / (double)reference);
        if (getenv("SM_FULL"))
            cr_log_info("seed %lu, %u replicas: %.2f %%", (unsigned long)seed, m->replicas,
                        100.0 * (double)passed / (double)reference);
    }
    free(m);
}

Test(purse, a_packet_from_before_the_purse_asks_the_bucket)
{
    struct sm_bucket_rate rate = {.rate = 8000, .burst = 256 * 100};
    struct purse purse = {.time = 1000};

    cr_assert(!purse_serves(&purse, &rate, 999, 10));
    cr_assert(purse_serves(&purse, &rate, 1000, 10));
    cr_assert(!purse_serves(&purse, &rate, 1000, 26), "too large for a purse of 100");
}
