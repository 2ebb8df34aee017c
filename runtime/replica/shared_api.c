/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public calls on shared objects (include/splitmerge/shared.h), and the bound on packet time that shared state
 * which depends on it needs (design D6).
 */

#include <sched.h>
#include <string.h>
#include <time.h>

#include "replica/replica.h"

/* Yield for a while, then sleep: replicas share cores, and the one that is waited for may need this one. */
static void back_off(unsigned *turns)
{
    if (++*turns < 4000) {
        sched_yield();
    } else {
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
    }
}

void sm_counter_add(struct sm_replica *replica, sm_counter counter, int64_t amount)
{
    _Atomic int64_t *slot = &replica->arena->counters[replica->slot][counter.id];

    journal_image(&replica->journal, slot, sizeof *slot);
    atomic_store_explicit(slot, atomic_load_explicit(slot, memory_order_relaxed) + amount, memory_order_relaxed);
}

int64_t sm_counter_read(const struct sm_replica *replica, sm_counter counter)
{
    int64_t sum = 0;

    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        sum += atomic_load_explicit(&replica->arena->counters[i][counter.id], memory_order_relaxed);
    return sum;
}

static bool try_lock(struct strong_object *object, uint32_t holder)
{
    uint32_t nobody = 0;

    return atomic_compare_exchange_strong_explicit(&object->holder, &nobody, holder, memory_order_acquire,
                                                   memory_order_relaxed);
}

void *sm_shared_get(struct sm_replica *replica, sm_strong id, unsigned flags)
{
    struct strong_object *object = &replica->arena->strong[id.id];
    unsigned turns = 0;

    if (!(flags & SM_SYNCH))
        return object->data;
    for (unsigned i = 0; i < replica->strong_count; i++)
        if (replica->strong[i].id == id.id) {
            replica->strong[i].current = true;
            journal_image(&replica->journal, object->data, object->size);
            return object->data;
        }
    bool later = false; /* a later one is held, for this packet or for complete ones */
    for (unsigned i = 0; i < replica->strong_count; i++) {
        later |= replica->strong[i].id > id.id;
        if (replica->strong[i].id > id.id && replica->strong[i].current)
            return NULL;
    }
    if (later || !try_lock(object, replica->slot + 1)) {
        /* Before waiting: what is done becomes visible, and locks of complete packets go back to others. */
        replica_commit(replica, false);
        while (!try_lock(object, replica->slot + 1))
            back_off(&turns);
    }
    unsigned place = replica->strong_count++;
    for (; place > 0 && replica->strong[place - 1].id > id.id; place--)
        replica->strong[place] = replica->strong[place - 1];
    replica->strong[place].id = id.id;
    replica->strong[place].current = true;
    journal_image(&replica->journal, object->data, object->size);
    return object->data;
}

void sm_shared_put(struct sm_replica *replica, sm_strong object, unsigned flags)
{
    /* Locked objects stay so until the burst commits; nothing else is ever buffered on one host. */
    (void)replica, (void)object, (void)flags;
}

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
        uint64_t at = atomic_load_explicit(&channel->low, memory_order_acquire);
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
    /* The packet in hand or, in a timer, the packet or tick that made it due. */
    uint64_t own = atomic_load_explicit(&replica->channel->low, memory_order_relaxed);

    low = late < low ? late : low;
    return (sm_time){own < low ? own : low};
}

/*
 * Late packets are not waited for: they may be behind the packet in hand in our own ring, or behind a release that is
 * behind another's. So a replica only ever waits for one that is at an earlier packet, and the earliest of all never
 * waits.
 */
bool sm_shared_wait(struct sm_replica *replica, const struct sm_packet *packet)
{
    unsigned turns = 0;

    if (low_of_rings(replica) < packet->time) {
        replica_commit(replica, false);
        while (low_of_rings(replica) < packet->time)
            back_off(&turns);
    }
    return sm_shared_low(replica).ns >= packet->time;
}
