/* SPDX-License-Identifier: BSD-2-Clause */
#include "pair.h"

static bool apart(const struct allowance *allowed)
{
    return allowed->own.rate > 0;
}

void pair_init(struct bucket *bucket, const struct allowance *allowed, uint64_t now)
{
    bucket_init(&bucket[0], &allowed->rate, now);
    if (apart(allowed))
        bucket_init(&bucket[1], &allowed->own, now);
}

bool pair_has(const struct bucket *bucket, const struct allowance *allowed, uint64_t now, uint32_t cost, bool *within)
{
    *within = !apart(allowed) || bucket_has(&bucket[1], &allowed->own, now, cost);
    return bucket_has(&bucket[0], &allowed->rate, now, cost);
}

bool pair_full_has(const struct allowance *allowed, uint32_t cost, bool *within)
{
    *within = !apart(allowed) || cost + allowed->own.reserve <= allowed->own.burst;
    return cost + allowed->rate.reserve <= allowed->rate.burst;
}

void pair_take(struct bucket *bucket, const struct allowance *allowed, uint64_t now, uint32_t cost, bool within)
{
    bucket_take(&bucket[0], &allowed->rate, now, cost);
    if (apart(allowed) && within)
        bucket_take(&bucket[1], &allowed->own, now, cost);
}

uint64_t pair_full_at(const struct bucket *bucket, const struct allowance *allowed)
{
    uint64_t first = bucket_full_at(&bucket[0], &allowed->rate);
    uint64_t second = apart(allowed) ? bucket_full_at(&bucket[1], &allowed->own) : 0;

    return first > second ? first : second;
}

enum shared_verdict shared_pair_take(struct shared_bucket *first, struct shared_bucket *second,
                                     const struct allowance *allowed, uint64_t low, uint64_t now, uint32_t cost,
                                     bool patient, struct pair_debit *debit, bool *within)
{
    enum shared_verdict verdict = shared_take(first, &allowed->rate, low, now, cost, patient, &debit->of[0]);

    *within = true;
    debit->of[1] = (struct shared_debit){0};
    if (verdict != SHARED_HAS || !apart(allowed))
        return verdict;
    verdict = shared_take(second, &allowed->own, low, now, cost, patient, &debit->of[1]);
    if (verdict == SHARED_UNCERTAIN)
        shared_undo(first, &allowed->rate, &debit->of[0]);
    if (verdict != SHARED_HAS)
        debit->of[1] = (struct shared_debit){0};
    *within = verdict == SHARED_HAS;
    return verdict == SHARED_UNCERTAIN ? verdict : SHARED_HAS;
}

void shared_pair_undo(struct shared_bucket *first, struct shared_bucket *second, const struct allowance *allowed,
                      const struct pair_debit *debit)
{
    shared_undo(first, &allowed->rate, &debit->of[0]);
    if (debit->of[1].amount > 0)
        shared_undo(second, &allowed->own, &debit->of[1]);
}
