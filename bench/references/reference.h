/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_REFERENCES_REFERENCE_H
#define SM_BENCH_REFERENCES_REFERENCE_H

/*
 * What the reference programs have in common. Each says "ready", or in words what it misses; then for each line that it
 * reads it measures once and writes a line of figures. It ends when its input does.
 */

#include <stdbool.h>
#include <stdint.h>

/* Flows, seconds of one measurement, seed: from the command line. */
struct reference_options {
    uint32_t flows;
    double seconds;
    uint64_t seed;
};

bool reference_options(int argc, char **argv, struct reference_options *options);

/* "ready" (NULL), or what is missing. */
void reference_ready(const char *missing);

/* Wait for the next question. False: there is none any more. */
bool reference_asked(void);

void reference_answer(const double *values, unsigned count);

#endif
