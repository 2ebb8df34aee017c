/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_METER_H
#define RATELIMITER_METER_H

/*
 * A token bucket in memory that processes share: any number of them take, and one fills it, from time to time, by its
 * clock. Amounts are in the units of bucket.h, rates in units a nanosecond, times those of one clock, ns.
 *
 * Every field is one word that is stored whole, and they are stored in such an order that a filler's death between any
 * two stores leaves fewer tokens, never more: the next filler begins with meter_resume() and goes on.
 *
 * It is no more than a bucket filled without end: over any time t at most rate x t + depth is taken. For the full rate
 * the depth must be twice what comes in between two fillings.
 *
 * `until` is for tokens that are somebody else's again at a moment: from then on nothing is taken.
 *
 * Packets may also wait for tokens, in the order in which they came: meter_queue() takes ahead what will come in, up to
 * `queued_until`, and the filler begins behind that. A rate that changes counts for the packets that come then. So what
 * departs keeps to rate x t + depth by the rates and depths of when it came.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define METER_ALWAYS UINT64_MAX
#define METER_GAP_NS 100000000ull

struct meter {
    _Atomic uint64_t level; /* at most `depth` */
    _Atomic uint64_t until;
    _Atomic uint64_t rate;
    _Atomic uint64_t depth;
    _Atomic uint64_t filled_at;
    _Atomic uint64_t room;         /* for tokens, as of filled_at: when it was emptied since then nobody knows */
    _Atomic uint64_t queued_until; /* the last departure of a packet that has to wait */
};

/* Whether `amount` was there at `now`, which is not looked at where `until` is METER_ALWAYS; it is taken then. */
bool meter_take(struct meter *meter, uint64_t now, uint64_t amount);

/* The same, where `reserve` must be left. */
bool meter_take_leaving(struct meter *meter, uint64_t now, uint64_t amount, uint64_t reserve);

/* When a packet departs, and what of that is its own wait; 0: it took what was there, and departs at once, or with the
 * one before it where that is later. */
struct meter_slot {
    uint64_t departs, wait;
};

/* Whether `amount` is there, or will be in at most `longest` and before `until`; it is taken then, and *slot filled. */
bool meter_queue(struct meter *meter, uint64_t now, uint64_t amount, uint64_t longest, struct meter_slot *slot);

/* Give back the place of a packet that waits and is dropped for another reason, unless there are others behind it. */
void meter_unqueue(struct meter *meter, const struct meter_slot *slot);

/* Give back what was taken for a packet that is dropped for another reason. */
void meter_give_back(struct meter *meter, uint64_t amount);

static inline bool meter_needs_time(const struct meter *meter)
{
    return atomic_load_explicit(&meter->until, memory_order_relaxed) != METER_ALWAYS;
}

/* The rest is the filler's. */

/* Whoever fills it from now on: what the one before left half done is made whole. */
void meter_resume(struct meter *meter, uint64_t now);

/*
 * Tokens for the time since it was filled last, none beyond `until`. A time of more than METER_GAP_NS is not counted
 * where `strict`: a clock that jumped cannot be told from a process that did not run. Nor is a clock that went back.
 */
void meter_fill(struct meter *meter, uint64_t now, bool strict);

/* From now on, having filled it: another rate and depth. */
void meter_set(struct meter *meter, uint64_t rate, uint64_t depth);

/* From now on, having filled it: until when. What was left of a lease that has ended is nobody's. */
void meter_extend(struct meter *meter, uint64_t now, uint64_t until);

/* Nothing may be taken any more. */
void meter_void(struct meter *meter);

#endif
