/* SPDX-License-Identifier: BSD-2-Clause */

#include "prefixes.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/*
 * Of each family, the lengths that occur, and one table of prefixes and *markers*. A search halves the lengths: where
 * the address, cut to the length in the middle, is in the table, the answer is as long or longer, else it is shorter.
 * A longer prefix is found that way because it has left markers, itself cut short, at the lengths that are met on the
 * way to its own. A marker knows the longest prefix that it begins with itself, so that no search has to go back.
 */

struct slot {
    uint64_t word[2];
    int32_t number; /* of a prefix, -1: a marker */
    int32_t best;   /* of the longest prefix that this begins with, -1: none */
    uint8_t bits;
    bool used;
};

struct family {
    uint8_t lengths[129]; /* that occur, the shortest first */
    unsigned length_count;
    uint32_t mask; /* slots - 1 */
    struct slot *slots;
};

struct prefixes {
    struct family family[2];
};

static uint64_t keep(uint64_t word, unsigned bits)
{
    return bits == 0 ? 0 : bits >= 64 ? word : word & ~0ull << (64 - bits);
}

void prefix_cut(uint64_t to[2], const uint64_t from[2], unsigned bits)
{
    to[0] = keep(from[0], bits);
    to[1] = keep(from[1], bits > 64 ? bits - 64 : 0);
}

static void load(uint64_t word[2], uint8_t family, const uint8_t *address)
{
    uint32_t four;

    if (family == 6) {
        memcpy(word, address, 16);
        word[0] = __builtin_bswap64(word[0]);
        word[1] = __builtin_bswap64(word[1]);
        return;
    }
    memcpy(&four, address, sizeof(four));
    word[0] = (uint64_t)__builtin_bswap32(four) << 32;
    word[1] = 0;
}

bool prefix_parse(const char *text, struct prefix *prefix)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    uint8_t bytes[16];
    uint64_t whole[2];
    unsigned long bits, most;
    char *end;

    if (length >= sizeof(address))
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    prefix->family = strchr(address, ':') ? 6 : 4;
    most = prefix->family == 4 ? 32 : 128;
    if (inet_pton(prefix->family == 4 ? AF_INET : AF_INET6, address, bytes) != 1)
        return false;
    bits = most;
    if (slash) {
        bits = strtoul(slash + 1, &end, 10);
        if (slash[1] < '0' || slash[1] > '9' || *end || bits > most)
            return false;
    }
    prefix->bits = (uint8_t)bits;
    load(whole, prefix->family, bytes);
    prefix_cut(prefix->word, whole, prefix->bits);
    return memcmp(whole, prefix->word, sizeof(whole)) == 0;
}

static uint32_t hash(const uint64_t word[2], unsigned bits)
{
    uint64_t sum = (word[0] ^ word[1] * 0x9e3779b97f4a7c15ull) + bits;

    sum *= 0xd6e8feb86659fd93ull;
    return (uint32_t)(sum ^ sum >> 32);
}

/* The slot of some bits, or the empty one where they would be. */
static struct slot *probe(const struct family *family, const uint64_t word[2], unsigned bits)
{
    uint32_t at = hash(word, bits) & family->mask;

    for (;; at = (at + 1) & family->mask) {
        struct slot *slot = &family->slots[at];

        if (!slot->used || (slot->word[0] == word[0] && slot->word[1] == word[1] && slot->bits == bits))
            return slot;
    }
}

static struct slot *insert(struct family *family, const uint64_t word[2], unsigned bits)
{
    struct slot *slot = probe(family, word, bits);

    if (!slot->used)
        *slot = (struct slot){{word[0], word[1]}, -1, -1, (uint8_t)bits, true};
    return slot;
}

/* Leave markers at the lengths that a search for `prefix` meets. */
static void leave_markers(struct family *family, const struct prefix *prefix)
{
    unsigned low = 0, high = family->length_count;

    while (low < high) {
        unsigned middle = (low + high) / 2, bits = family->lengths[middle];
        uint64_t word[2];

        if (bits == prefix->bits)
            return;
        if (bits > prefix->bits) {
            high = middle;
            continue;
        }
        prefix_cut(word, prefix->word, bits);
        insert(family, word, bits);
        low = middle + 1;
    }
}

/* The longest prefix that a slot's own bits begin with. */
static int32_t best_of(const struct family *family, const struct slot *slot)
{
    for (unsigned i = family->length_count; i > 0; i--) {
        const struct slot *found;
        uint64_t word[2];

        if (family->lengths[i - 1] > slot->bits)
            continue;
        prefix_cut(word, slot->word, family->lengths[i - 1]);
        found = probe(family, word, family->lengths[i - 1]);
        if (found->used && found->number >= 0)
            return found->number;
    }
    return -1;
}

/* How many slots there may be: each prefix, with a marker for each halving. */
static bool make_slots(struct family *family, uint32_t count)
{
    uint64_t room = 2 * (uint64_t)count, slots = 2;

    for (unsigned lengths = family->length_count; lengths > 1; lengths /= 2)
        room += 2 * (uint64_t)count;
    while (slots < room)
        slots *= 2;
    family->mask = (uint32_t)slots - 1;
    family->slots = calloc(slots, sizeof(*family->slots));
    return family->slots != NULL;
}

static bool build(struct family *family, uint8_t which, const struct prefix *prefix, uint32_t count, uint32_t first)
{
    bool occurs[129] = {false};
    uint32_t members = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (prefix[i].family != which)
            continue;
        occurs[prefix[i].bits] = true;
        members++;
    }
    for (unsigned bits = 0; bits <= 128; bits++)
        if (occurs[bits])
            family->lengths[family->length_count++] = (uint8_t)bits;
    if (!make_slots(family, members))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct slot *slot;

        if (prefix[i].family != which)
            continue;
        slot = insert(family, prefix[i].word, prefix[i].bits);
        if (slot->number < 0)
            slot->number = (int32_t)(first + i);
    }
    for (uint32_t i = 0; i < count; i++)
        if (prefix[i].family == which)
            leave_markers(family, &prefix[i]);
    for (uint32_t i = 0; i <= family->mask; i++)
        if (family->slots[i].used)
            family->slots[i].best = best_of(family, &family->slots[i]);
    return true;
}

struct prefixes *prefixes_create(const struct prefix *prefix, uint32_t count, uint32_t first)
{
    struct prefixes *prefixes = calloc(1, sizeof(*prefixes));

    if (prefixes && build(&prefixes->family[0], 4, prefix, count, first) &&
        build(&prefixes->family[1], 6, prefix, count, first))
        return prefixes;
    prefixes_destroy(prefixes);
    return NULL;
}

void prefixes_destroy(struct prefixes *prefixes)
{
    if (!prefixes)
        return;
    free(prefixes->family[0].slots);
    free(prefixes->family[1].slots);
    free(prefixes);
}

int64_t prefixes_find(const struct prefixes *prefixes, uint8_t family, const uint8_t *address)
{
    const struct family *in = &prefixes->family[family == 6];
    unsigned low = 0, high = in->length_count;
    int64_t best = -1;
    uint64_t whole[2];

    load(whole, family, address);
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct slot *slot;
        uint64_t word[2];

        prefix_cut(word, whole, in->lengths[middle]);
        slot = probe(in, word, in->lengths[middle]);
        if (slot->used) {
            best = slot->best;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return best;
}
