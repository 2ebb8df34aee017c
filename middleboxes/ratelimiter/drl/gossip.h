/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DRL_GOSSIP_H
#define RATELIMITER_DRL_GOSSIP_H

/*
 * The sum of a value over all limiters, by updates that may be lost, late, repeated or out of order.
 *
 * Full mesh, where the fan-out reaches everybody: each tells each its value, and the sum is that of the last ones
 * heard.
 *
 * Gossip, where it does not: push-sum (Kempe, Dobra, Gehrke, FOCS 2003). Each limiter has a mass of value and weight,
 * first its own value and 1; at the end of an interval it keeps one share and gives one to each of `fanout` random
 * peers. value / weight goes towards the average everywhere, and a change of the own value is added to the mass. An
 * update says how much mass the sender has given to this peer in all, and the receiver takes what it has not taken yet:
 * so mass that is lost on the way comes with the next update, and repeated or late ones do nothing. (The paper scales
 * the next update by the number that were missed; what is lost while values change then stays wrong for ever.)
 *
 * A limiter that hears nothing keeps what it heard last: a mass that is not exchanged stays in proportion.
 */

#include <stdbool.h>
#include <stdint.h>

struct drl_update;

struct gossip_peer {
    uint32_t sent, heard;             /* sequences */
    double value, weight;             /* heard last */
    double given_value, given_weight; /* gossip: to it, in all */
};

struct gossip {
    unsigned limiters, self, fanout;
    bool mesh;
    double own; /* as told last */
    double value, weight;
    struct gossip_peer *peers;
};

bool gossip_init(struct gossip *gossip, unsigned limiters, unsigned self, unsigned fanout);
void gossip_free(struct gossip *gossip);

/* The others' sum. */
double gossip_remote(const struct gossip *gossip);

/* The own value is now `own`: shares for some peers, picked by *random. Returns how many. */
unsigned gossip_tell(struct gossip *gossip, double own, uint64_t *random, uint32_t *to, struct drl_update *update);

/* A peer has begun anew. What it said last holds until it says more; masses are counted from the beginning. */
void gossip_forget(struct gossip *gossip, unsigned peer);

bool gossip_hear(struct gossip *gossip, const struct drl_update *update);

#endif
