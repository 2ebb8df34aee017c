/* SPDX-License-Identifier: BSD-2-Clause */

/* The bound on packet time that shared state which depends on it needs (include/splitmerge/shared.h, design D6). */

#include "replica/replica.h"

/*
 * The earliest late packet of some slots. A packet whose move is abandoned changes slots, and is entered in the new one
 * before it leaves the old one: read twice, lest it slip through between two reads.
 */
static uint64_t earliest_late(struct arena *arena, uint64_t slots)
{
    uint64_t low = UINT64_MAX;

    for (unsigned pass = 0; pass < 2; pass++)
        for (uint64_t left = slots; left; left &= left - 1) {
            uint64_t late = atomic_load_explicit(&arena->late_time[__builtin_ctzll(left)], memory_order_acquire);
            low = late < low ? late : low;
        }
    return low;
}

/* The earliest packet time that the replica of a channel may process: what is not committed may come back. */
static uint64_t low_of(const struct channel *channel)
{
    uint64_t low = atomic_load_explicit(&channel->low, memory_order_acquire);
    uint64_t floor = atomic_load_explicit(&channel->floor, memory_order_acquire);

    return floor < low ? floor : low;
}

/*
 * The same of this replica itself: of the packet in hand or, in a timer, the packet or tick that made it due; and of
 * those before it in the burst, which others would process if it died. A program that is its own host has no others.
 */
static uint64_t own_low(const struct sm_replica *replica)
{
    if (replica->standalone)
        return atomic_load_explicit(&replica->channel->low, memory_order_relaxed);
    return low_of(replica->channel);
}

/* The packet time that all other replicas have reached in their rings. */
static uint64_t low_of_rings(const struct sm_replica *replica)
{
    struct arena *arena = replica->arena;
    /* Read before the rings: whoever's ring is found empty will be given nothing earlier than this. */
    uint64_t low = atomic_load_explicit(&arena->pushed_time, memory_order_acquire);
    uint64_t slots = atomic_load_explicit(&arena->ready_slots, memory_order_acquire) & ~(1ull << replica->slot);

    for (; slots; slots &= slots - 1) {
        unsigned slot = (unsigned)__builtin_ctzll(slots);
        const struct channel *channel = arena_channel(arena, 0, slot);
        uint32_t head = atomic_load_explicit(&channel->in_head, memory_order_acquire);
        uint64_t commit = atomic_load_explicit(&channel->commit, memory_order_acquire);
        uint64_t at = low_of(channel);
        if (commit_consumed(commit) != head && at < low)
            low = at;
    }
    return low;
}

sm_time sm_shared_low(const struct sm_replica *replica)
{
    uint64_t low = low_of_rings(replica);
    uint64_t late =
        earliest_late(replica->arena, atomic_load_explicit(&replica->arena->ready_slots, memory_order_acquire));
    uint64_t own = own_low(replica);

    low = late < low ? late : low;
    return (sm_time){own < low ? own : low};
}

sm_time sm_shared_high(const struct sm_replica *replica)
{
    return (sm_time){atomic_load_explicit(&replica->arena->pushed_time, memory_order_acquire)};
}

unsigned sm_slot(const struct sm_replica *replica)
{
    return replica->slot;
}

/*
 * Late packets are not waited for: they may be behind the packet in hand in our own ring, or behind a release that is
 * behind another's. So a replica only ever waits for one that is at an earlier packet, and the earliest of all never
 * waits.
 */
bool sm_shared_wait(struct sm_replica *replica, const struct sm_packet *packet)
{
    unsigned turns = 0;

    if (low_of_rings(replica) < packet->time || own_low(replica) < packet->time) {
        replica_commit(replica, false);
        while (low_of_rings(replica) < packet->time)
            replica_back_off(&turns);
    }
    return sm_shared_low(replica).ns >= packet->time;
}
