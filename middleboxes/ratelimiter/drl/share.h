/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_SHARE_H
#define RATELIMITER_SHARE_H

/*
 * A host's share of a distributed limit: a bucket, and who takes from it, by flow. Replicas take and are counted; a
 * filler reads the counts, asks the limit's state machine (drl.h), and publishes what it allows. The simulator takes
 * from the same.
 *
 * Early drops.  Where the bucket is empty whoever comes loses, often all that a flow has under way: its sender then
 * waits for its timer, and what it leaves is no demand in the next moments. So packets are dropped before that, few of
 * many flows:
 *  - Who has lost a packet within 0.1 s and sent little more than its part loses none before the bucket is empty. Its
 *    sender does not know yet, and needs no second one.
 *  - The lower half is kept for those, and for who has sent clearly less than its part; all others lose there.
 *  - Above, who has sent more of late than its part of the share loses, the more the emptier the bucket. How many
 *    packets that is is summed up, not drawn: a draw would add its own noise to few flows' rates. Senders that do not
 *    slow down come to their part each where that many are lost of each; that is far above the lower half.
 * What each had sent of late, and how much is its part, is published at the end of an interval; what it sends since
 * then is added.
 *
 * Concurrency.  Any number take, one fills. Every field is one atomic word, so that neither's death leaves anything
 * half done. A place that is freed while somebody has just found it costs a flow an early drop, or one too many.
 *
 * Limits.  SHARE_PLACES flows at a time, in sets of SHARE_WAYS; where a set is full several are taken for one.
 */

#include "drl/meter.h"

struct drl;

#define SHARE_PAGES 4u
#define SHARE_PAGE_PLACES 256u
#define SHARE_PLACES (SHARE_PAGES * SHARE_PAGE_PLACES)
#define SHARE_WAYS 8u
#define SHARE_LOST_NS (1u << 20)

struct share_head {
    struct meter meter;
    _Atomic uint64_t drop;   /* chance of being dropped whatever is there, in 2^-32 */
    _Atomic uint64_t early;  /* level of the bucket below which flows lose packets early; 0: none do */
    _Atomic uint64_t part;   /* bytes (or packets) of late that a flow may have sent; UINT64_MAX: any */
    _Atomic uint64_t passed; /* bytes, or packets */
    _Atomic int64_t ahead;   /* packet time less the filler's clock, where packets wait */
};

struct share_place {
    _Atomic uint32_t flow;    /* a hash of its key; 0: free */
    _Atomic uint32_t arrived; /* bytes, or packets; wraps */
    _Atomic uint32_t before;  /* added to `arrived`: what it has sent of late; wraps */
    _Atomic uint16_t owed;    /* early drops that it is to have, in 2^-16: one each time that it wraps */
    _Atomic uint16_t lost;    /* when it lost a packet last, by the filler's clock in SHARE_LOST_NS; wraps */
};

struct share_page {
    struct share_place place[SHARE_PAGE_PLACES];
};

/* Where it lies. */
struct share {
    struct share_head *head;
    struct share_page *page[SHARE_PAGES];
};

/* Whether a packet of `flow` that costs `cost`, of which `amount` is what the bucket counts, conforms; it is counted.
 * `random`: 32 bits. `now`: of the filler's clock. */
bool share_take(const struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint32_t random,
                uint64_t now);

/* The same of a packet that must leave this part of the bucket's depth, in 2^-32. */
bool share_borrow(const struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint32_t random,
                  uint64_t reserve, uint64_t now);

/* The same of a packet that may wait, `longest` at most (meter_queue()); none is dropped early. */
bool share_queue(const struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint64_t now,
                 uint64_t longest, struct meter_slot *slot);

/* What was taken for a packet that is dropped for another reason; share_unqueue(): by share_queue(). */
void share_unqueue(const struct share *share, uint32_t cost, uint64_t amount, const struct meter_slot *slot);
void share_give_back(const struct share *share, uint32_t cost, uint64_t amount);

/* The rest is the filler's. */

/* What it has counted so far. */
struct share_seen {
    uint64_t passed;
    uint32_t arrived[SHARE_PLACES];
};

/* Of an interval: bytes (or packets); how many flows' worth arrived: (sum of them)^2 / (sum of squares). */
struct share_count {
    double arrived, passed, worth;
};

/* What came since the last time, which `drl` is told (NULL: nobody). Flows that neither sent nor are known there are
 * forgotten. */
struct share_count share_count(const struct share *share, struct share_seen *seen, struct drl *drl, uint64_t now);

/* Whoever counts from here on; and fills the bucket by `drl` (NULL: by something else): nothing is allowed before. */
void share_start(const struct share *share, struct share_seen *seen, const struct drl *drl, uint64_t now);

/* The bucket that `drl` allows from now on. */
void share_allow(const struct share *share, const struct drl *drl, uint64_t now);

/* After share_count() and an interval: that, and what flows have sent of late. */
void share_publish(const struct share *share, const struct share_seen *seen, const struct drl *drl, uint64_t now);

#endif
