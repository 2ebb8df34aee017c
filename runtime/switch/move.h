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
 *
 * A move by copying stays between owners while the shard's state goes to a copy, by way of a lane (lanes.c):
 *
 *     RELEASING --released--> COPYING --copied--> STEADY (owner: to, who installs the copy)
 *     COPYING --abandon, to has died--> STEADY (owner: from, as before; the copy is discarded)
 *     COPYING --from has died--> STEADY (owner: to, of the state as it is: it is whole; the copy is discarded)
 *
 *     STEADY --the owner has died, nobody is left--> ORPHANED --adopted by whoever comes--> STEADY
 *
 * STEADY: packets go to the owner. RELEASING: a release marker is in the owner's ring, packets are held. RETURNING:
 * the move was abandoned, an adopt marker lies behind the release marker and packets flow to the old owner again; its
 * answer to the release marker is still to come, and until then the shard cannot start another move. ORPHANED: there is
 * no replica at all; packets are held. COPYING: the owner has given the shard up, its packets are held, its state
 * stands still.
 */

#include <stdbool.h>
#include <stdint.h>

/* From MOVE_RELEASING on the shard's packets are held. */
enum move_state { MOVE_STEADY, MOVE_RETURNING, MOVE_RELEASING, MOVE_COPYING, MOVE_ORPHANED };

#define MOVE_NOBODY 0xffu
#define MOVE_NO_LANE 0xffu /* it is a move by relabelling */

enum move_event { MOVE_START, MOVE_RELEASED, MOVE_ABANDON, MOVE_OWNER_DIED, MOVE_ADOPTED, MOVE_COPIED };

/* What the switch has to do, in this order. */
enum {
    MOVE_DO_RELEASE = 1 << 0, /* put a release marker in the owner's ring, and hold the shard's packets from now on */
    MOVE_DO_OWN = 1 << 1,     /* make `to` the owner */
    MOVE_DO_EXPORT = 1 << 2,  /* ask who has released it for the first part of the shard's state */
    MOVE_DO_DISCARD = 1 << 3, /* what is in the lane, and in its copy, is not wanted any more */
    MOVE_DO_INSTALL = 1 << 4, /* put an install marker in the owner's ring: it adopts the copy */
    MOVE_DO_ADOPT = 1 << 5,   /* put an adopt marker in the owner's ring */
    MOVE_DO_FLUSH = 1 << 6,   /* put the held packets in the owner's ring, in order */
    MOVE_DO_REFUSE = 1 << 7,  /* the event does not fit the state: ignore it */
};

struct shard_move {
    uint8_t state; /* enum move_state */
    uint8_t from, to;
    uint8_t lane;        /* of the move under way; MOVE_NO_LANE: nothing is copied */
    uint32_t generation; /* of the marker: an answer with another one is stale or forged */
};

/* Whether a move is under way that may still be abandoned. */
static inline bool move_under_way(const struct shard_move *move)
{
    return move->state == MOVE_RELEASING || move->state == MOVE_COPYING;
}

/*
 * `generation`: of the answer, for MOVE_RELEASED. `to`: for MOVE_START; for MOVE_OWNER_DIED the survivor that takes
 * over where no move has named another one, MOVE_NOBODY where there is none; for MOVE_ADOPTED the replica that has
 * come. The caller sets the move's `lane` before MOVE_START.
 */
unsigned move_step(struct shard_move *move, enum move_event event, unsigned from, unsigned to, uint32_t generation);

#endif
