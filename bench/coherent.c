/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What an update of coherent state costs: an eventual counter beside a plain increment of private memory, and a strong
 * counter, added to and taken from by two replicas at once, beside one atomic add that two threads contend for alike.
 * An update a packet, a commit after each burst of packets; nothing else is done for a packet, and no switch is
 * in the way. The plain increment is made in the same loop, in the place of the eventual update; the atomic add is
 * alone. Afterwards all must have been counted.
 */

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "replica/replica.h"

#define REPLICAS 2u
#define TOKENS (UINT64_C(1) << 62)

struct coherent_bench;

struct contender {
    struct coherent_bench *bench;
    struct sm_replica *replica;
    pthread_t thread;
    unsigned number;
};

struct coherent_bench {
    struct arena *arena;
    int arena_fd;
    struct contender contenders[REPLICAS];
    struct registration *registration;
    sm_counter counter;
    sm_strong_counter added, taken;
    /* What both threads are doing, and for how many updates each. */
    void (*work)(struct contender *contender, uint64_t updates);
    uint64_t updates;
    pthread_barrier_t barrier;
    _Alignas(64) _Atomic uint64_t contended;
    _Alignas(64) uint64_t private;
};

static int register_objects(struct sm_replica *replica, struct coherent_bench *bench)
{
    int result = sm_counter_register(replica, "counter", &bench->counter);

    if (result == 0)
        result = sm_strong_counter_register(replica, "added", 0, &bench->added);
    return result ? result : sm_strong_counter_register(replica, "taken", TOKENS, &bench->taken);
}

static int open_replica(struct coherent_bench *bench, unsigned slot, struct sm_errbuf *error)
{
    struct contender *contender = &bench->contenders[slot];
    struct sm_replica *replica = calloc(1, sizeof *replica);

    *contender = (struct contender){.bench = bench, .replica = replica, .number = slot};
    if (!replica)
        return SM_E_NO_MEMORY;
    memset(bench->registration, 0, sizeof *bench->registration);
    replica->registration = bench->registration;
    channel_reset(arena_channel(bench->arena, 0, slot), bench->arena->pool.small_count + bench->arena->pool.jumbo_count,
                  0);
    int result = replica_bind(replica, bench->arena, slot);
    if (result == 0)
        result = register_objects(replica, bench);
    return result ? result : arena_register(bench->arena, replica->slot, bench->registration, error);
}

static int open_bench(struct coherent_bench *bench, const struct bench_options *options, struct sm_errbuf *error)
{
    const struct arena_options arena = {
        .service = "bench", .seed = options->seed, .memory = 1u << 20, .flows = 16, .small_buffers = 64};

    *bench = (struct coherent_bench){.arena_fd = -1, .registration = malloc(sizeof *bench->registration)};
    int result = bench->registration ? arena_create(&bench->arena, &bench->arena_fd, &arena, error) : SM_E_NO_MEMORY;
    pthread_barrier_init(&bench->barrier, NULL, REPLICAS);
    for (unsigned i = 0; result == 0 && i < REPLICAS; i++)
        result = open_replica(bench, i, error);
    return result;
}

static void close_bench(struct coherent_bench *bench)
{
    for (unsigned i = 0; i < REPLICAS; i++) {
        if (bench->contenders[i].replica && bench->contenders[i].replica->actor)
            replica_unbind(bench->contenders[i].replica);
        free(bench->contenders[i].replica);
    }
    pthread_barrier_destroy(&bench->barrier);
    if (bench->arena)
        arena_unmap(bench->arena);
    if (bench->arena_fd >= 0)
        close(bench->arena_fd);
    free(bench->registration);
}

/* A packet begins, as in replica_burst(). */
static inline void begin_packet(struct sm_replica *replica)
{
    journal_packet(&replica->journal);
    replica->entry_unit = replica->journal.unit;
    replica->consumed++;
}

#define BURSTS(replica, updates, update)                                                                               \
    for (uint64_t done = 0; done < (updates); done += CHANNEL_BURST) {                                                 \
        for (unsigned packet = 0; packet < CHANNEL_BURST; packet++) {                                                  \
            begin_packet(replica);                                                                                     \
            update;                                                                                                    \
        }                                                                                                              \
        replica_commit(replica, true);                                                                                 \
    }

/* Each one is made, whatever the compiler knows. */
static inline void increment(uint64_t *number)
{
    ++*number;
    __asm__ volatile("" ::: "memory");
}

static void eventual_adds(struct contender *contender, uint64_t updates)
{
    struct sm_replica *replica = contender->replica;
    const sm_counter counter = contender->bench->counter;

    BURSTS(replica, updates, sm_counter_add(replica, counter, 1));
}

/* The same packets and commits. */
static void private_adds(struct contender *contender, uint64_t updates)
{
    struct sm_replica *replica = contender->replica;
    uint64_t *private = &contender->bench->private;

    BURSTS(replica, updates, increment(private));
}

static void strong_adds(struct contender *contender, uint64_t updates)
{
    struct sm_replica *replica = contender->replica;
    const sm_strong_counter counter = contender->bench->added;

    BURSTS(replica, updates, sm_strong_counter_add(replica, counter, 1));
}

static void strong_takes(struct contender *contender, uint64_t updates)
{
    struct sm_replica *replica = contender->replica;
    const sm_strong_counter counter = contender->bench->taken;

    BURSTS(replica, updates, sm_strong_counter_take(replica, counter, 1));
}

static void atomic_adds(struct contender *contender, uint64_t updates)
{
    for (uint64_t done = 0; done < updates; done++)
        atomic_fetch_add(&contender->bench->contended, 1);
}

static void *contend(void *arg)
{
    struct contender *contender = arg;

    bench_pin(contender->number);
    pthread_barrier_wait(&contender->bench->barrier);
    contender->bench->work(contender, contender->bench->updates);
    return NULL;
}

/* Wall time of an update of each of two threads at once, ns. */
static double contended(struct coherent_bench *bench, void (*work)(struct contender *, uint64_t), uint64_t updates)
{
    bench->work = work;
    bench->updates = updates;
    uint64_t start = bench_now();
    for (unsigned i = 0; i < REPLICAS; i++)
        if (pthread_create(&bench->contenders[i].thread, NULL, contend, &bench->contenders[i]) != 0)
            abort();
    for (unsigned i = 0; i < REPLICAS; i++)
        pthread_join(bench->contenders[i].thread, NULL);
    return (double)(bench_now() - start) / (double)updates;
}

/* CPU time of an update of one thread, ns. */
static double alone(struct coherent_bench *bench, void (*work)(struct contender *, uint64_t), uint64_t updates)
{
    uint64_t start = bench_thread_cpu();

    work(&bench->contenders[0], updates);
    return (double)(bench_thread_cpu() - start) / (double)updates;
}

/* Updates that take about the time asked for, in whole bursts. */
static uint64_t updates_for(double seconds, double ns)
{
    uint64_t updates = (uint64_t)(seconds * 1e9 / (ns < 0.1 ? 0.1 : ns));

    return (updates < CHANNEL_BURST ? CHANNEL_BURST : updates) / CHANNEL_BURST * CHANNEL_BURST;
}

static int check(struct coherent_bench *bench, uint64_t eventual, uint64_t adds, uint64_t takes,
                 struct sm_errbuf *error)
{
    struct sm_replica *replica = bench->contenders[0].replica;
    uint64_t added = 0, left = 0;

    sm_strong_counter_read(replica, bench->added, &added, NULL);
    sm_strong_counter_read(replica, bench->taken, &left, NULL);
    if ((uint64_t)sm_counter_read(replica, bench->counter, NULL) == eventual && added == adds && TOKENS - left == takes)
        return 0;
    snprintf(error->text, sizeof error->text, "updates were lost: %llu of %llu, %llu of %llu, %llu of %llu",
             (unsigned long long)sm_counter_read(replica, bench->counter, NULL), (unsigned long long)eventual,
             (unsigned long long)added, (unsigned long long)adds, (unsigned long long)(TOKENS - left),
             (unsigned long long)takes);
    return SM_E_STATE;
}

static int measure(struct coherent_bench *bench, const struct bench_options *options, struct report *report,
                   struct sm_errbuf *error)
{
    struct figure *eventual = report_figure(report, "coherent: eventual counter, add", "ns");
    struct figure *add = report_figure(report, "coherent: strong counter, add", "ns");
    struct figure *take = report_figure(report, "coherent: strong counter, take", "ns");
    const uint64_t trial = 64 * CHANNEL_BURST;

    eventual->ratio = (struct target){TARGET_AT_MOST, 1.5};
    add->ratio = take->ratio = (struct target){TARGET_AT_MOST, 4};
    bench_pin(0);
    uint64_t updates = updates_for(options->seconds / 2, alone(bench, eventual_adds, trial));
    uint64_t shared = updates_for(options->seconds / 3, contended(bench, strong_takes, trial));
    for (unsigned i = 0; i < options->repeat; i++) {
        samples_add(&eventual->ours, alone(bench, eventual_adds, updates));
        samples_add(&eventual->reference, alone(bench, private_adds, updates));
        samples_add(&add->ours, contended(bench, strong_adds, shared));
        double reference = contended(bench, atomic_adds, shared);
        samples_add(&take->ours, contended(bench, strong_takes, shared));
        samples_add(&add->reference, reference);
        samples_add(&take->reference, reference);
    }
    return check(bench, trial + updates * options->repeat, REPLICAS * shared * options->repeat,
                 REPLICAS * (trial + shared * options->repeat), error);
}

int bench_coherent(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct coherent_bench *bench = aligned_alloc(64, (sizeof *bench + 63) / 64 * 64);
    int result = bench ? open_bench(bench, options, error) : SM_E_NO_MEMORY;

    if (result == 0)
        result = measure(bench, options, report, error);
    if (bench)
        close_bench(bench);
    free(bench);
    json_object_set_new(report->parameters, "coherent",
                        json_pack("{s:i, s:i}", "replicas", (int)REPLICAS, "updates_a_commit", (int)CHANNEL_BURST));
    return result;
}
