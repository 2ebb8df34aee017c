/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/move.h"

static unsigned start(struct shard_move *move, unsigned from, unsigned to)
{
    if (move->state != MOVE_STEADY || from == to)
        return MOVE_DO_REFUSE;
    move->state = MOVE_RELEASING;
    move->from = (uint8_t)from;
    move->to = (uint8_t)to;
    move->generation++;
    return MOVE_DO_RELEASE;
}

static unsigned discard(const struct shard_move *move)
{
    return move->lane == MOVE_NO_LANE ? 0 : MOVE_DO_DISCARD;
}

static unsigned released(struct shard_move *move, unsigned from, uint32_t generation)
{
    if ((move->state != MOVE_RELEASING && move->state != MOVE_RETURNING) || move->from != from ||
        move->generation != generation)
        return MOVE_DO_REFUSE;
    if (move->state == MOVE_RETURNING) {
        move->state = MOVE_STEADY;
        return 0;
    }
    if (move->lane != MOVE_NO_LANE) {
        move->state = MOVE_COPYING;
        return MOVE_DO_EXPORT;
    }
    move->state = MOVE_STEADY;
    return MOVE_DO_OWN | MOVE_DO_ADOPT | MOVE_DO_FLUSH;
}

static unsigned copied(struct shard_move *move)
{
    if (move->state != MOVE_COPYING)
        return MOVE_DO_REFUSE;
    move->state = MOVE_STEADY;
    return MOVE_DO_OWN | MOVE_DO_INSTALL | MOVE_DO_FLUSH;
}

static unsigned abandon(struct shard_move *move)
{
    if (!move_under_way(move))
        return MOVE_DO_REFUSE;
    /* Where the state was being copied the old owner has answered already. */
    move->state = move->state == MOVE_RELEASING ? MOVE_RETURNING : MOVE_STEADY;
    return discard(move) | MOVE_DO_ADOPT | MOVE_DO_FLUSH;
}

/* The new owner is in `to` afterwards; a move that was under way is over, and goes where it was to go. */
static unsigned owner_died(struct shard_move *move, unsigned from, unsigned survivor)
{
    bool under_way = move_under_way(move);

    if (under_way && move->to == from)
        return MOVE_DO_REFUSE;
    if (!under_way)
        move->to = (uint8_t)survivor;
    if (move->to == MOVE_NOBODY) {
        move->state = MOVE_ORPHANED;
        return under_way ? discard(move) : 0;
    }
    move->state = MOVE_STEADY;
    return MOVE_DO_OWN | MOVE_DO_ADOPT | (under_way ? discard(move) | MOVE_DO_FLUSH : 0);
}

static unsigned adopted(struct shard_move *move, unsigned to)
{
    if (move->state != MOVE_ORPHANED)
        return MOVE_DO_REFUSE;
    move->state = MOVE_STEADY;
    move->to = (uint8_t)to;
    return MOVE_DO_OWN | MOVE_DO_ADOPT | MOVE_DO_FLUSH;
}

unsigned move_step(struct shard_move *move, enum move_event event, unsigned from, unsigned to, uint32_t generation)
{
    switch (event) {
    case MOVE_START:
        return start(move, from, to);
    case MOVE_RELEASED:
        return released(move, from, generation);
    case MOVE_ABANDON:
        return abandon(move);
    case MOVE_OWNER_DIED:
        return owner_died(move, from, to);
    case MOVE_ADOPTED:
        return adopted(move, to);
    case MOVE_COPIED:
        return copied(move);
    }
    return MOVE_DO_REFUSE;
}
