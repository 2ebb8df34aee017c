/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Strong objects are linearizable: replicas on threads of their own add to, take from and read one strong counter, and
 * change one locked object, a packet each, with commits here and there; each round's history is searched for an order
 * that explains it. The search itself is tested on histories that have none: the recorded ones with one answer changed,
 * and those of a reader that sees what is not committed. SM_SEED fixes the choices, not the order.
 */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "history.h"
#include "replica/replica.h"
#include "testing/random.h"

#define REPLICAS 3u
#define OPERATIONS 12u /* a replica's, in a round */
#define INITIAL 5

_Static_assert(REPLICAS *OPERATIONS <= HISTORY_MAX, "a round is a history");

struct world;

struct worker {
    struct world *world;
    struct sm_replica *replica;
    pthread_t thread;
    uint64_t random;
    struct history_op counter[OPERATIONS], object[OPERATIONS];
    unsigned counter_count, object_count;
};

struct world {
    struct arena *arena;
    int arena_fd;
    struct worker workers[REPLICAS];
    sm_strong_counter counter;
    sm_strong object;
    _Atomic uint64_t clock;
    bool dirty; /* some reads see what is not committed */
    bool ended;
    pthread_barrier_t begin, end;
};

static uint64_t below(struct worker *worker, uint64_t bound)
{
    return (random_star(&worker->random) >> 11) % bound;
}

/* What no reader may do: sum what all have written. */
static int64_t dirty_read(struct world *world)
{
    uint64_t sum = INITIAL;

    for (unsigned i = 0; i < REPLICAS; i++) {
        const struct coherent_account *account = (const void *)(world->arena->rows[i] + world->counter.place);
        sum += cell_load(&account->added.value) - cell_load(&account->taken.value);
    }
    return (int64_t)sum;
}

static void use_counter(struct worker *worker, struct history_op *op)
{
    struct world *world = worker->world;
    uint64_t value = 0;

    op->kind = (enum history_kind)below(worker, 3);
    op->amount = 1 + (int64_t)below(worker, op->kind == HISTORY_TAKE ? 4 : 2); /* it is often not there */
    if (op->kind == HISTORY_ADD) {
        sm_strong_counter_add(worker->replica, world->counter, (uint64_t)op->amount);
    } else if (op->kind == HISTORY_TAKE) {
        op->done = sm_strong_counter_take(worker->replica, world->counter, (uint64_t)op->amount) == 0;
    } else if (world->dirty && below(worker, 2)) {
        op->value = dirty_read(world);
    } else {
        sm_strong_counter_read(worker->replica, world->counter, &value, NULL);
        op->value = (int64_t)value;
    }
}

static void use_object(struct worker *worker, struct history_op *op)
{
    int64_t *number = sm_shared_get(worker->replica, worker->world->object, SM_PULL | SM_SYNCH, NULL);

    op->kind = HISTORY_FETCH;
    op->amount = 1;
    op->value = *number;
    *number += 1;
    sm_shared_put(worker->replica, worker->world->object, SM_PUSH | SM_SYNCH);
}

/* What was done since the last commit has ended: nobody has heard of it before. */
static void commit(struct worker *worker, unsigned *counters, unsigned *objects)
{
    replica_commit(worker->replica, true);
    uint64_t now = atomic_fetch_add(&worker->world->clock, 1);
    for (; *counters < worker->counter_count; ++*counters)
        worker->counter[*counters].end = now;
    for (; *objects < worker->object_count; ++*objects)
        worker->object[*objects].end = now;
}

static void round_of(struct worker *worker)
{
    struct sm_replica *replica = worker->replica;
    unsigned counters = 0, objects = 0;

    worker->counter_count = worker->object_count = 0;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        bool counter = below(worker, 5) != 0;
        struct history_op *op =
            counter ? &worker->counter[worker->counter_count] : &worker->object[worker->object_count];
        *op = (struct history_op){.start = atomic_fetch_add(&worker->world->clock, 1)};
        journal_packet(&replica->journal);
        replica->entry_unit = replica->journal.unit;
        if (counter)
            use_counter(worker, op);
        else
            use_object(worker, op);
        for (unsigned k = 0; k < replica->strong_count; k++)
            replica->strong[k].current = false;
        replica->consumed++;
        *(counter ? &worker->counter_count : &worker->object_count) += 1;
        if (below(worker, 3) == 0)
            commit(worker, &counters, &objects);
        if (below(worker, 4) == 0)
            sched_yield();
    }
    commit(worker, &counters, &objects);
}

static void *work(void *arg)
{
    struct worker *worker = arg;

    for (;;) {
        pthread_barrier_wait(&worker->world->begin);
        if (worker->world->ended)
            return NULL;
        round_of(worker);
        pthread_barrier_wait(&worker->world->end);
    }
}

static int open_worker(struct world *world, unsigned slot, struct registration *registration, uint64_t seed)
{
    struct worker *worker = &world->workers[slot];
    struct sm_errbuf error;

    *worker = (struct worker){.world = world, .random = seed * 2654435761u + slot + 1};
    worker->replica = calloc(1, sizeof *worker->replica);
    *registration = (struct registration){.shared_count = 0};
    channel_reset(arena_channel(world->arena, 0, slot), 128, 0);
    int result = replica_bind(worker->replica, world->arena, slot);
    worker->replica->registration = registration;
    if (result == 0)
        result = sm_strong_counter_register(worker->replica, "counter", INITIAL, &world->counter);
    if (result == 0)
        result = sm_strong_register(worker->replica, "object", sizeof(int64_t), &world->object);
    if (result == 0)
        result = arena_register(world->arena, slot, registration, &error);
    worker->replica->registration = NULL;
    return result ? result : pthread_create(&worker->thread, NULL, work, worker);
}

static int open_world(struct world *world, bool dirty, uint64_t seed)
{
    struct arena_options options = {
        .service = "linear", .seed = seed | 1, .memory = 1u << 20, .flows = 16, .small_buffers = 120};
    struct registration *registration = malloc(sizeof *registration);
    struct sm_errbuf error;

    *world = (struct world){.dirty = dirty};
    int result = arena_create(&world->arena, &world->arena_fd, &options, &error);
    pthread_barrier_init(&world->begin, NULL, REPLICAS + 1);
    pthread_barrier_init(&world->end, NULL, REPLICAS + 1);
    for (unsigned i = 0; result == 0 && i < REPLICAS; i++)
        result = open_worker(world, i, registration, seed);
    free(registration);
    return result;
}

static void close_world(struct world *world)
{
    world->ended = true;
    pthread_barrier_wait(&world->begin);
    for (unsigned i = 0; i < REPLICAS; i++) {
        pthread_join(world->workers[i].thread, NULL);
        replica_unbind(world->workers[i].replica);
        free(world->workers[i].replica);
    }
    pthread_barrier_destroy(&world->begin);
    pthread_barrier_destroy(&world->end);
    arena_unmap(world->arena);
    close(world->arena_fd);
}

static void append(struct history *history, const struct history_op *op, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        history->op[history->count++] = op[i];
}

/* Change one answer, so that the value at the end is no other. False: there is none that can be. */
static bool falsify(struct history *history)
{
    for (unsigned i = 0; i < history->count; i++)
        if (history->op[i].kind == HISTORY_READ || history->op[i].kind == HISTORY_FETCH) {
            history->op[i].value += 1000;
            return true;
        }
    return false;
}

struct tally {
    unsigned rounds, wrong, planted, missed, refused, taken;
};

/* Rounds of one world; in a dirty one `wrong` is what was found. */
static int run(bool dirty, uint64_t seed, unsigned rounds, struct tally *tally)
{
    struct world *world = malloc(sizeof *world);
    int64_t counter = INITIAL, object = 0;

    if (!world || open_world(world, dirty, seed) != 0)
        return 1;
    for (tally->rounds = 0; tally->rounds < rounds && !(dirty && tally->wrong); tally->rounds++) {
        struct history counters = {.count = 0}, objects = {.count = 0};
        pthread_barrier_wait(&world->begin);
        pthread_barrier_wait(&world->end);
        for (unsigned i = 0; i < REPLICAS; i++) {
            append(&counters, world->workers[i].counter, world->workers[i].counter_count);
            append(&objects, world->workers[i].object, world->workers[i].object_count);
        }
        tally->wrong += !history_linearizable(&counters, counter) || !history_linearizable(&objects, object);
        for (unsigned i = 0; i < counters.count; i++) {
            tally->refused += counters.op[i].kind == HISTORY_TAKE && !counters.op[i].done;
            tally->taken += counters.op[i].done;
        }
        struct history *one = tally->rounds % 2 ? &counters : &objects;
        int64_t before = tally->rounds % 2 ? counter : object;
        counter = history_after(&counters, counter);
        object = history_after(&objects, object);
        if (!dirty && falsify(one)) {
            tally->planted++;
            tally->missed += history_linearizable(one, before);
        }
    }
    close_world(world);
    free(world);
    return 0;
}

int main(void)
{
    const unsigned rounds = getenv("SM_FULL") ? 100000 : 3000;
    uint64_t seed = random_seed();
    struct tally clean = {0}, dirty = {0};

    printf("SM_SEED=%llu\n", (unsigned long long)seed);
    if (run(false, seed, rounds, &clean) != 0 || run(true, seed, rounds, &dirty) != 0)
        return 1;
    printf("%u rounds: %u not linearizable; %u takes granted, %u refused; %u of %u planted answers not found\n",
           clean.rounds, clean.wrong, clean.taken, clean.refused, clean.missed, clean.planted);
    printf("with a reader that sees what is not committed: %s after %u rounds\n", dirty.wrong ? "found" : "NOT FOUND",
           dirty.rounds);
    return clean.wrong != 0 || clean.missed != 0 || clean.planted == 0 || clean.refused == 0 || clean.taken == 0 ||
           dirty.wrong == 0;
}
