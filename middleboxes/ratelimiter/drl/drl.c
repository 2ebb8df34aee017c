/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/drl.h"

#include <math.h>
#include <stdlib.h>

#include "drl/internal.h"

#define OLD_AFTER_A_SECOND 0.1

const char *const drl_mode_names[DRL_MODES] = {
    [DRL_SPLIT] = "split", [DRL_GTB] = "gtb", [DRL_GRD] = "grd", [DRL_FPS] = "fps", [DRL_POOL] = "pool"};

static const struct drl_ops *const modes[DRL_MODES] = {
    [DRL_SPLIT] = &drl_split, [DRL_GTB] = &drl_gtb, [DRL_GRD] = &drl_grd, [DRL_FPS] = &drl_fps};

struct drl *drl_create(const struct drl_options *options, uint64_t now)
{
    bool valid = options->mode < DRL_MODES && options->rate > 0 && options->burst > 0 && options->interval_ns > 0 &&
                 options->limiters >= 1 && options->limiters <= DRL_MAX_LIMITERS && options->self < options->limiters &&
                 options->fanout <= DRL_MAX_FANOUT && options->seed != 0;
    struct drl *drl = valid ? calloc(1, sizeof *drl) : NULL;

    if (!drl)
        return NULL;
    drl->options = *options;
    drl->last = drl->bucket.time = now;
    drl->bucket.level = options->burst;
    drl->random = options->seed;
    drl->local = options->rate / options->limiters;
    bool made = options->mode == DRL_POOL
                    ? pool_create(drl, now)
                    : gossip_init(&drl->gossip, options->limiters, options->self, options->fanout);
    if (!made) {
        free(drl);
        return NULL;
    }
    return drl;
}

void drl_destroy(struct drl *drl)
{
    if (!drl)
        return;
    gossip_free(&drl->gossip);
    pool_destroy(drl->pool);
    free(drl);
}

bool drl_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes)
{
    bool conforms;

    if (drl->options.mode == DRL_POOL)
        return pool_packet(drl, now, flow, bytes);
    drl->arrived.bytes += bytes;
    conforms = modes[drl->options.mode]->packet(drl, now, flow, bytes);
    drl->passed.bytes += conforms ? bytes : 0;
    return conforms;
}

void drl_account(struct drl *drl, uint64_t now, uint64_t key, uint32_t bytes)
{
    if (drl->options.mode == DRL_POOL)
        pool_account(drl, now, key, bytes);
    else if (drl->options.mode == DRL_FPS)
        fps_account(drl, key, bytes);
}

void drl_account_passed(struct drl *drl, double arrived, double passed)
{
    drl->arrived.bytes += arrived;
    drl->passed.bytes += passed;
    if (drl->options.mode == DRL_POOL)
        pool_account_passed(drl, arrived, passed);
}

void drl_allowance(const struct drl *drl, struct drl_allowance *allowance)
{
    *allowance =
        (struct drl_allowance){.rate = drl->local, .depth = drl->options.burst, .drop = drl->drop, .part = INFINITY};
    if (drl->options.mode == DRL_POOL)
        pool_allowance(drl, allowance);
    else if (drl->options.mode == DRL_GRD)
        allowance->depth = INFINITY;
}

double drl_sent(const struct drl *drl, uint64_t key)
{
    return drl->options.mode == DRL_POOL ? pool_sent(drl, key) : 0;
}

void drl_forget(struct drl *drl, unsigned limiter)
{
    if (limiter >= drl->options.limiters)
        return;
    if (drl->options.mode == DRL_POOL)
        pool_forget(drl, limiter);
    else
        gossip_forget(&drl->gossip, limiter);
}

unsigned drl_interval(struct drl *drl, uint64_t now, uint32_t *to, struct drl_update *update)
{
    double seconds = (double)(now - drl->last) / 1e9;

    if (seconds <= 0)
        return 0;
    drl->last = now;
    if (drl->options.mode == DRL_POOL)
        pool_count(drl, now);
    drl_rate_estimate(&drl->arrived, seconds);
    drl_rate_estimate(&drl->passed, seconds);
    if (drl->options.mode == DRL_POOL)
        return pool_interval(drl, now, seconds, to, update);
    drl->remote = gossip_remote(&drl->gossip);
    double own = modes[drl->options.mode]->interval(drl, seconds);
    return drl->options.mode == DRL_SPLIT ? 0 : gossip_tell(&drl->gossip, own, &drl->random, to, update);
}

bool drl_receive(struct drl *drl, uint64_t now, const struct drl_update *update, struct drl_update *reply,
                 unsigned *replies)
{
    bool sound = update->from < drl->options.limiters && update->from != drl->options.self;

    *replies = 0;
    for (unsigned i = 0; i < sizeof update->value / sizeof *update->value; i++)
        sound &= isfinite(update->value[i]) != 0;
    if (!sound || (drl->options.mode == DRL_POOL) != (update->kind != DRL_SUM))
        return false;
    if (drl->options.mode == DRL_POOL)
        return pool_receive(drl, now, update, reply, replies);
    return gossip_hear(&drl->gossip, update);
}

struct drl_bound drl_bound(const struct drl_options *options)
{
    double count = options->limiters, depths = count * options->burst;

    switch (options->mode) {
    case DRL_SPLIT:
        return (struct drl_bound){.rate = options->rate, .bytes = depths};
    case DRL_POOL:
        return (struct drl_bound){.rate = options->rate, .bytes = pool_overuse(options)};
    case DRL_GRD:
        return (struct drl_bound){.rate = count * options->rate, .bytes = INFINITY};
    default:
        return (struct drl_bound){.rate = count * options->rate, .bytes = depths};
    }
}

double drl_allowed(const struct drl *drl)
{
    return drl->options.mode == DRL_GRD ? drl->arrived.rate * (1 - drl->drop) : drl->local;
}

bool drl_bucket_take(struct drl_bucket *bucket, double rate, double burst, uint64_t now, uint32_t bytes)
{
    bucket->level += rate * (double)(now - bucket->time) / 1e9;
    bucket->time = now;
    if (bucket->level > burst)
        bucket->level = burst;
    if (bucket->level < bytes)
        return false;
    bucket->level -= bytes;
    return true;
}

void drl_rate_estimate(struct drl_rate *rate, double seconds)
{
    double keep = pow(OLD_AFTER_A_SECOND, seconds);

    rate->rate = keep * rate->rate + (1 - keep) * rate->bytes / seconds;
    rate->bytes = 0;
}

double drl_random(struct drl *drl)
{
    drl->random ^= drl->random >> 12;
    drl->random ^= drl->random << 25;
    drl->random ^= drl->random >> 27;
    return (double)(drl->random * 2685821657736338717ull >> 11) / 9007199254740992.0;
}
