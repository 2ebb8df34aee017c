/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_EVERYTHING_H
#define SM_TESTS_EVERYTHING_H

/*
 * A middlebox that uses all that the runtime has, and packets that make it do so: whatever place a replica can be
 * killed at, it comes by there, again and again.
 */

#include <splitmerge/testing.h>

#define EVERYTHING_PACKETS 1500u

extern unsigned everything_mistakes; /* met by the middlebox */
extern uint64_t everything_locked;   /* packets counted by the locked object */
/* When the last replica ended: packets counted by the shared counter, the lowest number, about how many there were. */
extern int64_t everything_counted, everything_lowest;
extern uint64_t everything_kinds;

/* By number: packets that the middlebox is to look away from, as if they had never come; NULL: none. */
extern const bool *everything_ignored;

struct sm_trace *everything_trace(void);

/* Whether flows are kept that say which packets were seen. With them no shard that had a packet is empty again. */
extern bool everything_witnessed;

/* Which packets the flows that are left have seen, by number. False: one was seen twice. */
bool everything_seen(const struct sm_test *test, bool seen[EVERYTHING_PACKETS]);

/* The middlebox and its service; the rest is the caller's. */
struct sm_test_options everything_options(const struct sm_trace *trace);

/* A version that does the same, with flows of other forms. */
int everything_setup_two(struct sm_replica *replica, void **user);

#endif
