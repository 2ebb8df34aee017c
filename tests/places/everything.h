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
extern int64_t everything_counted;   /* by the shared counter, when the last replica ended */
extern bool everything_shared_right;
extern uint64_t everything_locked; /* by the locked object */

struct sm_trace *everything_trace(void);

/* The middlebox and its service; the rest is the caller's. */
struct sm_test_options everything_options(const struct sm_trace *trace);

#endif
