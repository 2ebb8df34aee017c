/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transport headers: ports, the identifier of an ICMP echo, and the packet that an ICMP error quotes.
 *
 * headers->l4 is set only when the transport header without its options was captured whole. Ports are used as soon
 * as they were captured themselves, so that a short capture steers like a long one.
 */
#include "packet/internal.h"

enum { TCP_SIZE = 20, UDP_SIZE = 8, SCTP_SIZE = 12, ICMP_SIZE = 8, PORTS_SIZE = 4 };
enum { FRAME_LARGEST_UDP = 65535 };

static bool has_ports(uint8_t protocol)
{
    return protocol == SM_IP_TCP || protocol == SM_IP_UDP || protocol == SM_IP_SCTP;
}

static bool is_icmp(uint8_t family, uint8_t protocol)
{
    return protocol == (family == 4 ? SM_IP_ICMP : SM_IP_ICMPV6);
}

static bool is_echo(uint8_t family, uint8_t type)
{
    return family == 4 ? type == 8 || type == 0 : type == 128 || type == 129;
}

/* Types that quote the packet they are about (RFC 792, RFC 4443). */
static bool is_error(uint8_t family, uint8_t type)
{
    if (family == 4)
        return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
    return type >= 1 && type <= 4;
}

static void take_ports(struct sm_ends *ends, const uint8_t *at)
{
    ends->source_port = sm_read16(at);
    ends->destination_port = sm_read16(at + 2);
}

static void take_identifier(struct sm_ends *ends, const uint8_t *icmp)
{
    ends->source_port = ends->destination_port = sm_read16(icmp + 4);
}

/* The IP header of a quoted packet, outermost only, and where its transport header would be. */
struct quote {
    struct sm_ends ends;
    uint32_t transport; /* 0: none to be found */
    uint32_t id;
    bool later; /* it is a fragment without a transport header */
};

static bool read_quoted_ip4(const struct sm_span *ip, uint32_t at, struct quote *quote, uint8_t *flags)
{
    if (!sm_span_has(ip, at, SM_IPV4_SIZE, flags))
        return false;
    const uint8_t *header = ip->data + at;
    uint32_t size = (header[0] & 15u) * 4;
    if (header[0] >> 4 != 4 || size < SM_IPV4_SIZE) {
        *flags |= SM_HDR_MALFORMED;
        return false;
    }
    quote->ends =
        (struct sm_ends){.source = header + 12, .destination = header + 16, .family = 4, .protocol = header[9]};
    quote->transport = at + size;
    quote->id = sm_read16(header + 4);
    quote->later = (sm_read16(header + 6) & 0x1fff) != 0;
    return true;
}

static bool read_quoted_ip6(const struct sm_span *ip, uint32_t at, struct quote *quote, uint8_t *flags)
{
    if (!sm_span_has(ip, at, SM_IPV6_SIZE, flags))
        return false;
    const uint8_t *header = ip->data + at;
    if (header[0] >> 4 != 6) {
        *flags |= SM_HDR_MALFORMED;
        return false;
    }
    struct sm_chain chain;
    uint8_t ignored = 0; /* a quote may end anywhere */
    sm_chain_walk(ip, at + SM_IPV6_SIZE, header[6], &chain, &ignored);
    *flags |= ignored & SM_HDR_TRUNCATED;
    quote->ends =
        (struct sm_ends){.source = header + 8, .destination = header + 24, .family = 6, .protocol = chain.protocol};
    quote->transport = chain.broken ? 0 : chain.offset;
    quote->id = chain.id;
    quote->later = chain.later;
    return true;
}

/* What of the quoted transport header there is. An error may quote as little as 8 bytes of it, or less. */
static void read_quoted_transport(const struct sm_span *ip, struct quote *quote, uint8_t *flags)
{
    struct sm_ends *ends = &quote->ends;
    uint32_t needed = has_ports(ends->protocol) ? PORTS_SIZE : is_icmp(ends->family, ends->protocol) ? ICMP_SIZE : 0;
    uint8_t missing = 0;
    if (needed == 0 || quote->transport == 0)
        return;
    if (!sm_span_has(ip, quote->transport, needed, &missing)) {
        *flags |= missing & SM_HDR_TRUNCATED;
        return;
    }
    const uint8_t *at = ip->data + quote->transport;
    if (has_ports(ends->protocol))
        take_ports(ends, at);
    else if (is_echo(ends->family, at[0]))
        take_identifier(ends, at);
}

/*
 * Key an ICMP error by the packet it quotes. It travels against that packet, so towards the end that the quoted packet
 * came from, whoever sends it. False: nothing to be keyed by.
 */
static bool key_by_quote(struct sm_parser *parser, const struct sm_span *ip, uint32_t at, uint8_t family, sm_time now,
                         struct sm_headers *headers, struct sm_key *key)
{
    struct quote quote = {0};
    bool quoted_reverse;
    if (!(family == 4 ? read_quoted_ip4(ip, at, &quote, &headers->flags)
                      : read_quoted_ip6(ip, at, &quote, &headers->flags)))
        return false;

    const struct sm_fragment_found *first = NULL;
    if (quote.later) {
        struct sm_fragment_id id;
        sm_fragment_identify(&id, &quote.ends, quote.id);
        first = sm_fragments_find(parser->fragments, &id, now);
    } else {
        read_quoted_transport(ip, &quote, &headers->flags);
    }
    if (first != NULL) {
        *key = first->key;
        quoted_reverse = first->flags & SM_HDR_REVERSE;
    } else {
        quoted_reverse = sm_key_from_ends(key, &quote.ends);
    }
    headers->flags |= SM_HDR_ICMP_ERROR | (quoted_reverse ? 0 : SM_HDR_REVERSE);
    return true;
}

static bool read_icmp(struct sm_parser *parser, const struct sm_span *ip, uint32_t offset, sm_time now,
                      struct sm_ends *ends, struct sm_headers *headers, struct sm_key *key)
{
    /* The type alone decides what else is looked for. */
    if (!sm_span_has(ip, offset, ICMP_SIZE, &headers->flags)) {
        parser->counters.icmp_error_unquoted += offset < ip->captured && is_error(ends->family, ip->data[offset]);
        return false;
    }
    const uint8_t *icmp = ip->data + offset;
    headers->l4 = (uint16_t)offset;
    if (is_echo(ends->family, icmp[0]))
        take_identifier(ends, icmp);
    if (!is_error(ends->family, icmp[0]))
        return false;
    if (key_by_quote(parser, ip, offset + ICMP_SIZE, ends->family, now, headers, key)) {
        parser->counters.icmp_error++;
        return true;
    }
    parser->counters.icmp_error_unquoted++;
    return false;
}

/* Does the header contradict the length of its packet? In a first fragment only its own part can. */
static bool is_consistent(const struct sm_span *ip, uint32_t offset, uint8_t protocol, bool fragment)
{
    const uint8_t *header = ip->data + offset;
    uint32_t room = ip->wire - offset;
    if (protocol == SM_IP_TCP) {
        uint32_t size = (header[12] >> 4) * 4u;
        return size >= TCP_SIZE && (size <= room || fragment);
    }
    if (protocol == SM_IP_UDP) {
        uint32_t length = sm_read16(header + 4);
        if (length == 0)
            return room > FRAME_LARGEST_UDP; /* a jumbogram (RFC 2675) */
        return length >= UDP_SIZE && (length <= room || fragment);
    }
    return true;
}

bool sm_transport_read(struct sm_parser *parser, const struct sm_span *ip, uint32_t offset, sm_time now,
                       struct sm_ends *ends, struct sm_headers *headers, struct sm_key *key)
{
    uint32_t size;
    switch (ends->protocol) {
    case SM_IP_TCP:
        size = TCP_SIZE;
        break;
    case SM_IP_UDP:
        size = UDP_SIZE;
        break;
    case SM_IP_SCTP:
        size = SCTP_SIZE;
        break;
    default:
        if (is_icmp(ends->family, ends->protocol))
            return read_icmp(parser, ip, offset, now, ends, headers, key);
        if (offset < ip->captured)
            headers->l4 = (uint16_t)offset;
        return false;
    }

    if (sm_span_has(ip, offset, size, &headers->flags)) {
        headers->l4 = (uint16_t)offset;
        take_ports(ends, ip->data + offset);
        if (!is_consistent(ip, offset, ends->protocol, headers->flags & SM_HDR_FRAGMENT))
            headers->flags |= SM_HDR_MALFORMED;
    } else if (offset + PORTS_SIZE <= ip->captured) {
        take_ports(ends, ip->data + offset);
    }
    return false;
}
