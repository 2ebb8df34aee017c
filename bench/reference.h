/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_REFERENCE_H
#define SM_BENCH_REFERENCE_H

/*
 * A reference that is a program of its own (references/reference.h), so that sm-bench depends on nothing it needs.
 *
 * Life-cycle.  started -> asked any number of times, each time it measures once more -> ended. It lies beside sm-bench,
 * or in libexec/splitmerge beside its folder. One that was not built, or says that something is missing, is asked in
 * vain, and `missing` says why. One thread.
 */

#include <stdio.h>
#include <sys/types.h>

#include "bench.h"

struct reference {
    pid_t pid;
    FILE *to, *from;
    char missing[96]; /* empty: it is there */
};

/* `package`: what it needs to be built. `arguments` end with NULL. Never fails: see `missing`. */
void reference_start(struct reference *reference, const char *program, const char *package,
                     const char *const *arguments);

/* It measures, and gives `count` values. SM_E_STATE: it has failed; *error says so. Not where it is missing. */
int reference_ask(struct reference *reference, double *values, unsigned count, struct sm_errbuf *error);

/* It ends, and what it has started too. */
void reference_end(struct reference *reference);

#endif
