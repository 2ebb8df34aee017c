/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_MARK_H
#define RATELIMITER_MARK_H

/*
 * Marks in IP headers: differentiated services code points (RFC 2474) and congestion experienced (RFC 3168). Pure:
 * `ip` is the first byte of an IP header, `family` 4 or 6.
 */

#include <stdbool.h>
#include <stdint.h>

#define MARK_BYTES 12 /* of an IPv4 header are read and written; of an IPv6 header the first two */

/* What a limit writes into packets that exceed it. */
struct mark {
    bool ce;      /* congestion experienced; else: */
    uint8_t dscp; /* code point, 0..63 */
};

/* "CS1", "AF41", "EF", "VA", "LE", or "0".."63". */
bool mark_parse_dscp(const char *text, uint8_t *dscp);

/* How many bytes mark_write() touches. */
uint32_t mark_length(unsigned family);

/* The traffic class (IPv6) or type of service (IPv4) byte; needs two bytes. */
uint8_t mark_traffic_class(const uint8_t *ip, unsigned family);

/* The same byte with the mark in it. */
uint8_t mark_apply(uint8_t traffic_class, const struct mark *mark);

/* Write the traffic class; an IPv4 header's checksum is amended, not recomputed (RFC 1624): wrong stays wrong. */
void mark_write(uint8_t *ip, unsigned family, uint8_t traffic_class);

/* Whether a router may write CE into a packet of this traffic class (ECT(0), ECT(1), or CE already). */
static inline bool mark_ecn_capable(uint8_t traffic_class)
{
    return (traffic_class & 3) != 0;
}

#endif
