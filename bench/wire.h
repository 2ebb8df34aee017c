/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_WIRE_H
#define SM_BENCH_WIRE_H

/*
 * Two virtual links in a network namespace of our own, with a generator at the one's far end and a sink at the other's:
 *
 *     generator -> gen0 == in0   (who is measured)   out0 == sink0 -> counted and gone
 *
 * Overview.  The generator is an XDP program that the kernel runs on frames of its own and redirects to gen0, in a
 * process on core 1: packet sockets are too slow to show what they measure. The sink is an XDP program on sink0.
 *
 * Life-cycle.  wire_open -> (wire_flood -> measure -> wire_quiet)* -> wire_close, which leaves the namespace.
 */

#include "bench.h"

#define WIRE_FRAME 64u /* bytes of a frame */

struct wire {
    int home;                  /* the namespace that we came from */
    int numbers, generate;     /* map and program of the generator */
    int counts, sink, sink_at; /* map, program and link of the sink */
    unsigned gen0, in0, sink0;
    pid_t generator;
};

/* `flows`: a power of two. SM_E_PERMISSION: only root can; SM_E_STATE: *error says what the kernel does not do. */
int wire_open(struct wire *wire, uint32_t flows, struct sm_errbuf *error);
void wire_close(struct wire *wire);

/* Begin and end to send frames, as fast as the kernel makes them. */
int wire_flood(struct wire *wire);
void wire_quiet(struct wire *wire);

/* Frames that have come to the sink. */
uint64_t wire_sunk(const struct wire *wire);

#define WIRE_PATIENCE_NS 10000000000ull /* on a busy machine the generator's turn may come late */

/* Whether it is `seconds` at `now` since `begin`, when `from` frames had come, and some came since, or none will. */
bool wire_is_measured(const struct wire *wire, uint64_t from, uint64_t begin, uint64_t now, double seconds);

/* Attach a sink to in0 as well, to see what the generator makes; wire_sunk() counts its frames too. -1: refused. */
int wire_shortcut(const struct wire *wire);

/* A shell command; 0, or SM_E_STATE with *error. */
int wire_command(const char *command, struct sm_errbuf *error);

/* Forward from in0 to out0 for `seconds`: nothing but AF_XDP, in bursts of 64, the headers turned over to no one. */
int bare_xdp_forward(double seconds, const struct wire *wire, double *rate, struct sm_errbuf *error);

#endif
