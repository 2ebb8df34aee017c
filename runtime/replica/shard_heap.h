/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_SHARD_HEAP_H
#define SM_REPLICA_SHARD_HEAP_H

/*
 * Owned shards by the earliest deadline of their timers: a binary heap with an index, in the replica's own memory. It
 * holds nothing that a move would have to carry: a shard's deadlines are read from its own timers at adoption.
 */

#include <stdbool.h>
#include <stdint.h>

#include "state/state.h"

struct shard_heap {
    uint64_t deadline[SM_SHARDS];
    uint16_t heap[SM_SHARDS];
    uint16_t place[SM_SHARDS]; /* index in heap, plus one; 0: not in it */
    uint32_t count;
};

/* Put the shard at `deadline`; UINT64_MAX takes it out. */
void shard_heap_set(struct shard_heap *heap, uint32_t shard, uint64_t deadline);

/* The shard with the earliest deadline if that is not after `now`. */
bool shard_heap_due(const struct shard_heap *heap, uint64_t now, uint32_t *shard);

#endif
