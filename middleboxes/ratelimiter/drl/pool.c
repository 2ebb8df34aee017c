/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One pool of rate, kept by the limit's home, which is limiter 0.
 *
 * Overview.  Every limiter reports to the home what arrives, how many flows' worth that is, whether it had to drop, and
 * how much it has let through in all; the home answers with a grant, the rate of the limiter's bucket. Whoever did not
 * have to drop is granted what arrives and a little more; the rest of the limit goes to those who did, by their flows,
 * so that a flow gets the same wherever it passes (max-min). Since all that was let through is counted at the home, it
 * sees by how much the aggregate has missed the limit, and makes up for it with the next grants.
 *
 * A flow's worth.  Counting flows would give small ones a full share, and the fastest of several noisy rates is always
 * too fast. A limiter's weight is (sum of rates)^2 / (sum of squares): n for n equal flows, 1 for one elephant among
 * mice. The squares are estimated from counters that flows are hashed to (Alon, Matias, Szegedy, STOC 1996).
 *
 * Life-cycle of a grant.  Asked for every REPORT_NS, and at once when a limiter begins to drop. A limiter that hears
 * nothing for ALONE_NS takes 1/N of the limit, and the home keeps just that for whoever it has not heard for as
 * long: cut off from one another, all together stay within the limit.
 *
 * Bounds.  Over-use: the buckets' depths once, and what demand changes within a report's age, until it has been made up
 * for. Under-use: likewise, while there is demand.
 */

#include "drl/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "drl/internal.h"

#define REPORT_NS 300000000ull
#define ALONE_NS 1500000000ull
#define CELLS 256u   /* counters for the sum of squares */
#define HEADROOM 1.1 /* of a grant to whoever need not drop, over what arrives */
#define RANDOM 0.8   /* part of what must be dropped that is dropped at random; an empty bucket hits whoever comes */
#define CLIMB 1.3    /* likewise, to whoever had to */
#define PRESSED 0.02 /* share of packets dropped from which on a limiter is */
#define OWED 0.2     /* seconds of the limit that a shortfall is made up for at most */
#define CATCH_UP 0.7 /* seconds over which a miss is made up for */
#define CATCH_UP_MOST 0.3 /* of the limit */

struct member {
    uint32_t sent, heard; /* sequences */
    uint64_t heard_at;
    double demand, weight;
    double passed; /* in all: as reported, and since then what `rate` makes of it */
    double rate;   /* that it is taken to pass until it reports again */
    bool pressed;
};

struct pool {
    double cells[CELLS];                 /* bytes, old ones fading */
    double passed;                       /* bytes, in all */
    double arrived_since, dropped_since; /* the last report, bytes */
    uint64_t report_at, granted_at;
    bool pressed; /* as reported last */
    uint32_t sent, heard;

    /* The home. */
    struct member *members; /* NULL elsewhere */
    double level;           /* rate of a flow's worth */
    double spare;           /* rate that nobody asked for, for each */
    double excess;          /* bytes let through beyond the limit so far; below 0: short of it */
};

struct pool *pool_create(const struct drl *drl, uint64_t now)
{
    struct pool *pool = calloc(1, sizeof *pool);

    if (!pool || drl->options.self != 0)
        return pool;
    pool->members = calloc(drl->options.limiters, sizeof *pool->members);
    if (!pool->members) {
        free(pool);
        return NULL;
    }
    for (unsigned i = 0; i < drl->options.limiters; i++)
        pool->members[i].heard_at = now;
    pool->spare = drl->options.rate / drl->options.limiters;
    return pool;
}

void pool_destroy(struct pool *pool)
{
    if (pool)
        free(pool->members);
    free(pool);
}

static bool pool_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes)
{
    struct pool *pool = drl->pool;
    bool conforms = (drl->drop == 0 || drl_random(drl) >= drl->drop) &&
                    drl_bucket_take(&drl->bucket, drl->local, drl->options.burst, now, bytes);

    pool->cells[flow * 0x9e3779b97f4a7c15ull >> 56] += bytes;
    pool->arrived_since += bytes;
    if (conforms)
        pool->passed += bytes;
    else
        pool->dropped_since += bytes;
    return conforms;
}

const struct drl_ops drl_pool = {.packet = pool_packet};

/* How many flows' worth arrives here. */
static double weight(const struct pool *pool)
{
    double sum = 0, squares = 0;

    for (unsigned i = 0; i < CELLS; i++) {
        sum += pool->cells[i];
        squares += pool->cells[i] * pool->cells[i];
    }
    if (sum <= 0)
        return 0;
    squares = (squares - sum * sum / CELLS) / (1 - 1.0 / CELLS);
    return squares > sum * sum / 1e6 ? fmax(sum * sum / squares, 1) : 1e6;
}

/* What a member is to get. */
static double grant(const struct drl *drl, const struct member *member)
{
    const struct pool *pool = drl->pool;
    double want = member->demand * HEADROOM + pool->spare, share = member->weight * pool->level;

    if (!member->pressed && (pool->level <= 0 || want < share))
        return want;
    /* A share that it cannot use before it reports again is better used by others. */
    return fmax(fmin(share, CLIMB * member->demand), pool->spare);
}

/* Share the limit out: the level at which all grants together are what may be granted. */
static void share_out(struct drl *drl, uint64_t now)
{
    struct pool *pool = drl->pool;
    double rate = drl->options.rate, most = rate * CATCH_UP_MOST, each = rate / drl->options.limiters;
    double left = rate - fmax(fmin(pool->excess / CATCH_UP, most), -most), weights = 0, open = left;

    /* Those that are not heard are left 1/N each; those that need not drop, what they want, unless it is too much. */
    pool->level = 0;
    for (unsigned pass = 0; pass < 8; pass++) {
        double before = pool->level;
        open = left;
        weights = 0;
        for (unsigned i = 0; i < drl->options.limiters; i++) {
            const struct member *member = &pool->members[i];
            double want = member->demand * HEADROOM;
            if (now - member->heard_at > ALONE_NS)
                open -= each;
            else if (!member->pressed && (before <= 0 || want < member->weight * before))
                open -= want;
            else
                weights += member->weight;
        }
        if (weights <= 0)
            break;
        pool->level = fmax(open, 0.01 * rate) / weights;
        if (fabs(pool->level - before) <= before * 1e-6)
            break;
    }
    pool->spare = weights > 0 ? 0 : fmax(open, 0) / drl->options.limiters;
}

static void report(struct drl *drl, struct drl_update *update)
{
    struct pool *pool = drl->pool;

    pool->pressed = pool->dropped_since > PRESSED * pool->arrived_since;
    pool->arrived_since = pool->dropped_since = 0;
    *update = (struct drl_update){.from = drl->options.self,
                                  .sequence = ++pool->sent,
                                  .kind = pool->pressed ? DRL_PRESSED : DRL_REPORT,
                                  .value = {drl->arrived.rate, weight(pool), pool->passed}};
}

/* The home takes a report in. */
static void enter(struct pool *pool, uint64_t now, const struct drl_update *update)
{
    struct member *member = &pool->members[update->from];

    pool->excess += update->value[2] - member->passed; /* what has been foreseen wrongly */
    member->demand = update->value[0];
    member->weight = update->value[1];
    member->passed = update->value[2];
    member->pressed = update->kind == DRL_PRESSED;
    member->heard_at = now;
}

/* Grant a member its rate, and foresee what it will pass. */
static double settle(struct drl *drl, struct member *member)
{
    double rate = grant(drl, member);

    member->rate = member->pressed ? rate : fmin(rate, member->demand);
    return rate;
}

static void home_interval(struct drl *drl, uint64_t now, double seconds)
{
    struct pool *pool = drl->pool;
    struct drl_update own;
    double passed = 0;

    for (unsigned i = 0; i < drl->options.limiters; i++) {
        struct member *member = &pool->members[i];
        if (now - member->heard_at > ALONE_NS)
            member->rate = drl->options.rate / drl->options.limiters;
        member->passed += member->rate * seconds;
        passed += member->rate * seconds;
    }
    report(drl, &own);
    enter(pool, now, &own);
    /* What was not wanted is not owed for ever. */
    pool->excess = fmax(pool->excess + passed - drl->options.rate * seconds, -OWED * drl->options.rate);
    share_out(drl, now);
    drl->local = settle(drl, &pool->members[0]);
}

unsigned pool_interval(struct drl *drl, uint64_t now, double seconds, uint32_t *to, struct drl_update *update)
{
    struct pool *pool = drl->pool;
    double keep = pow(0.1, seconds);

    for (unsigned i = 0; i < CELLS; i++)
        pool->cells[i] *= keep;
    drl->drop = drl->arrived.rate > drl->local ? RANDOM * (1 - drl->local / drl->arrived.rate) : 0;
    if (pool->members) {
        home_interval(drl, now, seconds);
        return 0;
    }
    if (now - pool->granted_at > ALONE_NS)
        drl->local = drl->options.rate / drl->options.limiters;
    bool begins = !pool->pressed && pool->dropped_since > PRESSED * pool->arrived_since;
    if (now < pool->report_at && !begins)
        return 0;
    to[0] = 0;
    report(drl, update);
    /* Not all at once, though they began at once. */
    pool->report_at = now + (uint64_t)(REPORT_NS * (0.9 + 0.2 * drl_random(drl)));
    return 1;
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
        pool->granted_at = now;
        return true;
    }
    enter(pool, now, update);
    share_out(drl, now);
    *reply = (struct drl_update){.from = 0,
                                 .sequence = ++pool->members[update->from].sent,
                                 .kind = DRL_GRANT,
                                 .value = {settle(drl, &pool->members[update->from])}};
    *replies = 1;
    return true;
}
