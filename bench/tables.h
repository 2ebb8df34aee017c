/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_TABLES_H
#define SM_BENCH_TABLES_H

#include "bench.h"

/* Parts of `state`. 0, or an error as of an experiment. */
experiment_fn bench_growth, bench_tables, bench_redis;

/* Decisions a second of the rate limiter with a limit for each flow: of one replica, by the time that it works. */
int bench_decisions(const struct bench_options *options, double *rate, struct sm_errbuf *error);

/* ns of a get and put of a flow of 64 bytes in bursts, one of each repetition: bench_tables() has filled it. */
extern struct samples bench_get_and_put;

#endif
