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

static unsigned released(struct shard_move *move, unsigned from, uint32_t generation)
{
    if (move->state == MOVE_STEADY || move->from != from || move->generation != generation)
        return MOVE_DO_REFUSE;
    bool returning = move->state == MOVE_RETURNING;
    move->state = MOVE_STEADY;
    return returning ? 0 : MOVE_DO_OWN | MOVE_DO_ADOPT | MOVE_DO_FLUSH;
}

static unsigned abandon(struct shard_move *move)
{
    if (move->state != MOVE_RELEASING)
        return MOVE_DO_REFUSE;
    move->state = MOVE_RETURNING;
    return MOVE_DO_ADOPT | MOVE_DO_FLUSH;
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
    }
    return MOVE_DO_REFUSE;
}
