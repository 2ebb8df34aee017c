/* SPDX-License-Identifier: BSD-2-Clause */
/* The test kit: another version of the middlebox takes over, or does not (arena/builds.h). */

#include "arena/builds.h"
#include "testing/test.h"

#define PATIENCE_NS 10000000000ull

/* Replicas of the build that replicas are started of now, or of the other one. */
static unsigned of_version(const struct sm_test *test, bool next, unsigned *slots)
{
    unsigned ready[ARENA_SLOTS], found = 0;
    const unsigned count = test_ready(test, ready);

    for (unsigned i = 0; i < count; i++)
        if ((test->members[ready[i]].version == test->version) == next)
            slots[found++] = ready[i];
    return found;
}

/* All that the replicas of one version have goes to those of the other: the old one's to the new one's, or back. */
static int move_over(struct sm_test *test, bool forward)
{
    unsigned slots[ARENA_SLOTS];
    const unsigned count = of_version(test, forward, slots);
    int result = switch_move_begin(test->sw, test->sw->now + PATIENCE_NS, false);

    if (result)
        return result;
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        unsigned owner = test->sw->shards[shard].owner;
        if (owner != SWITCH_NONE && (test->members[owner].version != test->version) == forward)
            switch_move_add(test->sw, shard, shard, slots[shard % count]);
    }
    test->sw->operation.settle = true;
    switch_move_go(test->sw);
    return 0;
}

struct opening {
    bool forward_only;
    int result;
    struct sm_errbuf *error;
};

static void open_builds(struct sm_test *test, void *arg)
{
    struct opening *opening = arg;

    opening->result = builds_open(test->arena, opening->forward_only, false, opening->error);
}

static void close_builds(struct sm_test *test, void *forward)
{
    builds_close(test->arena, *(bool *)forward);
}

/* Asked of the next switch again, by who has had no answer. */
static void close_upgrade(struct sm_test *test, bool forward)
{
    while (!test_as_switch(test, close_builds, &forward))
        ;
}

int sm_test_upgrade(struct sm_test *test, const struct sm_test_upgrade *upgrade, struct sm_errbuf *error)
{
    unsigned slots[ARENA_SLOTS];
    struct sm_errbuf ignored;
    int result = 0;

    if (!error)
        error = &ignored;
    if (upgrade->size != sizeof *upgrade || !upgrade->on_packet || test->options.threads)
        return SM_E_INVALID;
    if (test->upgrading || sm_test_moving(test))
        return SM_E_STATE;
    const unsigned count = test_ready(test, slots);
    if (2 * count > SM_TEST_REPLICAS)
        return SM_E_LIMIT;
    struct opening opening = {upgrade->forward_only, 0, error};
    while (!test_as_switch(test, open_builds, &opening))
        ; /* whoever asked asks the next switch again */
    if (opening.result)
        return opening.result;
    test->before = test->options;
    test->options.on_packet = upgrade->on_packet;
    test->options.setup = upgrade->setup;
    test->version++;
    test->upgrading = true;
    for (unsigned i = 0; result >= 0 && i < count; i++)
        result = test_add_replica(test, error);
    if (result >= 0)
        result = move_over(test, true);
    if (result < 0)
        sm_test_upgrade_back(test);
    return result;
}

int sm_test_upgrade_forward(struct sm_test *test)
{
    unsigned old[ARENA_SLOTS], new[ARENA_SLOTS];
    const unsigned count = of_version(test, false, old);

    if (!test->upgrading || sm_test_moving(test))
        return SM_E_STATE;
    if (of_version(test, true, new) == 0)
        return SM_E_NOT_FOUND;
    for (unsigned i = 0; i < count; i++)
        if (test->sw->slots[old[i]].shards > 0)
            return move_over(test, true) ? SM_E_STATE : SM_E_AGAIN;
    close_upgrade(test, true);
    test->upgrading = false;
    for (unsigned i = 0; i < count; i++)
        test->members[old[i]].leaving = test->members[old[i]].version != test->version;
    return 0;
}

int sm_test_upgrade_back(struct sm_test *test)
{
    unsigned slots[ARENA_SLOTS], ids[ARENA_SLOTS];

    if (!test->upgrading)
        return SM_E_STATE;
    const unsigned count = of_version(test, true, slots);
    if (builds_next(test->arena) && test->arena->way_back == WAY_BACK_BY_NEW) {
        unsigned old[ARENA_SLOTS];
        if (sm_test_moving(test))
            return SM_E_AGAIN;
        if (count == 0 || of_version(test, false, old) == 0)
            return SM_E_NOT_FOUND;
        for (unsigned i = 0; i < count; i++)
            if (test->sw->slots[slots[i]].shards > 0)
                return move_over(test, false) ? SM_E_STATE : SM_E_AGAIN;
    }
    for (unsigned i = 0; i < count; i++)
        ids[i] = test->sw->slots[slots[i]].id;
    test->options.on_packet = test->before.on_packet;
    test->options.setup = test->before.setup;
    test->version--;
    test->upgrading = false;
    for (unsigned i = 0; i < count; i++)
        sm_test_kill(test, ids[i]);
    close_upgrade(test, false);
    return 0;
}
