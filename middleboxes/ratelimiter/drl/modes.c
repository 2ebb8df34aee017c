/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The paper's four ways of sharing a limit, section 3 and 4 there.
 *
 *         packet                                   end of an interval, told to the others
 *   split bucket of rate/N                         nothing
 *   GTB   bucket of (rate - what the others pass)  what passed here, a second
 *   GRD   dropped with probability                 what arrived here, a second
 *         (demand - rate) / demand
 *   FPS   bucket of this limiter's share           how many flows' worth of demand is here
 */

#include <math.h>

#include "drl/internal.h"

#define RESAMPLE 0.03        /* how probably a packet's flow takes the place of the slowest in a full sample */
#define QUIET 100.0          /* bytes a second: less is nobody */
#define FIRST_PACKETS 3000.0 /* bytes that are let through where nobody was */
#define HYSTERESIS 0.03      /* of what is allowed, by which demand must pass it to be limited, or no longer */
#define WEIGHT_LEAST 0.003   /* of its flows' worth: or the weights of several that are not limited vanish together */
#define REGIME_DAMPING 0.5   /* of a weight, when FPS goes from one way of finding it to the other */

static bool take_locally(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes)
{
    (void)flow;
    return drl_bucket_take(&drl->bucket, drl->local, drl->options.burst, now, bytes);
}

static double split_interval(struct drl *drl, double seconds)
{
    (void)drl, (void)seconds;
    return 0;
}

const struct drl_ops drl_split = {.packet = take_locally, .interval = split_interval};

static double gtb_interval(struct drl *drl, double seconds)
{
    (void)seconds;
    drl->local = drl->remote < drl->options.rate ? drl->options.rate - drl->remote : 0;
    return drl->passed.rate;
}

const struct drl_ops drl_gtb = {.packet = take_locally, .interval = gtb_interval};

static bool grd_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes)
{
    (void)now, (void)flow, (void)bytes;
    return drl->drop == 0 || drl_random(drl) >= drl->drop;
}

static double grd_interval(struct drl *drl, double seconds)
{
    double demand = drl->arrived.rate + drl->remote, rate = drl->options.rate;

    (void)seconds;
    drl->drop = demand > rate ? (demand - rate) / demand : 0;
    return drl->arrived.rate;
}

const struct drl_ops drl_grd = {.packet = grd_packet, .interval = grd_interval};

/* The sample holds the fastest flows: whoever is seen often is tried often, in the place of the slowest. */
void fps_account(struct drl *drl, uint64_t flow, uint32_t bytes)
{
    struct drl_sample *slowest = drl->sample;

    for (unsigned i = 0; i < DRL_SAMPLED_FLOWS; i++) {
        struct drl_sample *s = &drl->sample[i];
        if (s->used && s->flow == flow) {
            s->rate.bytes += bytes;
            return;
        }
        if (!s->used || (slowest->used && s->rate.rate + s->rate.bytes < slowest->rate.rate + slowest->rate.bytes))
            slowest = s;
    }
    if (slowest->used && drl_random(drl) >= RESAMPLE)
        return;
    *slowest = (struct drl_sample){.flow = flow, .rate.bytes = bytes, .used = true};
}

static bool fps_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes)
{
    fps_account(drl, flow, bytes);
    return take_locally(drl, now, flow, bytes);
}

static double fastest_flow(struct drl *drl, double seconds)
{
    double fastest = 0;

    for (unsigned i = 0; i < DRL_SAMPLED_FLOWS; i++) {
        if (!drl->sample[i].used)
            continue;
        drl_rate_estimate(&drl->sample[i].rate, seconds);
        if (drl->sample[i].rate.rate > fastest)
            fastest = drl->sample[i].rate.rate;
    }
    return fastest;
}

/*
 * Figure 7 of the paper, with one bound more. Whoever is not limited gets no less for a flow than the others do, so its
 * flows, each no faster than the fastest, are worth demand / fastest at most; without that bound the weights of two
 * limiters that both have near the whole limit drive each other up without end.
 */
static double fps_interval(struct drl *drl, double seconds)
{
    double rate = drl->options.rate, demand = drl->arrived.rate, fastest = fastest_flow(drl, seconds), ideal = 0;
    bool limited = demand >= drl->local * (drl->limited ? 1 - HYSTERESIS : 1 + HYSTERESIS);

    if (fastest > 0 && limited) {
        /* What has been let through stands in for an allowance of nothing, which would stay nothing. */
        ideal = fmin(fmax(drl->local, drl->passed.rate), demand) / fastest;
    } else if (fastest > 0) {
        ideal = demand / fastest;
        if (drl->remote > 0 && demand < rate)
            ideal = fmin(ideal, fmax(demand * drl->remote / (rate - demand), WEIGHT_LEAST * ideal));
    }
    drl->weight = limited == drl->limited ? ideal : drl->weight + REGIME_DAMPING * (ideal - drl->weight);
    drl->limited = limited;
    double all = drl->remote + drl->weight;
    drl->local = all > 0 ? drl->weight * rate / all : rate / drl->options.limiters;
    /* Nobody is here: the next flow's first packets get through, though the bucket is filled at nothing. */
    if (demand < QUIET && drl->bucket.level < FIRST_PACKETS)
        drl->bucket.level = fmin(FIRST_PACKETS, drl->options.burst);
    return drl->weight;
}

const struct drl_ops drl_fps = {.packet = fps_packet, .interval = fps_interval};
