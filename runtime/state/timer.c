/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timers: a heap per shard, four entries below each.
 *
 * Overview.  An entry is (deadline, flow, slot), ordered by deadline, then the flow's key, slot and class. The flow
 * keeps the deadline that was asked for last, but not where its entry is: entries change their places without a look at
 * their flows, which are cold, and one that is wanted is searched for.
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
 * Costs.  Arming, an expiry: a path through the heap. Re-arming later: one store. Cancelling, ending a flow with an
 * armed timer, re-arming earlier: a search through the shard's entries as well.
 *
 * Limits.  The heap has room for all timer slots of the shard's flows, made when a flow is inserted; so arming cannot
 * fail. An expiry may first put right as many stale entries as there are.
 */

#include "state/internal.h"
#include "state/prefetch.h"

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
    save(actor, &shard->heap[at], sizeof entry);
    STEP();
    shard->heap[at] = entry;
    STEP();
}

uint32_t timer_entry_of(const struct state *state, const struct shard *shard, const struct flow *flow, unsigned slot)
{
    const uint32_t ref = flow_ref(state, flow);
    uint32_t at = HEAP_ROOT;
    while (at < heap_end(shard) && (shard->heap[at].flow != ref || shard->heap[at].slot != slot)) {
        at++;
    }
    return at;
}

/* Put an entry at `at` or above. */
static void entry_rise(const struct state_actor *actor, struct shard *shard, uint32_t at, struct timer_entry entry)
{
    const struct state *state = actor->state;
    assert(at < heap_end(shard));
    while (at > HEAP_ROOT && entry_before(state, &entry, &shard->heap[heap_parent(at)])) {
        entry_place(actor, shard, at, shard->heap[heap_parent(at)]);
        at = heap_parent(at);
    }
    entry_place(actor, shard, at, entry);
}

/* Put an entry at `at` or below. */
static void entry_sink(const struct state_actor *actor, struct shard *shard, uint32_t at, struct timer_entry entry)
{
    const struct state *state = actor->state;
    const uint32_t end = heap_end(shard);
    assert(at < end);
    for (uint32_t child = heap_child(at); child < end; child = heap_child(at)) {
        uint32_t first = child, beyond = child + 4 < end ? child + 4 : end;
        for (child++; child < beyond; child++) {
            if (entry_before(state, &shard->heap[child], &shard->heap[first])) {
                first = child;
            }
        }
        if (!entry_before(state, &shard->heap[first], &entry)) {
            break;
        }
        entry_place(actor, shard, at, shard->heap[first]);
        at = first;
    }
    entry_place(actor, shard, at, entry);
}

/* What changes with the number of entries: the shard's second line, but for its lock. */
static void save_heap(const struct state_actor *actor, const struct shard *shard)
{
    save(actor, &shard->heap, offsetof(struct shard, lock) - offsetof(struct shard, heap));
}

/* Disarm a timer: its entry goes, the last one takes its place. */
static void entry_remove(const struct state_actor *actor, struct shard *shard, struct flow_timer *timer, uint32_t at)
{
    const struct state *state = actor->state;
    assert(timer->deadline != 0 && at < heap_end(shard));
    save(actor, timer, sizeof *timer);
    save_heap(actor, shard);
    STEP();
    timer->deadline = 0;
    shard->heap_count--;
    const uint32_t end = heap_end(shard);
    if (at == end) {
        return;
    }
    struct timer_entry last = shard->heap[end];
    if (at > HEAP_ROOT && entry_before(state, &last, &shard->heap[heap_parent(at)])) {
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
    if (HEAP_ROOT + shard->timers + more <= capacity) {
        return 0;
    }
    if (capacity == 0) {
        capacity = SLAB_HEAP_MIN / sizeof(struct timer_entry);
    }
    while (capacity < HEAP_ROOT + shard->timers + more) {
        capacity *= 2;
    }
    struct timer_entry *heap = heap_alloc(actor, capacity);
    if (heap == NULL) {
        return SM_E_LIMIT;
    }
    struct timer_entry *old = shard->heap;
    save_shard(actor, shard);
    if (old != NULL) {
        memcpy(heap + HEAP_ROOT, old + HEAP_ROOT, shard->heap_count * sizeof *heap);
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
        if (timer->deadline != 0) {
            entry_remove(actor, shard, timer, timer_entry_of(actor->state, shard, flow, slot));
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
    timer->deadline = deadline.ns > 0 ? deadline.ns : 1; /* 0 is for none */
    if (before != 0 && timer->deadline >= before) {
        return 0; /* its entry is not later */
    }
    struct shard *shard = shard_at(state, index);
    struct timer_entry entry = {.deadline = timer->deadline, .flow = flow_ref(state, flow), .slot = slot};
    if (before == 0) {
        assert(heap_end(shard) < shard->heap_capacity);
        save_heap(actor, shard);
        STEP();
        shard->heap_count++;
        entry_rise(actor, shard, heap_end(shard) - 1, entry);
        return 0;
    }
    uint32_t at = timer_entry_of(state, shard, flow, slot);
    if (entry.deadline < shard->heap[at].deadline) {
        entry_rise(actor, shard, at, entry);
    }
    return 0;
}

void state_timer_cancel(struct state_actor *actor, uint32_t index, struct flow *flow, unsigned slot)
{
    assert(slot < flow->timers);
    struct shard *shard = shard_at(actor->state, index);
    struct flow_timer *timer = flow_timer(flow, slot);
    if (timer->deadline != 0) {
        entry_remove(actor, shard, timer, timer_entry_of(actor->state, shard, flow, slot));
    }
}

sm_time state_timer_get(const struct state *state, const struct flow *flow, unsigned slot)
{
    (void)state;
    assert(slot < flow->timers);
    return (sm_time){flow_timer(flow, slot)->deadline};
}

/* What an expiry reads first, one after the other: the shard's second line, its heap's first ones, the top's timer. */
void state_prefetch_timer(const struct state *state, uint32_t index, unsigned step)
{
    const struct shard *shard = shard_at(state, index);
    if (step == 0) {
        prefetch_for_read(&shard->heap);
        return;
    }
    if (shard->heap_count == 0) {
        return;
    }
    const struct timer_entry *top = &shard->heap[HEAP_ROOT];
    if (step == 1) {
        prefetch_for_read(top);
        prefetch_for_read(top + 1);
        return;
    }
    prefetch_for_read(flow_timer(flow_at(state, top->flow), top->slot));
    const uint32_t end = heap_end(shard);
    for (uint32_t at = heap_child(HEAP_ROOT + 1); at < heap_child(HEAP_ROOT + 5) && at < end; at += 4) {
        prefetch_for_read(&shard->heap[at]);
    }
}

uint64_t state_timer_next(const struct state *state, uint32_t index)
{
    const struct shard *shard = shard_at(state, index);
    return shard->heap_count > 0 ? shard->heap[HEAP_ROOT].deadline : UINT64_MAX;
}

bool state_timer_expire(struct state_actor *actor, uint32_t index, sm_time now, struct flow **flow, unsigned *slot,
                        sm_time *deadline)
{
    struct state *state = actor->state;
    struct shard *shard = shard_at(state, index);
    while (shard->heap_count > 0 && shard->heap[HEAP_ROOT].deadline <= now.ns) {
        struct timer_entry top = shard->heap[HEAP_ROOT];
        struct flow_timer *timer = flow_timer(flow_at(state, top.flow), top.slot);
        assert(timer->deadline >= top.deadline);
        if (timer->deadline == top.deadline) {
            entry_remove(actor, shard, timer, HEAP_ROOT);
            *flow = flow_at(state, top.flow);
            *slot = top.slot;
            *deadline = (sm_time){top.deadline};
            return true;
        }
        top.deadline = timer->deadline;
        entry_sink(actor, shard, HEAP_ROOT, top);
    }
    return false;
}
