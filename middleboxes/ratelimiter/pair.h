/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_PAIR_H
#define RATELIMITER_PAIR_H

/*
 * The buckets of a limit in a hierarchy. Pure.
 *
 * The first bucket is the most that the limit lets through: its `ceil` or, where it has none, its `rate`. A limit with
 * a ceil has a second one, its guarantee, at `rate`. A packet that the first has tokens for conforms to the limit. If
 * the second has tokens as well, or there is none, it is *within* the limit's guarantee, and takes from both; else it
 * borrows, takes from the first alone, and asks the parent as a borrower.
 *
 * Of a parent a borrower must leave the *reserve*: as many tokens as the bursts of its children come to. So:
 *
 * Guarantee.  Let a bucket be filled at rate R, and the packets that come within their guarantee from children of rates
 * r1, r2... and bursts b1, b2..., with r1 + r2 + ... <= R and b1 + b2 + ... <= reserve. Then none of these is ever
 * refused. Proof.  Let s be the last moment, up to t, at which the bucket held the reserve or more (it starts full; a
 * borrower leaves that much). After s only packets within guarantees took, at most (r1 + ...) (t - s) + b1 + ...
 * together, of no less than reserve + R (t - s), unless it was full meanwhile, and then it held the reserve later than
 * s. What is left is not negative, so the last of them had its tokens. []
 *
 * What remains, of the parent's rate and its burst beyond the reserve, is taken by whoever of the borrowers comes
 * first.
 */

#include <splitmerge/bucket.h>

/* What one limit, or one prefix of it, allows. */
struct allowance {
    struct sm_bucket_rate rate; /* the most */
    struct sm_bucket_rate own;  /* the guarantee; rate 0: there is none apart */
};

/* bucket[0], and bucket[1] where there is a guarantee apart; the record of a partitioned class. */
void pair_init(struct sm_bucket *bucket, const struct allowance *allowed, uint64_t now);

/* Whether a packet conforms at `now`, and in *within whether within the guarantee. Changes nothing. */
bool pair_has(const struct sm_bucket *bucket, const struct allowance *allowed, uint64_t now, uint32_t cost,
              bool *within);

/* The same for buckets that are not there, as they are full. */
bool pair_full_has(const struct allowance *allowed, uint32_t cost, bool *within);

/* Take what pair_has() said was there. */
void pair_take(struct sm_bucket *bucket, const struct allowance *allowed, uint64_t now, uint32_t cost, bool within);

/* The time from which on all are full, if nothing is taken. */
uint64_t pair_full_at(const struct sm_bucket *bucket, const struct allowance *allowed);

/* What a shared pair was debited; one of 0 units gives nothing back. */
struct pair_debit {
    struct sm_bucket_debit of[2];
};

/* As sm_shared_bucket_take(), of both: `second` is not used where there is no guarantee apart. On SM_BUCKET_HAS *within
 * is set. */
enum sm_bucket_verdict shared_pair_take(struct sm_shared_bucket *first, struct sm_shared_bucket *second,
                                        const struct allowance *allowed, uint64_t low, uint64_t now, uint32_t cost,
                                        bool patient, struct pair_debit *debit, bool *within);

void shared_pair_undo(struct sm_shared_bucket *first, struct sm_shared_bucket *second, const struct allowance *allowed,
                      const struct pair_debit *debit);

#endif
