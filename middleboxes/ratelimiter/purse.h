/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_PURSE_H
#define RATELIMITER_PURSE_H

/*
 * A replica's purse of a bucket that all replicas share: tokens taken ahead, many packets' worth at a time, so that
 * most packets touch nothing that others write. Pure.
 *
 * Overview.  A purse has room for a small part of the bucket's burst. A packet takes from the purse what it costs;
 * where that is not there the purse is filled from the bucket, by one debit at the packet's time. When the bucket lacks
 * that much, packets are refused without asking until it will have gained it. Packets that are large against the room,
 * and those that come late, ask the bucket itself.
 *
 * Life-cycle.  A replica's first fill makes it a holder, for as long as the bucket lives: a bit by the replica's
 * number, which another one takes over with it. A purse dies with its replica, and what was in it is lost: less passes.
 * What it was filled with for a packet that was not committed goes back as any debit does; all packets that took of it
 * come after that one, and are not committed either.
 *
 * Concurrency.  The purse is the replica's own; bucket and holders are written under the lock of their flow.
 *
 * Claim.  Over every interval of packet time the conforming packets cost at most rate x t + burst.
 *
 * Proof.  The bucket is run with its burst less one room for each holder. Let X be the level of that run, the fills
 * debited, and O what is in the purses, at a packet time. Then X + O <= burst: a fill moves tokens from X to O, a
 * packet lowers O, and refill leaves X at no more than the burst less the rooms, while each purse holds no more than
 * its room. So the full bucket T, from which packets take when they take from X or a purse, has X + O at least: refill
 * adds no less to it, since X + O never exceeds what it is capped at. X and O are not negative, so T is not (bucket.c:
 * the claim holds exactly then). O is by packet time, so nothing is put in or taken at a time before the purse's last.
 * [] A bucket that gets a holder is run over all debits that it keeps with the smaller burst; if these do not fit, the
 * fill is refused. A packet late for its purse asks the bucket, as if there were none.
 */

#include <splitmerge/bucket.h>

/* All zero: empty, and never filled. */
struct purse {
    uint64_t tokens;    /* bytes or packets */
    uint64_t time;      /* packet time of the last change */
    uint64_t dry_until; /* the bucket lacks a fill until then */
};

/* Whether packets of this cost at this time go by the purse. */
bool purse_serves(const struct purse *purse, const struct sm_bucket_rate *rate, uint64_t now, uint32_t cost);

/*
 * Ask a purse that serves the packet. SM_BUCKET_HAS: it is taken; SM_BUCKET_LACKS: refused; SM_BUCKET_UNCERTAIN: it is
 * to be filled first.
 */
enum sm_bucket_verdict purse_take(struct purse *purse, uint64_t now, uint32_t cost);

/* Fill it, as replica number `slot`, below 64, and take; as sm_shared_bucket_take(), *debit being the fill. */
enum sm_bucket_verdict purse_fill(struct purse *purse, unsigned slot, struct sm_shared_bucket *shared,
                                  uint64_t *holders, const struct sm_bucket_rate *rate, uint64_t low, uint64_t now,
                                  uint32_t cost, bool patient, struct sm_bucket_debit *debit);

/* The packet that took this last is dropped for another reason. */
void purse_give_back(struct purse *purse, uint32_t cost);

/* What a bucket with these holders is run with by whoever asks it. */
struct sm_bucket_rate purse_rate(const struct sm_bucket_rate *rate, uint64_t holders);

#endif
