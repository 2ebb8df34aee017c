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
 * Deaths.  What a replica has taken for packets that it did not commit stays taken, and who processes them again takes
 * again: a burst's worth of tokens is lost, none is made.
 */

_Static_assert(sizeof(struct share_page) <= SM_MAX_SHARED_SIZE && sizeof(struct members) <= SM_MAX_SHARED_SIZE,
               "they are shared objects");

struct distributed {
    const struct exchange_config *config;
    sm_strong heads[SHARE_MOST], pages[SHARE_MOST][SHARE_PAGES], members;
    struct share shares[SHARE_MOST];
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

int distributed_register(struct distributed *distributed, struct sm_replica *replica)
{
    int status = sm_strong_register(replica, "peers", sizeof(struct members), &distributed->members);

    for (unsigned i = 0; status == 0 && i < distributed->config->limit_count; i++) {
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
    for (unsigned i = 0; i < distributed->config->limit_count; i++) {
        struct share *share = &distributed->shares[i];
        share->head = sm_shared_get(replica, distributed->heads[i], SM_LOCAL, NULL);
        for (unsigned k = 0; k < SHARE_PAGES; k++)
            share->page[k] = sm_shared_get(replica, distributed->pages[i][k], SM_LOCAL, NULL);
    }
    distributed->loop =
        peers_loop_begin(distributed->config, distributed->shares,
                         sm_shared_get(replica, distributed->members, SM_LOCAL, NULL), control_path(path), error);
    return distributed->loop ? 0 : SM_E_IO;
}

static uint32_t next_random(struct distributed *distributed)
{
    distributed->random ^= distributed->random << 13;
    distributed->random ^= distributed->random >> 7;
    distributed->random ^= distributed->random << 17;
    return (uint32_t)(distributed->random >> 32);
}

static uint64_t flow_of(const struct sm_packet *packet)
{
    struct sm_key key;
    uint64_t words[sizeof key / 8], hash = 0;

    sm_packet_key(packet, SM_BY_FLOW, &key);
    memcpy(words, &key, sizeof words);
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 32;
    }
    return hash;
}

bool distributed_take(struct distributed *distributed, unsigned limit, const struct sm_packet *packet, uint32_t cost)
{
    const struct share *share = &distributed->shares[limit];
    uint64_t now = meter_needs_time(&share->head->meter) ? peers_clock() : 0;

    return share_take(share, flow_of(packet), cost, cost * SM_BUCKET_UNIT, next_random(distributed), now);
}

void distributed_give_back(struct distributed *distributed, unsigned limit, uint32_t cost)
{
    share_give_back(&distributed->shares[limit], cost, cost * SM_BUCKET_UNIT);
}
