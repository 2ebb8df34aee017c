/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The replica's part in restoring a checkpoint: it makes the flows of the shards that it owns, or of the stripes. No
 * packets come meanwhile, so a flow at a time may become final; and one that is there already was made by a replica
 * that has died since, from the same checkpoint.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/snapshot.h"
#include "replica/replica.h"

static uint8_t *part_of(const struct sm_replica *replica, unsigned part)
{
    return channel_snapshot(replica->channel) + part * SNAPSHOT_PART_BYTES;
}

static void begin(struct sm_replica *replica, uint32_t shard)
{
    if (shard < SM_SHARDS)
        return;
    state_lock(replica->state, shard, replica->slot);
    journal_section_begin(&replica->journal, false);
}

static void end(struct sm_replica *replica, uint32_t shard)
{
    if (shard < SM_SHARDS)
        return;
    journal_section_end(&replica->journal);
    state_unlock(replica->state, shard);
}

static int make_flows(struct sm_replica *replica, uint32_t shard, const uint8_t *bytes, size_t length, uint64_t now,
                      struct sm_errbuf *error)
{
    int result = 0;

    for (size_t at = 0, used; result == 0 && at < length; at += used) {
        begin(replica, shard);
        result = codec_decode(&replica->codec, replica->source, shard, now, bytes + at, length - at, &used, error);
        end(replica, shard);
        if (result == SM_E_STATE)
            result = 0;
        replica_piece(replica);
    }
    if (shard < SM_SHARDS)
        shard_heap_set(&replica->timers, shard, state_timer_next(replica->state, shard));
    return result;
}

/* A piece of a flow that is larger than a part. */
static int keep(struct sm_replica *replica, const struct snapshot_block *block, const uint8_t *bytes)
{
    struct codec_buffer *rest = &replica->rest;

    if (block->begins)
        rest->used = 0;
    if (rest->size - rest->used < block->bytes) {
        size_t size = (rest->used + block->bytes) * 2;
        uint8_t *larger = realloc(rest->bytes, size);
        if (!larger)
            return SM_E_NO_MEMORY;
        rest->bytes = larger;
        rest->size = size;
    }
    memcpy(rest->bytes + rest->used, bytes, block->bytes);
    rest->used += block->bytes;
    return 0;
}

static int make_part(struct sm_replica *replica, uint64_t now, struct sm_errbuf *error)
{
    const struct snapshot_part *part = (const struct snapshot_part *)(const void *)part_of(replica, 0);
    const uint8_t *blocks = (const uint8_t *)(part + 1);
    int result = 0;

    for (uint32_t at = 0; result == 0 && at < part->bytes;) {
        struct snapshot_block block;
        memcpy(&block, blocks + at, sizeof block);
        at += (uint32_t)sizeof block;
        if (block.shard < SM_SHARDS && !replica->owned[block.shard])
            return SM_E_NOT_FOUND;
        if (block.begins && block.ends) {
            result = make_flows(replica, block.shard, blocks + at, block.bytes, now, error);
        } else {
            result = keep(replica, &block, blocks + at);
            if (result == 0 && block.ends) {
                result = make_flows(replica, block.shard, replica->rest.bytes, replica->rest.used, now, error);
                free(replica->rest.bytes);
                replica->rest = (struct codec_buffer){0};
            }
        }
        at += (block.bytes + 3) & ~3u;
    }
    return result;
}

static void clear_shard(struct sm_replica *replica, uint32_t shard)
{
    uint32_t cursor = 0;
    struct flow *flow;

    for (bool more = true; more; cursor = 0) {
        begin(replica, shard);
        flow = state_next(replica->state, shard, &cursor);
        more = flow != NULL;
        if (more)
            state_remove(replica->actor, shard, flow);
        end(replica, shard);
        replica_piece(replica);
    }
    if (shard < SM_SHARDS)
        shard_heap_set(&replica->timers, shard, UINT64_MAX);
}

static void clear(struct sm_replica *replica, bool stripes)
{
    for (uint32_t i = stripes ? SM_SHARDS : 0; i < (stripes ? SM_SHARDS + STATE_STRIPES : SM_SHARDS); i++)
        if ((stripes || replica->owned[i]) && state_shard_flows(replica->state, i) > 0)
            clear_shard(replica, i);
}

void replica_restore_end(struct sm_replica *replica)
{
    codec_source_close(replica->source);
    free(replica->rest.bytes);
    replica->source = NULL;
    replica->rest = (struct codec_buffer){0};
}

void replica_restore(struct sm_replica *replica, uint32_t request, uint64_t now)
{
    const struct snapshot_part *part = (const struct snapshot_part *)(const void *)part_of(replica, 0);
    struct sm_errbuf *error = (struct sm_errbuf *)(void *)part_of(replica, 1);
    int result = 0;

    error->text[0] = '\0';
    if (request & RESTORE_HEADER) {
        replica_restore_end(replica);
        result = codec_source_open(&replica->source, &replica->codec, (const uint8_t *)(part + 1), part->bytes, error);
    } else if (request & RESTORE_CLEAR) {
        clear(replica, request & RESTORE_STRIPES);
    } else {
        result = make_part(replica, now, error);
    }
    *replica_answer(replica) = (struct out_entry){
        .kind = OUT_RESTORED, .buffer = request, .length = (uint32_t)-result, .bound = replica->bound};
}
