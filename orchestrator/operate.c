/* SPDX-License-Identifier: BSD-2-Clause */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator.h"

#define MOVE_DEADLINE_MS 10000
#define MEASURE_MS 1000 /* of the load, for rebalance */
#define ANSWER_MS 30000 /* the switch answers within this, or something is wrong with it */

/* ---- selecting ---- */

struct selection {
    struct orchestrator *o;
    bool set[PLACEMENT_SHARDS];
};

static bool select_flow(void *user, const struct wire_value *flow, const struct sm_key *key, uint32_t shard)
{
    struct selection *selection = user;
    (void)flow;
    if (shard < PLACEMENT_SHARDS && !selection->set[shard])
        selection->set[shard] = selector_match(selection->o->selector, key, shard);
    return true;
}

static void selected(void *user, const struct rpc_error *error)
{
    struct selection *selection = user;
    struct orchestrator *o = selection->o;
    if (error)
        ops_refused(&o->ops, (enum ops_code)error->code, error->message);
    else
        ops_selected(&o->ops, selection->set);
    free(selection);
    operate(o);
}

static void do_select(struct orchestrator *o)
{
    if (selector_by_shard(o->selector)) {
        ops_selected(&o->ops, o->selector->shards);
        return;
    }
    struct selection *selection = calloc(1, sizeof(*selection));
    if (!selection) {
        ops_refused(&o->ops, OPS_FAILED, "out of memory");
        return;
    }
    selection->o = o;
    scan_flows(o, select_flow, selected, selection);
}

/* ---- looking and moving ---- */

static void do_look(struct orchestrator *o);

static void on_measured(uv_timer_t *timer)
{
    struct orchestrator *o = timer->data;
    if (o->phase == PHASE_RUNNING && o->sw && o->ops.stage == OPS_LOOKING && o->ops.request.verb == OPS_REBALANCE)
        do_look(o);
}

/*
 * What comes to each shard in MEASURE_MS; where nothing does, or the input waits for this operation, what came until
 * now. False: it is being measured.
 */
static bool measure(struct orchestrator *o, const struct wire_value *packets)
{
    uint64_t load[PLACEMENT_SHARDS], sum = 0;
    bool stands = o->operation_for == FOR_EVENT && o->gated && !o->gate_open, begun = o->measure.begun;
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++) {
        uint64_t now = wire_uint(wire_item(packets, i), 0);
        load[i] = begun && now >= o->measure.before[i] ? now - o->measure.before[i] : now;
        sum += load[i];
        o->measure.before[i] = now;
    }
    o->measure.begun = !begun && !stands;
    if (o->measure.begun) {
        uv_timer_start(&o->measure.timer, on_measured, MEASURE_MS, 0);
        return false;
    }
    ops_load(&o->ops, sum ? load : o->measure.before);
    return true;
}

static void on_shards(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    placement_table owners;
    const struct wire_value *list = wire_get_array(result, "owners");
    if (!error && o->ops.stage == OPS_LOOKING && o->ops.request.verb == OPS_REBALANCE &&
        !measure(o, wire_get_array(result, "packets")))
        return;
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        owners[i] = (uint32_t)wire_uint(wire_item(list, i), 0);
    if (error)
        ops_refused(&o->ops, (enum ops_code)error->code, error->message);
    else if (wire_count(list) != PLACEMENT_SHARDS)
        ops_refused(&o->ops, OPS_FAILED, "the switch's table of shards is not of our size");
    else
        ops_owners(&o->ops, owners, strcmp(wire_get_str(result, "way_back", ""), "new") == 0);
    operate(o);
}

static void do_look(struct orchestrator *o)
{
    rpc_request(o->sw, "shards", NULL, ANSWER_MS, on_shards, o);
}

static void on_move_answered(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    if (!error) {
        o->move_id = (uint32_t)wire_get_uint(result, "id", 0);
        return; /* `moved` says how it went */
    }
    o->gate_open = false;
    ops_refused(&o->ops, (enum ops_code)error->code, error->message);
    operate(o);
}

static void do_move(struct orchestrator *o)
{
    bool opens = o->operation_for == FOR_EVENT && o->gated && !o->gate_open;
    struct wire_out *params = wire_new();
    wire_array_begin(params, "moves");
    for (size_t i = 0; i < o->ops.range_count; i++) {
        wire_array_begin(params, NULL);
        wire_put_uint(params, NULL, o->ops.ranges[i].first);
        wire_put_uint(params, NULL, o->ops.ranges[i].last);
        wire_put_uint(params, NULL, o->ops.ranges[i].to);
        wire_array_end(params);
    }
    wire_array_end(params);
    wire_put_uint(params, "deadline_ms", MOVE_DEADLINE_MS);
    wire_put_bool(params, "open_gate", opens);
    wire_put_bool(params, "copy", o->ops.request.copy);
    wire_put_bool(params, "drain", ops_drains(&o->ops));
    wire_put_uint(params, "drain_ms", o->ops.request.drain_ms);
    wire_put_bool(params, "settle", o->ops.request.verb == OPS_UPGRADE);
    if (opens) {
        /* The next gate first: reading goes on as soon as the move's markers are queued. */
        o->gate_open = true;
        o->gated = false;
        runner_gate(o);
    }
    rpc_request(o->sw, "move", params, 0, on_move_answered, o);
}

void operate_moved(struct orchestrator *o, const struct wire_value *params)
{
    if (wire_get_uint(params, "id", 0) != o->move_id)
        return; /* of an orchestrator before us */
    struct ops_moved moved = {
        .completed = wire_get_uint(params, "completed", 0),
        .abandoned = wire_get_uint(params, "abandoned", 0),
        .flows = wire_get_uint(params, "flows", 0),
        .flows_left = wire_get_uint(params, "flows_left", 0),
        .held_packets = wire_get_uint(params, "held_packets", 0),
        .seconds = wire_get_double(params, "seconds", 0),
    };
    snprintf(moved.cause, sizeof(moved.cause), "%s", wire_get_str(params, "cause", ""));
    ops_moved(&o->ops, &moved);
    operate(o);
}

/* ---- starting and retiring ---- */

static void do_start(struct orchestrator *o, uint32_t id)
{
    struct sm_errbuf error;
    if (child_spawn(o, id, &error) != 0) {
        log_write(LEVEL_WARNING, "replica_not_started", LOG_WITH(log_text("reason", error.text)), "%s", error.text);
        ops_exited(&o->ops, id, "could not be started");
    }
}

struct retirement {
    struct orchestrator *o;
    uint32_t id;
};

static void on_retire(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct retirement *retirement = user;
    struct orchestrator *o = retirement->o;
    (void)result;
    if (error)
        ops_stays(&o->ops, retirement->id, error->message);
    free(retirement);
    operate(o);
}

static void on_status(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    if (!error)
        children_learn(user, result);
}

static void do_retire(struct orchestrator *o, uint32_t id)
{
    struct retirement *retirement = malloc(sizeof(*retirement));
    if (!retirement) {
        ops_stays(&o->ops, id, "out of memory");
        return;
    }
    *retirement = (struct retirement){o, id};
    /* What it did is asked for while the switch still knows. */
    rpc_request(o->sw, "status", NULL, ANSWER_MS, on_status, o);
    struct wire_out *params = wire_new();
    wire_put_uint(params, "replica", id);
    rpc_request(o->sw, "retire", params, ANSWER_MS, on_retire, retirement);
}

static void do_kill(struct orchestrator *o, uint32_t id)
{
    struct child *child = child_of(o, id);
    if (child && child->alive)
        child_kill(child, SIGKILL);
    else
        ops_exited(&o->ops, id, "is gone");
}

/* ---- upgrading ---- */

static void on_opened(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    if (error)
        ops_refused(&o->ops, (enum ops_code)error->code, error->message);
    else
        ops_opened(&o->ops);
    operate(o);
}

static void on_closed(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    if (error) {
        ops_refused(&o->ops, (enum ops_code)error->code, error->message);
    } else {
        program_take_over(&o->program, &o->next);
        ops_closed(&o->ops);
    }
    operate(o);
}

static void on_back(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    (void)user;
    (void)result;
    if (error)
        log_write(LEVEL_ERROR, "upgrade_not_ended", LOG_WITH(log_text("reason", error->message)),
                  "the upgrade cannot be ended: %s", error->message);
}

static void do_open(struct orchestrator *o)
{
    struct wire_out *params = wire_new();
    wire_put_bool(params, "forward_only", o->ops.request.no_rollback);
    rpc_request(o->sw, "upgrade", params, ANSWER_MS, on_opened, o);
}

static void do_close(struct orchestrator *o, bool forward)
{
    struct wire_out *params = wire_new();
    wire_put_bool(params, "forward", forward);
    rpc_request(o->sw, "upgraded", params, ANSWER_MS, forward ? on_closed : on_back, o);
}

/* ---- the machine ---- */

/* Replicas that are there, or will be counted as missing when the switch reports that they are gone. */
static unsigned there(const struct orchestrator *o)
{
    uint32_t ids[OPS_MAX_REPLICAS];
    unsigned count = ops_ready_ids(&o->ops, ids);
    for (const struct child *child = o->children; child; child = child->next)
        count += child->lost && !child->gone;
    return count;
}

static void log_result(const struct ops_result *result, const char *verb)
{
    static const char *const results[] = {"done", "failed", "refused", "not found", "busy", "timed out"};
    const struct ops_moved *moved = &result->moved;
    log_write(LEVEL_INFO, "operation_ended",
              LOG_WITH(log_text("operation", verb), log_text("result", results[result->code]),
                       log_text("reason", result->message[0] ? result->message : NULL),
                       log_number("shards", moved->completed), log_number("abandoned", moved->abandoned),
                       log_number("flows", moved->flows), log_number("held_packets", moved->held_packets),
                       log_number("seconds", moved->seconds)),
              "%s: %s%s%s", verb, results[result->code], result->message[0] ? ": " : "", result->message);
}

static void do_reply(struct orchestrator *o)
{
    struct rpc_call *call = o->operation_call;
    struct ops_result result = o->ops.result;
    const unsigned wanted = o->ops.request.count;
    o->operation_call = NULL;
    selector_free(o->selector);
    o->selector = NULL;
    log_result(&result, ops_verb_name(o->ops.request.verb));
    if (o->ops.request.verb == OPS_UPGRADE) {
        program_free(&o->next);
        /* Whoever of both versions has died meanwhile: as many as there ought to be. */
        o->surplus = result.code == OPS_OK ? 0 : o->surplus;
        o->missing = wanted + o->surplus > there(o) ? wanted + o->surplus - there(o) : 0;
    } else if (o->operation_for == FOR_US && result.code != OPS_OK) {
        o->surplus = there(o) > wanted ? there(o) - wanted : 0;
        o->missing = wanted > there(o) ? wanted - there(o) : 0;
    }
    if (o->operation_for == FOR_US)
        orchestrator_replaced(o, &result);
    else if (o->operation_for == FOR_EVENT)
        runner_operated(o, &result);
    else if (call)
        serve_reply(call, &result, o->ops.request.verb == OPS_SPLIT);
    orchestrator_replace_missing(o);
    runner_go_on(o);
    orchestrator_check_end(o);
}

static void act(struct orchestrator *o, const struct ops_action *action)
{
    switch (action->kind) {
    case OPS_DO_START:
        do_start(o, action->id);
        break;
    case OPS_DO_SELECT:
        do_select(o);
        break;
    case OPS_DO_LOOK:
        o->measure.begun = false;
        do_look(o);
        break;
    case OPS_DO_MOVE:
        do_move(o);
        break;
    case OPS_DO_RETIRE:
        do_retire(o, action->id);
        break;
    case OPS_DO_KILL:
        do_kill(o, action->id);
        break;
    case OPS_DO_OPEN:
        do_open(o);
        break;
    case OPS_DO_CLOSE:
    case OPS_DO_BACK:
        do_close(o, action->kind == OPS_DO_CLOSE);
        break;
    case OPS_DO_REPLY:
        do_reply(o);
        break;
    }
}

static void on_patience(uv_timer_t *timer)
{
    struct orchestrator *o = timer->data;
    ops_timed_out(&o->ops);
    operate(o);
}

void operate(struct orchestrator *o)
{
    struct ops_action action;
    while (o->phase == PHASE_RUNNING && o->sw && intent_kept(o) && ops_next(&o->ops, &action))
        act(o, &action);
    if (o->phase != PHASE_RUNNING || o->ops.stage == o->patience_stage)
        return;
    o->patience_stage = o->ops.stage;
    unsigned ms = ops_patience(&o->ops);
    if (ms)
        uv_timer_start(&o->patience, on_patience, ms, ms);
    else
        uv_timer_stop(&o->patience);
}

/* What an operation's strategy may be goes by the service's: the switch knows flows from the first packet on, or never.
 */
static bool strategy_fits(const struct orchestrator *o, struct ops_request *request, struct ops_result *refusal)
{
    const enum service_strategy ours = o->service.strategy;
    if (request->strategy == SERVICE_STRATEGY_NONE)
        request->strategy = ours;
    if (request->strategy == ours || (service_stays(request->strategy) && service_stays(ours)))
        return true;
    *refusal = (struct ops_result){.code = OPS_USAGE};
    snprintf(refusal->message, sizeof(refusal->message), "strategy: expected %s, as the service file says, got '%s'",
             service_stays(ours) ? "drain or new-flows-only" : service_strategies[ours - SERVICE_MOVE],
             service_strategies[request->strategy - SERVICE_MOVE]);
    return false;
}

enum ops_code operate_begin(struct orchestrator *o, const struct ops_request *request, struct selector *selector,
                            enum operation_for whom, struct rpc_call *call, struct ops_result *refusal)
{
    struct ops_request wanted = *request;
    if (wanted.verb == OPS_UPGRADE) /* as many as there ought to be, whoever of the old ones has died or dies yet */
        wanted.count = there(o) + o->missing > o->surplus ? there(o) + o->missing - o->surplus : 0;
    enum ops_code code = strategy_fits(o, &wanted, refusal) ? ops_begin(&o->ops, &wanted, refusal) : refusal->code;
    if (code != OPS_OK) {
        selector_free(selector);
        return code;
    }
    o->operation_for = whom;
    o->operation_call = call;
    o->selector = selector;
    log_write(LEVEL_INFO, "operation_begun", LOG_WITH(log_text("operation", ops_verb_name(wanted.verb))), "%s begins",
              ops_verb_name(wanted.verb));
    operate(o);
    return OPS_OK;
}
