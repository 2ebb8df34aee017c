/* SPDX-License-Identifier: BSD-2-Clause */
#include <splitmerge/bucket.h>

#include <assert.h>
#include <string.h>

typedef unsigned __int128 wide;

static uint64_t full_level(const struct sm_bucket_rate *rate)
{
    return rate->burst * SM_BUCKET_UNIT;
}

/* `level` after `elapsed` ns, capped at the burst. */
static uint64_t refill(const struct sm_bucket_rate *rate, uint64_t level, uint64_t elapsed)
{
    wide sum = (wide)rate->rate * elapsed + level;

    return sum > full_level(rate) ? full_level(rate) : (uint64_t)sum;
}

/* Move the bucket's time to `to`, if that is forward. */
static void advance(struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t to)
{
    if (to <= bucket->time)
        return;
    bucket->level = refill(rate, bucket->level, to - bucket->time);
    bucket->time = to;
}

/* The time at which `missing` units have been gained since `from`; UINT64_MAX where that is beyond all times. */
static uint64_t when_gained(const struct sm_bucket_rate *rate, uint64_t from, uint64_t missing)
{
    uint64_t wait = missing / rate->rate + (missing % rate->rate != 0);

    return wait > UINT64_MAX - from ? UINT64_MAX : from + wait;
}

void sm_bucket_init(struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now)
{
    assert(rate->rate >= 1 && rate->rate <= SM_BUCKET_MAX_RATE);
    assert(rate->burst >= 1 && rate->burst <= SM_BUCKET_MAX_BURST);
    *bucket = (struct sm_bucket){.level = full_level(rate), .time = now};
}

bool sm_bucket_has(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now, uint32_t cost)
{
    struct sm_bucket later = *bucket;

    if (cost + rate->reserve > rate->burst)
        return false;
    advance(&later, rate, now);
    return later.level >= (cost + rate->reserve) * SM_BUCKET_UNIT;
}

uint64_t sm_bucket_departure(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now,
                             uint32_t cost)
{
    struct sm_bucket later = *bucket;

    if (cost > rate->burst)
        return UINT64_MAX;
    advance(&later, rate, now);
    return later.level >= cost * SM_BUCKET_UNIT ? later.time
                                                : when_gained(rate, later.time, cost * SM_BUCKET_UNIT - later.level);
}

uint64_t sm_bucket_level(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now)
{
    struct sm_bucket later = *bucket;

    advance(&later, rate, now);
    return later.level / SM_BUCKET_UNIT;
}

void sm_bucket_take(struct sm_bucket *bucket, const struct sm_bucket_rate *rate, uint64_t now, uint32_t cost)
{
    assert(sm_bucket_has(bucket, rate, now, cost));
    advance(bucket, rate, now);
    bucket->level -= cost * SM_BUCKET_UNIT;
}

uint64_t sm_bucket_full_at(const struct sm_bucket *bucket, const struct sm_bucket_rate *rate)
{
    return when_gained(rate, bucket->time, full_level(rate) - bucket->level);
}

/*
 * Shared buckets.
 *
 * Overview.  The bucket proper stands at a time L that follows `low`: the past, where nothing can come any more. What
 * is taken at later times is kept apart as debits in time order, and a packet conforms when the bucket, run over all
 * debits and the new one in the order of their times, never goes below zero. Packets of a replica that is behind are
 * judged with those of replicas that are ahead. When L reaches a debit it is subtracted.
 *
 * Room.  The number of debits kept is bounded: they are merged into spans. For a span the run must hold its whole sum
 * at its first time already, and subtracts it at its last: early when asking, late when taking. A merged span that is
 * short against the time that fills the bucket, or small against the burst, costs next to nothing; when no such merge
 * is left, the packet is uncertain and its replica waits until L can reach its time, where nothing needs to be kept.
 *
 * Claim.  Over every interval of packet time, the conforming packets (those not given back) cost at most the interval
 * times the rate, plus the burst. For every order of packets, and whatever `low` was.
 *
 * Proof.  The claim holds exactly when T, the bucket run over all conforming packets at their exact times, is nowhere
 * below zero. Let X be the bucket run from (L, level) over the debits in spans, each at its exact time or at L if that
 * is later. Two facts about buckets: more tokens to start with means no fewer at any time; and a debit made later
 * leaves no more tokens from then on (the cap can only cost refill). Invariant: T >= 0 before L; T >= X >= 0 from L on.
 *  - Bring forward, L to L': up to L', T >= X >= 0 as before. Debits are subtracted late, so X only gets lower; and it
 *    stays above zero because the run over spans, which subtracts as late, did: run() asks the same questions.
 *  - Admit at t >= L: T and X get the same debit at the same time, so T >= X still. X >= 0: within a span X is not
 *    below the level that the run has there less the span's whole sum, and that was asked to be >= 0 at its first time.
 *  - A packet with t < L is refused: T before L is settled. So `low` matters for service only, not for the claim.
 *  - Give back, only when t >= L: T and X both lose the debit at its time (at t = L both get the tokens, capped).
 * Spans that are merged, or whose first time is moved up to L, are only asked more of.                              []
 *
 * Of packets that cost the same, any order lets the same number conform: the sets that conform are the independent
 * sets of a matroid (each token is good for a stretch of time), and each refusal is final. Different costs differ a
 * little, as when packing.
 */

/*
 * Run the bucket, from `level` at `at`, over spans. False: it lacks tokens for one of them. *least is the lowest that
 * it comes to.
 */
static bool run(const struct sm_bucket_rate *rate, struct sm_bucket bucket, const struct sm_bucket_span *span,
                uint32_t count, uint64_t *least)
{
    *least = bucket.level;
    for (uint32_t i = 0; i < count; i++) {
        advance(&bucket, rate, span[i].first);
        if (bucket.level < span[i].sum)
            return false;
        if (bucket.level - span[i].sum < *least)
            *least = bucket.level - span[i].sum;
        advance(&bucket, rate, span[i].last);
        bucket.level -= span[i].sum;
    }
    return true;
}

static void remove_spans(struct sm_bucket_span *span, uint32_t *count, uint32_t from, uint32_t removed)
{
    memmove(span + from, span + from + removed, (*count - from - removed) * sizeof(*span));
    *count -= removed;
}

/* The spans, in the memory behind their bucket. */
static struct sm_bucket_span *spans_of(struct sm_shared_bucket *shared)
{
    return (struct sm_bucket_span *)(shared + 1);
}

/* Move L to `to`, if that is forward: subtract the spans that end by then, at their ends. */
static void bring_forward(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate, uint64_t to)
{
    struct sm_bucket_span *span = spans_of(shared);
    uint32_t settled = 0;

    for (; settled < shared->count && span[settled].last <= to; settled++) {
        advance(&shared->bucket, rate, span[settled].last);
        assert(shared->bucket.level >= span[settled].sum);
        shared->bucket.level -= span[settled].sum;
    }
    if (settled > 0)
        remove_spans(span, &shared->count, 0, settled);
    advance(&shared->bucket, rate, to);
    if (shared->count > 0 && span[0].first < shared->bucket.time)
        span[0].first = shared->bucket.time;
}

/* Whether a span so long says nearly what its debits would: it is short against the time that fills the bucket. */
static bool is_short(const struct sm_bucket_rate *rate, uint64_t length, unsigned part)
{
    return (wide)rate->rate * length <= full_level(rate) / part;
}

#define SHORT 64      /* parts of a bucket, that a span may be refilled by and still be no worse than waiting */
#define SHORTEST 1024 /* likewise, and debits are put together without need */

/* Add a debit to the spans. True: it fell into a span that is not short. */
static bool add_debit(const struct sm_bucket_rate *rate, struct sm_bucket_span *span, uint32_t *count, uint64_t now,
                      uint64_t amount)
{
    uint32_t at = *count;

    while (at > 0 && span[at - 1].first > now)
        at--;
    if (at > 0 && (span[at - 1].last >= now || is_short(rate, now - span[at - 1].first, SHORTEST)) &&
        (at == *count || span[at].first > now)) {
        span[at - 1].sum += amount;
        if (span[at - 1].last < now)
            span[at - 1].last = now;
        return !is_short(rate, span[at - 1].last - span[at - 1].first, SHORT);
    }
    memmove(span + at + 1, span + at, (*count - at) * sizeof(*span));
    span[at] = (struct sm_bucket_span){.first = now, .last = now, .sum = amount};
    (*count)++;
    return false;
}

/* Merge the two neighbours that make the shortest span; returns its length. */
static uint64_t merge_nearest(struct sm_bucket_span *span, uint32_t *count)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i + 1 < *count; i++)
        if (span[i + 1].last - span[i].first < span[best + 1].last - span[best].first)
            best = i;
    span[best].last = span[best + 1].last;
    span[best].sum += span[best + 1].sum;
    remove_spans(span, count, best + 1, 1);
    return span[best].last - span[best].first;
}

/* Whether spans that had to be merged still say nearly what the debits said. */
static bool merge_is_cheap(const struct sm_bucket_rate *rate, uint64_t length, uint64_t least)
{
    return is_short(rate, length, SHORT) || least >= full_level(rate) / 16 * 15;
}

/* A packet later than L. */
static enum sm_bucket_verdict take_ahead(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate,
                                         uint64_t now, uint64_t amount, bool patient)
{
    struct sm_bucket_span span[SM_BUCKET_MAX_SPANS + 1];
    uint32_t count = shared->count;
    uint64_t least;
    bool coarse;

    memcpy(span, spans_of(shared), count * sizeof(*span));
    coarse = add_debit(rate, span, &count, now, amount);
    if (!run(rate, shared->bucket, span, count, &least) || least < rate->reserve * SM_BUCKET_UNIT)
        return coarse && patient ? SM_BUCKET_UNCERTAIN : SM_BUCKET_LACKS;
    if (count > shared->capacity) {
        uint64_t length = merge_nearest(span, &count);

        if (!run(rate, shared->bucket, span, count, &least) || least < rate->reserve * SM_BUCKET_UNIT)
            return patient ? SM_BUCKET_UNCERTAIN : SM_BUCKET_LACKS;
        if (patient && !merge_is_cheap(rate, length, least))
            return SM_BUCKET_UNCERTAIN;
    }
    memcpy(spans_of(shared), span, count * sizeof(*span));
    shared->count = count;
    return SM_BUCKET_HAS;
}

void sm_shared_bucket_init(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate, uint64_t now,
                           uint32_t capacity)
{
    assert(capacity >= 1 && capacity <= SM_BUCKET_MAX_SPANS);
    sm_bucket_init(&shared->bucket, rate, now);
    shared->capacity = capacity;
    shared->count = 0;
}

enum sm_bucket_verdict sm_shared_bucket_take(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate,
                                             uint64_t low, uint64_t now, uint32_t cost, bool patient,
                                             struct sm_bucket_debit *debit)
{
    struct sm_bucket taken;
    uint64_t amount, least;

    if (cost + rate->reserve > rate->burst)
        return SM_BUCKET_LACKS;
    bring_forward(shared, rate, low < now ? low : now);
    if (now < shared->bucket.time)
        return SM_BUCKET_LACKS; /* does not happen while `low` keeps its promise */

    amount = cost * SM_BUCKET_UNIT;
    *debit = (struct sm_bucket_debit){.time = now, .amount = amount, .ahead = now > shared->bucket.time && cost > 0};
    if (debit->ahead)
        return take_ahead(shared, rate, now, amount, patient);
    if (shared->bucket.level < amount)
        return SM_BUCKET_LACKS;
    taken = shared->bucket;
    taken.level -= amount;
    if (!run(rate, taken, spans_of(shared), shared->count, &least) || least < rate->reserve * SM_BUCKET_UNIT)
        return SM_BUCKET_LACKS;
    shared->bucket = taken;
    return SM_BUCKET_HAS;
}

enum sm_bucket_verdict sm_shared_bucket_depart(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate,
                                               uint64_t low, uint64_t now, uint32_t cost, uint64_t queue, bool patient,
                                               struct sm_bucket_debit *debit, uint64_t *departure)
{
    if (cost > rate->burst)
        return SM_BUCKET_LACKS;
    if (low < now && patient)
        return SM_BUCKET_UNCERTAIN;
    *departure = sm_bucket_departure(&shared->bucket, rate, now, cost);
    if (*departure > now && *departure - now > queue)
        return SM_BUCKET_LACKS;
    *debit = (struct sm_bucket_debit){.time = now, .amount = cost * SM_BUCKET_UNIT, .departs = true};
    sm_bucket_take(&shared->bucket, rate, *departure, cost);
    return SM_BUCKET_HAS;
}

/*
 * With more tokens, the bucket would have come to have what it has now earlier: that moves its time back, as far as the
 * packet's. When all debits from one on have been given back, in any order, the bucket is as it was before it,
 * but for less than a nanosecond of each that had filled it to the brim.
 */
static void undo_departure(struct sm_bucket *bucket, const struct sm_bucket_rate *rate,
                           const struct sm_bucket_debit *debit)
{
    uint64_t most = bucket->time > debit->time ? bucket->time - debit->time : 0, back;

    bucket->level += debit->amount; /* both are at most a burst: 2^63 */
    back = bucket->level / rate->rate < most ? bucket->level / rate->rate : most;
    bucket->level -= back * rate->rate;
    bucket->time -= back;
    if (bucket->level > full_level(rate))
        bucket->level = full_level(rate);
}

void sm_shared_bucket_undo(struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate,
                           const struct sm_bucket_debit *debit)
{
    struct sm_bucket *bucket = &shared->bucket;

    if (debit->departs) {
        undo_departure(bucket, rate, debit);
        return;
    }
    if (bucket->time > debit->time)
        return; /* does not happen while `low` keeps its promise; what was taken stays taken */
    for (uint32_t i = 0; debit->ahead && i < shared->count; i++) {
        struct sm_bucket_span *span = &spans_of(shared)[i];

        if (span->first > debit->time || span->last < debit->time)
            continue;
        assert(span->sum >= debit->amount);
        span->sum -= debit->amount;
        if (span->sum == 0)
            remove_spans(spans_of(shared), &shared->count, i, 1);
        return;
    }
    bucket->level = full_level(rate) - bucket->level < debit->amount ? full_level(rate) : bucket->level + debit->amount;
}

/* The least that the bucket comes to from `now`, or the span that it is in, on: what a debit there must not exceed. */
uint64_t sm_shared_bucket_level(const struct sm_shared_bucket *shared, const struct sm_bucket_rate *rate, uint64_t now)
{
    struct sm_bucket bucket = shared->bucket;
    const struct sm_bucket_span *span = (const void *)(shared + 1), *end = span + shared->count;
    uint64_t least;

    for (; span < end && span->last < now; span++) {
        advance(&bucket, rate, span->last);
        bucket.level -= span->sum;
    }
    advance(&bucket, rate, span < end && span->first < now ? span->first : now);
    run(rate, bucket, span, (uint32_t)(end - span), &least);
    return least / SM_BUCKET_UNIT;
}

unsigned sm_bucket_fields(struct sm_field *field, uint16_t offset, const char *const *names, const char *unit,
                          uint32_t capacity)
{
    const struct sm_field fields[SM_BUCKET_FIELDS] = {
        {.type = SM_FIELD_UINT,
         .offset = offsetof(struct sm_bucket, level),
         .size = 8,
         .unit = unit,
         .scale = (double)SM_BUCKET_UNIT},
        {.type = SM_FIELD_TIME, .offset = offsetof(struct sm_bucket, time), .size = 8},
        {.type = SM_FIELD_UINT, .offset = offsetof(struct sm_shared_bucket, count), .size = 4},
        {.type = SM_FIELD_OPAQUE, .offset = offsetof(struct sm_shared_bucket, capacity), .size = 4},
        {.type = SM_FIELD_OPAQUE,
         .offset = sizeof(struct sm_shared_bucket),
         .size = (uint16_t)(capacity * sizeof(struct sm_bucket_span))},
    };
    unsigned count = capacity > 0 ? SM_BUCKET_FIELDS : 2;

    for (unsigned i = 0; i < count; i++) {
        field[i] = fields[i];
        field[i].name = names[i];
        field[i].offset = (uint16_t)(field[i].offset + offset);
    }
    return count;
}
