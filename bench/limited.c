/* SPDX-License-Identifier: BSD-2-Clause */
#include "limited.h"

#include <string.h>

static int setup(struct sm_replica *replica, void *user)
{
    struct limited *limited = user;

    return limiter_register(replica->user = limited->limiter[limited->started++], replica);
}

int limited_open(struct limited *limited, const char *policy, const struct service_options *wanted,
                 struct sm_errbuf *error)
{
    struct service_options options = *wanted;

    *limited = (struct limited){.policy = policy_parse("bench", policy, strlen(policy), error), .service.arena_fd = -1};
    if (!limited->policy)
        return SM_E_INVALID;
    for (unsigned i = 0; i < options.replicas; i++)
        if (!(limited->limiter[i] = limiter_create(limited->policy)))
            return SM_E_NO_MEMORY;
    options.setup = setup;
    options.on_packet = limiter_packet;
    options.user = limited;
    int result = service_open(&limited->service, &options, error);
    for (unsigned i = 0; result == 0 && i < options.replicas; i++)
        result = limiter_started(limited->limiter[i], limited->service.replicas[i].replica, error);
    return result;
}

int limited_close(struct limited *limited, int result, struct sm_errbuf *error)
{
    result = service_close(&limited->service, result, error);
    for (unsigned i = 0; i < SERVICE_REPLICAS; i++)
        limiter_destroy(limited->limiter[i]);
    policy_free(limited->policy);
    return result;
}
