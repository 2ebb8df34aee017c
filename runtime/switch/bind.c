/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Bound keys: a table from a key to the shard of the flow that it is bound to, looked at before the hash decides.
 *
 * Overview.  Replicas keep bindings with their flows (state/bound.c) and tell the switch by entries in the ring of
 * bindings, which become final with the answer behind them (channel.h). The table is the switch's alone.
 *
 * Life-cycle.  A binding is an entry of (key, shard); a shard moves, dies and is taken over without changing it. Rings
 * are read one after the other, so a key that changed shards may be met in the new one first: there may be entries of
 * several shards for a key, and the one met first counts, until it ends: whoever binds a key later does not take its
 * packets away. Where all are learnt at once they are met by number of shard.
 *
 * Files.  Reading stops behind a packet that may bind until all that is under way is back: each packet is steered by
 * what the ones before it bound, and those that went by the hash have left before the first that goes by the binding.
 *
 * Limits.  limits.bindings are alive; beyond them there may be entries whose end has not been met: as many as packets
 * in flight can have bound meanwhile.
 */

#include "switch/bind.h"

#include <stdlib.h>
#include <string.h>

#define LINKTYPE_RAW 12 /* DLT_RAW on Linux: a packet begins with its IP header */

static int open_filters(struct sm_switch *sw, struct switch_bindings *bindings)
{
    const struct registration *registration = &sw->arena->registration;
    struct sm_errbuf error;

    for (unsigned i = 0; i < registration->class_count; i++) {
        const char *text = registration->classes[i].binds;
        if (text[0] == '\0')
            continue;
        int result = sm_filter_create(&bindings->filters[bindings->filter_count], LINKTYPE_RAW, text, &error);
        if (result)
            return result;
        bindings->filter_count++;
    }
    return 0;
}

static int open_table(struct sm_switch *sw, struct switch_bindings *bindings)
{
    uint32_t buckets = 1;

    bindings->size = sw->bindings_max + 2 * SM_MAX_BINDS * sw->buffers;
    while (buckets < bindings->size)
        buckets *= 2;
    bindings->mask = buckets - 1;
    bindings->keys = calloc(bindings->size, sizeof *bindings->keys);
    bindings->buckets = malloc(buckets * sizeof *bindings->buckets);
    return bindings->keys && bindings->buckets ? 0 : SM_E_NO_MEMORY;
}

static void clear(struct switch_bindings *bindings)
{
    for (uint32_t i = 0; i <= bindings->mask; i++)
        bindings->buckets[i] = BOUND_NONE;
    for (uint32_t i = 0; i < bindings->size; i++)
        bindings->keys[i].next = i + 1 < bindings->size ? i + 1 : BOUND_NONE;
    bindings->free = 0;
    bindings->count = 0;
}

void switch_bind_open(struct sm_switch *sw)
{
    bool any = false;

    for (unsigned i = 0; i < sw->arena->registration.class_count; i++)
        any |= sw->arena->registration.classes[i].binds[0] != '\0';
    if (!any)
        return;
    sw->bindings = calloc(1, sizeof *sw->bindings);
    int result = sw->bindings ? open_filters(sw, sw->bindings) : SM_E_NO_MEMORY;
    if (result == 0)
        result = open_table(sw, sw->bindings);
    if (result) {
        switch_bind_close(sw);
        switch_fail(sw, "cannot bind keys: %s", sm_strerror(result));
        return;
    }
    switch_bind_learn(sw);
}

void switch_bind_close(struct sm_switch *sw)
{
    if (!sw->bindings)
        return;
    for (unsigned i = 0; i < sw->bindings->filter_count; i++)
        sm_filter_destroy(sw->bindings->filters[i]);
    free(sw->bindings->keys);
    free(sw->bindings->buckets);
    free(sw->bindings);
    sw->bindings = NULL;
}

static bool same(const struct bound_key *bound, const struct sm_key *key, uint64_t hash)
{
    return bound->hash == hash && memcmp(&bound->key, key, sizeof *key) == 0;
}

/* The first entry of a key, or that of a shard; where the reference to it stands, or would stand. */
static uint32_t *find(struct switch_bindings *bindings, const struct sm_key *key, uint64_t hash, uint32_t shard)
{
    uint32_t *link = &bindings->buckets[(uint32_t)hash & bindings->mask];

    while (*link != BOUND_NONE) {
        struct bound_key *bound = &bindings->keys[*link];
        if (same(bound, key, hash) && (shard == SM_SHARDS || bound->shard == shard))
            break;
        link = &bound->next;
    }
    return link;
}

static bool add(struct switch_bindings *bindings, const struct sm_key *key, uint64_t hash, uint16_t shard)
{
    uint32_t *end = find(bindings, key, hash, shard), at = bindings->free;

    if (*end != BOUND_NONE)
        return true;
    if (at == BOUND_NONE)
        return false;
    bindings->free = bindings->keys[at].next;
    bindings->keys[at] = (struct bound_key){.key = *key, .hash = hash, .shard = shard, .next = BOUND_NONE};
    *end = at;
    bindings->count++;
    return true;
}

static void end(struct switch_bindings *bindings, const struct sm_key *key, uint64_t hash, uint16_t shard)
{
    uint32_t *link = find(bindings, key, hash, shard), at = *link;

    if (at == BOUND_NONE)
        return;
    *link = bindings->keys[at].next;
    bindings->keys[at].next = bindings->free;
    bindings->free = at;
    bindings->count--;
}

bool switch_bind_take(struct sm_switch *sw, unsigned slot, uint32_t to)
{
    struct switch_slot *s = &sw->slots[slot];

    /* What the middlebox sends has its answer written before that of the packet that it is sent for. */
    if ((int32_t)(to - s->bind_tail) <= 0)
        return true;
    if (!sw->bindings || to - s->bind_tail > s->bind_mask + 1)
        return false;
    for (; s->bind_tail != to; s->bind_tail++) {
        const struct bind_entry entry = s->bind[s->bind_tail & s->bind_mask];
        uint64_t hash = state_hash(sw->arena->state, &entry.key);
        STEP();
        if (entry.shard >= SM_SHARDS)
            return false;
        if (entry.ends)
            end(sw->bindings, &entry.key, hash, entry.shard);
        else if (!add(sw->bindings, &entry.key, hash, entry.shard))
            return false;
    }
    return true;
}

static bool may_bind(const struct sm_switch *sw, uint32_t buffer, uint32_t ip)
{
    const struct switch_packet *packet = &sw->packets[buffer];
    const uint8_t *data = pool_data(&sw->pool, buffer) + ip;

    for (unsigned i = 0; i < sw->bindings->filter_count; i++)
        if (sm_filter_match(sw->bindings->filters[i], data, packet->caplen - ip, packet->len - ip))
            return true;
    return false;
}

void switch_bind_steer(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_bindings *bindings = sw->bindings;
    const struct packet_meta *meta = pool_meta(&sw->pool, buffer);

    if (bindings->count > 0) {
        uint32_t at = *find(bindings, &meta->key, meta->hash, SM_SHARDS);
        if (at != BOUND_NONE) {
            sw->packets[buffer].shard = bindings->keys[at].shard;
            bindings->steered++;
        }
    }
    if (!sw->cannot_wait)
        sw->paused = may_bind(sw, buffer, meta->headers.l3);
}

void switch_bind_learn(struct sm_switch *sw)
{
    struct state *state = sw->arena->state;

    STEP();
    clear(sw->bindings);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        const struct sm_key *key;
        for (uint32_t cursor = 0; (key = state_binding_next(state, shard, &cursor)) != NULL;)
            if (!add(sw->bindings, key, state_hash(state, key), (uint16_t)shard)) {
                switch_fail(sw, "there are more bound keys than limits.bindings");
                return;
            }
    }
}
