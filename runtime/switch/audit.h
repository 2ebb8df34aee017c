/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_AUDIT_H
#define SM_SWITCH_AUDIT_H

/*
 * The promises, watched from outside: every packet is given a ticket where it enters and hands it in where it leaves.
 * This code shares nothing with the code that steers, holds and moves; it sees only bytes, buffers and shards.
 *
 * Loss-free: every ticket comes back once (a sum over mixed tickets, and a count). Ordered: tickets of a shard come
 * back ascending, dropped packets' too (a flow's packets have one shard, so this is stricter than order by flow).
 * Untouched: a packet that the middlebox did not ask to write leaves with the bytes it came with (a digest over the
 * first AUDIT_DIGEST_BYTES, and both lengths).
 */

#include <stdbool.h>
#include <stdint.h>

#include "state/state.h"

#define AUDIT_DIGEST_BYTES 64u

struct audit_ticket {
    uint64_t number; /* 0: the buffer holds no packet that entered */
    uint64_t digest;
    uint32_t shard;
};

struct audit {
    uint64_t entered, left;
    uint64_t entered_sum, left_sum; /* of mixed tickets, wrapping */
    uint64_t twice;                 /* left without having entered */
    uint64_t reordered;
    uint64_t altered;
    uint64_t first_bad;           /* ticket of the first packet that broke something */
    uint64_t last[SM_SHARDS + 1]; /* last ticket that left, by shard; the last place is for what has no shard */
    struct audit_ticket *tickets; /* by buffer */
    uint32_t buffers;
};

int audit_init(struct audit *audit, uint32_t buffers);
void audit_free(struct audit *audit);

/* `shard`: SM_SHARDS for packets that pass unprocessed. */
void audit_enter(struct audit *audit, uint32_t buffer, uint32_t shard, const uint8_t *data, uint32_t caplen,
                 uint32_t len);
void audit_leave(struct audit *audit, uint32_t buffer, const uint8_t *data, uint32_t caplen, uint32_t len,
                 bool written);

/* "held", or what broke; at the end of a run, when nothing is in flight. *text is the caller's. */
const char *audit_loss_free(const struct audit *audit, struct sm_errbuf *text);
const char *audit_ordered(const struct audit *audit, struct sm_errbuf *text);

#endif
