/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys. The host-pair key is made from the flow key and from nothing else: steering by host pair is only right for
 * per-flow state if that holds for every packet, ICMP errors and fragments too.
 */
#include "packet/internal.h"

static uint64_t read64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

/* Is the destination's (address, port) lower than the source's, as bytes on the wire? */
static bool destination_is_lower(const struct sm_ends *ends)
{
    if (ends->family == 4) {
        uint64_t source = (uint64_t)sm_read32(ends->source) << 16 | ends->source_port;
        uint64_t destination = (uint64_t)sm_read32(ends->destination) << 16 | ends->destination_port;
        return destination < source;
    }
    uint64_t source = read64(ends->source), destination = read64(ends->destination);
    if (source != destination)
        return destination < source;
    source = read64(ends->source + 8), destination = read64(ends->destination + 8);
    if (source != destination)
        return destination < source;
    return ends->destination_port < ends->source_port;
}

static void copy_address(uint8_t to[16], const uint8_t *from, uint8_t family)
{
    if (family == 4)
        memcpy(to, from, 4);
    else
        memcpy(to, from, 16);
}

void sm_key_make(struct sm_key *key, uint8_t family, uint8_t protocol, const uint8_t *source, uint16_t source_port,
                 const uint8_t *destination, uint16_t destination_port)
{
    const struct sm_ends ends = {.source = source,
                                 .destination = destination,
                                 .source_port = source_port,
                                 .destination_port = destination_port,
                                 .family = family,
                                 .protocol = protocol};

    memset(key, 0, sizeof *key);
    sm_key_from_ends(key, &ends);
}

bool sm_key_from_ends(struct sm_key *key, const struct sm_ends *ends)
{
    bool reverse = destination_is_lower(ends);
    copy_address(key->a, reverse ? ends->destination : ends->source, ends->family);
    copy_address(key->b, reverse ? ends->source : ends->destination, ends->family);
    key->a_port = reverse ? ends->destination_port : ends->source_port;
    key->b_port = reverse ? ends->source_port : ends->destination_port;
    key->family = ends->family;
    key->protocol = ends->protocol;
    return reverse;
}

/* The outer header's source or destination address. */
static void one_way_key(const struct sm_headers *headers, const uint8_t *data, uint32_t caplen, bool destination,
                        struct sm_key *key)
{
    uint32_t size = headers->family == 4 ? 4 : 16;
    uint32_t at = headers->l3 + (headers->family == 4 ? 12 : 8) + (destination ? size : 0);
    if (at + size > caplen)
        return; /* cannot be: a family is only given when the whole header was captured */
    memcpy(key->a, data + at, size);
    key->family = headers->family;
}

/* Zero all but the first `bits` bits. */
static void cut(uint8_t address[16], unsigned bits)
{
    for (unsigned i = bits / 8; i < 16; i++)
        address[i] &= i == bits / 8 ? (uint8_t)(0xff00 >> bits % 8) : 0;
}

void sm_key_narrow(struct sm_key *key, unsigned prefix4, unsigned prefix6)
{
    unsigned bits = key->family == 4 ? prefix4 : prefix6;

    if (bits != 0)
        cut(key->a, bits);
}

void sm_parsed_key(const struct sm_parsed *parsed, const uint8_t *data, uint32_t caplen,
                   enum sm_granularity granularity, struct sm_key *key)
{
    if (granularity == SM_BY_FLOW && parsed->headers.family != 0) {
        *key = parsed->key;
        return;
    }
    memset(key, 0, sizeof *key);
    if (parsed->headers.family == 0)
        return;
    switch (granularity) {
    case SM_BY_FLOW:
        break;            /* above: most packets by far */
    case SM_BY_HOST_PAIR: /* the addresses are in order already: they come before the ports */
        memcpy(key->a, parsed->key.a, sizeof key->a);
        memcpy(key->b, parsed->key.b, sizeof key->b);
        key->family = parsed->key.family;
        break;
    case SM_BY_SOURCE:
    case SM_BY_DESTINATION:
        one_way_key(&parsed->headers, data, caplen, granularity == SM_BY_DESTINATION, key);
        break;
    case SM_BY_TUNNEL:
    case SM_BY_INNER_SOURCE:
    case SM_BY_INNER_DESTINATION:
        sm_tunnel_key(&parsed->headers, data, caplen, granularity, key);
        break;
    case SM_BY_VLAN:
    case SM_BY_ALL:
    case SM_GRANULARITY_COUNT:
        break;
    }
}
