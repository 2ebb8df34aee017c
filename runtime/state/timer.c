/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timers: a binary heap per shard.
 *
 * Overview.  An entry is (deadline, flow, slot), ordered by deadline, then the flow's key, slot and class. The flow
 * keeps the deadline that was asked for last and where its entry is.
 *
 * Life-cycle of a timer:
 *   disarmed  no entry. state_timer_set(): to exact.
 *   exact     the entry's deadline is the flow's. Re-armed later: only the flow's deadline changes, to stale. Re-armed
 *             earlier: the entry rises. Cancelled or expired: to disarmed.
 *   stale     the entry's deadline is earlier than the flow's. When it comes to the top it gets the flow's deadline and
 *             sinks, to exact. Otherwise as exact.
 * So an entry is never late, and an exact entry at the top comes before all others by the whole order: a stale one of
 * the same deadline is due later.
 *
 * Concurrency.  The shard's owner only.
 *
 * Limits.  The heap has room for all timer slots of the shard's flows, made when a flow is inserted; so arming cannot
 * fail. An expiry may first put right as many stale entries as there are.
 */

#include "state/internal.h"

static bool entry_before(const struct state *state, const struct timer_entry *a, const struct timer_entry *b)
{
    if (a->deadline != b->deadline) {
        return a->deadline < b->deadline;
    }
    const struct flow *left = flow_at(state, a->flow), *right = flow_at(state, b->flow);
    int order = memcmp(&left->key, &right->key, sizeof left->key);
    if (order != 0) {
        return order < 0;
    }
    return a->slot != b->slot ? a->slot < b->slot : left->cls < right->cls;
}

static void entry_place(const struct state_actor *actor, struct shard *shard, uint32_t at, struct timer_entry entry)
{
    struct flow_timer *timer = flow_timer(flow_at(actor->state, entry.flow), entry.slot);
    save(actor, &shard->heap[at], sizeof entry);
    save(actor, timer, sizeof *timer);
    STEP();
    shard->heap[at] = entry;
    STEP();
    timer->index = at + 1;
}

/* Put an entry at `at` or above. */
static void entry_rise(const struct state_actor *actor, struct shard *shard, uint32_t at, struct timer_entry entry)
{
    const struct state *state = actor->state;
    assert(at < shard->heap_count);
    while (at > 0 && entry_before(state, &entry, &shard->heap[(at - 1) / 2])) {
        entry_place(actor, shard, at, shard->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    entry_place(actor, shard, at, entry);
}

/* Put an entry at `at` or below. */
static void entry_sink(const struct state_actor *actor, struct shard *shard, uint32_t at, struct timer_entry entry)
{
    const struct state *state = actor->state;
    assert(at < shard->heap_count);
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < shard->heap_count && entry_before(state, &shard->heap[child + 1], &shard->heap[child])) {
            child++;
        }
        if (child >= shard->heap_count || !entry_before(state, &shard->heap[child], &entry)) {
            break;
        }
        entry_place(actor, shard, at, shard->heap[child]);
        at = child;
    }
    entry_place(actor, shard, at, entry);
}

/* Disarm a timer: its entry goes, the last one takes its place. */
static void entry_remove(const struct state_actor *actor, struct shard *shard, struct flow_timer *timer)
{
    const struct state *state = actor->state;
    uint32_t at = timer->index - 1;
    assert(timer->index != 0 && at < shard->heap_count);
    save(actor, timer, sizeof *timer);
    save_shard(actor, shard);
    STEP();
    timer->index = 0;
    timer->deadline = 0;
    struct timer_entry last = shard->heap[--shard->heap_count];
    if (at == shard->heap_count) {
        return;
    }
    if (at > 0 && entry_before(state, &last, &shard->heap[(at - 1) / 2])) {
        entry_rise(actor, shard, at, last);
    } else {
        entry_sink(actor, shard, at, last);
    }
}

static struct timer_entry *heap_alloc(struct state_actor *actor, uint32_t capacity)
{
    uint64_t bytes = capacity * sizeof(struct timer_entry);
    if (bytes > SLAB_BYTES) {
        return slab_alloc_run(actor, (uint32_t)(bytes / SLAB_BYTES));
    }
    return slab_alloc(actor, SLAB_BIN_HEAP + (unsigned)__builtin_ctzll(bytes / SLAB_HEAP_MIN));
}

int timers_reserve(struct state_actor *actor, struct shard *shard, unsigned more)
{
    if (more == 0) {
        return 0; /* without a look at the shard's second line */
    }
    uint32_t capacity = shard->heap_capacity;
    if (shard->timers + more <= capacity) {
        return 0;
    }
    if (capacity == 0) {
        capacity = SLAB_HEAP_MIN / sizeof(struct timer_entry);
    }
    while (capacity < shard->timers + more) {
        capacity *= 2;
    }
    struct timer_entry *heap = heap_alloc(actor, capacity);
    if (heap == NULL) {
        return SM_E_LIMIT;
    }
    struct timer_entry *old = shard->heap;
    save_shard(actor, shard);
    if (old != NULL) {
        memcpy(heap, old, shard->heap_count * sizeof *heap);
    }
    STEP();
    shard->heap = heap;
    STEP();
    shard->heap_capacity = capacity;
    if (old != NULL) {
        slab_free(actor, old);
    }
    return 0;
}

void timers_release(struct state_actor *actor, struct shard *shard, struct flow *flow)
{
    for (unsigned slot = 0; slot < flow->timers; slot++) {
        struct flow_timer *timer = flow_timer(flow, slot);
        if (timer->index != 0) {
            entry_remove(actor, shard, timer);
        }
    }
    assert(shard->timers >= flow->timers);
    save_shard(actor, shard);
    shard->timers -= flow->timers;
    STEP();
    /* A large heap goes with the last flow; a small one stays for the next. */
    if (shard->timers == 0 && shard->heap_capacity > SLAB_HEAP_MIN / sizeof(struct timer_entry)) {
        struct timer_entry *old = shard->heap;
        assert(shard->heap_count == 0);
        shard->heap = NULL;
        STEP();
        shard->heap_capacity = 0;
        slab_free(actor, old);
    }
}

int state_timer_set(struct state_actor *actor, uint32_t index, struct flow *flow, unsigned slot, sm_time deadline)
{
    assert(slot < flow->timers);
    struct state *state = actor->state;
    struct flow_timer *timer = flow_timer(flow, slot);
    uint64_t before = timer->deadline;
    save(actor, timer, sizeof *timer);
    STEP();
    timer->deadline = deadline.ns;
    if (timer->index != 0 && deadline.ns >= before) {
        return 0; /* its entry is not later */
    }
    struct shard *shard = shard_at(state, index);
    struct timer_entry entry = {.deadline = deadline.ns, .flow = flow_ref(state, flow), .slot = slot};
    if (timer->index == 0) {
        assert(shard->heap_count < shard->heap_capacity);
        save_shard(actor, shard);
        STEP();
        shard->heap_count++;
        entry_rise(actor, shard, shard->heap_count - 1, entry);
    } else if (deadline.ns < shard->heap[timer->index - 1].deadline) {
        entry_rise(actor, shard, timer->index - 1, entry);
    }
    return 0;
}

void state_timer_cancel(struct state_actor *actor, uint32_t index, struct flow *flow, unsigned slot)
{
    assert(slot < flow->timers);
    struct flow_timer *timer = flow_timer(flow, slot);
    if (timer->index != 0) {
        entry_remove(actor, shard_at(actor->state, index), timer);
    }
}

sm_time state_timer_get(const struct state *state, const struct flow *flow, unsigned slot)
{
    (void)state;
    assert(slot < flow->timers);
    return (sm_time){flow_timer(flow, slot)->deadline};
}

/* What an expiry reads first, one after the other: the shard's second line, the top of its heap, that flow's timer. */
void state_prefetch_timer(const struct state *state, uint32_t index, unsigned step)
{
    const struct shard *shard = shard_at(state, index);
    if (step == 0) {
        __builtin_prefetch(&shard->heap);
    } else if (shard->heap_count > 0 && step == 1) {
        __builtin_prefetch(shard->heap);
    } else if (shard->heap_count > 0) {
        __builtin_prefetch(flow_timer(flow_at(state, shard->heap[0].flow), shard->heap[0].slot));
    }
}

uint64_t state_timer_next(const struct state *state, uint32_t index)
{
    const struct shard *shard = shard_at(state, index);
    return shard->heap_count > 0 ? shard->heap[0].deadline : UINT64_MAX;
}

bool state_timer_expire(struct state_actor *actor, uint32_t index, sm_time now, struct flow **flow, unsigned *slot,
                        sm_time *deadline)
{
    struct state *state = actor->state;
    struct shard *shard = shard_at(state, index);
    while (shard->heap_count > 0 && shard->heap[0].deadline <= now.ns) {
        struct timer_entry top = shard->heap[0];
        struct flow_timer *timer = flow_timer(flow_at(state, top.flow), top.slot);
        assert(timer->index == 1 && timer->deadline >= top.deadline);
        if (timer->deadline == top.deadline) {
            entry_remove(actor, shard, timer);
            *flow = flow_at(state, top.flow);
            *slot = top.slot;
            *deadline = (sm_time){top.deadline};
            return true;
        }
        top.deadline = timer->deadline;
        entry_sink(actor, shard, 0, top);
    }
    return false;
}
