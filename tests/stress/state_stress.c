/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two threads as two actors own halves of some shards, change them at random, and hand shards to one another through an
 * atomic owner word each; so flows end in other hands than they began in, and slabs are shared. A few stripes are
 * changed by both, under their locks. In the end the state must check, and nothing be lost. SM_SEED chooses the run.
 */

#include "../state/support.h"

#include <pthread.h>
#include <sched.h>

#define ACTORS 2
#define SHARDS 24
#define STRIPES 3
#define NUMBERS 500
#define ROUNDS 80000u /* of both together */

struct stress {
    struct fixture f;
    struct state_actor *actors[ACTORS];
    unsigned classes[3];
    _Atomic(uint32_t) owner[SHARDS];
    struct {
        unsigned char there[3][NUMBERS]; /* written by the shard's owner */
        uint64_t now;
    } shards[SHARDS + STRIPES];
    _Atomic(uint64_t) moved, refused;
    _Atomic(uint32_t) rounds, wrong;
};

struct worker {
    struct stress *stress;
    uint32_t number;
    struct random random;
    pthread_t thread;
};

#define EXPECT(stress, condition)                                                                                      \
    do {                                                                                                               \
        if (!(condition) && atomic_fetch_add(&(stress)->wrong, 1) == 0) {                                              \
            fprintf(stderr, "line %d: expected %s\n", __LINE__, #condition);                                           \
        }                                                                                                              \
    } while (0)

static void expire(struct worker *w, struct state_actor *actor, unsigned s, uint32_t shard)
{
    struct stress *stress = w->stress;
    struct flow *flow;
    unsigned slot;
    sm_time deadline;
    uint64_t last = 0;
    stress->shards[s].now += 50;
    while (state_timer_expire(actor, shard, (sm_time){stress->shards[s].now}, &flow, &slot, &deadline)) {
        EXPECT(stress, deadline.ns >= last);
        last = deadline.ns;
    }
}

static void change(struct worker *w, unsigned s, uint32_t shard)
{
    struct stress *stress = w->stress;
    struct state_actor *actor = stress->actors[w->number];
    unsigned c = random_below(&w->random, 3), n = random_below(&w->random, NUMBERS);
    unsigned char *there = &stress->shards[s].there[c][n];
    struct flow *flow = find_key(stress->f.state, shard, stress->classes[c], n);
    EXPECT(stress, (flow != NULL) == *there);
    if (flow == NULL) {
        flow = insert_key(actor, shard, stress->classes[c], n);
        if (flow == NULL) {
            atomic_fetch_add(&stress->refused, 1);
            return;
        }
        *there = 1;
        *(uint64_t *)flow_record(flow) = n;
        if (flow->timers > 0) {
            uint64_t deadline = stress->shards[s].now + 1 + random_below(&w->random, 100000);
            state_timer_set(actor, shard, flow, c - 1, (sm_time){deadline});
        }
    } else {
        EXPECT(stress, *(uint64_t *)flow_record(flow) == n);
        state_remove(actor, shard, flow);
        *there = 0;
    }
    if (random_below(&w->random, 16) == 0) {
        expire(w, actor, s, shard);
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct stress *stress = w->stress;
    while (atomic_load_explicit(&stress->rounds, memory_order_relaxed) < ROUNDS) {
        unsigned s = random_below(&w->random, SHARDS + STRIPES);
        if (s >= SHARDS) {
            uint32_t stripe = SM_SHARDS + s;
            state_lock(stress->f.state, stripe, w->number);
            change(w, s, stripe);
            state_unlock(stress->f.state, stripe);
            continue;
        }
        if (atomic_load_explicit(&stress->owner[s], memory_order_acquire) != w->number) {
            if (random_below(&w->random, 64) == 0) {
                sched_yield();
            }
            continue;
        }
        atomic_fetch_add_explicit(&stress->rounds, 1, memory_order_relaxed);
        for (unsigned k = 0; k < 8; k++) {
            change(w, s, s);
        }
        if (random_below(&w->random, 20) == 0) {
            atomic_fetch_add(&stress->moved, 1);
            atomic_store_explicit(&stress->owner[s], 1 - w->number, memory_order_release);
        }
        if (random_below(&w->random, 5000) == 0) { /* leave and come back */
            state_actor_leave(stress->actors[w->number]);
            EXPECT(stress, state_actor_join(&stress->actors[w->number], stress->f.state, w->number) == 0);
        }
    }
    return NULL;
}

static void finish(struct stress *stress)
{
    struct sm_errbuf error = {""};
    EXPECT(stress, state_check(stress->f.state, &error) == 0);
    fprintf(stderr, "%s\n", error.text);
    struct state_usage usage;
    for (unsigned s = 0; s < SHARDS + STRIPES; s++) {
        uint32_t shard = s < SHARDS ? s : SM_SHARDS + s, cursor = 0, expected = 0, seen = 0;
        for (unsigned n = 0; n < NUMBERS; n++) {
            expected += stress->shards[s].there[0][n] + stress->shards[s].there[1][n] + stress->shards[s].there[2][n];
        }
        for (struct flow *flow; (flow = state_next(stress->f.state, shard, &cursor)) != NULL; seen++) {
            state_remove(stress->actors[s % ACTORS], shard, flow);
        }
        EXPECT(stress, seen == expected);
    }
    state_usage(stress->f.state, &usage);
    EXPECT(stress, usage.flows_live == 0 && usage.flows_created == usage.flows_closed);
    EXPECT(stress, usage.flows_refused == stress->refused);
    EXPECT(stress, state_check(stress->f.state, &error) == 0);
    fprintf(stderr, "%s\ncreated %llu, moved %llu, refused %llu\n", error.text, (unsigned long long)usage.flows_created,
            (unsigned long long)stress->moved, (unsigned long long)stress->refused);
}

int main(void)
{
    struct stress *stress = calloc(1, sizeof *stress);
    struct worker workers[ACTORS];
    struct random random = random_seeded("state_stress");
    stress->f = fixture_open(11u << 19, 19000); /* too little for all, so that slabs change hands */
    stress->classes[0] = fixture_class(&stress->f, 8, 0, 0);
    stress->classes[1] = fixture_class(&stress->f, 64, 1, 30000);
    stress->classes[2] = fixture_class(&stress->f, 500, 2, 0);
    stress->actors[0] = stress->f.actor;
    EXPECT(stress, state_actor_join(&stress->actors[1], stress->f.state, 1) == 0);
    for (unsigned s = 0; s < SHARDS; s++) {
        stress->owner[s] = s % ACTORS;
    }
    for (unsigned i = 0; i < ACTORS; i++) {
        workers[i] = (struct worker){.stress = stress, .number = i, .random = {random_next(&random)}};
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    for (unsigned i = 0; i < ACTORS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    finish(stress);
    int status = atomic_load(&stress->wrong) == 0 ? 0 : 1;
    fixture_close(&stress->f);
    free(stress);
    return status;
}
