/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_PLACEMENT_H
#define SM_ORCHESTRATOR_PLACEMENT_H

/*
 * Who shall own which shard. Pure (design D7): a table of owners in, the table as it shall be out, and the difference
 * as ranges. Owners are replica ids; 0 is none, which placement never touches except in placement_even().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLACEMENT_SHARDS 16384u
#define PLACEMENT_MAX_IDS 64u

typedef uint32_t placement_table[PLACEMENT_SHARDS];

/* Shards [first, last] go to `to`. */
struct placement_range {
    uint32_t first, last, to;
};

/* `count` ids in all functions: 1..PLACEMENT_MAX_IDS, different, none 0. */

/* A fresh service: contiguous ranges, as even as possible. */
void placement_even(placement_table owners, const uint32_t *ids, unsigned count);

/*
 * Even by count over `ids`, and over nobody else, with the fewest shards moved: scale up, scale down, rebalance.
 * Shards of others are given away, then whoever has too many gives its last ones, then who has too few gets runs of
 * neighbours.
 */
void placement_spread(placement_table owners, const uint32_t *ids, unsigned count);

/* The upper half of `from`'s shards goes to `to`. */
void placement_split(placement_table owners, uint32_t from, uint32_t to);

/* All of `from`'s shards go to `to`. */
void placement_merge(placement_table owners, uint32_t from, uint32_t to);

/* `from`'s shards, and no others, go to `ids` (`from` is not among them): to who has the fewest. */
void placement_drain(placement_table owners, uint32_t from, const uint32_t *ids, unsigned count);

/* The shards in `set` go to `to`. */
void placement_move(placement_table owners, const bool set[PLACEMENT_SHARDS], uint32_t to);

/* What has to move for `before` to become `after`: at most PLACEMENT_SHARDS ranges. Returns how many. */
size_t placement_ranges(const placement_table before, const placement_table after, struct placement_range *ranges);

/* How many shards an id owns. */
unsigned placement_count(const placement_table owners, uint32_t id);

#endif
