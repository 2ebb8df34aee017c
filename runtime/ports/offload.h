/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_OFFLOAD_H
#define SM_PORTS_OFFLOAD_H

/*
 * What a network card would have done for the sender of a packet.
 *
 * Overview.  Between machines that share a kernel (veth, bridges, guests) a packet may arrive before its card's work is
 * done: its checksum is not yet finished, and TCP may be longer than the link carries, to be cut by the card. Whoever
 * takes such packets out of the kernel and puts them back has to do that work, or they leave as no wire would carry
 * them. Checksums are finished where packets come in, so that what the middlebox sees is right; cutting is done where
 * they go out.
 *
 * Concurrency.  Pure, but for the caller's bytes.
 *
 * Limits.  The outermost IP header behind up to two VLAN tags; fragments are left alone, and the inside of tunnels.
 */

#include <stdbool.h>
#include <stdint.h>

/*
 * Finish the checksum of an Ethernet frame of TCP or UDP whose sender left that to its card: the field holds the sum of
 * the pseudo header and is not right. Every other packet stays as it is, damaged ones too. SCTP's is 0 then.
 * Returns whether anything was changed.
 */
bool sm_offload_finish(uint8_t *frame, uint32_t length);

/* A TCP packet that is cut. The frame stays the caller's until the last segment. */
struct sm_segments {
    const uint8_t *frame;
    uint32_t ip, tcp; /* offsets of the headers */
    uint32_t header;  /* bytes up to the payload */
    uint32_t payload; /* bytes of it in a segment, but for the last */
    uint32_t at, end; /* payload not yet given; both offsets */
    uint32_t number;  /* of the next segment */
};

/* Begin to cut a frame into segments that a link of `mtu` carries. False: it is not whole TCP over IP. */
bool sm_segments_begin(struct sm_segments *segments, const uint8_t *frame, uint32_t length, uint32_t mtu);

/* The bytes of the next segment, written to `out`, which has room for a frame of the link; 0: that was all. */
uint32_t sm_segments_next(struct sm_segments *segments, uint8_t *out);

/* Bytes of the longest frame of this one's kind that a link of `mtu` carries: a tag is not counted. */
uint32_t sm_offload_longest(const uint8_t *frame, uint32_t length, uint32_t mtu);

#endif
