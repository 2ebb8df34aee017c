/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/affinity.h"

#include <assert.h>
#include <stdlib.h>

_Static_assert(sizeof(struct affinity_flow) == 32, "two to a cache line");

struct affinity *affinity_create(uint32_t limit, uint64_t idle_ns)
{
    struct affinity *affinity = calloc(1, sizeof *affinity);
    uint32_t buckets = 1;

    assert(limit > 0 && limit < AFFINITY_NONE);
    while (buckets < limit && buckets < 1u << 31)
        buckets *= 2;
    if (!affinity)
        return NULL;
    affinity->limit = limit;
    affinity->mask = buckets - 1;
    affinity->idle_ns = idle_ns;
    affinity->free = AFFINITY_NONE;
    affinity->flows = calloc(limit, sizeof *affinity->flows); /* the kernel gives pages as they are used */
    affinity->buckets = malloc(buckets * sizeof *affinity->buckets);
    if (!affinity->flows || !affinity->buckets) {
        affinity_destroy(affinity);
        return NULL;
    }
    for (uint32_t i = 0; i < buckets; i++)
        affinity->buckets[i] = AFFINITY_NONE;
    return affinity;
}

void affinity_destroy(struct affinity *affinity)
{
    if (!affinity)
        return;
    free(affinity->flows);
    free(affinity->buckets);
    free(affinity);
}

/* Whether its replica is alive, or another one has the slot. */
static bool has_replica(const struct affinity *affinity, const struct affinity_flow *flow)
{
    return flow->era == affinity->eras[flow->slot];
}

static bool has_ended(const struct affinity *affinity, const struct affinity_flow *flow, uint64_t now)
{
    uint64_t idle = affinity->idle_ns;

    if (!has_replica(affinity, flow))
        return true;
    if (flow->in_flight > 0)
        return false;
    if (flow->closed == AFFINITY_CLOSED && idle > AFFINITY_CLOSED_NS)
        idle = AFFINITY_CLOSED_NS;
    return affinity->over || (now > flow->seen && now - flow->seen > idle);
}

static uint32_t lookup(const struct affinity *affinity, uint64_t hash)
{
    uint32_t flow = affinity->buckets[hash & affinity->mask];

    while (flow != AFFINITY_NONE && affinity->flows[flow].hash != hash)
        flow = affinity->flows[flow].next;
    return flow;
}

static void forget(struct affinity *affinity, uint32_t number)
{
    struct affinity_flow *flow = &affinity->flows[number];
    uint32_t *link = &affinity->buckets[flow->hash & affinity->mask];

    while (*link != number)
        link = &affinity->flows[*link].next;
    *link = flow->next;
    if (has_replica(affinity, flow))
        affinity->known[flow->slot]--;
    *flow = (struct affinity_flow){.next = affinity->free};
    affinity->free = number;
}

uint32_t affinity_find(struct affinity *affinity, uint64_t hash, uint64_t now, bool opens)
{
    uint32_t number = lookup(affinity, hash);

    if (number == AFFINITY_NONE)
        return AFFINITY_NONE;
    struct affinity_flow *flow = &affinity->flows[number];
    bool reopened = opens && flow->closed == AFFINITY_CLOSED && flow->in_flight == 0;
    if (!reopened && !has_ended(affinity, flow, now)) {
        if (opens)
            flow->closed = 0;
        return number;
    }
    /* Once and for all: this packet may be held, and the next one must not find the flow where it was. */
    if (flow->in_flight == 0)
        forget(affinity, number);
    return AFFINITY_NONE;
}

/* A place in the table for a new hash. */
static uint32_t take(struct affinity *affinity, uint64_t hash)
{
    uint32_t number = affinity->free;

    if (number != AFFINITY_NONE)
        affinity->free = affinity->flows[number].next;
    else if (affinity->made < affinity->limit)
        number = affinity->made++;
    else
        return AFFINITY_NONE;
    uint32_t *bucket = &affinity->buckets[hash & affinity->mask];
    affinity->flows[number] = (struct affinity_flow){.hash = hash, .next = *bucket, .used = 1};
    *bucket = number;
    return number;
}

uint32_t affinity_enter(struct affinity *affinity, uint64_t hash, unsigned slot)
{
    uint32_t number = lookup(affinity, hash);

    if (number == AFFINITY_NONE) {
        number = take(affinity, hash);
        if (number == AFFINITY_NONE) {
            affinity->refused++;
            return AFFINITY_NONE;
        }
    } else if (has_replica(affinity, &affinity->flows[number])) {
        affinity->known[affinity->flows[number].slot]--;
    }
    struct affinity_flow *flow = &affinity->flows[number];
    flow->slot = (uint8_t)slot;
    flow->era = affinity->eras[slot];
    flow->closed = 0;
    affinity->known[slot]++;
    affinity->entered++;
    return number;
}

void affinity_sent(struct affinity *affinity, uint32_t flow, uint64_t now, unsigned closed)
{
    struct affinity_flow *f = &affinity->flows[flow];

    f->in_flight++;
    f->closed |= closed & AFFINITY_CLOSED;
    if (now > f->seen)
        f->seen = now;
}

void affinity_back(struct affinity *affinity, uint32_t flow)
{
    assert(affinity->flows[flow].in_flight > 0);
    affinity->flows[flow].in_flight--;
}

void affinity_forsake(struct affinity *affinity, unsigned slot)
{
    affinity->eras[slot]++;
    affinity->known[slot] = 0;
}

void affinity_sweep(struct affinity *affinity, uint64_t now, uint32_t most)
{
    for (uint32_t n = most < affinity->made ? most : affinity->made; n > 0; n--) {
        if (affinity->hand >= affinity->made)
            affinity->hand = 0;
        const struct affinity_flow *flow = &affinity->flows[affinity->hand];
        if (flow->used && flow->in_flight == 0 && has_ended(affinity, flow, now))
            forget(affinity, affinity->hand);
        affinity->hand++;
    }
}
