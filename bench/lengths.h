/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_LENGTHS_H
#define SM_BENCH_LENGTHS_H

/*
 * How long flows last: the durations of 1,753 connections in a Zeek conn.log of an office network (the M57 scenario of
 * digitalcorpora.org, from zeek-testing), as quantiles in steps of 5 %, straight lines between; one record of a day is
 * left out. The median is 1.1 s, the mean 4.7 s, the longest 103 s.
 */

#include <stdint.h>

#define LENGTHS_WORDS "M57 conn.log: median 1.1 s, longest 103 s"

/* Seconds: of a flow that begins; `share` of all flows are shorter. */
double lengths_quantile(double share);
double lengths_draw(uint64_t *random);

/* What is left of a flow that is met at any time: long ones are met more often. */
double lengths_residual(uint64_t *random);

#endif
