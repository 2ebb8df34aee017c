/* SPDX-License-Identifier: BSD-2-Clause */

/* The switch's table of flows that stay, beside a model of it that is a plain array. SM_SEED fixes the run. */

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>

#include "switch/affinity.h"
#include "testing/random.h"

#define FLOWS 48u /* that there are; the table has room for ROOM of them */
#define ROOM 32u
#define SLOTS 3u
#define IDLE 5000000000ull
#define STEPS 200000u

struct model {
    bool entered;
    unsigned slot, in_flight, closed;
    uint64_t seen;
};

static struct model model[FLOWS];
static uint64_t random_state;

static uint64_t below(uint64_t bound)
{
    return random_xorshift(&random_state) % bound;
}

static bool ended(const struct model *flow, uint64_t now)
{
    uint64_t idle = flow->closed == AFFINITY_CLOSED ? AFFINITY_CLOSED_NS : IDLE;

    return flow->in_flight == 0 && now - flow->seen > idle;
}

/* Hashes that share buckets. */
static uint64_t hash_of(unsigned flow)
{
    return (flow % 8) | (uint64_t)flow << 40;
}

/* A packet of a flow: where it goes, and whether it ought to. */
static void packet(struct affinity *table, unsigned number, uint64_t now)
{
    struct model *flow = &model[number];
    bool opens = below(8) == 0;
    bool known =
        flow->entered && !ended(flow, now) && !(opens && flow->closed == AFFINITY_CLOSED && flow->in_flight == 0);
    uint32_t found = affinity_find(table, hash_of(number), now, opens);

    cr_assert_eq(found != AFFINITY_NONE, known, "flow %u", number);
    if (known) {
        cr_assert_eq(table->flows[found].slot, flow->slot);
        if (opens)
            flow->closed = 0;
    } else {
        if (below(3) == 0) { /* held: nothing is known of it from now on */
            if (flow->in_flight == 0)
                *flow = (struct model){0};
            return;
        }
        unsigned slot = (unsigned)below(SLOTS);
        found = affinity_enter(table, hash_of(number), slot);
        if (found == AFFINITY_NONE)
            return;
        *flow = (struct model){.entered = true, .slot = slot, .seen = flow->seen, .in_flight = flow->in_flight};
    }
    unsigned closed = below(4) == 0 ? (unsigned)below(4) : 0;
    affinity_sent(table, found, now, closed);
    flow->closed |= closed;
    flow->in_flight++;
    flow->seen = now;
}

static void back(struct affinity *table, unsigned number, uint64_t now)
{
    struct model *flow = &model[number];

    if (!flow->entered || flow->in_flight == 0)
        return;
    affinity_back(table, affinity_find(table, hash_of(number), now, false));
    flow->in_flight--;
}

/* All that a dead replica had in flight is given back, and its flows are known no more. */
static void die(struct affinity *table, unsigned slot, uint64_t now)
{
    uint32_t numbers[FLOWS];

    for (unsigned i = 0; i < FLOWS; i++)
        numbers[i] = model[i].entered && model[i].slot == slot && model[i].in_flight
                         ? affinity_find(table, hash_of(i), now, false)
                         : AFFINITY_NONE;
    affinity_forsake(table, slot);
    for (unsigned i = 0; i < FLOWS; i++) {
        for (; numbers[i] != AFFINITY_NONE && model[i].in_flight > 0; model[i].in_flight--)
            affinity_back(table, numbers[i]);
        if (model[i].entered && model[i].slot == slot)
            model[i] = (struct model){0};
    }
}

static void check(struct affinity *table, uint64_t now)
{
    unsigned live[SLOTS] = {0}, all = 0;

    affinity_sweep(table, now, ROOM);
    for (unsigned i = 0; i < FLOWS; i++) {
        if (model[i].entered && ended(&model[i], now))
            model[i] = (struct model){0};
        if (model[i].entered)
            live[model[i].slot]++;
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        cr_assert_eq(table->known[slot], live[slot], "slot %u: %u known, %u are", slot, table->known[slot], live[slot]);
        all += live[slot];
    }
    cr_assert_leq(all, ROOM);
}

Test(affinity, is_what_an_array_is)
{
    uint64_t now = 1;
    struct affinity *table = affinity_create(ROOM, IDLE);

    random_state = random_seed();
    fprintf(stderr, "SM_SEED=%" PRIu64 "\n", random_state);
    random_state = random_state * 2654435761u + 88172645463325252ull;
    cr_assert_not_null(table);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned flow = (unsigned)below(FLOWS);
        uint64_t kind = below(100);
        if (kind < 45)
            packet(table, flow, now);
        else if (kind < 92)
            back(table, flow, now);
        else if (kind < 98)
            now += below(kind == 97 ? 2 * IDLE : 100000000);
        else if (kind == 98 && below(20) == 0)
            die(table, (unsigned)below(SLOTS), now);
        else
            check(table, now);
    }
    cr_assert_gt(table->refused, 0);
    cr_assert_gt(table->entered, 1000);
    affinity_destroy(table);
}

Test(affinity, at_the_end_only_what_is_in_flight_is_left)
{
    struct affinity *table = affinity_create(4, IDLE);

    affinity_sent(table, affinity_enter(table, 1, 0), 10, 0);
    affinity_sent(table, affinity_enter(table, 2, 0), 10, 0);
    affinity_back(table, 1);
    affinity_sweep(table, 11, 4);
    cr_assert_eq(table->known[0], 2);
    table->over = true;
    affinity_sweep(table, 11, 4);
    cr_assert_eq(table->known[0], 1);
    affinity_destroy(table);
}
