/* SPDX-License-Identifier: BSD-2-Clause */
/* The test kit: splits, merges and moves, asked for and at random. */

#include "testing/test.h"

#include <stdlib.h>
#include <string.h>

#include "packet/packet.h"

#define PATIENCE_NS 10000000000ull

/* The slot of a replica that may take part in moves, or -1. */
static int slot_of(const struct sm_test *test, unsigned replica)
{
    int slot = switch_slot_of(test->sw, replica);

    return slot >= 0 && test->sw->slots[slot].state == SLOT_READY ? slot : -1;
}

bool sm_test_moving(const struct sm_test *test)
{
    for (unsigned i = 0; i < test->sw->slot_count; i++)
        if (test->members[i].leaving)
            return true;
    return test->sw->operation.active;
}

unsigned sm_test_replicas(const struct sm_test *test)
{
    unsigned slots[ARENA_SLOTS];

    return test_ready(test, slots);
}

unsigned sm_test_replica(const struct sm_test *test, unsigned index)
{
    unsigned slots[ARENA_SLOTS];

    return index < test_ready(test, slots) ? test->sw->slots[slots[index]].id : 0;
}

int sm_test_start_replica(struct sm_test *test)
{
    struct sm_errbuf ignored;

    if (sm_test_replicas(test) >= SM_TEST_REPLICAS)
        return SM_E_LIMIT;
    int slot = test_add_replica(test, &ignored);
    return slot < 0 ? slot : (int)test->sw->slots[slot].id;
}

/* Threads run meanwhile; nobody else does. */
static int begin(struct sm_test *test)
{
    int result = sm_test_moving(test) ? SM_E_STATE : switch_move_begin(test->sw, test->sw->now + PATIENCE_NS, false);
    struct sm_errbuf ignored;

    if (result == 0)
        switch_move_drain(test->sw, UINT64_MAX);
    return result == 0 && test->copying ? switch_move_copy(test->sw, &ignored) : result;
}

int sm_test_scale(struct sm_test *test, unsigned replicas)
{
    unsigned slots[ARENA_SLOTS], count;

    if (replicas == 0 || replicas > SM_TEST_REPLICAS)
        return SM_E_LIMIT;
    int result = begin(test);
    while (result == 0 && sm_test_replicas(test) < replicas)
        result = sm_test_start_replica(test) < 0 ? SM_E_NO_MEMORY : 0;
    if (result)
        return result;
    count = test_ready(test, slots);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        switch_move_add(test->sw, shard, shard, slots[shard * replicas / SM_SHARDS]);
    for (unsigned i = replicas; i < count; i++)
        test->members[slots[i]].leaving = true;
    switch_move_go(test->sw);
    return 0;
}

int sm_test_copying(struct sm_test *test, bool copying, struct sm_errbuf *error)
{
    struct sm_errbuf text;

    if (copying && switch_can_copy(test->sw, error ? error : &text) != 0)
        return SM_E_CONFLICT;
    test->copying = copying;
    return 0;
}

/* Every `nth` shard of a replica, to another. */
static int hand_over(struct sm_test *test, unsigned from, unsigned to, unsigned nth)
{
    int source = slot_of(test, from), destination = slot_of(test, to), result;
    unsigned met = 0;

    if (source < 0 || destination < 0)
        return SM_E_NOT_FOUND;
    if ((result = begin(test)) != 0)
        return result;
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        if (test->sw->shards[shard].owner == source && met++ % nth == 0)
            switch_move_add(test->sw, shard, shard, (unsigned)destination);
    switch_move_go(test->sw);
    return 0;
}

int sm_test_split(struct sm_test *test, unsigned from, unsigned to)
{
    return hand_over(test, from, to, 2);
}

int sm_test_merge(struct sm_test *test, unsigned from, unsigned to)
{
    return hand_over(test, from, to, 1);
}

int sm_test_move(struct sm_test *test, const struct sm_trace *trace, size_t index, unsigned to)
{
    const struct sm_trace_packet packet = sm_trace_at(trace, index);
    int destination = slot_of(test, to), result;
    struct sm_parser *parser;
    struct sm_parsed parsed;
    struct sm_key key;

    if (destination < 0)
        return SM_E_NOT_FOUND;
    if (sm_parser_create(&parser, 16) != 0)
        return SM_E_NO_MEMORY;
    sm_parse(parser, test->arena->linktype, packet.data, packet.caplen, packet.len, packet.time, &parsed);
    sm_parser_destroy(parser);
    sm_parsed_key(&parsed, packet.data, packet.caplen, test->arena->steering.granularity, &key);
    sm_key_narrow(&key, test->arena->steering.prefix4, test->arena->steering.prefix6);
    uint32_t shard = state_shard_of(state_hash(test->arena->state, &key));
    if ((result = begin(test)) != 0)
        return result;
    switch_move_add(test->sw, shard, shard, (unsigned)destination);
    switch_move_go(test->sw);
    return 0;
}

/* Those that a scaling left without shards. Where moves were abandoned they have some: they stay. */
void test_retire_leavers(struct sm_test *test)
{
    if (test->sw->operation.active)
        return;
    for (unsigned i = 0; i < test->sw->slot_count; i++)
        if (test->members[i].leaving && test->sw->slots[i].state == SLOT_READY)
            test->members[i].leaving = switch_slot_retire(test->sw, i) == 0;
}

void test_operate(struct sm_test *test)
{
    struct sm_switch *sw = test->sw;
    unsigned slots[ARENA_SLOTS];
    unsigned count = test_ready(test, slots);
    struct sm_errbuf ignored;

    if (count == 0)
        return;
    unsigned from = slots[test_below(test, count)], to = slots[test_below(test, count)];
    uint64_t kind = test_below(test, 8);

    if (kind == 0 && count < SM_TEST_REPLICAS) {
        int slot = test_add_replica(test, &ignored);
        if (slot >= 0)
            to = (unsigned)slot;
    } else if (kind == 1 && count > 1) {
        for (unsigned i = 0; i < count; i++)
            if (sw->slots[slots[i]].shards == 0 && switch_slot_retire(sw, slots[i]) == 0)
                return;
    }
    /* Sometimes so short a deadline that moves are abandoned in every state. */
    uint64_t patience = test_below(test, 4) == 0 ? test_below(test, 200000) : PATIENCE_NS;
    switch_move_begin(sw, sw->now + patience, false);
    if (sw->affinity && test_below(test, 2))
        switch_move_drain(sw, sw->now + test_below(test, 2) * patience);
    if (test->options.copies && test_below(test, 2) && switch_move_copy(sw, &ignored) != 0)
        switch_fail(sw, "%s", ignored.text);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        bool pick = kind <= 2   ? sw->shards[shard].owner == from && test_below(test, 2)
                    : kind <= 4 ? sw->shards[shard].owner == from
                                : test_below(test, 64) == 0;
        if (pick && sw->shards[shard].owner != SWITCH_NONE)
            switch_move_add(sw, shard, shard, kind <= 4 ? to : slots[test_below(test, count)]);
    }
    switch_move_go(sw);
}
