/* SPDX-License-Identifier: BSD-2-Clause */
/* Random operations against a naive model: an array of what should be there. SM_SEED chooses the run. */

#include "support.h"

#include <criterion/criterion.h>

#define SHARDS 5
#define CLASSES 4
#define NUMBERS 700
#define STEPS 60000

struct expected {
    struct flow *flow;
    uint64_t deadline[SM_MAX_TIMERS]; /* 0: disarmed */
    uint64_t content;
};

struct model {
    struct fixture f;
    struct state_actor *actors[2];
    struct random random;
    uint32_t shards[SHARDS];
    unsigned timers[CLASSES];
    uint64_t now;
    uint32_t live;
    struct expected flows[SHARDS][CLASSES][NUMBERS];
};

static void check_all(struct model *m)
{
    struct sm_errbuf error = {""};
    cr_assert_eq(state_check(m->f.state, &error), 0, "%s", error.text);
    for (unsigned s = 0; s < SHARDS; s++) {
        uint32_t expected = 0, cursor = 0, seen = 0;
        for (unsigned c = 0; c < CLASSES; c++) {
            for (unsigned n = 0; n < NUMBERS; n++) {
                expected += m->flows[s][c][n].flow != NULL;
            }
        }
        while (state_next(m->f.state, m->shards[s], &cursor) != NULL) {
            seen++;
        }
        cr_assert_eq(seen, expected);
        cr_assert_eq(state_shard_flows(m->f.state, m->shards[s]), expected);
    }
}

/* The earliest timer of the shard by the promised order; false: none by `now`. */
static bool model_expire(struct model *m, unsigned s, uint64_t now, unsigned *cls, unsigned *number, unsigned *slot)
{
    uint64_t best = UINT64_MAX;
    for (unsigned n = 0; n < NUMBERS; n++) {
        for (unsigned t = 0; t < SM_MAX_TIMERS; t++) {
            for (unsigned c = 0; c < CLASSES; c++) {
                uint64_t deadline = m->flows[s][c][n].deadline[t];
                if (deadline != 0 && deadline <= now && deadline < best) {
                    best = deadline;
                    *cls = c;
                    *number = n;
                    *slot = t;
                }
            }
        }
    }
    return best != UINT64_MAX;
}

static void step_expire(struct model *m, struct state_actor *actor, unsigned s)
{
    m->now += random_below(&m->random, 30);
    for (;;) {
        unsigned c = 0, n = 0, t = 0, slot = 0;
        struct flow *flow;
        sm_time deadline, now = {m->now};
        uint64_t next = state_timer_next(m->f.state, m->shards[s]);
        bool due = model_expire(m, s, m->now, &c, &n, &t);
        cr_assert(!due || next <= m->flows[s][c][n].deadline[t]);
        cr_assert_eq(state_timer_expire(actor, m->shards[s], now, &flow, &slot, &deadline), due);
        if (!due) {
            return;
        }
        struct expected *e = &m->flows[s][c][n];
        cr_assert_eq(flow, e->flow);
        cr_assert_eq(slot, t);
        cr_assert_eq(deadline.ns, e->deadline[t]);
        e->deadline[t] = 0;
        if (random_below(&m->random, 4) == 0) {
            state_remove(actor, m->shards[s], flow);
            *e = (struct expected){0};
            m->live--;
        }
    }
}

static void step_timer(struct model *m, struct state_actor *actor, unsigned s, struct expected *e)
{
    unsigned slot = random_below(&m->random, m->timers[flow_class(e->flow)]);
    cr_assert_eq(state_timer_get(m->f.state, e->flow, slot).ns, e->deadline[slot]);
    if (random_below(&m->random, 8) == 0) {
        state_timer_cancel(actor, m->shards[s], e->flow, slot);
        e->deadline[slot] = 0;
    } else {
        e->deadline[slot] = m->now + 1 + random_below(&m->random, 300); /* a narrow range: many ties */
        cr_assert_eq(state_timer_set(actor, m->shards[s], e->flow, slot, (sm_time){e->deadline[slot]}), 0);
    }
}

static void step(struct model *m, unsigned bias)
{
    struct state_actor *actor = m->actors[random_below(&m->random, 2)];
    unsigned s = random_below(&m->random, SHARDS), c = random_below(&m->random, CLASSES);
    unsigned n = random_below(&m->random, NUMBERS), what = random_below(&m->random, 100);
    struct expected *e = &m->flows[s][c][n];
    struct flow *found = find_key(m->f.state, m->shards[s], c, n);
    cr_assert_eq(found, e->flow);
    if (what < 5) {
        step_expire(m, actor, s);
    } else if (found == NULL && what < bias) {
        e->flow = insert_key(actor, m->shards[s], c, n);
        cr_assert_not_null(e->flow);
        uint64_t *record = flow_record(e->flow);
        cr_assert_eq(flow_of_record(record), e->flow);
        cr_assert_eq((uintptr_t)record % 16, 0);
        cr_assert_eq(*record, 0);
        *record = e->content = random_next(&m->random);
        m->live++;
    } else if (found != NULL && what >= bias) {
        cr_assert_eq(*(uint64_t *)flow_record(found), e->content);
        state_remove(actor, m->shards[s], found);
        *e = (struct expected){0};
        m->live--;
    } else if (found != NULL && m->timers[c] > 0) {
        step_timer(m, actor, s, e);
    }
}

Test(state_model, random_operations)
{
    struct model *m = calloc(1, sizeof *m);
    cr_assert_not_null(m);
    m->random = random_seeded("state_model");
    m->f = fixture_open(8u << 20, 1u << 20);
    m->actors[0] = m->f.actor;
    cr_assert_eq(state_actor_join(&m->actors[1], m->f.state, 7), 0);
    static const uint32_t sizes[CLASSES] = {8, 64, 100, 1000};
    static const uint8_t timers[CLASSES] = {0, 1, 2, 4};
    for (unsigned c = 0; c < CLASSES; c++) {
        cr_assert_eq(fixture_class(&m->f, sizes[c], timers[c], 0), c);
        m->timers[c] = timers[c];
    }
    static const uint32_t shards[SHARDS] = {0, 1, 77, SM_SHARDS - 1, SM_SHARDS + 5};
    memcpy(m->shards, shards, sizeof shards);
    m->now = 1000;
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned phase = i / (STEPS / 6) % 3; /* grow, shrink, churn */
        step(m, phase == 0 ? 90 : phase == 1 ? 25 : 55);
        if (i % 600 == 0) {
            check_all(m);
        }
    }
    check_all(m);
    for (unsigned s = 0; s < SHARDS; s++) {
        uint32_t cursor = 0;
        for (struct flow *flow; (flow = state_next(m->f.state, m->shards[s], &cursor)) != NULL;) {
            state_remove(m->actors[s % 2], m->shards[s], flow);
        }
        cr_assert_eq(state_shard_flows(m->f.state, m->shards[s]), 0);
    }
    struct sm_errbuf error = {""};
    cr_assert_eq(state_check(m->f.state, &error), 0, "%s", error.text);
    struct state_usage usage;
    state_usage(m->f.state, &usage);
    cr_assert_eq(usage.flows_live, 0);
    cr_assert_eq(usage.flows_created, usage.flows_closed);
    fixture_close(&m->f);
    free(m);
}
