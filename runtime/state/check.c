/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The consistency check: everything against everything else.
 *
 * Overview.  Walk all shards; every table, heap and flow met is marked as an object of its slab, in a bitmap of the
 * check's own. In the end the slabs' bitmaps must equal the marks, and the counters what was counted. References are
 * looked at only once they are known to lie in a slab, so that a damaged state is reported and not followed; the
 * state's own frame (where slabs and heap are) is the caller's to vouch for.
 *
 * Concurrency.  Nobody may be writing.
 *
 * Limits.  One bitmap as large as the slabs' in the caller's process.
 */

#include "state/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct check {
    const struct state *state;
    state_found_fn *tell; /* NULL: they are only counted */
    void *arg;
    unsigned found;
    uint32_t slabs;  /* descriptors in use */
    uint64_t *marks; /* SLAB_WORDS for each */
    uint64_t flows, copied;
    uint64_t class_flows[STATE_CLASSES];
};

__attribute__((format(printf, 2, 3))) static void report(struct check *check, const char *format, ...)
{
    struct sm_errbuf text;
    check->found++;
    if (check->tell != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text.text, sizeof text.text, format, arguments);
        va_end(arguments);
        check->tell(check->arg, text.text);
    }
}

static struct slab_control control_of(const struct check *check, uint32_t slab)
{
    return slab_unpack(atomic_load_explicit(&check->state->slabs[slab].control, memory_order_acquire));
}

static uint64_t used_of(const struct check *check, uint32_t slab, uint32_t word)
{
    return atomic_load_explicit(&check->state->slabs[slab].used[word], memory_order_acquire);
}

/* Mark an object of `bytes` at `address`. False: it is none, reported. */
static bool mark(struct check *check, const void *address, uint64_t bytes, const char *what, uint32_t shard)
{
    uint64_t offset = (uintptr_t)address - (uintptr_t)check->state->heap;
    uint64_t index = offset / SLAB_BYTES, within = offset % SLAB_BYTES, bit = 0;
    if ((uintptr_t)address < (uintptr_t)check->state->heap || index >= check->slabs) {
        report(check, "shard %u: %s outside of the slabs in use", shard, what);
        return false;
    }
    struct slab_control c = control_of(check, (uint32_t)index);
    bool fits = false;
    if (bytes == 0) {
        report(check, "shard %u: %s of no size", shard, what);
        return false;
    }
    if (bytes > SLAB_BYTES) {
        fits = c.kind == SLAB_RUN && within == 0 && c.length == (bytes + SLAB_BYTES - 1) / SLAB_BYTES;
    } else {
        fits = c.kind == SLAB_OBJECTS_OF_ONE_SIZE && c.units == bytes / STATE_UNIT && within % bytes == 0;
        bit = within / bytes;
        fits = fits && bit < slab_objects(c.units);
    }
    if (!fits) {
        report(check, "shard %u: %s of %llu bytes is no object of slab %llu (%u units, kind %u)", shard, what,
               (unsigned long long)bytes, (unsigned long long)index, c.units, (unsigned)c.kind);
        return false;
    }
    uint64_t mask = UINT64_C(1) << (bit % 64), *marks = &check->marks[index * SLAB_WORDS + bit / 64];
    if ((used_of(check, (uint32_t)index, (uint32_t)(bit / 64)) & mask) == 0) {
        report(check, "shard %u: %s in slab %llu is in use but marked free", shard, what, (unsigned long long)index);
    }
    if (*marks & mask) {
        report(check, "shard %u: %s in slab %llu is referred to twice", shard, what, (unsigned long long)index);
        return false;
    }
    *marks |= mask;
    return true;
}

/* Timers of one flow: armed ones have an entry that names them. (As many entries as armed timers: one each.) */
static uint32_t check_flow_timers(struct check *check, uint32_t index, const struct shard *shard,
                                  const struct flow *flow)
{
    uint32_t armed = 0;
    for (unsigned slot = 0; slot < flow->timers; slot++) {
        const struct flow_timer *timer = flow_timer(flow, slot);
        if (timer->deadline == 0) {
            continue;
        }
        armed++;
        uint32_t at = timer_entry_of(check->state, shard, flow, slot);
        if (at == heap_end(shard)) {
            report(check, "shard %u: an armed timer has no heap entry", index);
        } else if (shard->heap[at].deadline > timer->deadline) {
            report(check, "shard %u: a heap entry is later than its timer", index);
        }
    }
    return armed;
}

static bool is_within(const struct check *check, const struct flow *flow)
{
    uintptr_t heap = (uintptr_t)check->state->heap;
    return (uintptr_t)flow >= heap && (uintptr_t)(flow + 1) <= heap + (uint64_t)check->slabs * SLAB_BYTES;
}

/* As state_find(), in a table that may be damaged: nothing is followed that leads out of the slabs. */
static const struct flow *find(const struct check *check, uint32_t index, unsigned cls, const struct sm_key *key)
{
    uint64_t hash = state_hash(check->state, key);
    uint32_t mask;
    struct group *groups = shard_groups(shard_at(check->state, index), &mask);
    uint32_t at = hash_group(hash) & mask;
    for (uint32_t i = 0; i <= mask; i++, at = (at + 1) & mask) {
        const struct group *group = group_at(groups, at);
        for (uint64_t match = group_match(group, hash); match != 0; match &= match - 1) {
            const struct flow *flow = flow_at(check->state, group->refs[group_slot(match)]);
            if (is_within(check, flow) && flow->cls == cls && memcmp(&flow->key, key, sizeof *key) == 0) {
                return flow;
            }
        }
        if (group_empty(group->tags) != 0) {
            return NULL;
        }
    }
    return NULL;
}

/* A binding is on the list of a flow of its own shard. */
static void check_binding(struct check *check, uint32_t index, struct flow *entry)
{
    const struct state *state = check->state;
    const struct flow *flow = flow_at(state, ((const struct binding *)flow_record(entry))->flow), *at = NULL;
    bool whole = is_within(check, flow) && flow->has_chunks && flow->cls < SM_MAX_CLASSES &&
                 find(check, index, flow->cls, &flow->key) == flow;
    uint32_t ref = whole ? ((const struct flow_chunks *)flow_object((struct flow *)(uintptr_t)flow))->bindings : 0;
    for (unsigned i = 0; ref != 0 && at != entry && i < SM_MAX_BINDINGS; i++) {
        at = is_within(check, flow_at(state, ref)) ? flow_at(state, ref) : NULL;
        ref = at != NULL ? ((const struct binding *)(const void *)(at + 1))->next : 0;
    }
    if (at != entry) {
        report(check, "shard %u: a key is bound to a flow that does not know of it", index);
    }
}

static void check_chunks(struct check *check, uint32_t index, const struct flow *flow)
{
    const struct state *state = check->state;
    const struct flow_chunks *chunks = flow_object((struct flow *)(uintptr_t)flow);
    uintptr_t end = (uintptr_t)state->heap + (uint64_t)check->slabs * SLAB_BYTES;
    uint64_t bytes = 0;
    uint32_t count = 0, before = 0;
    for (uint32_t ref = chunks->first; ref != 0; count++) {
        const struct chunk *chunk = chunk_at(state, ref);
        if ((uintptr_t)chunk < (uintptr_t)state->heap || (uintptr_t)(chunk + 1) > end || count == chunks->count) {
            report(check, "shard %u: chunk %u of a flow that has %u is nowhere, or not counted", index, count,
                   chunks->count);
            return;
        }
        uint32_t size, whole = chunk->bytes + (uint32_t)sizeof *chunk;
        if (chunk->bytes > SM_MAX_ALLOC || chunk_bin(whole, &size) < 0) {
            size = whole;
        }
        if (chunk->flow != flow_ref(state, flow) || chunk->before != before ||
            !mark(check, chunk, size, "a chunk", index)) {
            report(check, "shard %u: a chunk is another flow's, or not linked with the one before", index);
            return;
        }
        bytes += chunk->bytes;
        before = ref;
        ref = chunk->next;
    }
    if (count != chunks->count || bytes != chunks->bytes || bytes > flow_description(state, flow)->alloc_limit) {
        report(check, "shard %u: %u chunks of %llu bytes, counted as %u of %u", index, count, (unsigned long long)bytes,
               chunks->count, chunks->bytes);
    }
}

/* One flow. False: it cannot be looked at. */
static bool check_flow(struct check *check, uint32_t index, uint32_t ref, uint8_t tag, uint8_t low)
{
    const struct state *state = check->state;
    const struct flow *flow = flow_at(state, ref);
    if (!is_within(check, flow)) {
        report(check, "shard %u: a flow outside of the slabs in use", index);
        return false;
    }
    if (flow->cls >= STATE_CLASSES || (flow->form >= state_class_count(state) && flow->form != BINDING_FORM) ||
        flow->timers != flow_description(state, flow)->timers ||
        flow->has_chunks != class_has_chunks(flow_description(state, flow))) {
        report(check, "shard %u: a flow of class %u, form %u, with %u timers", index, flow->cls, flow->form,
               flow->timers);
        return false;
    }
    uint8_t bin = state->form_bin[flow->form];
    uint64_t bytes = bin < SLAB_BINS ? (uint64_t)state->bins[bin].units * STATE_UNIT : 0;
    if (!mark(check, flow_object((struct flow *)(uintptr_t)flow), bytes, "a flow", index)) {
        return false;
    }
    if (flow->has_chunks) {
        check_chunks(check, index, flow);
    }
    bool copy = index >= state_copy(0), binding = flow->cls == STATE_BINDING;
    if (binding && !copy) {
        check_binding(check, index, (struct flow *)(uintptr_t)flow);
    }
    check->flows += !copy && !binding;
    check->copied += copy && !binding;
    check->class_flows[flow->cls] += !copy;
    uint64_t hash = state_hash(state, &flow->key);
    if (flow->hash != (uint32_t)hash || tag != hash_tag(hash) || low != (uint8_t)hash) {
        report(check, "shard %u: a flow's hash or tag is not its key's", index);
    } else if (!copy && find(check, index, flow->cls, &flow->key) != flow) {
        report(check, "shard %u: a flow is not found by its key", index);
    }
    return true;
}

static void check_heap(struct check *check, uint32_t index, const struct shard *shard)
{
    for (uint32_t i = HEAP_ROOT + 1; i < heap_end(shard); i++) {
        const struct timer_entry *entry = &shard->heap[i], *parent = &shard->heap[heap_parent(i)];
        if (entry->deadline < parent->deadline) {
            report(check, "shard %u: heap entry %u is earlier than the one above", index, i);
        }
    }
}

/* A shard's table and heap themselves. False: do not look inside. */
static bool check_frame(struct check *check, uint32_t index, const struct shard *shard)
{
    uint64_t table = ((struct shard *)(uintptr_t)shard)->table, log = table & 15;
    if (shard->count > STATE_SHARD_FLOWS) {
        report(check, "shard %u: %u flows", index, shard->count);
        return false;
    }
    if (table != 0) {
        if (log == 0 || log > GROUP_LOG_MAX) {
            report(check, "shard %u: a table of 2^%u groups", index, (unsigned)log);
            return false;
        }
        if (!mark(check, (void *)(uintptr_t)(table - log), (uint64_t)GROUP_STRIDE << log, "a table", index)) {
            return false;
        }
        if (shard->first.tags != 0) {
            report(check, "shard %u: flows in the first group beside a table", index);
        }
    }
    uint32_t capacity = shard->heap_capacity;
    if ((capacity != 0 ? HEAP_ROOT : 0) + (uint64_t)shard->timers > capacity || shard->heap_count > shard->timers ||
        (capacity != 0) != (shard->heap != NULL)) {
        report(check, "shard %u: %u armed of %u timers in a heap of %u", index, shard->heap_count, shard->timers,
               capacity);
        return false;
    }
    return capacity == 0 || mark(check, shard->heap, capacity * sizeof(struct timer_entry), "a heap", index);
}

static void check_shard(struct check *check, uint32_t index)
{
    const struct shard *shard = shard_at(check->state, index);
    if (!check_frame(check, index, shard)) {
        return;
    }
    uint32_t mask, flows = 0, tombstones = 0, timers = 0, armed = 0;
    struct group *groups = shard_groups(shard, &mask);
    for (uint32_t i = 0; i <= mask; i++) {
        for (unsigned slot = 0; slot < GROUP_SLOTS; slot++) {
            const struct group *group = group_at(groups, i);
            uint8_t tag = group_tag(group, slot);
            uint32_t ref = group->refs[slot];
            if (tag < 0x80) {
                tombstones += tag == GROUP_TOMBSTONE;
                if (tag > GROUP_TOMBSTONE) {
                    report(check, "shard %u: tag %u", index, tag);
                }
                continue;
            }
            flows++;
            if (check_flow(check, index, ref, tag, group_low(group, slot))) {
                timers += flow_at(check->state, ref)->timers;
                if (index < state_copy(0)) {
                    armed += check_flow_timers(check, index, shard, flow_at(check->state, ref));
                }
            }
        }
    }
    if (index >= state_copy(0)) { /* perhaps half cleared: what it has is its own, more is not to be said */
        if (flows != shard->count) {
            report(check, "shard %u: %u flows of a copy, counted as %u", index, flows, shard->count);
        }
        return;
    }
    if (flows != shard->count || tombstones != shard->tombstones) {
        report(check, "shard %u: %u flows and %u tombstones, counted as %u and %u", index, flows, tombstones,
               shard->count, shard->tombstones);
    }
    if (timers != shard->timers || armed != shard->heap_count) {
        report(check, "shard %u: %u timers, %u armed, counted as %u and %u", index, timers, armed, shard->timers,
               shard->heap_count);
    }
    check_heap(check, index, shard);
}

static void check_slab(struct check *check, uint32_t index)
{
    struct slab_control c = control_of(check, index);
    if (c.holder > STATE_ACTORS ||
        (c.holder != 0 && !((struct state *)(uintptr_t)check->state)->actors[c.holder - 1].joined)) {
        report(check, "slab %u: held by actor %u, which is not there", index, c.holder - 1);
    }
    if (c.kind > SLAB_TAIL || c.units > SLAB_BYTES / STATE_UNIT) {
        report(check, "slab %u: kind %u, %u units", index, (unsigned)c.kind, c.units);
    }
    if (c.kind == SLAB_RUN) {
        for (uint32_t i = 1; i < c.length; i++) {
            struct slab_control tail = index + i < check->slabs ? control_of(check, index + i) : c;
            if (tail.kind != SLAB_TAIL || tail.length != i) {
                report(check, "slab %u: a run of %u without slab %u", index, c.length, index + i);
            }
        }
    } else if (c.kind == SLAB_TAIL) {
        struct slab_control run = c.length <= index ? control_of(check, index - c.length) : c;
        if (run.kind != SLAB_RUN || run.length <= c.length) {
            report(check, "slab %u: the tail of no run", index);
        }
    }
    for (uint32_t i = 0; i < SLAB_WORDS; i++) {
        uint64_t odd = used_of(check, index, i) & ~check->marks[(uint64_t)index * SLAB_WORDS + i];
        if (odd != 0) {
            report(check, "slab %u (%u units): object %u in use, but nobody refers to it", index, c.units,
                   i * 64 + (unsigned)__builtin_ctzll(odd));
        }
    }
}

unsigned state_check_all(const struct state *state, state_found_fn *tell, void *arg)
{
    struct state *s = (struct state *)(uintptr_t)state;
    struct check check = {.state = state, .tell = tell, .arg = arg};
    if (state->magic != STATE_MAGIC || s->fresh > state->slab_count) {
        report(&check, "not a formatted state");
        return check.found;
    }
    check.slabs = s->fresh;
    check.marks = calloc((size_t)check.slabs * SLAB_WORDS + 1, sizeof *check.marks);
    if (check.marks == NULL) {
        report(&check, "no memory to check with");
        return check.found;
    }
    for (uint32_t i = 0; i < STATE_SHARDS; i++) {
        check_shard(&check, i);
    }
    for (uint32_t i = 0; i < check.slabs; i++) {
        check_slab(&check, i);
    }
    if (check.flows != (uint64_t)live_sum(s, LIVE_FLOWS)) {
        report(&check, "%llu flows, counted as %lld", (unsigned long long)check.flows,
               (long long)live_sum(s, LIVE_FLOWS));
    }
    if (check.copied != (uint64_t)copied_sum(s)) {
        report(&check, "%llu flows in copies, counted as %lld", (unsigned long long)check.copied,
               (long long)copied_sum(s));
    }
    for (unsigned i = 0; i < STATE_CLASSES; i++) {
        if (check.class_flows[i] != (uint64_t)live_sum(s, i)) {
            report(&check, "%llu flows of class %u, counted as %lld", (unsigned long long)check.class_flows[i], i,
                   (long long)live_sum(s, i));
        }
    }
    free(check.marks);
    return check.found;
}

static void keep_first(void *arg, const char *text)
{
    struct sm_errbuf *error = arg;
    if (error != NULL && error->text[0] == '\0') {
        snprintf(error->text, sizeof error->text, "%s", text);
    }
}

unsigned state_check(const struct state *state, struct sm_errbuf *error)
{
    if (error != NULL) {
        error->text[0] = '\0';
    }
    return state_check_all(state, keep_first, error);
}
