/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A host's side of the mode `exact`: keeps a lease, and fills the meter by it.
 *
 * Life-cycle of a lease.  It is counted from when the ask was sent that the grant answers, so it ends here before the
 * home counts it as ended, however long either was under way. It ends by itself, for whoever takes from the meter too:
 * `until` is in the meter. Each answer prolongs it. A smaller part is in use before the next ask says so, and that one
 * is sent at once.
 *
 * Packets that wait.  They depart by the part that was in use when they came, before the lease's end. So a smaller part
 * is said to be in use when the longest wait is over; and whoever begins anew, or has given up, first waits that long.
 *
 * Clocks.  A clock that went back would make the lease longer: the lease is given up. One that jumped ahead only ends
 * it early; no tokens are made for the jump (meter.h).
 */

#include <string.h>

#include "drl/exact.h"

#define HURRY 8 /* parts of an interval: asks are no closer */

void exact_host_start(struct exact_host *host, struct meter *meter, const struct exact_limit *limit,
                      const struct exact_host_options *options, uint64_t now)
{
    *host = (struct exact_host){.meter = meter,
                                .lease_ns = limit->lease_ns,
                                .interval_ns = options->interval_ns,
                                .settle_ns = options->queue_ns,
                                .silent_until = now + options->queue_ns,
                                .time = now,
                                .number = options->random,
                                .adopted = options->random,
                                .hurry = true};
    meter_resume(meter, now);
}

static void give_up(struct exact_host *host, uint64_t now)
{
    meter_void(host->meter);
    memset(host->asked_at, 0, sizeof host->asked_at);
    host->token = 0;
    host->adopted = host->number;
    host->hurry = true;
    host->silent_until = now + host->settle_ns;
}

bool exact_host_time(struct exact_host *host, uint64_t now)
{
    if (now < host->time)
        give_up(host, now);
    host->time = now;
    meter_fill(host->meter, now, true);
    if (host->applied != host->used && now - host->used_at >= host->settle_ns) {
        host->applied = host->used;
        host->hurry = true;
    }
    if (now < host->silent_until)
        return false;
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
        host->applied = host->used = 0;
        host->adopted = host->number;
        host->hurry = true;
        return true;
    }
    uint64_t until = host->asked_at[grant->asked % EXACT_IN_FLIGHT] + host->lease_ns;
    if (grant->token != host->token || grant->number < host->used || until <= now)
        return false;
    meter_fill(host->meter, now, true);
    /* The part first: were this process to die between, a longer lease of the old part would not be what was granted.
     */
    if (grant->number > host->used) {
        bool less = grant->part.rate < atomic_load(&meter->rate) || grant->part.depth < atomic_load(&meter->depth);
        meter_set(host->meter, grant->part.rate, grant->part.depth);
        host->used = grant->number;
        host->used_at = now;
        host->hurry |= less;
        if (!less || host->settle_ns == 0)
            host->applied = host->used;
    }
    if (until > atomic_load(&meter->until))
        meter_extend(host->meter, now, until);
    return true;
}
