/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MIDDLEBOXES_CHECKSUM_H
#define MIDDLEBOXES_CHECKSUM_H

/* The Internet checksum (RFC 1071), amended for what changes (RFC 1624): what was wrong before stays wrong. Pure. */

#include <stdint.h>

static inline uint16_t load16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline void store16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). */
static inline uint16_t checksum_amend(uint16_t checksum, uint16_t before, uint16_t after)
{
    uint32_t sum = (uint16_t)~checksum + (uint32_t)(uint16_t)~before + after;

    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* One's complement sum of bytes that begin at an even offset, added to `sum`; checksum_finish() folds it. */
static inline uint32_t checksum_add(uint32_t sum, const uint8_t *bytes, uint32_t count)
{
    for (; count > 1; bytes += 2, count -= 2)
        sum += load16(bytes);
    return count ? sum + (uint32_t)(bytes[0] << 8) : sum;
}

static inline uint16_t checksum_finish(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

#endif
