/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_FIGURES_H
#define SM_BENCH_DRL_FIGURES_H

/*
 * What is read off a run.
 *
 * mean       what passed, as a share of the limit
 * miss       how far windows of 1 s and of 0.1 s are off the limit (root of the mean square), as a share of it
 * highest    second, as a share of the limit
 * beside     how far those windows are off what one bucket would have let through of the packets of this very run
 * jain       index of the flows' rates; where demand shifts, of the flows that are there for all of an epoch, without
 *            its first second, the mean over the epochs
 * settled    seconds after a change from which on the limiters' rates per flow, over one second, are even; the longest
 *            over the epochs; -1: never
 * control    kbit/s that a limiter sends, IP and UDP headers included
 */

#include "drl/plan.h"

#define BINS_A_SECOND ((unsigned)(SECOND / SIM_BIN_NS))

struct figures {
    double mean, miss_second, miss_tenth, highest;
    double beside_second, beside_tenth;
    double jain, settled, control;
    double even; /* index of the limiters' rates per flow over a second, when settled: the mean */
};

/* `even`: from which index on rates are even. */
void figures_read(const struct experiment *experiment, const struct sim_flow *flows, const struct sim_result *result,
                  double even, struct figures *figures);

/* 1 where all are equal, 1/count where one has all; 1 for nothing. */
double jain_index(const double *values, unsigned count);

#endif
