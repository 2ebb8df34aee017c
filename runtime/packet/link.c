/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the first captured byte to the outermost IP header: link types, VLAN tags, MPLS labels, PPPoE.
 */
#include "packet/internal.h"

/* libpcap's link types; the names are those of its manual. */
enum {
    DLT_NULL = 0,
    DLT_EN10MB = 1,
    DLT_RAW = 12,
    DLT_LOOP = 108,
    DLT_LINUX_SLL = 113,
    DLT_IPV4 = 228,
    DLT_IPV6 = 229,
    DLT_LINUX_SLL2 = 276,
};

enum {
    TYPE_IPV4 = 0x0800,
    TYPE_ARP = 0x0806,
    TYPE_VLAN = 0x8100,
    TYPE_IPV6 = 0x86dd,
    TYPE_MPLS = 0x8847,
    TYPE_MPLS_MULTICAST = 0x8848,
    TYPE_PPPOE_SESSION = 0x8864,
    TYPE_QINQ = 0x88a8,
    TYPE_QINQ_OLD = 0x9100,
};

/* More of these than any network has; what has more passes as not IP, malformed. */
enum { TAGS_MAX = 8, LABELS_MAX = 16 };

struct walk {
    const struct sm_span *span;
    struct sm_parse_counters *counters;
    uint32_t at;
    uint8_t *flags;
};

/* Only the version nibble tells. */
static uint8_t by_version(struct walk *w)
{
    if (!sm_span_has(w->span, w->at, 1, w->flags))
        return 0;
    uint8_t version = w->span->data[w->at] >> 4;
    return version == 4 || version == 6 ? version : 0;
}

static uint8_t behind_mpls(struct walk *w)
{
    w->counters->mpls++;
    for (unsigned label = 0; label < LABELS_MAX; label++) {
        if (!sm_span_has(w->span, w->at, 4, w->flags))
            return 0;
        bool bottom = w->span->data[w->at + 2] & 1;
        w->at += 4;
        if (bottom)
            return by_version(w); /* labels do not say what they carry; a pseudowire starts with neither 4 nor 6 */
    }
    *w->flags |= SM_HDR_MALFORMED;
    return 0;
}

static uint8_t behind_pppoe(struct walk *w)
{
    enum { PPPOE_SIZE = 6, PPP_IPV4 = 0x0021, PPP_IPV6 = 0x0057 };
    w->counters->pppoe++;
    if (!sm_span_has(w->span, w->at, PPPOE_SIZE + 2, w->flags))
        return 0;
    uint16_t protocol = sm_read16(w->span->data + w->at + PPPOE_SIZE);
    w->at += PPPOE_SIZE + 2;
    return protocol == PPP_IPV4 ? 4 : protocol == PPP_IPV6 ? 6 : 0;
}

/* Behind an Ethernet type, with w->at behind it. */
static uint8_t behind_type(struct walk *w, uint16_t type)
{
    for (unsigned tags = 0;; tags++) {
        switch (type) {
        case TYPE_IPV4:
            return 4;
        case TYPE_IPV6:
            return 6;
        case TYPE_ARP:
            w->counters->arp++;
            return 0;
        case TYPE_MPLS:
        case TYPE_MPLS_MULTICAST:
            return behind_mpls(w);
        case TYPE_PPPOE_SESSION:
            return behind_pppoe(w);
        case TYPE_VLAN:
        case TYPE_QINQ:
        case TYPE_QINQ_OLD:
            w->counters->vlan += tags == 0;
            w->counters->qinq += tags == 1;
            break;
        default:
            return 0; /* a length (802.3) too */
        }
        if (tags == TAGS_MAX) {
            *w->flags |= SM_HDR_MALFORMED;
            return 0;
        }
        if (!sm_span_has(w->span, w->at, 4, w->flags))
            return 0;
        type = sm_read16(w->span->data + w->at + 2);
        w->at += 4;
    }
}

/* A header of fixed size that has an Ethernet type in it. */
static uint8_t behind_header(struct walk *w, uint32_t size, uint32_t type_at)
{
    if (!sm_span_has(w->span, 0, size, w->flags))
        return 0;
    w->at = size;
    return behind_type(w, sm_read16(w->span->data + type_at));
}

/* NULL and LOOP: the address family as some BSD numbers it, in some byte order. */
static uint8_t behind_family(struct walk *w)
{
    if (!sm_span_has(w->span, 0, 4, w->flags))
        return 0;
    uint32_t family = sm_read32(w->span->data);
    if (family > 0xffff)
        family = __builtin_bswap32(family);
    w->at = 4;
    switch (family) {
    case 2:
        return 4;
    case 10: /* Linux */
    case 24: /* NetBSD, OpenBSD */
    case 28: /* FreeBSD */
    case 30: /* macOS */
        return 6;
    default:
        return 0;
    }
}

uint8_t sm_link_find_ip(int linktype, const struct sm_span *span, struct sm_parse_counters *counters, uint32_t *offset,
                        uint8_t *flags)
{
    struct walk w = {.span = span, .counters = counters, .flags = flags};
    uint8_t family = 0;

    switch (linktype) {
    case DLT_EN10MB:
        family = behind_header(&w, 14, 12);
        break;
    case DLT_LINUX_SLL:
        family = behind_header(&w, 16, 14);
        break;
    case DLT_LINUX_SLL2:
        family = behind_header(&w, 20, 0);
        break;
    case DLT_RAW:
        family = by_version(&w);
        break;
    case DLT_IPV4:
        family = 4;
        break;
    case DLT_IPV6:
        family = 6;
        break;
    case DLT_NULL:
    case DLT_LOOP:
        family = behind_family(&w);
        break;
    default:
        counters->other_link_type++;
        break;
    }
    *offset = w.at;
    return family;
}

uint8_t sm_link_behind_type(const struct sm_span *span, uint16_t type, uint32_t *at)
{
    struct sm_parse_counters unused = {0};
    uint8_t flags = 0;
    struct walk w = {.span = span, .counters = &unused, .at = *at, .flags = &flags};
    uint8_t family = behind_type(&w, type);

    *at = w.at;
    return family;
}

void sm_vlan_key(int linktype, const uint8_t *data, uint32_t caplen, struct sm_key *key)
{
    uint32_t type_at = linktype == DLT_EN10MB ? 12 : linktype == DLT_LINUX_SLL ? 14 : 0;
    uint32_t at = linktype == DLT_EN10MB ? 14 : linktype == DLT_LINUX_SLL ? 16 : 20;

    memset(key, 0, sizeof *key);
    if (linktype != DLT_EN10MB && linktype != DLT_LINUX_SLL && linktype != DLT_LINUX_SLL2)
        return;
    for (unsigned tags = 0; tags < 2 && at + 4 <= caplen; tags++, type_at = at + 2, at += 4) {
        uint16_t type = sm_read16(data + type_at), id = sm_read16(data + at) & 0xfff;
        if (type != TYPE_VLAN && type != TYPE_QINQ && type != TYPE_QINQ_OLD)
            return;
        *(tags == 0 ? &key->a_port : &key->b_port) = id;
    }
}
