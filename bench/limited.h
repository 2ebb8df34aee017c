/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_LIMITED_H
#define SM_BENCH_LIMITED_H

/*
 * A service (service.h) whose middlebox is the rate limiter, one limiter for each replica.
 *
 * Life-cycle.  limited_open -> measure with `service` -> limited_close, also when limited_open has failed.
 */

#include "limiter.h"
#include "service.h"

struct limited {
    struct policy *policy;
    struct limiter *limiter[SERVICE_REPLICAS];
    unsigned started;
    struct service service;
};

/* `wanted` but for what the middlebox is. SM_E_INVALID: the policy; as service_open(). */
int limited_open(struct limited *limited, const char *policy, const struct service_options *wanted,
                 struct sm_errbuf *error);

/* As service_close(). */
int limited_close(struct limited *limited, int result, struct sm_errbuf *error);

#endif
