/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_PLAIN_FLOWS_H
#define SM_BENCH_PLAIN_FLOWS_H

/*
 * The flows of the plain limiter (plain.h), in the process's own memory, with one timer each: in the harness's table,
 * or by the library's own code for tables and timers, without all that is around it in a service. One thread.
 */

#include "state/state.h"
#include "table.h"

struct plain_flows {
    struct table table; /* where there is no `state` */
    uint64_t sweep;     /* cursor: the next entry, or shard, whose timers are looked at */
    struct state *state;
    struct state_actor *actor;
    void *memory;
    uint32_t shard; /* of the flow in hand */
};

/* `library`: by its code. False: no memory. Close it all the same. */
bool plain_flows_open(struct plain_flows *flows, bool library, uint32_t count, uint32_t record_bytes);
void plain_flows_close(struct plain_flows *flows);

/* A flow's record, zeroed where it is new. NULL: there is none; there is no room. */
void *plain_flows_find(struct plain_flows *flows, const struct sm_key *key);
void *plain_flows_insert(struct plain_flows *flows, const struct sm_key *key);

/* Of the flow that was found last, or is due. */
void plain_flows_remove(struct plain_flows *flows, void *record);
void plain_flows_arm(struct plain_flows *flows, void *record, uint64_t deadline);

/* The record of a flow whose timer is due, or NULL: it need not be the earliest. Looks at a few at a time. */
void *plain_flows_due(struct plain_flows *flows, uint64_t now, uint64_t *deadline);

#endif
