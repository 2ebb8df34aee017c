/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tunnels: the IP packet that the outermost one carries in IP (RFC 2003, 2473, 4213), GRE (RFC 2784, 2890), VXLAN (RFC
 * 7348) or GENEVE (RFC 8926). One level; nothing is remembered, so that a later fragment of an outer packet is in no
 * tunnel that could be told. What cannot be read whole is no tunnel.
 */
#include "packet/internal.h"

enum {
    TYPE_ETHERNET = 0x6558, /* as GRE and GENEVE say it */
    PORT_VXLAN = 4789,
    PORT_VXLAN_OLD = 8472, /* what Linux took before there was a number */
    PORT_GENEVE = 6081,
};

struct tunnel {
    uint16_t kind; /* IP protocol, or UDP port */
    bool has_id;
    uint8_t family; /* of the inner packet; 0: there is none */
    uint32_t id;
    uint32_t inner; /* where it is */
};

static bool there(const struct sm_span *span, uint32_t at, uint32_t bytes)
{
    uint8_t flags = 0;

    return sm_span_has(span, at, bytes, &flags);
}

/* The inner packet is behind an Ethernet type of `type`. */
static void behind(struct tunnel *tunnel, const struct sm_span *span, uint16_t type, uint32_t at)
{
    if (type == TYPE_ETHERNET) {
        if (!there(span, at, 14))
            return;
        type = sm_read16(span->data + at + 12);
        at += 14;
    }
    tunnel->family = sm_link_behind_type(span, type, &at);
    tunnel->inner = at;
}

static void read_gre(struct tunnel *tunnel, const struct sm_span *span, uint32_t at)
{
    enum { CHECKSUM = 0x8000, ROUTING = 0x4000, KEY = 0x2000, SEQUENCE = 0x1000, VERSION = 7 };
    if (!there(span, at, 4))
        return;
    uint16_t flags = sm_read16(span->data + at), type = sm_read16(span->data + at + 2);
    if (flags & (ROUTING | VERSION))
        return;
    at += flags & CHECKSUM ? 8 : 4;
    if (flags & KEY) {
        if (!there(span, at, 4))
            return;
        tunnel->has_id = true;
        tunnel->id = sm_read32(span->data + at);
        at += 4;
    }
    behind(tunnel, span, type, at + (flags & SEQUENCE ? 4 : 0));
}

/* The headers of VXLAN and GENEVE begin alike: 8 bytes, with the network's identifier in the fifth to seventh. */
static void read_udp(struct tunnel *tunnel, const struct sm_span *span, uint32_t at)
{
    enum { UDP_SIZE = 8, SIZE = 8 };
    if (!there(span, at, UDP_SIZE + SIZE))
        return;
    uint16_t port = sm_read16(span->data + at + 2);
    const uint8_t *header = span->data + at + UDP_SIZE;
    tunnel->has_id = true;
    tunnel->id = sm_read32(header + 4) >> 8;
    if ((port == PORT_VXLAN || port == PORT_VXLAN_OLD) && header[0] & 8) {
        tunnel->kind = PORT_VXLAN;
        behind(tunnel, span, TYPE_ETHERNET, at + UDP_SIZE + SIZE);
    } else if (port == PORT_GENEVE && header[0] >> 6 == 0) {
        tunnel->kind = PORT_GENEVE;
        behind(tunnel, span, sm_read16(header + 2), at + UDP_SIZE + SIZE + (header[0] & 63) * 4u);
    }
}

static bool find_tunnel(struct tunnel *tunnel, const struct sm_headers *headers, const struct sm_span *span)
{
    *tunnel = (struct tunnel){.kind = headers->protocol, .inner = headers->l4};
    if (headers->l4 == 0)
        return false;
    if (headers->protocol == SM_IP_IPV4)
        tunnel->family = 4;
    else if (headers->protocol == SM_IP_IPV6)
        tunnel->family = 6;
    else if (headers->protocol == SM_IP_GRE)
        read_gre(tunnel, span, headers->l4);
    else if (headers->protocol == SM_IP_UDP)
        read_udp(tunnel, span, headers->l4);
    return tunnel->family != 0 && there(span, tunnel->inner, tunnel->family == 4 ? SM_IPV4_SIZE : SM_IPV6_SIZE) &&
           span->data[tunnel->inner] >> 4 == tunnel->family;
}

static void put_id(uint8_t to[16], uint32_t id)
{
    id = __builtin_bswap32(id);
    memcpy(to, &id, sizeof id);
}

void sm_tunnel_key(const struct sm_headers *headers, const uint8_t *data, uint32_t caplen,
                   enum sm_granularity granularity, struct sm_key *key)
{
    const struct sm_span span = {.data = data, .captured = caplen, .wire = caplen};
    struct tunnel tunnel;

    if (!find_tunnel(&tunnel, headers, &span))
        return;
    if (granularity != SM_BY_TUNNEL) {
        uint32_t size = tunnel.family == 4 ? 4 : 16;
        const uint8_t *source = data + tunnel.inner + (tunnel.family == 4 ? 12 : 8);
        memcpy(key->a, granularity == SM_BY_INNER_SOURCE ? source : source + size, size);
        key->family = tunnel.family;
        put_id(key->b, tunnel.id);
        key->b_port = 1;
    } else if (tunnel.has_id) {
        put_id(key->a, tunnel.id);
    } else {
        const uint8_t *source = data + headers->l3 + (headers->family == 4 ? 12 : 8);
        const struct sm_ends ends = {
            .source = source, .destination = source + (headers->family == 4 ? 4 : 16), .family = headers->family};
        sm_key_from_ends(key, &ends);
    }
    key->protocol = SM_TUNNELLED;
    key->a_port = tunnel.kind;
}
