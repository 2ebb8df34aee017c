/* SPDX-License-Identifier: BSD-2-Clause */
/* The state machine as a dialogue: what happens, and what it asks for. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

static struct ops ops;
static placement_table owners;

/* Actions until now, as text: "start3 look move retire2 kill2 reply". */
static const char *actions(void)
{
    static const char *const names[] = {"start", "select", "look", "move", "retire", "kill", "reply"};
    static char text[512];
    struct ops_action action;
    size_t at = 0;
    text[0] = '\0';
    while (ops_next(&ops, &action)) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? " " : "", names[action.kind]);
        if (action.id)
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%u", action.id);
    }
    return text;
}

#define DOES(expected) cr_expect_str_eq(actions(), expected)

static void service(unsigned replicas)
{
    uint32_t ids[OPS_MAX_REPLICAS];
    ops_init(&ops, 1, 4);
    for (unsigned i = 0; i < replicas; i++)
        ops_ready(&ops, ops_add(&ops));
    placement_even(owners, ids, ops_ready_ids(&ops, ids));
}

static enum ops_code begin(struct ops_request request)
{
    struct ops_result refusal;
    return ops_begin(&ops, &request, &refusal);
}

static void apply(void)
{
    for (size_t i = 0; i < ops.range_count; i++)
        for (uint32_t shard = ops.ranges[i].first; shard <= ops.ranges[i].last; shard++)
            owners[shard] = ops.ranges[i].to;
}

static void moved(unsigned abandoned)
{
    struct ops_moved result = {.completed = 5, .abandoned = abandoned, .flows = 7, .cause = "the deadline"};
    if (!abandoned)
        apply();
    ops_moved(&ops, &result);
}

Test(ops, scale_up_and_down)
{
    service(1);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 3}), OPS_OK);
    DOES("start2 start3");
    ops_ready(&ops, 3);
    DOES("");
    ops_ready(&ops, 2);
    DOES("look");
    ops_owners(&ops, owners);
    DOES("move");
    moved(0);
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_OK);
    cr_expect_eq(ops.result.moved.flows, 7);
    cr_expect_eq(placement_count(owners, 3), 5461);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 1}), OPS_OK);
    DOES("look");
    ops_owners(&ops, owners);
    DOES("move");
    moved(0);
    DOES("retire2 retire3");
    cr_expect(ops_exited(&ops, 3, "exited with status 0"));
    DOES("");
    cr_expect(ops_exited(&ops, 2, "exited with status 0"));
    DOES("reply");
    cr_expect_eq(placement_count(owners, 1), PLACEMENT_SHARDS);
    /* Names are never given again. */
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SPLIT, .replica = 1}), OPS_OK);
    DOES("start4");
}

Test(ops, split_merge_move_drain_rebalance)
{
    static bool set[PLACEMENT_SHARDS] = {true, true};
    service(2);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SPLIT, .replica = 2}), OPS_OK);
    DOES("start3");
    ops_ready(&ops, 3);
    DOES("look");
    ops_owners(&ops, owners);
    DOES("move");
    moved(0);
    DOES("reply");
    cr_expect_eq(ops.result.into, 3);
    cr_expect_eq(placement_count(owners, 3), 4096);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_MOVE, .into = 3}), OPS_OK);
    DOES("select");
    ops_selected(&ops, set);
    DOES("look");
    ops_owners(&ops, owners);
    DOES("move");
    moved(0);
    DOES("reply");
    cr_expect_eq(owners[1], 3);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_MERGE, .replica = 3, .into = 1}), OPS_OK);
    ops_owners(&ops, owners);
    DOES("look move");
    moved(0);
    DOES("retire3");
    ops_exited(&ops, 3, "exited with status 0");
    DOES("reply");
    cr_assert_eq(begin((struct ops_request){.verb = OPS_DRAIN, .replica = 1}), OPS_OK);
    ops_owners(&ops, owners);
    moved(0);
    DOES("look move reply");
    cr_expect_eq(placement_count(owners, 2), PLACEMENT_SHARDS);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_OK);
    ops_owners(&ops, owners);
    moved(0);
    DOES("look move reply");
    cr_assert_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_OK);
    ops_owners(&ops, owners);
    DOES("look reply");
}

Test(ops, one_at_a_time_and_only_what_makes_sense)
{
    static const struct {
        struct ops_request request;
        enum ops_code code;
    } rows[] = {
        {{.verb = OPS_SCALE, .count = 0}, OPS_USAGE},
        {{.verb = OPS_SCALE, .count = 5}, OPS_USAGE},
        {{.verb = OPS_SPLIT, .replica = 9}, OPS_NOT_FOUND},
        {{.verb = OPS_SPLIT, .replica = 1, .into = 9}, OPS_NOT_FOUND},
        {{.verb = OPS_SPLIT, .replica = 1, .into = 1}, OPS_USAGE},
        {{.verb = OPS_MERGE, .replica = 1}, OPS_USAGE},
        {{.verb = OPS_MERGE, .replica = 1, .into = 1}, OPS_USAGE},
        {{.verb = OPS_MOVE}, OPS_USAGE},
        {{.verb = OPS_MOVE, .into = 9}, OPS_NOT_FOUND},
        {{.verb = OPS_DRAIN, .replica = 1}, OPS_FAILED},
    };
    service(1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        cr_expect_eq(begin(rows[i].request), rows[i].code, "row %zu", i);
        DOES("");
    }
    cr_assert_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_OK);
    cr_expect_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_BUSY);
    service(4);
    cr_expect_eq(begin((struct ops_request){.verb = OPS_SPLIT, .replica = 1}), OPS_FAILED, "the most there may be");
}

Test(ops, a_replica_that_does_not_start_undoes_the_scale)
{
    service(1);
    begin((struct ops_request){.verb = OPS_SCALE, .count = 4});
    DOES("start2 start3 start4");
    ops_ready(&ops, 2);
    cr_expect(ops_exited(&ops, 3, "exited with status 1"));
    DOES("retire2 kill4");
    ops_exited(&ops, 4, "was killed by signal 9");
    DOES("");
    ops_exited(&ops, 2, "exited with status 0");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_str_eq(ops.result.message, "replica r3 exited with status 1 before it was ready");
    cr_expect_eq(ops.count, 1);
    begin((struct ops_request){.verb = OPS_SPLIT, .replica = 1});
    cr_expect_eq(ops_patience(&ops), OPS_START_MS);
    ops_timed_out(&ops);
    DOES("start5 kill5");
    ops_exited(&ops, 5, "was killed by signal 9");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_TIMED_OUT);
}

Test(ops, abandoned_moves_retire_nobody)
{
    service(2);
    begin((struct ops_request){.verb = OPS_MERGE, .replica = 2, .into = 1});
    ops_owners(&ops, owners);
    moved(3);
    DOES("look move reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_str_eq(ops.result.message, "3 of 8 moves were abandoned: the deadline");
    cr_expect_eq(ops_replica(&ops, 2)->state, OPS_REPLICA_READY);
}

Test(ops, refusals_of_the_switch)
{
    service(2);
    begin((struct ops_request){.verb = OPS_MERGE, .replica = 2, .into = 1});
    ops_owners(&ops, owners);
    ops_refused(&ops, OPS_BUSY, "later");
    DOES("look move reply");
    cr_expect_eq(ops.result.code, OPS_BUSY);
    begin((struct ops_request){.verb = OPS_MERGE, .replica = 2, .into = 1});
    ops_owners(&ops, owners);
    moved(0);
    DOES("look move retire2");
    ops_stays(&ops, 2, "it owns shards");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_eq(ops_replica(&ops, 2)->state, OPS_REPLICA_READY);
}

Test(ops, deaths)
{
    service(3);
    cr_expect(!ops_exited(&ops, 3, "was killed by signal 9"), "out of the blue");
    DOES("");
    begin((struct ops_request){.verb = OPS_MERGE, .replica = 2, .into = 1});
    DOES("look");
    cr_expect(!ops_exited(&ops, 2, "was killed by signal 9"));
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    service(2);
    begin((struct ops_request){.verb = OPS_SCALE, .count = 1});
    ops_owners(&ops, owners);
    moved(0);
    DOES("look move retire2");
    cr_expect_eq(ops_patience(&ops), OPS_RETIRE_MS);
    ops_timed_out(&ops);
    DOES("kill2");
    cr_expect(ops_exited(&ops, 2, "was killed by signal 9"));
    DOES("reply");
}

Test(ops, events_out_of_turn_do_nothing)
{
    service(2);
    ops_owners(&ops, owners);
    ops_moved(&ops, &(struct ops_moved){.completed = 1});
    ops_refused(&ops, OPS_FAILED, "x");
    ops_ready(&ops, 1);
    ops_ready(&ops, 99);
    ops_timed_out(&ops);
    ops_stays(&ops, 1, "x");
    cr_expect(ops_exited(&ops, 99, "x"));
    DOES("");
    cr_expect_eq(ops.stage, OPS_IDLE);
}
