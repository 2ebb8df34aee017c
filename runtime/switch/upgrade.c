/* SPDX-License-Identifier: BSD-2-Clause */

/* The requests by which an upgrade of the middlebox begins and ends (arena/builds.h). */

#include <stdio.h>

#include "arena/builds.h"
#include "switch/control.h"

struct upgrade_job {
    bool forward_only;
    bool forward;
    struct sm_errbuf error; /* empty: it is done */
};

/* A replica whose build is not the service's is left of an upgrade that has failed half-way: that one goes on. */
static void open_builds(struct sm_switch *sw, void *arg)
{
    struct upgrade_job *job = arg;
    bool again = false;

    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        bool there = sw->slots[i].state == SLOT_READY || sw->slots[i].state == SLOT_RETIRING;
        again |= there && !builds_is_base(sw->arena, i);
    }
    if (builds_open(sw->arena, job->forward_only, again, &job->error) == 0)
        job->error.text[0] = '\0';
}

static void close_builds(struct sm_switch *sw, void *arg)
{
    struct upgrade_job *job = arg;

    for (uint32_t number = 0; job->forward && builds_next(sw->arena) && number < SM_SHARDS; number++) {
        unsigned owner = sw->shards[number].owner;
        if (owner != SWITCH_NONE && builds_is_base(sw->arena, owner)) {
            snprintf(job->error.text, sizeof job->error.text, "shard %u is still with replica %s of the old version",
                     number, sw->slots[owner].name);
            return;
        }
    }
    builds_close(sw->arena, job->forward);
}

static void answer(struct rpc_call *call, const struct upgrade_job *job)
{
    if (job->error.text[0])
        rpc_refuse(call, RPC_FAILED, "%s", job->error.text);
    else
        rpc_reply(call, NULL);
}

void upgrade_begin(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct upgrade_job job = {.forward_only = wire_get_bool(params, "forward_only", false)};

    worker_call(&control->worker, open_builds, &job);
    answer(call, &job);
}

void upgrade_end(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    struct upgrade_job job = {.forward = wire_get_bool(params, "forward", false)};

    worker_call(&control->worker, close_builds, &job);
    answer(call, &job);
}
