/* SPDX-License-Identifier: BSD-2-Clause */
/* The test kit: what the service promises, whether it holds, and whether two runs ended alike. */

#include "arena/builds.h"
#include "testing/test.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "switch/bind.h"

__attribute__((format(printf, 2, 3))) static void broke(struct sm_test *test, const char *format, ...)
{
    va_list args;

    if (test->result.broken[0])
        return;
    va_start(args, format);
    vsnprintf(test->result.broken, sizeof test->result.broken, format, args);
    va_end(args);
}

void test_count(struct sm_test *test)
{
    const struct sm_switch *sw = test->sw;
    struct sm_test_result *result = &test->result;
    struct state_usage usage;

    state_usage(test->arena->state, &usage);
    result->in = sw->entered;
    result->generated = sw->generated;
    result->out = sw->out;
    result->dropped = result->busy_shards = 0;
    for (unsigned i = 0; i < SWITCH_DROP_COUNT + SM_MAX_REASONS; i++)
        result->dropped += sw->dropped[i];
    for (uint32_t i = 0; i < SM_SHARDS; i++)
        result->busy_shards += sw->shards[i].packets > 0;
    result->moves = sw->moves_completed;
    result->copied = sw->moves_copied;
    result->abandoned = sw->moves_abandoned;
    result->held = sw->held_packets;
    result->deaths = sw->deaths;
    result->taken_over = sw->taken_over;
    result->flows_live = usage.flows_live;
    result->flows_created = usage.flows_created;
    result->flows_refused = usage.flows_refused;
    result->flows_evicted = usage.flows_evicted;
    result->bindings_live = usage.bindings_live;
    result->bindings_refused = usage.bindings_refused;
    result->bindings_steered = sw->bindings ? sw->bindings->steered : 0;
    result->memory_used = usage.memory_used;
    result->replicas_in_flight = sw->replicas_in_flight_max;
    result->switch_deaths = test->switch_deaths;
    result->lost = sw->dropped[DROP_SWITCH_DIED];
    result->damaged = sw->input_ended && sw->input_result != SM_E_END;
}

static uint64_t owner_violations(const struct sm_switch *sw)
{
    uint64_t violations = sw->owner_violations;

    for (unsigned i = 0; i < sw->slot_count; i++)
        if (sw->slots[i].channel && sw->slots[i].state != SLOT_FREE)
            violations += atomic_load_explicit(&sw->slots[i].channel->counters.owner_violations, memory_order_relaxed);
    return violations;
}

static void judge_memory(struct sm_test *test, bool at_rest)
{
    static struct check_findings findings;

    switch_check_now(test->sw, at_rest, &findings);
    if (findings.count > 0)
        broke(test, "memory: %s", findings.lines[0]);
}

bool test_judge(struct sm_test *test, bool deep, bool end)
{
    const struct sm_switch *sw = test->sw;
    struct sm_errbuf text;

    if (sw->operation.abandoned)
        memcpy(test->result.abandoned_for, sw->operation.cause, sizeof test->result.abandoned_for);
    if (sw->error[0])
        broke(test, "%s", sw->error);
    if (owner_violations(sw))
        broke(test, "one owner: packets were processed by a replica that was not, two owners of one shard");
    if (sw->audit.reordered && audit_ordered(&sw->audit, &text))
        broke(test, "ordered: %s", text.text);
    if ((end || sw->audit.twice || sw->audit.altered) && strcmp(audit_loss_free(&sw->audit, &text), "held") != 0)
        broke(test, "loss-free: %s", text.text);
    if (deep)
        judge_memory(test, end);
    if (end) {
        test_count(test);
        if (sw->bindings && sw->bindings->count != test->result.bindings_live)
            broke(test, "bound keys: the switch knows %u, there are %" PRIu64, sw->bindings->count,
                  test->result.bindings_live);
        if (sw->lanes_used > 0)
            broke(test, "copying: %u lanes were not given back", sw->lanes_used);
        if (test->result.in + test->result.generated != test->result.out + test->result.dropped)
            broke(test,
                  "loss-free: %" PRIu64 " packets in and %" PRIu64 " made, %" PRIu64 " out and %" PRIu64 " dropped",
                  test->result.in, test->result.generated, test->result.out, test->result.dropped);
    }
    return test->result.broken[0] != '\0';
}

int sm_test_check(struct sm_test *test)
{
    return test_judge(test, !test->options.threads || test->finished, false) ? SM_E_STATE : 0;
}

const struct sm_test_result *sm_test_result(struct sm_test *test)
{
    test_count(test);
    return &test->result;
}

uint64_t sm_test_dropped(const struct sm_test *test, const char *reason)
{
    static const char *const own[] = {
#define DROP_NAME(id, name) name,
        SWITCH_DROPS(DROP_NAME)
#undef DROP_NAME
    };
    const struct registration *registration = &test->arena->registration;

    for (unsigned i = 0; i < SWITCH_DROP_COUNT; i++)
        if (strcmp(own[i], reason) == 0)
            return test->sw->dropped[i];
    for (unsigned i = 0; i < registration->reason_count; i++)
        if (strcmp(registration->reasons[i], reason) == 0)
            return test->sw->dropped[SWITCH_DROP_COUNT + i];
    return 0;
}

const struct sm_trace *sm_test_output(const struct sm_test *test)
{
    return test->output;
}

static struct sm_test_flow flow_seen(const struct sm_test *test, uint32_t shard, struct flow *flow)
{
    unsigned writer = shard < SM_SHARDS ? atomic_load_explicit(&test->arena->writer[shard], memory_order_relaxed) : 0;

    return (struct sm_test_flow){
        .cls = {(uint16_t)flow_class(flow)},
        .key = flow_key(flow),
        .record = flow_record(flow),
        .record_size = state_class(test->arena->state, flow_form(flow))->record_size,
        .replica = writer ? test->sw->slots[writer - 1].id : 0,
        .shard = shard,
    };
}

void sm_test_flows(const struct sm_test *test, bool (*fn)(const struct sm_test_flow *flow, void *arg), void *arg)
{
    struct flow *flow;

    for (uint32_t shard = 0; shard < SM_SHARDS + STATE_STRIPES; shard++)
        for (uint32_t cursor = 0; (flow = state_next(test->arena->state, shard, &cursor)) != NULL;) {
            const struct sm_test_flow seen = flow_seen(test, shard, flow);
            if (!fn(&seen, arg))
                return;
        }
}

struct wanted {
    sm_class cls;
    const struct sm_key *key;
    const void *record;
};

static bool is_wanted(const struct sm_test_flow *flow, void *arg)
{
    struct wanted *wanted = arg;

    if (flow->cls.id == wanted->cls.id && memcmp(flow->key, wanted->key, sizeof *flow->key) == 0)
        wanted->record = flow->record;
    return wanted->record == NULL;
}

const void *sm_test_flow(const struct sm_test *test, sm_class cls, const struct sm_key *key)
{
    struct wanted wanted = {.cls = cls, .key = key};

    sm_test_flows(test, is_wanted, &wanted);
    return wanted.record;
}

/* ---- comparing ---- */

static uint64_t bytes_of(const struct sm_test_flow *flow)
{
    uint64_t digest = 14695981039346656037ull;

    for (uint32_t i = 0; i < flow->record_size; i++)
        digest = (digest ^ ((const uint8_t *)flow->record)[i]) * 1099511628211ull;
    return digest;
}

struct other {
    const struct sm_test *test;
    uint64_t (*digest)(const struct sm_test_flow *flow);
    struct sm_errbuf *error;
    uint64_t flows;
};

/* Keys hash alike where seeds are; anywhere else the flow is looked for. */
static bool is_there(const struct sm_test_flow *flow, void *arg)
{
    struct other *other = arg;
    struct sm_test_flow twin = *flow;

    twin.record = sm_test_flow(other->test, flow->cls, flow->key);
    other->flows++;
    if (twin.record && other->digest(flow) == other->digest(&twin))
        return true;
    snprintf(other->error->text, sizeof other->error->text, "a flow of class %s, ports %u and %u: %s",
             builds_class(other->test->arena, flow->cls.id)->name, flow->key->a_port, flow->key->b_port,
             twin.record ? "its record differs" : "it is in one run only");
    return false;
}

/* What is done to shared flows may be done again by whoever takes over, so how often they began says nothing. */
static bool shares_flows(const struct sm_test *test)
{
    bool shared = false;

    for (unsigned i = 0; i < state_class_count(test->arena->state); i++)
        shared |= !state_class(test->arena->state, i)->partitioned;
    return shared;
}

bool sm_test_same(struct sm_test *a, struct sm_test *b, enum sm_granularity key, struct sm_errbuf *error)
{
    const struct sm_test_result *x = sm_test_result(a), *y = sm_test_result(b);
    struct other other = {.test = b, .digest = a->options.digest ? a->options.digest : bytes_of, .error = error};

    error->text[0] = '\0';
    if (x->in != y->in || x->out != y->out || x->generated != y->generated || x->dropped != y->dropped ||
        x->flows_live != y->flows_live || (x->flows_created != y->flows_created && !shares_flows(a))) {
        snprintf(error->text, sizeof error->text,
                 "in %" PRIu64 " and %" PRIu64 ", generated %" PRIu64 " and %" PRIu64 ", out %" PRIu64 " and %" PRIu64
                 ", dropped %" PRIu64 " and %" PRIu64 ", flows created %" PRIu64 " and %" PRIu64 ", live %" PRIu64
                 " and %" PRIu64,
                 x->in, y->in, x->generated, y->generated, x->out, y->out, x->dropped, y->dropped, x->flows_created,
                 y->flows_created, x->flows_live, y->flows_live);
        return false;
    }
    if (a->output && b->output && !sm_trace_same(a->output, b->output, key, error))
        return false;
    sm_test_flows(a, is_there, &other);
    return error->text[0] == '\0';
}

static int run(struct sm_test **test, const struct sm_test_options *options, struct sm_errbuf *error)
{
    int result = sm_test_create(test, options, error);

    if (result == 0 && sm_test_finish(*test) != 0) {
        snprintf(error->text, sizeof error->text, "%s: %.200s", options->replicas > 1 ? "split" : "unsplit",
                 sm_test_result(*test)->broken);
        result = SM_E_STATE;
    }
    return result;
}

int sm_test_compare(const struct sm_test_options *options, struct sm_errbuf *error)
{
    struct sm_test_options split = *options, unsplit;
    struct sm_test *a = NULL, *b = NULL;
    struct sm_errbuf text = {""};

    split.output = NULL;
    unsplit = split;
    unsplit.replicas = 1;
    unsplit.schedule = unsplit.threads = false;
    unsplit.kills = 0;
    int result = run(&a, &unsplit, &text);
    if (result == 0)
        result = run(&b, &split, &text);
    if (result == 0 && !sm_test_same(a, b, options->order_arrival ? SM_BY_ALL : a->arena->steering.granularity, &text))
        result = SM_E_STATE;
    if (result && error)
        snprintf(error->text, sizeof error->text, "seed %" PRIu64 ": %.220s", options->seed, text.text);
    sm_test_destroy(a, NULL);
    sm_test_destroy(b, NULL);
    return result;
}
