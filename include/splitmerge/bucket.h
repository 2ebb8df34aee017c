/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_BUCKET_H
#define SPLITMERGE_BUCKET_H

/*
 * Token buckets in exact integer arithmetic, for limits of rate x t + burst that hold over every interval of packet
 * time. Two ways to use them:
 *
 *   sm_buckets_*          the runtime keeps a bucket for each key, or one for all packets, and takes from it: coherent
 *                         state by escrow (shared.h), or per-flow state where the steering key partitions it.
 *   sm_bucket_*, sm_shared_bucket_*
 *                         the arithmetic alone, for records of the program's own. Pure: no I/O, no clock, no
 * allocation.
 *
 * Scale.  Tokens are counted in units of 1/(8 * 10^9) byte, so that R bit/s refill exactly R units a nanosecond. For
 * limits in packets a packet takes the place of a byte, and the rate that of R * 8 bit/s. Nothing is ever rounded.
 *
 * Range.  A rate is at most 10^12 units a nanosecond (1 Tbit/s), a burst at most 2^30 bytes or packets: 8.6 * 10^18
 * units, which fits 63 bits. A cost is compared with the burst before it is scaled, and an elapsed time is multiplied
 * in 128 bits; so nothing here can overflow, whatever the lengths and times. All times are packet times, ns.
 *
 * A `struct sm_bucket` has one writer, which meets packets in the order of their times: the state of a partitioned
 * class. A `struct sm_shared_bucket` is written by several replicas, each at a point of packet time of its own, so that
 * packets come out of order. runtime/state/bucket.c says how it keeps its limit all the same.
 */

#include <splitmerge/flow.h>
#include <splitmerge/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SM_BUCKET_UNIT 8000000000ull        /* units in a byte, or in a packet */
#define SM_BUCKET_MAX_RATE 1000000000000ull /* units a nanosecond */
#define SM_BUCKET_MAX_BURST (1ull << 30)    /* bytes or packets */

/* What a limit allows. */
struct sm_bucket_rate {
    uint64_t rate;  /* units a nanosecond, 1..SM_BUCKET_MAX_RATE */
    uint64_t burst; /* bytes or packets, 1..SM_BUCKET_MAX_BURST */
    /* Bytes or packets that must be left when a cost has been taken, at most SM_BUCKET_MAX_BURST. It may differ from
     * call to call: some takers are allowed less than others. */
    uint64_t reserve;
};

struct sm_bucket {
    uint64_t level; /* units, at `time` */
    uint64_t time;
};

/* A full bucket as of `now`. */
SM_EXPORT void sm_bucket_init(struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now);

/* Whether a packet that costs `cost` bytes (or packets) conforms at `now`. Changes nothing. */
SM_EXPORT bool sm_bucket_has(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now,
                             uint32_t cost);

/*
 * When a packet that costs `cost` and comes at `now` departs, behind those that came before it: at once, or when there
 * are tokens. UINT64_MAX: never. Changes nothing. sm_bucket_take() at that time takes them: the bucket's time is then
 * the last departure, which may be later than any packet's.
 */
SM_EXPORT uint64_t sm_bucket_departure(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now,
                                       uint32_t cost);

/* Take what sm_bucket_has() said was there. */
SM_EXPORT void sm_bucket_take(struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now, uint32_t cost);

/* The time from which on the bucket is full, if nothing is taken; UINT64_MAX where that is beyond all times. */
SM_EXPORT uint64_t sm_bucket_full_at(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate);

/* Debits made ahead of the bucket's time: `sum` units in all, none before `first`, none after `last`. */
struct sm_bucket_span {
    uint64_t first;
    uint64_t last;
    uint64_t sum;
};

#define SM_BUCKET_MAX_SPANS 64

/* Behind it lie its spans, `capacity` of struct sm_bucket_span: by time; they do not overlap. */
struct sm_shared_bucket {
    struct sm_bucket bucket; /* packets of times up to bucket.time have been debited here */
    uint32_t capacity;       /* most spans, 1..SM_BUCKET_MAX_SPANS */
    uint32_t count;
};

/* Bytes of a shared bucket with room for `capacity` spans. */
#define SM_SHARED_BUCKET_SIZE(capacity) (sizeof(struct sm_shared_bucket) + (capacity) * sizeof(struct sm_bucket_span))

enum sm_bucket_verdict {
    SM_BUCKET_HAS,       /* conforms; the cost is debited */
    SM_BUCKET_LACKS,     /* does not conform; nothing is debited */
    SM_BUCKET_UNCERTAIN, /* will be known once no earlier packet can come: try again with a higher `low` */
};

/* What is needed to give a debit back. */
struct sm_bucket_debit {
    uint64_t time;
    uint64_t amount; /* units */
    bool ahead;      /* went to a span */
    bool departs;    /* was made by sm_shared_bucket_depart() */
};

/* A full bucket as of `now`, which no packet comes before, with room for `capacity` spans. */
SM_EXPORT void sm_shared_bucket_init(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate, uint64_t now,
                                     uint32_t capacity);

/*
 * Debit `cost` at the packet's time `now`, if it conforms; on SM_BUCKET_HAS *debit is filled. `low`: no packet before
 * it will come any more (sm_shared_low()). `patient`: SM_BUCKET_UNCERTAIN is wanted where waiting can better the
 * answer; it is never given when `low` has reached `now`. An impatient answer keeps the limit as well, but may refuse
 * what would conform.
 */
SM_EXPORT enum sm_bucket_verdict sm_shared_bucket_take(struct sm_shared_bucket *shared,
                                                       const struct sm_bucket_rate *rate, uint64_t low, uint64_t now,
                                                       uint32_t cost, bool patient, struct sm_bucket_debit *debit);

/*
 * Debit `cost` at the packet's departure, as sm_bucket_departure() has it, if that is at most `queue` ns after `now`;
 * on SM_BUCKET_HAS *departure is filled as well. Departures go by what came before, so a patient answer is
 * SM_BUCKET_UNCERTAIN until `low` has reached `now`. A bucket is used with this or with sm_shared_bucket_take(), not
 * with both.
 */
SM_EXPORT enum sm_bucket_verdict sm_shared_bucket_depart(struct sm_shared_bucket *shared,
                                                         const struct sm_bucket_rate *rate, uint64_t low, uint64_t now,
                                                         uint32_t cost, uint64_t queue, bool patient,
                                                         struct sm_bucket_debit *debit, uint64_t *departure);

/* Give a debit back: the packet was dropped for another reason. */
SM_EXPORT void sm_shared_bucket_undo(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate,
                                     const struct sm_bucket_debit *debit);

/*
 * Tokens that are there for a packet at `now`: bytes or packets, rounded down; of a shared bucket less what packets of
 * later times have taken already. The reserve is not taken off. Changes nothing.
 */
SM_EXPORT uint64_t sm_bucket_level(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now);
SM_EXPORT uint64_t sm_shared_bucket_level(const struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate,
                                          uint64_t now);

/*
 * The fields of a bucket that is at `offset` of a class's record: 2 of a struct sm_bucket (`capacity` 0), 5 of a struct
 * sm_shared_bucket. `names` in this order: tokens, their time, number of spans, capacity, spans. `unit` of the tokens:
 * "B", "packets". Returns how many were filled.
 */
#define SM_BUCKET_FIELDS 5
SM_EXPORT unsigned sm_bucket_fields(struct sm_field *field, uint16_t offset, const char *const *names, const char *unit,
                                    uint32_t capacity);

/* ---- Buckets that the runtime keeps ---- */

/* By value, from sm_buckets_register(). */
typedef struct sm_buckets {
    sm_class cls;
} sm_buckets;

struct sm_buckets_options {
    size_t size;                     /* sizeof(struct sm_buckets_options) */
    const char *name;                /* at most 31 characters; a flow class of the service */
    enum sm_granularity granularity; /* a bucket for each key of it; SM_BY_ALL: one for all packets */
    struct sm_bucket_rate rate;      /* of each bucket; a reload may change it, what is in the buckets stays */
    const char *unit;                /* of tokens as people are shown them; NULL: "B" */
    uint32_t limit;                  /* most buckets in the service; 0: the service's limit of flows alone */
};

/*
 * Register buckets, between sm_open() and sm_start(), by every replica the same ones in the same order as its other
 * classes. A bucket is full until something is taken. Where the steering key partitions the granularity a bucket is a
 * flow, which ends when it is full again; else it is shared by all replicas, and stays. Errors as sm_class_register();
 * SM_E_INVALID also: a rate or a burst is out of its range.
 */
SM_EXPORT int sm_buckets_register(struct sm_replica *replica, const struct sm_buckets_options *options,
                                  sm_buckets *buckets);

/*
 * Take `cost` tokens from the packet's bucket at the packet's time, if it has them. 0: they are taken; should this
 * replica die before the packet is committed they come back, and whoever processes the packet asks again.
 * SM_E_LIMIT: it has fewer, and nothing is taken. SM_E_NO_MEMORY: there is no room for one more bucket (counted as
 * `flow_limit`), or the packet has SM_MAX_IN_HAND flows in hand; what to do with the packet is the caller's choice.
 *
 * In the packet handler, with no shared flow and no strong object held. Where the answer hangs on earlier packets of
 * other replicas the call waits for these (sm_shared_wait()), so ask before anything else is written for the packet. A
 * packet that a move had held may come too late for its time, and is then refused.
 */
SM_EXPORT int sm_buckets_take(struct sm_replica *replica, sm_buckets buckets, const struct sm_packet *packet,
                              uint32_t cost);

/*
 * Tokens in the packet's bucket at the packet's time, as sm_bucket_level(); what others have taken and not committed is
 * taken. In the packet handler, with no shared flow held. To decide by it and take, take.
 */
SM_EXPORT uint64_t sm_buckets_level(struct sm_replica *replica, sm_buckets buckets, const struct sm_packet *packet);

#ifdef __cplusplus
}
#endif

#endif
