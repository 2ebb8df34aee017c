/* SPDX-License-Identifier: BSD-2-Clause */
#include "arena/channel.h"

#include <splitmerge/flow.h>

#include "arena/snapshot.h"
#include "state/journal.h"

#include <string.h>

static uint32_t power_of_two(uint64_t least)
{
    uint32_t entries = 1;
    while (entries < least)
        entries *= 2;
    return entries;
}

static uint32_t ring_entries(uint32_t buffers)
{
    return power_of_two(buffers + CHANNEL_MARKERS);
}

static uint32_t bind_entries(uint32_t buffers, uint32_t bindings)
{
    return power_of_two(bindings + 2ull * SM_MAX_BINDS * buffers);
}

static uint64_t pages(uint64_t bytes)
{
    return (bytes + 4095) & ~4095ull;
}

uint64_t channel_bytes(uint32_t buffers, uint32_t bindings)
{
    return CHANNEL_JOURNAL_AT + CHANNEL_JOURNAL_BYTES + 2 * pages(16ull * ring_entries(buffers)) + CHANNEL_QUERY_BYTES +
           SNAPSHOT_BYTES + pages((uint64_t)bind_entries(buffers, bindings) * sizeof(struct bind_entry));
}

/* Where it is so already nothing is written. */
static void put(uint64_t *offset, uint64_t value)
{
    if (*offset != value)
        *offset = value;
}

void channel_lay_out(struct channel *channel, uint32_t buffers, uint32_t bindings)
{
    uint64_t ring = pages(16ull * ring_entries(buffers));

    channel->ring_mask = ring_entries(buffers) - 1;
    channel->bind_mask = bind_entries(buffers, bindings) - 1;
    put(&channel->in_offset, CHANNEL_JOURNAL_AT + CHANNEL_JOURNAL_BYTES);
    put(&channel->out_offset, channel->in_offset + ring);
    put(&channel->query_offset, channel->out_offset + ring);
    put(&channel->snapshot_offset, channel->query_offset + CHANNEL_QUERY_BYTES);
    put(&channel->bind_offset, channel->snapshot_offset + SNAPSHOT_BYTES);
}

/* Word by word: other replicas may be looking at it (sm_shared_low(), strong counters). */
void channel_reset(struct channel *channel, uint32_t buffers, uint32_t bindings)
{
    channel_lay_out(channel, buffers, bindings);
    STEP();
    atomic_store_explicit(&channel->in_head, 0, memory_order_relaxed);
    atomic_store_explicit(&channel->commit, 0, memory_order_relaxed);
    STEP();
    atomic_store_explicit(&channel->low, 0, memory_order_relaxed);
    atomic_store_explicit(&channel->floor, 0, memory_order_relaxed);
    atomic_store_explicit(&channel->at, 0, memory_order_relaxed);
    atomic_store_explicit(&channel->replica_sleeps, REPLICA_AWAKE, memory_order_relaxed);
    atomic_store_explicit(&channel->switch_sleeps, 0, memory_order_relaxed);
    memset(&channel->counters, 0, sizeof channel->counters);
    STEP();
    journal_format(channel_journal(channel), CHANNEL_JOURNAL_BYTES);
}
