/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_SHARE_H
#define RATELIMITER_SHARE_H

/*
 * What the replicas of a host and its exchange have together, in shared objects of the arena: for each distributed
 * limit the host's bucket, and counts of what came. Replicas take and count; the exchange fills, and reads the counts.
 * Every field is one atomic word, so that neither's death leaves anything half done.
 */

#include "drl/meter.h"
#include "peers/datagram.h"

#define SHARE_CELLS 256u /* flows are told apart by so many values of a hash */
#define SHARE_MOST 32u   /* distributed limits of a policy */

struct share {
    struct meter meter;
    _Atomic uint64_t drop;                 /* chance of being dropped whatever is there, in 2^-32 */
    _Atomic uint64_t passed;               /* bytes, or packets */
    _Atomic uint64_t arrived[SHARE_CELLS]; /* likewise, by flow */
};

/* Who is there: by number of host. Version 0: nobody. Written by the exchange alone; kept for the next one. */
struct members {
    _Atomic uint64_t begun; /* not 0: this is to be believed, rather than the policy */
    struct datagram_member host[EXACT_MAX_HOSTS];
};

/* Whether a packet that costs `cost` conforms; it is counted. `random`: 32 bits. `now`: of the exchange's clock. */
static inline bool share_take(struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint32_t random,
                              uint64_t now)
{
    uint64_t drop = atomic_load_explicit(&share->drop, memory_order_relaxed);
    bool has = random >= drop && meter_take(&share->meter, now, amount);

    atomic_fetch_add_explicit(&share->arrived[flow * 0x9e3779b97f4a7c15ull >> 56], cost, memory_order_relaxed);
    if (has)
        atomic_fetch_add_explicit(&share->passed, cost, memory_order_relaxed);
    return has;
}

static inline void share_give_back(struct share *share, uint32_t cost, uint64_t amount)
{
    atomic_fetch_sub_explicit(&share->passed, cost, memory_order_relaxed);
    meter_give_back(&share->meter, amount);
}

#endif
