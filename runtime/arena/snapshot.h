/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_SNAPSHOT_H
#define SM_ARENA_SNAPSHOT_H

/*
 * How the flows of a running replica come to the switch as bytes, for a checkpoint: through an area of its channel, in
 * parts. A part has blocks, one for each shard that the replica owns when it writes it: a shard is encoded whole,
 * between two bursts, so that it is of one instant, and committed; one that is larger than a part goes on in further
 * blocks, from memory of the replica's own. A part is written in portions, some flows each, when no packet waits;
 * a shard that changes between two portions begins anew.
 *
 * The replica's contributions to eventual objects (state/coherent.h) come the same way: a block for each object.
 *
 * A checkpoint is restored the other way: IN_RESTORE has the replica make what a part holds, in shards that it owns. A
 * flow that is larger than a part goes on in further blocks. Why it could not is told in the area's second part.
 *
 * The area has room for two parts, written in turn: one is read while the other is written. IN_SNAPSHOT asks for the
 * next one, OUT_SNAPSHOT says that it is there. Whoever reads it trusts no number in it.
 */

#include "state/state.h"

#define SNAPSHOT_PARTS 2u
#define SNAPSHOT_PART_BYTES (128u << 10)
#define SNAPSHOT_BYTES (SNAPSHOT_PARTS * SNAPSHOT_PART_BYTES)

/* Of IN_SNAPSHOT's `buffer`, beside the part's number. */
#define SNAPSHOT_BEGIN 0x10u   /* from the first shard on; what was left of an earlier one is forgotten */
#define SNAPSHOT_STRIPES 0x20u /* the stripes, instead of the shards */
#define SNAPSHOT_ROW 0x40u     /* the replica's contributions to eventual objects, instead */
#define RESTORE_HEADER 0x10u   /* of IN_RESTORE: the part is the description of the classes, for what follows */
#define RESTORE_CLEAR 0x20u    /* of IN_RESTORE: end all flows of the shards that the replica owns, or of the stripes */
#define RESTORE_STRIPES 0x40u  /* of IN_RESTORE, with RESTORE_CLEAR: the stripes */
#define SNAPSHOT_TICKET_SHIFT 8 /* above it: a number that tells requests apart; the answer gives all of it back */

#define SNAPSHOT_OBJECTS (SM_SHARDS + STATE_STRIPES)

struct snapshot_part {
    uint32_t bytes; /* of the blocks that follow */
    uint32_t last;  /* nothing is left after this part */
    int32_t error;  /* why it went no further; 0 */
    uint32_t cls;   /* of the flow that could not be encoded */
};

struct snapshot_block {
    uint32_t shard; /* or stripe, which are numbered on; or SNAPSHOT_OBJECTS and the number of an eventual object */
    uint32_t flows; /* in the whole shard; or the row that the contribution is in */
    uint32_t bytes; /* that follow, padded to 4 */
    uint8_t begins; /* the shard does; otherwise it goes on from the block before */
    uint8_t ends;   /* the shard does; otherwise it goes on in the next block */
    uint16_t unused;
};

#endif
