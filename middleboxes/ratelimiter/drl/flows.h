/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DRL_FLOWS_H
#define RATELIMITER_DRL_FLOWS_H

/*
 * The flows that a limiter sees, and how fast each is: what is older than a second counts a tenth. A flow that has
 * stopped, for as long as would be odd at its rate, is forgotten ten times as fast.
 *
 * Limits: DRL_FLOWS at a time, in sets of DRL_FLOW_WAYS. Where a set is full, the slowest makes room: what is faster
 * than others is always known.
 */

#include <stdbool.h>
#include <stdint.h>

#define DRL_FLOWS 1024u
#define DRL_FLOW_WAYS 8u
#define DRL_FLOW_MEMORY 0.43429448 /* seconds, 1 / ln 10: bytes kept of a byte a second */

struct drl_flow {
    uint64_t key;
    uint64_t last; /* its last packet */
    double bytes;  /* of late; 0: a free place */
};

struct drl_flows {
    unsigned count;
    uint16_t live[DRL_FLOWS]; /* places in use */
    struct drl_flow place[DRL_FLOWS];
};

/* So much of flow `key`, which tells flows apart, has come. */
void drl_flows_enter(struct drl_flows *flows, uint64_t key, uint64_t now, uint32_t bytes);

/* NULL: nobody. */
const struct drl_flow *drl_flows_find(const struct drl_flows *flows, uint64_t key);

/* Time passes. */
void drl_flows_fade(struct drl_flows *flows, uint64_t now, double seconds);

/* The most that each may have (in `bytes` of late), so that all have `rate` together; INFINITY: they want less. */
double drl_flows_share(const struct drl_flows *flows, double rate);

/*
 * How many flows' worth of demand this is: (sum of rates)^2 / (sum of squares). n for n equal flows, 1 for an elephant
 * among mice; 0 where nobody is.
 */
double drl_flows_worth(const struct drl_flows *flows);

#endif
