/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_OPENNF_H
#define SM_BENCH_OPENNF_H

#include "bench.h"

/* A part of `move`: 500 flows at 2,500 packets a second, beside OpenNF and FreeFlow. 0, or an error as of an
 * experiment. */
experiment_fn bench_opennf;

#endif
