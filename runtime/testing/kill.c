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

#define STEPS_AT_RANDOM 3000u
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

/* Gone, as far as the process is concerned; somebody is always started in place of the last one. */
static void bury(struct sm_test *test, unsigned slot)
{
    struct member *member = &test->members[slot];
    struct sm_errbuf ignored;

    if (test->condemned == test->sw->slots[slot].id)
        test->condemned = 0;
    switch_slot_died(test->sw, slot);
    if (test->options.ended)
        test->options.ended(member->replica, member->replica->user);
    bind_forget(member->replica);
    snapshot_end(&member->replica->snapshot);
    replica_restore_end(member->replica);
    free(member->replica);
    *member = (struct member){0};
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
        bury(test, slot);
    else if (test->members[slot].replica->retired) {
        test->members[slot].leaving = false;
        test_remove_replica(test, slot);
    }
}

/* Somewhere in a burst, or behind it. */
void test_kill_at_random(struct sm_test *test)
{
    const uint32_t place = test->place;
    const uint64_t visits_left = test->visits_left;
    unsigned slots[ARENA_SLOTS];
    const unsigned count = test_ready(test, slots);

    if (count == 0)
        return;
    unsigned slot = slots[test_below(test, count)];
    test->place = SM_TEST_ANYWHERE;
    test->visits_left = 1 + test_below(test, STEPS_AT_RANDOM);
    bool alive = survives_burst(test, slot, CHANNEL_BURST, true);
    test->place = place;
    test->visits_left = visits_left;
    if (alive && test->members[slot].replica->retired)
        test_remove_replica(test, slot);
    else
        bury(test, slot);
}

int sm_test_kill(struct sm_test *test, unsigned replica)
{
    int slot = switch_slot_of(test->sw, replica);

    if (test->options.threads)
        return SM_E_INVALID;
    if (slot < 0 || !test->members[slot].replica)
        return SM_E_NOT_FOUND;
    bury(test, (unsigned)slot);
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
    if (test->options.threads || (place != SM_TEST_ANYWHERE && place >= step_count()) || nth == 0)
        return SM_E_INVALID;
    if (replica != 0 && switch_slot_of(test->sw, replica) < 0)
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
