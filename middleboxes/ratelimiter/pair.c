/* SPDX-License-Identifier: BSD-2-Clause */
#include "pair.h"

static bool apart(const struct allowance *allowed)
{
    return allowed->own.rate > 0;
}

void pair_init(struct sm_bucket *bucket, const struct allowance *allowed, uint64_t now)
{
    sm_bucket_init(&bucket[0], &allowed->rate, now);
    if (apart(allowed))
        sm_bucket_init(&bucket[1], &allowed->own, now);
}

bool pair_has(const struct sm_bucket *bucket, const struct allowance *allowed, uint64_t now, uint32_t cost,
              bool *within)
{
    *within = !apart(allowed) || sm_bucket_has(&bucket[1], &allowed->own, now, cost);
    return sm_bucket_has(&bucket[0], &allowed->rate, now, cost);
}

bool pair_full_has(const struct allowance *allowed, uint32_t cost, bool *within)
{
    *within = !apart(allowed) || cost + allowed->own.reserve <= allowed->own.burst;
    return cost + allowed->rate.reserve <= allowed->rate.burst;
}

void pair_take(struct sm_bucket *bucket, const struct allowance *allowed, uint64_t now, uint32_t cost, bool within)
{
    sm_bucket_take(&bucket[0], &allowed->rate, now, cost);
    if (apart(allowed) && within)
        sm_bucket_take(&bucket[1], &allowed->own, now, cost);
}

uint64_t pair_full_at(const struct sm_bucket *bucket, const struct allowance *allowed)
{
    uint64_t first = sm_bucket_full_at(&bucket[0], &allowed->rate);
    uint64_t second = apart(allowed) ? sm_bucket_full_at(&bucket[1], &allowed->own) : 0;

    return first > second ? first : second;
}

enum sm_bucket_verdict shared_pair_take(struct sm_shared_bucket *first, struct sm_shared_bucket *second,
                                        const struct allowance *allowed, uint64_t low, uint64_t now, uint32_t cost,
                                        bool patient, struct pair_debit *debit, bool *within)
{
    enum sm_bucket_verdict verdict =
        sm_shared_bucket_take(first, &allowed->rate, low, now, cost, patient, &debit->of[0]);

    *within = true;
    debit->of[1] = (struct sm_bucket_debit){0};
    if (verdict != SM_BUCKET_HAS || !apart(allowed))
        return verdict;
    verdict = sm_shared_bucket_take(second, &allowed->own, low, now, cost, patient, &debit->of[1]);
    if (verdict == SM_BUCKET_UNCERTAIN)
        sm_shared_bucket_undo(first, &allowed->rate, &debit->of[0]);
    if (verdict != SM_BUCKET_HAS)
        debit->of[1] = (struct sm_bucket_debit){0};
    *within = verdict == SM_BUCKET_HAS;
    return verdict == SM_BUCKET_UNCERTAIN ? verdict : SM_BUCKET_HAS;
}

void shared_pair_undo(struct sm_shared_bucket *first, struct sm_shared_bucket *second, const struct allowance *allowed,
                      const struct pair_debit *debit)
{
    sm_shared_bucket_undo(first, &allowed->rate, &debit->of[0]);
    if (debit->of[1].amount > 0)
        sm_shared_bucket_undo(second, &allowed->own, &debit->of[1]);
}
