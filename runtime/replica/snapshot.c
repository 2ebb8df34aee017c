/* SPDX-License-Identifier: BSD-2-Clause */
#include "replica/snapshot.h"

#include <stdlib.h>

#include "arena/snapshot.h"
#include "state/journal.h"

#define FLOWS_AHEAD 12u /* whose lines are fetched before they are encoded */
#define REST_MIN (1u << 20)
#define REST_MAX (1u << 30)

_Static_assert(SNAPSHOT_PART_BYTES - sizeof(struct snapshot_part) - sizeof(struct snapshot_block) >
                   SM_MAX_RECORD + CODEC_FLOW_BYTES,
               "a part has room for any flow with fields");

void snapshot_begin(struct snapshot *snapshot, uint32_t first)
{
    snapshot_end(snapshot);
    snapshot->next = first;
}

void snapshot_end(struct snapshot *snapshot)
{
    free(snapshot->rest.bytes);
    *snapshot = (struct snapshot){0};
}

static void fetch_flow(const struct state *state, uint32_t shard, uint32_t *cursor)
{
    const char *flow = (const char *)state_next(state, shard, cursor);

    for (unsigned line = 0; flow && line < 3; line++)
        __builtin_prefetch(flow + 64 * ((int)line - 1)); /* timers lie before it */
}

/* All flows of a shard. SM_E_LIMIT: the buffer is too small. */
static int encode_shard(const struct codec *codec, uint32_t shard, struct codec_buffer *out, uint32_t *flows,
                        uint32_t *cls)
{
    uint32_t cursor = 0, ahead = 0;
    struct flow *flow;
    int result = 0;

    *flows = 0;
    for (unsigned i = 0; i < FLOWS_AHEAD; i++)
        fetch_flow(codec->state, shard, &ahead);
    while (result == 0 && (flow = state_next(codec->state, shard, &cursor)) != NULL) {
        fetch_flow(codec->state, shard, &ahead);
        result = codec_encode(codec, shard, flow, out);
        *cls = flow_class(flow);
        ++*flows;
    }
    return result;
}

static int encode_locked(const struct codec *codec, const struct snapshot_scope *scope, uint32_t shard,
                         struct codec_buffer *out, uint32_t *flows, uint32_t *cls)
{
    if (shard < SM_SHARDS)
        return encode_shard(codec, shard, out, flows, cls);
    state_lock(codec->state, shard, scope->slot);
    int result = encode_shard(codec, shard, out, flows, cls);
    state_unlock(codec->state, shard);
    return result;
}

static struct snapshot_block *block_at(struct snapshot_part *part)
{
    return (struct snapshot_block *)(void *)((uint8_t *)(part + 1) + part->bytes);
}

static uint32_t room_in(const struct snapshot_part *part)
{
    uint32_t used = (uint32_t)(sizeof *part + part->bytes + sizeof(struct snapshot_block));

    return used < SNAPSHOT_PART_BYTES ? SNAPSHOT_PART_BYTES - used : 0;
}

static void put_block(struct snapshot_part *part, uint32_t shard, uint32_t flows, uint32_t bytes, bool begins,
                      bool ends)
{
    *block_at(part) =
        (struct snapshot_block){.shard = shard, .flows = flows, .bytes = bytes, .begins = begins, .ends = ends};
    part->bytes += (uint32_t)sizeof(struct snapshot_block) + ((bytes + 3) & ~3u);
}

/* As much as there is room for of the shard that did not fit in one part. */
static void put_rest(struct snapshot *snapshot, struct snapshot_part *part)
{
    size_t left = snapshot->rest.used - snapshot->given;
    uint32_t bytes = left < (room_in(part) & ~3u) ? (uint32_t)left : room_in(part) & ~3u;

    memcpy(block_at(part) + 1, snapshot->rest.bytes + snapshot->given, bytes);
    put_block(part, snapshot->next, snapshot->rest_flows, bytes, snapshot->given == 0, bytes == left);
    snapshot->given += bytes;
    if (bytes == left)
        snapshot_begin(snapshot, snapshot->next + 1);
}

/* The whole shard, in memory of our own. */
static int take_rest(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                     uint32_t *cls)
{
    int result = SM_E_LIMIT;

    for (size_t size = REST_MIN; result == SM_E_LIMIT; size *= 2) {
        uint8_t *larger = size <= REST_MAX ? realloc(snapshot->rest.bytes, size) : NULL;
        if (!larger)
            return SM_E_NO_MEMORY;
        snapshot->rest = (struct codec_buffer){.bytes = larger, .size = size};
        result = encode_locked(codec, scope, snapshot->next, &snapshot->rest, &snapshot->rest_flows, cls);
    }
    return result;
}

static bool is_wanted(const struct snapshot_scope *scope, uint32_t shard)
{
    uint64_t covered = atomic_load_explicit(&scope->covered[shard / 64], memory_order_relaxed);

    return (!scope->owned || scope->owned[shard]) && !(covered >> shard % 64 & 1);
}

void snapshot_fill(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                   uint8_t *area)
{
    struct snapshot_part *part = (struct snapshot_part *)(void *)area;
    uint32_t flows;

    *part = (struct snapshot_part){0};
    if (snapshot->rest.bytes)
        put_rest(snapshot, part);
    for (; snapshot->next < scope->end && !snapshot->rest.bytes; snapshot->next++) {
        uint32_t shard = snapshot->next;
        if (shard < SM_SHARDS && !is_wanted(scope, shard))
            continue;
        STEP();
        if (sizeof *part + part->bytes + sizeof(struct snapshot_block) > SNAPSHOT_PART_BYTES)
            return; /* not even for a shard without flows */
        struct codec_buffer out = {.bytes = (uint8_t *)(block_at(part) + 1), .size = room_in(part) & ~3u};
        int result = encode_locked(codec, scope, shard, &out, &flows, &part->cls);
        if (result == SM_E_LIMIT && part->bytes > 0)
            return; /* it begins the next part */
        if (result == SM_E_LIMIT)
            result = take_rest(snapshot, codec, scope, &part->cls);
        if (result) {
            part->error = result;
            return;
        }
        if (snapshot->rest.bytes) {
            put_rest(snapshot, part);
            return;
        }
        put_block(part, shard, flows, (uint32_t)out.used, true, true);
    }
    part->last = snapshot->next >= scope->end && !snapshot->rest.bytes;
}
