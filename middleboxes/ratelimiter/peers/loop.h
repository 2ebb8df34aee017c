/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_PEERS_LOOP_H
#define RATELIMITER_PEERS_LOOP_H

/* The exchange's socket, clock and thread: loop.c. */

#include <splitmerge/types.h>

#include "peers/exchange.h"

struct peers_loop;

/*
 * Begin. `control`: where `smctl peers` asks, or NULL. NULL: *error says why. Configuration,
 * state must stay until peers_loop_end() has returned.
 */
struct peers_loop *peers_loop_begin(const struct exchange_config *config, const struct exchange_state *state,
                                    const char *control, struct sm_errbuf *error);

/* End the thread, and wait for it. NULL is allowed. */
void peers_loop_end(struct peers_loop *loop);

/* The clock that meters go by; to be read where meter_needs_time(). */
uint64_t peers_clock(void);

/* "10.0.0.1:7946", "[fd00::1]:7946". False: it is none. */
bool peers_parse_address(const char *text, struct datagram_member *member);

#endif
