/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_MOVE_H
#define SM_SWITCH_MOVE_H

/*
 * The life of one shard's ownership, as a pure state machine (designs D4, D7): events in, actions out; no clock, no
 * I/O. The switch's packet path carries the actions out; tests drive it alone.
 *
 *     STEADY --start--> RELEASING --released--> STEADY (owner: to)
 *                           |
 *                        abandon
 *                           v
 *                       RETURNING --released--> STEADY (owner: from, as before)
 *
 *     RELEASING, RETURNING --from has died--> STEADY (owner: to, or a survivor)
 *     RELEASING --to has died--> as abandon
 *     STEADY --the owner has died, nobody is left--> ORPHANED --adopted by whoever comes--> STEADY
 *
 * STEADY: packets go to the owner. RELEASING: a release marker is in the owner's ring, packets are held. RETURNING:
 * the move was abandoned, an adopt marker lies behind the release marker and packets flow to the old owner again; its
 * answer to the release marker is still to come, and until then the shard cannot start another move. ORPHANED: there is
 * no replica at all; packets are held.
 */

#include <stdbool.h>
#include <stdint.h>

enum move_state { MOVE_STEADY, MOVE_RELEASING, MOVE_RETURNING, MOVE_ORPHANED };

#define MOVE_NOBODY 0xffu

enum move_event { MOVE_START, MOVE_RELEASED, MOVE_ABANDON, MOVE_OWNER_DIED, MOVE_ADOPTED };

/* What the switch has to do, in this order. */
enum {
    MOVE_DO_RELEASE = 1 << 0, /* put a release marker in the owner's ring, and hold the shard's packets from now on */
    MOVE_DO_OWN = 1 << 1,     /* make `to` the owner */
    MOVE_DO_ADOPT = 1 << 2,   /* put an adopt marker in the owner's ring */
    MOVE_DO_FLUSH = 1 << 3,   /* put the held packets in the owner's ring, in order */
    MOVE_DO_REFUSE = 1 << 4,  /* the event does not fit the state: ignore it */
};

struct shard_move {
    uint8_t state; /* enum move_state */
    uint8_t from, to;
    uint32_t generation; /* of the marker: an answer with another one is stale or forged */
};

/*
 * `generation`: of the answer, for MOVE_RELEASED. `to`: for MOVE_START; for MOVE_OWNER_DIED the survivor that takes
 * over where no move has named another one, MOVE_NOBODY where there is none; for MOVE_ADOPTED the replica that has
 * come.
 */
unsigned move_step(struct shard_move *move, enum move_event event, unsigned from, unsigned to, uint32_t generation);

#endif
