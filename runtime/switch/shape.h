/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_SHAPE_H
#define SM_SWITCH_SHAPE_H

/*
 * Packets that a middlebox delays (sm_packet_delay()), in memory of their own, by the times at which they depart.
 * The switch's worker alone.
 */

#include <stdint.h>

#include "switch/audit.h"

#define SHAPE_CELL_BYTES 256u
#define SHAPE_DEFAULT_BYTES (64ull << 20)
#define SHAPE_NONE UINT64_MAX

struct sm_switch;

/* A delayed packet; its number is that of its first cell. */
struct shaped {
    struct audit_ticket ticket; /* number 0: a packet that the middlebox made */
    uint64_t departure, time;   /* packet times: when it leaves, when it came */
    uint64_t sequence;          /* of arrival; a made packet's is that of its cause */
    uint64_t number;            /* of entry: a packet before those made because of it */
    uint64_t due;               /* wall clock, where that decides */
    uint32_t caplen, len;
    uint16_t shard;
    uint8_t from; /* port it came in by */
    bool written;
};

struct shape_node {
    uint64_t departure;
    uint32_t cell;
};

struct shaper {
    uint8_t *memory; /* all of what follows */
    uint64_t memory_bytes;
    uint8_t (*cells)[SHAPE_CELL_BYTES];
    uint32_t *next;          /* by cell: the packet's next one, or the next free one */
    struct shaped *packets;  /* by first cell */
    struct shape_node *heap; /* the first to depart at 0 */
    uint8_t *whole;          /* room for one packet, put together to be sent */
    uint32_t cell_count, used;
    uint32_t fresh; /* cells from here on were never used */
    uint32_t free;  /* list of those that were */
    uint32_t count; /* packets */
    uint32_t used_max;
    uint64_t entered; /* packets, ever */
    bool timed;       /* the wall clock decides when; else whatever leaves behind */
};

/* `bytes`: for packets' bytes, in cells. SM_E_NO_MEMORY. */
int switch_shape_open(struct sm_switch *sw, uint64_t bytes);
void switch_shape_close(struct sm_switch *sw);

/* Packets will be delayed; before any has entered. */
void switch_shape_expect(struct sm_switch *sw);

/* Take over a packet that is to depart later; its buffer is free to be used again. False: there is no room. */
bool switch_shape_enter(struct sm_switch *sw, uint32_t buffer, bool entered, bool written);

/* Send what departs at `time` or before. */
void switch_shape_release(struct sm_switch *sw, uint64_t time);

/* Send what is due by the wall clock; how many. */
unsigned switch_shape_poll(struct sm_switch *sw);

/* Nothing will come any more: where the wall clock does not decide, send all. Whether all has been sent. */
bool switch_shape_end(struct sm_switch *sw);

#endif
