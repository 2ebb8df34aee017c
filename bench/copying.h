/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_COPYING_H
#define SM_BENCH_COPYING_H

#include "bench.h"

/* Moves by copying in a service that does nothing else, beside the reference below; all repetitions. Figures go to the
 * report. */
int bench_copying(const struct bench_options *options, struct report *report, struct sm_errbuf *error);

/* The reference (move.c): one copying move of all flows between two plain tables, its time in ms. */
int bench_copying_reference(const struct bench_options *options, double *ms);

#endif
