/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_RELABEL_H
#define SM_BENCH_RELABEL_H

#include "bench.h"

/* A part of `move`: a million flows under a million packets a second. 0, or an error as of an experiment. */
experiment_fn bench_relabel;

#endif
