/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mode `exact` over random schedules of everything that may go wrong: messages lost, repeated, late, out of order,
 * partitions, processes and hosts that end and begin anew, that stand still, clocks that differ, run apart and jump.
 * One bucket in true time is judge: whatever passes anywhere must be there, when it departs where it may wait. SM_SEED
 * gives one schedule again.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drl/exact.h"
#include <splitmerge/bucket.h>

#define MOST 6u
#define MS 1000000ull
#define RATE 20000000ull /* 20 Mbit/s */
#define BURST 60000u
#define PACKET 1500u
#define INTERVAL (100 * MS)
#define MAIL 8192u
#define WAITING 8192u

struct node {
    struct meter meter;
    struct exact_host host;
    struct exact_home home; /* of node 0 */
    uint64_t offset, started;
    double speed;
    bool runs, parted;
    uint64_t away_until; /* stands still, or is down */
    bool reset;          /* when it comes back, its memory is gone */
    double demand, seen; /* bytes: to come, a second; a smoothed rate of what came */
    double credit, arrived, dropped;
    bool pressed;
    uint64_t estimated_at;
    uint64_t passed;
};

struct letter {
    uint64_t at;
    unsigned from, to;
    bool is_ask, used;
    struct exact_ask ask;
    struct exact_grant grant;
};

struct world {
    struct node nodes[MOST];
    unsigned count;
    uint64_t now, random, seed;
    struct sm_bucket judge;
    bool faults;
    struct letter mail[MAIL];
    uint64_t queue; /* packets wait for so long at most */
    unsigned waiting;
    uint64_t departures[WAITING]; /* of packets that wait, latest first */
};

static const struct sm_bucket_rate whole = {.rate = RATE, .burst = BURST};
static const struct exact_limit limit = {.whole = {RATE, BURST *SM_BUCKET_UNIT}, .lease_ns = 1000 * MS};

static uint64_t number(struct world *world, uint64_t below)
{
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return (world->random * 2685821657736338717ull >> 16) % below;
}

static bool chance(struct world *world, double p)
{
    return (double)number(world, 1000000) < p * 1e6;
}

static uint64_t clock_of(const struct world *world, const struct node *node)
{
    return node->offset + (uint64_t)((double)world->now * node->speed);
}

static void start(struct world *world, struct node *node)
{
    uint64_t now = clock_of(world, node);

    if (node == world->nodes)
        exact_home_start(&node->home, &limit, number(world, UINT32_MAX) + 1, now);
    const struct exact_host_options options = {
        .interval_ns = INTERVAL, .queue_ns = world->queue, .random = (uint32_t)number(world, UINT32_MAX)};
    exact_host_start(&node->host, &node->meter, &limit, &options, now);
    node->runs = true;
    node->seen = 0;
    node->arrived = 0;
    node->estimated_at = now;
}

static void post(struct world *world, const struct letter *letter)
{
    unsigned copies = world->faults && chance(world, 0.1) ? 2 : 1;
    bool parted = world->nodes[letter->from].parted || world->nodes[letter->to].parted;

    if (letter->from != letter->to && parted)
        return;
    for (unsigned i = 0; i < MAIL && copies > 0; i++) {
        if (world->mail[i].used)
            continue;
        copies--;
        if (world->faults && chance(world, 0.15))
            continue;
        world->mail[i] = *letter;
        world->mail[i].used = true;
        world->mail[i].at = world->now + number(world, (chance(world, 0.05) ? 4000 : 40) * MS);
        if (!world->faults)
            world->mail[i].at = world->now + 2 * MS;
        if (letter->from == letter->to)
            world->mail[i].at = world->now;
    }
}

static void ask(struct world *world, struct node *node)
{
    uint64_t now = clock_of(world, node);
    struct letter letter = {.from = (unsigned)(node - world->nodes), .to = 0, .is_ask = true};
    double seconds = (double)(now - node->estimated_at) / 1e9;

    if (now - node->estimated_at >= INTERVAL) {
        node->seen = (node->seen + node->arrived / seconds) / 2;
        node->pressed = node->dropped > 0;
        node->arrived = node->dropped = 0;
        node->estimated_at = now;
    }
    exact_host_ask(&node->host, now, &letter.ask);
    letter.ask.demand = (uint64_t)(node->seen * 8);
    letter.ask.weight = 1000;
    letter.ask.pressed = node->pressed;
    post(world, &letter);
}

static void deliver(struct world *world, struct letter *letter)
{
    struct node *node = &world->nodes[letter->to];
    struct letter answer = {.from = letter->to, .to = letter->from};

    if (!node->runs) {
        letter->used = letter->used && node->away_until > world->now && !node->reset; /* its socket keeps them */
        return;
    }
    letter->used = false;
    if (!letter->is_ask)
        exact_host_granted(&node->host, clock_of(world, node), &letter->grant);
    else if (exact_home_asked(&node->home, letter->from, &letter->ask, &answer.grant))
        post(world, &answer);
}

static void judged(struct world *world, uint64_t at)
{
    cr_assert(sm_bucket_has(&world->judge, &whole, at, PACKET), "seed %lu: above the limit at %lu us", world->seed,
              at / 1000);
    sm_bucket_take(&world->judge, &whole, at, PACKET);
}

/* Those that have waited until now depart. */
static void depart(struct world *world)
{
    while (world->waiting > 0 && world->departures[world->waiting - 1] <= world->now)
        judged(world, world->departures[--world->waiting]);
}

static bool take(struct world *world, struct node *node)
{
    uint64_t clock = clock_of(world, node), amount = PACKET * SM_BUCKET_UNIT, at = world->now;
    struct meter_slot slot;

    if (world->queue == 0 ? !meter_take(&node->meter, clock, amount)
                          : !meter_queue(&node->meter, clock, amount, world->queue, &slot))
        return false;
    if (world->queue > 0 && slot.departs > clock)
        at += (uint64_t)((double)(slot.departs - clock) / node->speed);
    if (at == world->now) {
        judged(world, at);
        return true;
    }
    unsigned place = world->waiting++;
    cr_assert_lt(place, WAITING);
    for (; place > 0 && world->departures[place - 1] < at; place--)
        world->departures[place] = world->departures[place - 1];
    world->departures[place] = at;
    return true;
}

static void packets(struct world *world, struct node *node)
{
    node->credit += node->demand / 1000;
    while (node->credit >= PACKET) {
        node->credit -= PACKET;
        node->arrived += PACKET;
        if (take(world, node))
            node->passed += PACKET;
        else
            node->dropped += PACKET;
    }
}

static void step_clock(struct world *world, struct node *node)
{
    uint64_t by = METER_GAP_NS + 5 * MS + number(world, 3) * number(world, 4000000) * MS;

    if (chance(world, 0.5))
        node->offset += by;
    else
        node->offset -= by < node->offset / 2 ? by : 0;
}

/* What may happen to a node in a millisecond. */
static void trouble(struct world *world, struct node *node)
{
    if (!world->faults)
        return;
    if (chance(world, 0.0005))
        node->demand = chance(world, 0.3) ? 0 : (double)number(world, RATE / 2);
    if (chance(world, 0.0003))
        node->parted = !node->parted;
    if (node->runs && chance(world, 0.0004)) {
        node->runs = false;
        node->away_until = world->now + number(world, chance(world, 0.3) ? 3000 : 200) * MS;
        node->reset = chance(world, 0.6);
        if (node->reset && chance(world, 0.3)) /* the whole host, not only who fills the meter */
            memset(&node->meter, 0, sizeof node->meter);
    }
    if (!node->runs && world->now >= node->away_until) {
        node->runs = true;
        if (node->reset)
            start(world, node);
    }
    if (node->runs && chance(world, 0.0003))
        step_clock(world, node);
}

static void millisecond(struct world *world)
{
    unsigned first = (unsigned)number(world, world->count);

    world->now += MS;
    depart(world);
    for (unsigned k = 0; k < world->count; k++) {
        struct node *node = &world->nodes[(first + k) % world->count];
        trouble(world, node);
        packets(world, node);
        if (!node->runs)
            continue;
        if (node == world->nodes)
            exact_home_time(&node->home, clock_of(world, node));
        if (exact_host_time(&node->host, clock_of(world, node)))
            ask(world, node);
    }
    for (unsigned i = 0; i < MAIL; i++)
        if (world->mail[i].used && world->mail[i].at <= world->now)
            deliver(world, &world->mail[i]);
    /* What the home knows of must not be more than there is, either. */
    struct exact_part out = exact_home_out(&world->nodes[0].home);
    cr_assert(out.rate <= RATE && out.depth <= limit.whole.depth, "seed %lu: the home let out too much", world->seed);
}

static struct world *begin(uint64_t seed, unsigned count, bool faults, uint64_t queue)
{
    struct world *world = calloc(1, sizeof *world);

    *world = (struct world){
        .count = count, .seed = seed, .random = seed * 2654435761u + 1, .faults = faults, .queue = queue};
    sm_bucket_init(&world->judge, &whole, 0);
    for (unsigned i = 0; i < count; i++) {
        struct node *node = &world->nodes[i];
        node->offset = number(world, 1ull << 45);
        node->speed = 1 + ((double)number(world, 2001) - 1000) / 1000 / (2.0 * EXACT_DRIFT);
        node->demand = (double)number(world, RATE / 4);
        start(world, node);
    }
    return world;
}

static void never_above_the_limit(uint64_t queue)
{
    const char *given = getenv("SM_SEED");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1, runs = given ? 1 : getenv("SM_FULL") ? 300 : queue ? 30 : 60;
    uint64_t passed = 0;

    printf("seeds %lu to %lu\n", first, first + runs - 1);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        struct world *world = begin(seed, 2 + (unsigned)(seed % (MOST - 1)), true, queue);
        for (unsigned ms = 0; ms < 20000; ms++)
            millisecond(world);
        for (unsigned i = 0; i < world->count; i++)
            passed += world->nodes[i].passed;
        free(world);
    }
    printf("with all that, %.0f %% of the limit was used\n", (double)passed * 8 / 20 / (double)(RATE * runs) * 100);
    cr_assert_gt((double)passed * 8 / 20 / (double)(RATE * runs), 0.1);
}

Test(exact, never_above_the_limit)
{
    never_above_the_limit(0);
}

Test(exact, never_above_the_limit_where_packets_wait)
{
    never_above_the_limit(50 * MS);
}

static uint64_t passed_by_all(const struct world *world)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < world->count; i++)
        sum += world->nodes[i].passed;
    return sum;
}

/* Nothing goes wrong, and there is always more demand than limit, each five seconds elsewhere: the price in under-use.
 */
Test(exact, what_it_costs)
{
    struct world *world = begin(3, 4, false, 0);
    uint64_t least = UINT64_MAX, at_first = 0;

    for (unsigned ms = 0; ms < 60000; ms++) {
        for (unsigned i = 0; i < world->count; i++)
            world->nodes[i].demand = i == ms / 5000 % world->count ? RATE / 8 * 1.5 : RATE / 80;
        uint64_t before = passed_by_all(world);
        unsigned begun = ms;
        do
            millisecond(world);
        while (++ms % 1000 != 0);
        ms--;
        uint64_t second = passed_by_all(world) - before;
        if (begun == 2000)
            at_first = passed_by_all(world);
        if (begun > 2000 && second < least)
            least = second;
    }
    double used = (double)(passed_by_all(world) - at_first) * 8 / 57 / RATE;
    printf("demand that moves every 5 s: %.1f %% used, the worst second %.1f %%\n", used * 100,
           (double)least * 800 / RATE);
    cr_assert_gt(used, 0.9, "%f", used);
    cr_assert_gt((double)least * 8 / RATE, 0.6);
    free(world);
}

/* A part that is given up is somebody else's only when all that waited by it has gone; whoever has just begun anew does
 * not know of it, and waits. */
Test(exact, what_waits_goes_first)
{
    for (unsigned restarts = 0; restarts < 2; restarts++) {
        struct world *world = begin(9, 3, false, 400 * MS);
        for (unsigned ms = 0; ms < 30000; ms++) {
            for (unsigned i = 0; i < world->count; i++)
                world->nodes[i].demand = i == ms / 1700 % world->count ? RATE / 8 * 1.5 : 0;
            if (restarts && number(world, 600) == 0)
                start(world, &world->nodes[1 + number(world, 2)]);
            millisecond(world);
        }
        printf("%.0f %% used\n", (double)passed_by_all(world) * 8 / 30 / RATE * 100);
        cr_assert_gt((double)passed_by_all(world) * 8 / 30 / RATE, 0.3);
        free(world);
    }
}

/* A home that begins anew prolongs what hosts hold: steady demand does not notice. */
Test(exact, the_home_begins_anew)
{
    struct world *world = begin(5, 3, false, 0);

    for (unsigned i = 0; i < world->count; i++)
        world->nodes[i].demand = RATE / 8 / 2;
    for (unsigned ms = 0; ms < 4000; ms++)
        millisecond(world);
    uint64_t before = passed_by_all(world);
    for (unsigned ms = 0; ms < 4000; ms++) {
        if (ms == 1000)
            start(world, &world->nodes[0]);
        millisecond(world);
    }
    cr_assert_gt((double)(passed_by_all(world) - before) * 8 / 4 / RATE, 0.97);
    free(world);
}

/* Who hears nothing of the home stops when its lease ends, and the others have it all a little later. */
Test(exact, cut_off)
{
    struct world *world = begin(7, 3, false, 0);

    for (unsigned ms = 0; ms < 12000; ms++) {
        for (unsigned i = 0; i < world->count; i++)
            world->nodes[i].demand = RATE / 8;
        world->nodes[2].parted = ms >= 4000 && ms < 8000;
        if (ms == 5001 || ms == 6000 || ms == 8500)
            for (unsigned i = 0; i < world->count; i++)
                world->nodes[i].passed = 0;
        if (ms == 7999) {
            cr_assert_eq(world->nodes[2].passed, 0, "it passed %lu", world->nodes[2].passed);
            cr_assert_gt((double)passed_by_all(world) * 8 / 2 / RATE, 0.97);
        }
        millisecond(world);
    }
    cr_assert_gt((double)passed_by_all(world) * 8 / 3.5 / RATE, 0.97);
    cr_assert_gt((double)world->nodes[2].passed * 8 / 3.5 / RATE, 0.25);
    free(world);
}

/* One ask of a host, answered at once. */
static void ask_home(struct exact_home *home, struct exact_host *host, unsigned number, uint64_t now, uint64_t demand)
{
    struct exact_ask ask;
    struct exact_grant grant;

    exact_host_time(host, now);
    exact_host_ask(host, now, &ask);
    ask.demand = demand;
    ask.weight = demand > 0 ? 1000 : 0;
    ask.pressed = demand > 0;
    cr_assert(exact_home_asked(home, number, &ask, &grant));
    exact_host_granted(host, now, &grant);
}

/* TCP that waits for its timer keeps what nobody else wants; when somebody does, or it has gone, the part is free. */
Test(exact, keeps_a_part_over_a_silence)
{
    struct meter meters[2] = {{0}};
    struct exact_host hosts[2];
    struct exact_home home;
    uint64_t now = 0;

    exact_home_start(&home, &limit, 1, now);
    for (unsigned i = 0; i < 2; i++) {
        const struct exact_host_options options = {.interval_ns = INTERVAL, .random = i};
        exact_host_start(&hosts[i], &meters[i], &limit, &options, now);
    }
    for (unsigned asks = 0; asks < 40; asks++) {
        uint64_t rate = atomic_load(&meters[1].rate);
        if (asks == 30)
            cr_assert_gt(rate, RATE / 10 * 9, "busy: %lu", rate);
        if (asks == 33)
            cr_assert_gt(rate, RATE / 4 * 3, "silent for 0.3 s: %lu", rate);
        for (uint64_t end = now + INTERVAL; now < end; now += 10 * MS)
            exact_home_time(&home, now);
        ask_home(&home, &hosts[0], 0, now, asks < 33 ? 0 : RATE);
        ask_home(&home, &hosts[1], 1, now, asks < 30 ? RATE : 0);
    }
    cr_assert_lt(atomic_load(&meters[1].rate), RATE / 2, "it has gone: %lu", atomic_load(&meters[1].rate));
}

Test(exact, refuses_what_is_not_for_it)
{
    struct meter meter = {0};
    struct exact_host host;
    struct exact_home home;
    struct exact_ask asked;
    struct exact_grant grant, stale;

    exact_home_start(&home, &limit, 1, 0);
    const struct exact_host_options options = {.interval_ns = INTERVAL, .random = UINT32_MAX - 1};
    exact_host_start(&host, &meter, &limit, &options, 0);
    for (uint64_t now = 0; now < 2000 * MS; now += 10 * MS) {
        exact_home_time(&home, now);
        if (exact_host_time(&host, now)) {
            exact_host_ask(&host, now, &asked);
            cr_assert(exact_home_asked(&home, 1, &asked, &grant));
            cr_assert(exact_host_granted(&host, now, &grant));
            cr_assert(!exact_home_asked(&home, 1, &asked, &stale) || stale.number == 0, "an ask was taken twice");
        }
    }
    cr_assert_gt(grant.part.rate, RATE / 2, "numbers wrap around: %u granted %lu", grant.number, grant.part.rate);
    stale = grant;
    stale.token++;
    cr_assert(!exact_host_granted(&host, 2000 * MS, &stale), "another token's");
    stale = grant;
    stale.asked += 5;
    cr_assert(!exact_host_granted(&host, 2000 * MS, &stale), "the answer to nothing");
    stale = grant;
    stale.number--;
    cr_assert(!exact_host_granted(&host, 2000 * MS, &stale), "an older one");
    cr_assert(!exact_home_asked(&home, EXACT_MAX_HOSTS, &asked, &stale), "a host out of range");
}

Test(exact, a_meter_is_a_bucket)
{
    struct meter meter = {0};

    meter_set(&meter, 10, 1000);
    meter_extend(&meter, 0, METER_ALWAYS);
    cr_assert(!meter_take(&meter, 0, 1), "it begins empty");
    meter_fill(&meter, 60, true);
    cr_assert(meter_take(&meter, 60, 600) && !meter_take(&meter, 60, 1));
    /* Emptied when? Perhaps only now: what would have come in had room for 400. */
    meter_fill(&meter, 160, true);
    cr_assert_eq(meter.level, 400);
    meter_fill(&meter, 260, true);
    cr_assert_eq(meter.level, 1000);
    cr_assert(meter_take(&meter, 350, 1000));
    meter_fill(&meter, 350, true);
    cr_assert_eq(meter.level, 0, "%lu", meter.level);
    meter_fill(&meter, 400, true);
    cr_assert_eq(meter.level, 500);
    meter_give_back(&meter, 200);
    cr_assert_eq(meter.level, 700);
    meter_set(&meter, 5, 400);
    cr_assert_eq(meter.level, 400, "what is above a smaller depth is gone");
    meter_set(&meter, 5, 800);
    meter_fill(&meter, 440, true);
    cr_assert_eq(meter.level, 600);
    meter_extend(&meter, 440, 450);
    cr_assert(!meter_take(&meter, 450, 1) && meter_take(&meter, 449, 1));
    meter_fill(&meter, 460, true);
    cr_assert_eq(meter.level, 0, "what is left of a lease that has ended is nobody's: %lu", meter.level);
    cr_assert(!meter_take(&meter, 440, 1), "also to a clock that was put back");
    meter_extend(&meter, 460, 600);
    cr_assert_eq(meter.level, 0, "the next lease begins without");
    meter_fill(&meter, 460 + METER_GAP_NS + 1, true);
    cr_assert_eq(meter.level, 0, "nor does a jump fill it");
}

/* Packets that wait have what comes in, at the rate of when they come; nobody else has it again. */
Test(exact, a_meter_has_a_queue)
{
    struct meter meter = {0};
    struct meter_slot slot, last;

    meter_set(&meter, 10, 1000);
    meter_extend(&meter, 0, 10000);
    meter_fill(&meter, 30, true);
    cr_assert(meter_queue(&meter, 30, 200, 100, &slot) && slot.departs <= 30 && slot.wait == 0, "it is there");
    cr_assert(meter_queue(&meter, 40, 200, 100, &slot));
    cr_assert_eq(slot.departs, 50, "100 are there, 100 come in 10: %lu", slot.departs);
    meter_set(&meter, 5, 1000);
    cr_assert(meter_queue(&meter, 45, 200, 100, &slot) && slot.departs == 90, "behind it, half as fast");
    cr_assert(!meter_queue(&meter, 45, 500, 100, &last), "it would wait for too long");
    meter_fill(&meter, 70, true);
    cr_assert_eq(meter.level, 0, "what comes in until 90 is taken");
    meter_unqueue(&meter, &slot);
    cr_assert(meter_queue(&meter, 70, 200, 100, &slot) && slot.departs == 110, "%lu", slot.departs);
    meter_fill(&meter, 130, true);
    cr_assert_eq(meter.level, 100, "from 110 on it is filled");
    cr_assert(!meter_queue(&meter, 9990, 200, 100, &slot), "not beyond its end");
    cr_assert(!meter_queue(&meter, 130, 1001, 1000, &slot), "nor more than its depth");
    cr_assert_eq(meter.level, 100, "and nothing is lost by that");
    cr_assert(!meter_queue(&meter, 130 + METER_GAP_NS + 1, 200, METER_ALWAYS, &slot), "a jump that was not seen");
    /* A clock that went back: who waits still waits as long. */
    cr_assert(meter_queue(&meter, 130, 600, 200, &slot) && slot.departs == 230);
    meter_fill(&meter, 60, true);
    cr_assert_eq(meter.queued_until, 160);
}
