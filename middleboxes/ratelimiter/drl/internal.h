/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DRL_INTERNAL_H
#define RATELIMITER_DRL_INTERNAL_H

#include "drl/drl.h"
#include "drl/flows.h"
#include "drl/gossip.h"
#include "drl/pool.h"

#define DRL_SAMPLED_FLOWS 16u /* FPS looks for the fastest flow among so many */

/* A token bucket that refills by the clock. */
struct drl_bucket {
    double level;
    uint64_t time;
};

/* A rate, smoothed: what is older than a second counts a tenth. */
struct drl_rate {
    double bytes; /* since the last estimate */
    double rate;
};

struct drl_sample {
    uint64_t flow;
    struct drl_rate rate;
    bool used;
};

struct drl {
    struct drl_options options;
    struct gossip gossip;
    struct pool *pool; /* of DRL_POOL alone, which does not gossip */
    uint64_t last;     /* the last interval's end */
    uint64_t random;
    struct drl_rate arrived, passed;
    struct drl_bucket bucket;
    double local;  /* the rate at which the bucket is filled */
    double remote; /* the others' sum, as of the last interval */
    double drop;   /* probability (GRD) */
    double weight; /* flows' worth of demand (FPS) */
    bool limited;  /* at the last interval, demand reached what was allowed (FPS) */
    struct drl_sample sample[DRL_SAMPLED_FLOWS];
};

/* A mode: whether a packet conforms; the end of an interval: set what is allowed, and return what others are told. */
struct drl_ops {
    bool (*packet)(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes);
    double (*interval)(struct drl *drl, double seconds);
};

extern const struct drl_ops drl_split, drl_gtb, drl_grd, drl_fps;

/* FPS looks for the fastest flow: some of it has arrived. */
void fps_account(struct drl *drl, uint64_t flow, uint32_t bytes);

/* Fill by `rate`, then take if it is there. */
bool drl_bucket_take(struct drl_bucket *bucket, double rate, double burst, uint64_t now, uint32_t bytes);

/* Take the bytes since the last estimate in. */
void drl_rate_estimate(struct drl_rate *rate, double seconds);

/* Uniform in [0, 1). */
double drl_random(struct drl *drl);

#endif
