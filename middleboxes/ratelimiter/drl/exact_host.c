/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A host's side of the mode `exact`: keeps a lease, and fills the meter by it.
 *
 * Life-cycle of a lease.  It is counted from when the ask was sent that the grant answers, so it ends here before the
 * home counts it as ended, however long either was under way. It ends by itself, for whoever takes from the meter too:
 * `until` is in the meter. Each answer prolongs it. A smaller part is in use before the next ask says so, and that one
 * is sent at once.
 *
 * Clocks.  A clock that went back would make the lease longer: the lease is given up. One that jumped ahead only ends
 * it early; no tokens are made for the jump (meter.h).
 */

#include <string.h>

#include "drl/exact.h"

#define HURRY 8 /* parts of an interval: asks are no closer */

void exact_host_start(struct exact_host *host, struct meter *meter, const struct exact_limit *limit,
                      uint64_t interval_ns, uint32_t random, uint64_t now)
{
    *host = (struct exact_host){.meter = meter,
                                .lease_ns = limit->lease_ns,
                                .interval_ns = interval_ns,
                                .time = now,
                                .number = random,
                                .adopted = random,
                                .hurry = true};
    meter_resume(meter, now);
}

static void give_up(struct exact_host *host)
{
    meter_void(host->meter);
    memset(host->asked_at, 0, sizeof host->asked_at);
    host->token = 0;
    host->adopted = host->number;
    host->hurry = true;
}

bool exact_host_time(struct exact_host *host, uint64_t now)
{
    if (now < host->time)
        give_up(host);
    host->time = now;
    meter_fill(host->meter, now, true);
    uint64_t since = now - host->asked_at[host->number % EXACT_IN_FLIGHT];
    return since >= (host->hurry ? host->interval_ns / HURRY : host->interval_ns);
}

void exact_host_ask(struct exact_host *host, uint64_t now, struct exact_ask *ask)
{
    bool held = now < atomic_load(&host->meter->until);

    host->number++;
    host->hurry = false;
    host->asked_at[host->number % EXACT_IN_FLIGHT] = now;
    *ask = (struct exact_ask){.token = host->token, .number = host->number, .applied = host->applied};
    if (held)
        ask->held =
            (struct exact_part){.rate = atomic_load(&host->meter->rate), .depth = atomic_load(&host->meter->depth)};
}

bool exact_host_granted(struct exact_host *host, uint64_t now, const struct exact_grant *grant)
{
    uint32_t age = host->number - grant->asked;
    const struct meter *meter = host->meter;

    bool answers = age < EXACT_IN_FLIGHT && (int32_t)(grant->asked - host->adopted) > 0;
    if (!answers || now < host->time || grant->token == 0)
        return false;
    if (grant->number == 0) {
        /* Asks from now on bear the token; what is held goes on until it ends. */
        if (grant->token == host->token)
            return false;
        host->token = grant->token;
        host->applied = 0;
        host->adopted = host->number;
        host->hurry = true;
        return true;
    }
    uint64_t until = host->asked_at[grant->asked % EXACT_IN_FLIGHT] + host->lease_ns;
    if (grant->token != host->token || grant->number < host->applied || until <= now)
        return false;
    meter_fill(host->meter, now, true);
    /* The part first: were this process to die between, a longer lease of the old part would not be what was granted.
     */
    if (grant->number > host->applied) {
        host->hurry |= grant->part.rate < atomic_load(&meter->rate) || grant->part.depth < atomic_load(&meter->depth);
        meter_set(host->meter, grant->part.rate, grant->part.depth);
        host->applied = grant->number;
    }
    if (until > atomic_load(&meter->until))
        meter_extend(host->meter, now, until);
    return true;
}
