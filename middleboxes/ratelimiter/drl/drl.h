/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DRL_H
#define RATELIMITER_DRL_H

/*
 * Distributed rate limiting: one limit, enforced by limiters on several hosts that tell each other how much they see
 * (Raghavan et al., "Cloud Control with Distributed Rate Limiting", SIGCOMM 2007, section 4).
 *
 * Pure: packets, updates from peers and the ends of intervals come in; verdicts and updates to peers go out. No socket,
 * no clock, no I/O; memory is allocated by drl_create() alone. A simulator runs what a host runs. One thread.
 *
 * Rates are bytes a second, sizes bytes, times nanoseconds that never go back.
 */

#include <stdbool.h>
#include <stdint.h>

enum drl_mode {
    DRL_SPLIT, /* 1/N of the limit each, whatever the others do: the paper's strawman */
    DRL_GTB,   /* global token bucket: drained by own packets, and by the others' last reported rates */
    DRL_GRD,   /* global random drop: as much as demand exceeds the limit */
    DRL_FPS,   /* flow proportional share: a local bucket, its rate by the flows that are not limited elsewhere */
    DRL_POOL,  /* ours: limiter 0, the limit's home, grants every limiter its rate; pool.c */
    DRL_MODES
};

extern const char *const drl_mode_names[DRL_MODES];

#define DRL_MAX_LIMITERS 4096u
#define DRL_MAX_FANOUT 256u /* and the most updates that come of one interval */

struct drl_options {
    enum drl_mode mode;
    double rate;          /* of the whole limit */
    double burst;         /* depth of a bucket; the paper's baseline: 75000 */
    uint64_t interval_ns; /* between estimates, and between updates; the paper: 50 ms */
    unsigned limiters;    /* this one too; 1..DRL_MAX_LIMITERS */
    unsigned self;        /* this one's number, from 0 */
    unsigned fanout;      /* peers told at the end of an interval, at most DRL_MAX_FANOUT; all, where that suffices */
    uint64_t seed;        /* not 0 */
};

enum drl_kind { DRL_SUM, DRL_REPORT, DRL_PRESSED, DRL_GRANT };

/* What a limiter tells a peer: which values, its mode says (gossip.h, pool.c). */
struct drl_update {
    uint32_t from;
    uint32_t sequence; /* of the updates between these two, from 1 */
    uint32_t kind;     /* enum drl_kind */
    double value[3];
};

struct drl;

/* NULL: out of memory, or options out of range. `now` is the start. */
struct drl *drl_create(const struct drl_options *options, uint64_t now);
void drl_destroy(struct drl *drl);

/* Whether the packet conforms. `flow` tells flows apart: a hash of its key. */
bool drl_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes);

/*
 * The end of an interval (interval_ns after the one before, late is well): estimates, and sets what is allowed until
 * the next. Fills to[i], update[i] (room for DRL_MAX_FANOUT), to be sent; returns how many.
 */
unsigned drl_interval(struct drl *drl, uint64_t now, uint32_t *to, struct drl_update *update);

/*
 * An update has come. False: it is old, repeated, from nobody or makes no sense, and has been ignored. *replies is 1
 * when there is something to be sent back to where it came from, 0 else.
 */
bool drl_receive(struct drl *drl, uint64_t now, const struct drl_update *update, struct drl_update *reply,
                 unsigned *replies);

/*
 * What is promised when limiters are cut off from one another, at any moment and in any way: over any interval of t
 * seconds all together let at most rate * t + bytes through. `bytes` is INFINITY where there is no such bound (GRD has
 * no bucket).
 */
struct drl_bound {
    double rate, bytes;
};

struct drl_bound drl_bound(const struct drl_options *options);

/*
 * Where verdicts are given elsewhere, by many at once, they are told afterwards, before drl_interval(): `bytes` of flow
 * `key` have arrived; and so many in all have arrived and passed, which may be less than nothing when something was
 * taken back. What is to be allowed meanwhile is drl_allowance(): a bucket (`depth` INFINITY: none), a chance of being
 * dropped before it, and the level of the bucket below which flows lose packets early that have sent more than their
 * part, of late (share.h).
 */
void drl_account(struct drl *drl, uint64_t now, uint64_t key, uint32_t bytes);
void drl_account_passed(struct drl *drl, double arrived, double passed);

struct drl_allowance {
    double rate, depth, drop, early, part;
};
void drl_allowance(const struct drl *drl, struct drl_allowance *allowance);

/* What a flow has sent of late, where a mode looks; 0: nothing, or it is not known. */
double drl_sent(const struct drl *drl, uint64_t key);

/* A limiter has begun anew: it counts its updates, and all that it says, from the beginning. */
void drl_forget(struct drl *drl, unsigned limiter);

/* For people: what this limiter would let through now, a second. */
double drl_allowed(const struct drl *drl);

#endif
