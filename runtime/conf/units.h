/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_CONF_UNITS_H
#define SM_CONF_UNITS_H

/*
 * Numbers with units, as files and command lines write them. All functions take the whole text (no spaces around
 * it, none between number and unit), accept decimals where the result is a whole number ("1.5GiB", "2.5s"), set
 * *value only on success, and return false for anything else: wrong unit, negative, not whole, above 2^64 - 1.
 * Units are case-sensitive. Pure; any thread.
 */

#include <stdbool.h>
#include <stdint.h>

/* "4000000", "4M": a plain number, or with k, M or G (powers of 1000). */
bool unit_count(const char *text, uint64_t *value);

/* "512B", "64KiB", "64MiB", "2GiB": bytes. A unit is needed. */
bool unit_size(const char *text, uint64_t *bytes);

/* "800ns", "20us", "100ms", "2.5s": nanoseconds. A unit is needed. */
bool unit_duration(const char *text, uint64_t *nanoseconds);

/*
 * "10Mbit": bits per second (bit kbit Mbit Gbit, powers of 1000), *packets false.
 * "50kpps": packets per second (pps kpps Mpps), *packets true. A unit is needed.
 */
bool unit_rate(const char *text, uint64_t *per_second, bool *packets);

#endif
