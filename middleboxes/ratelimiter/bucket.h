/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_BUCKET_H
#define RATELIMITER_BUCKET_H

/*
 * Token buckets in exact integer arithmetic. Pure: no I/O, no clock, no allocation. All times are packet times, ns.
 *
 * Scale.  Tokens are counted in units of 1/(8 * 10^9) byte, so that R bit/s refill exactly R units a nanosecond. For
 * limits in packets a packet takes the place of a byte, and the rate that of R * 8 bit/s. Nothing is ever rounded.
 *
 * Range.  A rate is at most 10^12 units a nanosecond (1 Tbit/s), a burst at most 2^30 bytes or packets: 8.6 * 10^18
 * units, which fits 63 bits. A cost is compared with the burst before it is scaled, and an elapsed time is multiplied
 * in 128 bits; so nothing here can overflow, whatever the lengths and times.
 *
 * A `struct bucket` has one writer, which meets packets in the order of their times: the state of a partitioned class.
 * A `struct shared_bucket` is written by several replicas, each at a point of packet time of its own, so that packets
 * come out of order. bucket.c says how it keeps its limit all the same.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUCKET_UNIT 8000000000ull        /* units in a byte, or in a packet */
#define BUCKET_MAX_RATE 1000000000000ull /* units a nanosecond */
#define BUCKET_MAX_BURST (1ull << 30)    /* bytes or packets */

/* What a limit allows. */
struct bucket_rate {
    uint64_t rate;  /* units a nanosecond, 1..BUCKET_MAX_RATE */
    uint64_t burst; /* bytes or packets, 1..BUCKET_MAX_BURST */
    /* Bytes or packets that must be left when a cost has been taken, at most BUCKET_MAX_BURST. It may differ from call
     * to call: some takers are allowed less than others. */
    uint64_t reserve;
};

struct bucket {
    uint64_t level; /* units, at `time` */
    uint64_t time;
};

/* A full bucket as of `now`. */
void bucket_init(struct bucket *bucket, const struct bucket_rate *rate, uint64_t now);

/* Whether a packet that costs `cost` bytes (or packets) conforms at `now`. Changes nothing. */
bool bucket_has(const struct bucket *bucket, const struct bucket_rate *rate, uint64_t now, uint32_t cost);

/*
 * When a packet that costs `cost` and comes at `now` departs, behind those that came before it: at once, or when there
 * are tokens. UINT64_MAX: never. Changes nothing. bucket_take() at that time takes them: the bucket's time is then the
 * last departure, which may be later than any packet's.
 */
uint64_t bucket_departure(const struct bucket *bucket, const struct bucket_rate *rate, uint64_t now, uint32_t cost);

/* Take what bucket_has() said was there. */
void bucket_take(struct bucket *bucket, const struct bucket_rate *rate, uint64_t now, uint32_t cost);

/* The time from which on the bucket is full, if nothing is taken; UINT64_MAX where that is beyond all times. */
uint64_t bucket_full_at(const struct bucket *bucket, const struct bucket_rate *rate);

/* Debits made ahead of the bucket's time: `sum` units in all, none before `first`, none after `last`. */
struct bucket_span {
    uint64_t first;
    uint64_t last;
    uint64_t sum;
};

#define SHARED_MAX_SPANS 64

struct shared_bucket {
    struct bucket bucket; /* packets of times up to bucket.time have been debited here */
    uint32_t capacity;    /* most spans, 1..SHARED_MAX_SPANS */
    uint32_t count;
    struct bucket_span span[]; /* by time; they do not overlap */
};

/* Bytes of a shared bucket with room for `capacity` spans. */
#define SHARED_SIZE(capacity) (sizeof(struct shared_bucket) + (capacity) * sizeof(struct bucket_span))

enum shared_verdict {
    SHARED_HAS,       /* conforms; the cost is debited */
    SHARED_LACKS,     /* does not conform; nothing is debited */
    SHARED_UNCERTAIN, /* will be known once no earlier packet can come: try again with a higher `low` */
};

/* What is needed to give a debit back. */
struct shared_debit {
    uint64_t time;
    uint64_t amount; /* units */
    bool ahead;      /* went to a span */
    bool departs;    /* was made by shared_depart() */
};

void shared_init(struct shared_bucket *shared, const struct bucket_rate *rate, uint64_t now, uint32_t capacity);

/*
 * Debit `cost` at the packet's time `now`, if it conforms; on SHARED_HAS *debit is filled. `low`: no packet before it
 * will come any more. `patient`: SHARED_UNCERTAIN is wanted where waiting can better the answer; it is never given
 * when `low` has reached `now`. An impatient answer keeps the limit as well, but may refuse what would conform.
 */
enum shared_verdict shared_take(struct shared_bucket *shared, const struct bucket_rate *rate, uint64_t low,
                                uint64_t now, uint32_t cost, bool patient, struct shared_debit *debit);

/*
 * Debit `cost` at the packet's departure, as bucket_departure() has it, if that is at most `queue` ns after `now`; on
 * SHARED_HAS *departure is filled as well. Departures go by what came before, so a patient answer is SHARED_UNCERTAIN
 * until `low` has reached `now`. A bucket is used with this or with shared_take(), not with both.
 */
enum shared_verdict shared_depart(struct shared_bucket *shared, const struct bucket_rate *rate, uint64_t low,
                                  uint64_t now, uint32_t cost, uint64_t queue, bool patient, struct shared_debit *debit,
                                  uint64_t *departure);

/* Give a debit back: the packet was dropped for another reason. */
void shared_undo(struct shared_bucket *shared, const struct bucket_rate *rate, const struct shared_debit *debit);

#endif
