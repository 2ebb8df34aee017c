/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_PLAIN_H
#define SM_BENCH_PLAIN_H

/*
 * The rate limiter without the library: its very sources (limiter.c, policy.c), compiled once more, over flows in the
 * process's own memory (plain_flows.h). Packets are parsed and sent by the same ports and parser. Buckets end as they
 * do with the library: by a timer that only stores its deadline, found here by a sweep that looks at one place a
 * packet.
 */

#include "packet/packet.h"
#include "ports/port.h"

struct plain;

/* `in` stays the caller's. `library`: with the library's table. SM_E_INVALID (the policy), SM_E_NO_MEMORY. */
int plain_open(struct plain **plain, struct sm_port *in, const char *policy, uint32_t flows, bool library,
               struct sm_errbuf *error);
void plain_close(struct plain *plain);

/* All packets that `in` has. */
void plain_run(struct plain *plain);

uint64_t plain_passed(const struct plain *plain);
uint64_t plain_dropped(const struct plain *plain);

#endif
