/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The orchestrator dies at every step of every operation, and another one goes on: with what was kept, and with what
 * the switch has. Afterwards every shard has one owner that is there, nobody is left half started or half retired, and
 * the operation is done, or has failed for a reason.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

#define REPLICAS 3u /* r1 to r3, at the start */

/* What the dying orchestrator's last action came to. */
enum fate { NOT_DONE, DONE, HALF_DONE, MOVES_GO_ON, FATES };

/* The switch and the processes. */
static struct world {
    placement_table owners;
    struct ops_present there[OPS_MAX_REPLICAS];
    unsigned count;
    struct placement_range moving[PLACEMENT_SHARDS]; /* the switch carries these out */
    size_t moving_count;
    bool by_new;   /* and brings back when it is moved */
    bool one_way;  /* what the new version has written only it can read */
    bool upgraded; /* the new version is the service's */
    bool open;     /* the new version may register */
    bool new[64];  /* replicas, by id */
} world;

static const struct ops_request requests[] = {
    {.verb = OPS_SCALE, .count = 5},
    {.verb = OPS_SCALE, .count = 1},
    {.verb = OPS_SPLIT, .replica = 2},
    {.verb = OPS_SPLIT, .replica = 2, .into = 1},
    {.verb = OPS_MERGE, .replica = 3, .into = 1},
    {.verb = OPS_MOVE, .into = 2},
    {.verb = OPS_DRAIN, .replica = 1},
    {.verb = OPS_REBALANCE},
    {.verb = OPS_UPGRADE, .trial_ms = 100},
    {.verb = OPS_UPGRADE, .no_rollback = true},
};

static struct ops_present *in_world(uint32_t id)
{
    for (unsigned i = 0; i < world.count; i++)
        if (world.there[i].id == id)
            return &world.there[i];
    return NULL;
}

/* Who can take over from it: replicas of the service's version, or else of the other one. */
static unsigned heirs_of(uint32_t id, uint32_t heirs[OPS_MAX_REPLICAS])
{
    unsigned count = 0;
    for (unsigned other = 0; other < 2 && count == 0; other++)
        for (unsigned i = 0; i < world.count; i++) {
            bool new = world.new[world.there[i].id];
            if ((new != world.upgraded) == other && (new || !world.new[id] || !world.one_way))
                heirs[count++] = world.there[i].id;
        }
    return count;
}

/* Its shards go to whoever is there and can read them. */
static void leaves_world(uint32_t id)
{
    struct ops_present *gone = in_world(id);
    uint32_t heirs[OPS_MAX_REPLICAS];
    if (!gone)
        return;
    *gone = world.there[--world.count];
    unsigned count = heirs_of(id, heirs);
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++)
        if (world.owners[shard] == id)
            world.owners[shard] = count ? heirs[shard % count] : 0;
}

static void carry_out(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        for (uint32_t shard = world.moving[i].first; shard <= world.moving[i].last && in_world(world.moving[i].to);
             shard++)
            world.owners[shard] = world.moving[i].to;
}

static void tell_moved(struct ops *ops)
{
    carry_out(0, world.moving_count);
    world.moving_count = 0;
    ops_moved(ops, &(struct ops_moved){.completed = 1});
}

static void move(const struct ops *ops)
{
    memcpy(world.moving, ops->ranges, sizeof world.moving);
    world.moving_count = ops->range_count;
}

/* Do what is asked for, and say so to `ops`. */
static void perform(struct ops *ops, const struct ops_action *action)
{
    static bool set[PLACEMENT_SHARDS] = {[100] = true, [9000] = true};
    switch (action->kind) {
    case OPS_DO_START:
        world.there[world.count++] = (struct ops_present){action->id, OPS_REPLICA_READY};
        world.new[action->id] = ops->request.verb == OPS_UPGRADE || world.upgraded;
        for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++) /* whoever comes where there is nobody */
            world.owners[shard] = world.owners[shard] ? world.owners[shard] : action->id;
        ops_ready(ops, action->id);
        break;
    case OPS_DO_SELECT:
        ops_selected(ops, set);
        break;
    case OPS_DO_LOOK:
        ops_owners(ops, world.owners, world.by_new);
        break;
    case OPS_DO_OPEN:
        world.open = true;
        ops_opened(ops);
        break;
    case OPS_DO_CLOSE:
        for (uint32_t shard = 0; shard < PLACEMENT_SHARDS && !world.upgraded; shard++)
            if (world.owners[shard] && !world.new[world.owners[shard]]) {
                ops_refused(ops, OPS_FAILED, "a shard is still with the old version");
                return;
            }
        world.upgraded = true;
        world.open = false;
        ops_closed(ops);
        break;
    case OPS_DO_BACK:
        world.open = false;
        break;
    case OPS_DO_MOVE:
        move(ops);
        tell_moved(ops);
        break;
    case OPS_DO_RETIRE:
        for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++)
            if (world.owners[shard] == action->id) {
                ops_stays(ops, action->id, "it owns shards");
                return;
            }
        leaves_world(action->id);
        ops_exited(ops, action->id, "exited with status 0");
        break;
    case OPS_DO_KILL:
        leaves_world(action->id);
        ops_exited(ops, action->id, "was killed by signal 9");
        break;
    case OPS_DO_REPLY:
        break;
    }
}

/* The same, of an orchestrator that hears nothing of it any more. */
static void perform_unheard(const struct ops *ops, const struct ops_action *action, enum fate fate)
{
    static struct ops deaf;
    deaf = *ops;
    if (action->kind == OPS_DO_MOVE) {
        move(ops);
        carry_out(0, fate == DONE ? world.moving_count : world.moving_count / 2);
        world.moving_count = fate == MOVES_GO_ON ? world.moving_count : 0;
    } else {
        perform(&deaf, action);
    }
    if (fate == HALF_DONE && action->kind == OPS_DO_START)
        in_world(action->id)->state = OPS_REPLICA_STARTING;
}

static void begin(struct ops *ops, const struct ops_request *request)
{
    struct ops_result refusal;
    ops_init(ops, 1, 6);
    world.count = 0;
    world.one_way = request->no_rollback;
    world.by_new = false;
    world.upgraded = world.open = false;
    memset(world.new, 0, sizeof world.new);
    uint32_t ids[OPS_MAX_REPLICAS];
    for (unsigned i = 0; i < REPLICAS; i++) {
        world.there[world.count++] = (struct ops_present){ops_add(ops), OPS_REPLICA_READY};
        ops_ready(ops, i + 1);
    }
    placement_even(world.owners, ids, ops_ready_ids(ops, ids));
    cr_assert_eq(ops_begin(ops, request, &refusal), OPS_OK, "%s", refusal.message);
}

/* What the switch keeps of it. */
static void keep(struct ops *kept, const struct ops *ops)
{
    ops_init(kept, ops->min, ops->max);
    memcpy(kept->replicas, ops->replicas, sizeof kept->replicas);
    kept->count = ops->count;
    kept->last_id = ops->last_id;
    kept->stage = ops->stage;
    kept->request = ops->request;
    kept->result = ops->result;
    kept->began = ops->began;
    kept->by_new = ops->by_new;
    kept->returning = ops->returning;
    kept->tries = ops->tries;
    if (ops->stage == OPS_MOVING) {
        memcpy(kept->ranges, ops->ranges, sizeof kept->ranges);
        kept->range_count = ops->range_count;
    }
}

/* Time passes when nothing else happens. */
static bool next_action(struct ops *ops, struct ops_action *action)
{
    if (ops->queue_head == ops->queue_tail && (ops->stage == OPS_TRIAL || ops->stage == OPS_WAITING))
        ops_timed_out(ops);
    return ops_next(ops, action);
}

static void finish(struct ops *ops)
{
    struct ops_action action;
    if (world.moving_count)
        tell_moved(ops);
    for (unsigned i = 0; i < world.count; i++) { /* those that were starting */
        world.there[i].state = OPS_REPLICA_READY;
        ops_ready(ops, world.there[i].id);
    }
    while (next_action(ops, &action))
        perform(ops, &action);
}

/* As many replicas as the service had before, or is to have now; with one of its own dead, that one less. */
static unsigned wanted(const struct ops *ops, const struct ops_request *request)
{
    bool done = ops->result.code == OPS_OK;
    if (request->verb == OPS_SCALE)
        return request->count;
    return REPLICAS + (done && request->verb == OPS_SPLIT && !request->into) - (done && request->verb == OPS_MERGE);
}

/* How many shards r2 has after the operation when nobody dies: half of its own is given away, or some more come, once.
 */
static unsigned shards_of_r2(unsigned row)
{
    static struct ops ops;
    begin(&ops, &requests[row]);
    finish(&ops);
    return placement_count(world.owners, 2);
}

static void judge(struct ops *ops, int missing, unsigned row, unsigned step)
{
    struct ops_result refusal;
    cr_assert_eq(ops->stage, OPS_IDLE, "row %u, step %u: stage %d", row, step, ops->stage);
    if (missing != 0) { /* as the orchestrator makes up for it */
        int count = (int)ops->count + missing;
        cr_assert_eq(ops_begin(ops, &(struct ops_request){.verb = OPS_SCALE, .count = (uint32_t)count}, &refusal),
                     OPS_OK);
        finish(ops);
    }
    cr_expect_eq(ops->count, world.count, "row %u, step %u: %u known, %u there", row, step, ops->count, world.count);
    for (unsigned i = 0; i < ops->count; i++) {
        cr_expect_eq(ops->replicas[i].state, OPS_REPLICA_READY, "row %u, step %u", row, step);
        cr_expect(in_world(ops->replicas[i].id), "row %u, step %u: r%u", row, step, ops->replicas[i].id);
        cr_expect_leq(ops->replicas[i].id, ops->last_id);
    }
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++)
        cr_assert(in_world(world.owners[shard]), "row %u, step %u: shard %u is r%u's", row, step, shard,
                  world.owners[shard]);
    cr_expect(!world.open, "row %u, step %u: other versions may still come", row, step);
    for (unsigned i = 0; i < world.count; i++)
        cr_expect_eq(world.new[world.there[i].id], world.upgraded, "row %u, step %u: r%u is of the other version", row,
                     step, world.there[i].id);
}

/* Crash at `step`, with that fate; then `victim` dies too (0: nobody). False: the operation has fewer steps. */
static bool crash(unsigned row, unsigned step, enum fate fate, uint32_t victim)
{
    static struct ops ops, next;
    struct ops_action action;
    unsigned at = 0;
    unsigned expected = shards_of_r2(row);
    begin(&ops, &requests[row]);
    for (; next_action(&ops, &action); at++) {
        keep(&next, &ops); /* before the action: it follows from it */
        if (at == step)
            break;
        perform(&ops, &action);
    }
    if (at < step)
        return false;
    if (fate != NOT_DONE)
        perform_unheard(&ops, &action, fate);
    leaves_world(victim);
    enum ops_stage stage = next.stage;
    bool began = stage != OPS_OPENING && stage != OPS_STARTING;
    int missing = ops_resume(&next, world.there, world.count, world.moving_count > 0);
    finish(&next);
    unsigned total = (unsigned)((int)next.count + missing);
    if (next.request.verb == OPS_UPGRADE) {
        missing = next.result.code == OPS_OK ? (int)next.request.count - (int)next.count : missing;
        cr_expect_eq(next.result.code == OPS_OK, world.upgraded, "row %u, step %u: %s", row, step, next.result.message);
        bool failed = victim > REPLICAS && !world.one_way && (stage == OPS_LOOKING || stage == OPS_MOVING);
        cr_expect(!failed || next.result.code != OPS_OK, "row %u, step %u: a new one died", row, step);
        cr_expect(began || next.result.code != OPS_OK, "row %u, step %u", row, step);
        cr_expect(!began || victim || next.result.code == OPS_OK, "row %u, step %u, fate %d: %s", row, step, fate,
                  next.result.message);
    } else if (!victim) {
        cr_expect_eq(next.result.code, OPS_OK, "row %u, step %u, fate %d: %s", row, step, fate, next.result.message);
        cr_expect_eq(total, wanted(&next, &requests[row]), "row %u, step %u, fate %d: %u replicas, missing %d", row,
                     step, fate, next.count, missing);
        cr_expect_eq(placement_count(world.owners, 2), expected, "row %u, step %u, fate %d: %u shards are r2's", row,
                     step, fate, placement_count(world.owners, 2));
    }
    judge(&next, missing, row, step);
    world.moving_count = 0;
    return true;
}

Test(resume, at_every_step)
{
    unsigned crashes = 0;
    for (unsigned row = 0; row < sizeof requests / sizeof *requests; row++)
        for (enum fate fate = NOT_DONE; fate < FATES; fate++)
            for (uint32_t victim = 0; victim <= REPLICAS + 1; victim++)
                for (unsigned step = 0; crash(row, step, fate, victim); step++)
                    crashes++;
    printf("%u crashes\n", crashes);
    cr_expect_gt(crashes, 100);
}

/* A replica that the dead orchestrator started comes after all. */
Test(resume, latecomers_are_too_many)
{
    static struct ops ops, next;
    struct ops_action action;
    begin(&ops, &requests[0]);
    cr_assert(ops_next(&ops, &action));
    keep(&next, &ops);
    cr_expect_eq(ops_resume(&next, world.there, world.count, false), 0);
    cr_assert(ops_next(&next, &action));
    cr_expect_gt(action.id, 5, "names are never used again");
    perform(&next, &action);
    finish(&next);
    ops_take_in(&next, 4);
    cr_expect_eq(next.count, 6);
    cr_expect_eq(next.replicas[3].id, 4);
}

/* The upgrade, and all of its new replicas have died meanwhile. */
Test(resume, an_upgrade_that_is_taken_back)
{
    static struct ops ops, next, again;
    struct ops_action action;
    begin(&ops, &(struct ops_request){.verb = OPS_UPGRADE, .trial_ms = 100});
    while (next_action(&ops, &action) && action.kind != OPS_DO_LOOK)
        perform(&ops, &action);
    keep(&next, &ops);
    for (uint32_t id = REPLICAS + 1; id <= 2 * REPLICAS; id++)
        leaves_world(id);
    cr_expect_eq(ops_resume(&next, world.there, world.count, false), 0);
    cr_assert(ops_next(&next, &action));
    cr_expect_eq(action.kind, OPS_DO_BACK);
    cr_expect_str_eq(next.result.message, "the new version failed: replica r4 is gone; the old one goes on");
    /* And once more, before that has been done. */
    keep(&again, &next);
    again.stage = OPS_RETIRING;
    ops_resume(&again, world.there, world.count, false);
    finish(&again);
    cr_expect(!world.open);
    cr_expect_eq(again.stage, OPS_IDLE);
}

/* One of the new replicas has died, and another orchestrator has the others give back what they have, at every step. */
Test(resume, an_upgrade_that_is_brought_back)
{
    static struct ops ops, next;
    struct ops_action action;
    for (unsigned step = 0, steps = 1; step < steps; step++)
        for (enum fate fate = NOT_DONE; fate < FATES; fate++)
            for (unsigned dead = 1; dead <= REPLICAS; dead++) {
                unsigned at = 0;
                begin(&ops, &(struct ops_request){.verb = OPS_UPGRADE, .trial_ms = 100});
                world.by_new = world.one_way = true;
                while (ops.stage != OPS_TRIAL && ops_next(&ops, &action))
                    perform(&ops, &action);
                for (uint32_t id = REPLICAS + 1; id <= REPLICAS + dead; id++) {
                    leaves_world(id);
                    ops_exited(&ops, id, "was killed by signal 9");
                }
                for (; next_action(&ops, &action); at++) {
                    keep(&next, &ops);
                    if (at == step)
                        break;
                    perform(&ops, &action);
                }
                if (at < step)
                    continue;
                steps = step + 2;
                if (fate != NOT_DONE)
                    perform_unheard(&ops, &action, fate);
                int missing = ops_resume(&next, world.there, world.count, world.moving_count > 0);
                finish(&next);
                cr_expect_eq(next.result.code, OPS_FAILED);
                cr_expect_not_null(strstr(next.result.message, "the old one goes on"), "%s", next.result.message);
                judge(&next, missing, dead, step);
                world.moving_count = 0;
            }
}
