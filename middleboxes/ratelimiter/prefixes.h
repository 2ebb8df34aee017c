/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_PREFIXES_H
#define RATELIMITER_PREFIXES_H

/*
 * The longest prefix of a set that an address begins with: a hash table of prefixes, searched by halving their lengths
 * (Waldvogel et al., "Scalable High Speed IP Routing Lookups", SIGCOMM 1997). So a look-up takes at most 6 probes for
 * IPv4 and 8 for IPv6, and one where all prefixes are as long. Pure; made once, then read by any thread.
 */

#include <stdbool.h>
#include <stdint.h>

struct prefix {
    uint64_t word[2]; /* the address's bits from the top of word[0], zero behind the prefix; IPv4: the first 32 */
    uint8_t family;   /* 4 or 6 */
    uint8_t bits;     /* 0..32, 0..128 */
};

/* The first `bits` of an address. */
void prefix_cut(uint64_t to[2], const uint64_t from[2], unsigned bits);

struct prefixes;

/* "10.0.0.0/8", "2001:db8::/32", or an address. False: it is none, or bits behind the prefix are set. */
bool prefix_parse(const char *text, struct prefix *prefix);

/* `count` prefixes; prefix[i] has the number `first` + i. NULL: out of memory. */
struct prefixes *prefixes_create(const struct prefix *prefix, uint32_t count, uint32_t first);
void prefixes_destroy(struct prefixes *prefixes);

/* The number of the longest prefix of an address (4 or 16 bytes), or -1. Of two equal prefixes, the first's. */
int64_t prefixes_find(const struct prefixes *prefixes, uint8_t family, const uint8_t *address);

#endif
