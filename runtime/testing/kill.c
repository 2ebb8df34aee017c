/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The test kit: deaths as the kernel would leave them (the replica stops somewhere, nothing of its own runs any more),
 * and allocations that fail.
 */

#include "testing/test.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALONE 3u            /* deaths, until in one others may die too */
#define LARGEST_PORTION 20u /* of a snapshot: the power of two that its work is below */

/* Of the burst that runs: one at a time in a process. */
static struct sm_test *bursting;
static jmp_buf death;

static void at_place(const struct step_place *const *place)
{
    if (bursting->place != SM_TEST_ANYWHERE && place != step_first() + bursting->place)
        return;
    if (--bursting->visits_left == 0)
        longjmp(death, 1);
}

static bool allocation_fails(void)
{
    return bursting->allocations_left > 0 && --bursting->allocations_left == 0;
}

void test_free_member(struct sm_test *test, unsigned slot)
{
    struct sm_replica *replica = test->members[slot].replica;

    if (test->options.ended)
        test->options.ended(replica, replica->user);
    bind_forget(replica);
    snapshot_end(&replica->snapshot);
    replica_restore_end(replica);
    free(replica->registration);
    free(replica);
    test->members[slot] = (struct member){0};
}

void test_slots_died(struct sm_test *test, void *slots)
{
    /* It was ours to choose the place: no packet is to blame, however many have died of it. */
    for (uint32_t i = 0; i < test->sw->buffers; i++)
        test->sw->packets[i].deaths = 0;
    switch_slots_died(test->sw, *(uint64_t *)slots);
}

/* Gone, as far as the process is concerned; somebody is always started in place of the last one. */
static void bury(struct sm_test *test, uint64_t slots)
{
    struct sm_errbuf ignored;

    for (uint64_t left = slots; left; left &= left - 1)
        if (test->condemned == test->sw->slots[__builtin_ctzll(left)].id)
            test->condemned = 0;
    if (!test_as_switch(test, test_slots_died, &slots))
        return;
    for (uint64_t left = slots; left; left &= left - 1)
        test_free_member(test, (unsigned)__builtin_ctzll(left));
    if (sm_test_replicas(test) == 0 && test->sw->state != SWITCH_ENDED)
        test_add_replica(test, &ignored);
}

/* A burst, in which the replica may die. False: it has, and is still to be buried. */
static bool survives_burst(struct sm_test *test, unsigned slot, unsigned budget, bool doomed)
{
    bool alive = true;

    struct snapshot *snapshot = &test->members[slot].replica->snapshot;

    if (snapshot->waiting > 0)
        snapshot->work = 1u << test_below(test, LARGEST_PORTION);
    bursting = test;
    step_taken = doomed ? at_place : NULL;
    step_allocation_fails = test->allocations_left > 0 ? allocation_fails : NULL;
    if (setjmp(death) == 0)
        replica_burst(test->members[slot].replica, budget), alive = test->members[slot].replica->failed == 0;
    else
        alive = false;
    step_taken = NULL;
    step_allocation_fails = NULL;
    return alive;
}

void test_burst(struct sm_test *test, unsigned slot, unsigned budget)
{
    if (!survives_burst(test, slot, budget, test->condemned == test->sw->slots[slot].id))
        bury(test, 1ull << slot);
    else if (test->members[slot].replica->retired) {
        test->members[slot].leaving = false;
        test_remove_replica(test, slot);
    }
}

/* Whatever order waits stays as it is. */
static bool survives_place(struct sm_test *test, unsigned slot, uint32_t place, uint64_t nth)
{
    const uint32_t ordered = test->place;
    const uint64_t visits_left = test->visits_left;

    test->place = place;
    test->visits_left = nth;
    bool alive = survives_burst(test, slot, CHANNEL_BURST, true);
    test->place = ordered;
    test->visits_left = visits_left;
    return alive;
}

bool test_burst_to_death(struct sm_test *test, unsigned slot)
{
    return survives_place(test, slot, SM_TEST_ANYWHERE, 1 + test_below(test, TEST_STEPS_AT_RANDOM));
}

void test_kill_in_burst(struct sm_test *test, unsigned slot, uint32_t place, uint64_t nth)
{
    bool alive = survives_place(test, slot, place, nth);

    if (alive && test->members[slot].replica->retired)
        test_remove_replica(test, slot);
    else
        bury(test, 1ull << slot);
}

/* Somewhere in a burst, or behind it. Now and then others with it, as threads of one process: each in a burst of its
 * own, and none is dealt with before all have died. */
void test_kill_at_random(struct sm_test *test)
{
    unsigned slots[ARENA_SLOTS];
    const unsigned count = test_ready(test, slots);

    if (count == 0)
        return;
    unsigned first = (unsigned)test_below(test, count), dead = 1;
    if (test_below(test, ALONE) == 0)
        dead += (unsigned)test_below(test, count);
    if (dead == 1) {
        test_kill_in_burst(test, slots[first], SM_TEST_ANYWHERE, 1 + test_below(test, TEST_STEPS_AT_RANDOM));
        return;
    }
    uint64_t together = 0;
    for (unsigned i = 0; i < dead && !test_anything_is_locked(test); i++) {
        const unsigned slot = slots[(first + i) % count];
        test_burst_to_death(test, slot);
        together |= 1ull << slot;
    }
    bury(test, together);
}

/* Not with a thread of its own, nor where what it wrote is in a file. */
static bool may_die(const struct sm_test *test, unsigned who)
{
    return !test->options.threads && (who != SM_TEST_SWITCH || !test->options.output);
}

int sm_test_kill(struct sm_test *test, unsigned replica)
{
    int slot = switch_slot_of(test->sw, replica);

    if (!may_die(test, replica))
        return SM_E_INVALID;
    if (replica == SM_TEST_SWITCH) {
        test_switch_died(test);
        return 0;
    }
    if (slot < 0 || !test->members[slot].replica)
        return SM_E_NOT_FOUND;
    bury(test, 1ull << slot);
    return 0;
}

unsigned sm_test_places(void)
{
    return step_count();
}

const char *sm_test_place_name(unsigned number)
{
    static char name[128];

    if (number >= step_count())
        return NULL;
    const struct step_place *place = step_first()[number];
    const char *slash = strrchr(place->file, '/');
    snprintf(name, sizeof name, "%s %s:%u", place->function, slash ? slash + 1 : place->file, place->line);
    return name;
}

int sm_test_kill_at(struct sm_test *test, unsigned replica, uint32_t place, uint64_t nth)
{
    if (!may_die(test, replica) || (place != SM_TEST_ANYWHERE && place >= step_count()) || nth == 0)
        return SM_E_INVALID;
    if (replica != 0 && replica != SM_TEST_SWITCH && switch_slot_of(test->sw, replica) < 0)
        return SM_E_NOT_FOUND;
    test->condemned = replica;
    test->place = place;
    test->visits_left = nth;
    return 0;
}

bool sm_test_kill_pending(const struct sm_test *test)
{
    return test->condemned != 0;
}

void sm_test_fail_allocation(struct sm_test *test, uint64_t nth)
{
    test->allocations_left = nth;
}
