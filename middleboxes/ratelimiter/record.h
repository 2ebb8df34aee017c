/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_RECORD_H
#define RATELIMITER_RECORD_H

/*
 * The record of a flow class: whose buckets it has, what came through them since it was made, and the buckets: one,
 * or two where some limit of the class has a guarantee apart. A class that may be shared has room for spans. Pure.
 *
 * Layout.  Version 2 of the classes; the fields say all of it, so that records are copied and brought over by them.
 */

#include <splitmerge/flow.h>

#include "pair.h"

#define RECORD_VERSION 2
#define RECORD_FIELDS (2 * SM_BUCKET_FIELDS + 8)

struct record {
    uint64_t of;       /* whose: struct tags; 0: nobody's so far */
    uint64_t passed;   /* bytes, or packets where the limit counts packets */
    uint64_t exceeded; /* packets that it dropped or, since there was too little, marked */
    uint64_t current;  /* passed in `second`, */
    uint64_t last;     /* and in the second before it */
    uint32_t second;   /* of packet time, since 1970; 0: nothing has passed */
    uint16_t limit;    /* its drop reason */
    uint16_t packets;  /* 1: the limit counts packets */
};

/* Make it a record of `of`, to which nothing has come; the buckets are not touched. */
static inline void record_begin(struct record *record, uint64_t of, uint16_t limit, bool packets)
{
    *record = (struct record){.of = of, .limit = limit, .packets = packets};
}

static inline void record_pass(struct record *record, uint64_t now, uint32_t cost)
{
    uint32_t second = (uint32_t)(now / 1000000000u);

    record->passed += cost;
    if (second > record->second) {
        record->last = second == record->second + 1 ? record->current : 0;
        record->current = 0;
        record->second = second;
    }
    if (second == record->second)
        record->current += cost;
    else if (second + 1 == record->second)
        record->last += cost;
}

/* A packet that has passed did not. In which second it came need not be known well: that is for a rate alone. */
static inline void record_unpass(struct record *record, uint64_t now, uint32_t cost)
{
    uint64_t *in = now / 1000000000u >= record->second ? &record->current : &record->last;

    record->passed -= cost;
    *in -= cost < *in ? cost : *in;
}

/* Its buckets: struct sm_bucket[], or two shared ones, the second behind the first, which has room for as many spans.
 */
static inline void *record_buckets(struct record *record)
{
    return record + 1;
}
static inline struct sm_shared_bucket *record_second(struct sm_shared_bucket *first)
{
    return (struct sm_shared_bucket *)(void *)((uint8_t *)first + SM_SHARED_BUCKET_SIZE(first->capacity));
}

/* Bytes of a record with one bucket, or two; `spans` of a shared one, 0: it is none. */
uint32_t record_size(uint32_t spans, bool apart);

/* Its fields, RECORD_FIELDS at most; `unit` of tokens and of what passed. Returns how many. */
unsigned record_fields(struct sm_field *fields, const char *unit, uint32_t spans, bool apart);

#endif
