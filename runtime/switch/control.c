/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/control.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/builds.h"
#include "arena/huge.h"
#include "arena/query.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "switch/report.h"

#define HUGE_EVERY_MS 100

static void put_json(struct wire_out *out, const char *key, json_t *value)
{
    const char *name;
    json_t *item;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        wire_map_begin(out, key);
        json_object_foreach(value, name, item) put_json(out, name, item);
        wire_map_end(out);
        break;
    case JSON_ARRAY:
        wire_array_begin(out, key);
        json_array_foreach(value, i, item) put_json(out, NULL, item);
        wire_array_end(out);
        break;
    case JSON_STRING:
        wire_put_str(out, key, json_string_value(value));
        break;
    case JSON_INTEGER:
        wire_put_int(out, key, json_integer_value(value));
        break;
    case JSON_REAL:
        wire_put_double(out, key, json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        wire_put_bool(out, key, json_is_true(value));
        break;
    case JSON_NULL:
        wire_put_nil(out, key);
        break;
    }
}

static void report_job(struct sm_switch *sw, void *arg)
{
    *(json_t **)arg = switch_report(sw);
}

static void reply_status(struct control *control, struct rpc_call *call)
{
    json_t *report;
    struct wire_out *out = wire_new();
    const char *key;
    json_t *value;

    worker_call(&control->worker, report_job, &report);
    json_object_foreach(report, key, value) put_json(out, key, value);
    json_decref(report);
    rpc_reply(call, out);
}

static void hello(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct wire_out *out = wire_new();

    (void)params;
    wire_put_uint(out, "version", RPC_VERSION);
    wire_put_str(out, "service", control->arena->service);
    wire_put_str(out, "host", control->arena->host);
    wire_put_int(out, "linktype", control->arena->linktype);
    wire_put_str(out, "mode", control->mode);
    wire_put_int(out, "pid", getpid());
    rpc_reply(call, out);
}

static void status(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    reply_status(control, call);
}

struct shards_job {
    uint32_t epoch;
    uint32_t owners[SM_SHARDS];
    uint64_t packets[SM_SHARDS];
};

static void shards_snapshot(struct sm_switch *sw, void *arg)
{
    struct shards_job *job = arg;

    job->epoch = sw->epoch;
    for (uint32_t i = 0; i < SM_SHARDS; i++) {
        job->owners[i] = sw->shards[i].owner == SWITCH_NONE ? 0 : sw->slots[sw->shards[i].owner].id;
        job->packets[i] = sw->shards[i].packets;
    }
}

static void shards(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    static const char *const ways[] = {"none", "new", "old"};
    struct shards_job *job = malloc(sizeof *job);
    struct wire_out *out = wire_new();

    (void)params;
    if (!job) {
        rpc_refuse(call, RPC_FAILED, "out of memory");
        wire_free(out);
        return;
    }
    worker_call(&control->worker, shards_snapshot, job);
    wire_put_uint(out, "epoch", job->epoch);
    wire_array_begin(out, "owners");
    for (uint32_t i = 0; i < SM_SHARDS; i++)
        wire_put_uint(out, NULL, job->owners[i]);
    wire_array_end(out);
    wire_array_begin(out, "packets");
    for (uint32_t i = 0; i < SM_SHARDS; i++)
        wire_put_uint(out, NULL, job->packets[i]);
    wire_array_end(out);
    wire_put_str(out, "way_back", ways[control->arena->way_back % 3]);
    free(job);
    rpc_reply(call, out);
}

static void classes(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct wire_out *out = wire_new();
    char key[KEYING_TEXT];
    const struct state_class *cls;

    (void)params;
    wire_array_begin(out, "classes");
    for (unsigned i = 0; (cls = builds_class(control->arena, i)) != NULL; i++) {
        wire_map_begin(out, NULL);
        wire_put_str(out, "name", cls->name);
        wire_put_uint(out, "version", cls->version);
        wire_put_str(out, "granularity", keying_text(cls->key, key));
        wire_put_bool(out, "partitioned", cls->partitioned);
        wire_put_uint(out, "record_size", cls->record_size);
        wire_put_uint(out, "limit", cls->limit);
        wire_map_end(out);
    }
    wire_array_end(out);
    wire_put_str(out, "key", keying_text(control->arena->steering, key));
    rpc_reply(call, out);
}

/* [first, last, id] of `moves` and `owners`. */
struct range {
    uint32_t first, last, id;
};

static struct range range_of(const struct wire_value *list, unsigned i)
{
    const struct wire_value *item = wire_item(list, i);

    return (struct range){
        .first = (uint32_t)wire_uint(wire_item(item, 0), UINT32_MAX),
        .last = (uint32_t)wire_uint(wire_item(item, 1), UINT32_MAX),
        .id = (uint32_t)wire_uint(wire_item(item, 2), 0),
    };
}

struct ranges_job {
    const struct wire_value *list;
    uint64_t deadline_ms;
    bool open_gate, copy, settle, drain;
    uint64_t drain_ms;
    uint32_t shards, id;
    enum rpc_code code;
    char message[256];
};

static void refuse_range(struct ranges_job *job, const struct range *range, int result)
{
    job->code = RPC_FAILED;
    snprintf(job->message, sizeof job->message, "shards %u-%u to replica r%u: %s", range->first, range->last, range->id,
             sm_strerror(result));
}

static void assign_job(struct sm_switch *sw, void *arg)
{
    struct ranges_job *job = arg;

    for (unsigned i = 0; i < wire_count(job->list) && !job->code; i++) {
        struct range range = range_of(job->list, i);
        int slot = switch_slot_of(sw, range.id);
        int result = slot < 0 ? SM_E_NOT_FOUND : switch_assign(sw, range.first, range.last, (unsigned)slot);
        if (result)
            refuse_range(job, &range, result);
    }
}

static void move_job(struct sm_switch *sw, void *arg)
{
    struct ranges_job *job = arg;

    if (switch_move_begin(sw, sw->now + job->deadline_ms * 1000000ull, job->open_gate) != 0) {
        job->code = RPC_BUSY;
        snprintf(job->message, sizeof job->message, "another operation is under way");
        return;
    }
    struct sm_errbuf error;
    if (job->copy && switch_move_copy(sw, &error) != 0) {
        job->code = RPC_FAILED;
        snprintf(job->message, sizeof job->message, "%s", error.text);
        return;
    }
    for (unsigned i = 0; i < wire_count(job->list); i++) {
        struct range range = range_of(job->list, i);
        int slot = switch_slot_of(sw, range.id);
        int result = slot < 0 ? SM_E_NOT_FOUND : switch_move_add(sw, range.first, range.last, (unsigned)slot);
        if (result) {
            refuse_range(job, &range, result);
            return;
        }
    }
    sw->operation.settle = job->settle;
    if (job->drain)
        switch_move_drain(sw, job->drain_ms ? sw->now + job->drain_ms * 1000000ull : UINT64_MAX);
    job->shards = switch_move_go(sw);
    job->id = sw->operation.id;
    /* The answer says that the first markers are queued. */
    switch_moves_poll(sw);
}

static void assign(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct ranges_job job = {.list = wire_get_array(params, "owners")};

    worker_call(&control->worker, assign_job, &job);
    if (job.code)
        rpc_refuse(call, job.code, "%s", job.message);
    else
        rpc_reply(call, NULL);
}

static void on_notice(uv_async_t *async);

static void move(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    /* What the operation before came to is told before the next one takes its place. */
    on_notice(&control->worker.async);
    struct ranges_job job = {
        .list = wire_get_array(params, "moves"),
        .deadline_ms = wire_get_uint(params, "deadline_ms", 10000),
        .open_gate = wire_get_bool(params, "open_gate", false),
        .copy = wire_get_bool(params, "copy", false),
        .settle = wire_get_bool(params, "settle", false),
        .drain = wire_get_bool(params, "drain", false),
        .drain_ms = wire_get_uint(params, "drain_ms", 0),
    };

    worker_call(&control->worker, move_job, &job);
    if (job.code) {
        rpc_refuse(call, job.code, "%s", job.message);
        return;
    }
    struct wire_out *out = wire_new();
    wire_put_uint(out, "id", job.id);
    wire_put_uint(out, "shards", job.shards);
    rpc_reply(call, out);
}

static void start_job(struct sm_switch *sw, void *arg)
{
    (void)arg;
    switch_start(sw);
}

static void start(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    worker_call(&control->worker, start_job, NULL);
    rpc_reply(call, NULL);
}

struct gate_job {
    uint64_t packet, time;
    bool by_time;
};

static void gate_job(struct sm_switch *sw, void *arg)
{
    const struct gate_job *job = arg;

    switch_gate(sw, job->packet, job->by_time, job->time);
}

static void gate(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct gate_job job = {
        .packet = wire_get_uint(params, "packet", 0),
        .time = wire_get_uint(params, "time", 0),
        .by_time = wire_type(wire_get(params, "time")) == WIRE_INT,
    };

    worker_call(&control->worker, gate_job, &job);
    rpc_reply(call, NULL);
}

static void open_gate_job(struct sm_switch *sw, void *arg)
{
    (void)arg;
    switch_open_gate(sw);
}

static void open_gate(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    worker_call(&control->worker, open_gate_job, NULL);
    rpc_reply(call, NULL);
}

struct retire_job {
    uint32_t id;
    int result;
};

static void retire_job(struct sm_switch *sw, void *arg)
{
    struct retire_job *job = arg;
    int slot = switch_slot_of(sw, job->id);

    job->result = slot < 0 ? SM_E_NOT_FOUND : switch_slot_retire(sw, (unsigned)slot);
}

static void retire(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct retire_job job = {.id = (uint32_t)wire_get_uint(params, "replica", 0)};

    worker_call(&control->worker, retire_job, &job);
    if (job.result == SM_E_NOT_FOUND)
        rpc_refuse(call, RPC_NOT_FOUND, "there is no replica r%u", job.id);
    else if (job.result)
        rpc_refuse(call, RPC_FAILED, "replica r%u still owns shards or flows, or is on its way out", job.id);
    else
        rpc_reply(call, NULL);
}

static void finish_job(struct sm_switch *sw, void *arg)
{
    struct sm_errbuf error;
    bool whole = sw->error[0] == '\0' && sw->input_result == SM_E_END && !sw->input_cut;

    (void)arg;
    if (sw->state == SWITCH_FINISHED)
        return;
    if (sw->input_result != SM_E_END)
        switch_fail(sw, "%s", sw->input_error.text);
    if (switch_close_ports(sw, whole, &error) != 0)
        switch_fail(sw, "%s", error.text);
    switch_finish(sw);
}

static void state_job(struct sm_switch *sw, void *arg)
{
    *(enum switch_state *)arg = sw->state;
}

static void stop_job(struct sm_switch *sw, void *arg)
{
    (void)arg;
    switch_stop_input(sw);
}

/* Everything is back: close the outputs, answer whoever asked for the end. */
static void finished(struct control *control)
{
    struct rpc_call *call = control->finish_call;

    worker_call(&control->worker, finish_job, NULL);
    control->finish_call = NULL;
    if (call)
        reply_status(control, call);
    if (control->shutting_down)
        control_end(control);
}

static void end_input(struct control *control, struct rpc_call *call)
{
    enum switch_state state;

    if (control->finish_call && rpc_call_peer(control->finish_call)) {
        rpc_refuse(call, RPC_BUSY, "the end is under way");
        return;
    }
    if (control->finish_call) /* who asked has gone meanwhile */
        rpc_refuse(control->finish_call, RPC_BUSY, "somebody else asks");
    control->finish_call = call;
    worker_call(&control->worker, state_job, &state);
    if (state == SWITCH_ENDED || state == SWITCH_FINISHED)
        finished(control);
    else
        worker_call(&control->worker, stop_job, NULL); /* NOTICE_ENDED follows */
}

static void finish(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    end_input(control, call);
}

static void shut_down(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    (void)params;
    control->shutting_down = true;
    end_input(control, call);
}

/* ---- what the orchestrator wants kept ---- */

static void keep(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    size_t bytes;
    const uint8_t *data = wire_get_bin(params, "text", &bytes);

    if (kept_write(&control->arena->kept, data, bytes))
        rpc_reply(call, NULL);
    else
        rpc_refuse(call, RPC_USAGE, "text: expected at most %u bytes, got %zu", KEPT_BYTES, bytes);
}

static void moving_job(struct sm_switch *sw, void *arg)
{
    *(uint32_t *)arg = sw->operation.active ? sw->operation.id : 0;
}

static void kept(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    uint32_t moving;
    size_t bytes;
    const uint8_t *data = kept_read(&control->arena->kept, &bytes);
    struct wire_out *out = wire_new();

    (void)params;
    on_notice(&control->worker.async); /* what has happened until now is told before */
    worker_call(&control->worker, moving_job, &moving);
    if (data)
        wire_put_bin(out, "text", data, bytes);
    wire_put_uint(out, "last_id", atomic_load_explicit(&control->arena->last_id, memory_order_relaxed));
    wire_put_uint(out, "moving", moving);
    rpc_reply(call, out);
}

/*
 * ---- flows ----
 * Owners are asked one after the other, in-band, a page at a time; the flows of shared classes are read under their
 * stripes' locks by the switch itself, as if it were one more slot. A cursor is (slot, shard, cursor in the shard).
 */

#define QUERY_STRIPES ARENA_SLOTS /* the slot that stands for the stripes */

struct query_job {
    struct flows_cursor from;
    uint8_t *page; /* CHANNEL_QUERY_BYTES */
    bool asked;    /* a replica: NOTICE_QUERIED will come */
    uint32_t id;
};

static void start_query(struct sm_switch *sw, void *arg)
{
    struct query_job *job = arg;

    for (; job->from.slot < QUERY_STRIPES; job->from = (struct flows_cursor){.slot = job->from.slot + 1}) {
        if (sw->slots[job->from.slot].shards == 0)
            continue;
        job->asked = switch_query_start(sw, job->from.slot, job->from.shard, job->from.at) == 0;
        if (job->asked)
            return;
    }
    uint32_t stripe = job->from.shard < SM_SHARDS ? SM_SHARDS : job->from.shard;
    query_fill(sw->arena->state, job->page, stripe, job->from.at, SM_SHARDS + STATE_STRIPES, NULL, ARENA_SLOTS, NULL,
               NULL);
}

/* A copy: the next query overwrites the area, and a replica wrote its lengths. */
static void copy_page(struct sm_switch *sw, void *arg)
{
    struct query_job *job = arg;
    const struct switch_slot *slot = &sw->slots[job->from.slot];

    memcpy(job->page, slot->query, CHANNEL_QUERY_BYTES);
    job->id = slot->id;
}

static void flows_end(struct control *control, const struct flows_cursor *cursor)
{
    struct rpc_call *call = control->flows_call;
    struct wire_out *out = control->flows_out;

    wire_array_end(out);
    if (cursor)
        wire_put_uint(out, "cursor", (uint64_t)cursor->slot << 56 | (uint64_t)cursor->shard << 32 | cursor->at);
    else
        wire_put_nil(out, "cursor");
    control->flows_call = NULL;
    control->flows_out = NULL;
    rpc_reply(call, out);
}

static void put_flow(struct control *control, const struct query_flow *flow, const uint8_t *record, uint32_t id)
{
    const struct state_class *cls = state_class(control->arena->state, flow->form);
    json_t *state = flow->encoded ? report_encoded(record, flow->record_bytes) : report_record(cls, record);

    wire_map_begin(control->flows_out, NULL);
    wire_put_str(control->flows_out, "class", cls->name);
    wire_put_bin(control->flows_out, "key", flow->key, sizeof flow->key);
    wire_put_uint(control->flows_out, "shard", flow->shard);
    wire_put_uint(control->flows_out, "replica", id);
    put_json(control->flows_out, "state", state);
    wire_map_end(control->flows_out);
    control->flows_count++;
    json_decref(state);
}

/* Returns false when the page contradicts itself. */
static bool put_page(struct control *control, const uint8_t *page, uint32_t id)
{
    const struct query_header *header = (const struct query_header *)(const void *)page;
    uint32_t at = sizeof *header;

    for (uint32_t i = 0; i < header->count; i++) {
        struct query_flow flow;
        if (at > CHANNEL_QUERY_BYTES - sizeof flow)
            return false;
        memcpy(&flow, page + at, sizeof flow);
        at += (uint32_t)sizeof flow;
        const struct state_class *cls = state_class(control->arena->state, flow.form);
        if (!cls || (!flow.encoded && flow.record_bytes != cls->record_size) ||
            flow.record_bytes > CHANNEL_QUERY_BYTES - at)
            return false;
        put_flow(control, &flow, page + at, id);
        at += (flow.record_bytes + 7) & ~7u;
    }
    return true;
}

/* A page is there. True: *next is to be asked for; else the answer has been given. */
static bool flows_page(struct control *control, const struct query_job *job, struct flows_cursor *next)
{
    bool stripes = job->from.slot == QUERY_STRIPES;
    struct query_header header;

    memcpy(&header, job->page, sizeof header);
    bool whole = put_page(control, job->page, stripes ? 0 : job->id);
    bool through = header.next_shard >= (stripes ? SM_SHARDS + STATE_STRIPES : SM_SHARDS);
    /* A page that leads nowhere would be asked for again for ever. */
    bool advances = through || header.next_shard > job->from.shard || header.next_cursor > job->from.at;
    if (!whole || !advances || (through && stripes)) {
        flows_end(control, NULL);
        return false;
    }
    *next = through ? (struct flows_cursor){.slot = job->from.slot + 1}
                    : (struct flows_cursor){job->from.slot, header.next_shard, header.next_cursor};
    if (control->flows_count < control->flows_limit)
        return true;
    flows_end(control, next);
    return false;
}

static void flows_ask(struct control *control, struct flows_cursor from)
{
    struct query_job job = {.page = malloc(CHANNEL_QUERY_BYTES)};

    if (!job.page) {
        flows_end(control, NULL);
        return;
    }
    do {
        job.from = from;
        worker_call(&control->worker, start_query, &job);
        control->flows_from = job.from;
    } while (!job.asked && flows_page(control, &job, &from));
    free(job.page);
}

static void flows_answered(struct control *control)
{
    struct query_job job = {.from = control->flows_from, .page = malloc(CHANNEL_QUERY_BYTES)};
    struct flows_cursor next;

    if (!control->flows_call) {
        free(job.page);
        return;
    }
    if (!job.page) {
        flows_end(control, NULL);
        return;
    }
    worker_call(&control->worker, copy_page, &job);
    if (flows_page(control, &job, &next))
        flows_ask(control, next);
    free(job.page);
}

static void flows(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    uint64_t cursor = wire_get_uint(params, "cursor", 0);
    struct flows_cursor from = {
        .slot = (uint32_t)(cursor >> 56), .shard = (uint32_t)(cursor >> 32) & 0xffffff, .at = (uint32_t)cursor};

    if (control->flows_call) {
        rpc_refuse(call, RPC_BUSY, "another request for flows is under way");
        return;
    }
    if (from.slot > QUERY_STRIPES) {
        rpc_refuse(call, RPC_USAGE, "no such cursor");
        return;
    }
    control->flows_call = call;
    control->flows_count = 0;
    control->flows_limit = (uint32_t)wire_get_uint(params, "limit", 10000);
    control->flows_out = wire_new();
    wire_array_begin(control->flows_out, "flows");
    flows_ask(control, from);
}

/* ---- check ---- */

static void begin_check(struct sm_switch *sw, void *arg)
{
    *(int *)arg = switch_check_begin(sw);
}

static void take_findings(struct sm_switch *sw, void *arg)
{
    memcpy(arg, &sw->check.findings, sizeof sw->check.findings);
}

static void checked(struct control *control)
{
    struct rpc_call *call = control->check_call;
    struct check_findings *findings = malloc(sizeof *findings);
    struct wire_out *out = wire_new();

    control->check_call = NULL;
    if (!call || !findings) {
        if (call)
            rpc_refuse(call, RPC_FAILED, "out of memory");
        wire_free(out);
        free(findings);
        return;
    }
    worker_call(&control->worker, take_findings, findings);
    wire_put_uint(out, "count", findings->count);
    wire_put_double(out, "paused_us", (double)findings->paused_ns / 1e3);
    wire_array_begin(out, "findings");
    for (unsigned i = 0; i < findings->count && i < CHECK_LINES; i++)
        wire_put_str(out, NULL, findings->lines[i]);
    wire_array_end(out);
    free(findings);
    rpc_reply(call, out);
}

static void check(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    int result = SM_E_STATE;

    (void)params;
    if (!control->check_call)
        worker_call(&control->worker, begin_check, &result);
    if (result)
        rpc_refuse(call, RPC_BUSY, "another operation or check is under way");
    else
        control->check_call = call;
}

/* ---- dispatch ---- */

static const struct {
    const char *name;
    void (*handler)(struct control *control, struct rpc_call *call, const struct wire_value *params);
} methods[] = {
    {"hello", hello},
    {"status", status},
    {"shards", shards},
    {"classes", classes},
    {"assign", assign},
    {"start", start},
    {"gate", gate},
    {"move", move},
    {"open_gate", open_gate},
    {"flows", flows},
    {"retire", retire},
    {"finish", finish},
    {"shutdown", shut_down},
    {"checkpoint", checkpoint_serve},
    {"restore", restore_serve},
    {"upgrade", upgrade_begin},
    {"upgraded", upgrade_end},
    {"keep", keep},
    {"kept", kept},
    {"check", check},
};

static void request(void *user, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    struct control *control = user;

    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i].name, method) == 0) {
            methods[i].handler(control, call, params);
            return;
        }
    rpc_refuse(call, RPC_USAGE, "the switch has no method '%s'", method);
}

/* ---- notices from the worker ---- */

struct notice_job {
    uint64_t entered, time;
    struct switch_operation operation;
    uint64_t now;
    bool damaged;
    struct sm_errbuf text;
    char error[256];
};

static void notice_job(struct sm_switch *sw, void *arg)
{
    struct notice_job *job = arg;

    job->entered = sw->entered;
    job->time = sw->clock - sw->first_time;
    job->operation = sw->operation;
    job->now = sw->now;
    job->damaged = sw->input_ended && sw->input_result != SM_E_END;
    if (job->damaged)
        job->text = sw->input_error;
    memcpy(job->error, sw->error, sizeof job->error);
}

static void broadcast_moved(struct control *control, const struct notice_job *job)
{
    struct wire_out *params = wire_new();

    wire_put_uint(params, "id", job->operation.id);
    wire_put_uint(params, "completed", job->operation.completed);
    wire_put_uint(params, "abandoned", job->operation.abandoned);
    wire_put_uint(params, "flows", job->operation.flows);
    wire_put_uint(params, "flows_left", job->operation.flows_left);
    wire_put_uint(params, "held_packets", job->operation.held_packets);
    wire_put_double(params, "seconds", (double)(job->now - job->operation.started) / 1e9);
    wire_put_str(params, "cause", job->operation.abandoned ? job->operation.cause : NULL);
    rpc_broadcast(control->server, "moved", params);
    log_write(LEVEL_INFO, "moved",
              LOG_WITH(log_number("shards", job->operation.completed),
                       log_number("abandoned", job->operation.abandoned), log_number("flows", job->operation.flows),
                       log_number("held_packets", job->operation.held_packets),
                       log_text("reason", job->operation.abandoned ? job->operation.cause : NULL)),
              "%" PRIu64 " shards moved", (uint64_t)job->operation.completed);
}

static void on_notice(uv_async_t *async)
{
    struct worker *worker = async->data;
    struct control *control = worker->async.loop->data;
    unsigned notices = atomic_exchange_explicit(&worker->notices, 0, memory_order_acquire);
    static struct notice_job job;
    struct wire_out *params;

    worker_call(worker, notice_job, &job);
    if (notices & 1u << NOTICE_FAILED) {
        params = wire_new();
        wire_put_str(params, "message", job.error);
        rpc_broadcast(control->server, "failed", params);
    }
    if (notices & 1u << NOTICE_CONDEMNED)
        attach_kill_condemned(control);
    if (notices & 1u << NOTICE_MOVED)
        broadcast_moved(control, &job);
    if (notices & 1u << NOTICE_GATED) {
        params = wire_new();
        wire_put_uint(params, "packet", job.entered);
        wire_put_uint(params, "time", job.time);
        rpc_broadcast(control->server, "gated", params);
    }
    if (notices & 1u << NOTICE_RESTORED)
        checkpoint_noticed(control);
    if (notices & 1u << NOTICE_CHECKED)
        checked(control);
    if (notices & 1u << NOTICE_QUERIED)
        flows_answered(control);
    if (notices & 1u << NOTICE_ENDED) {
        params = wire_new();
        wire_put_uint(params, "packets", job.entered);
        wire_put_str(params, "damaged", job.damaged ? job.text.text : NULL);
        rpc_broadcast(control->server, "ended", params);
        if (control->finish_call)
            finished(control);
    }
}

static void dismiss_job(struct sm_switch *sw, void *arg)
{
    (void)arg;
    switch_dismiss(sw);
}

static void stop_loop(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

/* Tell replicas to end and leave, once the last answer is on its way. */
void control_end(struct control *control)
{
    static uv_timer_t soon;
    static bool ending;

    if (ending)
        return;
    ending = true;
    worker_call(&control->worker, dismiss_job, NULL);
    attach_shutdown(control);
    uv_timer_init(control->loop, &soon);
    uv_timer_start(&soon, stop_loop, 50, 0);
}

static void on_huge(uv_timer_t *timer)
{
    struct control *control = timer->data;

    arena_huge_ahead(control->arena, &control->huge_done);
}

static void turn_job(struct sm_switch *sw, void *arg)
{
    (void)sw, (void)arg;
}

/* A worker that does not come round to a job holds us up, so that nothing is told. */
static void on_watchdog(uv_timer_t *timer)
{
    struct control *control = timer->data;

    worker_call(&control->worker, turn_job, NULL);
    manager_tell("WATCHDOG=1");
}

static void watch(struct control *control)
{
    uint64_t every = manager_watchdog_ms();

    control->watchdog.data = control;
    uv_timer_init(control->loop, &control->watchdog);
    if (every > 0)
        uv_timer_start(&control->watchdog, on_watchdog, 0, every);
}

int control_start(struct control *control, struct sm_errbuf *error)
{
    const struct rpc_handlers handlers = {.user = control, .request = request};
    char path[108];
    int result;

    control->loop->data = control;
    control->huge.data = control;
    uv_timer_init(control->loop, &control->huge);
    uv_timer_start(&control->huge, on_huge, 0, HUGE_EVERY_MS);
    result = worker_start(&control->worker, control->worker.sw, control->loop, on_notice);
    if (result) {
        snprintf(error->text, sizeof error->text, "cannot start the worker: %s", sm_strerror(result));
        return result;
    }
    watch(control);
    result = attach_listen(control, rundir_file(control->dir, "attach.sock", path), error);
    if (result == 0)
        result = rpc_listen(&control->server, control->loop, rundir_file(control->dir, "switch.sock", path), &handlers,
                            error);
    return result;
}
