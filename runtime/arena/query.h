/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_QUERY_H
#define SM_ARENA_QUERY_H

/* Pages of flows for people to look at: written by whoever may read the shards, read by the switch. */

#include "arena/channel.h"
#include "state/state.h"

/*
 * Fill `area` (CHANNEL_QUERY_BYTES) with the flows of shards [shard, end), from *cursor of the first on; `owned`: by
 * shard, which ones to read; NULL: all, each locked while it is read (stripes), or left out where it cannot be locked.
 * `slot` names the locker.
 */
void query_fill(struct state *state, uint8_t *area, uint32_t shard, uint32_t cursor, uint32_t end, const uint8_t *owned,
                unsigned slot);

#endif
