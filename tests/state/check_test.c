/* SPDX-License-Identifier: BSD-2-Clause */
/* state_check() finds what is planted; stripe locks. */

#include "support.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define SHARD 6

static struct fixture f;
static unsigned cls;
static struct shard *shard;
static struct flow *flow;

static void setup(void)
{
    f = fixture_open(4u << 20, 10000);
    cls = fixture_class(&f, 32, 2, 0);
    for (uint32_t i = 0; i < 100; i++) {
        flow = insert_key(f.actor, SHARD, cls, i);
        state_timer_set(f.actor, SHARD, flow, 0, (sm_time){500 + i});
        state_timer_set(f.actor, SHARD, flow, 1, (sm_time){500 + i});
    }
    for (uint32_t i = 0; i < 40; i++) {
        state_remove(f.actor, SHARD, find_key(f.state, SHARD, cls, i));
    }
    shard = &f.state->shards[SHARD];
    struct sm_errbuf error = {""};
    cr_assert_eq(state_check(f.state, &error), 0, "%s", error.text);
}

TestSuite(state_check, .init = setup);

/* For coverage.py. */
static void print_found(void *arg, const char *text)
{
    (void)arg;
    printf("found: %s\n", text);
}

static void expect_found(const char *what)
{
    struct sm_errbuf error = {""};
    state_check_all(f.state, print_found, NULL);
    fflush(stdout);
    cr_assert_gt(state_check(f.state, &error), 0, "%s went unnoticed", what);
    cr_assert_neq(error.text[0], '\0');
    cr_assert_gt(state_check(f.state, NULL), 0);
}

static struct group *some_group(unsigned *slot)
{
    uint32_t mask;
    struct group *groups = shard_groups(shard, &mask);
    while (group_full(groups->tags) == 0) {
        groups = group_at(groups, 1);
    }
    *slot = group_slot(group_full(groups->tags));
    return groups;
}

/* Each plant is undone, and the state is whole again: so each is found for its own sake. */
#define PLANT(what, place, value)                                                                                      \
    do {                                                                                                               \
        __typeof__(place) saved = (place);                                                                             \
        (place) = (value);                                                                                             \
        expect_found(what);                                                                                            \
        (place) = saved;                                                                                               \
        cr_assert_eq(state_check(f.state, NULL), 0);                                                                   \
    } while (0)

Test(state_check, tables)
{
    unsigned slot;
    struct group *group = some_group(&slot);
    PLANT("count", shard->count, 61);
    PLANT("tombstones", shard->tombstones, (uint16_t)(shard->tombstones + 1));
    PLANT("a lost slot", group->tags, bytes_set(group->tags, slot, 0));
    PLANT("a wrong tag", group->tags, group->tags ^ (UINT64_C(1) << (8 * slot)));
    PLANT("a wrong low byte", group->low, group->low ^ (UINT64_C(1) << (8 * slot)));
    PLANT("a reference to nowhere", group->refs[slot], UINT32_MAX);
    PLANT("a reference to the descriptors", group->refs[slot], 1);
    PLANT("a reference into an object", group->refs[slot], group->refs[slot] + 1);
    PLANT("a reference to another flow", group->refs[slot],
          flow_ref(f.state, flow) == group->refs[slot] ? flow_ref(f.state, find_key(f.state, SHARD, cls, 50))
                                                       : flow_ref(f.state, flow));
    PLANT("a table nowhere", shard->table, 3);
    PLANT("a table of another size", shard->table, shard->table + 1);
    PLANT("a table of one group", shard->table, shard->table & ~UINT64_C(15));
    unsigned empty = group_slot(group_empty(group->tags));
    PLANT("a tag that is none", group->tags, bytes_set(group->tags, empty, 5));
    PLANT("flows in both tables", shard->first.tags, 0x80);
    PLANT("a flow in an empty shard", f.state->shards[0].first.tags, 0x80);
}

/* A flow in a group where a search for it does not come by. */
Test(state_check, a_flow_out_of_reach)
{
    uint32_t mask;
    unsigned slot;
    struct group *groups = shard_groups(shard, &mask), *from = some_group(&slot), *to = groups;
    while (to == from || group_empty(to->tags) == 0) {
        to = group_at(to, 1);
    }
    const struct group from_was = *from, to_was = *to;
    unsigned empty = group_slot(group_empty(to->tags));
    to->refs[empty] = from->refs[slot];
    to->low = bytes_set(to->low, empty, group_low(from, slot));
    to->tags = bytes_set(to->tags, empty, group_tag(from, slot));
    from->tags = bytes_set(from->tags, slot, 0);
    expect_found("a flow out of reach");
    *from = from_was;
    *to = to_was;
    cr_assert_eq(state_check(f.state, NULL), 0);
}

Test(state_check, flows_and_limits)
{
    PLANT("a class without a size", f.state->form_bin[cls], 255);
    PLANT("flows in a copy", f.state->shards[state_copy(0)].count, 1);
    PLANT("flows in copies", f.actor->counters[IN_COPIES].live, 1);
    PLANT("a changed key", flow->key.a[15], 1);
    PLANT("a changed hash", flow->hash, flow->hash + 1);
    PLANT("another class", flow->cls, 9);
    PLANT("other timers", flow->timers, 1);
    PLANT("flows live", f.actor->counters[0].live, 59);
    PLANT("flows of the class", f.actor->counters[0].class_live[cls], 61);
    PLANT("flows of no class", f.actor->counters[0].class_live[31], 1);
    PLANT("magic", f.state->magic, 0);
}

Test(state_check, timers)
{
    PLANT("heap order", shard->heap[5].deadline, 1);
    PLANT("an entry that is late", shard->heap[122].deadline, 100000);
    PLANT("a wrong slot", shard->heap[7].slot, 1 - shard->heap[7].slot);
    PLANT("a wrong flow", shard->heap[7].flow, shard->heap[9].flow + 1000);
    PLANT("a disarmed timer with an entry", flow_timer(flow, 1)->deadline, 0);
    PLANT("an armed timer with another's entry", shard->heap[7], shard->heap[9]);
    PLANT("entries", shard->heap_count, 119);
    PLANT("slots", shard->timers, 121);
    PLANT("capacity", shard->heap_capacity, 64);
    PLANT("no heap", shard->heap, NULL);
    PLANT("a heap elsewhere", shard->heap, shard->heap + 1);
}

Test(state_check, slabs)
{
    uint32_t index = (uint32_t)(((unsigned char *)flow - f.state->heap) / SLAB_BYTES);
    struct slab *slab = &f.state->slabs[index];
    struct slab_control c = slab_unpack(slab->control);
    PLANT("an object without owner", slab->used[3], slab->used[3] | (UINT64_C(1) << 40));
    PLANT("an object marked free", slab->used[0], slab->used[0] & (slab->used[0] - 1));
    c.holder = 7;
    PLANT("a holder that is not there", slab->control, slab_pack(c));
    c.holder = 0;
    c.units++;
    PLANT("another size", slab->control, slab_pack(c));
    PLANT("a kind that is none", slab->control, slab_pack((struct slab_control){.kind = SLAB_BUILDING}));
    PLANT("a tail without run", slab->control, slab_pack((struct slab_control){.kind = SLAB_TAIL, .length = 1}));
    void *run = slab_alloc_run(f.actor, 3);
    expect_found("a run without owner");
    slab_free(f.actor, run);
    cr_assert_eq(state_check(f.state, NULL), 0);
    struct slab *second = &f.state->slabs[((unsigned char *)run - f.state->heap) / SLAB_BYTES + 1];
    PLANT("a run with a hole", second->control, 0);
}

static void *wait_for_lock(void *stripe)
{
    state_lock(f.state, *(uint32_t *)stripe, 2);
    return NULL;
}

Test(state_check, locks)
{
    uint32_t stripe = SM_SHARDS + 3;
    cr_assert_eq(state_lock_holder(f.state, stripe), -1);
    state_lock(f.state, stripe, 0);
    state_lock(f.state, stripe + 1, 65);
    cr_assert_eq(state_lock_holder(f.state, stripe), 0);
    cr_assert_eq(state_lock_holder(f.state, stripe + 1), 65);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, wait_for_lock, &stripe), 0);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    cr_assert_eq(state_lock_holder(f.state, stripe), 0);
    state_unlock(f.state, stripe);
    pthread_join(thread, NULL);
    cr_assert_eq(state_lock_holder(f.state, stripe), 2);
    state_unlock(f.state, stripe);
    state_unlock(f.state, stripe + 1);
}

Test(state_check, chunks)
{
    const struct state_class with_chunks = {.name = "chunks", .record_size = 16, .timers = 1, .alloc_limit = 400000};
    int id = state_class_add(f.state, &with_chunks);
    cr_assert_geq(id, 0);
    struct flow *owner = insert_key(f.actor, SHARD, (unsigned)id, 1000);
    static const uint32_t sizes[] = {1, 48, 49, 80, 81, 1000, 24560, 49137, 65520, 65521, 100000};
    void *all[sizeof sizes / sizeof *sizes];
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        all[i] = state_chunk_new(f.actor, SHARD, owner, NULL, sizes[i]);
        cr_assert_not_null(all[i]);
        cr_assert_eq((uintptr_t)all[i] % 16, 0);
        memset(all[i], 0xee, sizes[i]);
        cr_assert_eq(state_check(f.state, NULL), 0);
    }
    cr_assert_null(state_chunk_new(f.actor, SHARD, owner, NULL, 300000), "the class's limit");
    cr_assert_null(state_chunk_new(f.actor, SHARD, owner, NULL, 0));
    struct state_usage usage;
    state_usage(f.state, &usage);
    cr_assert_eq(usage.allocations_refused, 2);
    struct flow_chunks *chunks = flow_object(owner);
    struct chunk *chunk = (struct chunk *)all[3] - 1;
    PLANT("the count of chunks", chunks->count, chunks->count - 1);
    PLANT("the bytes of chunks", chunks->bytes, chunks->bytes + 1);
    PLANT("a lost list", chunks->first, 0);
    PLANT("a chunk nowhere", chunks->first, UINT32_MAX);
    PLANT("a list cut short", chunk->next, 0);
    PLANT("a list in a circle", chunk->next, chunks->first);
    PLANT("a wrong link back", chunk->before, chunk->next);
    PLANT("another's chunk", chunk->flow, flow_ref(f.state, flow));
    PLANT("another size", chunk->bytes, 5000);
    uint8_t *moved = state_chunk_new(f.actor, SHARD, owner, all[5], 3000);
    cr_assert(moved[0] == 0xee && moved[999] == 0xee && moved[1000] == 0);
    state_chunk_free(f.actor, owner, all[10]);
    state_chunk_free(f.actor, owner, all[0]);
    cr_assert_eq(state_check(f.state, NULL), 0);
    for (unsigned i = 0; i < SM_MAX_CHUNKS - 9; i++) {
        cr_assert_not_null(state_chunk_new(f.actor, SHARD, owner, NULL, 1));
    }
    cr_assert_null(state_chunk_new(f.actor, SHARD, owner, NULL, 1), "the number of chunks");
    state_remove(f.actor, SHARD, owner);
    cr_assert_eq(state_check(f.state, NULL), 0, "all ended with the flow");
}

Test(state_check, bindings)
{
    const struct state_class binds = {.name = "binds", .record_size = 16, .binds = "ip"};
    int id = state_class_add(f.state, &binds);
    cr_assert_geq(id, 0);
    struct flow *owner = insert_key(f.actor, SHARD, (unsigned)id, 1000);
    struct flow *other = insert_key(f.actor, SHARD, (unsigned)id, 1001);
    struct sm_key key;
    uint64_t hash = 0;
    for (uint32_t i = 0; i < SM_MAX_BINDINGS; i++) {
        key = key_of(2000 + i);
        hash = state_hash(f.state, &key);
        cr_assert_eq(state_bind(f.actor, SHARD, owner, &key, hash), 0);
        cr_assert_eq(state_bind(f.actor, SHARD, owner, &key, hash), 0, "once more changes nothing");
        cr_assert_eq(state_bind(f.actor, SHARD, other, &key, hash), SM_E_CONFLICT);
        cr_assert_eq(state_bound(f.state, SHARD, &key, hash), owner);
        cr_assert_null(state_bound(f.state, SHARD + 1, &key, hash), "only in its own shard");
    }
    struct sm_key more = key_of(3000);
    uint64_t more_hash = state_hash(f.state, &more);
    cr_assert_eq(state_bind(f.actor, SHARD, owner, &more, more_hash), SM_E_LIMIT, "of a flow");
    for (uint32_t i = SM_MAX_BINDINGS; i < 20; i++) {
        struct sm_key another = key_of(2000 + i);
        cr_assert_eq(state_bind(f.actor, SHARD, other, &another, state_hash(f.state, &another)), 0);
    }
    cr_assert_eq(state_bind(f.actor, SHARD, other, &more, more_hash), SM_E_LIMIT, "in all");
    struct state_usage usage;
    state_usage(f.state, &usage);
    cr_assert(usage.bindings_live == 20 && usage.bindings_refused == 1 && usage.flows_live == 62);
    cr_assert_eq(state_check(f.state, NULL), 0);

    struct flow_chunks *head = flow_object(owner);
    struct binding *first = flow_record(flow_at(f.state, head->bindings));
    PLANT("a lost list of bindings", head->bindings, 0);
    PLANT("a list of bindings cut short", first->next, 0);
    PLANT("a list of bindings in a circle", first->next, head->bindings);
    PLANT("another's binding", first->flow, flow_ref(f.state, flow));
    PLANT("a binding to nothing", first->flow, 1);

    cr_assert_eq(state_unbind(f.actor, SHARD, other, &key, hash), SM_E_NOT_FOUND);
    cr_assert_eq(state_unbind(f.actor, SHARD, owner, &key, hash), 0);
    cr_assert_null(state_bound(f.state, SHARD, &key, hash));
    uint32_t cursor = 0, count = 0;
    while (state_binding(f.state, owner, &cursor) != NULL) {
        count++;
    }
    cr_assert_eq(count, SM_MAX_BINDINGS - 1);
    cursor = count = 0;
    while (state_next(f.state, SHARD, &cursor) != NULL) {
        count++;
    }
    cr_assert_eq(count, 62, "bindings are no flows");
    state_remove(f.actor, SHARD, owner);
    state_remove(f.actor, SHARD, other);
    state_usage(f.state, &usage);
    cr_assert_eq(usage.bindings_live, 0, "they end with their flows");
    cr_assert_eq(state_check(f.state, NULL), 0);
}
