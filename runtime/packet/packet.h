/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PACKET_PACKET_H
#define SM_PACKET_PACKET_H

/*
 * From captured bytes to a flow key. No I/O, no clock, no allocation per packet.
 * The same code runs in the switch and in the standalone program.
 */

#include <splitmerge/packet.h>
#include <splitmerge/types.h>

/*
 * Every case that parsing meets has a counter; names as in reports. A packet counts once in each that it meets, and
 * they add up: ipv4 + ipv6 + non_ip = packets; tcp + udp + sctp + icmp + icmpv6 + other_protocol = ipv4 + ipv6.
 */
#define SM_PARSE_COUNTERS(X)                                                                                           \
    X(packets)                                                                                                         \
    X(vlan) /* one tag or more */                                                                                      \
    X(qinq) /* two tags or more; counted as vlan too */                                                                \
    X(mpls)                                                                                                            \
    X(pppoe)                                                                                                           \
    X(ipv4)                                                                                                            \
    X(ipv4_options)                                                                                                    \
    X(ipv6)                                                                                                            \
    X(ipv6_extensions)                                                                                                 \
    X(tcp)                                                                                                             \
    X(udp)                                                                                                             \
    X(sctp)                                                                                                            \
    X(icmp)                                                                                                            \
    X(icmpv6)                                                                                                          \
    X(icmp_error)          /* keyed by the packet that it quotes */                                                    \
    X(icmp_error_unquoted) /* an ICMP error whose quoted packet could not be read: keyed by its outer header */        \
    X(other_protocol)                                                                                                  \
    X(arp)                                                                                                             \
    X(non_ip)          /* all that passes unprocessed, ARP too */                                                      \
    X(other_link_type) /* of a link type that is not parsed; also counted as non_ip */                                 \
    X(fragment_first)                                                                                                  \
    X(fragment_later)                                                                                                  \
    X(fragment_orphan)  /* later fragments whose first was not seen: keyed by protocol and addresses */                \
    X(fragment_evicted) /* entries that gave way in the bounded fragment table before their 30 s */                    \
    X(truncated)                                                                                                       \
    X(malformed)

struct sm_parse_counters {
#define SM_PARSE_COUNTER_FIELD(name) uint64_t name;
    SM_PARSE_COUNTERS(SM_PARSE_COUNTER_FIELD)
#undef SM_PARSE_COUNTER_FIELD
};

/*
 * What was found in one packet. headers.l4 is set only when the transport header without its options was captured whole
 * (for protocols not known here: when one byte of it was); the key has the ports as soon as they were captured.
 */
struct sm_parsed {
    struct sm_key key;         /* the two-way key SM_BY_FLOW; meaningful when headers.family != 0 */
    struct sm_headers headers; /* headers.family == 0: not IP, passes unprocessed */
};

/* One per stream of packets: holds the fragment table. Single-threaded. */
struct sm_parser;

/* `fragments`: entries of the fragment table. SM_E_NO_MEMORY. */
int sm_parser_create(struct sm_parser **parser, unsigned fragments);
void sm_parser_destroy(struct sm_parser *parser);

/*
 * Parse one packet of link type `linktype` (DLT_*). Never fails: what cannot be read is said in the flags and in the
 * counters. `now` is packet time (ages fragments).
 */
void sm_parse(struct sm_parser *parser, int linktype, const uint8_t *data, uint32_t caplen, uint32_t len, sm_time now,
              struct sm_parsed *parsed);

const struct sm_parse_counters *sm_parser_counters(const struct sm_parser *parser);

/*
 * The key at `granularity` of a parsed packet; tag 0. One-way keys come from the outer header (which differs from
 * parsed->key for ICMP errors), so the packet's bytes are needed. Not SM_BY_VLAN: that is sm_vlan_key().
 */
void sm_parsed_key(const struct sm_parsed *parsed, const uint8_t *data, uint32_t caplen,
                   enum sm_granularity granularity, struct sm_key *key);

/* SM_BY_VLAN: the tags are before the IP header, and what a packet begins with only its link type says. */
void sm_vlan_key(int linktype, const uint8_t *data, uint32_t caplen, struct sm_key *key);

/* Keep the first bits of a one-way key's address; 0: all. */
void sm_key_narrow(struct sm_key *key, unsigned prefix4, unsigned prefix6);

#endif
