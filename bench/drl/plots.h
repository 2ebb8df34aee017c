/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_PLOTS_H
#define SM_BENCH_DRL_PLOTS_H

#include <splitmerge/types.h>

#include "drl/outcome.h"

/*
 * DIR/EXPERIMENT.png, the aggregates; DIR/jain.png, second.png, tenth.png, bars. 0; SM_E_IO: *error says what could
 * not be written, or that gnuplot failed.
 */
int plots_draw(const char *directory, const struct outcome *outcomes, unsigned count, struct sm_errbuf *error);

#endif
