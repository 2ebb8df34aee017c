/* SPDX-License-Identifier: BSD-2-Clause */
/* The state machine as a dialogue: what happens, and what it asks for. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

static struct ops ops;
static placement_table owners;
static bool by_new; /* only new replicas bring flows back */

/* Actions until now, as text: "start3 look move retire2 kill2 reply". */
static const char *actions(void)
{
    static const char *const names[] = {"start", "select", "look", "move",  "retire",
                                        "kill",  "reply",  "open", "close", "back"};
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
    by_new = false;
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
    ops_owners(&ops, owners, by_new);
    DOES("move");
    moved(0);
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_OK);
    cr_expect_eq(ops.result.moved.flows, 7);
    cr_expect_eq(placement_count(owners, 3), 5461);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 1}), OPS_OK);
    DOES("look");
    ops_owners(&ops, owners, by_new);
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

/* The reply may have to wait until what is intended is kept; nobody else's operation may take its place meanwhile. */
Test(ops, whoever_asked_is_told_before_another_begins)
{
    service(1);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 1}), OPS_OK);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    cr_expect_not(ops_idle(&ops));
    cr_expect_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 2}), OPS_BUSY);
    DOES("reply");
    cr_expect(ops_idle(&ops));
    cr_expect_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 2}), OPS_OK);
}

Test(ops, split_merge_move_drain_rebalance)
{
    static bool set[PLACEMENT_SHARDS] = {true, true};
    service(2);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SPLIT, .replica = 2}), OPS_OK);
    DOES("start3");
    ops_ready(&ops, 3);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("move");
    moved(0);
    DOES("reply");
    cr_expect_eq(ops.result.into, 3);
    cr_expect_eq(placement_count(owners, 3), 4096);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_MOVE, .into = 3}), OPS_OK);
    DOES("select");
    ops_selected(&ops, set);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("move");
    moved(0);
    DOES("reply");
    cr_expect_eq(owners[1], 3);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_MERGE, .replica = 3, .into = 1}), OPS_OK);
    ops_owners(&ops, owners, by_new);
    DOES("look move");
    moved(0);
    DOES("retire3");
    ops_exited(&ops, 3, "exited with status 0");
    DOES("reply");
    cr_assert_eq(begin((struct ops_request){.verb = OPS_DRAIN, .replica = 1}), OPS_OK);
    ops_owners(&ops, owners, by_new);
    moved(0);
    DOES("look move reply");
    cr_expect_eq(placement_count(owners, 2), PLACEMENT_SHARDS);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_OK);
    ops_owners(&ops, owners, by_new);
    moved(0);
    DOES("look move reply");
    cr_assert_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_OK);
    ops_owners(&ops, owners, by_new);
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

Test(ops, a_scale_whose_replicas_have_all_died_is_given_up)
{
    service(2);
    begin((struct ops_request){.verb = OPS_SCALE, .count = 3});
    DOES("start3");
    ops_ready(&ops, 3);
    DOES("look");
    for (uint32_t id = 1; id <= 3; id++) /* threads of one process, for example */
        cr_expect(!ops_exited(&ops, id, "was killed by signal 9"));
    ops_owners(&ops, owners, by_new);
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_str_eq(ops.result.message, "no replica is left");
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
    ops_owners(&ops, owners, by_new);
    moved(3);
    DOES("look move reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_str_eq(ops.result.message, "3 of 8 moves were abandoned: the deadline");
    cr_expect_eq(ops_replica(&ops, 2)->state, OPS_REPLICA_READY);
}

Test(ops, who_is_drained_is_waited_for)
{
    service(3);
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 2, .strategy = SERVICE_DRAIN}), OPS_OK);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("move");
    cr_expect(ops_drains(&ops));
    apply();
    ops_moved(&ops, &(struct ops_moved){.completed = 5, .flows_left = 3});
    DOES("reply"); /* it stays, with its flows */
    cr_expect_eq(ops.result.code, OPS_TIMED_OUT);
    cr_expect_eq(ops.count, 3);
    /* Once more: nothing is left to move, but flows may be. */
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 2, .strategy = SERVICE_DRAIN}), OPS_OK);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("move");
    cr_expect_eq(ops.range_count, 0);
    ops_moved(&ops, &(struct ops_moved){0});
    DOES("retire3");
    cr_expect(ops_exited(&ops, 3, "exited with status 0"));
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_OK);
    /* Who starts is not waited for; and where flows stay for good nobody can go. */
    cr_assert_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 2, .strategy = SERVICE_NEW_FLOWS}), OPS_OK);
    cr_expect_not(ops_drains(&ops));
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("reply");
    cr_expect_eq(begin((struct ops_request){.verb = OPS_SCALE, .count = 1, .strategy = SERVICE_NEW_FLOWS}), OPS_FAILED);
    cr_expect_eq(begin((struct ops_request){.verb = OPS_MERGE, .replica = 1, .into = 2, .strategy = SERVICE_NEW_FLOWS}),
                 OPS_FAILED);
}

Test(ops, refusals_of_the_switch)
{
    service(2);
    begin((struct ops_request){.verb = OPS_MERGE, .replica = 2, .into = 1});
    ops_owners(&ops, owners, by_new);
    ops_refused(&ops, OPS_BUSY, "later");
    DOES("look move reply");
    cr_expect_eq(ops.result.code, OPS_BUSY);
    begin((struct ops_request){.verb = OPS_MERGE, .replica = 2, .into = 1});
    ops_owners(&ops, owners, by_new);
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
    ops_owners(&ops, owners, by_new);
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
    ops_owners(&ops, owners, by_new);
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

/* ---- upgrades ---- */

static const struct ops_request upgrade = {.verb = OPS_UPGRADE, .trial_ms = 700},
                                forward = {.verb = OPS_UPGRADE, .no_rollback = true, .trial_ms = 700};

/* Two replicas, r1 and r2, and two new ones that have everything. */
static void upgraded_up_to_trial(struct ops_request request)
{
    service(2);
    cr_assert_eq(begin(request), OPS_OK);
    DOES("open");
    ops_opened(&ops);
    DOES("start3 start4");
    ops_ready(&ops, 3);
    ops_ready(&ops, 4);
    ops_owners(&ops, owners, by_new);
    DOES("look move");
    moved(0);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    cr_expect_eq(placement_count(owners, 3) + placement_count(owners, 4), PLACEMENT_SHARDS);
}

static void both_die(uint32_t a, uint32_t b)
{
    ops_exited(&ops, a, "exited with status 1");
    ops_exited(&ops, b, "exited with status 1");
}

Test(ops, an_upgrade_is_on_trial_before_the_old_version_goes)
{
    upgraded_up_to_trial(upgrade);
    DOES("");
    cr_expect_str_eq(ops_stage_name(&ops), "trial");
    cr_expect_eq(ops_patience(&ops), 700);
    cr_expect_eq(begin((struct ops_request){.verb = OPS_REBALANCE}), OPS_BUSY);
    cr_expect(!ops_exited(&ops, 1, "was killed by signal 9"), "an old one has nothing that the trial needs");
    DOES("");
    ops_timed_out(&ops);
    DOES("close");
    cr_expect(!ops_exited(&ops, 4, "was killed by signal 9"), "now it dies as any replica may");
    ops_closed(&ops);
    DOES("retire2");
    ops_exited(&ops, 2, "exited with status 0");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_OK);
    cr_expect_eq(ops.result.moved.completed, 5);
    cr_expect_eq(ops.request.count, 2, "as many as there were are wanted");
    cr_expect_null(ops_stage_name(&ops));
}

Test(ops, an_upgrade_without_trial_closes_at_once)
{
    struct ops_request request = upgrade;
    request.trial_ms = 0;
    upgraded_up_to_trial(request);
    DOES("close");
    ops_refused(&ops, OPS_FAILED, "shard 7 is still with replica r1 of the old version");
    DOES("back kill3 kill4");
    both_die(3, 4);
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    upgraded_up_to_trial(forward);
    DOES("close");
}

Test(ops, what_fails_on_trial_is_taken_back)
{
    upgraded_up_to_trial(upgrade);
    cr_expect(ops_exited(&ops, 4, "was killed by signal 11"));
    DOES("back kill3");
    ops_exited(&ops, 3, "was killed by signal 9");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_str_eq(ops.result.message,
                     "the new version failed: replica r4 was killed by signal 11; the old one goes on");
    cr_expect_eq(ops.count, 2);
    cr_assert_eq(begin(upgrade), OPS_OK, "and may be asked for again");
}

Test(ops, what_fails_before_is_taken_back)
{
    service(1);
    begin(upgrade);
    ops_opened(&ops);
    DOES("open start2");
    cr_expect(ops_exited(&ops, 2, "exited with status 1"));
    DOES("back reply");
    begin(upgrade);
    ops_opened(&ops);
    DOES("open start3");
    cr_expect_eq(ops_patience(&ops), OPS_START_MS);
    ops_timed_out(&ops);
    DOES("back kill3");
    ops_exited(&ops, 3, "was killed by signal 9");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_TIMED_OUT);
    begin(forward);
    ops_opened(&ops);
    ops_exited(&ops, 4, "exited with status 1");
    DOES("open start4 back reply");
    cr_expect_eq(ops.result.code, OPS_FAILED, "nothing has moved: there is a way back");
    begin(upgrade);
    ops_opened(&ops);
    ops_ready(&ops, 5);
    ops_owners(&ops, owners, by_new);
    DOES("open start5 look move");
    ops_exited(&ops, 5, "exited with status 1");
    DOES("");
    moved(4);
    DOES("back reply");
    cr_expect_str_eq(ops.result.message,
                     "the new version failed: replica r5 exited with status 1; the old one goes on");
    begin(upgrade);
    ops_opened(&ops);
    ops_ready(&ops, 6);
    ops_owners(&ops, owners, by_new);
    moved(4);
    DOES("open start6 look move back kill6");
    ops_exited(&ops, 6, "was killed by signal 9");
    cr_expect_str_eq(ops.result.message, "the new version failed: the deadline; the old one goes on");
}

/* Two replicas, r1 and r2, whose shards are to move to two new ones. */
static void upgrading_two(struct ops_request request)
{
    service(2);
    begin(request);
    ops_opened(&ops);
    ops_ready(&ops, 3);
    ops_ready(&ops, 4);
    ops_owners(&ops, owners, by_new);
}

/* Those that have died had what they were given taken over already. */
Test(ops, what_dies_behind_its_moves_is_taken_back)
{
    upgrading_two(upgrade);
    ops_exited(&ops, 4, "was killed by signal 9");
    DOES("open start3 start4 look move");
    moved(0);
    DOES("back kill3");
}

/* Whatever the new version does, it is tried so often, ever more slowly, and then both stay. */
Test(ops, without_a_way_back_it_is_tried_again)
{
    unsigned before = 0;
    uint32_t id = 5;
    upgraded_up_to_trial(forward);
    ops_refused(&ops, OPS_BUSY, "not now");
    DOES("close");
    for (unsigned try = 1; try < OPS_UPGRADE_TRIES; try++, id += 2) {
        cr_expect_str_eq(ops_stage_name(&ops), "waiting", "try %u", try);
        cr_expect_gt(ops_patience(&ops), before);
        before = ops_patience(&ops);
        if (try == 1)
            both_die(3, 4);
        DOES("");
        ops_timed_out(&ops);
        cr_expect_eq(ops.stage, OPS_STARTING, "as many as there were are started");
        cr_expect_eq(ops.last_id, id + 1);
        actions();
        if (try == 3) { /* or they do not start in time */
            ops_timed_out(&ops);
            DOES("kill9 kill10");
        }
        both_die(id, id + 1);
    }
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_not_null(strstr(ops.result.message, "both versions go on"), "%s", ops.result.message);
    cr_expect_eq(ops.count, 2);
}

Test(ops, without_a_way_back_survivors_go_on)
{
    upgrading_two(forward);
    DOES("open start3 start4 look move");
    ops_exited(&ops, 4, "was killed by signal 9");
    DOES("");
    moved(2);
    DOES("");
    ops_timed_out(&ops);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("move");
    moved(0);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("close");
    ops_closed(&ops);
    cr_expect_eq(placement_count(owners, 3), PLACEMENT_SHARDS);
}

/* Where the old version cannot read what the new one writes, and the new one can bring it back. */
Test(ops, what_the_new_version_brings_back)
{
    upgraded_up_to_trial(upgrade);
    by_new = true;
    ops_timed_out(&ops);
    DOES("close");
    upgraded_up_to_trial(upgrade);
    ops.by_new = true;
    ops_exited(&ops, 4, "was killed by signal 11");
    DOES("look");
    by_new = true;
    ops_owners(&ops, owners, by_new);
    DOES("move");
    moved(3); /* what has not come back is moved once more, after a while */
    DOES("");
    cr_expect_eq(ops_patience(&ops), OPS_UPGRADE_WAIT_MS);
    ops_timed_out(&ops);
    DOES("look");
    ops_owners(&ops, owners, by_new);
    DOES("move");
    moved(0);
    DOES("look");
    cr_expect_eq(placement_count(owners, 1) + placement_count(owners, 2),
                 PLACEMENT_SHARDS - placement_count(owners, 4));
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++)
        owners[shard] = owners[shard] == 4 ? 1 : owners[shard];
    ops_owners(&ops, owners, by_new);
    DOES("back kill3");
    ops_exited(&ops, 3, "was killed by signal 9");
    DOES("reply");
    cr_expect_eq(ops.result.code, OPS_FAILED);
    cr_expect_str_eq(ops.result.message,
                     "the new version failed: replica r4 was killed by signal 11; the old one goes on");
    cr_expect_eq(ops.count, 2);
}

Test(ops, nobody_is_left_to_bring_back)
{
    upgraded_up_to_trial(upgrade);
    ops.by_new = true;
    ops_exited(&ops, 3, "was killed by signal 11");
    DOES("look");
    ops_exited(&ops, 4, "was killed by signal 11");
    DOES("");
    for (uint32_t id = 5; id < 4 + OPS_UPGRADE_TRIES; id++) {
        ops_timed_out(&ops);
        cr_expect_eq(ops.stage, OPS_STARTING);
        cr_expect_eq(ops.last_id, id, "one is enough");
        actions();
        if (id == 6)
            ops_timed_out(&ops); /* it is killed, then */
        ops_exited(&ops, id, "exited with status 1");
    }
    cr_expect_eq(ops.stage, OPS_IDLE);
    cr_expect_not_null(strstr(ops.result.message, "both versions go on"), "%s", ops.result.message);
    upgraded_up_to_trial(upgrade);
    ops.by_new = true;
    ops_exited(&ops, 1, "was killed by signal 9");
    ops_exited(&ops, 2, "was killed by signal 9");
    ops_exited(&ops, 3, "was killed by signal 9");
    by_new = true;
    ops_owners(&ops, owners, by_new);
    DOES("look reply");
    cr_expect_not_null(strstr(ops.result.message, "no old replica is left"), "%s", ops.result.message);
    cr_expect_eq(ops.count, 1, "the new one that has all goes on");
}
