/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_TABLES_H
#define SM_BENCH_TABLES_H

#include "bench.h"

/* Parts of `state`. 0, or an error as of an experiment. */
experiment_fn bench_tables, bench_redis, bench_growth;

/* ns of a get and put of a flow of 64 bytes in bursts, one of each repetition. */
extern struct samples bench_get_and_put;

#endif
