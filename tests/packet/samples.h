/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_PACKET_SAMPLES_H
#define SM_TESTS_PACKET_SAMPLES_H

/* Packets made by hand, as hexadecimal text of headers, and what the parser must say of each. */

#include "packet/packet.h"

#include <stdlib.h>
#include <string.h>

/* Link types (DLT_*). */
enum { NULL_LINK = 0, ETHERNET = 1, RAW = 12, LOOP = 108, SLL = 113, IPV4_LINK = 228, IPV6_LINK = 229, SLL2 = 276 };

#define ETH(type)                                                                                                      \
    "020000000002"                                                                                                     \
    "020000000001" type
#define VLAN(type) "0064" type
/* IPv4 from 10.0.0.1 to 10.0.0.2, and back */
#define IP4_(first, total, fragment, protocol, source, destination)                                                    \
    first "00" total "abcd" fragment "40" protocol "0000" source destination
#define IP4(total, fragment, protocol) IP4_("45", total, fragment, protocol, "0a000001", "0a000002")
#define BACK4(total, fragment, protocol) IP4_("45", total, fragment, protocol, "0a000002", "0a000001")
#define V6A "20010db8000000000000000000000001"
#define V6B "20010db8000000000000000000000002"
#define IP6(payload, next) "60000000" payload next "40" V6A V6B
#define BACK6(payload, next) "60000000" payload next "40" V6B V6A
#define TCP                                                                                                            \
    "d903"                                                                                                             \
    "0050"                                                                                                             \
    "00000001"                                                                                                         \
    "00000000"                                                                                                         \
    "5002"                                                                                                             \
    "ffff"                                                                                                             \
    "0000"                                                                                                             \
    "0000" /* 55555 -> 80 */
#define BACKTCP                                                                                                        \
    "0050"                                                                                                             \
    "d903"                                                                                                             \
    "00000001"                                                                                                         \
    "00000000"                                                                                                         \
    "5002"                                                                                                             \
    "ffff"                                                                                                             \
    "0000"                                                                                                             \
    "0000"
#define UDP                                                                                                            \
    "1388"                                                                                                             \
    "0035"                                                                                                             \
    "000c"                                                                                                             \
    "0000"                                                                                                             \
    "00000000" /* 5000 -> 53, 4 bytes */
#define SCTP                                                                                                           \
    "0b59"                                                                                                             \
    "0b5a"                                                                                                             \
    "00000001"                                                                                                         \
    "00000000" /* 2905 -> 2906 */
#define ECHO                                                                                                           \
    "0800"                                                                                                             \
    "0000"                                                                                                             \
    "7777"                                                                                                             \
    "0001"
#define MPLS_TOP "00010040"
#define MPLS_BOTTOM "00011140"
#define PPPOE(protocol)                                                                                                \
    "1100"                                                                                                             \
    "0001"                                                                                                             \
    "0042" protocol
#define SLL_(type)                                                                                                     \
    "0000"                                                                                                             \
    "0001"                                                                                                             \
    "0006"                                                                                                             \
    "020000000001"                                                                                                     \
    "0000" type
#define SLL2_(type)                                                                                                    \
    type "0000"                                                                                                        \
         "00000002"                                                                                                    \
         "0001"                                                                                                        \
         "00"                                                                                                          \
         "06"                                                                                                          \
         "020000000001"                                                                                                \
         "0000"
#define UNREACHABLE                                                                                                    \
    "0301"                                                                                                             \
    "0000"                                                                                                             \
    "00000000"

struct sample {
    const char *name;
    int linktype;
    const char *bytes;    /* hexadecimal */
    uint32_t uncaptured;  /* bytes on the wire behind those */
    const char *counters; /* those that must be 1 besides `packets`; all others must be 0 */
    const char *ends;     /* hexadecimal, a then b, of 4 or 16 bytes each; NULL: not IP */
    uint16_t a_port, b_port;
    uint8_t protocol; /* of the key */
    uint16_t l3, l4;
    uint8_t flags;
};

#define ENDS4 "0a0000010a000002"
#define ENDS6 V6A V6B
#define R SM_HDR_REVERSE
#define E SM_HDR_ICMP_ERROR
#define F SM_HDR_FRAGMENT
#define LATER (SM_HDR_FRAGMENT | SM_HDR_LATER_FRAGMENT)
#define T SM_HDR_TRUNCATED
#define M SM_HDR_MALFORMED

/* clang-format off */
static const struct sample samples[] = {
    /* the usual */
    {"tcp", ETHERNET, ETH("0800") IP4("0028", "0000", "06") TCP, 0, "ipv4 tcp", ENDS4, 55555, 80, 6, 14, 34, 0},
    {"tcp back", ETHERNET, ETH("0800") BACK4("0028", "0000", "06") BACKTCP, 0, "ipv4 tcp", ENDS4, 55555, 80, 6, 14, 34, R},
    {"udp", ETHERNET, ETH("0800") IP4("0020", "4000", "11") UDP, 0, "ipv4 udp", ENDS4, 5000, 53, 17, 14, 34, 0},
    {"udp padded", ETHERNET, ETH("0800") IP4("0020", "4000", "11") UDP "000000000000000000000000", 0, "ipv4 udp", ENDS4, 5000, 53, 17, 14, 34, 0},
    {"sctp", ETHERNET, ETH("0800") IP4("0020", "0000", "84") SCTP, 0, "ipv4 sctp", ENDS4, 2905, 2906, 132, 14, 34, 0},
    {"same address, ports decide", ETHERNET, ETH("0800") IP4_("45", "0028", "0000", "06", "0a000001", "0a000001") TCP, 0, "ipv4 tcp", "0a0000010a000001", 80, 55555, 6, 14, 34, R},
    {"same ends", ETHERNET, ETH("0800") IP4_("45", "0020", "0000", "11", "0a000001", "0a000001") "00350035000c000000000000", 0, "ipv4 udp", "0a0000010a000001", 53, 53, 17, 14, 34, 0},
    {"other protocol", ETHERNET, ETH("0800") IP4("0018", "0000", "2f") "00000800", 0, "ipv4 other_protocol", ENDS4, 0, 0, 47, 14, 34, 0},
    {"options", ETHERNET, ETH("0800") IP4_("46", "002c", "0000", "06", "0a000001", "0a000002") "01010100" TCP, 0, "ipv4 ipv4_options tcp", ENDS4, 55555, 80, 6, 14, 38, 0},
    {"ipv6 tcp", ETHERNET, ETH("86dd") IP6("0014", "06") TCP, 0, "ipv6 tcp", ENDS6, 55555, 80, 6, 14, 54, 0},
    {"ipv6 tcp back", ETHERNET, ETH("86dd") BACK6("0014", "06") BACKTCP, 0, "ipv6 tcp", ENDS6, 55555, 80, 6, 14, 54, R},
    {"ipv6 udp", ETHERNET, ETH("86dd") IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 14, 54, 0},
    {"ipv6 no next", ETHERNET, ETH("86dd") IP6("0000", "3b"), 0, "ipv6 other_protocol", ENDS6, 0, 0, 59, 14, 0, 0},

    /* link layers */
    {"vlan", ETHERNET, ETH("8100") VLAN("0800") IP4("0020", "0000", "11") UDP, 0, "vlan ipv4 udp", ENDS4, 5000, 53, 17, 18, 38, 0},
    {"qinq", ETHERNET, ETH("88a8") VLAN("8100") VLAN("0800") IP4("0020", "0000", "11") UDP, 0, "vlan qinq ipv4 udp", ENDS4, 5000, 53, 17, 22, 42, 0},
    {"old qinq, three tags", ETHERNET, ETH("9100") VLAN("9100") VLAN("8100") VLAN("86dd") IP6("000c", "11") UDP, 0, "vlan qinq ipv6 udp", ENDS6, 5000, 53, 17, 26, 66, 0},
    {"too many tags", ETHERNET, ETH("8100") VLAN("8100") VLAN("8100") VLAN("8100") VLAN("8100") VLAN("8100") VLAN("8100") VLAN("8100") VLAN("8100") VLAN("0800") IP4("0020", "0000", "11") UDP, 0, "vlan qinq non_ip malformed", NULL, 0, 0, 0, 0, 0, M},
    {"tag cut off", ETHERNET, ETH("8100") "0064", 40, "vlan non_ip truncated", NULL, 0, 0, 0, 0, 0, T},
    {"mpls", ETHERNET, ETH("8847") MPLS_BOTTOM IP4("0020", "0000", "11") UDP, 0, "mpls ipv4 udp", ENDS4, 5000, 53, 17, 18, 38, 0},
    {"mpls stack, ipv6", ETHERNET, ETH("8848") MPLS_TOP MPLS_TOP MPLS_BOTTOM IP6("000c", "11") UDP, 0, "mpls ipv6 udp", ENDS6, 5000, 53, 17, 26, 66, 0},
    {"mpls pseudowire", ETHERNET, ETH("8847") MPLS_BOTTOM "00000000" ETH("0800"), 0, "mpls non_ip", NULL, 0, 0, 0, 0, 0, 0},
    {"mpls without a bottom", ETHERNET, ETH("8847") MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_TOP MPLS_BOTTOM, 0, "mpls non_ip malformed", NULL, 0, 0, 0, 0, 0, M},
    {"mpls behind vlan", ETHERNET, ETH("8100") VLAN("8847") MPLS_BOTTOM IP4("0020", "0000", "11") UDP, 0, "vlan mpls ipv4 udp", ENDS4, 5000, 53, 17, 22, 42, 0},
    {"pppoe ipv4", ETHERNET, ETH("8864") PPPOE("0021") IP4("0020", "0000", "11") UDP, 0, "pppoe ipv4 udp", ENDS4, 5000, 53, 17, 22, 42, 0},
    {"pppoe ipv6", ETHERNET, ETH("8864") PPPOE("0057") IP6("000c", "11") UDP, 0, "pppoe ipv6 udp", ENDS6, 5000, 53, 17, 22, 62, 0},
    {"pppoe other", ETHERNET, ETH("8864") PPPOE("c021") "01010004", 0, "pppoe non_ip", NULL, 0, 0, 0, 0, 0, 0},
    {"pppoe cut off", ETHERNET, ETH("8864") "1100", 40, "pppoe non_ip truncated", NULL, 0, 0, 0, 0, 0, T},
    {"arp", ETHERNET, ETH("0806") "0001080006040001", 0, "arp non_ip", NULL, 0, 0, 0, 0, 0, 0},
    {"802.3", ETHERNET, ETH("0026") "424203000000", 0, "non_ip", NULL, 0, 0, 0, 0, 0, 0},
    {"empty", ETHERNET, "", 0, "non_ip malformed", NULL, 0, 0, 0, 0, 0, M},
    {"sll", SLL, SLL_("0800") IP4("0020", "0000", "11") UDP, 0, "ipv4 udp", ENDS4, 5000, 53, 17, 16, 36, 0},
    {"sll vlan", SLL, SLL_("8100") VLAN("0800") IP4("0020", "0000", "11") UDP, 0, "vlan ipv4 udp", ENDS4, 5000, 53, 17, 20, 40, 0},
    {"sll2", SLL2, SLL2_("86dd") IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 20, 60, 0},
    {"raw 4", RAW, IP4("0020", "0000", "11") UDP, 0, "ipv4 udp", ENDS4, 5000, 53, 17, 0, 20, 0},
    {"raw 6", RAW, IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 0, 40, 0},
    {"raw neither", RAW, "00000000", 0, "non_ip", NULL, 0, 0, 0, 0, 0, 0},
    {"ipv4", IPV4_LINK, IP4("0020", "0000", "11") UDP, 0, "ipv4 udp", ENDS4, 5000, 53, 17, 0, 20, 0},
    {"ipv6", IPV6_LINK, IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 0, 40, 0},
    {"null little endian", NULL_LINK, "02000000" IP4("0020", "0000", "11") UDP, 0, "ipv4 udp", ENDS4, 5000, 53, 17, 4, 24, 0},
    {"null big endian macos", NULL_LINK, "0000001e" IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 4, 44, 0},
    {"null freebsd", NULL_LINK, "1c000000" IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 4, 44, 0},
    {"loop openbsd", LOOP, "00000018" IP6("000c", "11") UDP, 0, "ipv6 udp", ENDS6, 5000, 53, 17, 4, 44, 0},
    {"loop other", LOOP, "00000007" "0000", 0, "non_ip", NULL, 0, 0, 0, 0, 0, 0},
    {"other link type", 127, "00000800" IP4("0020", "0000", "11") UDP, 0, "other_link_type non_ip", NULL, 0, 0, 0, 0, 0, 0},

    /* IPv6 extension headers */
    {"hop by hop, destination", ETHERNET, ETH("86dd") IP6("001c", "00") "3c00010400000000" "1100010400000000" UDP, 0, "ipv6 ipv6_extensions udp", ENDS6, 5000, 53, 17, 14, 70, 0},
    {"routing, 24 bytes", ETHERNET, ETH("86dd") IP6("0024", "2b") "1102000000000000" V6A UDP, 0, "ipv6 ipv6_extensions udp", ENDS6, 5000, 53, 17, 14, 78, 0},
    {"authentication", ETHERNET, ETH("86dd") IP6("0024", "33") "11040000" "00000001" "00000001" "000000000000000000000000" UDP, 0, "ipv6 ipv6_extensions udp", ENDS6, 5000, 53, 17, 14, 78, 0},
    {"atomic fragment", ETHERNET, ETH("86dd") IP6("0014", "2c") "1100000000000007" UDP, 0, "ipv6 ipv6_extensions udp", ENDS6, 5000, 53, 17, 14, 62, 0},
    {"extension beyond the packet", ETHERNET, ETH("86dd") IP6("0008", "00") "11ff000000000000", 0, "ipv6 ipv6_extensions udp malformed", ENDS6, 0, 0, 17, 14, 0, M},
    {"extension cut off", ETHERNET, ETH("86dd") IP6("0030", "00") "1100", 46, "ipv6 ipv6_extensions other_protocol truncated", ENDS6, 0, 0, 0, 14, 0, T},
    {"too many extensions", ETHERNET, ETH("86dd") IP6("0088", "3c")
        "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000"
        "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000"
        "3c00010400000000" "3c00010400000000" "3c00010400000000" "3c00010400000000" "1100010400000000", 0, "ipv6 ipv6_extensions other_protocol malformed", ENDS6, 0, 0, 60, 14, 0, M},
    {"jumbogram", ETHERNET, ETH("86dd") IP6("0000", "00") "1100c20400010008" "1388" "0035" "0000" "0000", 70000, "ipv6 ipv6_extensions udp", ENDS6, 5000, 53, 17, 14, 62, 0},

    /* ICMP */
    {"echo", ETHERNET, ETH("0800") IP4("001c", "0000", "01") ECHO, 0, "ipv4 icmp", ENDS4, 0x7777, 0x7777, 1, 14, 34, 0},
    {"echo reply", ETHERNET, ETH("0800") BACK4("001c", "0000", "01") "0000" "0000" "7777" "0001", 0, "ipv4 icmp", ENDS4, 0x7777, 0x7777, 1, 14, 34, R},
    {"icmp router advertisement", ETHERNET, ETH("0800") IP4("001c", "0000", "01") "0900" "0000" "01020000", 0, "ipv4 icmp", ENDS4, 0, 0, 1, 14, 34, 0},
    {"echo 6", ETHERNET, ETH("86dd") IP6("0008", "3a") "8000" "0000" "7777" "0001", 0, "ipv6 icmpv6", ENDS6, 0x7777, 0x7777, 58, 14, 54, 0},
    {"icmp in ipv6", ETHERNET, ETH("86dd") IP6("0008", "01") ECHO, 0, "ipv6 other_protocol", ENDS6, 0, 0, 1, 14, 54, 0},
    {"error from a router, of a packet from a", ETHERNET, ETH("0800") IP4_("45", "0038", "0000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0020", "0000", "11") "13880035000c0000", 0, "ipv4 icmp icmp_error", ENDS4, 5000, 53, 17, 14, 34, E | R},
    {"error from a router, of a packet from b", ETHERNET, ETH("0800") IP4_("45", "0038", "0000", "01", "c0a80001", "0a000002") UNREACHABLE BACK4("0028", "0000", "06") "0050d90300000001", 0, "ipv4 icmp icmp_error", ENDS4, 55555, 80, 6, 14, 34, E},
    {"error of an echo", ETHERNET, ETH("0800") IP4_("45", "0038", "0000", "01", "c0a80001", "0a000001") "0b000000" "00000000" IP4("001c", "0000", "01") ECHO, 0, "ipv4 icmp icmp_error", ENDS4, 0x7777, 0x7777, 1, 14, 34, E | R},
    {"error of an error", ETHERNET, ETH("0800") IP4_("45", "0038", "0000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0038", "0000", "01") UNREACHABLE, 0, "ipv4 icmp icmp_error", ENDS4, 0, 0, 1, 14, 34, E | R},
    {"error of a later fragment", ETHERNET, ETH("0800") IP4_("45", "0038", "0000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0028", "0003", "11") "1111111111111111", 0, "ipv4 icmp icmp_error", ENDS4, 0, 0, 17, 14, 34, E | R},
    {"error with a short quote", ETHERNET, ETH("0800") IP4_("45", "0032", "0000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0028", "0000", "11") "1388", 0, "ipv4 icmp icmp_error", ENDS4, 0, 0, 17, 14, 34, E | R},
    {"error with a cut quote", ETHERNET, ETH("0800") IP4_("45", "0038", "0000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0028", "0000", "11") "1388", 6, "ipv4 icmp icmp_error truncated", ENDS4, 0, 0, 17, 14, 34, E | R | T},
    {"error without a quote", ETHERNET, ETH("0800") IP4("001c", "0000", "01") UNREACHABLE, 0, "ipv4 icmp icmp_error_unquoted malformed", ENDS4, 0, 0, 1, 14, 34, M},
    {"error with its quote cut off", ETHERNET, ETH("0800") IP4("0038", "0000", "01") UNREACHABLE "4500", 26, "ipv4 icmp icmp_error_unquoted truncated", ENDS4, 0, 0, 1, 14, 34, T},
    {"error with a quote of another version", ETHERNET, ETH("0800") IP4("0038", "0000", "01") UNREACHABLE IP4_("65", "0020", "0000", "11", "0a000001", "0a000002") "13880035000c0000", 0, "ipv4 icmp icmp_error_unquoted malformed", ENDS4, 0, 0, 1, 14, 34, M},
    {"error 6", ETHERNET, ETH("86dd") "60000000" "0038" "3a" "40" "20010db8000000000000000000000009" V6A "0104000000000000" IP6("000c", "11") "13880035000c0000", 0, "ipv6 icmpv6 icmp_error", ENDS6, 5000, 53, 17, 14, 54, E | R},
    {"packet too big, quote has an extension", ETHERNET, ETH("86dd") "60000000" "0040" "3a" "40" "20010db8000000000000000000000009" V6A "0200000000000500" IP6("0014", "3c") "1100010400000000" "13880035000c0000", 0, "ipv6 icmpv6 icmp_error", ENDS6, 5000, 53, 17, 14, 54, E | R},
    {"redirect 6 is not an error", ETHERNET, ETH("86dd") IP6("0008", "3a") "8900000000000000", 0, "ipv6 icmpv6", ENDS6, 0, 0, 58, 14, 54, 0},

    /* fragments on their own; see fragment_test.c for what they do to each other */
    {"first fragment", ETHERNET, ETH("0800") IP4("0020", "2000", "11") UDP, 0, "ipv4 udp fragment_first", ENDS4, 5000, 53, 17, 14, 34, F},
    {"orphan", ETHERNET, ETH("0800") BACK4("0020", "0003", "11") UDP, 0, "ipv4 udp fragment_later fragment_orphan", ENDS4, 0, 0, 17, 14, 0, LATER | R},
    {"orphan 6", ETHERNET, ETH("86dd") IP6("0014", "2c") "1100001100000007" UDP, 0, "ipv6 ipv6_extensions udp fragment_later fragment_orphan", ENDS6, 0, 0, 17, 14, 0, LATER},
    {"first fragment longer when whole", ETHERNET, ETH("0800") IP4("0020", "2000", "11") "13880035ffff000000000000", 0, "ipv4 udp fragment_first", ENDS4, 5000, 53, 17, 14, 34, F},

    /* cut by the capture */
    {"tcp cut behind its ports", ETHERNET, ETH("0800") IP4("0028", "0000", "06") "d903005000000001", 12, "ipv4 tcp truncated", ENDS4, 55555, 80, 6, 14, 0, T},
    {"tcp cut in its ports", ETHERNET, ETH("0800") IP4("0028", "0000", "06") "d90300", 17, "ipv4 tcp truncated", ENDS4, 0, 0, 6, 14, 0, T},
    {"payload cut", ETHERNET, ETH("0800") IP4("0428", "0000", "06") TCP, 1024, "ipv4 tcp", ENDS4, 55555, 80, 6, 14, 34, 0},
    {"ip header cut", ETHERNET, ETH("0800") "4500002800000000", 32, "non_ip truncated", NULL, 0, 0, 0, 0, 0, T},
    {"options cut", ETHERNET, ETH("0800") IP4_("46", "002c", "0000", "06", "0a000001", "0a000002") "0101", 22, "ipv4 ipv4_options tcp truncated", ENDS4, 0, 0, 6, 14, 0, T},

    /* contradictions */
    {"header of 16 bytes", ETHERNET, ETH("0800") IP4_("44", "0028", "0000", "06", "0a000001", "0a000002") TCP, 0, "ipv4 tcp malformed", ENDS4, 0, 0, 6, 14, 0, M},
    {"length less than its header", ETHERNET, ETH("0800") IP4("0010", "0000", "06") TCP, 0, "ipv4 tcp malformed", ENDS4, 0, 0, 6, 14, 0, M},
    {"length more than the packet", ETHERNET, ETH("0800") IP4("0029", "0000", "06") TCP, 0, "ipv4 tcp malformed", ENDS4, 55555, 80, 6, 14, 34, M},
    {"length 0: offloaded", ETHERNET, ETH("0800") IP4("0000", "0000", "06") TCP, 0, "ipv4 tcp", ENDS4, 55555, 80, 6, 14, 34, 0},
    {"length 0 in ipv6", ETHERNET, ETH("86dd") IP6("0000", "06") TCP, 0, "ipv6 tcp", ENDS6, 55555, 80, 6, 14, 54, 0},
    {"ipv6 length more than the packet", ETHERNET, ETH("86dd") IP6("0015", "06") TCP, 0, "ipv6 tcp malformed", ENDS6, 55555, 80, 6, 14, 54, M},
    {"ipv6 under an ipv4 type", ETHERNET, ETH("0800") IP6("0014", "06") TCP, 0, "non_ip malformed", NULL, 0, 0, 0, 0, 0, M},
    {"ipv4 under an ipv6 type", ETHERNET, ETH("86dd") IP4("0028", "0000", "06") TCP, 0, "non_ip malformed", NULL, 0, 0, 0, 0, 0, M},
    {"tcp header beyond its packet", ETHERNET, ETH("0800") IP4("0024", "0000", "06") TCP, 0, "ipv4 tcp malformed", ENDS4, 55555, 80, 6, 14, 0, M},
    {"tcp options beyond its packet", ETHERNET, ETH("0800") IP4("0028", "0000", "06") "d9030050" "00000001" "00000000" "6002ffff00000000", 0, "ipv4 tcp malformed", ENDS4, 55555, 80, 6, 14, 34, M},
    {"tcp data offset 4", ETHERNET, ETH("0800") IP4("0028", "0000", "06") "d9030050" "00000001" "00000000" "4002ffff00000000", 0, "ipv4 tcp malformed", ENDS4, 55555, 80, 6, 14, 34, M},
    {"udp length 7", ETHERNET, ETH("0800") IP4("0020", "0000", "11") "138800350007000000000000", 0, "ipv4 udp malformed", ENDS4, 5000, 53, 17, 14, 34, M},
    {"udp length 0", ETHERNET, ETH("0800") IP4("0020", "0000", "11") "138800350000000000000000", 0, "ipv4 udp malformed", ENDS4, 5000, 53, 17, 14, 34, M},
    {"udp length beyond its packet", ETHERNET, ETH("0800") IP4("0020", "0000", "11") "13880035000d000000000000", 0, "ipv4 udp malformed", ENDS4, 5000, 53, 17, 14, 34, M},
    {"tiny first fragment", ETHERNET, ETH("0800") IP4("001c", "2000", "06") "d903005000000001", 0, "ipv4 tcp fragment_first malformed", ENDS4, 55555, 80, 6, 14, 0, F | M},
};
/* clang-format on */
enum { SAMPLES = sizeof samples / sizeof samples[0] };

#undef R
#undef E
#undef F
#undef LATER
#undef T
#undef M

/* The bytes of hexadecimal text, in memory of exactly that size. The caller frees. */
static inline uint8_t *sample_bytes(const char *hex, uint32_t *size)
{
    *size = (uint32_t)strlen(hex) / 2;
    uint8_t *bytes = malloc(*size > 0 ? *size : 1);
    for (uint32_t i = 0; i < *size; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return bytes;
}

#endif
