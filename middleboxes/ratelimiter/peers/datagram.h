/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_DATAGRAM_H
#define RATELIMITER_DATAGRAM_H

/*
 * What limiters on different hosts send one another: docs/drl-protocol.md, version DATAGRAM_VERSION. Pure: bytes to
 * structures and back, bounded by DATAGRAM_MAX. Every datagram ends with a code by a key that all hosts have.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "drl/drl.h"
#include "drl/exact.h"

#define DATAGRAM_VERSION 1
#define DATAGRAM_MAX 1232u /* bytes: what every IPv6 path carries whole */
#define DATAGRAM_MAC 16u
#define DATAGRAM_KEY 32u
#define DATAGRAM_MAX_ITEMS 32u
#define DATAGRAM_MAX_MEMBERS 46u

enum datagram_type { DATAGRAM_HELLO = 1, DATAGRAM_DATA = 2 };

struct datagram_member {
    uint16_t host, port;
    uint16_t version; /* the higher one is right */
    bool removed;
    uint8_t address[16]; /* IPv6, or IPv4 mapped */
};

enum datagram_kind {
    DATAGRAM_UPDATE = 1,
    DATAGRAM_ASK = 2,
    DATAGRAM_GRANT = 3,
    DATAGRAM_KEY_ASK = 4, /* these of one key of the limit */
    DATAGRAM_KEY_GRANT = 5,
};

/* What concerns one limit. */
struct datagram_item {
    uint32_t limit; /* a hash of its name and of how it is set */
    enum datagram_kind kind;
    uint64_t key;            /* of those kinds */
    struct exact_part whole; /* of DATAGRAM_KEY_ASK: the limit, for this key */
    union {
        struct drl_update update; /* without `from` and `sequence`, which are the datagram's */
        struct exact_ask ask;
        struct exact_grant grant;
    };
};

struct datagram {
    enum datagram_type type;
    uint16_t from, to; /* numbers of hosts */
    uint64_t session, sequence;
    /* DATAGRAM_HELLO */
    uint64_t challenge, answer;
    unsigned member_count;
    struct datagram_member members[DATAGRAM_MAX_MEMBERS];
    /* DATAGRAM_DATA */
    unsigned item_count;
    struct datagram_item items[DATAGRAM_MAX_ITEMS];
};

/* Returns the length without the code, which goes behind; room for DATAGRAM_MAX. Items that do not fit are left out:
 * *done says how many are in. */
size_t datagram_encode(const struct datagram *datagram, uint8_t *bytes, unsigned *done);

enum datagram_fault {
    DATAGRAM_SOUND,
    DATAGRAM_MALFORMED, /* or another version */
    DATAGRAM_FORGED,    /* the code is wrong */
};

/* From bytes with their code. DATAGRAM_SOUND: *datagram is filled. The code is looked at before anything else. */
enum datagram_fault datagram_decode(const uint8_t *bytes, size_t length, const uint8_t key[DATAGRAM_KEY],
                                    struct datagram *datagram);

/* ---- the code (seal.c): keyed BLAKE2b ---- */

/* Write the code behind `length` bytes. Returns the length with it. */
size_t datagram_seal(uint8_t *bytes, size_t length, const uint8_t key[DATAGRAM_KEY]);
bool datagram_sealed(const uint8_t *bytes, size_t length, const uint8_t key[DATAGRAM_KEY]);

/* A key of what is in a file; random numbers that nobody guesses. False: the library could not be made ready. */
bool datagram_key(const void *secret, size_t length, uint8_t key[DATAGRAM_KEY]);
uint64_t datagram_random(void);

#endif
