/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_PAGE_H
#define SM_BENCH_DRL_PAGE_H

/*
 * The outcomes as a page that a person reads: DIR/index.html, which needs nothing else and no network, and beside it
 * its pictures (PNG, by gnuplot) and what they were drawn from.
 */

#include <splitmerge/types.h>

#include "drl/outcome.h"

/* Makes DIR if need be. 0; SM_E_IO: it cannot be made, *error says why. */
int page_prepare(const char *directory, struct sm_errbuf *error);

/* 0; SM_E_IO: *error says what could not be written, or that gnuplot failed. */
int page_write(const char *directory, const struct outcome *outcomes, unsigned count, uint64_t seed,
               struct sm_errbuf *error);

#endif
