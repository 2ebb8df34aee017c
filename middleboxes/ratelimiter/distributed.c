/* SPDX-License-Identifier: BSD-2-Clause */
#include "distributed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peers/loop.h"
#include <splitmerge/bucket.h>

/*
 * Overview.  A distributed limit is one bucket for a host (drl/share.h), which lies in shared objects that all
 * replicas map. It is filled by the clock of the host's exchange, not by packet time. Taking is one atomic step.
 *
 * Packets that wait.  Their departures are by that clock too. In packet time it is the same much later, for all of a
 * limit: as much as for the packet that was the quickest to get here, or they would change places.
 *
 * Deaths.  What a replica has taken for packets that it did not commit stays taken, and who processes them again takes
 * again: a burst's worth of tokens is lost, none is made.
 */

_Static_assert(sizeof(struct share_page) <= SM_MAX_SHARED_SIZE && sizeof(struct members) <= SM_MAX_SHARED_SIZE &&
                   sizeof(struct keys_page) <= SM_MAX_SHARED_SIZE && sizeof(struct keys_head) <= SM_MAX_SHARED_SIZE,
               "they are shared objects");

struct distributed {
    const struct exchange_config *config;
    sm_strong heads[SHARE_MOST], pages[SHARE_MOST][SHARE_PAGES], members;
    bool has_keys;
    sm_strong keys_head, keys_pages[KEYS_PAGES];
    struct exchange_state state;
    struct peers_loop *loop;
    uint64_t random;
};

struct distributed *distributed_create(const struct exchange_config *config)
{
    struct distributed *distributed = calloc(1, sizeof *distributed);

    if (distributed)
        *distributed = (struct distributed){.config = config, .random = datagram_random()};
    return distributed;
}

void distributed_destroy(struct distributed *distributed)
{
    if (distributed)
        peers_loop_end(distributed->loop);
    free(distributed);
}

/* FNV-1a. */
static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261u;

    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619u;
    return hash;
}

/* The table of keys, for all limits that have any: where the first of them is. */
static int register_keys(struct distributed *distributed, struct sm_replica *replica)
{
    int status = 0;
    char name[32];

    if (!distributed->has_keys)
        status = sm_strong_register(replica, "keys", sizeof(struct keys_head), &distributed->keys_head);
    for (unsigned i = 0; status == 0 && !distributed->has_keys && i < KEYS_PAGES; i++) {
        snprintf(name, sizeof name, "keys-%u", i);
        status = sm_strong_register(replica, name, sizeof(struct keys_page), &distributed->keys_pages[i]);
    }
    distributed->has_keys = true;
    return status;
}

int distributed_register(struct distributed *distributed, struct sm_replica *replica)
{
    int status = sm_strong_register(replica, "peers", sizeof(struct members), &distributed->members);

    for (unsigned i = 0; status == 0 && i < distributed->config->limit_count; i++) {
        if (distributed->config->limits[i].keyed) {
            status = register_keys(distributed, replica);
            continue;
        }
        /* By the limit's name, so that a reloaded policy's are the same ones, or refused. */
        uint32_t hash = hash_of(distributed->config->limits[i].name);
        char name[32];
        snprintf(name, sizeof name, "share-%08x", hash);
        status = sm_strong_register(replica, name, sizeof(struct share_head), &distributed->heads[i]);
        for (unsigned k = 0; status == 0 && k < SHARE_PAGES; k++) {
            snprintf(name, sizeof name, "share-%08x-%u", hash, k);
            status = sm_strong_register(replica, name, sizeof(struct share_page), &distributed->pages[i][k]);
        }
    }
    return status;
}

/* "peers.sock" beside the socket that a service is attached to by. */
static const char *control_path(char path[static 108])
{
    const char *attach = getenv("SPLITMERGE_ATTACH"), *slash = attach ? strrchr(attach, '/') : NULL;

    if (!slash || snprintf(path, 108, "%.*s/peers.sock", (int)(slash - attach), attach) >= 108)
        return NULL;
    return path;
}

int distributed_start(struct distributed *distributed, struct sm_replica *replica, struct sm_errbuf *error)
{
    char path[108];

    /* Every word of these is atomic, and nothing of them is ever undone: they are used without a lock. */
    struct exchange_state *state = &distributed->state;
    for (unsigned i = 0; i < distributed->config->limit_count; i++) {
        struct share *share = &state->shares[i];
        if (distributed->config->limits[i].keyed)
            continue;
        share->head = sm_shared_get(replica, distributed->heads[i], SM_LOCAL, NULL);
        for (unsigned k = 0; k < SHARE_PAGES; k++)
            share->page[k] = sm_shared_get(replica, distributed->pages[i][k], SM_LOCAL, NULL);
    }
    if (distributed->has_keys)
        state->keys.head = sm_shared_get(replica, distributed->keys_head, SM_LOCAL, NULL);
    for (unsigned i = 0; distributed->has_keys && i < KEYS_PAGES; i++)
        state->keys.page[i] = sm_shared_get(replica, distributed->keys_pages[i], SM_LOCAL, NULL);
    state->members = sm_shared_get(replica, distributed->members, SM_LOCAL, NULL);
    distributed->loop = peers_loop_begin(distributed->config, state, control_path(path), error);
    return distributed->loop ? 0 : SM_E_IO;
}

static uint32_t next_random(struct distributed *distributed)
{
    distributed->random ^= distributed->random << 13;
    distributed->random ^= distributed->random >> 7;
    distributed->random ^= distributed->random << 17;
    return (uint32_t)(distributed->random >> 32);
}

static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    uint64_t word;

    for (; bytes >= sizeof word; bytes -= sizeof word, data = (const uint8_t *)data + sizeof word) {
        memcpy(&word, data, sizeof word);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 32;
    }
    return hash;
}

static uint64_t flow_of(const struct sm_packet *packet)
{
    struct sm_key key;

    sm_packet_key(packet, SM_BY_FLOW, &key);
    return mix(0, &key, sizeof key);
}

/* Only the first bits count; 0: all. */
static void cut(uint8_t address[static 16], unsigned bits)
{
    for (unsigned i = 0; bits > 0 && i < 16; i++)
        if (i >= bits / 8)
            address[i] &= (uint8_t)(i > bits / 8 ? 0 : 0xff00u >> bits % 8);
}

/* What a bucket with a key is known by on all hosts; who does not know their secret cannot look for keys that meet. */
static uint64_t bucket_of(const struct distributed *distributed, const struct sm_packet *packet,
                          const struct distributed_taking *taking, struct sm_key *key)
{
    const uint64_t numbers[] = {taking->of, taking->rate.rate, taking->rate.burst};
    uint64_t hash = mix(0, distributed->config->key, sizeof distributed->config->key);

    sm_packet_key(packet, taking->by, key);
    cut(key->a, key->family == 4 ? taking->prefix4 : taking->prefix6);
    hash = mix(mix(hash, numbers, sizeof numbers), key, sizeof *key);
    key->tag = taking->tag;             /* this host's own */
    hash = (hash ^ hash >> 29) & ~1ull; /* keys are even */
    return hash ? hash : 2;
}

/* How far packet time is ahead of the clock; a second's difference is a step of one of them. */
static uint64_t clock_ahead(_Atomic int64_t *most, uint64_t packet_time, uint64_t now)
{
    int64_t ahead = (int64_t)(packet_time - now), before = atomic_load(most);

    while (ahead > before || before - ahead > 1000000000)
        if (atomic_compare_exchange_weak(most, &before, ahead))
            return (uint64_t)ahead;
    return (uint64_t)before;
}

/* The packet time at which a packet departs that has got a slot. */
static uint64_t departure(_Atomic int64_t *most, const struct sm_packet *packet, const struct meter_slot *slot,
                          uint64_t now)
{
    uint64_t came = sm_packet_time(packet).ns, departs = slot->departs + clock_ahead(most, came, now);

    return (int64_t)(departs - came) > 0 ? departs : came;
}

static bool take_by_key(struct distributed *distributed, const struct sm_packet *packet,
                        struct distributed_taking *taking)
{
    const struct exchange_limit *limit = &distributed->config->limits[taking->limit];
    const struct keys *keys = &distributed->state.keys;
    uint64_t now = peers_clock();

    taking->ask = (struct keys_ask){.limit = taking->limit,
                                    .shares = !limit->exact,
                                    .rate = taking->rate.rate,
                                    .depth = taking->rate.burst * SM_BUCKET_UNIT,
                                    .cost = taking->cost,
                                    .amount = taking->cost * SM_BUCKET_UNIT,
                                    .reserve = taking->reserve,
                                    .longest = limit->queue_ns};
    taking->ask.key = bucket_of(distributed, packet, taking, &taking->ask.who);
    bool has = keys_take(keys, &taking->ask, now, &taking->place, &taking->from, &taking->slot);
    if (has && limit->queue_ns > 0)
        taking->departs = departure(&keys->head->ahead, packet, &taking->slot, now);
    return has;
}

static bool take_queued(struct distributed *distributed, const struct sm_packet *packet,
                        struct distributed_taking *taking)
{
    const struct share *share = &distributed->state.shares[taking->limit];
    uint64_t now = peers_clock(), longest = distributed->config->limits[taking->limit].queue_ns;
    bool has =
        share_queue(share, flow_of(packet), taking->cost, taking->cost * SM_BUCKET_UNIT, now, longest, &taking->slot);

    if (has)
        taking->departs = departure(&share->head->ahead, packet, &taking->slot, now);
    return has;
}

bool distributed_take(struct distributed *distributed, const struct sm_packet *packet,
                      struct distributed_taking *taking)
{
    const struct share *share = &distributed->state.shares[taking->limit];

    taking->slot = (struct meter_slot){0};
    taking->departs = sm_packet_time(packet).ns;
    if (distributed->config->limits[taking->limit].keyed)
        return take_by_key(distributed, packet, taking);
    if (distributed->config->limits[taking->limit].queue_ns > 0)
        return take_queued(distributed, packet, taking);
    uint64_t now = meter_needs_time(&share->head->meter) ? peers_clock() : 0;
    return share_borrow(share, flow_of(packet), taking->cost, taking->cost * SM_BUCKET_UNIT, next_random(distributed),
                        taking->reserve, now);
}

void distributed_give_back(struct distributed *distributed, const struct distributed_taking *taking)
{
    if (distributed->config->limits[taking->limit].keyed)
        keys_give_back(taking->from, &taking->ask, &taking->slot);
    else
        share_unqueue(&distributed->state.shares[taking->limit], taking->cost, taking->cost * SM_BUCKET_UNIT,
                      &taking->slot);
}

void distributed_count(struct distributed *distributed, const struct distributed_taking *taking, bool goes_on)
{
    if (distributed->config->limits[taking->limit].keyed)
        keys_count(taking->place, &taking->ask, goes_on);
}
