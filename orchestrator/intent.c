/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What must outlive us, as a text that the switch keeps: replicas by name, the operation under way, how events went.
 * It is kept before anything follows from it: an operation's next action waits until the switch has answered.
 *
 * Reading never fails half-way: whatever is absent has its default, and a text of another version is not read at all.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator.h"

#define INTENT_VERSION 1
#define KEEP_MS 30000
#define GONE_LISTED 256u /* replicas that have gone and still have their line in the report */

static const char *const results[] = {"", "done", "refused", "abandoned", "failed"};
enum { RESULTS = sizeof(results) / sizeof(*results) };

/* ---- writing ---- */

static void put_replicas(struct wire_out *out, const struct ops *ops)
{
    wire_array_begin(out, "replicas");
    for (unsigned i = 0; i < ops->count; i++) {
        wire_array_begin(out, NULL);
        wire_put_uint(out, NULL, ops->replicas[i].id);
        wire_put_uint(out, NULL, ops->replicas[i].state);
        wire_put_bool(out, NULL, ops->replicas[i].fresh);
        wire_put_bool(out, NULL, ops->replicas[i].leaving);
        wire_array_end(out);
    }
    wire_array_end(out);
}

/* The program, then its arguments; empty: none. */
static void put_program(struct wire_out *out, const char *key, const struct program *program)
{
    wire_array_begin(out, key);
    if (program->exec)
        wire_put_str(out, NULL, program->exec);
    for (char **arg = program->args; arg && *arg; arg++)
        wire_put_str(out, NULL, *arg);
    wire_array_end(out);
}

static void put_operation(struct wire_out *out, const struct orchestrator *o)
{
    const struct ops *ops = &o->ops;
    wire_put_uint(out, "stage", ops->stage);
    wire_put_uint(out, "for", o->operation_for);
    wire_put_uint(out, "verb", ops->request.verb);
    wire_put_uint(out, "count", ops->request.count);
    wire_put_uint(out, "replica", ops->request.replica);
    wire_put_uint(out, "to", ops->request.into);
    wire_put_bool(out, "copy", ops->request.copy);
    wire_put_uint(out, "strategy", ops->request.strategy);
    wire_put_uint(out, "drain_ms", ops->request.drain_ms);
    wire_put_bool(out, "no_rollback", ops->request.no_rollback);
    wire_put_uint(out, "trial_ms", ops->request.trial_ms);
    wire_put_bool(out, "began", ops->began);
    wire_put_bool(out, "by_new", ops->by_new);
    wire_put_bool(out, "returning", ops->returning);
    wire_put_uint(out, "tries", ops->tries);
    put_program(out, "program", &o->program);
    put_program(out, "next", &o->next);
    wire_put_str(out, "selector", o->selector ? o->selector->text : NULL);
    wire_put_uint(out, "into", ops->result.into);
    wire_put_uint(out, "code", ops->result.code);
    wire_put_str(out, "message", ops->result.message);
    wire_put_uint(out, "completed", ops->result.moved.completed);
    wire_put_uint(out, "abandoned", ops->result.moved.abandoned);
    wire_array_begin(out, "ranges");
    for (size_t i = 0; ops->stage == OPS_MOVING && i < ops->range_count; i++) {
        wire_put_uint(out, NULL, ops->ranges[i].first);
        wire_put_uint(out, NULL, ops->ranges[i].last);
        wire_put_uint(out, NULL, ops->ranges[i].to);
    }
    wire_array_end(out);
}

static unsigned result_number(const char *result)
{
    unsigned number = RESULTS - 1;
    while (number > 0 && (!result || strcmp(results[number], result) != 0))
        number--;
    return number;
}

static void put_events(struct wire_out *out, const struct orchestrator *o)
{
    wire_put_uint(out, "event", o->event);
    wire_put_bool(out, "event_running", o->event_running);
    wire_put_uint(out, "killed", o->killed);
    wire_array_begin(out, "events");
    for (size_t i = 0; i < o->event; i++) {
        wire_put_uint(out, NULL, result_number(o->events.list[i].result));
        wire_put_double(out, NULL, o->events.list[i].seconds);
        wire_put_str(out, NULL, o->events.list[i].message[0] ? o->events.list[i].message : NULL);
    }
    wire_array_end(out);
}

static void put_gone(struct wire_out *out, const struct orchestrator *o)
{
    unsigned count = 0, skip;
    for (const struct child *child = o->children; child; child = child->next)
        count += !child->alive;
    skip = count > GONE_LISTED ? count - GONE_LISTED : 0;
    wire_array_begin(out, "gone");
    for (const struct child *child = o->children; child; child = child->next) {
        if (child->alive || (skip > 0 && skip--))
            continue;
        wire_array_begin(out, NULL);
        wire_put_uint(out, NULL, child->id);
        wire_put_uint(out, NULL, child->packets);
        wire_put_uint(out, NULL, child->shards);
        wire_put_int(out, NULL, child->status);
        wire_put_str(out, NULL, child->condemned);
        wire_array_end(out);
    }
    wire_array_end(out);
}

static struct wire_out *encode(const struct orchestrator *o)
{
    struct wire_out *out = wire_new();
    wire_put_uint(out, "version", INTENT_VERSION);
    wire_put_uint(out, "last_id", o->ops.last_id);
    wire_put_uint(out, "missing", o->missing);
    wire_put_uint(out, "surplus", o->surplus);
    put_replicas(out, &o->ops);
    put_operation(out, o);
    put_events(out, o);
    put_gone(out, o);
    return out;
}

static void on_kept(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    o->keeping = false;
    if (o->phase == PHASE_LEAVING)
        return;
    if (error)
        orchestrator_fail(o, "the switch does not keep what is intended: %s", error->message);
    else
        orchestrator_kept(o);
}

bool intent_kept(struct orchestrator *o)
{
    size_t bytes;
    if (o->keeping || !o->sw)
        return false;
    struct wire_out *out = encode(o);
    const uint8_t *text = wire_bytes(out, &bytes);
    if (!text) {
        wire_free(out);
        orchestrator_fail(o, "what is intended cannot be kept: out of memory");
        return false;
    }
    bool same = o->intent && bytes == o->intent_bytes && memcmp(text, o->intent, bytes) == 0;
    if (!same) {
        free(o->intent);
        o->intent = malloc(bytes);
        o->intent_bytes = bytes;
        if (o->intent)
            memcpy(o->intent, text, bytes);
        struct wire_out *params = wire_new();
        wire_put_bin(params, "text", text, bytes);
        o->keeping = true;
        rpc_request(o->sw, "keep", params, KEEP_MS, on_kept, o);
    }
    wire_free(out);
    return same;
}

/* ---- reading ---- */

static void get_replicas(struct ops *ops, const struct wire_value *list)
{
    for (unsigned i = 0; i < wire_count(list) && ops->count < OPS_MAX_REPLICAS; i++) {
        const struct wire_value *item = wire_item(list, i);
        ops->replicas[ops->count++] = (struct ops_replica){
            .id = (uint32_t)wire_uint(wire_item(item, 0), 0),
            .state = (enum ops_replica_state)wire_uint(wire_item(item, 1), 0),
            .fresh = wire_bool(wire_item(item, 2), false),
            .leaving = wire_bool(wire_item(item, 3), false),
        };
    }
}

static void get_program(struct program *program, const struct wire_value *list)
{
    const unsigned count = wire_count(list);
    const char **words = count ? calloc(count + 1, sizeof(*words)) : NULL;
    for (unsigned i = 0; words && i < count; i++)
        words[i] = wire_str(wire_item(list, i), "");
    if (words)
        program_set(program, words[0], words + 1); /* out of memory: what the service file says stays */
    free(words);
}

static void get_operation(struct orchestrator *o, const struct wire_value *text)
{
    struct ops *ops = &o->ops;
    const struct wire_value *ranges = wire_get_array(text, "ranges");
    const char *selector = wire_get_str(text, "selector", NULL);
    struct sm_errbuf error;
    ops->stage = (enum ops_stage)wire_get_uint(text, "stage", OPS_IDLE);
    ops->request = (struct ops_request){
        .verb = (enum ops_verb)wire_get_uint(text, "verb", OPS_SCALE),
        .count = (uint32_t)wire_get_uint(text, "count", 0),
        .replica = (uint32_t)wire_get_uint(text, "replica", 0),
        .into = (uint32_t)wire_get_uint(text, "to", 0),
        .copy = wire_get_bool(text, "copy", false),
        .strategy = (enum service_strategy)wire_get_uint(text, "strategy", SERVICE_MOVE),
        .drain_ms = (uint32_t)wire_get_uint(text, "drain_ms", 0),
        .no_rollback = wire_get_bool(text, "no_rollback", false),
        .trial_ms = (uint32_t)wire_get_uint(text, "trial_ms", 0),
    };
    ops->began = wire_get_bool(text, "began", false);
    ops->by_new = wire_get_bool(text, "by_new", false);
    ops->returning = wire_get_bool(text, "returning", false);
    ops->tries = (unsigned)wire_get_uint(text, "tries", 0);
    get_program(&o->program, wire_get_array(text, "program"));
    get_program(&o->next, wire_get_array(text, "next"));
    ops->result = (struct ops_result){
        .code = (enum ops_code)wire_get_uint(text, "code", 0),
        .into = (uint32_t)wire_get_uint(text, "into", 0),
        .moved = {.completed = wire_get_uint(text, "completed", 0), .abandoned = wire_get_uint(text, "abandoned", 0)},
    };
    snprintf(ops->result.message, sizeof(ops->result.message), "%s", wire_get_str(text, "message", ""));
    for (unsigned i = 0; i + 2 < wire_count(ranges) && ops->range_count < PLACEMENT_SHARDS; i += 3)
        ops->ranges[ops->range_count++] = (struct placement_range){
            .first = (uint32_t)wire_uint(wire_item(ranges, i), 0),
            .last = (uint32_t)wire_uint(wire_item(ranges, i + 1), 0),
            .to = (uint32_t)wire_uint(wire_item(ranges, i + 2), 0),
        };
    o->operation_for = (enum operation_for)wire_get_uint(text, "for", FOR_CLIENT);
    if (selector && selector_create(&o->selector, selector, &error) != 0)
        o->selector = NULL;
}

static void get_events(struct orchestrator *o, const struct wire_value *text)
{
    const struct wire_value *list = wire_get_array(text, "events");
    size_t event = wire_get_uint(text, "event", 0);
    for (size_t i = 0; i < o->events.count && i < event; i++) {
        struct event *to = &o->events.list[i];
        unsigned at = (unsigned)(3 * i), number = (unsigned)wire_uint(wire_item(list, at), 0);
        to->result = number > 0 && number < RESULTS ? results[number] : NULL;
        to->seconds = wire_double(wire_item(list, at + 1), 0);
        snprintf(to->message, sizeof(to->message), "%s", wire_str(wire_item(list, at + 2), ""));
    }
    o->event = event < o->events.count ? event : o->events.count;
    o->event_running = o->event < o->events.count && wire_get_bool(text, "event_running", false);
    o->killed = (uint32_t)wire_get_uint(text, "killed", 0);
}

static void get_gone(struct orchestrator *o, const struct wire_value *list)
{
    for (unsigned i = 0; i < wire_count(list); i++) {
        const struct wire_value *item = wire_item(list, i);
        struct child *child = child_note(o, (uint32_t)wire_uint(wire_item(item, 0), 0));
        if (!child)
            return;
        child->packets = wire_uint(wire_item(item, 1), 0);
        child->shards = (uint32_t)wire_uint(wire_item(item, 2), 0);
        child->status = wire_int(wire_item(item, 3), CHILD_UNKNOWN);
        snprintf(child->condemned, sizeof(child->condemned), "%s", wire_str(wire_item(item, 4), ""));
    }
}

void intent_read(struct orchestrator *o, const struct wire_value *text)
{
    if (wire_get_uint(text, "version", 0) != INTENT_VERSION)
        return;
    uint32_t last_id = (uint32_t)wire_get_uint(text, "last_id", 0);
    if (last_id > o->ops.last_id)
        o->ops.last_id = last_id;
    o->missing = (unsigned)wire_get_uint(text, "missing", 0);
    o->surplus = (unsigned)wire_get_uint(text, "surplus", 0);
    get_replicas(&o->ops, wire_get_array(text, "replicas"));
    get_operation(o, text);
    get_events(o, text);
    get_gone(o, wire_get_array(text, "gone"));
    for (unsigned i = 0; i < o->ops.count; i++)
        child_note(o, o->ops.replicas[i].id);
}
