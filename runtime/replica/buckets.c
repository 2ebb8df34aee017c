/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Token buckets that the runtime keeps (include/splitmerge/bucket.h): a flow class whose records are shared buckets.
 *
 * Life-cycle of a bucket.  Made by the first packet that takes from it. One that is partitioned is closed by its timer
 * when it is full again, since a full bucket says no more than none; it meets packets in the order of their times, so
 * it needs no spans. One that is shared stays: others may still take from it at earlier times.
 *
 * Death.  What a packet takes from a shared bucket is noted by escrow (escrow.c) until the packet is committed; a
 * partitioned one is undone with its burst, like all records.
 *
 * Limits.  KEYED_SPANS debits of each key are kept apart, of the one bucket of all packets SM_BUCKET_MAX_SPANS.
 */

#include <string.h>

#include "replica/replica.h"

#define KEYED_SPANS 8
#define TIMER_FULL 0

static const struct sm_bucket_rate *rate_of(const struct sm_replica *replica, sm_class cls)
{
    return &replica->bucket_rates[cls.id];
}

static uint32_t spans_of(const struct sm_replica *replica, sm_class cls)
{
    uint32_t bytes = replica->classes[cls.id].record_size;

    return (uint32_t)((bytes - sizeof(struct sm_shared_bucket)) / sizeof(struct sm_bucket_span));
}

/* A packet may have taken since the timer was armed; a reload may have changed the rate. */
static void bucket_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    const struct sm_shared_bucket *shared = flow.state;
    uint64_t full = sm_bucket_full_at(&shared->bucket, rate_of(replica, cls));

    (void)user;
    if (full <= now.ns)
        sm_flow_close(replica, cls, flow);
    else
        sm_flow_timer_set(replica, cls, flow, slot, (sm_time){full});
}

static void undo_take(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t bytes,
                      void *user)
{
    struct sm_bucket_debit debit;

    (void)user;
    if (bytes != sizeof debit)
        return; /* no note of ours */
    memcpy(&debit, note, bytes);
    sm_shared_bucket_undo(flow.state, rate_of(replica, cls), &debit);
}

static bool in_range(const struct sm_bucket_rate *rate)
{
    return rate->rate >= 1 && rate->rate <= SM_BUCKET_MAX_RATE && rate->burst >= 1 &&
           rate->burst <= SM_BUCKET_MAX_BURST && rate->reserve <= SM_BUCKET_MAX_BURST;
}

int sm_buckets_register(struct sm_replica *replica, const struct sm_buckets_options *options, sm_buckets *buckets)
{
    static const char *const names[SM_BUCKET_FIELDS] = {"tokens", "as_of", "debits_ahead", "capacity", "debits"};
    bool all = options->granularity == SM_BY_ALL;
    uint32_t spans = all ? SM_BUCKET_MAX_SPANS : KEYED_SPANS;
    struct sm_field fields[SM_BUCKET_FIELDS];

    if (options->size != sizeof *options || !in_range(&options->rate))
        return SM_E_INVALID;
    const struct sm_class_options cls = {
        .size = sizeof cls,
        .name = options->name,
        .version = 1,
        .record_size = (uint32_t)SM_SHARED_BUCKET_SIZE(spans),
        .granularity = options->granularity,
        .may_share = true,
        .timers = sm_granularity_is_shared(options->granularity) ? 0 : 1,
        .limit = options->limit,
        .fields = fields,
        .field_count = sm_bucket_fields(fields, 0, names, options->unit ? options->unit : "B", spans),
        .on_timer = bucket_timer,
        .on_undo = undo_take,
    };
    int result = sm_class_register(replica, &cls, &buckets->cls);
    if (result == 0)
        replica->bucket_rates[buckets->cls.id] = options->rate;
    return result;
}

/* SM_E_AGAIN: earlier packets of other replicas have a say; only if patient. Others as sm_buckets_take(). */
static int ask(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint32_t cost, uint64_t low,
               bool patient)
{
    const struct sm_bucket_rate *rate = rate_of(replica, cls);
    enum sm_bucket_verdict verdict;
    struct sm_shared_bucket *shared;
    struct sm_bucket_debit debit;
    sm_flow flow = sm_flow_get(replica, cls, packet, 0);

    if (!flow.state && sm_flow_create(replica, cls, packet, 0, &flow, NULL) < 0)
        return SM_E_NO_MEMORY;
    shared = flow.state;
    if (shared->capacity == 0) /* zeroed: nobody has been here before */
        sm_shared_bucket_init(shared, rate, low < packet->time ? low : packet->time, spans_of(replica, cls));
    verdict = sm_shared_bucket_take(shared, rate, low, packet->time, cost, patient, &debit);
    if (verdict == SM_BUCKET_HAS && replica->classes[cls.id].partitioned)
        sm_flow_timer_set(replica, cls, flow, TIMER_FULL, (sm_time){sm_bucket_full_at(&shared->bucket, rate)});
    else if (verdict == SM_BUCKET_HAS)
        sm_flow_escrow(replica, cls, flow, &debit, sizeof debit);
    sm_flow_put(replica, cls, flow);
    return verdict == SM_BUCKET_HAS ? 0 : verdict == SM_BUCKET_LACKS ? SM_E_LIMIT : SM_E_AGAIN;
}

int sm_buckets_take(struct sm_replica *replica, sm_buckets buckets, const struct sm_packet *packet, uint32_t cost)
{
    const struct sm_bucket_rate *rate = rate_of(replica, buckets.cls);
    uint64_t low;
    int result;

    if (cost + rate->reserve > rate->burst)
        return SM_E_LIMIT; /* no bucket is made for that */
    low = replica->classes[buckets.cls.id].partitioned ? packet->time : sm_shared_low(replica).ns;
    result = ask(replica, buckets.cls, packet, cost, low, true);
    if (result != SM_E_AGAIN)
        return result;
    sm_shared_wait(replica, packet);
    return ask(replica, buckets.cls, packet, cost, packet->time, false);
}

uint64_t sm_buckets_level(struct sm_replica *replica, sm_buckets buckets, const struct sm_packet *packet)
{
    const struct sm_bucket_rate *rate = rate_of(replica, buckets.cls);
    sm_flow flow = sm_flow_get(replica, buckets.cls, packet, 0);
    uint64_t level;

    if (!flow.state)
        return rate->burst;
    level = sm_shared_bucket_level(flow.state, rate, packet->time);
    sm_flow_put(replica, buckets.cls, flow);
    return level;
}
