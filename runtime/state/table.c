/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flow tables: one per shard, of all classes together.
 *
 * Overview.  Open addressing over groups of eight slots: a word of tags, a word of more hash bits and eight references.
 * A look-up compares eight tags at once and then, nearly always, one flow's key. Groups are probed one after the other
 * from the one that the hash names; a group with an empty slot ends the search. Flows never move: tables hold
 * references.
 *
 * Life-cycle.  Up to eight flows are in the group inside `struct shard`, without allocation. The ninth makes an array
 * of groups; at 7/8 full, tombstones counted, it is rebuilt at the size that its flows need: larger, the same, or
 * smaller. A removed flow leaves a tombstone only if its group is full, as no search has gone past it otherwise. When
 * the last flow goes the array goes too. A rebuilt table becomes the shard's by one store.
 *
 * Concurrency.  The shard's owner only (stripes: whoever holds the lock). Slabs see to the memory.
 *
 * Limits.  STATE_SHARD_FLOWS; memory. Flows of the service and the class are counted by each actor for itself and added
 * up: an insertion counts first and takes it back when it fails, so near the limit another's failing insertion may make
 * one fail that just had room.
 */

#include "state/lookup.h"
#include "state/prefetch.h"

#include <xxhash.h>

uint64_t state_hash(const struct state *state, const struct sm_key *key)
{
    struct sm_key bare = *key;
    bare.tag = 0;
    return state_hash_tagged(XXH3_64bits_withSecret(&bare, sizeof bare, state->secret, sizeof state->secret), key->tag);
}

struct flow *state_find(const struct state *state, uint32_t shard, unsigned cls, const struct sm_key *key,
                        uint64_t hash)
{
    return lookup_flow(state, shard, cls, key, key->tag, hash);
}

struct group *slot_of(const struct state *state, const struct shard *shard, const struct flow *flow, unsigned *slot)
{
    uint32_t mask, ref = flow_ref(state, flow);
    struct group *groups = shard_groups(shard, &mask);
    uint32_t at = hash_group(flow->hash) & mask;
    for (uint32_t i = 0; i <= mask; i++, at = (at + 1) & mask) {
        struct group *group = group_at(groups, at);
        for (uint64_t match = group_match(group, flow->hash); match != 0; match &= match - 1) {
            *slot = group_slot(match);
            if (group->refs[*slot] == ref && group_tag(group, *slot) == hash_tag(flow->hash)) {
                return group;
            }
        }
        if (group_empty(group->tags) != 0) {
            return NULL;
        }
    }
    return NULL;
}

/* Enter a reference in the first vacant slot; there is one. Returns whether a tombstone was replaced. */
static bool groups_enter(const struct state_actor *actor, struct group *groups, uint32_t mask, uint32_t hash,
                         uint32_t ref)
{
    uint32_t at = hash_group(hash) & mask;
    while (group_vacant(group_at(groups, at)->tags) == 0) {
        at = (at + 1) & mask;
    }
    struct group *group = group_at(groups, at);
    unsigned slot = group_slot(group_vacant(group->tags));
    bool tombstone = group_tag(group, slot) == GROUP_TOMBSTONE;
    if (actor != NULL) {
        save(actor, group, sizeof *group);
    }
    STEP();
    group->refs[slot] = ref;
    group->low = bytes_set(group->low, slot, (uint8_t)hash);
    STEP();
    group->tags = bytes_set(group->tags, slot, hash_tag(hash));
    STEP();
    return tombstone;
}

/* Enter all flows of one table in another. What a table knows of the hash is most often enough: flows are cold. */
static void groups_copy(const struct state *state, struct group *to, uint32_t to_mask, struct group *from,
                        uint32_t from_mask)
{
    bool look = to_mask >> GROUP_LOG_LOW != 0;
    for (uint32_t i = 0; i <= from_mask; i++) {
        const struct group *group = group_at(from, i);
        for (uint64_t full = group_full(group->tags); look && full != 0; full &= full - 1) {
            prefetch_for_read(flow_at(state, group->refs[group_slot(full)]));
        }
        for (uint64_t full = group_full(group->tags); full != 0; full &= full - 1) {
            unsigned slot = group_slot(full);
            uint32_t ref = group->refs[slot];
            uint32_t known = group_low(group, slot) | (uint32_t)(group_tag(group, slot) & 0x7f) << GROUP_LOG_MAX;
            (void)groups_enter(NULL, to, to_mask, look ? flow_at(state, ref)->hash : known, ref);
        }
    }
}

static struct group *groups_alloc(struct state_actor *actor, unsigned log)
{
    size_t bytes = (size_t)GROUP_STRIDE << log;
    assert(log >= 1 && log <= GROUP_LOG_MAX);
    struct group *groups = log <= SLAB_TABLE_BINS
                               ? slab_alloc(actor, log - 1)
                               : slab_alloc_run(actor, (uint32_t)((bytes + SLAB_BYTES - 1) / SLAB_BYTES));
    if (groups != NULL) {
        memset(groups, 0, bytes);
    }
    return groups;
}

/* Rebuild the table at the size for one flow more. */
static int table_rebuild(struct state_actor *actor, struct shard *shard)
{
    struct state *state = actor->state;
    uint32_t old_mask;
    struct group *old = shard_groups(shard, &old_mask), *groups = &shard->first;
    unsigned log = 0;
    while (shard->count + 1u > 5u << log) { /* then 5/8 full at most */
        log++;
    }
    if (log > 0) {
        groups = groups_alloc(actor, log);
        if (groups == NULL) {
            return SM_E_LIMIT;
        }
    }
    assert(groups != old);
    save_shard(actor, shard);
    groups_copy(state, groups, (1u << log) - 1, old, old_mask);
    STEP();
    atomic_store_explicit(&shard->table, log == 0 ? 0 : (uintptr_t)groups | log, memory_order_relaxed);
    STEP();
    shard->tombstones = 0;
    if (old == &shard->first) {
        shard->first.tags = 0;
    } else {
        slab_free(actor, old);
    }
    STEP();
    return 0;
}

/* Make sure that one more flow finds a slot. */
static int table_reserve(struct state_actor *actor, struct shard *shard)
{
    uint32_t mask;
    (void)shard_groups(shard, &mask);
    uint32_t limit = mask == 0 ? GROUP_SLOTS : (mask + 1) * GROUP_SLOTS / 8 * 7;
    return (uint32_t)shard->count + shard->tombstones < limit ? 0 : table_rebuild(actor, shard);
}

/* Counters have one writer, their actor. */
static void count_add(struct shard *shard, int amount)
{
    int count = atomic_load_explicit(&shard->count, memory_order_relaxed) + amount;
    atomic_store_explicit(&shard->count, (uint16_t)count, memory_order_relaxed);
}

static void counter_add(_Atomic(uint64_t) *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void live_add(struct actor_counters *counters, unsigned cls, int64_t amount)
{
    atomic_fetch_add_explicit(&counters->class_live[cls], amount, memory_order_seq_cst);
    if (cls != STATE_BINDING) {
        atomic_fetch_add_explicit(&counters->live, amount, memory_order_seq_cst);
    }
}

static void refuse(struct state_actor *actor, struct actor_counters *counters, unsigned cls)
{
    _Atomic(uint64_t) *refused = cls == STATE_BINDING ? &counters->unbound : &counters->refused;
    save(actor, refused, sizeof *refused);
    counter_add(refused);
}

/*
 * Count the flow first, then add up all actors: of two that want the last place at least one sees the other, so the
 * limit is never exceeded.
 */
static bool limits_reserve(struct state_actor *actor, struct actor_counters *counters, const struct shard *shard,
                           unsigned cls)
{
    const struct state *state = actor->state;
    uint32_t limit = state->forms[actor->forms[cls]].limit;
    if (shard->count >= STATE_SHARD_FLOWS) {
        return false;
    }
    save(actor, &counters->live, sizeof counters->live);
    save(actor, &counters->class_live[cls], sizeof counters->class_live[cls]);
    STEP();
    live_add(counters, cls, 1);
    STEP();
    bool fits = cls == STATE_BINDING || live_sum(state, LIVE_FLOWS) <= state->flow_limit;
    if (fits && (limit == 0 || live_sum(state, cls) <= limit)) {
        return true;
    }
    live_add(counters, cls, -1);
    return false;
}

struct flow *flow_make(struct state_actor *actor, unsigned form, unsigned cls, const struct sm_key *key, uint32_t hash)
{
    struct state *state = actor->state;
    uint8_t timers = state->forms[form].timers, chunks = class_has_chunks(&state->forms[form]);
    unsigned char *object = slab_alloc(actor, state->form_bin[form]);
    if (object == NULL) {
        return NULL;
    }
    memset(object, 0, (size_t)state->bins[state->form_bin[form]].units * STATE_UNIT);
    struct flow *flow = (struct flow *)(object + flow_offset(timers, chunks));
    flow->hash = hash;
    flow->cls = (uint8_t)cls;
    flow->form = (uint8_t)form;
    flow->timers = timers;
    flow->has_chunks = chunks;
    flow->key = *key;
    return flow;
}

int state_insert(struct state_actor *actor, uint32_t index, unsigned cls, const struct sm_key *key, uint64_t hash,
                 struct flow **result)
{
    struct state *state = actor->state;
    struct shard *shard = shard_at(state, index);
    unsigned form = actor->forms[cls];
    assert(form < state_class_count(state) || form == BINDING_FORM);
    struct actor_counters *counters = counters_of(actor, index);
    if (!limits_reserve(actor, counters, shard, cls)) {
        refuse(actor, counters, cls);
        return SM_E_LIMIT;
    }
    struct flow *flow = NULL;
    if (table_reserve(actor, shard) == 0 && timers_reserve(actor, shard, state->forms[form].timers) == 0) {
        flow = flow_make(actor, form, cls, key, (uint32_t)hash);
    }
    if (flow == NULL) {
        live_add(counters, cls, -1);
        refuse(actor, counters, cls);
        return SM_E_LIMIT;
    }
    uint32_t mask;
    struct group *groups = shard_groups(shard, &mask);
    save_shard(actor, shard);
    save(actor, &counters->created, sizeof counters->created);
    if (groups_enter(actor, groups, mask, flow->hash, flow_ref(state, flow))) {
        shard->tombstones--;
    }
    STEP();
    count_add(shard, 1);
    STEP();
    shard->timers += flow->timers;
    if (cls != STATE_BINDING) {
        counter_add(&counters->created);
    }
    *result = flow;
    return 0;
}

void state_remove(struct state_actor *actor, uint32_t index, struct flow *flow)
{
    struct state *state = actor->state;
    struct shard *shard = shard_at(state, index);
    unsigned slot = 0, cls = flow->cls;
    bindings_release(actor, index, flow);
    struct group *group = slot_of(state, shard, flow, &slot);
    assert(group != NULL && shard->count > 0);
    bool tombstone = shard->table != 0 && group_empty(group->tags) == 0;
    save_shard(actor, shard);
    save(actor, group, sizeof *group);
    struct actor_counters *counters = counters_of(actor, index);
    save(actor, &counters->closed, sizeof counters->closed);
    save(actor, &counters->live, sizeof counters->live);
    save(actor, &counters->class_live[cls], sizeof counters->class_live[cls]);
    group->tags = bytes_set(group->tags, slot, tombstone ? GROUP_TOMBSTONE : 0);
    if (tombstone) {
        shard->tombstones++;
    }
    STEP();
    count_add(shard, -1);
    STEP();
    timers_release(actor, shard, flow);
    chunks_release(actor, flow);
    slab_free(actor, flow_object(flow));
    if (shard->count == 0 && shard->table != 0) {
        uint32_t mask;
        struct group *groups = shard_groups(shard, &mask);
        atomic_store_explicit(&shard->table, 0, memory_order_relaxed);
        STEP();
        shard->tombstones = 0;
        slab_free(actor, groups);
    }
    STEP();
    live_add(counters, cls, -1);
    if (cls != STATE_BINDING) {
        counter_add(&counters->closed);
    }
}

/* The next entry of the table, a flow or a binding. */
static struct flow *next_entry(const struct state *state, uint32_t index, uint32_t *cursor)
{
    uint32_t mask;
    struct group *groups = shard_groups(shard_at(state, index), &mask);
    while (*cursor / GROUP_SLOTS <= mask) {
        const struct group *group = group_at(groups, *cursor / GROUP_SLOTS);
        uint64_t full = group_full(group->tags) >> (8 * (*cursor % GROUP_SLOTS));
        if (full != 0) {
            unsigned slot = *cursor % GROUP_SLOTS + group_slot(full);
            *cursor = *cursor / GROUP_SLOTS * GROUP_SLOTS + slot + 1;
            return flow_at(state, group->refs[slot]);
        }
        *cursor = (*cursor / GROUP_SLOTS + 1) * GROUP_SLOTS;
    }
    return NULL;
}

struct flow *state_next(const struct state *state, uint32_t index, uint32_t *cursor)
{
    struct flow *flow;
    do {
        flow = next_entry(state, index, cursor);
    } while (flow != NULL && flow->cls == STATE_BINDING);
    return flow;
}

void state_prefetch_next(const struct state *state, uint32_t index, uint32_t *cursor)
{
    const char *flow = (const char *)next_entry(state, index, cursor);
    if (flow != NULL) {
        prefetch_for_read(flow);
        prefetch_for_read(flow + STATE_LINE);
    }
}

const struct sm_key *state_binding_next(const struct state *state, uint32_t index, uint32_t *cursor)
{
    const struct flow *flow;
    do {
        flow = next_entry(state, index, cursor);
    } while (flow != NULL && flow->cls != STATE_BINDING);
    return flow != NULL ? &flow->key : NULL;
}

uint32_t state_shard_flows(const struct state *state, uint32_t shard)
{
    return atomic_load_explicit(&shard_at(state, shard)->count, memory_order_relaxed);
}

void *flow_record(struct flow *flow)
{
    return flow + 1;
}
struct flow *flow_of_record(void *record)
{
    return (struct flow *)record - 1;
}
const struct sm_key *flow_key(const struct flow *flow)
{
    return &flow->key;
}
unsigned flow_class(const struct flow *flow)
{
    return flow->cls;
}
unsigned flow_form(const struct flow *flow)
{
    return flow->form;
}

void *flow_extent(struct flow *flow, uint32_t record_size, uint32_t *bytes)
{
    uint32_t before = timers_bytes(flow->timers);
    *bytes = before + (uint32_t)sizeof *flow + record_size;
    return (unsigned char *)flow - before;
}

bool state_is_full(const struct state_actor *actor, uint32_t shard, unsigned cls)
{
    const struct state *state = actor->state;
    uint32_t limit = state->forms[actor->forms[cls]].limit;
    return state_shard_flows(state, shard) >= STATE_SHARD_FLOWS || live_sum(state, LIVE_FLOWS) >= state->flow_limit ||
           (limit != 0 && live_sum(state, cls) >= limit);
}

struct flow *state_earliest(const struct state *state, uint32_t shard, unsigned cls, unsigned slot, sm_time before)
{
    struct flow *flow, *best = NULL;
    uint64_t earliest = before.ns;
    for (uint32_t cursor = 0; (flow = state_next(state, shard, &cursor)) != NULL;) {
        if (flow->cls != cls) {
            continue;
        }
        uint64_t deadline = flow_timer(flow, slot)->deadline;
        bool tie = best != NULL && deadline == earliest && memcmp(&flow->key, &best->key, sizeof flow->key) < 0;
        if (deadline < earliest || tie) {
            earliest = deadline;
            best = flow;
        }
    }
    return best;
}

void state_count_evicted(struct state_actor *actor, uint32_t shard)
{
    struct actor_counters *counters = counters_of(actor, shard);
    save(actor, &counters->evicted, sizeof counters->evicted);
    counter_add(&counters->evicted);
}
