/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/gossip.h"

#include <stdlib.h>

#include "drl/drl.h"

#define WEIGHT_LEAST 0.05 /* below, all is kept: what is divided by must not vanish while nothing comes back */

bool gossip_init(struct gossip *gossip, unsigned limiters, unsigned self, unsigned fanout)
{
    unsigned others = limiters - 1;

    *gossip = (struct gossip){
        .limiters = limiters,
        .self = self,
        .fanout = fanout < others ? fanout : others,
        .mesh = fanout >= others,
        .weight = 1,
        .peers = calloc(limiters, sizeof *gossip->peers),
    };
    return gossip->peers != NULL;
}

void gossip_free(struct gossip *gossip)
{
    free(gossip->peers);
}

double gossip_remote(const struct gossip *gossip)
{
    double sum = 0;

    if (!gossip->mesh) {
        sum = gossip->limiters * gossip->value / gossip->weight - gossip->own;
        return sum > 0 ? sum : 0;
    }
    for (unsigned i = 0; i < gossip->limiters; i++)
        sum += gossip->peers[i].value;
    return sum;
}

static uint64_t next_random(uint64_t *random)
{
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return *random * 2685821657736338717ull >> 32;
}

/* Some other limiter that has not been picked yet. */
static uint32_t pick(const struct gossip *gossip, uint64_t *random, const uint32_t *picked, unsigned count)
{
    for (;;) {
        uint32_t peer = (uint32_t)(next_random(random) % gossip->limiters);
        bool fresh = peer != gossip->self;
        for (unsigned i = 0; i < count; i++)
            fresh &= picked[i] != peer;
        if (fresh)
            return peer;
    }
}

static unsigned tell_everybody(struct gossip *gossip, uint32_t *to, struct drl_update *update)
{
    unsigned count = 0;

    for (uint32_t peer = 0; peer < gossip->limiters; peer++) {
        if (peer == gossip->self)
            continue;
        to[count] = peer;
        update[count++] = (struct drl_update){
            .from = gossip->self, .sequence = ++gossip->peers[peer].sent, .kind = DRL_SUM, .value = {gossip->own, 1}};
    }
    return count;
}

unsigned gossip_tell(struct gossip *gossip, double own, uint64_t *random, uint32_t *to, struct drl_update *update)
{
    gossip->value += own - gossip->own;
    gossip->own = own;
    if (gossip->mesh)
        return tell_everybody(gossip, to, update);
    if (gossip->weight < WEIGHT_LEAST)
        return 0;
    double share = 1.0 / (gossip->fanout + 1);
    for (unsigned i = 0; i < gossip->fanout; i++) {
        to[i] = pick(gossip, random, to, i);
        struct gossip_peer *peer = &gossip->peers[to[i]];
        peer->given_value += gossip->value * share;
        peer->given_weight += gossip->weight * share;
        update[i] = (struct drl_update){.from = gossip->self,
                                        .sequence = ++peer->sent,
                                        .kind = DRL_SUM,
                                        .value = {peer->given_value, peer->given_weight}};
    }
    gossip->value *= share;
    gossip->weight *= share;
    return gossip->fanout;
}

bool gossip_hear(struct gossip *gossip, const struct drl_update *update)
{
    struct gossip_peer *peer = &gossip->peers[update->from];
    uint32_t ahead = update->sequence - peer->heard;

    if (ahead == 0 || ahead > UINT32_MAX / 2 || !(update->value[1] > 0))
        return false;
    if (!gossip->mesh) {
        gossip->value += update->value[0] - peer->value;
        gossip->weight += update->value[1] - peer->weight;
    }
    peer->heard = update->sequence;
    peer->value = update->value[0];
    peer->weight = update->value[1];
    return true;
}

void gossip_forget(struct gossip *gossip, unsigned peer)
{
    struct gossip_peer *forgotten = &gossip->peers[peer];

    *forgotten = (struct gossip_peer){.sent = forgotten->sent, .value = gossip->mesh ? forgotten->value : 0};
}
