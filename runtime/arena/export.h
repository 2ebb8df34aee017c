/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_EXPORT_H
#define SM_ARENA_EXPORT_H

/*
 * Lanes: how a shard's state leaves its replica as bytes, and comes to another.
 *
 * Overview.  A lane is an area in the arena for encoded flows, and a copy (state/copy.c) that they are decoded into. A
 * shard that does not fit in the area goes in parts, one after the other: an area is written anew only when its
 * consumer has answered that it is done with the part before. The shard is frozen meanwhile, so that it does not matter
 * who encodes it, or how often.
 *
 * Life-cycle.  The switch hands lanes out, asks for each step by a marker with a ticket, and takes lanes back when
 * their copies are empty again (switch/lanes.c).
 *
 * Concurrency.  Whoever was given the marker last reads and writes the area; markers and answers order it.
 *
 * Limits.  EXPORT_LANES at a time, EXPORT_BYTES in a part.
 */

#include <stdint.h>

#include "state/state.h"

#define EXPORT_LANES STATE_COPIES
#define EXPORT_BYTES (256u << 10)

enum lane_status {
    LANE_DONE,
    LANE_MORE,       /* IN_EXPORT: the shard has further flows. IN_CLEAR: the copy has */
    LANE_NO_ROOM,    /* for what was decoded; nothing but the copy has changed */
    LANE_BAD_RECORD, /* a flow that could not be encoded, or decoded again */
    LANE_STATUSES
};

struct export_area {
    uint32_t cursor; /* of state_next(): where the next part begins */
    uint32_t flows;  /* in this part */
    uint32_t bytes;
    uint32_t more; /* this part is not the last */
    _Alignas(64) uint8_t data[EXPORT_BYTES];
};

#endif
