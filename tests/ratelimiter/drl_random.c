/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Limiters under random demand, which does not react: constant rates that change every few seconds, updates that are
 * late, lost, and cut off at random. SM_SEED fixes the schedules, SM_FULL=1 takes more of them.
 *
 * Stability.  While demand stays and all updates arrive, what each limiter may let through stays in a band, once the
 * change has been answered; and what is let through is the limit, or all that is wanted.
 *
 * Bound.  Whatever is lost or cut off, the total is within drl_bound() over every interval.
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drl/drl.h"
#include "testing/random.h"

#define RATE 5000000.0
#define BURST 75000.0
#define STEP_NS 1000000ull
#define INTERVAL_NS 50000000ull
#define PACKET 1000u
#define MOST_LIMITERS 16u
#define MOST_FLOWS 6u
#define MAIL 4096u

struct letter {
    uint64_t due;
    uint32_t to;
    struct drl_update update;
};

struct world {
    uint64_t random, now;
    struct drl_options options;
    struct drl *limiter[MOST_LIMITERS];
    bool group[MOST_LIMITERS]; /* those of one group hear each other, while parted */
    bool parted;
    double lost;
    unsigned flows[MOST_LIMITERS];
    double rate[MOST_LIMITERS][MOST_FLOWS], due[MOST_LIMITERS][MOST_FLOWS]; /* bytes a second; bytes to be sent */
    double wanted, passed;                                                  /* bytes */
    struct letter mail[MAIL];
    unsigned letters;
};

static double chance(struct world *world)
{
    return random_unit(random_linear(&world->random));
}

static unsigned below(struct world *world, unsigned bound)
{
    return (unsigned)(chance(world) * bound);
}

static void demand(struct world *world)
{
    for (unsigned i = 0; i < world->options.limiters; i++) {
        world->flows[i] = below(world, 3) ? below(world, MOST_FLOWS + 1) : 0;
        for (unsigned f = 0; f < world->flows[i]; f++)
            world->rate[i][f] = RATE * (0.02 + 0.3 * chance(world));
    }
}

static void post(struct world *world, uint32_t from, uint32_t to, const struct drl_update *update)
{
    if ((world->parted && world->group[from] != world->group[to]) || chance(world) < world->lost ||
        world->letters == MAIL)
        return;
    world->mail[world->letters++] =
        (struct letter){.due = world->now + STEP_NS * (5 + below(world, 15)), .to = to, .update = *update};
}

static void deliver(struct world *world)
{
    for (unsigned i = 0; i < world->letters;) {
        struct letter letter = world->mail[i];
        struct drl_update reply;
        unsigned replies;
        if (letter.due > world->now) {
            i++;
            continue;
        }
        world->mail[i] = world->mail[--world->letters];
        drl_receive(world->limiter[letter.to], world->now, &letter.update, &reply, &replies);
        if (replies > 0)
            post(world, letter.to, letter.update.from, &reply);
    }
}

/* One millisecond. */
static void step(struct world *world)
{
    uint32_t to[DRL_MAX_FANOUT];
    struct drl_update update[DRL_MAX_FANOUT];

    world->now += STEP_NS;
    deliver(world);
    for (unsigned i = 0; i < world->options.limiters; i++) {
        for (unsigned f = 0; f < world->flows[i]; f++) {
            world->due[i][f] += world->rate[i][f] * STEP_NS / 1e9;
            for (; world->due[i][f] >= PACKET; world->due[i][f] -= PACKET) {
                world->wanted += PACKET;
                if (drl_packet(world->limiter[i], world->now, i << 8 | f, PACKET))
                    world->passed += PACKET;
            }
        }
        /* They do not tick together. */
        if ((world->now + i * 7 * STEP_NS) % INTERVAL_NS != 0)
            continue;
        unsigned told = drl_interval(world->limiter[i], world->now, to, update);
        for (unsigned k = 0; k < told; k++)
            post(world, i, to[k], &update[k]);
    }
}

static struct world *build(enum drl_mode mode, uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);

    world->random = seed * 2654435761u + 1;
    world->options = (struct drl_options){.mode = mode,
                                          .rate = RATE,
                                          .burst = BURST,
                                          .interval_ns = INTERVAL_NS,
                                          .limiters = 2 + below(world, MOST_LIMITERS - 1),
                                          .fanout = MOST_LIMITERS,
                                          .seed = seed + 1};
    for (unsigned i = 0; i < world->options.limiters; i++) {
        world->options.self = i;
        world->limiter[i] = drl_create(&world->options, 0);
    }
    return world;
}

static void destroy(struct world *world)
{
    for (unsigned i = 0; i < world->options.limiters; i++)
        drl_destroy(world->limiter[i]);
    free(world);
}

/* How wide the bands are of what is allowed, at most, of the limit; and how far from what it should be is what passes.
 */
static void watch(struct world *world, unsigned seconds, double *band, double *off)
{
    double least[MOST_LIMITERS], highest[MOST_LIMITERS], wanted = world->wanted, passed = world->passed;

    for (unsigned i = 0; i < world->options.limiters; i++) {
        least[i] = INFINITY;
        highest[i] = 0;
    }
    for (unsigned ms = 0; ms < seconds * 1000; ms++) {
        step(world);
        for (unsigned i = 0; i < world->options.limiters; i++) {
            double allowed = drl_allowed(world->limiter[i]);
            least[i] = fmin(least[i], allowed);
            highest[i] = fmax(highest[i], allowed);
        }
    }
    for (unsigned i = 0; i < world->options.limiters; i++)
        *band = fmax(*band, (highest[i] - least[i]) / RATE);
    *off = fmax(*off, fabs((world->passed - passed) / fmin(world->wanted - wanted, RATE * seconds) - 1));
}

static bool stable(enum drl_mode mode, uint64_t seed, unsigned settle, double most_band, double most_off)
{
    struct world *world = build(mode, seed);
    double band = 0, off = 0;

    for (unsigned change = 0; change < 3; change++) {
        do
            demand(world);
        while (world->flows[0] + world->flows[1] == 0);
        for (unsigned ms = 0; ms < settle * 1000; ms++)
            step(world);
        watch(world, 5, &band, &off);
    }
    bool good = band <= most_band && off <= most_off;
    if (!good || getenv("SM_FULL"))
        printf("%s, SM_SEED=%llu, %s: %u limiters, band %.1f %% (at most %.0f), off %.1f %% (at most %.0f)\n",
               good ? "stable" : "FAILED", (unsigned long long)seed, drl_mode_names[mode], world->options.limiters,
               100 * band, 100 * most_band, 100 * off, 100 * most_off);
    destroy(world);
    return good;
}

static bool bounded(enum drl_mode mode, uint64_t seed)
{
    struct world *world = build(mode, seed);
    struct drl_bound bound = drl_bound(&world->options);
    double over = 0, worst = 0;

    for (unsigned ms = 0; ms < 40000; ms++) {
        if (ms % 1000 == 0 && below(world, 4) == 0)
            demand(world);
        if (ms % 10000 == 0) {
            world->parted = below(world, 3) > 0;
            world->lost = below(world, 4) ? 0 : chance(world);
            for (unsigned i = 0; i < world->options.limiters; i++)
                world->group[i] = below(world, 2);
        }
        double before = world->passed;
        step(world);
        over = fmax(over + world->passed - before - bound.rate * STEP_NS / 1e9, 0);
        worst = fmax(worst, over);
    }
    bool good = worst <= bound.bytes + PACKET;
    if (!good || getenv("SM_FULL"))
        printf("%s, SM_SEED=%llu, %s: %u limiters let %.0f bytes through above %.0f a second; at most %.0f\n",
               good ? "bounded" : "FAILED", (unsigned long long)seed, drl_mode_names[mode], world->options.limiters,
               worst, bound.rate, bound.bytes);
    destroy(world);
    return good;
}

int main(void)
{
    uint64_t first = random_seed();
    unsigned schedules = getenv("SM_FULL") ? 120 : 20;
    bool good = true;

    printf("SM_SEED=%llu\n", (unsigned long long)first);
    for (uint64_t seed = first; seed < first + schedules; seed++) {
        /* Of 565 seeds and more the widest: pool 0.120 and 0.044, FPS 0.387 and 0.036. */
        good &= stable(DRL_POOL, seed, 3, 0.15, 0.10);
        good &= stable(DRL_FPS, seed, 15, 0.50, 0.08);
        good &= bounded(DRL_SPLIT, seed);
        good &= bounded(DRL_GTB, seed);
        good &= bounded(DRL_FPS, seed);
        good &= bounded(DRL_POOL, seed);
    }
    return good ? 0 : 1;
}
