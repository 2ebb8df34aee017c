/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_REPLAY_H
#define SM_BENCH_REPLAY_H

/*
 * A port that gives packets from memory: one of each of the generator's flows, in random order, over and over, so that
 * neither the order of arrival nor that of the records helps a cache. Time is made up, REPLAY_STEP_NS a packet.
 */

#include "ports/port.h"

#define REPLAY_STEP_NS 100u
#define REPLAY_BYTES 64u
#define REPLAY_START 1000000000ll /* seconds; where the generator's made-up time begins, too */

/* `count` packets in all. SM_E_NO_MEMORY. */
int replay_open(struct sm_port **port, uint32_t flows, uint64_t count, uint64_t seed);

/* Let it give `count` packets more. */
void replay_more(struct sm_port *port, uint64_t count);

#endif
