/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MIDDLEBOXES_COMMUNITY_ID_H
#define MIDDLEBOXES_COMMUNITY_ID_H

/* Community ID version 1, seed 0: a name of a flow that other tools give it, too. Pure. */

#include <stddef.h>
#include <stdint.h>

#define COMMUNITY_ID_ROOM 32

/*
 * The id into `text`. `width`: of the addresses, 4 or 16 bytes. Ports in host byte order, of TCP, UDP and SCTP; of ICMP
 * (both versions) its type and code instead; of other protocols they do not count.
 */
void community_id(char text[COMMUNITY_ID_ROOM], uint8_t protocol, size_t width, const uint8_t *source,
                  uint16_t source_port, const uint8_t *destination, uint16_t destination_port);

#endif
