/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_QUERY_H
#define SM_ARENA_QUERY_H

/* Pages of flows for people to look at: written by whoever may read the shards, read by the switch. */

#include "arena/channel.h"
#include "state/state.h"

/*
 * Writes a flow as it is to be shown. Returns the bytes; 0: its record is shown as it lies in memory; QUERY_NO_ROOM:
 * it takes more than `room`.
 */
#define QUERY_NO_ROOM UINT32_MAX
typedef uint32_t query_record_fn(void *arg, uint32_t shard, struct flow *flow, uint8_t *to, uint32_t room);

/*
 * Fill `area` (CHANNEL_QUERY_BYTES) with the flows of shards [shard, end), from *cursor of the first on; `owned`: by
 * shard, which ones to read; NULL: all, each locked while it is read (stripes), or left out where it cannot be locked.
 * `slot` names the locker. `record` may be NULL.
 */
void query_fill(struct state *state, uint8_t *area, uint32_t shard, uint32_t cursor, uint32_t end, const uint8_t *owned,
                unsigned slot, query_record_fn *record, void *arg);

#endif
