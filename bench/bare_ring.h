/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_BARE_RING_H
#define SM_BENCH_BARE_RING_H

/*
 * What forwarding costs without a runtime: a producer copies a generator's packets to a pool and writes 16-byte
 * descriptors to a ring, in bursts of 64; the consumer, on the second core, reads the header, touches a record of 64
 * bytes, and gives the descriptor back by a second ring; the producer sends the packet to a port that swallows it.
 * Records are met at random, as those of hashed flows are: which one it is follows from the source address. Packets and
 * records lie in huge pages, as they do in a service. Nothing is parsed, hashed, looked up, audited or ordered. As many
 * cache lines cross: there the packet's first, here the one with what the switch has found in it, which is all that the
 * middlebox reads.
 *
 * Life-cycle.  bare_ring_open -> bare_ring_measure, any number of times -> bare_ring_close.
 */

#include "ports/port.h"
#include "ring.h"

struct bare_ring {
    struct ring there, back;
    uint8_t *pool;
    struct record *records;
    struct sm_port *in, *out;
    uint32_t flows;
    _Atomic bool stop;
};

/* So many flows' packets and records. SM_E_NO_MEMORY; close it all the same. */
int bare_ring_open(struct bare_ring *bare, uint32_t flows);
void bare_ring_close(struct bare_ring *bare);

/* Packets a second that came back, for so long. SM_E_NO_MEMORY. */
int bare_ring_measure(struct bare_ring *bare, double seconds, double *rate);

#endif
