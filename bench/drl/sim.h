/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_SIM_H
#define SM_BENCH_DRL_SIM_H

/*
 * A discrete-event simulator of flows through distributed limiters: the limiters are those of middleboxes/ratelimiter,
 * the sources are models of TCP (tcp.h), and all that differs between runs is the seed.
 *
 *   source --> access link --> limiter --> sink --> (acknowledgement) --> source
 *
 * Packets have 1500 bytes. A packet reaches its limiter after a tenth of its flow's round trip and the time that the
 * access link takes; what becomes of it is known to the source at the end of the round trip. Updates between limiters
 * take `control_delay`, and are lost at random or by a partition. Beside the limiters one bucket sees the same packets,
 * and only counts what it would have let through.
 */

#include "drl/drl.h"

#define SIM_PACKET 1500u
#define SIM_BIN_NS 100000000ull /* windows that the aggregate is counted in */
#define SIM_CENTRAL DRL_MODES   /* one bucket for all: what distributed ones are compared with */
/* Bytes of an update: IP and UDP headers; the datagram's header and code, the item's head; each value. */
#define SIM_HEADERS 28u
#define SIM_DATAGRAM 46u
#define SIM_VALUE 8u

enum sim_tcp { SIM_RENO, SIM_CUBIC };

struct sim_flow {
    unsigned limiter;
    enum sim_tcp tcp;
    uint64_t rtt_ns;
    uint64_t start_ns, stop_ns; /* stop 0: at the end */
    double access;              /* most bytes a second; changes to access_later at access_at_ns, unless that is 0 */
    double access_later;
    uint64_t access_at_ns;
    uint32_t packets; /* 0: no end; else it ends after so many, and a new one starts after think_ns (exponential) */
    uint64_t think_ns;
};

struct sim_setup {
    unsigned mode; /* enum drl_mode, or SIM_CENTRAL */
    double rate, burst;
    uint64_t interval_ns;
    unsigned limiters, fanout;
    const struct sim_flow *flows;
    unsigned flow_count;
    uint64_t duration_ns;
    uint64_t control_delay_ns;
    double control_loss;
    uint64_t partition_from_ns, partition_to_ns; /* the lower half of the limiters and the upper hear nothing of each
                                                    other; 0, 0: never */
    uint64_t seed;
};

struct sim_result {
    unsigned bins, seconds;
    double *passed;       /* bytes, in each window of SIM_BIN_NS */
    double *central;      /* bytes that one bucket would have let through of the same packets, likewise */
    double *limiter_bins; /* bytes, [limiter * bins + bin] */
    float *flow_seconds;  /* bytes, [flow * seconds + second] */
    uint64_t control;     /* bytes of updates, sent */
    uint64_t arrived, dropped;
};

/* `duration_ns` is whole seconds. False: out of memory. The caller frees *result with sim_free() either way. */
bool sim_run(const struct sim_setup *setup, struct sim_result *result);
void sim_free(struct sim_result *result);

#endif
