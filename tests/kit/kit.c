/* SPDX-License-Identifier: BSD-2-Clause */
#include "kit.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t kit_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

struct kit {
    const struct kit_options *options;
    struct arena *arena;
    int arena_fd;
    struct sm_switch *sw;
    struct sm_replica *replicas[ARENA_SLOTS]; /* by slot */
    pthread_t threads[ARENA_SLOTS];
    _Atomic bool through[ARENA_SLOTS]; /* the replica's thread has met its end */
    uint32_t next_id;
    uint64_t random;
    char cause[96];
};

static uint64_t below(struct kit *kit, uint64_t bound)
{
    return (kit_random(&kit->random) >> 11) % bound;
}

struct thread {
    struct sm_replica *replica;
    _Atomic bool *through;
};

static void *run_replica(void *arg)
{
    struct thread thread = *(struct thread *)arg;

    free(arg);
    while (!thread.replica->retired)
        if (replica_burst(thread.replica, CHANNEL_BURST) == 0)
            sched_yield();
    atomic_store(thread.through, true);
    return NULL;
}

static int add_replica(struct kit *kit, struct sm_errbuf *error)
{
    struct sm_replica *replica = calloc(1, sizeof *replica);
    char name[16];
    uint32_t id = kit->next_id++;

    snprintf(name, sizeof name, "r%u", id);
    int slot = switch_slot_take(kit->sw, id, name, getpid(), -1);
    replica->registration = calloc(1, sizeof *replica->registration);
    strcpy(replica->registration->middlebox, "kit");
    replica->registration->sends = kit->options->max_sends;
    int result = replica_bind(replica, kit->arena, (unsigned)slot);
    if (result == 0)
        result = kit->options->setup(replica, kit->options->user);
    if (result == 0)
        result = arena_register(kit->arena, replica->registration, error);
    free(replica->registration);
    replica->registration = NULL;
    if (result) {
        free(replica);
        return result;
    }
    replica_learn_classes(replica);
    kit->replicas[slot] = replica;
    if (kit->options->started)
        kit->options->started(replica, kit->options->user);
    switch_slot_ready(kit->sw, (unsigned)slot);
    if (kit->options->threads) {
        struct thread *thread = malloc(sizeof *thread);
        *thread = (struct thread){.replica = replica, .through = &kit->through[slot]};
        atomic_store(&kit->through[slot], false);
        pthread_create(&kit->threads[slot], NULL, run_replica, thread);
    }
    return slot;
}

static void remove_replica(struct kit *kit, unsigned slot)
{
    struct sm_replica *replica = kit->replicas[slot];

    if (kit->options->threads)
        pthread_join(kit->threads[slot], NULL);
    replica_unbind(replica);
    switch_slot_died(kit->sw, slot);
    if (kit->options->ended)
        kit->options->ended(replica, kit->options->user);
    free(replica);
    kit->replicas[slot] = NULL;
}

static unsigned ready(const struct kit *kit, unsigned *slots)
{
    unsigned count = 0;

    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (kit->sw->slots[i].state == SLOT_READY)
            slots[count++] = i;
    return count;
}

/* Start something at random: a split into a new or old replica, a merge, moves here and there. */
static void operate(struct kit *kit)
{
    unsigned slots[ARENA_SLOTS];
    unsigned count = ready(kit, slots);
    struct sm_errbuf error;
    unsigned from = slots[below(kit, count)], to = slots[below(kit, count)];
    uint64_t kind = below(kit, 8);

    if (kind == 0 && count < KIT_REPLICAS) {
        int slot = add_replica(kit, &error);
        if (slot >= 0)
            to = (unsigned)slot;
    } else if (kind == 1 && count > 1) {
        for (unsigned i = 0; i < count; i++)
            if (kit->sw->slots[slots[i]].shards == 0 && switch_slot_retire(kit->sw, slots[i]) == 0)
                return;
    }
    /* Sometimes so short a deadline that moves are abandoned in every state. */
    uint64_t patience = below(kit, 4) == 0 ? below(kit, 200000) : 10000000000ull;
    switch_move_begin(kit->sw, kit->sw->now + patience, false);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        bool pick = kind <= 2   ? kit->sw->shards[shard].owner == from && below(kit, 2)
                    : kind <= 4 ? kit->sw->shards[shard].owner == from
                                : below(kit, 64) == 0;
        if (pick && kit->sw->shards[shard].owner != SWITCH_NONE)
            switch_move_add(kit->sw, shard, shard, kind <= 4 ? to : slots[below(kit, count)]);
    }
    switch_move_go(kit->sw);
}

#ifdef SM_STEPS
/*
 * A death, as the kernel would leave it: the replica stops somewhere, nothing of its own runs any more. Somebody is
 * always started in its place if it was the last one.
 */
static jmp_buf death;
static uint64_t steps_to_live; /* 0: immortal */

static void at_step(void)
{
    if (steps_to_live > 0 && --steps_to_live == 0)
        longjmp(death, 1);
}

static void kill_one(struct kit *kit)
{
    unsigned slots[ARENA_SLOTS];
    const unsigned count = ready(kit, slots);
    struct sm_errbuf error;

    if (count == 0)
        return;
    unsigned slot = slots[below(kit, count)];
    struct sm_replica *replica = kit->replicas[slot];
    journal_step = at_step;
    if (setjmp(death) == 0) {
        steps_to_live = 1 + below(kit, 3000);
        replica_burst(replica, CHANNEL_BURST);
    }
    steps_to_live = 0;
    journal_step = NULL;
    if (replica->retired) {
        remove_replica(kit, slot);
        return;
    }
    if (kit->options->ended)
        kit->options->ended(replica, kit->options->user);
    free(replica);
    kit->replicas[slot] = NULL;
    switch_slot_died(kit->sw, slot);
    if (count == 1)
        add_replica(kit, &error);
}
#else
static void kill_one(struct kit *kit)
{
    (void)kit;
}
#endif

static void step(struct kit *kit)
{
    if (kit->sw->operation.abandoned)
        memcpy(kit->cause, kit->sw->operation.cause, sizeof kit->cause);
    unsigned slot = (unsigned)below(kit, KIT_REPLICAS + 2);

    if (kit->options->schedule && !kit->sw->operation.active && below(kit, 16) == 0)
        operate(kit);
    if (kit->options->kills && below(kit, kit->options->kills) == 0)
        kill_one(kit);
    if (kit->options->threads) {
        for (unsigned i = 0; i < ARENA_SLOTS; i++)
            if (kit->replicas[i] && atomic_load(&kit->through[i]))
                remove_replica(kit, i);
        if (switch_poll(kit->sw) == 0)
            sched_yield();
    } else if (slot < ARENA_SLOTS && kit->replicas[slot]) {
        replica_burst(kit->replicas[slot], 1 + (unsigned)below(kit, CHANNEL_BURST));
        if (kit->replicas[slot]->retired)
            remove_replica(kit, slot);
    } else {
        switch_poll(kit->sw);
    }
}

static void judge(struct kit *kit, struct kit_result *result)
{
    struct sm_switch *sw = kit->sw;
    struct state_usage usage;
    struct sm_errbuf text;
    const char *broken = NULL;

    state_usage(kit->arena->state, &usage);
    *result = (struct kit_result){
        .in = sw->entered,
        .out = sw->out,
        .generated = sw->generated,
        .moves = sw->moves_completed,
        .abandoned = sw->moves_abandoned,
        .held = sw->held_packets,
        .deaths = sw->deaths,
        .taken_over = sw->taken_over,
        .flows_created = usage.flows_created,
        .flows_live = usage.flows_live,
        .flows_refused = usage.flows_refused,
        .flows_evicted = usage.flows_evicted,
        .replicas_in_flight = sw->replicas_in_flight_max,
        .damaged = sw->input_result != SM_E_END,
    };
    result->memory_used = usage.memory_used;
    memcpy(result->drops, sw->dropped, sizeof result->drops);
    memcpy(result->cause, kit->cause, sizeof result->cause);
    for (uint32_t i = 0; i < SM_SHARDS; i++)
        result->busy_shards += sw->shards[i].packets > 0;
    for (unsigned i = 0; i < SWITCH_DROP_COUNT + SM_MAX_REASONS; i++)
        result->dropped += sw->dropped[i];
    uint64_t violations = sw->owner_violations;
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].channel && sw->slots[i].state != SLOT_FREE)
            violations += sw->slots[i].channel->counters.owner_violations;
    if (sw->error[0])
        broken = sw->error;
    else if (violations)
        broken = "two owners of one shard";
    else if (strcmp(audit_loss_free(&sw->audit, &text), "held") != 0 ||
             strcmp(audit_ordered(&sw->audit, &text), "held") != 0)
        broken = text.text;
    else if (result->in + result->generated != result->out + result->dropped)
        broken = "counts do not add up";
    else if (state_check(kit->arena->state, &text) != 0)
        broken = text.text;
    if (broken)
        snprintf(result->broken, sizeof result->broken, "%s", broken);
}

static int open_kit(struct kit *kit, struct sm_errbuf *error)
{
    const struct kit_options *options = kit->options;
    struct switch_options sw = {
        .order_arrival = options->order_arrival, .hold_bytes = UINT64_MAX, .hold_ns = UINT64_MAX};
    int result = sm_port_open_capture(&sw.in, options->input, error);

    if (result == 0)
        sw.in->is_interface = options->cannot_wait;
    if (options->hold_bytes)
        sw.hold_bytes = options->hold_bytes;

    if (result == 0 && options->output)
        result = sm_port_create_capture(&sw.out, options->output, sw.in, error);
    if (result)
        return result;
    struct arena_options arena = {
        .service = "kit",
        .linktype = sw.in->linktype,
        .seed = options->seed | 1,
        .memory = options->memory ? options->memory : 32u << 20,
        .flows = options->flows ? options->flows : 65536,
        .small_buffers = options->buffers ? options->buffers : 512,
        .jumbo_buffers = 8,
    };
    result = arena_create(&kit->arena, &kit->arena_fd, &arena, error);
    if (result)
        return result;
    sw.arena = kit->arena;
    result = switch_create(&kit->sw, &sw, error);
    for (unsigned i = 0; result == 0 && i < options->replicas; i++) {
        int slot = add_replica(kit, error);
        result = slot < 0 ? slot : 0;
    }
    return result;
}

/* End all replicas, so that what they counted stands still. */
static void dismiss(struct kit *kit)
{
    switch_dismiss(kit->sw);
    switch_poll(kit->sw);
    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        if (!kit->replicas[i])
            continue;
        while (!kit->options->threads && !kit->replicas[i]->retired)
            replica_burst(kit->replicas[i], CHANNEL_BURST);
        remove_replica(kit, i);
    }
}

int kit_run(const struct kit_options *options, struct kit_result *result, struct sm_errbuf *error)
{
    struct kit kit = {
        .options = options, .arena_fd = -1, .next_id = 1, .random = options->seed * 2654435761u + 88172645463325252ull};
    int status = open_kit(&kit, error);

    if (status == 0) {
        for (unsigned i = 0; i < options->replicas; i++) {
            uint32_t share = SM_SHARDS / options->replicas;
            switch_assign(kit.sw, i * share, i + 1 == options->replicas ? SM_SHARDS - 1 : (i + 1) * share - 1, i);
        }
        switch_start(kit.sw);
        while (kit.sw->state != SWITCH_ENDED && !kit.sw->error[0])
            step(&kit);
        dismiss(&kit);
        judge(&kit, result);
    }
    if (kit.sw && switch_destroy(kit.sw, status == 0, error) != 0 && status == 0)
        status = SM_E_IO;
    if (kit.arena)
        arena_unmap(kit.arena);
    if (kit.arena_fd >= 0)
        close(kit.arena_fd);
    return status;
}
