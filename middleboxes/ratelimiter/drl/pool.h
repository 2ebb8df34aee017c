/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DRL_POOL_H
#define RATELIMITER_DRL_POOL_H

/* DRL_POOL: see pool.c. */

#include <stdbool.h>
#include <stdint.h>

struct drl;
struct drl_allowance;
struct drl_options;
struct drl_update;
struct pool;

/* Sets drl->pool. False: out of memory. */
bool pool_create(struct drl *drl, uint64_t now);
void pool_destroy(struct pool *pool);
unsigned pool_interval(struct drl *drl, uint64_t now, double seconds, uint32_t *to, struct drl_update *update);
bool pool_receive(struct drl *drl, uint64_t now, const struct drl_update *update, struct drl_update *reply,
                  unsigned *replies);

/* Bytes, as drl_bound(). */
double pool_overuse(const struct drl_options *options);

/* drl_account(), drl_account_passed(), drl_forget(). */
void pool_account(struct drl *drl, uint64_t now, uint64_t key, uint32_t bytes);
void pool_account_passed(struct drl *drl, double arrived, double passed);
void pool_forget(struct drl *drl, unsigned limiter);
void pool_allowance(const struct drl *drl, struct drl_allowance *allowance);
double pool_sent(const struct drl *drl, uint64_t key);

/* drl_packet(), by a share of its own, and what that has counted when an interval ends. */
bool pool_packet(struct drl *drl, uint64_t now, uint64_t flow, uint32_t bytes);
void pool_count(struct drl *drl, uint64_t now);

#endif
