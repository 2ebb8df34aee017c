/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The test kit: the switch dies, and another one goes on with its arena (switch/resume.c).
 *
 * What is the switch's own doing runs as a *piece*, in which it may die at any of its places, as in a SIGKILL: nothing
 * of its memory is looked at any more but to free it. Its replicas run on for a while, and die anywhere, as they do
 * until the next switch has them killed. That one may die as well, while it takes over. Then as many replicas are
 * started as there were.
 */

#include "testing/test.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* One at a time in a process. */
static struct sm_test *piecing;
static jmp_buf death;

static void at_place(const struct step_place *const *place)
{
    if (piecing->census)
        piecing->census[place - step_first()]++;
    if (piecing->condemned != SM_TEST_SWITCH ||
        (piecing->place != SM_TEST_ANYWHERE && place != step_first() + piecing->place) || --piecing->visits_left > 0)
        return;
    piecing->condemned = 0;
    longjmp(death, 1);
}

bool test_as_switch(struct sm_test *test, void (*piece)(struct sm_test *test, void *arg), void *arg)
{
    if (test->options.threads || test->ending) {
        piece(test, arg);
        return true;
    }
    piecing = test;
    step_taken = test->census || test->condemned == SM_TEST_SWITCH ? at_place : NULL;
    const bool alive = setjmp(death) == 0;
    if (alive)
        piece(test, arg);
    step_taken = NULL;
    if (!alive)
        test_switch_died(test);
    return alive;
}

/* What it can have had in its hands: packets from the first one that had not left to the last one that it may have
 * read. */
static void note_hands(struct sm_test *test)
{
    const struct sm_switch *sw = test->sw;

    if (!test->resumed || test->hands_count == TEST_HANDS)
        return;
    uint64_t dropped = 0;
    for (unsigned i = 0; i < SWITCH_DROP_COUNT + sw->reason_count; i++)
        dropped += sw->dropped[i] - atomic_load(&test->arena->ledger.dropped[i]);
    test->hands[test->hands_count].first = sw->entered - sw->admitted + sw->window_next;
    test->hands[test->hands_count].dropped = dropped;
    test->hands[test->hands_count++].end = atomic_load(&test->arena->ledger.position);
}

bool test_anything_is_locked(const struct sm_test *test)
{
    for (uint32_t stripe = SM_SHARDS; stripe < SM_SHARDS + STATE_STRIPES; stripe++)
        if (state_lock_holder(test->arena->state, stripe) >= 0)
            return true;
    for (unsigned i = 0; i < test->arena->registration.shared_count; i++)
        if (atomic_load(&test->arena->strong[i].holder) != 0)
            return true;
    return false;
}

static void end_replicas(struct sm_test *test)
{
    unsigned ready[ARENA_SLOTS];
    const unsigned count = test_ready(test, ready);

    if (count > 0 || test->wanted == 0)
        test->wanted = count > 0 ? count : 1;
    for (unsigned i = 0; i < count; i++)
        for (uint64_t bursts = test_below(test, 3); bursts > 0 && !test_anything_is_locked(test); bursts--)
            if (!test_burst_to_death(test, ready[i]))
                break;
    for (unsigned slot = 0; slot < ARENA_SLOTS; slot++)
        if (test->members[slot].replica)
            test_free_member(test, slot);
}

struct resumption {
    struct switch_left left;
    struct sm_errbuf error;
};

static void resume(struct sm_test *test, void *arg)
{
    struct resumption *resumption = arg;

    if (switch_resume(test->sw, &resumption->left, &resumption->error) != 0)
        switch_fail(test->sw, "%s", resumption->error.text);
}

/* The new switch has everything of its own ready before the old one's memory goes. */
static bool replace_switch(struct sm_test *test, struct sm_errbuf *error)
{
    struct sm_switch *old = test->sw;

    if (test_make_switch(test, error) != 0) {
        test->sw = old;
        switch_fail(old, "%.200s", error->text);
        return false;
    }
    switch_snapshot_end(old);
    return switch_destroy(old, false, error) == 0;
}

void test_switch_died(struct sm_test *test)
{
    const bool reread = !test->options.cannot_wait;
    struct resumption resumption = {.left.counted = true};
    struct sm_errbuf ignored;

    test->switch_deaths++;
    note_hands(test);
    test_judge(test, false, false);
    end_replicas(test);
    test->resumed = false;
    if (!replace_switch(test, &resumption.error))
        return;
    const bool waiting = atomic_load(&test->arena->ledger.state) == SWITCH_WAITING;
    if (waiting) /* it was in its first turn, of which nobody has heard: nothing counts as read (main.c) */
        atomic_store(&test->arena->ledger.position, 0);
    resumption.left.skip = reread ? atomic_load(&test->arena->ledger.position) : 0;
    resumption.left.written = sm_trace_count(test->output);
    if (!test_as_switch(test, resume, &resumption))
        return; /* and another one has gone on */
    test->resumed = true;
    if (waiting)
        switch_start(test->sw);
    while (!test->sw->error[0] && sm_test_replicas(test) < test->wanted && test_add_replica(test, &ignored) >= 0)
        ;
}

void test_kill_switch_at_random(struct sm_test *test)
{
    if (test->condemned)
        return; /* an order waits */
    test->condemned = SM_TEST_SWITCH;
    test->place = SM_TEST_ANYWHERE;
    test->visits_left = 1 + test_below(test, TEST_STEPS_AT_RANDOM);
}
