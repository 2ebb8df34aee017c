/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One pool of rate, kept by the limit's home, which is limiter 0.
 *
 * Overview.  Every limiter reports to the home what arrives, how many flows' worth that is, whether it had to drop, and
 * how much it has let through in all; the home grants it the rate of its bucket. Whoever did not have to drop is
 * granted what arrives and a little more; the rest of the limit goes to those who did, by their flows, so that a flow
 * gets the same wherever it passes (max-min). Since all that was let through is counted at the home, it sees by how
 * much the aggregate has missed the limit, and makes up for it with the next grants.
 *
 * Within a limiter.  Packets are dropped before the bucket is empty: of flows that are faster than their share of its
 * rate, the more the emptier it is (approximate fair dropping: Pan, Breslau, Prabhakar, Shenker, CCR 2003), and of each
 * one at a time where it is near its share. An empty bucket hits whoever comes, often all that a flow has under way;
 * so their demand is there when tokens are. share.h carries it out. What one flow is spared another must lose, and
 * without that either the bucket moves more, and what is let through with it, or flows differ more: a wider zone of
 * early drops buys one with the other.
 *
 * When to speak.  Both ends know what the limiter is taken to let through until it reports again. It reports every
 * REPORT_NS at the latest, and as soon as what it lets through is off by more than OFF bytes; it is granted again when
 * that would change the grant. Each end has its allowance of messages, and saves up a few for when demand shifts: on
 * the average each limiter, the home too, sends at most MESSAGES a second: 5 kbit/s with all headers.
 *
 * Life-cycle of a grant.  A limiter that hears nothing for ALONE_NS takes 1/N of the limit. The home keeps what it has
 * granted last for whoever it does not hear, and after ALONE_NS that 1/N: cut off from one another, all together stay
 * within the limit.
 *
 * Bounds.  Over-use: the buckets' depths, which come to the limit's and DEPTH_LEAST for each limiter, and what demand
 * changes while messages are under way, until it has been made up for; cut off, for ALONE_NS, what the last grants come
 * to beyond the limit, which is taken to be the limit again, and what idle buckets are filled by. Under-use: what
 * demand changes while messages are under way; what nobody wanted is not owed beyond OWED.
 */

#include "drl/pool.h"

#include <math.h>
#include <stdlib.h>

#include "drl/internal.h"
#include "drl/share.h"
#include <splitmerge/bucket.h>

#define ALONE_NS 1500000000ull
#define MESSAGES 6.9        /* a second, that a limiter sends on the average, the home's divided among all */
#define SAVED 4.0           /* messages */
#define PERIODIC 0.75       /* part of them that is spent when nothing happens */
#define OFF 6000.0          /* bytes */
#define QUICK 0.03          /* seconds: the estimate of demand when it shifts; */
#define FEW 12000.0         /* bytes: where an interval brings no more, what the last one brought */
#define HEADROOM 1.2        /* of a grant to whoever need not drop, over what arrives */
#define CLIMB 2.0           /* likewise, to whoever had to: what it can use before it reports again */
#define PRESSED 0.02        /* share of bytes dropped from which on a limiter is */
#define CHANGED 0.02        /* of a grant, when it is worth a message */
#define OWED 0.05           /* seconds of the limit that a shortfall is made up for at most */
#define CATCH_UP 0.8        /* seconds over which a miss is made up for */
#define CATCH_UP_MOST 0.3   /* of the limit */
#define DEPTH_LEAST 30000.0 /* bytes: of a bucket, so that a first window gets through where nobody was */
#define IDLE 2000.0         /* bytes a second: where less arrives, nobody is; there the bucket of least depth */
#define REFILL 1.0          /* is filled within so many seconds, whatever is granted */
#define EARLY_LEAST 15000.0 /* bytes in the bucket, below which packets are dropped early; */
#define EARLY_SECONDS 0.015 /* at a high rate so much of it; */
#define EARLY_MOST 0.8      /* never more than this part of its depth */
#define SHARE_PASSES 10u

struct member {
    uint32_t sent, heard; /* sequences */
    uint64_t heard_at, granted_at;
    double allowance; /* messages */
    double demand, weight;
    double passed;       /* in all: as reported, and since then what `rate` makes of it */
    double rate;         /* that it is taken to pass until it reports again */
    double granted;      /* last */
    bool pressed, known; /* known: it has reported */
    bool anew;           /* what it has passed in all begins with its next report */
};

/* Where packets are given to drl_packet(), and not to a host's share. */
struct own {
    bool used;
    struct share share;
    struct share_head head;
    struct share_page page[SHARE_PAGES];
    struct share_seen seen;
};

struct pool {
    struct drl_flows flows;
    struct own own;
    double share;                                      /* of a flow, in bytes of late */
    double depth;                                      /* of the bucket */
    double early;                                      /* bytes in it, below which packets are dropped early */
    double arrived_tick;                               /* since the last interval, bytes */
    double quick;                                      /* demand of the last moments */
    double passed;                                     /* bytes, in all */
    double arrived_since, dropped_since, passed_since; /* the last report, bytes */
    double expected_since;                             /* and what it was taken to pass */
    double expected;                                   /* a second */
    double period;                                     /* seconds between reports, when nothing happens */
    double allowance;                                  /* messages */
    uint64_t began, report_at, granted_at;
    bool pressed; /* as reported last */
    uint32_t sent, heard;

    /* The home. */
    struct member *members; /* NULL elsewhere */
    double level;           /* rate of a flow's worth */
    double spare;           /* rate that nobody asked for, for each */
    double excess;          /* bytes let through beyond the limit so far; below 0: short of it */
};

/* Reports a second that a limiter may send, and grants that it may be sent. */
static double exchanges(const struct drl *drl)
{
    double limiters = drl->options.limiters;

    return limiters > 1 ? MESSAGES / 2 * limiters / (limiters - 1) : MESSAGES;
}

static void allow(const struct drl *drl, double *allowance, double seconds)
{
    *allowance = fmin(*allowance + exchanges(drl) * seconds, SAVED);
}

static bool spend(double *allowance)
{
    if (*allowance < 1)
        return false;
    *allowance -= 1;
    return true;
}

/* The rate at which an idle limiter's bucket is filled at least: all together have no more than the limit. */
static double refill(const struct drl_options *options)
{
    return fmin(DEPTH_LEAST / REFILL, options->rate / options->limiters);
}

double pool_overuse(const struct drl_options *options)
{
    double depths = fmin(options->limiters * options->burst, options->burst + options->limiters * DEPTH_LEAST);

    return depths + (options->rate + options->limiters * refill(options)) * (double)ALONE_NS / 1e9;
}

/* The bucket's depth follows the limiter's part of the limit. */
static void shape(struct drl *drl)
{
    struct pool *pool = drl->pool;
    double part = drl->local / drl->options.rate;

    pool->depth = fmin(drl->options.burst, fmax(DEPTH_LEAST, drl->options.burst * part));
    pool->early = fmin(EARLY_MOST * pool->depth, fmax(EARLY_LEAST, EARLY_SECONDS * drl->local));
}

bool pool_create(struct drl *drl, uint64_t now)
{
    struct pool *pool = drl->pool = calloc(1, sizeof *pool);

    if (!pool)
        return false;
    shape(drl);
    pool->own.share.head = &pool->own.head;
    for (unsigned i = 0; i < SHARE_PAGES; i++)
        pool->own.share.page[i] = &pool->own.page[i];
    pool->share = INFINITY;
    pool->began = pool->granted_at = now;
    pool->allowance = SAVED;
    pool->period = 1 / (PERIODIC * exchanges(drl));
    if (drl->options.self != 0)
        return true;
    pool->members = calloc(drl->options.limiters, sizeof *pool->members);
    if (!pool->members) {
        free(pool);
        return false;
    }
    for (unsigned i = 0; i < drl->options.limiters; i++)
        pool->members[i] = (struct member){.heard_at = now, .allowance = SAVED};
    pool->spare = drl->options.rate / drl->options.limiters;
    return true;
}

void pool_destroy(struct pool *pool)
{
    if (pool)
        free(pool->members);
    free(pool);
}

void pool_account(struct drl *drl, uint64_t now, uint64_t key, uint32_t bytes)
{
    drl_flows_enter(&drl->pool->flows, key, now, bytes);
}

void pool_account_passed(struct drl *drl, double arrived, double passed)
{
    struct pool *pool = drl->pool;

    pool->arrived_tick += arrived;
    pool->arrived_since += arrived;
    pool->dropped_since += arrived - passed;
    pool->passed_since += passed;
    pool->passed += passed;
}

void pool_allowance(const struct drl *drl, struct drl_allowance *allowance)
{
    /* Those who come next will find a first window's tokens, where nothing is granted since nobody is. */
    if (drl->arrived.rate < IDLE)
        allowance->rate = fmax(allowance->rate, refill(&drl->options));
    allowance->depth = drl->pool->depth;
    allowance->early = drl->pool->early;
    allowance->part = drl->pool->share;
}

double pool_sent(const struct drl *drl, uint64_t key)
{
    const struct drl_flow *flow = drl_flows_find(&drl->pool->flows, key);

    return flow ? flow->bytes : 0;
}

bool pool_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes)
{
    struct own *own = &drl->pool->own;

    if (!own->used) {
        own->used = true;
        share_start(&own->share, &own->seen, drl, drl->pool->began);
    }
    meter_fill(&own->head.meter, now, false);
    return share_take(&own->share, flow, bytes, bytes * SM_BUCKET_UNIT, UINT32_MAX, now);
}

void pool_count(struct drl *drl, uint64_t now)
{
    struct own *own = &drl->pool->own;

    if (own->used)
        share_count(&own->share, &own->seen, drl, now);
}

/* The most that a member can use before it is granted again. */
static double most(const struct member *member)
{
    return member->demand * (member->pressed ? CLIMB : HEADROOM);
}

static double grant(const struct pool *pool, const struct member *member)
{
    return fmin(most(member), pool->level * member->weight) + pool->spare;
}

/* What is kept for a member that is not heard; below 0: it is heard. */
static double kept(const struct drl *drl, const struct member *member, uint64_t now)
{
    uint64_t silent = now - member->heard_at;

    if (silent > ALONE_NS)
        return drl->options.rate / drl->options.limiters;
    return silent > ALONE_NS / 2 ? member->granted : -1;
}

/* Share the limit out: the level at which all grants together are what may be granted. */
static void share_out(struct drl *drl, uint64_t now)
{
    struct pool *pool = drl->pool;
    double rate = drl->options.rate, bound = rate * CATCH_UP_MOST;
    double all = rate - fmax(fmin(pool->excess / CATCH_UP, bound), -bound), weights = 0, open = all;

    pool->level = 0;
    for (unsigned pass = 0; pass < SHARE_PASSES; pass++) {
        double before = pool->level;
        open = all;
        weights = 0;
        for (unsigned i = 0; i < drl->options.limiters; i++) {
            const struct member *member = &pool->members[i];
            double reserve = kept(drl, member, now);
            if (reserve >= 0)
                open -= reserve;
            else if (most(member) <= member->weight * before)
                open -= most(member);
            else
                weights += member->weight;
        }
        pool->level = weights > 0 ? fmax(open, 0.01 * rate) / weights : rate;
        if (weights <= 0 || fabs(pool->level - before) <= before * 1e-6)
            break;
    }
    pool->spare = weights > 0 ? 0 : fmax(open, 0) / drl->options.limiters;
}

/* What a limiter is taken to let through: the member itself and the home reckon alike. */
static double foreseen(double granted, double demand, bool pressed)
{
    return pressed ? granted : fmin(granted, demand);
}

static void report(struct drl *drl, struct drl_update *update)
{
    struct pool *pool = drl->pool;

    pool->pressed = pool->dropped_since > PRESSED * pool->arrived_since;
    pool->arrived_since = pool->dropped_since = pool->passed_since = pool->expected_since = 0;
    pool->expected = foreseen(drl->local, drl->arrived.rate, pool->pressed);
    *update = (struct drl_update){.from = drl->options.self,
                                  .sequence = ++pool->sent,
                                  .kind = pool->pressed ? DRL_PRESSED : DRL_REPORT,
                                  .value = {drl->arrived.rate, drl_flows_worth(&pool->flows), pool->passed}};
}

/* The home takes a report in. */
static void enter(const struct drl *drl, uint64_t now, const struct drl_update *update)
{
    struct pool *pool = drl->pool;
    struct member *member = &pool->members[update->from];
    double since = drl->options.burst + drl->options.rate * (double)(now - pool->began) / 1e9;
    double off = update->value[2] - member->passed; /* what has been foreseen wrongly */

    /* A home that was started again does not hold against a member what it passed before. */
    if (!member->anew)
        pool->excess += member->known || off <= since ? off : 0;
    member->anew = false;
    member->known = true;
    member->demand = update->value[0];
    member->weight = update->value[1];
    member->passed = update->value[2];
    member->pressed = update->kind == DRL_PRESSED;
    member->rate = foreseen(member->granted, member->demand, member->pressed);
    member->heard_at = now;
}

static double settle(const struct pool *pool, struct member *member, uint64_t now)
{
    member->granted = grant(pool, member);
    member->granted_at = now;
    member->rate = foreseen(member->granted, member->demand, member->pressed);
    return member->granted;
}

/* Whether a member is to be told what it is granted now. */
static bool due(const struct drl *drl, const struct member *member, uint64_t now)
{
    double least = 0.01 * drl->options.rate / drl->options.limiters;

    return fabs(grant(drl->pool, member) - member->granted) > CHANGED * (member->granted + least) ||
           (double)(now - member->granted_at) / 1e9 > drl->pool->period;
}

static void tell(struct pool *pool, struct member *member, uint64_t now, struct drl_update *update)
{
    *update = (struct drl_update){
        .from = 0, .sequence = ++member->sent, .kind = DRL_GRANT, .value = {settle(pool, member, now)}};
}

static unsigned home_interval(struct drl *drl, uint64_t now, double seconds, uint32_t *to, struct drl_update *update)
{
    struct pool *pool = drl->pool;
    struct drl_update own;
    double passed = 0;
    unsigned told = 0;

    for (unsigned i = 0; i < drl->options.limiters; i++) {
        struct member *member = &pool->members[i];
        double reserve = kept(drl, member, now);
        if (reserve >= 0)
            member->rate = reserve;
        member->passed += member->rate * seconds;
        passed += member->rate * seconds;
    }
    report(drl, &own);
    enter(drl, now, &own);
    /* What was not wanted is not owed for ever. */
    pool->excess =
        fmax(pool->excess + passed - drl->options.rate * seconds, -OWED * drl->options.rate - drl->options.burst);
    share_out(drl, now);
    drl->local = settle(pool, &pool->members[0], now);
    pool->expected = pool->members[0].rate;
    for (unsigned i = 1; i < drl->options.limiters; i++) {
        struct member *member = &pool->members[i];
        allow(drl, &member->allowance, seconds);
        if (told == DRL_MAX_FANOUT || kept(drl, member, now) >= 0 || !due(drl, member, now) ||
            !spend(&member->allowance))
            continue;
        to[told] = i;
        tell(pool, member, now, &update[told++]);
    }
    return told;
}

/* Estimate demand, and what each flow may have of what is granted. True: it is not what was foreseen. */
static bool look(struct drl *drl, uint64_t now, double seconds)
{
    struct pool *pool = drl->pool;
    double keep = exp(-seconds / QUICK), last = pool->arrived_tick / seconds;

    drl_flows_fade(&pool->flows, now, seconds);
    pool->share = drl_flows_share(&pool->flows, drl->local);
    shape(drl);
    pool->quick = keep * pool->quick + (1 - keep) * last;
    pool->arrived_tick = 0;
    allow(drl, &pool->allowance, seconds);
    pool->expected_since += pool->expected * seconds;
    /* The more has been said of late, the more it takes. */
    double off = pool->passed_since - pool->expected_since, enough = OFF * SAVED / fmax(pool->allowance, 1);
    bool surprised = fabs(off) > enough;
    if (surprised && (pool->quick > drl->arrived.rate) == (off > 0))
        drl->arrived.rate = drl->arrived.rate * seconds < FEW ? last : pool->quick;
    return surprised;
}

static unsigned member_interval(struct drl *drl, uint64_t now, bool surprised, uint32_t *to, struct drl_update *update)
{
    struct pool *pool = drl->pool;

    if (now - pool->granted_at > ALONE_NS)
        drl->local = drl->options.rate / drl->options.limiters;
    bool begins = !pool->pressed && pool->dropped_since > PRESSED * pool->arrived_since;
    if ((now < pool->report_at && !begins && !surprised) || !spend(&pool->allowance))
        return 0;
    to[0] = 0;
    report(drl, update);
    /* Not all at once, though they began at once. */
    pool->report_at = now + (uint64_t)(pool->period * 1e9 * (0.9 + 0.2 * drl_random(drl)));
    return 1;
}

unsigned pool_interval(struct drl *drl, uint64_t now, double seconds, uint32_t *to, struct drl_update *update)
{
    struct pool *pool = drl->pool;
    bool surprised = look(drl, now, seconds);
    unsigned told =
        pool->members ? home_interval(drl, now, seconds, to, update) : member_interval(drl, now, surprised, to, update);

    if (pool->own.used)
        share_publish(&pool->own.share, &pool->own.seen, drl, now);
    return told;
}

bool pool_receive(struct drl *drl, uint64_t now, const struct drl_update *update, struct drl_update *reply,
                  unsigned *replies)
{
    struct pool *pool = drl->pool;
    uint32_t *heard = pool->members ? &pool->members[update->from].heard : &pool->heard;
    uint32_t ahead = update->sequence - *heard;
    bool from_home = update->kind == DRL_GRANT && update->from == 0;

    if (ahead == 0 || ahead > UINT32_MAX / 2 || (pool->members != NULL) == from_home || update->value[0] < 0 ||
        update->value[1] < 0)
        return false;
    *heard = update->sequence;
    if (!pool->members) {
        drl->local = update->value[0];
        pool->expected = foreseen(drl->local, drl->arrived.rate, pool->pressed);
        pool->granted_at = now;
        if (pool->own.used)
            share_allow(&pool->own.share, drl, now);
        return true;
    }
    struct member *member = &pool->members[update->from];
    enter(drl, now, update);
    if (due(drl, member, now) && spend(&member->allowance)) {
        tell(pool, member, now, reply);
        *replies = 1;
    }
    return true;
}

void pool_forget(struct drl *drl, unsigned limiter)
{
    struct pool *pool = drl->pool;

    if (pool->members) {
        pool->members[limiter].heard = 0;
        pool->members[limiter].anew = true;
    } else if (limiter == 0) {
        pool->heard = 0;
    }
}
