/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an orchestrator has the switch keep, the next one reads as it was: each field, from random contents; and written
 * once more it is the same text. What is absent has its default, and another version's text is not read.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orchestrator.h"
#include "testing/random.h"

#define ROUNDS 300
#define EVENTS 6

static uint64_t seed;

static uint32_t below(uint32_t bound)
{
    return (uint32_t)(random_xorshift(&seed) >> 16) % bound;
}

/* ---- the loops around it ---- */

static uint8_t sent[65536];
static size_t sent_bytes;
static unsigned asked, answered;

static struct wire_message *message_of(const uint8_t *bytes, size_t length)
{
    struct wire_reader *reader = wire_reader_new();
    struct wire_message *message = NULL;
    size_t room = length;
    void *space = wire_reader_space(reader, &room);

    cr_assert(space && room >= length);
    memcpy(space, bytes, length);
    wire_reader_filled(reader, length);
    cr_assert_eq(wire_reader_next(reader, &message), 1);
    wire_reader_free(reader);
    return message;
}

void rpc_request(struct rpc_peer *peer, const char *method, struct wire_out *params, uint64_t timeout_ms,
                 rpc_result_fn *done, void *user)
{
    size_t length;
    const uint8_t *bytes = wire_bytes(params, &length);
    struct wire_message *message = message_of(bytes, length);
    const uint8_t *text = wire_get_bin(wire_message_value(message), "text", &sent_bytes);

    (void)peer, (void)timeout_ms;
    cr_assert_str_eq(method, "keep");
    cr_assert(text && sent_bytes <= sizeof sent);
    memcpy(sent, text, sent_bytes);
    wire_message_free(message);
    wire_free(params);
    asked++;
    done(user, NULL, NULL);
}

void orchestrator_kept(struct orchestrator *o)
{
    (void)o;
    answered++;
}

void orchestrator_fail(struct orchestrator *o, const char *format, ...)
{
    (void)o;
    cr_assert_fail("%s", format);
}

void orchestrator_child_exited(struct orchestrator *o, struct child *child)
{
    (void)o, (void)child;
}

/* ---- two orchestrators ---- */

static void make(struct orchestrator *o, struct event *events)
{
    memset(o, 0, sizeof *o);
    memset(events, 0, EVENTS * sizeof *events);
    o->phase = PHASE_RUNNING;
    o->sw = (struct rpc_peer *)o; /* only to be there */
    o->events.list = events;
    o->events.count = EVENTS;
    ops_init(&o->ops, 1, 8);
}

static void end(struct orchestrator *o)
{
    program_free(&o->program);
    program_free(&o->next);
    selector_free(o->selector);
    children_free(o);
    free(o->intent);
}

static void make_program(struct program *program)
{
    static const char *const words[] = {"./mb", "--policy", "a b", "", "-x"};
    const char *args[4] = {NULL};
    unsigned count = below(4);

    for (unsigned i = 0; i < count; i++)
        args[i] = words[1 + below(4)];
    cr_assert_eq(program_set(program, words[0], args), 0);
}

static void make_children(struct orchestrator *o)
{
    for (unsigned i = below(7); i > 0; i--) {
        uint32_t id = ops_add(&o->ops);
        struct ops_replica *replica = &o->ops.replicas[o->ops.count - 1];
        replica->state = (enum ops_replica_state)below(3);
        replica->fresh = below(2);
        replica->leaving = below(2);
        child_note(o, id)->alive = true;
    }
    for (unsigned i = below(5); i > 0; i--) {
        struct child *child = child_note(o, ++o->ops.last_id);
        child->packets = below(1u << 30);
        child->shards = below(16384);
        child->status = below(2) ? CHILD_UNKNOWN : (int64_t)below(20) - 10;
        if (below(2))
            snprintf(child->condemned, sizeof child->condemned, "did not answer for %u s", below(100));
    }
}

static void make_operation(struct orchestrator *o)
{
    struct ops *ops = &o->ops;
    struct sm_errbuf error;

    ops->stage = (enum ops_stage)below(OPS_WAITING + 1);
    ops->request = (struct ops_request){
        .verb = (enum ops_verb)below(OPS_UPGRADE + 1),
        .count = below(9),
        .replica = below(9),
        .into = below(9),
        .copy = below(2),
        .no_rollback = below(2),
        .trial_ms = below(OPS_TRIAL_MOST_MS),
    };
    ops->began = below(2);
    ops->by_new = below(2);
    ops->returning = below(2);
    ops->tries = below(OPS_UPGRADE_TRIES);
    ops->result.code = (enum ops_code)below(OPS_TIMED_OUT + 1);
    ops->result.into = below(9);
    ops->result.moved.completed = below(16384);
    ops->result.moved.abandoned = below(16384);
    snprintf(ops->result.message, sizeof ops->result.message, "%s", below(2) ? "replica r3 is gone" : "");
    for (unsigned i = below(50); i > 0; i--)
        ops->ranges[ops->range_count++] = (struct placement_range){below(16384), below(16384), below(9)};
    o->operation_for = (enum operation_for)below(FOR_US + 1);
    if (below(2))
        cr_assert_eq(selector_create(&o->selector, below(2) ? "shards:1-9" : "tcp port 80", &error), 0);
    if (below(2))
        make_program(&o->next);
    make_program(&o->program);
}

static void make_events(struct orchestrator *o)
{
    static const char *const results[] = {NULL, "done", "refused", "abandoned", "failed"};

    o->event = below(EVENTS + 1);
    o->event_running = o->event < EVENTS && below(2);
    o->killed = below(9);
    for (unsigned i = 0; i < o->event; i++) {
        o->events.list[i].result = results[below(5)];
        o->events.list[i].seconds = below(1000) / 8.0;
        snprintf(o->events.list[i].message, sizeof o->events.list[i].message, "%s", below(2) ? "the hold is full" : "");
    }
}

static void fill(struct orchestrator *o)
{
    make_children(o);
    make_operation(o);
    make_events(o);
    o->missing = below(5);
    o->surplus = below(5);
}

/* ---- the same ---- */

static void expect_same_program(const struct program *a, const struct program *b, const char *what)
{
    unsigned i = 0;

    cr_assert_eq(a->exec == NULL, b->exec == NULL, "seed %lu: %s", (unsigned long)seed, what);
    if (!a->exec)
        return;
    cr_assert_str_eq(a->exec, b->exec);
    for (; a->args[i] && b->args[i]; i++)
        cr_assert_str_eq(a->args[i], b->args[i]);
    cr_assert(!a->args[i] && !b->args[i], "%s: another number of arguments", what);
}

static void expect_same_operation(const struct orchestrator *a, const struct orchestrator *b)
{
    const struct ops *x = &a->ops, *y = &b->ops;

    cr_assert_eq(x->stage, y->stage);
    cr_assert_eq(x->request.verb, y->request.verb);
    cr_assert_eq(x->request.count, y->request.count);
    cr_assert_eq(x->request.replica, y->request.replica);
    cr_assert_eq(x->request.into, y->request.into);
    cr_assert_eq(x->request.copy, y->request.copy);
    cr_assert_eq(x->request.no_rollback, y->request.no_rollback);
    cr_assert_eq(x->request.trial_ms, y->request.trial_ms);
    cr_assert_eq(x->began, y->began);
    cr_assert_eq(x->by_new, y->by_new);
    cr_assert_eq(x->returning, y->returning);
    cr_assert_eq(x->tries, y->tries);
    cr_assert_eq(x->result.code, y->result.code);
    cr_assert_eq(x->result.into, y->result.into);
    cr_assert_str_eq(x->result.message, y->result.message);
    cr_assert_eq(x->result.moved.completed, y->result.moved.completed);
    cr_assert_eq(x->result.moved.abandoned, y->result.moved.abandoned);
    cr_assert_eq(y->range_count, x->stage == OPS_MOVING ? x->range_count : 0, "a plan is kept while it is carried out");
    for (size_t i = 0; i < y->range_count; i++)
        cr_assert_eq(memcmp(&x->ranges[i], &y->ranges[i], sizeof x->ranges[i]), 0);
    cr_assert_eq(a->operation_for, b->operation_for);
    cr_assert_eq(a->selector == NULL, b->selector == NULL);
    if (a->selector)
        cr_assert_str_eq(a->selector->text, b->selector->text);
    expect_same_program(&a->program, &b->program, "program");
    expect_same_program(&a->next, &b->next, "next");
}

static void expect_same_replicas(const struct orchestrator *a, const struct orchestrator *b)
{
    cr_assert_eq(a->ops.last_id, b->ops.last_id);
    cr_assert_eq(a->ops.count, b->ops.count);
    for (unsigned i = 0; i < a->ops.count; i++) {
        const struct ops_replica *x = &a->ops.replicas[i], *y = &b->ops.replicas[i];
        cr_assert_eq(x->id, y->id);
        cr_assert_eq(x->state, y->state);
        cr_assert_eq(x->fresh, y->fresh);
        cr_assert_eq(x->leaving, y->leaving);
    }
    const struct child *x = a->children, *y = b->children;
    for (; x && y; x = x->next, y = y->next) {
        cr_assert_eq(x->id, y->id);
        if (x->alive)
            continue; /* what is there the switch says */
        cr_assert_eq(x->packets, y->packets);
        cr_assert_eq(x->shards, y->shards);
        cr_assert_eq(x->status, y->status);
        cr_assert_str_eq(x->condemned, y->condemned);
    }
    cr_assert(!x && !y, "another number of replicas");
    cr_assert_eq(a->missing, b->missing);
    cr_assert_eq(a->surplus, b->surplus);
}

static void expect_same_events(const struct orchestrator *a, const struct orchestrator *b)
{
    cr_assert_eq(a->event, b->event);
    cr_assert_eq(a->event_running, b->event_running);
    cr_assert_eq(a->killed, b->killed);
    for (size_t i = 0; i < a->event; i++) {
        const struct event *x = &a->events.list[i], *y = &b->events.list[i];
        cr_assert_eq(x->result == NULL, y->result == NULL);
        cr_assert(!x->result || strcmp(x->result, y->result) == 0);
        cr_assert_float_eq(x->seconds, y->seconds, 0);
        cr_assert_str_eq(x->message, y->message);
    }
}

static void read_sent(struct orchestrator *o)
{
    struct wire_message *message = message_of(sent, sent_bytes);

    intent_read(o, wire_message_value(message));
    wire_message_free(message);
}

Test(intent, is_read_as_it_was_kept)
{
    static struct orchestrator first, next;
    struct event events[2][EVENTS];
    static uint8_t before[sizeof sent];

    seed = random_seed();
    printf("SM_SEED=%lu\n", (unsigned long)seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        make(&first, events[0]);
        make(&next, events[1]);
        fill(&first);
        asked = answered = 0;
        cr_assert_not(intent_kept(&first), "it is on its way");
        cr_assert(asked == 1 && answered == 1);
        cr_assert(intent_kept(&first), "and nothing has changed since");
        cr_assert_eq(asked, 1);
        size_t bytes = sent_bytes;
        memcpy(before, sent, bytes);
        read_sent(&next);
        expect_same_replicas(&first, &next);
        expect_same_operation(&first, &next);
        expect_same_events(&first, &next);
        for (unsigned i = 0; i < next.ops.count; i++)
            child_of(&next, next.ops.replicas[i].id)->alive = true;
        cr_assert_not(intent_kept(&next));
        cr_assert(sent_bytes == bytes && memcmp(sent, before, bytes) == 0, "the same once more");
        end(&first);
        end(&next);
    }
}

/* Every change of what is kept is kept. */
Test(intent, a_change_is_kept)
{
    static struct orchestrator o;
    struct event events[EVENTS];
    unsigned expected = 1;

    seed = 1;
    make(&o, events);
    fill(&o);
    o.event = EVENTS - 1;
    intent_kept(&o);
    asked = 1;
#define CHANGE(field)                                                                                                  \
    do {                                                                                                               \
        o.field = !o.field;                                                                                            \
        cr_expect_not(intent_kept(&o), "a change of " #field " is not kept");                                          \
        cr_expect_eq(asked, ++expected);                                                                               \
    } while (0)
    CHANGE(missing);
    CHANGE(surplus);
    CHANGE(killed);
    CHANGE(event_running);
    CHANGE(ops.request.copy);
    CHANGE(ops.request.no_rollback);
    CHANGE(ops.request.trial_ms);
    CHANGE(ops.began);
    CHANGE(ops.by_new);
    CHANGE(ops.returning);
    CHANGE(ops.tries);
    CHANGE(operation_for);
#undef CHANGE
    end(&o);
}

/* A text without a field, as of an older orchestrator; and one of another version. */
Test(intent, what_is_absent_has_its_default)
{
    static struct orchestrator o;
    struct event events[EVENTS];
    struct wire_out *out;
    size_t bytes;

    for (unsigned version = 1; version <= 2; version++) {
        make(&o, events);
        out = wire_new();
        wire_put_uint(out, "version", version);
        wire_put_uint(out, "last_id", 7);
        const uint8_t *text = wire_bytes(out, &bytes);
        memcpy(sent, text, bytes);
        sent_bytes = bytes;
        wire_free(out);
        read_sent(&o);
        cr_expect_eq(o.ops.last_id, version == 1 ? 7 : 0);
        cr_expect_eq(o.ops.stage, OPS_IDLE);
        cr_expect_eq(o.operation_for, FOR_CLIENT);
        cr_expect(o.ops.count == 0 && !o.children && !o.program.exec && !o.next.exec && !o.selector);
        cr_expect(o.missing == 0 && o.surplus == 0 && o.event == 0 && !o.event_running);
        end(&o);
    }
}
