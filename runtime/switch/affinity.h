/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_AFFINITY_H
#define SM_SWITCH_AFFINITY_H

/*
 * Which replica has seen a flow's packets so far, for programs that keep their flows themselves: a shard's new flows go
 * to its owner, those that are known stay where they are until they end (the strategies drain and new-flows-only).
 *
 * Overview.  A hash table of flows, by the keyed hash of the steering key; two flows of one hash (1 in 2^64) stay
 * together. It belongs to the switch alone.
 *
 * Life-cycle of a flow.  Entered with its first packet that goes into a ring; known while packets of it are in flight,
 * and from then on until it ends: no packet for the idle time, or, once TCP was closed from both sides or reset, for
 * AFFINITY_CLOSED_NS; or its replica dies. Its next packet enters it again, where its shard is by then. So packets of a
 * flow are in one replica at a time, which is what keeps them in order. What has ended is forgotten by the sweep.
 *
 * Concurrency.  The switch's thread.
 *
 * Limits.  As many flows as it was made for. One for which there is no room goes with its shard, as it would by the
 * strategy move, and is counted in `refused`.
 */

#include <stdbool.h>
#include <stdint.h>

#define AFFINITY_NONE UINT32_MAX
#define AFFINITY_SLOTS 64u
#define AFFINITY_CLOSED_NS 2000000000ull /* acknowledgements and repeated packets still come */

/* What a packet says of its flow's end. */
enum { AFFINITY_FIN_A = 1 << 0, AFFINITY_FIN_B = 1 << 1, AFFINITY_CLOSED = AFFINITY_FIN_A | AFFINITY_FIN_B };

struct affinity_flow {
    uint64_t hash;
    uint64_t seen;      /* packet time of its last packet */
    uint32_t next;      /* of the same bucket, or of the free ones */
    uint32_t in_flight; /* packets in its replica's ring or not yet taken back */
    uint16_t era;       /* of its slot, when it was entered: another replica may have the slot by now */
    uint8_t slot;
    uint8_t closed : 2, used : 1;
};

struct affinity {
    struct affinity_flow *flows;
    uint32_t *buckets;
    uint32_t limit, mask; /* of flows; of buckets, a power of two, less one */
    uint32_t made;        /* flows from here on were never used */
    uint32_t free, hand;  /* first free one of those below; where the sweep goes on */
    uint64_t idle_ns;
    bool over; /* no packet comes any more: what is not in flight has ended */
    uint16_t eras[AFFINITY_SLOTS];
    uint32_t known[AFFINITY_SLOTS]; /* flows that have not been found to have ended, by slot */
    uint64_t entered, refused;
};

/* NULL: out of memory. */
struct affinity *affinity_create(uint32_t limit, uint64_t idle_ns);
void affinity_destroy(struct affinity *affinity); /* NULL is allowed */

/* The flow with this hash; AFFINITY_NONE: there is none, or it has ended by `now` and is forgotten. `opens`: the packet
 * in hand begins a connection, so one that was closed has ended. */
uint32_t affinity_find(struct affinity *affinity, uint64_t hash, uint64_t now, bool opens);

/* A flow that is not known is in `slot` from now on; AFFINITY_NONE: there is no room. */
uint32_t affinity_enter(struct affinity *affinity, uint64_t hash, unsigned slot);

/* A packet of a flow goes into its replica's ring; has come back. `closed`: of AFFINITY_CLOSED. */
void affinity_sent(struct affinity *affinity, uint32_t flow, uint64_t now, unsigned closed);
void affinity_back(struct affinity *affinity, uint32_t flow);

/* The replica in a slot has died: it has no flows any more. Packets of it may still be given back. */
void affinity_forsake(struct affinity *affinity, unsigned slot);

/* Look at the next `most` flows, and forget those that have ended by `now`. */
void affinity_sweep(struct affinity *affinity, uint64_t now, uint32_t most);

#endif
