/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chunks: memory of variable size that belongs to a flow.
 *
 * Overview.  A chunk is an object of the smallest bin that it fits in, or a run of slabs, and begins with a header
 * that links it with its flow's others. The list's head is in the flow's own object.
 *
 * Life-cycle.  Made and linked; unlinked and freed; or freed with its flow, without being unlinked. One that changes
 * its size is made anew: to grow in place would be to zero bytes that an undo of the shrinking before wants back.
 *
 * Concurrency.  The shard's owner only.
 *
 * Limits.  Bytes of a flow: its class's. Chunks of a flow: SM_MAX_CHUNKS, so that a flow's end fits in the journal.
 */

#include "state/internal.h"

int chunk_bin(uint32_t bytes, uint32_t *size)
{
    if (bytes <= SLAB_CHUNK_MIN) {
        *size = SLAB_CHUNK_MIN;
        return (int)SLAB_BIN_CHUNK;
    }
    for (unsigned i = 0; i < SLAB_TABLE_BINS; i++) {
        if (i < SLAB_CHUNK_BINS - 1 && bytes <= SLAB_CHUNK_STEP << i) {
            *size = SLAB_CHUNK_STEP << i;
            return (int)(SLAB_BIN_CHUNK + 1 + i);
        }
        if (bytes <= SLAB_TABLE_MIN << i) {
            *size = SLAB_TABLE_MIN << i;
            return (int)i;
        }
    }
    return -1;
}

static struct flow_chunks *chunks_of(struct flow *flow)
{
    assert(flow->has_chunks);
    return flow_object(flow);
}

static uint32_t chunk_ref(const struct state *state, const struct chunk *chunk)
{
    return (uint32_t)(((uintptr_t)chunk - (uintptr_t)state) / STATE_UNIT);
}

static struct chunk *chunk_alloc(struct state_actor *actor, uint32_t bytes)
{
    uint32_t size, whole = bytes + (uint32_t)sizeof(struct chunk);
    int bin = chunk_bin(whole, &size);
    struct chunk *chunk =
        bin < 0 ? slab_alloc_run(actor, (whole + SLAB_BYTES - 1) / SLAB_BYTES) : slab_alloc(actor, (unsigned)bin);
    if (chunk != NULL) {
        memset(chunk, 0, whole);
        chunk->bytes = bytes;
    }
    return chunk;
}

static void chunk_link(struct state_actor *actor, struct flow *flow, struct chunk *chunk)
{
    const struct state *state = actor->state;
    struct flow_chunks *chunks = chunks_of(flow);
    uint32_t ref = chunk_ref(state, chunk);
    chunk->flow = flow_ref(state, flow);
    chunk->next = chunks->first;
    STEP();
    if (chunks->first != 0) {
        struct chunk *next = chunk_at(state, chunks->first);
        save(actor, next, sizeof *next);
        next->before = ref;
    }
    save(actor, chunks, sizeof *chunks);
    STEP();
    chunks->first = ref;
    chunks->count++;
    STEP();
    chunks->bytes += chunk->bytes;
}

void *state_chunk_new(struct state_actor *actor, uint32_t shard, struct flow *flow, void *old, uint64_t bytes)
{
    uint64_t limit = flow_description(actor->state, flow)->alloc_limit;
    struct flow_chunks *chunks = chunks_of(flow);
    uint32_t before = old != NULL ? state_chunk_bytes(old) : 0;
    bool room = bytes > 0 && bytes <= SM_MAX_ALLOC && chunks->bytes - before + bytes <= limit &&
                chunks->count - (old != NULL) < SM_MAX_CHUNKS && journal_may_add(actor->journal, JOURNAL_RESERVE / 64);
    struct chunk *chunk = room ? chunk_alloc(actor, (uint32_t)bytes) : NULL;
    if (chunk == NULL) {
        struct actor_counters *counters = counters_of(actor, shard);
        save(actor, &counters->unallocated, sizeof counters->unallocated);
        atomic_fetch_add_explicit(&counters->unallocated, 1, memory_order_relaxed);
        return NULL;
    }
    STEP();
    if (old != NULL) {
        memcpy(chunk + 1, old, before < bytes ? before : bytes);
        state_chunk_free(actor, flow, old);
    }
    chunk_link(actor, flow, chunk);
    journal_known(actor->journal, chunk + 1, (uint32_t)bytes);
    return chunk + 1;
}

void state_chunk_free(struct state_actor *actor, struct flow *flow, void *address)
{
    const struct state *state = actor->state;
    struct flow_chunks *chunks = chunks_of(flow);
    struct chunk *chunk = (struct chunk *)address - 1;
    assert(chunk->flow == flow_ref(state, flow) && "a chunk of another flow, or none");
    save(actor, chunks, sizeof *chunks);
    if (chunk->next != 0) {
        struct chunk *next = chunk_at(state, chunk->next);
        save(actor, next, sizeof *next);
        next->before = chunk->before;
    }
    STEP();
    if (chunk->before != 0) {
        struct chunk *before = chunk_at(state, chunk->before);
        save(actor, before, sizeof *before);
        before->next = chunk->next;
    } else {
        chunks->first = chunk->next;
    }
    STEP();
    chunks->count--;
    chunks->bytes -= chunk->bytes;
    slab_free(actor, chunk);
}

void chunks_release(struct state_actor *actor, struct flow *flow)
{
    if (!flow->has_chunks) {
        return;
    }
    for (uint32_t ref = chunks_of(flow)->first, next; ref != 0; ref = next) {
        next = chunk_at(actor->state, ref)->next;
        STEP();
        slab_free(actor, chunk_at(actor->state, ref));
    }
}

void chunks_hand_over(struct state_actor *actor, struct flow *from, struct flow *to)
{
    struct flow_chunks *old = chunks_of(from), *chunks = chunks_of(to);
    for (uint32_t ref = old->first; ref != 0; ref = chunk_at(actor->state, ref)->next) {
        struct chunk *chunk = chunk_at(actor->state, ref);
        save(actor, chunk, sizeof *chunk);
        STEP();
        chunk->flow = flow_ref(actor->state, to);
    }
    chunks->first = old->first; /* `to` is new: it goes when this is undone */
    chunks->count = old->count;
    chunks->bytes = old->bytes;
    save(actor, old, sizeof *old);
    STEP();
    old->first = old->count = old->bytes = 0;
}

uint32_t state_chunk_bytes(const void *chunk)
{
    return ((const struct chunk *)chunk - 1)->bytes;
}

uint32_t state_chunk_count(const struct flow *flow)
{
    return chunks_of((struct flow *)(uintptr_t)flow)->count;
}
