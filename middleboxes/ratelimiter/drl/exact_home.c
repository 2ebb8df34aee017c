/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The home's side of the mode `exact`: lets out the parts of a limit (cf. Doorman, youtube/doorman).
 *
 * Claim.  Over every interval of true time, what the hosts let through costs at most the interval times the rate, plus
 * the burst.
 *
 * Proof.  Say that host h may be using the part (r, b) at a moment: its bucket is filled at r at most, and holds b at
 * most. If at every moment all parts together are at most (rate, burst), then over [s, t] what passes is at most what
 * the buckets held at s, which is at most the burst, and what came in since, at most rate x (t - s). Tokens above a
 * part that has become smaller, or left over from a lease that has ended, are thrown away (meter.c). So it is enough
 * that the home never knows of less than what a host may be using:
 *  - A grant counts from when it is made, and what was granted before counts until the host has said that it uses the
 *    newer one. There is one grant at a time that the host has not said this of, repeated until it does.
 *  - A lease ends at the host before it ends here. The host counts from when it asked, the home from when it was asked,
 *    and an eighth of the lease longer, by a clock that leaves out what may have been a jump.
 *  - A host that has lost its account of its lease gets a new token, and grants of other tokens are not taken; the
 *    first ask that bears the token says what is in use, and nothing more than that can be.
 *  - A home that has lost its own account only prolongs what hosts say that they hold, for as long as a lease that it
 *    does not know of can last. No host can hold more than the earlier home counted for it; so together they hold at
 *    most the whole.
 * Clocks of hosts may be fast by one part in EXACT_DRIFT: that much less is let out.                               []
 *
 * Sharing out.  Whoever has demand gets it, and a little more, where the limit allows; where it does not, by weight
 * (max-min). What is left is spread evenly. A demand fades from ask to ask and is not forgotten at once; its weight is,
 * so nothing is kept from anybody else. Of the depth one half is spread evenly and one half goes with the rate.
 *
 * Limits.  A grown part waits until somebody's smaller one is confirmed: two intervals and a round trip. A host that is
 * not heard keeps its part from the others until its lease ends.
 */

#include <string.h>

#include "drl/exact.h"

#define WANT 1.1    /* of the demand */
#define CLIMB 1.5   /* likewise, where some had to be dropped */
#define KEPT 0.8    /* of a demand, from one ask to the next: TCP is silent between its tries, and not gone */
#define FLOOR 256.0 /* part of the whole that, by the number of hosts, everybody gets */
#define MARGIN(lease) ((lease) / 8)

typedef unsigned __int128 wide;

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t next_random(struct exact_home *home)
{
    home->random ^= home->random >> 12;
    home->random ^= home->random << 25;
    home->random ^= home->random >> 27;
    return home->random * 2685821657736338717ull | 1;
}

void exact_home_start(struct exact_home *home, const struct exact_limit *limit, uint64_t random, uint64_t now)
{
    *home = (struct exact_home){.limit = *limit, .time = now, .random = random};
    home->limit.whole.rate -= limit->whole.rate / EXACT_DRIFT;
    home->learned = limit->lease_ns + MARGIN(limit->lease_ns);
}

void exact_home_time(struct exact_home *home, uint64_t now)
{
    if (now > home->time && now - home->time <= METER_GAP_NS)
        home->clock += now - home->time;
    home->time = now;
}

static bool live(const struct exact_home *home, const struct exact_tenant *tenant)
{
    return tenant->token != 0 && home->clock < tenant->ends;
}

/* What may be in use. */
static struct exact_part in_use(const struct exact_home *home, const struct exact_tenant *tenant)
{
    if (!live(home, tenant))
        return (struct exact_part){0};
    if (tenant->acknowledged)
        return tenant->part;
    return (struct exact_part){.rate = max(tenant->part.rate, tenant->before.rate),
                               .depth = max(tenant->part.depth, tenant->before.depth)};
}

struct exact_part exact_home_out(const struct exact_home *home)
{
    wide rate = 0, depth = 0;

    for (unsigned i = 0; i < EXACT_MAX_HOSTS; i++) {
        struct exact_part part = in_use(home, &home->tenants[i]);
        rate += part.rate;
        depth += part.depth;
    }
    return (struct exact_part){.rate = (uint64_t)rate, .depth = depth > UINT64_MAX ? UINT64_MAX : (uint64_t)depth};
}

static double want(const struct exact_home *home, const struct exact_tenant *tenant, unsigned count)
{
    double more = tenant->pressed ? CLIMB : WANT;
    double wanted = (double)tenant->demand * more, least = (double)home->limit.whole.rate / FLOOR / count;

    return wanted > least ? wanted : least;
}

/* Everybody's weight is this at least, so that nobody's share is nothing. */
static double weight(const struct exact_tenant *tenant)
{
    return tenant->weight > 0 ? (double)tenant->weight : 1;
}

/* The rate for a tenant: as if all were shared out now. */
static double fair_rate(const struct exact_home *home, const struct exact_tenant *tenant, unsigned count)
{
    double level = 0, open, weights;

    /* Each pass may find more who want less than their share at the level, which raises it for the others. */
    for (unsigned pass = 0; pass <= count; pass++) {
        double before = level;
        open = (double)home->limit.whole.rate;
        weights = 0;
        for (unsigned i = 0; i < EXACT_MAX_HOSTS; i++) {
            const struct exact_tenant *other = &home->tenants[i];
            if (!live(home, other))
                continue;
            if (want(home, other, count) <= weight(other) * before)
                open -= want(home, other, count);
            else
                weights += weight(other);
        }
        if (weights <= 0)
            return want(home, tenant, count) + open / count;
        level = open / weights;
        if (level <= before)
            break;
    }
    double share = weight(tenant) * level, wanted = want(home, tenant, count);
    return wanted < share ? wanted : share;
}

static struct exact_part target(const struct exact_home *home, const struct exact_tenant *tenant)
{
    const struct exact_part *whole = &home->limit.whole;
    unsigned count = 0;

    for (unsigned i = 0; i < EXACT_MAX_HOSTS; i++)
        count += live(home, &home->tenants[i]);
    double rate = fair_rate(home, tenant, count);
    double depth = (double)whole->depth / 2 * (1.0 / count + rate / (double)whole->rate);
    return (struct exact_part){.rate = min((uint64_t)rate, whole->rate), .depth = min((uint64_t)depth, whole->depth)};
}

/* Towards the target: down at once, up by what is free. */
static uint64_t towards(uint64_t from, uint64_t to, uint64_t whole, uint64_t out)
{
    uint64_t free = whole > out ? whole - out : 0;

    return to <= from ? to : from + min(to - from, free);
}

static void share_out(struct exact_home *home, struct exact_tenant *tenant)
{
    struct exact_part wanted = target(home, tenant), out = exact_home_out(home), next;
    const struct exact_part *whole = &home->limit.whole;

    next.rate = towards(tenant->part.rate, wanted.rate, whole->rate, out.rate);
    next.depth = towards(tenant->part.depth, wanted.depth, whole->depth, out.depth);
    if (next.rate == tenant->part.rate && next.depth == tenant->part.depth)
        return;
    tenant->before = tenant->part;
    tenant->part = next;
    tenant->number++;
    tenant->acknowledged = false;
}

/*
 * The first ask that bears a new token says what is held. It may be late, and that be given up since; what is known to
 * be in use bounds it too, but for what an earlier home has let out.
 */
static void adopt(struct exact_home *home, struct exact_tenant *tenant, const struct exact_ask *ask)
{
    bool unknown = tenant->token == 0 && home->clock < home->learned;
    struct exact_part most = unknown ? home->limit.whole : in_use(home, tenant);
    struct exact_part held = {.rate = min(ask->held.rate, most.rate), .depth = min(ask->held.depth, most.depth)};

    *tenant = (struct exact_tenant){.token = ask->token, .number = 1, .part = held, .before = held};
}

bool exact_home_asked(struct exact_home *home, unsigned host, const struct exact_ask *ask, struct exact_grant *grant)
{
    struct exact_tenant *tenant;

    if (host >= EXACT_MAX_HOSTS)
        return false;
    tenant = &home->tenants[host];
    if (ask->token == 0 || (ask->token != tenant->token && ask->token != tenant->candidate)) {
        if (tenant->candidate == 0 || tenant->candidate_for != ask->number)
            tenant->candidate = next_random(home);
        tenant->candidate_for = ask->number;
        *grant = (struct exact_grant){.token = tenant->candidate, .asked = ask->number};
        return true;
    }
    if (ask->token != tenant->token)
        adopt(home, tenant, ask);
    else if ((int32_t)(ask->number - tenant->asked) <= 0)
        return false;
    else if (!live(home, tenant)) {
        /* The grant before is not prolonged: there is another one, of nothing so far. */
        tenant->part = tenant->before = (struct exact_part){0};
        tenant->number++;
        tenant->acknowledged = true;
    } else if (ask->applied == tenant->number) {
        tenant->acknowledged = true;
    }
    tenant->asked = ask->number;
    tenant->demand = max(min(ask->demand, home->limit.whole.rate), (uint64_t)(KEPT * (double)tenant->demand));
    tenant->weight = ask->weight;
    tenant->pressed = ask->pressed;
    tenant->ends = home->clock + home->limit.lease_ns + MARGIN(home->limit.lease_ns);
    if (tenant->acknowledged && home->clock >= home->learned)
        share_out(home, tenant);
    *grant = (struct exact_grant){
        .token = tenant->token, .number = tenant->number, .asked = ask->number, .part = tenant->part};
    return true;
}
