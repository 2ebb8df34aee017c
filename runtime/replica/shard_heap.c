/* SPDX-License-Identifier: BSD-2-Clause */
#include "replica/shard_heap.h"

static void put(struct shard_heap *heap, uint32_t index, uint16_t shard)
{
    heap->heap[index] = shard;
    heap->place[shard] = (uint16_t)(index + 1);
}

/* Ties by shard number, so that the order does not depend on history. */
static bool before(const struct shard_heap *heap, uint16_t a, uint16_t b)
{
    return heap->deadline[a] != heap->deadline[b] ? heap->deadline[a] < heap->deadline[b] : a < b;
}

static void sift_up(struct shard_heap *heap, uint32_t index, uint16_t shard)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (!before(heap, shard, heap->heap[parent]))
            break;
        put(heap, index, heap->heap[parent]);
        index = parent;
    }
    put(heap, index, shard);
}

static void sift_down(struct shard_heap *heap, uint32_t index, uint16_t shard)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && before(heap, heap->heap[child + 1], heap->heap[child]))
            child++;
        if (!before(heap, heap->heap[child], shard))
            break;
        put(heap, index, heap->heap[child]);
        index = child;
    }
    sift_up(heap, index, shard);
}

void shard_heap_set(struct shard_heap *heap, uint32_t shard, uint64_t deadline)
{
    uint32_t place = heap->place[shard];

    if (place != 0 && heap->deadline[shard] == deadline)
        return;
    heap->deadline[shard] = deadline;
    if (deadline != UINT64_MAX) {
        sift_down(heap, place ? place - 1 : heap->count++, (uint16_t)shard);
    } else if (place != 0) {
        uint16_t last = heap->heap[--heap->count];
        heap->place[shard] = 0;
        if (last != shard)
            sift_down(heap, place - 1, last);
    }
}

bool shard_heap_due(const struct shard_heap *heap, uint64_t now, uint32_t *shard)
{
    if (heap->count == 0 || heap->deadline[heap->heap[0]] > now)
        return false;
    *shard = heap->heap[0];
    return true;
}
