/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_RING_H
#define SM_BENCH_RING_H

/*
 * A bare ring with one producer and one consumer: what the references are made of. Entries are of any size; both ends
 * work in bursts, and each end's index has a cache line of its own.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#define RING_BURST 64u

struct ring {
    _Alignas(64) _Atomic uint32_t head; /* the producer's */
    _Alignas(64) _Atomic uint32_t tail; /* the consumer's */
    _Alignas(64) uint8_t *entries;
    uint32_t mask;
    uint32_t entry_bytes;
};

static inline bool ring_init(struct ring *ring, uint32_t entries, uint32_t entry_bytes)
{
    *ring = (struct ring){.mask = entries - 1, .entry_bytes = entry_bytes};
    ring->entries = calloc(entries, entry_bytes);
    return ring->entries != NULL;
}

static inline void *ring_at(const struct ring *ring, uint32_t index)
{
    return ring->entries + (uint64_t)(index & ring->mask) * ring->entry_bytes;
}

/* How many entries the producer may write from *head on. */
static inline uint32_t ring_room(struct ring *ring, uint32_t *head)
{
    *head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    return ring->mask + 1 - (*head - atomic_load_explicit(&ring->tail, memory_order_acquire));
}

static inline void ring_publish(struct ring *ring, uint32_t head)
{
    atomic_store_explicit(&ring->head, head, memory_order_release);
}

/* How many entries the consumer may read from *tail on; at most a burst. */
static inline uint32_t ring_waiting(struct ring *ring, uint32_t *tail)
{
    *tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint32_t waiting = atomic_load_explicit(&ring->head, memory_order_acquire) - *tail;
    return waiting < RING_BURST ? waiting : RING_BURST;
}

static inline void ring_consume(struct ring *ring, uint32_t tail)
{
    atomic_store_explicit(&ring->tail, tail, memory_order_release);
}

#endif
