/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_LIMITER_H
#define RATELIMITER_LIMITER_H

/* The rate limiter as a middlebox: its flow classes and what it does with a packet. */

#include <splitmerge/splitmerge.h>

#include "policy.h"

struct limiter;

/* `policy` stays the caller's and must outlive the limiter. NULL: out of memory. */
struct limiter *limiter_create(const struct policy *policy);
void limiter_destroy(struct limiter *limiter);

/* Register classes and drop reasons; between sm_open() and sm_start(). 0 or an error of the runtime. */
int limiter_register(struct limiter *limiter, struct sm_replica *replica);

/* After sm_start(): learn which classes are shared. SM_E_CONFLICT: one that has to be partitioned is not. */
int limiter_started(struct limiter *limiter, struct sm_replica *replica, struct sm_errbuf *error);

/* Before sm_close(): nothing uses the service's memory any more. */
void limiter_detach(struct limiter *limiter);

/* What a limit has come to on all replicas, by its number in the policy; as sm_counter_read(). */
struct limiter_counts {
    uint64_t packets, bytes; /* that it let through, and that were sent on */
    uint64_t exceeded;       /* packets that it dropped, or that were sent on though it lacked tokens: marked */
};
struct limiter_counts limiter_counts(const struct limiter *limiter, const struct sm_replica *replica, unsigned limit);

/* The packet handler; `user` is the limiter. */
sm_packet_fn limiter_packet;

#endif
