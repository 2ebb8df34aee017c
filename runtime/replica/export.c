/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The replica's part in copying a shard: encode it, decode it, install the copy, clear what is left over.
 *
 * The shard is frozen from its release to its adoption, by this replica or another, so it can be encoded in parts. What
 * is decoded goes to the lane's copy, where it may become final in pieces: nobody looks there before the installation,
 * which is one change of one burst.
 */

#include "replica/codec.h"
#include "replica/replica.h"

#define MSGPACK_ARRAY16 0xdc
#define LIST_HEAD 3u
#define BOUND_BYTES (2u + sizeof(struct sm_key)) /* of a bound key, a short bin */
#define CLEAR_FLOWS 512u                         /* at a marker */
#define FLOWS_AHEAD 8u                           /* whose lines are fetched before they are encoded */

static void fetch_flow(const struct state *state, uint32_t shard, uint32_t *cursor)
{
    const char *flow = (const char *)state_next(state, shard, cursor);

    if (flow) {
        __builtin_prefetch(flow);
        __builtin_prefetch(flow + 64);
    }
}

/* Keys bound to the flow follow it: a list of them. SM_E_LIMIT: no room. */
static int export_bindings(const struct sm_replica *replica, const struct flow *flow, struct codec_buffer *out)
{
    const struct sm_key *key;
    uint8_t *to = out->bytes + out->used;
    uint16_t count = 0;

    if (!replica->classes[flow_class(flow)].binds)
        return 0;
    for (uint32_t cursor = 0; state_binding(replica->state, flow, &cursor);)
        count++;
    if (out->size - out->used < LIST_HEAD + count * BOUND_BYTES)
        return SM_E_LIMIT;
    out->used += LIST_HEAD + count * BOUND_BYTES;
    *to++ = MSGPACK_ARRAY16;
    *to++ = (uint8_t)(count >> 8);
    *to++ = (uint8_t)count;
    for (uint32_t cursor = 0; (key = state_binding(replica->state, flow, &cursor)) != NULL; to += sizeof *key) {
        to += record_put_bin(to, sizeof *key);
        memcpy(to, key, sizeof *key);
    }
    return 0;
}

/* The flow's, in the other order: each becomes the first of the flow's list. */
static int import_bindings(struct sm_replica *replica, uint32_t copy, struct flow *flow, const uint8_t *from,
                           size_t bytes, size_t *used)
{
    uint32_t count = bytes < LIST_HEAD ? 0 : from[1] * 256u + from[2];

    if (bytes < LIST_HEAD || from[0] != MSGPACK_ARRAY16 || bytes - LIST_HEAD < count * BOUND_BYTES)
        return SM_E_DAMAGED;
    *used = LIST_HEAD + count * BOUND_BYTES;
    while (count-- > 0) {
        struct sm_key key;
        memcpy(&key, from + LIST_HEAD + count * BOUND_BYTES + BOUND_BYTES - sizeof key, sizeof key);
        int result = state_bind(replica->actor, copy, flow, &key, state_hash(replica->state, &key));
        if (result)
            return result;
    }
    return 0;
}

static int export_flow(struct sm_replica *replica, uint32_t shard, struct flow *flow, struct codec_buffer *out)
{
    const size_t before = out->used;
    int result = codec_encode(&replica->codec, shard, flow, out);

    if (result == 0)
        result = export_bindings(replica, flow, out);
    if (result)
        out->used = before;
    return result;
}

static int import_flow(struct sm_replica *replica, uint32_t copy, const uint8_t *from, size_t bytes, size_t *used)
{
    struct sm_errbuf error;
    struct sm_key key;
    unsigned cls;
    size_t bound = 0;
    int result = codec_decode(&replica->codec, NULL, copy, 0, from, bytes, used, &error);

    if (result == 0)
        result = codec_peek(&replica->codec, NULL, from, bytes, &key, &cls, used);
    if (result || !replica->classes[cls].binds)
        return result;
    struct flow *flow = state_find(replica->state, copy, cls, &key, state_hash(replica->state, &key));
    result = import_bindings(replica, copy, flow, from + *used, bytes - *used, &bound);
    *used += bound;
    return result;
}

static enum lane_status export_part(struct sm_replica *replica, uint32_t shard, struct export_area *area)
{
    struct codec_buffer out = {.bytes = area->data, .size = replica->arena->export_bytes};
    uint32_t cursor = area->cursor, ahead = cursor;
    struct flow *flow;

    area->flows = 0;
    area->more = 0;
    for (unsigned i = 0; i < FLOWS_AHEAD; i++)
        fetch_flow(replica->state, shard, &ahead);
    while ((flow = state_next(replica->state, shard, &cursor)) != NULL) {
        fetch_flow(replica->state, shard, &ahead);
        int result = export_flow(replica, shard, flow, &out);
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

/* One flow at a time becomes final, if need be. */
static void next_flow(struct sm_replica *replica)
{
    if (journal_has_room(&replica->journal))
        journal_packet(&replica->journal);
    else
        replica_progress(replica);
}

static enum lane_status import_part(struct sm_replica *replica, uint32_t shard, uint32_t copy,
                                    const struct export_area *area)
{
    size_t at = 0, bytes = area->bytes <= sizeof area->data ? area->bytes : 0;

    for (uint32_t i = 0; i < area->flows; i++) {
        size_t used = 0;
        int result = import_flow(replica, copy, area->data + at, bytes - at, &used);
        if (result)
            return result == SM_E_LIMIT ? LANE_NO_ROOM : LANE_BAD_RECORD;
        at += used;
        STEP();
        next_flow(replica);
    }
    bool whole = area->more || state_shard_flows(replica->state, copy) == state_shard_flows(replica->state, shard);
    return at == bytes && whole ? LANE_DONE : LANE_BAD_RECORD;
}

static enum lane_status install(struct sm_replica *replica, uint32_t shard, uint32_t copy)
{
    state_copy_install(replica->actor, shard, copy);
    replica_adopt(replica, shard);
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
        status = install(replica, entry->shard, copy);
    else
        status = clear(replica, copy);
    *replica_answer(replica) = (struct out_entry){.kind = OUT_LANE,
                                                  .buffer = entry->lane,
                                                  .length = entry->buffer,
                                                  .reason = (uint16_t)status,
                                                  .bound = replica->bound};
}
