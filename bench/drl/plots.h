/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_PLOTS_H
#define SM_BENCH_DRL_PLOTS_H

#include <splitmerge/types.h>
#include <stdio.h>

#include "drl/outcome.h"

#define SM_PATH_BYTES 4096u

/*
 * DIR/EXPERIMENT.png, the aggregates; DIR/jain.png, second.png, tenth.png, bars. 0; SM_E_IO: *error says what could
 * not be written, or that gnuplot failed.
 */
int plots_draw(const char *directory, const struct outcome *outcomes, unsigned count, struct sm_errbuf *error);

/* A file in the directory. NULL: *error says why. */
FILE *plots_open(const char *directory, const char *name, const char *mode, struct sm_errbuf *error);

/* 0; SM_E_IO: not all was written. */
int plots_close(FILE *file, const char *name, struct sm_errbuf *error);

#endif
