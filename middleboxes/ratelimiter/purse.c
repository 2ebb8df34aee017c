/* SPDX-License-Identifier: BSD-2-Clause */
#include "purse.h"

#include <assert.h>

#ifndef PURSE_PART
#define PURSE_PART 256u  /* of the burst: the room */
#define PURSE_PACKETS 4u /* of a packet's cost that the room must hold, or the packet asks the bucket */
#endif

static uint64_t room_of(const struct sm_bucket_rate *rate)
{
    return rate->burst / PURSE_PART;
}

bool purse_serves(const struct purse *purse, const struct sm_bucket_rate *rate, uint64_t now, uint32_t cost)
{
    return (uint64_t)cost * PURSE_PACKETS <= room_of(rate) && now >= purse->time;
}

enum sm_bucket_verdict purse_take(struct purse *purse, uint64_t now, uint32_t cost)
{
    assert(now >= purse->time);
    if (purse->tokens < cost)
        return now < purse->dry_until ? SM_BUCKET_LACKS : SM_BUCKET_UNCERTAIN;
    purse->tokens -= cost;
    purse->time = now;
    return SM_BUCKET_HAS;
}

/*
 * Take from a bucket that is to have one more holder. What is settled was judged with the larger burst; the rest has to
 * fit the smaller one, or nothing changes.
 */
static enum sm_bucket_verdict join(struct sm_shared_bucket *shared, const struct sm_bucket_rate *before,
                                   const struct sm_bucket_rate *after, uint64_t low, uint64_t now, uint32_t cost,
                                   bool patient, struct sm_bucket_debit *debit)
{
    enum sm_bucket_verdict verdict = sm_shared_bucket_take(shared, before, low, now, 0, patient, debit);

    if (verdict != SM_BUCKET_HAS)
        return verdict;
    const struct sm_bucket bucket = shared->bucket;
    if (bucket.level > after->burst * SM_BUCKET_UNIT)
        shared->bucket.level = after->burst * SM_BUCKET_UNIT;
    verdict = sm_shared_bucket_take(shared, after, low, now, cost, patient, debit);
    if (verdict != SM_BUCKET_HAS)
        shared->bucket = bucket;
    return verdict;
}

enum sm_bucket_verdict purse_fill(struct purse *purse, unsigned slot, struct sm_shared_bucket *shared,
                                  uint64_t *holders, const struct sm_bucket_rate *rate, uint64_t low, uint64_t now,
                                  uint32_t cost, bool patient, struct sm_bucket_debit *debit)
{
    const uint64_t all = *holders | 1ull << slot, room = room_of(rate), fill = room - purse->tokens;
    const struct sm_bucket_rate before = purse_rate(rate, *holders), after = purse_rate(rate, all);
    enum sm_bucket_verdict verdict =
        all == *holders ? sm_shared_bucket_take(shared, &after, low, now, (uint32_t)fill, patient, debit)
                        : join(shared, &before, &after, low, now, (uint32_t)fill, patient, debit);

    if (verdict == SM_BUCKET_LACKS)
        purse->dry_until = now + fill * SM_BUCKET_UNIT / rate->rate; /* the room: at most 2^22 */
    if (verdict != SM_BUCKET_HAS)
        return verdict;
    *holders = all;
    purse->tokens = room - cost;
    purse->time = now;
    return SM_BUCKET_HAS;
}

void purse_give_back(struct purse *purse, uint32_t cost)
{
    purse->tokens += cost;
}

struct sm_bucket_rate purse_rate(const struct sm_bucket_rate *rate, uint64_t holders)
{
    struct sm_bucket_rate left = *rate;

    left.burst -= (uint64_t)__builtin_popcountll(holders) * room_of(rate);
    return left;
}
