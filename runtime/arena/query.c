/* SPDX-License-Identifier: BSD-2-Clause */
#include "arena/query.h"

#include <string.h>

/* One shard; false when the area is full, with *cursor where to go on. */
static bool fill_shard(struct state *state, uint8_t *area, uint32_t shard, uint32_t *cursor)
{
    struct query_header *header = (struct query_header *)(void *)area;
    uint32_t before = *cursor;
    struct flow *flow;

    while ((flow = state_next(state, shard, cursor)) != NULL) {
        uint32_t record = state_class(state, flow_class(flow))->record_size;
        uint32_t need = (uint32_t)sizeof(struct query_flow) + ((record + 7) & ~7u);
        uint32_t used = (uint32_t)sizeof *header + header->bytes;
        if (used + need > CHANNEL_QUERY_BYTES) {
            *cursor = before;
            return false;
        }
        struct query_flow *to = (struct query_flow *)(void *)(area + used);
        *to = (struct query_flow){.cls = (uint16_t)flow_class(flow), .shard = (uint16_t)shard, .record_bytes = record};
        memcpy(to->key, flow_key(flow), sizeof to->key);
        memcpy(to + 1, flow_record(flow), record);
        header->bytes += need;
        header->count++;
        before = *cursor;
    }
    return true;
}

void query_fill(struct state *state, uint8_t *area, uint32_t shard, uint32_t cursor, uint32_t end, const uint8_t *owned,
                unsigned slot)
{
    struct query_header *header = (struct query_header *)(void *)area;

    *header = (struct query_header){.next_shard = end};
    for (; shard < end; shard++, cursor = 0) {
        if (owned && !owned[shard])
            continue;
        if (!owned && !state_try_lock(state, shard, slot))
            continue;
        bool whole = fill_shard(state, area, shard, &cursor);
        if (!owned)
            state_unlock(state, shard);
        if (!whole) {
            header->next_shard = shard;
            header->next_cursor = cursor;
            return;
        }
    }
}
