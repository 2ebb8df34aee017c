/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_KIT_LIMITER_MIDDLEBOX_H
#define SM_TESTS_KIT_LIMITER_MIDDLEBOX_H

/* The rate limiter as a middlebox of the test kit: callbacks of struct sm_test_options whose `user` is a policy. */

#include <splitmerge/testing.h>

#include "limiter.h"

static inline int limiter_setup(struct sm_replica *replica, void **user)
{
    *user = limiter_create(*user);
    return *user ? limiter_register(*user, replica) : SM_E_NO_MEMORY;
}

static inline int limiter_ready(struct sm_replica *replica, void *user)
{
    struct sm_errbuf error;

    return limiter_started(user, replica, &error);
}

static inline void limiter_ended(struct sm_replica *replica, void *user)
{
    (void)replica;
    limiter_destroy(user);
}

#endif
