/* SPDX-License-Identifier: BSD-2-Clause */
#include "arena/query.h"

#include <string.h>

struct writer {
    query_record_fn *record; /* NULL: as it lies in memory */
    void *arg;
};

/* One flow; false: there is no room for it. */
static bool fill_flow(struct state *state, uint8_t *area, uint32_t shard, struct flow *flow,
                      const struct writer *writer)
{
    struct query_header *header = (struct query_header *)(void *)area;
    uint32_t used = (uint32_t)sizeof *header + header->bytes, encoded = 0;
    uint32_t bytes = state_class(state, flow_form(flow))->record_size;
    struct query_flow *to = (struct query_flow *)(void *)(area + used);

    if (used + sizeof *to + 8 > CHANNEL_QUERY_BYTES)
        return false;
    uint32_t room = (CHANNEL_QUERY_BYTES - used - (uint32_t)sizeof *to) & ~7u;
    if (writer->record)
        encoded = writer->record(writer->arg, shard, flow, (uint8_t *)(to + 1), room);
    if (encoded == QUERY_NO_ROOM && header->count > 0)
        return false;
    if (encoded == QUERY_NO_ROOM)
        encoded = 0; /* not even in an empty area */
    bytes = encoded ? encoded : bytes;
    if (bytes > room)
        return false;
    if (!encoded)
        memcpy(to + 1, flow_record(flow), bytes);
    *to = (struct query_flow){
        .form = (uint16_t)flow_form(flow), .shard = (uint16_t)shard, .record_bytes = bytes, .encoded = encoded > 0};
    memcpy(to->key, flow_key(flow), sizeof to->key);
    header->bytes += (uint32_t)sizeof *to + ((bytes + 7) & ~7u);
    header->count++;
    return true;
}

/* One shard; false when the area is full, with *cursor where to go on. */
static bool fill_shard(struct state *state, uint8_t *area, uint32_t shard, uint32_t *cursor,
                       const struct writer *writer)
{
    uint32_t before = *cursor;
    struct flow *flow;

    while ((flow = state_next(state, shard, cursor)) != NULL) {
        if (!fill_flow(state, area, shard, flow, writer)) {
            *cursor = before;
            return false;
        }
        before = *cursor;
    }
    return true;
}

void query_fill(struct state *state, uint8_t *area, uint32_t shard, uint32_t cursor, uint32_t end, const uint8_t *owned,
                unsigned slot, query_record_fn *record, void *arg)
{
    const struct writer writer = {record, arg};
    struct query_header *header = (struct query_header *)(void *)area;

    *header = (struct query_header){.next_shard = end};
    for (; shard < end; shard++, cursor = 0) {
        if (owned && !owned[shard])
            continue;
        if (!owned && !state_try_lock(state, shard, slot))
            continue;
        bool whole = fill_shard(state, area, shard, &cursor, &writer);
        if (!owned)
            state_unlock(state, shard);
        if (!whole) {
            header->next_shard = shard;
            header->next_cursor = cursor;
            return;
        }
    }
}
