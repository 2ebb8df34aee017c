/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_EXPORT_H
#define SM_REPLICA_EXPORT_H

/* A shard's flows, and the keys bound to them, as bytes in an export area (arena/export.h): out, and in again. */

#include "replica/replica.h"

/*
 * Fill the area with flows of a shard that nobody changes, from area->cursor on (0: the first). LANE_DONE, LANE_MORE:
 * area->cursor is where the next part begins. LANE_NO_ROOM: a flow is larger than an area; LANE_BAD_RECORD: its class
 * cannot be copied, or its callback would not encode it.
 */
enum lane_status export_part(struct sm_replica *replica, uint32_t shard, struct export_area *area);

/*
 * Make the flows of an area in a shard, or a copy, that this replica alone writes. Behind another packet of the
 * journal; what was made may have become final, in pieces, whatever the result. LANE_DONE; LANE_NO_ROOM: memory or a
 * limit; LANE_BAD_RECORD.
 */
enum lane_status import_flows(struct sm_replica *replica, uint32_t shard, const struct export_area *area);

#endif
