/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/flows.h"

#include <math.h>
#include <stddef.h>

#define SETS (DRL_FLOWS / DRL_FLOW_WAYS)
#define FORGOTTEN 1.0     /* bytes: nobody */
#define QUIET_GAPS 4.0    /* as long as so many of its packets were apart, */
#define QUIET_SECONDS 0.1 /* and as this, may a flow be quiet, */
#define QUICK 0.1         /* and is then forgotten so much sooner */
#define TYPICAL 1500.0    /* bytes of a packet */
#define SHARE_PASSES 8u

static unsigned set_of(uint64_t key)
{
    return (key * 0x9e3779b97f4a7c15ull >> 32) % SETS * DRL_FLOW_WAYS;
}

const struct drl_flow *drl_flows_find(const struct drl_flows *flows, uint64_t key)
{
    const struct drl_flow *set = &flows->place[set_of(key)];

    for (unsigned i = 0; i < DRL_FLOW_WAYS; i++)
        if (set[i].key == key && set[i].bytes > 0)
            return &set[i];
    return NULL;
}

void drl_flows_enter(struct drl_flows *flows, uint64_t key, uint64_t now, uint32_t bytes)
{
    struct drl_flow *set = &flows->place[set_of(key)];
    struct drl_flow *flow = set;

    for (unsigned i = 0; i < DRL_FLOW_WAYS; i++) {
        if (set[i].key == key && set[i].bytes > 0) {
            set[i].bytes += bytes;
            set[i].last = now;
            return;
        }
        if (set[i].bytes < flow->bytes)
            flow = &set[i];
    }
    if (flow->bytes == 0)
        flows->live[flows->count++] = (uint16_t)(flow - flows->place);
    *flow = (struct drl_flow){.key = key, .last = now, .bytes = bytes};
}

static bool has_stopped(const struct drl_flow *flow, uint64_t now)
{
    double gap = TYPICAL * DRL_FLOW_MEMORY / flow->bytes;

    return (double)(now - flow->last) / 1e9 > QUIET_SECONDS + QUIET_GAPS * gap;
}

void drl_flows_fade(struct drl_flows *flows, uint64_t now, double seconds)
{
    double keep = pow(0.1, seconds), keep_stopped = pow(0.1, seconds / QUICK);

    for (unsigned i = 0; i < flows->count;) {
        struct drl_flow *flow = &flows->place[flows->live[i]];
        flow->bytes *= has_stopped(flow, now) ? keep_stopped : keep;
        if (flow->bytes >= FORGOTTEN) {
            i++;
            continue;
        }
        flow->bytes = 0;
        flows->live[i] = flows->live[--flows->count];
    }
}

double drl_flows_share(const struct drl_flows *flows, double rate)
{
    double share = 0;

    /* It only rises, as whoever wants less than it leaves the rest to the others. */
    for (unsigned pass = 0; pass < SHARE_PASSES; pass++) {
        double left = rate * DRL_FLOW_MEMORY, before = share;
        unsigned above = 0;
        for (unsigned i = 0; i < flows->count; i++) {
            double bytes = flows->place[flows->live[i]].bytes;
            above += bytes > share;
            left -= bytes > share ? 0 : bytes;
        }
        if (above == 0)
            return INFINITY;
        share = left / above;
        if (share <= before)
            break;
    }
    return share;
}

double drl_flows_worth(const struct drl_flows *flows)
{
    double sum = 0, squares = 0;

    for (unsigned i = 0; i < flows->count; i++) {
        double bytes = flows->place[flows->live[i]].bytes;
        sum += bytes;
        squares += bytes * bytes;
    }
    return squares > 0 ? sum * sum / squares : 0;
}
