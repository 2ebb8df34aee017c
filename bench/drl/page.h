/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_PAGE_H
#define SM_BENCH_DRL_PAGE_H

/* The outcomes as a page that a person reads (html.h). */

#include <splitmerge/types.h>

#include "drl/outcome.h"

/* 0; SM_E_IO: *error says what could not be written, or that gnuplot failed. */
int page_write(const char *directory, const struct outcome *outcomes, unsigned count, uint64_t seed,
               struct sm_errbuf *error);

#endif
