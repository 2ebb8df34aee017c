/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The replica's part in copying a shard (export.h): encode it, decode it, install the copy, clear what is left over.
 *
 * The shard is frozen from its release to its adoption, by this replica or another, so it can be encoded in parts. What
 * is decoded goes to the lane's copy, where it may become final in pieces: nobody looks there before the installation,
 * which is one change of one burst.
 */

#include "replica/export.h"

#include "replica/codec.h"

#define CLEAR_FLOWS 512u /* at a marker */
#define FLOWS_AHEAD 8u   /* whose lines are fetched before they are encoded */

enum lane_status export_part(struct sm_replica *replica, uint32_t shard, struct export_area *area)
{
    struct codec_buffer out = {.bytes = area->data, .size = replica->arena->export_bytes};
    uint32_t cursor = area->cursor, ahead = cursor;
    struct flow *flow;

    area->flows = 0;
    area->more = 0;
    for (unsigned i = 0; i < FLOWS_AHEAD; i++)
        state_prefetch_next(replica->state, shard, &ahead);
    while ((flow = state_next(replica->state, shard, &cursor)) != NULL) {
        state_prefetch_next(replica->state, shard, &ahead);
        int result = codec_encode(&replica->codec, shard, flow, &out);
        if (result == SM_E_LIMIT && area->flows > 0) {
            area->more = 1;
            break;
        }
        if (result)
            return result == SM_E_LIMIT ? LANE_NO_ROOM : LANE_BAD_RECORD;
        area->cursor = cursor;
        area->flows++;
        STEP();
    }
    area->bytes = (uint32_t)out.used;
    return area->more ? LANE_MORE : LANE_DONE;
}

enum lane_status import_flows(struct sm_replica *replica, uint32_t shard, const struct export_area *area)
{
    size_t at = 0, bytes = area->bytes <= sizeof area->data ? area->bytes : 0;

    for (uint32_t i = 0; i < area->flows; i++) {
        struct sm_errbuf error;
        size_t used = 0;
        int result = codec_decode(&replica->codec, NULL, shard, 0, area->data + at, bytes - at, &used, &error);
        if (result)
            return result == SM_E_LIMIT ? LANE_NO_ROOM : LANE_BAD_RECORD;
        at += used;
        STEP();
        replica_piece(replica);
    }
    return at == bytes ? LANE_DONE : LANE_BAD_RECORD;
}

/* With the last part the copy has as many flows as the shard. */
static enum lane_status import_part(struct sm_replica *replica, uint32_t shard, uint32_t copy,
                                    const struct export_area *area)
{
    enum lane_status status = import_flows(replica, copy, area);
    bool whole = area->more || state_shard_flows(replica->state, copy) == state_shard_flows(replica->state, shard);

    return status == LANE_DONE && !whole ? LANE_BAD_RECORD : status;
}

static enum lane_status install(struct sm_replica *replica, uint32_t shard, uint32_t copy, uint64_t now)
{
    state_copy_install(replica->actor, shard, copy);
    replica_adopt(replica, shard, now);
    return LANE_DONE;
}

static enum lane_status clear(struct sm_replica *replica, uint32_t copy)
{
    return state_copy_clear(replica->actor, copy, CLEAR_FLOWS) ? LANE_DONE : LANE_MORE;
}

void replica_lane(struct sm_replica *replica, const struct in_entry *entry)
{
    struct export_area *area = &replica->arena->exports[entry->lane];
    const uint32_t copy = state_copy(entry->lane);
    enum lane_status status = LANE_DONE;

    if (entry->kind == IN_EXPORT)
        status = export_part(replica, entry->shard, area);
    else if (entry->kind == IN_IMPORT)
        status = import_part(replica, entry->shard, copy, area);
    else if (entry->kind == IN_INSTALL)
        status = install(replica, entry->shard, copy, entry->time);
    else
        status = clear(replica, copy);
    *replica_answer(replica) = (struct out_entry){.kind = OUT_LANE,
                                                  .buffer = entry->lane,
                                                  .length = entry->buffer,
                                                  .reason = (uint16_t)status,
                                                  .bound = replica->bound};
}
