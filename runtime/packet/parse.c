/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. One packet through the parser: link.c finds the outermost IP header, this file reads it and decides what
 * fragments are keyed by, transport.c reads the ports, key.c puts the ends in order.
 *
 * What cannot be read is left out: ports are 0 where there are none, and a packet whose fixed IP header was not
 * captured whole is not IP for us. Tunnels are not looked into: the outermost IP packet is the flow's.
 *
 * Counters add up: ipv4 + ipv6 + non_ip = packets; tcp + udp + sctp + icmp + icmpv6 + other_protocol = ipv4 + ipv6.
 */
#include "packet/internal.h"

#include <assert.h>
#include <stdlib.h>

enum { EXTENSIONS_MAX = 16 };

int sm_parser_create(struct sm_parser **parser, unsigned fragments)
{
    *parser = NULL;
    struct sm_parser *made = calloc(1, sizeof *made);
    if (made == NULL)
        return SM_E_NO_MEMORY;
    made->fragments = sm_fragments_create(fragments);
    if (made->fragments == NULL) {
        free(made);
        return SM_E_NO_MEMORY;
    }
    *parser = made;
    return 0;
}

void sm_parser_destroy(struct sm_parser *parser)
{
    if (parser == NULL)
        return;
    sm_fragments_destroy(parser->fragments);
    free(parser);
}

const struct sm_parse_counters *sm_parser_counters(const struct sm_parser *parser)
{
    return &parser->counters;
}

static void count_protocol(struct sm_parse_counters *counters, uint8_t family, uint8_t protocol)
{
    if (protocol == SM_IP_TCP)
        counters->tcp++;
    else if (protocol == SM_IP_UDP)
        counters->udp++;
    else if (protocol == SM_IP_SCTP)
        counters->sctp++;
    else if (protocol == SM_IP_ICMP && family == 4)
        counters->icmp++;
    else if (protocol == SM_IP_ICMPV6 && family == 6)
        counters->icmpv6++;
    else
        counters->other_protocol++;
}

static bool is_extension(uint8_t protocol)
{
    return protocol == SM_IP_HOP_BY_HOP || protocol == SM_IP_ROUTING || protocol == SM_IP_FRAGMENT ||
           protocol == SM_IP_AH || protocol == SM_IP_DESTINATION;
}

void sm_chain_walk(const struct sm_span *span, uint32_t offset, uint8_t next, struct sm_chain *chain, uint8_t *flags)
{
    *chain = (struct sm_chain){.extended = is_extension(next)};
    for (unsigned count = 0; is_extension(next); count++) {
        if (count == EXTENSIONS_MAX)
            *flags |= SM_HDR_MALFORMED;
        if (count == EXTENSIONS_MAX || !sm_span_has(span, offset, 8, flags)) {
            chain->broken = true;
            break;
        }
        const uint8_t *header = span->data + offset;
        if (next == SM_IP_FRAGMENT) {
            uint16_t field = sm_read16(header + 2);
            chain->later = field >> 3 != 0;
            chain->fragment = chain->later || (field & 1);
            chain->id = sm_read32(header + 4);
            offset += 8;
        } else {
            offset += next == SM_IP_AH ? (header[1] + 2u) * 4 : (header[1] + 1u) * 8;
        }
        next = header[0];
        if (chain->later)
            break;
    }
    chain->offset = offset;
    chain->protocol = next;
}

/* What the two versions have in common once the IP header has been read. */
struct ip_packet {
    struct sm_span span;
    struct sm_ends ends;
    uint32_t transport; /* offset; 0: there is none to be found */
    uint32_t id;
    bool fragment, later;
};

static void key_later_fragment(struct sm_parser *parser, struct ip_packet *ip, sm_time now, struct sm_parsed *parsed)
{
    struct sm_fragment_id id;
    sm_fragment_identify(&id, &ip->ends, ip->id);
    const struct sm_fragment_found *first = sm_fragments_find(parser->fragments, &id, now);

    parser->counters.fragment_later++;
    parsed->headers.flags |= SM_HDR_FRAGMENT | SM_HDR_LATER_FRAGMENT;
    if (first != NULL) {
        parsed->key = first->key;
        parsed->headers.flags |= first->flags;
        ip->ends.protocol = first->protocol;
        return;
    }
    parser->counters.fragment_orphan++;
    if (sm_key_from_ends(&parsed->key, &ip->ends))
        parsed->headers.flags |= SM_HDR_REVERSE;
}

static void store_first_fragment(struct sm_parser *parser, const struct ip_packet *ip, sm_time now,
                                 const struct sm_parsed *parsed)
{
    struct sm_fragment_id id;
    struct sm_fragment_found found = {
        .key = parsed->key,
        .protocol = ip->ends.protocol,
        .flags = parsed->headers.flags & (SM_HDR_REVERSE | SM_HDR_ICMP_ERROR),
    };
    sm_fragment_identify(&id, &ip->ends, ip->id);
    parser->counters.fragment_first++;
    parser->counters.fragment_evicted += sm_fragments_store(parser->fragments, &id, &found, now);
}

/* Key the packet. */
static void finish(struct sm_parser *parser, struct ip_packet *ip, sm_time now, struct sm_parsed *parsed)
{
    if (ip->later) {
        key_later_fragment(parser, ip, now, parsed);
    } else {
        if (ip->fragment)
            parsed->headers.flags |= SM_HDR_FRAGMENT;
        bool quoted = ip->transport != 0 && sm_transport_read(parser, &ip->span, ip->transport, now, &ip->ends,
                                                              &parsed->headers, &parsed->key);
        if (!quoted && sm_key_from_ends(&parsed->key, &ip->ends))
            parsed->headers.flags |= SM_HDR_REVERSE;
        if (ip->fragment)
            store_first_fragment(parser, ip, now, parsed);
    }
    parsed->headers.family = ip->ends.family;
    parsed->headers.protocol = ip->ends.protocol;
    count_protocol(&parser->counters, ip->ends.family, ip->ends.protocol);
}

static inline void put64(void *to, uint64_t word)
{
    memcpy(to, &word, sizeof word);
}

/*
 * What nearly all packets are: IPv4 without options, whole, TCP or UDP with nothing odd about it. Says exactly what the
 * general way says of such a packet, in a third of its time; any doubt goes the general way. (A test compares the two.)
 */
static inline __attribute__((always_inline)) bool read_plain(struct sm_parser *parser, const uint8_t *data,
                                                             uint32_t captured, uint32_t wire, uint32_t l3,
                                                             struct sm_parsed *parsed)
{
    enum { SIZE = SM_IPV4_SIZE, TCP_SIZE = 20, UDP_SIZE = 8 };
    if ((uint64_t)l3 + SIZE + TCP_SIZE > captured)
        return false;
    const uint8_t *ip = data + l3, *transport = ip + SIZE;
    uint16_t fragment;
    memcpy(&fragment, ip + 6, sizeof fragment);
    if (ip[0] != 0x45 || (fragment & __builtin_bswap16(0x3fff)) != 0)
        return false;

    uint32_t total = sm_read16(ip + 2), claimed, least;
    uint64_t protocol = ip[9], *counter;
    if (protocol == SM_IP_UDP) {
        claimed = sm_read16(transport + 4);
        least = UDP_SIZE;
        counter = &parser->counters.udp;
    } else if (protocol == SM_IP_TCP) {
        claimed = (transport[12] >> 4) * 4u;
        least = TCP_SIZE;
        counter = &parser->counters.tcp;
    } else {
        return false;
    }
    if (total > wire - l3 || claimed < least || (uint64_t)claimed + SIZE > total)
        return false;

    uint32_t source, destination, ports;
    memcpy(&source, ip + 12, sizeof source);
    memcpy(&destination, ip + 16, sizeof destination);
    ports = sm_read32(transport);
    bool reverse = ((uint64_t)__builtin_bswap32(destination) << 16 | (ports & 0xffff)) <
                   ((uint64_t)__builtin_bswap32(source) << 16 | ports >> 16);
    uint32_t a = reverse ? destination : source, b = reverse ? source : destination;
    ports = reverse ? ports : ports << 16 | ports >> 16; /* a's in the lower half */

    /* Stored in the words that it will be read in again: a load waits for narrower stores to reach the cache. */
    put64(parsed->key.a, a);
    put64(parsed->key.a + 8, 0);
    put64(parsed->key.b, b);
    put64(parsed->key.b + 8, 0);
    put64(&parsed->key.a_port, ports | 4ull << 32 | protocol << 40);
    put64(&parsed->headers, l3 | (uint64_t)(l3 + SIZE) << 16 | 4ull << 32 | protocol << 40 |
                                (reverse ? (uint64_t)SM_HDR_REVERSE << 48 : 0));
    parser->counters.ipv4++;
    ++*counter;
    return true;
}

_Static_assert(offsetof(struct sm_key, a_port) == 32 && offsetof(struct sm_key, b_port) == 34 &&
                   offsetof(struct sm_key, family) == 36 && offsetof(struct sm_key, protocol) == 37,
               "the last word of a key");
_Static_assert(sizeof(struct sm_headers) == 8 && offsetof(struct sm_headers, l4) == 2 &&
                   offsetof(struct sm_headers, family) == 4 && offsetof(struct sm_headers, protocol) == 5 &&
                   offsetof(struct sm_headers, flags) == 6,
               "the word of the headers");

bool sm_ip4_plain(struct sm_parser *parser, const struct sm_span *span, uint32_t l3, struct sm_parsed *parsed)
{
    return read_plain(parser, span->data, span->captured, span->wire, l3, parsed);
}

bool sm_ip4_general(struct sm_parser *parser, const struct sm_span *span, uint32_t l3, sm_time now,
                    struct sm_parsed *parsed)
{
    uint8_t *flags = &parsed->headers.flags;
    if (!sm_span_has(span, l3, SM_IPV4_SIZE, flags))
        return false;
    const uint8_t *header = span->data + l3;
    if (header[0] >> 4 != 4) {
        *flags |= SM_HDR_MALFORMED;
        return false;
    }

    uint32_t size = (header[0] & 15u) * 4, total = sm_read16(header + 2), room = span->wire - l3;
    uint16_t fragment = sm_read16(header + 6);
    struct ip_packet ip = {
        .ends = {.source = header + 12, .destination = header + 16, .family = 4, .protocol = header[9]},
        .id = sm_read16(header + 4),
        .later = (fragment & 0x1fff) != 0,
        .fragment = (fragment & 0x3fff) != 0,
    };
    parser->counters.ipv4++;
    parser->counters.ipv4_options += size > SM_IPV4_SIZE;
    if (total == 0)
        total = room; /* segmentation offload leaves the length to the hardware, or the packet is too large for it */
    else if (total > room)
        *flags |= SM_HDR_MALFORMED;
    ip.span = sm_span_until(span, l3 + total);
    if (size < SM_IPV4_SIZE || total < size)
        *flags |= SM_HDR_MALFORMED;
    else if (sm_span_has(&ip.span, l3, size, flags))
        ip.transport = l3 + size;
    finish(parser, &ip, now, parsed);
    return true;
}

static bool parse_ip6(struct sm_parser *parser, const struct sm_span *span, uint32_t l3, sm_time now,
                      struct sm_parsed *parsed)
{
    uint8_t *flags = &parsed->headers.flags;
    if (!sm_span_has(span, l3, SM_IPV6_SIZE, flags))
        return false;
    const uint8_t *header = span->data + l3;
    if (header[0] >> 4 != 6) {
        *flags |= SM_HDR_MALFORMED;
        return false;
    }

    uint32_t payload = sm_read16(header + 4), room = span->wire - l3 - SM_IPV6_SIZE;
    struct sm_chain chain;
    struct ip_packet ip = {.ends = {.source = header + 8, .destination = header + 24, .family = 6}};
    if (payload == 0 && header[6] != SM_IP_NO_NEXT)
        payload = room; /* a jumbogram, or one in the making: its own length says nothing */
    else if (payload > room)
        *flags |= SM_HDR_MALFORMED;
    ip.span = sm_span_until(span, l3 + SM_IPV6_SIZE + payload);
    sm_chain_walk(&ip.span, l3 + SM_IPV6_SIZE, header[6], &chain, flags);

    parser->counters.ipv6++;
    parser->counters.ipv6_extensions += chain.extended;
    ip.ends.protocol = chain.protocol;
    ip.transport = chain.broken ? 0 : chain.offset;
    ip.id = chain.id;
    ip.fragment = chain.fragment;
    ip.later = chain.later;
    finish(parser, &ip, now, parsed);
    return true;
}

static __attribute__((noinline)) void parse_any(struct sm_parser *parser, int linktype, const uint8_t *data,
                                                uint32_t caplen, uint32_t len, sm_time now, struct sm_parsed *parsed)
{
    struct sm_parse_counters *counters = &parser->counters;
    struct sm_span span = {.data = data, .captured = caplen, .wire = len > caplen ? len : caplen};
    uint32_t l3;
    uint8_t flags = 0, family = sm_link_find_ip(linktype, &span, counters, &l3, &flags);
    bool is_ip = false;

    if (family == 4 && sm_ip4_plain(parser, &span, l3, parsed))
        return;
    memset(parsed, 0, sizeof *parsed);
    parsed->headers.flags = flags;
    if (family == 4)
        is_ip = sm_ip4_general(parser, &span, l3, now, parsed);
    else if (family == 6)
        is_ip = parse_ip6(parser, &span, l3, now, parsed);
    if (is_ip)
        parsed->headers.l3 = (uint16_t)l3;
    else
        counters->non_ip++;
    counters->truncated += (parsed->headers.flags & SM_HDR_TRUNCATED) != 0;
    counters->malformed += (parsed->headers.flags & SM_HDR_MALFORMED) != 0;
    assert(parsed->headers.l4 == 0 || parsed->headers.l4 > parsed->headers.l3);
}

void sm_parse(struct sm_parser *parser, int linktype, const uint8_t *data, uint32_t caplen, uint32_t len, sm_time now,
              struct sm_parsed *parsed)
{
    enum { ETHERNET = 1, ETHERNET_SIZE = 14, TYPE_IPV4 = 0x0800 };

    parser->counters.packets++;
    /* What nearly all packets are, before all else is tried. */
    if (linktype == ETHERNET && caplen >= ETHERNET_SIZE && sm_read16(data + 12) == TYPE_IPV4 &&
        read_plain(parser, data, caplen, len > caplen ? len : caplen, ETHERNET_SIZE, parsed))
        return;
    parse_any(parser, linktype, data, caplen, len, now, parsed);
}
