/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/plan.h"

#include <string.h>

#include "testing/random.h"

#define WEB_THINKS (2 * SECOND)
#define CONTROL_DELAY_NS (10 * MILLISECOND)
#define INTERVAL_NS (50 * MILLISECOND)
#define FANOUT 3u

static struct sim_flow bulk(unsigned limiter, unsigned rtt_ms, unsigned start_ms)
{
    return (struct sim_flow){
        .limiter = limiter, .rtt_ns = rtt_ms * MILLISECOND, .start_ns = start_ms * MILLISECOND, .access = 12.5e6};
}

static void three_and_seven(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    (void)seed;
    for (unsigned i = 0; i < experiment->flows; i++)
        flows[i] = bulk(i >= 3, 40, 10 * i);
}

/* One more limiter gets flows every ten seconds. */
static void joining(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    (void)seed;
    for (unsigned i = 0; i < experiment->flows; i++)
        flows[i] = bulk(i % experiment->limiters, 40, i % experiment->limiters * 10000 + 10 * i);
}

static void bulk_and_web(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    (void)seed;
    for (unsigned i = 0; i < experiment->flows; i++) {
        flows[i] = bulk(i >= 10, 40, 10 * i);
        if (i < 10)
            continue;
        flows[i].packets = 5 + i % 3 * 10;
        flows[i].think_ns = WEB_THINKS;
    }
}

/* Half way, the seven flows of the second limiter find 100 kbit/s each elsewhere. */
static void bottleneck(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    three_and_seven(experiment, seed, flows);
    for (unsigned i = 3; i < experiment->flows; i++) {
        flows[i].access_later = 12500;
        flows[i].access_at_ns = experiment->changes_at * SECOND;
    }
}

static void mixed_rtt(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    (void)seed;
    for (unsigned i = 0; i < experiment->flows; i++)
        flows[i] = bulk(i >= experiment->flows / 2, i >= experiment->flows / 2 ? 100 : 20, 10 * i);
}

static void evenly(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    (void)seed;
    for (unsigned i = 0; i < experiment->flows; i++) {
        flows[i] = bulk(i % experiment->limiters, 40, i % 1000);
        flows[i].tcp = i / experiment->limiters % 2 ? SIM_CUBIC : SIM_RENO;
    }
}

static uint32_t draw(uint64_t *random)
{
    return (uint32_t)(random_linear(random) >> 33);
}

/*
 * As many flows at all times. With each epoch half of them end, and as many begin elsewhere: in the lower half of the
 * limiters and in the upper by turns, a limiter at random.
 */
static void shifting(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows)
{
    unsigned epochs = experiment->seconds / experiment->epoch, at_once = 2 * experiment->flows / (epochs + 1);
    unsigned half = experiment->limiters / 2;
    uint64_t random = seed;

    for (unsigned i = 0; i < experiment->flows; i++) {
        /* The first half of the first epoch's flows ends with it; all others last two. */
        unsigned group = i / (at_once / 2), begins = group < 2 ? 0 : group - 1;
        unsigned base = half > 0 && begins % 2 ? half : 0;
        unsigned room = half > 0 && !(begins % 2) ? half : experiment->limiters - base;
        flows[i] = bulk(base + draw(&random) % room, 40, begins * experiment->epoch * 1000 + draw(&random) % 100);
        flows[i].tcp = i % 2 ? SIM_CUBIC : SIM_RENO;
        flows[i].stop_ns = (group == 0 ? 1 : begins + 2) * experiment->epoch * SECOND;
    }
}

#define SHIFT(name, n, mbit, flows, burst)                                                                             \
    {                                                                                                                  \
        name, "half of the flows move every 5 s", mbit, n, flows, 30, 5, 5, burst, shifting, 0, 0, 0, true             \
    }

/* Of a shifting one, the flows are seven halves of those at once. */
const struct experiment experiments[] = {
    {"baseline", "3 and 7 flows", 10, 2, 10, 60, 10, 0, 75000, three_and_seven, 0, 0, 0, true},
    {"start-up", "the same, from the start", 10, 2, 10, 20, 0, 0, 75000, three_and_seven, 0, 0, 0, true},
    {"join", "flows join, one limiter more every 10 s", 50, 5, 50, 90, 40, 0, 75000, joining, 0, 0, 0, true},
    {"web", "10 bulk flows; 60 short ones elsewhere", 10, 2, 70, 60, 10, 0, 75000, bulk_and_web, 0, 0, 0, false},
    {"bottleneck", "7 of 10 flows slow down", 10, 2, 10, 90, 30, 0, 75000, bottleneck, 0, 0, 0, false},
    {"rtt", "round trips of 20 and 100 ms", 10, 2, 10, 60, 10, 0, 75000, mixed_rtt, 0, 0, 0, true},
    {"flows", "5,000 flows", 500, 10, 5000, 30, 10, 0, 750000, evenly, 0, 0, 0, true},
    {"490", "490 limiters", 50, 490, 980, 60, 20, 0, 75000, evenly, 0, 0, 0, true},
    {"1000", "1,000 limiters", 500, 1000, 2000, 30, 10, 0, 75000, evenly, 0, 0, 0, true},
    {"loss-0.5", "0.5 % of control lost", 50, 10, 50, 60, 10, 0, 75000, evenly, 0.005, 0, 0, true},
    {"loss-5", "5 % of control lost", 50, 10, 50, 60, 10, 0, 75000, evenly, 0.05, 0, 0, true},
    {"loss-20", "20 % of control lost", 50, 10, 50, 60, 10, 0, 75000, evenly, 0.2, 0, 0, true},
    {"partition", "two halves cut off from each other", 50, 10, 50, 60, 20, 0, 75000, evenly, 0, 20, 60, true},
    {"heal", "the same, after that", 50, 10, 50, 60, 40, 0, 75000, evenly, 0, 20, 40, true},
    SHIFT("shift-1", 1, 20, 70, 75000),
    SHIFT("shift-2", 2, 20, 70, 75000),
    SHIFT("shift-10", 10, 50, 175, 75000),
    SHIFT("shift-100", 100, 200, 700, 75000),
    SHIFT("shift-490", 490, 490, 1715, 75000),
    SHIFT("shift-1000", 1000, 1000, 3500, 75000),
};

const unsigned experiment_count = sizeof experiments / sizeof *experiments;

bool plan_run(const struct experiment *experiment, unsigned mode, uint64_t seed, const struct sim_flow *flows,
              struct sim_result *result)
{
    const struct sim_setup setup = {
        .mode = mode,
        .rate = experiment->mbit * 1e6 / 8,
        .burst = experiment->burst,
        .interval_ns = INTERVAL_NS,
        .limiters = experiment->limiters,
        .fanout = FANOUT,
        .flows = flows,
        .flow_count = experiment->flows,
        .duration_ns = experiment->seconds * SECOND,
        .control_delay_ns = CONTROL_DELAY_NS,
        .control_loss = experiment->control_loss,
        .partition_from_ns = experiment->parted_from * SECOND,
        .partition_to_ns = experiment->parted_to * SECOND,
        .seed = seed,
    };

    return sim_run(&setup, result);
}

const char *plan_note(const struct experiment *experiment)
{
    static const struct {
        const char *name, *note;
    } notes[] = {
        {"web",
         "A window of 0.1 s holds 83 packets, and the short flows bring 5 to 25 at a time: what one limiter gets "
         "within it "
         "the other cannot know before it is over. It can only be made up for in the next ones. With 34 times the "
         "control, 161 kbit/s, the misses above the one bucket's are still 2.2 % over 1 s and 11 % over 0.1 s; nearest "
         "within 5 kbit/s is what is shown."},
        {"rtt",
         "The one bucket is steady because the flows of 20 ms have nearly all of it (its index). Where those of 100 ms "
         "get as much, five of them on one limiter make it miss as they do on a bucket of their own: see split."},
    };

    for (unsigned i = 0; i < sizeof notes / sizeof *notes; i++)
        if (strcmp(experiment->name, notes[i].name) == 0)
            return notes[i].note;
    return "";
}
