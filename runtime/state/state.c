/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state as a whole: format, classes, actors, usage, stripe locks.
 *
 * Overview.  See state.h for what it is and internal.h for where it lies.
 *
 * Life-cycle.  The host formats zero-filled memory and adds forms of classes; then actors join, change shards, leave or
 * are abandoned. Nothing is ever taken down: the memory is just unmapped.
 *
 * Concurrency.  Formatting and adding forms: the host, before any replica uses them. Joining: anybody, a slot's actor
 * is claimed by an atomic exchange. Locks: a holder's slot in an atomic word; those who wait spin, yield, then sleep.
 *
 * Limits.  STATE_ACTORS, SM_MAX_CLASSES, STATE_FORMS; the block is at most STATE_SPACE_MAX bytes.
 */

#include "state/internal.h"

#include <sched.h>
#include <time.h>

#define LOCK_SPINS 64
#define LOCK_YIELDS 256
#define LOCK_SLEEP_NS 50000
#define STATE_PAGE 4096u

static size_t heap_offset(uint64_t slabs)
{
    return (sizeof(struct state) + slabs * sizeof(struct slab) + STATE_PAGE - 1) / STATE_PAGE * STATE_PAGE;
}

size_t state_bytes(const struct state_config *config)
{
    if (config->memory > STATE_SPACE_MAX || config->flows == 0) {
        return 0;
    }
    uint64_t slabs = slab_count_for(config->memory), bytes = heap_offset(slabs) + slabs * SLAB_BYTES;
    return bytes <= STATE_SPACE_MAX ? bytes : 0;
}

int state_format(struct state **result, void *memory, size_t bytes, const struct state_config *config)
{
    size_t needed = state_bytes(config);
    if (memory == NULL || needed == 0 || bytes < needed || (uintptr_t)memory % STATE_PAGE != 0) {
        return SM_E_INVALID;
    }
    struct state *state = memory;
    assert(state->magic == 0);
    uint64_t slabs = slab_count_for(config->memory);
    state->bytes = needed;
    state->slabs = (struct slab *)(state + 1);
    state->heap = (unsigned char *)memory + heap_offset(slabs);
    state->slab_count = (uint32_t)slabs;
    state->flow_limit = config->flows;
    memcpy(state->secret, config->secret, sizeof state->secret);
    slab_format(state);
    bindings_format(state, config->bindings);
    state->magic = STATE_MAGIC;
    *result = state;
    return 0;
}

const uint8_t *state_secret(const struct state *state)
{
    return state->secret;
}

void state_secret_set(struct state *state, const uint8_t *secret)
{
    memcpy(state->secret, secret, sizeof state->secret);
}

int state_class_add(struct state *state, const struct state_class *cls)
{
    if (cls->record_size == 0 || cls->record_size > SM_MAX_RECORD || cls->timers > STATE_TIMERS ||
        cls->field_count > SM_MAX_FIELDS || cls->key.granularity >= SM_GRANULARITY_COUNT) {
        return SM_E_INVALID;
    }
    uint32_t id = atomic_load_explicit(&state->form_count, memory_order_relaxed);
    if (id == STATE_FORMS) {
        return SM_E_LIMIT;
    }
    int bin = slab_bin_for(state, flow_bytes(cls->record_size, cls->timers, class_has_chunks(cls)));
    if (bin < 0) {
        return SM_E_LIMIT;
    }
    state->forms[id] = *cls;
    state->form_bin[id] = (uint8_t)bin;
    atomic_store_explicit(&state->form_count, id + 1, memory_order_release);
    return (int)id;
}

unsigned state_class_count(const struct state *state)
{
    return atomic_load_explicit(&((struct state *)(uintptr_t)state)->form_count, memory_order_acquire);
}

struct state_class *state_class(struct state *state, unsigned id)
{
    return id < state_class_count(state) ? &state->forms[id] : NULL;
}

int64_t live_sum(const struct state *state, unsigned cls)
{
    struct state *s = (struct state *)(uintptr_t)state; /* atomic loads want it so */
    uint32_t count = atomic_load_explicit(&s->actor_count, memory_order_acquire);
    int64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (unsigned k = 0; k < IN_COPIES; k++) {
            struct actor_counters *counters = &s->actors[i].counters[k];
            sum += atomic_load_explicit(cls < STATE_CLASSES ? &counters->class_live[cls] : &counters->live,
                                        memory_order_seq_cst);
        }
    }
    return sum < 0 ? 0 : sum; /* not one instant: a flow may be seen to end before it was seen to begin */
}

int64_t copied_sum(const struct state *state)
{
    struct state *s = (struct state *)(uintptr_t)state; /* atomic loads want it so */
    int64_t sum = 0;
    for (uint32_t i = 0; i < STATE_ACTORS; i++) {
        sum += atomic_load_explicit(&s->actors[i].counters[IN_COPIES].live, memory_order_relaxed);
    }
    return sum;
}

void state_usage(const struct state *state, struct state_usage *usage)
{
    struct state *s = (struct state *)(uintptr_t)state; /* atomic loads want it so */
    *usage = (struct state_usage){0};
    for (unsigned i = 0; i < STATE_ACTORS; i++) {
        for (unsigned k = 0; k < IN_COPIES; k++) {
            struct actor_counters *counters = &s->actors[i].counters[k];
            usage->flows_created += atomic_load_explicit(&counters->created, memory_order_relaxed);
            usage->flows_closed += atomic_load_explicit(&counters->closed, memory_order_relaxed);
            usage->flows_evicted += atomic_load_explicit(&counters->evicted, memory_order_relaxed);
            usage->bindings_refused += atomic_load_explicit(&counters->unbound, memory_order_relaxed);
            usage->allocations_refused += atomic_load_explicit(&counters->unallocated, memory_order_relaxed);
            usage->flows_refused += atomic_load_explicit(&counters->refused, memory_order_relaxed);
        }
    }
    usage->flows_live = (uint64_t)live_sum(s, LIVE_FLOWS);
    usage->bindings_live = (uint64_t)live_sum(s, STATE_BINDING);
    usage->memory_used = slab_taken(state) * SLAB_BYTES;
    usage->memory_limit = (uint64_t)state->slab_count * SLAB_BYTES;
}

int state_actor_join(struct state_actor **result, struct state *state, unsigned slot)
{
    if (slot >= STATE_ACTORS) {
        return SM_E_INVALID;
    }
    struct state_actor *actor = &state->actors[slot];
    if (atomic_exchange_explicit(&actor->joined, 1, memory_order_acq_rel) != 0) {
        return SM_E_CONFLICT;
    }
    actor->state = state;
    actor->slot = slot;
    actor->slabs = (struct slab_cursors){0};
    actor->journal = NULL;
    for (unsigned i = 0; i < SM_MAX_CLASSES; i++) {
        actor->forms[i] = (uint8_t)i;
    }
    actor->forms[STATE_BINDING] = BINDING_FORM;
    uint32_t count = atomic_load_explicit(&state->actor_count, memory_order_relaxed);
    while (count <= slot && !atomic_compare_exchange_weak_explicit(&state->actor_count, &count, slot + 1,
                                                                   memory_order_acq_rel, memory_order_relaxed)) {
    }
    *result = actor;
    return 0;
}

void state_actor_leave(struct state_actor *actor)
{
    slab_leave(actor);
    atomic_store_explicit(&actor->joined, 0, memory_order_release);
}

void state_actor_abandon(struct state *state, unsigned slot)
{
    assert(slot < STATE_ACTORS);
    slab_abandon(state, slot);
    atomic_store_explicit(&state->actors[slot].joined, 0, memory_order_release);
}

void state_actor_form(struct state_actor *actor, unsigned cls, unsigned form)
{
    assert(cls < SM_MAX_CLASSES && form < state_class_count(actor->state));
    actor->forms[cls] = (uint8_t)form;
}

static _Atomic(uint32_t) *lock_of(const struct state *state, uint32_t stripe)
{
    assert(stripe >= SM_SHARDS && stripe < SM_SHARDS + STATE_STRIPES);
    return &shard_at(state, stripe)->lock;
}

void state_lock(struct state *state, uint32_t stripe, unsigned slot)
{
    _Atomic(uint32_t) *lock = lock_of(state, stripe);
    assert(slot < STATE_ACTORS && atomic_load_explicit(lock, memory_order_relaxed) != slot + 1);
    for (unsigned tries = 0;; tries++) {
        uint32_t holder = atomic_load_explicit(lock, memory_order_relaxed);
        if (holder == 0 && atomic_compare_exchange_weak_explicit(lock, &holder, slot + 1, memory_order_acquire,
                                                                 memory_order_relaxed)) {
            return;
        }
        if (tries < LOCK_SPINS) {
            continue;
        }
        if (tries < LOCK_YIELDS) {
            sched_yield();
        } else {
            nanosleep(&(struct timespec){.tv_nsec = LOCK_SLEEP_NS}, NULL);
        }
    }
}

bool state_try_lock(struct state *state, uint32_t stripe, unsigned slot)
{
    _Atomic(uint32_t) *lock = lock_of(state, stripe);
    for (unsigned tries = 0; tries < LOCK_YIELDS; tries++) {
        uint32_t nobody = 0;
        if (atomic_compare_exchange_strong_explicit(lock, &nobody, slot + 1, memory_order_acquire,
                                                    memory_order_relaxed)) {
            return true;
        }
        sched_yield();
    }
    return false;
}

void state_unlock(struct state *state, uint32_t stripe)
{
    _Atomic(uint32_t) *lock = lock_of(state, stripe);
    assert(atomic_load_explicit(lock, memory_order_relaxed) != 0);
    atomic_store_explicit(lock, 0, memory_order_release);
}

int state_lock_holder(const struct state *state, uint32_t stripe)
{
    return (int)atomic_load_explicit(lock_of(state, stripe), memory_order_acquire) - 1;
}

void state_frame_keep(const struct state *state, struct state_frame *frame)
{
    *frame = (struct state_frame){.magic = state->magic,
                                  .bytes = state->bytes,
                                  .slabs = state->slabs,
                                  .heap = state->heap,
                                  .slab_count = state->slab_count,
                                  .flow_limit = state->flow_limit};
}

bool state_frame_restore(struct state *state, const struct state_frame *frame)
{
    bool same = state->magic == frame->magic && state->bytes == frame->bytes && state->slabs == frame->slabs &&
                state->heap == frame->heap && state->slab_count == frame->slab_count &&
                state->flow_limit == frame->flow_limit;
    if (!same) {
        state->magic = frame->magic;
        state->bytes = frame->bytes;
        state->slabs = (struct slab *)(uintptr_t)frame->slabs;
        state->heap = (unsigned char *)(uintptr_t)frame->heap;
        state->slab_count = frame->slab_count;
        state->flow_limit = frame->flow_limit;
    }
    return same;
}
