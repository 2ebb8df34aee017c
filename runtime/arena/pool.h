/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_POOL_H
#define SM_ARENA_POOL_H

/*
 * Packet buffers in the arena. A buffer is a number; the first small_count are small, the rest jumbo. Each starts with
 * what the switch found out about the packet, then headroom, then the packet's bytes. Only the switch allocates and
 * frees (its free lists are private); whoever holds a buffer's number in a ring may read and write the buffer.
 */

#include <splitmerge/splitmerge.h>

#define POOL_DATA_OFFSET 256u /* room for struct packet_meta and 128 bytes of headroom */
#define POOL_SMALL_BYTES                                                                                               \
    2112u /* an odd number of lines: buffers begin in all sets of a cache, not in a few of them                        \
           */
#define POOL_JUMBO_BYTES (262144u + 4096u) /* the longest packet libpcap gives, and the offset */
#define POOL_SMALL_COUNT 4096u             /* unless something else is asked for */
#define POOL_NONE UINT32_MAX

struct packet_meta {
    struct sm_key key; /* SM_BY_FLOW */
    struct sm_headers headers;
    uint64_t hash; /* of the steering key */
    uint32_t caplen;
    uint32_t len;
    /* One cache line up to here: every packet takes it from the switch's core to the replica's. The rest is used only
     * where the middlebox sends packets (registration.sends > 0). */
    uint32_t reserve_count;
    uint32_t reserve[SM_MAX_SENDS]; /* buffers for packets that are sent because of this one */
};

_Static_assert(offsetof(struct packet_meta, reserve_count) == 64, "what every packet needs is one cache line");

struct pool_layout {
    uint8_t *small;
    uint8_t *jumbo;
    uint32_t small_count;
    uint32_t jumbo_count;
};

static inline uint32_t pool_count(const struct pool_layout *pool)
{
    return pool->small_count + pool->jumbo_count;
}

/* Out of line: nearly all buffers are small, and for those no instruction is to be spent on this. */
static __attribute__((noinline, cold, unused)) struct packet_meta *pool_jumbo_meta(const struct pool_layout *pool,
                                                                                   uint32_t buffer)
{
    return (struct packet_meta *)(void *)(pool->jumbo + (size_t)(buffer - pool->small_count) * POOL_JUMBO_BYTES);
}

static inline struct packet_meta *pool_meta(const struct pool_layout *pool, uint32_t buffer)
{
    if (buffer >= pool->small_count)
        return pool_jumbo_meta(pool, buffer);
    return (struct packet_meta *)(void *)(pool->small + (size_t)buffer * POOL_SMALL_BYTES);
}

static inline uint8_t *pool_data(const struct pool_layout *pool, uint32_t buffer)
{
    return (uint8_t *)pool_meta(pool, buffer) + POOL_DATA_OFFSET;
}

#endif
