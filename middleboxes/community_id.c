/* SPDX-License-Identifier: BSD-2-Clause */
#include "community_id.h"

#include <stdbool.h>
#include <string.h>

#include "checksum.h"

enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58, SCTP = 132, DIGEST = 20, BLOCK = 64 };

/* ---- SHA-1 (FIPS 180-4) of what fits one block: an id is made of at most 40 bytes ---- */

static uint32_t rotate(uint32_t word, unsigned bits)
{
    return word << bits | word >> (32 - bits);
}

static void sha1_short(const uint8_t *bytes, size_t count, uint8_t digest[DIGEST])
{
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}, words[80];
    uint8_t block[BLOCK] = {0};

    memcpy(block, bytes, count);
    block[count] = 0x80;
    store16(block + BLOCK - 2, (uint16_t)(8 * count));
    for (unsigned i = 0; i < 16; i++)
        words[i] = (uint32_t)load16(block + 4 * i) << 16 | load16(block + 4 * i + 2);
    for (unsigned i = 16; i < 80; i++)
        words[i] = rotate(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (unsigned i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                              : (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = rotate(a, 5) + f + e + words[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
    for (unsigned i = 0; i < DIGEST; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *bytes, size_t count, char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < count; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16;
        three |= i + 1 < count ? (uint32_t)bytes[i + 1] << 8 : 0;
        three |= i + 2 < count ? (uint32_t)bytes[i + 2] : 0;
        *text++ = digits[three >> 18];
        *text++ = digits[three >> 12 & 63];
        *text++ = digits[three >> 6 & 63];
        *text++ = digits[three & 63];
        if (i + 1 >= count)
            text[-2] = '=';
        if (i + 2 >= count)
            text[-1] = '=';
    }
    *text = '\0';
}

/* ---- the id ---- */

/* The type of ICMP that answers one, or that one answers; -1: there is none. */
static int counterpart(uint8_t protocol, unsigned type)
{
    static const uint8_t pairs4[][2] = {{8, 0}, {10, 9}, {13, 14}, {15, 16}, {17, 18}};
    static const uint8_t pairs6[][2] = {{128, 129}, {130, 131}, {133, 134}, {135, 136}, {139, 140}, {144, 145}};
    const uint8_t(*pairs)[2] = protocol == ICMP ? pairs4 : pairs6;
    const size_t count = protocol == ICMP ? sizeof pairs4 / 2 : sizeof pairs6 / 2;

    for (size_t i = 0; i < count; i++) {
        if (pairs[i][0] == type)
            return pairs[i][1];
        if (pairs[i][1] == type)
            return pairs[i][0];
    }
    return -1;
}

void community_id(char text[COMMUNITY_ID_ROOM], uint8_t protocol, size_t width, const uint8_t *source,
                  uint16_t source_port, const uint8_t *destination, uint16_t destination_port)
{
    const bool icmp = protocol == ICMP || protocol == ICMP6;
    const bool ports = icmp || protocol == TCP || protocol == UDP || protocol == SCTP;
    const int answer = icmp ? counterpart(protocol, source_port) : -1;
    uint8_t bytes[2 + 16 + 16 + 2 + 4] = {0}, digest[DIGEST];
    size_t count = 2; /* the seed */

    if (answer >= 0)
        destination_port = (uint16_t)answer;
    int order = memcmp(source, destination, width);
    bool swap = (!icmp || answer >= 0) && (order > 0 || (order == 0 && ports && source_port > destination_port));
    memcpy(bytes + count, swap ? destination : source, width);
    memcpy(bytes + count + width, swap ? source : destination, width);
    count += 2 * width;
    bytes[count] = protocol;
    count += 2;
    if (ports) {
        store16(bytes + count, swap ? destination_port : source_port);
        store16(bytes + count + 2, swap ? source_port : destination_port);
        count += 4;
    }
    sha1_short(bytes, count, digest);
    memcpy(text, "1:", 2);
    base64(digest, DIGEST, text + 2);
}
