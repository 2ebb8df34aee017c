/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_VERSIONS_H
#define SM_TESTS_VERSIONS_H

/*
 * Two versions of one middlebox. What they do to packets depends only on what both keep, so that a service that is
 * upgraded, or not, or only for a while, sends what an unsplit one of either version sends.
 *
 * Class "counts" is described by fields: version 2 widens one, moves all of them, adds one, and has a timer more.
 * Class "lists" holds chunks that point to one another: version 2 has other ones, made by its upgrade callback, and
 * unmade by its downgrade callback, where it has one. It is registered only where that is asked for.
 */

#include <splitmerge/testing.h>

extern sm_hook_fn *adopting; /* of flows that a replica adopts; NULL: nobody is told */
extern bool with_lists, lists_return;
extern bool lists_hold_code; /* where all replicas are in one process: elsewhere its place is random */
extern _Atomic uint64_t upgrades, downgrades, mistakes;

int setup_one(struct sm_replica *replica, void **user);
int setup_two(struct sm_replica *replica, void **user);
void on_packet_one(struct sm_replica *replica, struct sm_packet *packet, void *user);
void on_packet_two(struct sm_replica *replica, struct sm_packet *packet, void *user);

/* What both versions keep of a flow, as one number; by the size of its record. */
uint64_t kept(const struct sm_test_flow *flow);

/* refusals.c: what a new version must not be. Returns the number of failures. */
unsigned refusals(const struct sm_trace *trace);

#endif
