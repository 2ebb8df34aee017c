/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_REFERENCES_TABLES_H
#define SM_BENCH_REFERENCES_TABLES_H

/*
 * Hash tables of other projects, each linked into a program with tables.c. Keys are those of IPv4 flows as these
 * tables' users have them, 16 bytes; an entry's value is the flow's number, which its record would be found by.
 */

#include <stdbool.h>
#include <stdint.h>

#define TABLES_BURST 32u

struct table_key {
    uint32_t a, b;
    uint16_t a_port, b_port;
    uint32_t protocol;
};

/* NULL, or what is missing. Once. */
const char *other_prepare(uint32_t flows);

/* An empty table that has room for so many. False: no memory. */
bool other_open(uint32_t flows);
void other_close(void);

bool other_insert(const struct table_key *key, uint32_t value);

/* Look TABLES_BURST keys up. The sum of their values; all are there. */
uint64_t other_find(const struct table_key *const *keys);

#endif
