/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DISTRIBUTED_H
#define RATELIMITER_DISTRIBUTED_H

/* The limits that this host has together with others, as a replica meets them: buckets that the exchange fills. */

#include <splitmerge/bucket.h>
#include <splitmerge/splitmerge.h>

#include "peers/exchange.h"

struct distributed;

/* `config` stays the caller's and must outlive it. NULL: out of memory. */
struct distributed *distributed_create(const struct exchange_config *config);

/* Ends the exchange, before the replica is closed. NULL is allowed. */
void distributed_destroy(struct distributed *distributed);

/* Register the shared objects; between sm_open() and sm_start(). 0 or an error of the runtime. */
int distributed_register(struct distributed *distributed, struct sm_replica *replica);

/* After sm_start(): find them, and begin to exchange. SM_E_IO: *error says what could not be had. */
int distributed_start(struct distributed *distributed, struct sm_replica *replica, struct sm_errbuf *error);

/* What a packet asks of a limit, and has got. */
struct distributed_taking {
    unsigned limit; /* its number in the configuration */
    uint32_t cost;
    uint64_t reserve; /* part of the bucket's depth that it must leave, in 2^-32 */
    /* Of a limit with keys: what its key is, and what the limit is for that. */
    enum sm_granularity by;
    uint8_t prefix4, prefix6; /* bits of the address that count; 0: all */
    uint64_t of;              /* which of the limit's buckets by the key, */
    uint16_t tag;             /* and what its flows are tagged with here */
    struct sm_bucket_rate rate;
    /* What it has got. */
    struct meter_slot slot;
    uint64_t departs; /* packet time */
    struct keys_ask ask;
    struct key_place *place;
    struct meter *from;
};

/* Whether a packet conforms; it is taken then. Any of the host's replicas. */
bool distributed_take(struct distributed *distributed, const struct sm_packet *packet,
                      struct distributed_taking *taking);

/* Give back what was taken: the packet is dropped for another reason, or decided anew. */
void distributed_give_back(struct distributed *distributed, const struct distributed_taking *taking);

/* Count for the packet's key, where there are keys, that it goes on, or that it exceeded the limit. */
void distributed_count(struct distributed *distributed, const struct distributed_taking *taking, bool goes_on);

#endif
