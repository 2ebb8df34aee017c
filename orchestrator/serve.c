/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "orchestrator.h"

#define LISTEN_ATTEMPTS 300
#define LISTEN_WAIT_US 10000

#define FLOWS_LIMIT 10000     /* flows of one answer, unless asked for fewer */
#define FLOWS_MAX_LIMIT 20000 /* with their fields they fit one message */

static const char *const verbs[] = {"scale", "split", "merge", "move", "drain", "rebalance", "upgrade"};

void serve_reply(struct rpc_call *call, const struct ops_result *result, bool split)
{
    if (result->code != OPS_OK && result->moved.abandoned == 0) {
        rpc_refuse(call, (enum rpc_code)result->code, "%s", result->message);
        return;
    }
    struct wire_out *out = wire_new();
    wire_put_uint(out, "completed", result->moved.completed);
    wire_put_uint(out, "abandoned", result->moved.abandoned);
    wire_put_uint(out, "flows", result->moved.flows);
    wire_put_double(out, "seconds", result->moved.seconds);
    wire_put_uint(out, "held_packets", result->moved.held_packets);
    wire_put_str(out, "cause", result->moved.cause[0] ? result->moved.cause : NULL);
    if (result->balance.before > 0) {
        wire_put_double(out, "imbalance_before", result->balance.before);
        wire_put_double(out, "imbalance_after", result->balance.after);
        wire_array_begin(out, "elephants");
        for (unsigned i = 0; i < result->balance.elephants; i++) {
            wire_map_begin(out, NULL);
            wire_put_uint(out, "shard", result->balance.elephant[i].shard);
            wire_put_double(out, "share", result->balance.elephant[i].share);
            wire_map_end(out);
        }
        wire_array_end(out);
    }
    if (split) {
        char name[16];
        snprintf(name, sizeof(name), "r%u", result->into);
        wire_put_str(out, "into", name);
    }
    rpc_reply(call, out);
}

/* ---- hello, status, stop ---- */

static void hello(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    struct wire_out *out = wire_new();
    wire_put_uint(out, "version", RPC_VERSION);
    wire_put_str(out, "service", o->service.name);
    wire_put_bool(out, "flows_stay", service_stays(o->service.strategy));
    wire_put_uint(out, "pid", (uint64_t)getpid());
    rpc_reply(call, out);
}

struct status_call {
    struct orchestrator *o;
    struct rpc_call *call;
};

/* What the switch says of it, and what it runs. */
static void put_replica(struct wire_out *out, const struct child *child, const struct wire_value *replica)
{
    wire_map_begin(out, NULL);
    for (unsigned i = 0; i < wire_count(replica); i++) {
        const char *key;
        const struct wire_value *value = wire_pair(replica, i, &key);
        wire_put_value(out, key, value);
    }
    wire_put_str(out, "exec", child->exec);
    wire_map_end(out);
}

/* The replicas that are there, in the order of their names: the switch's are in the order of its slots. */
static void put_replicas(struct orchestrator *o, struct wire_out *out, const struct wire_value *list)
{
    wire_array_begin(out, "replicas");
    for (const struct child *child = o->children; child; child = child->next) {
        for (unsigned i = 0; i < wire_count(list); i++) {
            const struct wire_value *replica = wire_item(list, i);
            if (wire_get_uint(replica, "id", 0) == child->id && strcmp(wire_get_str(replica, "state", ""), "gone") != 0)
                put_replica(out, child, replica);
        }
    }
    wire_array_end(out);
}

static void on_status(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct status_call *status = user;
    struct orchestrator *o = status->o;
    if (error) {
        rpc_refuse(status->call, error->code, "%s", error->message);
    } else {
        struct wire_out *out = wire_new();
        for (unsigned i = 0; i < wire_count(result); i++) {
            const char *key;
            const struct wire_value *value = wire_pair(result, i, &key);
            if (strcmp(key, "replicas") == 0)
                put_replicas(o, out, value);
            else
                wire_put_value(out, key, value);
        }
        wire_map_begin(out, "limits");
        wire_put_uint(out, "min", o->service.replicas.min);
        wire_put_uint(out, "max", o->service.replicas.max);
        wire_map_end(out);
        wire_put_str(out, "operation", ops_idle(&o->ops) ? NULL : verbs[o->ops.request.verb]);
        wire_put_str(out, "stage", ops_stage_name(&o->ops));
        rpc_reply(status->call, out);
        children_learn(o, result);
    }
    free(status);
}

static void status(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    struct status_call *s = malloc(sizeof(*s));
    if (!s) {
        rpc_refuse(call, RPC_FAILED, "out of memory");
        return;
    }
    *s = (struct status_call){o, call};
    rpc_request(o->sw, "status", NULL, 5000, on_status, s);
}

static void stop(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    rpc_reply(call, NULL);
    orchestrator_stop(o);
}

/* ---- flows ---- */

struct flows_call {
    struct rpc_call *call;
    struct selector *selector; /* NULL: all */
    struct wire_out *out;
    uint64_t count, limit;
};

static bool put_flow(void *user, const struct wire_value *flow, const struct sm_key *key, uint32_t shard)
{
    struct flows_call *f = user;
    if (f->selector && !selector_match(f->selector, key, shard))
        return true;
    if (f->count == f->limit)
        return false;
    f->count++;
    wire_put_value(f->out, NULL, flow);
    return true;
}

static void flows_done(void *user, const struct rpc_error *error)
{
    struct flows_call *f = user;
    wire_array_end(f->out);
    if (error) {
        rpc_refuse(f->call, error->code, "%s", error->message);
        wire_free(f->out);
    } else {
        rpc_reply(f->call, f->out);
    }
    selector_free(f->selector);
    free(f);
}

static void flows(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    const char *text = wire_get_str(params, "selector", NULL);
    struct sm_errbuf error;
    struct selector *selector = NULL;
    if (text && selector_create(&selector, text, &error) != 0) {
        rpc_refuse(call, RPC_USAGE, "%s", error.text);
        return;
    }
    struct flows_call *f = calloc(1, sizeof(*f));
    if (!f) {
        selector_free(selector);
        rpc_refuse(call, RPC_FAILED, "out of memory");
        return;
    }
    uint64_t limit = wire_get_uint(params, "limit", FLOWS_LIMIT);
    *f = (struct flows_call){
        .call = call,
        .selector = selector,
        .out = wire_new(),
        .limit = limit < FLOWS_MAX_LIMIT ? limit : FLOWS_MAX_LIMIT,
    };
    wire_array_begin(f->out, "flows");
    scan_flows(o, put_flow, flows_done, f);
}

/* ---- check ---- */

#define CHECK_MS 60000

static void on_checked(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct rpc_call *call = user;
    struct wire_out *out;
    if (error) {
        rpc_refuse(call, error->code, "%s", error->message);
        return;
    }
    out = wire_new();
    for (unsigned i = 0; i < wire_count(result); i++) {
        const char *key;
        const struct wire_value *value = wire_pair(result, i, &key);
        wire_put_value(out, key, value);
    }
    rpc_reply(call, out);
}

static void check(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    rpc_request(o->sw, "check", NULL, CHECK_MS, on_checked, call);
}

/* ---- operations ---- */

/* A replica parameter. False: it was refused. */
static bool replica_param(struct rpc_call *call, const struct wire_value *params, const char *key, bool needed,
                          uint32_t *id)
{
    const char *name = wire_get_str(params, key, NULL);
    *id = 0;
    if ((!name && !needed) || replica_id(name, id))
        return true;
    rpc_refuse(call, RPC_USAGE, "%s: expected a replica such as r1, got '%.32s'", key, name ? name : "");
    return false;
}

static void operation(struct orchestrator *o, struct rpc_call *call, enum ops_verb verb,
                      const struct wire_value *params)
{
    struct ops_request request = {.verb = verb, .copy = wire_get_bool(params, "copy", false)};
    struct ops_result refusal;
    struct selector *selector = NULL;
    struct sm_errbuf error;
    bool takes_replica = verb == OPS_SPLIT || verb == OPS_MERGE || verb == OPS_DRAIN;
    uint64_t count = wire_get_uint(params, "replicas", 0);
    const char *strategy = wire_get_str(params, "strategy", NULL);
    request.strategy = strategy ? service_strategy(strategy) : SERVICE_STRATEGY_NONE;
    if (strategy && request.strategy == SERVICE_STRATEGY_NONE) {
        rpc_refuse(call, RPC_USAGE, "strategy: expected move, drain, new-flows-only or restart, got '%.32s'", strategy);
        return;
    }
    uint64_t drain_ms = wire_get_uint(params, "drain_ms", 0);
    request.drain_ms = drain_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)drain_ms;
    request.count = count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
    if ((takes_replica && !replica_param(call, params, "replica", true, &request.replica)) ||
        ((verb == OPS_SPLIT || verb == OPS_MERGE) &&
         !replica_param(call, params, "into", verb == OPS_MERGE, &request.into)) ||
        (verb == OPS_MOVE && !replica_param(call, params, "to", true, &request.into)))
        return;
    if (verb == OPS_MOVE && selector_create(&selector, wire_get_str(params, "selector", ""), &error) != 0) {
        rpc_refuse(call, RPC_USAGE, "%s", error.text);
        return;
    }
    if (operate_begin(o, &request, selector, FOR_CLIENT, call, &refusal) != OPS_OK)
        rpc_refuse(call, (enum rpc_code)refusal.code, "%s", refusal.message);
}

/* ---- checkpoint, restore ---- */

static void on_transferred(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct rpc_call *call = user;
    if (error) {
        rpc_refuse(call, error->code, "%s", error->message);
        return;
    }
    struct wire_out *out = wire_new();
    for (unsigned i = 0; i < wire_count(result); i++) {
        const char *key;
        const struct wire_value *value = wire_pair(result, i, &key);
        wire_put_value(out, key, value);
    }
    rpc_reply(call, out);
}

static void transfer(struct orchestrator *o, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    struct wire_out *out = wire_new();
    wire_put_str(out, "file", wire_get_str(params, "file", ""));
    rpc_request(o->sw, method, out, 0, on_transferred, call);
}

static void checkpoint(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    transfer(o, call, "checkpoint", params);
}

static void restore(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    if (!ops_idle(&o->ops))
        rpc_refuse(call, RPC_BUSY, "another operation is under way");
    else
        transfer(o, call, "restore", params);
}

/* ---- upgrade ---- */

/* The new version that an upgrade is to; without arguments of its own it gets those of the old one. */
int serve_next(struct orchestrator *o, const char *exec, const char *const *args, struct sm_errbuf *error)
{
    char found[4096];
    int result = program_find(exec, found, sizeof(found), error);
    if (result == 0 && program_set(&o->next, exec, args ? args : (const char *const *)o->program.args) != 0) {
        snprintf(error->text, sizeof(error->text), "out of memory");
        result = SM_E_NO_MEMORY;
    }
    return result;
}

static void upgrade(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    struct ops_request request = {.verb = OPS_UPGRADE, .no_rollback = wire_get_bool(params, "no_rollback", false)};
    const uint64_t trial = wire_get_uint(params, "trial_ms", OPS_TRIAL_MS);
    const struct wire_value *list = wire_get_array(params, "args");
    const char *exec = wire_get_str(params, "exec", o->program.exec);
    const char *args[UPGRADE_ARGS + 1] = {0};
    struct ops_result refusal;
    struct sm_errbuf error;
    if (exec[0] == '\0' || wire_count(list) > UPGRADE_ARGS) {
        rpc_refuse(call, RPC_USAGE, "upgrade: expected a program, and at most %u arguments", UPGRADE_ARGS);
        return;
    }
    if (trial > OPS_TRIAL_MOST_MS) {
        rpc_refuse(call, RPC_USAGE, "upgrade: expected a trial of at most %u s", OPS_TRIAL_MOST_MS / 1000);
        return;
    }
    request.trial_ms = (uint32_t)trial;
    for (unsigned i = 0; i < wire_count(list); i++)
        args[i] = wire_str(wire_item(list, i), "");
    if (!ops_idle(&o->ops))
        ops_begin(&o->ops, &request, &refusal);
    else if (serve_next(o, exec, list ? args : NULL, &error) != 0)
        refusal = (struct ops_result){.code = OPS_FAILED};
    else if (operate_begin(o, &request, NULL, FOR_CLIENT, call, &refusal) == OPS_OK)
        return;
    rpc_refuse(call, (enum rpc_code)refusal.code, "%s", refusal.message[0] ? refusal.message : error.text);
}

/* ---- dispatch ---- */

static void on_request(void *user, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    static const struct {
        const char *name;
        void (*serve)(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params);
    } methods[] = {{"status", status},         {"upgrade", upgrade}, {"flows", flows}, {"limits", limits},
                   {"checkpoint", checkpoint}, {"restore", restore}, {"check", check}};
    struct orchestrator *o = user;
    if (strcmp(method, "hello") == 0 || (strcmp(method, "stop") == 0 && o->phase < PHASE_FINISHING)) {
        (method[0] == 'h' ? hello : stop)(o, call, params);
        return;
    }
    if (o->phase != PHASE_RUNNING || !o->sw) {
        rpc_refuse(call, RPC_BUSY, "the service is %s", o->phase < PHASE_RUNNING ? "starting" : "stopping");
        return;
    }
    for (unsigned i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
        if (strcmp(methods[i].name, method) == 0) {
            methods[i].serve(o, call, params);
            return;
        }
    }
    for (unsigned verb = 0; verb < sizeof(verbs) / sizeof(*verbs); verb++) {
        if (strcmp(verbs[verb], method) == 0) {
            operation(o, call, (enum ops_verb)verb, params);
            return;
        }
    }
    rpc_refuse(call, RPC_USAGE, "the orchestrator has no method '%.40s'", method);
}

int serve_listen(struct orchestrator *o, struct sm_errbuf *error)
{
    char path[108];
    struct rpc_handlers handlers = {.user = o, .request = on_request};
    int result;
    /* A child of one that was killed has its socket until it has become a replica. */
    for (unsigned attempt = 0; attempt < LISTEN_ATTEMPTS; attempt++) {
        result = rpc_listen(&o->server, o->loop, rundir_file(&o->dir, "orchestrator.sock", path), &handlers, error);
        if (result != SM_E_STATE)
            break;
        usleep(LISTEN_WAIT_US);
    }
    if (result == SM_E_STATE)
        snprintf(error->text, sizeof(error->text), "service %s already has an orchestrator", o->service.name);
    return result;
}
