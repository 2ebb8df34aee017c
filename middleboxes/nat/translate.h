/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef NAT_TRANSLATE_H
#define NAT_TRANSLATE_H

/*
 * Addresses and ports in IPv4 packets, with all checksums over them amended (RFC 1624). Pure: on the bytes of a packet
 * from its IP header on; what was not captured is not touched.
 */

#include <stdbool.h>
#include <stdint.h>

enum { IP_ICMP = 1, IP_TCP = 6, IP_UDP = 17 };
enum { ICMP_ECHO_REPLY = 0, ICMP_ECHO = 8 };

/* An address and a port (ICMP echo: the identifier). */
struct end {
    uint8_t address[4];
    uint16_t port;
};

/*
 * Give a packet another source (or destination). `bytes`: captured. `transport`: where its transport header begins, 0:
 * it has none (a later fragment).
 */
void translate(uint8_t *ip, uint32_t bytes, uint32_t transport, bool source, const struct end *end);

/*
 * The same for an ICMP error: its source, and in the packet that it quotes the destination; or, where `source` is
 * false, its destination and the quoted source.
 */
void translate_error(uint8_t *ip, uint32_t bytes, uint32_t icmp, bool source, const struct end *end);

#endif
