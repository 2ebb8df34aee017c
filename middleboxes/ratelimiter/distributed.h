/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DISTRIBUTED_H
#define RATELIMITER_DISTRIBUTED_H

/* The limits that this host has together with others, as a replica meets them: buckets that the exchange fills. */

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

/* Whether a packet conforms to a limit, by its number in the configuration; it is taken then. Any of the host's
 * replicas. */
bool distributed_take(struct distributed *distributed, unsigned limit, const struct sm_packet *packet, uint32_t cost);

/* Give back what was taken: the packet is dropped for another reason, or decided anew. */
void distributed_give_back(struct distributed *distributed, unsigned limit, uint32_t cost);

#endif
