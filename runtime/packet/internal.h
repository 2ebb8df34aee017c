/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PACKET_INTERNAL_H
#define SM_PACKET_INTERNAL_H

/* What the parts of the parser share: bounded reading, the steps from link layer to transport, the fragment table. */

#include "packet/packet.h"

#include <string.h>

/* IP protocol numbers that parsing knows. */
enum {
    SM_IP_HOP_BY_HOP = 0,
    SM_IP_ICMP = 1,
    SM_IP_IPV4 = 4,
    SM_IP_TCP = 6,
    SM_IP_UDP = 17,
    SM_IP_IPV6 = 41,
    SM_IP_ROUTING = 43,
    SM_IP_FRAGMENT = 44,
    SM_IP_GRE = 47,
    SM_IP_AH = 51,
    SM_IP_ICMPV6 = 58,
    SM_IP_NO_NEXT = 59,
    SM_IP_DESTINATION = 60,
    SM_IP_SCTP = 132,
};

/* Sizes of headers in bytes, without options. */
enum { SM_IPV4_SIZE = 20, SM_IPV6_SIZE = 40 };

/*
 * Bytes that may be looked at. Offsets count from the first captured byte throughout, also in what a header says is
 * the end of its packet. captured <= wire: bytes between the two were on the wire and were not captured.
 */
struct sm_span {
    const uint8_t *data;
    uint32_t captured;
    uint32_t wire;
};

static inline uint16_t sm_read16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t sm_read32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

/* Are `size` bytes at `offset` there? If not, *flags says whether the capture or the packet ends too early. */
static inline bool sm_span_has(const struct sm_span *span, uint32_t offset, uint32_t size, uint8_t *flags)
{
    if (__builtin_expect((uint64_t)offset + size <= span->captured, 1))
        return true;
    *flags |= (uint64_t)offset + size <= span->wire ? SM_HDR_TRUNCATED : SM_HDR_MALFORMED;
    return false;
}

/* The part of a span before `end`. */
static inline struct sm_span sm_span_until(const struct sm_span *span, uint32_t end)
{
    return (struct sm_span){
        .data = span->data,
        .captured = span->captured < end ? span->captured : end,
        .wire = span->wire < end ? span->wire : end,
    };
}

/*
 * Find the outermost IP header. Returns 4 or 6 with *offset set, or 0: not IP. The version in the header itself has
 * not been looked at, except where nothing else tells the versions apart.
 */
uint8_t sm_link_find_ip(int linktype, const struct sm_span *span, struct sm_parse_counters *counters, uint32_t *offset,
                        uint8_t *flags);

/* What an Ethernet type and its tags are followed by, from `at` on: as sm_link_find_ip(), for packets in packets. */
uint8_t sm_link_behind_type(const struct sm_span *span, uint16_t type, uint32_t *at);

/* The two ends of a packet in its direction, before they are put in order. */
struct sm_ends {
    const uint8_t *source, *destination;
    uint16_t source_port, destination_port;
    uint8_t family, protocol;
};

/* The two-way key of these ends in *key, which is all zero before. True: the source became endpoint b. */
bool sm_key_from_ends(struct sm_key *key, const struct sm_ends *ends);

/* What identifies the fragments of one packet. */
struct sm_fragment_id {
    uint8_t source[16], destination[16];
    uint32_t id;
    uint8_t family;
    uint8_t protocol; /* IPv4; 0 for IPv6 */
    uint8_t zero[2];
};

/* What the later fragments of a packet take from its first. */
struct sm_fragment_found {
    struct sm_key key;
    uint8_t protocol;
    uint8_t flags; /* of SM_HDR_*, those that say what the key is */
};

struct sm_fragments;
struct sm_fragments *sm_fragments_create(unsigned entries);
void sm_fragments_destroy(struct sm_fragments *fragments);
const struct sm_fragment_found *sm_fragments_find(const struct sm_fragments *fragments, const struct sm_fragment_id *id,
                                                  sm_time now);
/* Returns whether another entry had to go before its time. */
bool sm_fragments_store(struct sm_fragments *fragments, const struct sm_fragment_id *id,
                        const struct sm_fragment_found *found, sm_time now);

struct sm_parser {
    struct sm_parse_counters counters;
    struct sm_fragments *fragments;
};

/* What follows the IPv6 header up to the transport header. */
struct sm_chain {
    uint32_t offset;  /* of the first header that is not an extension */
    uint32_t id;      /* of the fragment header */
    uint8_t protocol; /* of the header at offset, or of the extension that could not be read */
    bool extended;    /* there is at least one extension header */
    bool broken;      /* an extension could not be read: there is no transport header to be found */
    bool fragment;    /* there is a fragment header, and not of an atomic fragment */
    bool later;       /* a fragment other than the first: the chain ends behind its fragment header */
};
void sm_chain_walk(const struct sm_span *span, uint32_t offset, uint8_t next, struct sm_chain *chain, uint8_t *flags);

/*
 * Read the transport header at `offset` of a packet or of its first fragment: ports into *ends, offset and flags into
 * *headers. An ICMP error writes *key from the packet that it quotes and returns true: *ends is not to be used.
 */
bool sm_transport_read(struct sm_parser *parser, const struct sm_span *ip, uint32_t offset, sm_time now,
                       struct sm_ends *ends, struct sm_headers *headers, struct sm_key *key);

/*
 * The two ways through an IPv4 packet at `l3`; *parsed of the general one is all zero before but for the flags. They
 * leave *parsed and the counters equal where the plain one returns true. False of the general one: it is not IP.
 */
bool sm_ip4_plain(struct sm_parser *parser, const struct sm_span *span, uint32_t l3, struct sm_parsed *parsed);
bool sm_ip4_general(struct sm_parser *parser, const struct sm_span *span, uint32_t l3, sm_time now,
                    struct sm_parsed *parsed);

/* The keys of a tunnel and of what is in it, in *key, which is all zero before. */
void sm_tunnel_key(const struct sm_headers *headers, const uint8_t *data, uint32_t caplen,
                   enum sm_granularity granularity, struct sm_key *key);

/* Build the identity of a fragment. */
void sm_fragment_identify(struct sm_fragment_id *id, const struct sm_ends *ends, uint32_t number);

#endif
