/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Copies: shards made anew beside the ones that are in use.
 *
 * Overview.  A copying move decodes a shard's flows, with the keys bound to them, into one of STATE_COPIES further
 * shards, in memory of its own. While it is made nobody looks there, so it may be left half made, and is then cleared.
 * When it is whole the two change places: what the shard's two lines hold, flows, table and heap, goes over as it is,
 * since nothing in it refers to the shard. From then on the copy is what was the shard, and is cleared at leisure.
 *
 * Life-cycle of a copy: empty -> being made (state_insert(), state_timer_set()) -> installed -> being cleared -> empty;
 * or from being made directly to being cleared.
 *
 * Concurrency.  One actor at a time, whichever: the switch sees to it. The shard meanwhile belongs to nobody, or at
 * the installation to the actor that does it.
 *
 * Limits.  As for shards; flows of copies count for no limit of flows, memory does.
 */

#include "state/internal.h"
#include "state/prefetch.h"

#define CLEAR_ROOM 65536u /* journal that the end of one group of flows is sure to fit in */

_Static_assert((GROUP_SLOTS * (SM_MAX_CHUNKS + 1) + 8) * sizeof(struct journal_entry) < 3 * CLEAR_ROOM,
               "a group's flows and chunks are freed within the reserve");
_Static_assert(3 * CLEAR_ROOM <= JOURNAL_RESERVE, "which journal_may_add() leaves alone");

void state_copy_install(struct state_actor *actor, uint32_t index, uint32_t number)
{
    struct shard *shard = shard_at(actor->state, index), *copy = shard_at(actor->state, number);
    assert(index < SM_SHARDS && number >= state_copy(0) && shard->count == copy->count);
    struct group first = shard->first;
    struct timer_entry *heap = shard->heap;
    uint64_t table = shard->table;
    uint32_t timers = shard->timers, heap_count = shard->heap_count, heap_capacity = shard->heap_capacity;
    uint16_t tombstones = shard->tombstones;

    save_shard(actor, shard);
    save_shard(actor, copy);
    STEP();
    shard->first = copy->first;
    atomic_store_explicit(&shard->table, copy->table, memory_order_relaxed);
    STEP();
    shard->tombstones = copy->tombstones;
    shard->timers = copy->timers;
    shard->heap = copy->heap;
    STEP();
    shard->heap_count = copy->heap_count;
    shard->heap_capacity = copy->heap_capacity;
    copy->first = first;
    STEP();
    atomic_store_explicit(&copy->table, table, memory_order_relaxed);
    copy->tombstones = tombstones;
    copy->timers = timers;
    STEP();
    copy->heap = heap;
    copy->heap_count = heap_count;
    copy->heap_capacity = heap_capacity;
    STEP();
}

/* Timers go first and all at once: flows of a copy are not found by them. */
static void clear_timers(struct state_actor *actor, struct shard *copy)
{
    if (copy->heap != NULL) {
        slab_free(actor, copy->heap);
    }
    copy->heap = NULL;
    copy->heap_count = copy->heap_capacity = copy->timers = 0;
}

/* What the end of a group's flows reads and writes. */
static void fetch_group(const struct state *state, const struct group *group)
{
    for (uint64_t full = group_full(group->tags); full != 0; full &= full - 1) {
        prefetch_for_write(flow_at(state, group->refs[group_slot(full)]));
    }
}

static uint32_t clear_group(struct state_actor *actor, struct group *group, int64_t *by_class)
{
    uint32_t count = 0;
    if (group_full(group->tags) == 0) {
        return 0;
    }
    save(actor, group, sizeof *group);
    for (uint64_t full = group_full(group->tags); full != 0; full &= full - 1, count++) {
        struct flow *flow = flow_at(actor->state, group->refs[group_slot(full)]);
        by_class[flow->cls]++;
        chunks_release(actor, flow);
        slab_free(actor, flow_object(flow));
    }
    STEP();
    group->tags = 0;
    return count;
}

static void uncount(struct state_actor *actor, uint32_t entries, const int64_t *by_class)
{
    struct actor_counters *counters = &actor->counters[IN_COPIES];
    save(actor, counters, sizeof *counters);
    for (unsigned cls = 0; cls < STATE_CLASSES; cls++) {
        if (by_class[cls] != 0) {
            atomic_fetch_sub_explicit(&counters->class_live[cls], by_class[cls], memory_order_relaxed);
        }
    }
    STEP();
    atomic_fetch_sub_explicit(&counters->live, entries - by_class[STATE_BINDING], memory_order_relaxed);
}

bool state_copy_clear(struct state_actor *actor, uint32_t number, uint32_t budget)
{
    struct shard *copy = shard_at(actor->state, number);
    int64_t by_class[STATE_CLASSES] = {0};
    uint32_t mask, count = 0;
    struct group *groups = shard_groups(copy, &mask);

    assert(number >= state_copy(0));
    save_shard(actor, copy);
    clear_timers(actor, copy);
    STEP();
    for (uint32_t i = 0; i <= mask && count < budget; i++) {
        if (count > 0 && !journal_may_add(actor->journal, CLEAR_ROOM)) {
            break;
        }
        if (i + 2 <= mask) {
            fetch_group(actor->state, group_at(groups, i + 2));
        }
        count += clear_group(actor, group_at(groups, i), by_class);
    }
    uncount(actor, count, by_class);
    STEP();
    atomic_store_explicit(&copy->count, (uint16_t)(copy->count - count), memory_order_relaxed);
    if (copy->count > 0) {
        return false;
    }
    copy->tombstones = 0;
    copy->first.tags = 0;
    if (copy->table != 0) {
        atomic_store_explicit(&copy->table, 0, memory_order_relaxed);
        slab_free(actor, groups);
    }
    return true;
}
