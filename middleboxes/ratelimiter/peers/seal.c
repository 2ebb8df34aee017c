/* SPDX-License-Identifier: BSD-2-Clause */
#include <sodium.h>
#include <string.h>

#include "peers/datagram.h"

size_t datagram_seal(uint8_t *bytes, size_t length, const uint8_t key[DATAGRAM_KEY])
{
    crypto_generichash(bytes + length, DATAGRAM_MAC, bytes, length, key, DATAGRAM_KEY);
    return length + DATAGRAM_MAC;
}

bool datagram_sealed(const uint8_t *bytes, size_t length, const uint8_t key[DATAGRAM_KEY])
{
    uint8_t code[DATAGRAM_MAC];

    if (length < DATAGRAM_MAC)
        return false;
    crypto_generichash(code, sizeof code, bytes, length - DATAGRAM_MAC, key, DATAGRAM_KEY);
    return sodium_memcmp(code, bytes + length - DATAGRAM_MAC, DATAGRAM_MAC) == 0;
}

bool datagram_key(const void *secret, size_t length, uint8_t key[DATAGRAM_KEY])
{
    static const char purpose[] = "splitmerge limiters";

    return sodium_init() >= 0 &&
           crypto_generichash(key, DATAGRAM_KEY, secret, length, (const uint8_t *)purpose, sizeof purpose - 1) == 0;
}

uint64_t datagram_random(void)
{
    uint64_t number;

    do
        randombytes_buf(&number, sizeof number);
    while (number == 0);
    return number;
}
