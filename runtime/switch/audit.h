/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_AUDIT_H
#define SM_SWITCH_AUDIT_H

/*
 * The promises, watched from outside: every packet is given a ticket where it enters and hands it in where it leaves.
 * This code shares nothing with the code that steers, holds and moves; it sees only bytes, buffers and shards.
 *
 * Loss-free: every ticket comes back once (a sum over mixed tickets, and a count). Ordered: tickets of a shard come
 * back ascending, dropped packets' too (a flow's packets have one shard, so this is stricter than order by flow;
 * by flow where the flows of a shard may be in several replicas, of those that were seen last). Where
 * the middlebox delays packets, one may be overtaken by those that depart before it does, and by no other.
 * Untouched: a packet that the middlebox did not ask to write leaves with the bytes it came with (the first AUDIT_BYTES
 * are kept and compared, and both lengths).
 */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "state/state.h"

#define AUDIT_BYTES 64u
#define AUDIT_FLOWS 65536u

typedef uint64_t audit_words __attribute__((vector_size(16)));

struct audit_ticket {
    _Alignas(64) audit_words bytes[AUDIT_BYTES / sizeof(audit_words)]; /* as many of them as the packet has */
    uint64_t number;                                                   /* 0: the buffer holds no packet that entered */
    uint32_t shard;
    uint32_t caplen, len;
    uint64_t flow; /* once order is by flow */
};

struct audit {
    uint64_t entered, left;
    uint64_t entered_sum, left_sum; /* of mixed tickets, wrapping */
    uint64_t twice;                 /* left without having entered */
    uint64_t reordered;
    uint64_t altered;
    uint64_t first_bad;           /* ticket of the first packet that broke something */
    uint64_t last[SM_SHARDS + 1]; /* last ticket that left, by shard; the last place is for what has no shard */
    bool delays;                  /* from now on that, and the departure, are kept here: */
    struct audit_departure {
        uint64_t number, departure;
    } latest[SM_SHARDS + 1]; /* the highest ticket that left */
    struct audit_flow {
        uint64_t flow, number, departure;
    } * flows;                    /* NULL: order is by shard; else AUDIT_FLOWS, the one met last in each place */
    struct audit_ticket *tickets; /* by buffer */
    uint32_t buffers;
};

int audit_init(struct audit *audit, uint32_t buffers);

/* Before the first packet: order is by flow. SM_E_NO_MEMORY. */
int audit_by_flow(struct audit *audit);
void audit_free(struct audit *audit);

/* Count what broke, and keep the first ticket that did. */
__attribute__((cold)) void audit_broken(struct audit *audit, uint64_t *counter, uint64_t ticket);

static inline void audit_keep(struct audit_ticket *ticket, const uint8_t *data, uint32_t caplen, uint32_t len)
{
    ticket->caplen = caplen;
    ticket->len = len;
    if (caplen >= AUDIT_BYTES)
        memcpy(ticket->bytes, data, AUDIT_BYTES); /* of a fixed length: no call */
    else
        memcpy(ticket->bytes, data, caplen);
}

static inline bool audit_same_bytes(const audit_words *kept, const uint8_t *data)
{
    audit_words difference = {0};

#pragma GCC unroll 4
    for (unsigned i = 0; i < AUDIT_BYTES / sizeof difference; i++) {
        audit_words words;
        memcpy(&words, data + i * sizeof words, sizeof words);
        difference |= words ^ kept[i];
    }
    return (difference[0] | difference[1]) == 0;
}

static inline bool audit_same(const struct audit_ticket *ticket, const uint8_t *data, uint32_t caplen, uint32_t len)
{
    if (ticket->caplen != caplen || ticket->len != len)
        return false;
    return caplen >= AUDIT_BYTES ? audit_same_bytes(ticket->bytes, data) : memcmp(ticket->bytes, data, caplen) == 0;
}

/* An odd multiplier: sums of different sets of tickets differ, unlike sums of the tickets themselves. */
static inline uint64_t audit_mix(uint64_t ticket)
{
    ticket *= 0x9e3779b97f4a7c15ull;
    return ticket ^ (ticket >> 29);
}

/* `shard`: SM_SHARDS for packets that pass unprocessed. */
static inline void audit_enter(struct audit *audit, uint32_t buffer, uint32_t shard, const uint8_t *data,
                               uint32_t caplen, uint32_t len)
{
    struct audit_ticket *ticket = &audit->tickets[buffer];

    ticket->number = ++audit->entered;
    ticket->shard = shard;
    audit_keep(ticket, data, caplen, len);
    audit->entered_sum += audit_mix(ticket->number);
}

/* The same as audit_hand_in()'s own question about order, once packets are delayed, or by flow. */
bool audit_overtaken(struct audit *audit, const struct audit_ticket *ticket, uint64_t departure);

/* The flow of a packet that has entered. */
static inline void audit_flow(struct audit *audit, uint32_t buffer, uint64_t flow)
{
    audit->tickets[buffer].flow = flow;
}

/* A packet leaves its buffer and is delayed: its ticket goes along. */
void audit_carry(struct audit *audit, uint32_t buffer, struct audit_ticket *to);

/* `departure`: the packet time at which the packet leaves: its own, unless it was delayed. */
static inline void audit_hand_in(struct audit *audit, struct audit_ticket *ticket, const uint8_t *data, uint32_t caplen,
                                 uint32_t len, bool written, uint64_t departure)
{
    uint64_t number = ticket->number;

    if (number == 0) {
        audit_broken(audit, &audit->twice, audit->left);
        return;
    }
    if (audit->delays || audit->flows) {
        if (audit_overtaken(audit, ticket, departure))
            audit_broken(audit, &audit->reordered, number);
    } else if (number <= audit->last[ticket->shard])
        audit_broken(audit, &audit->reordered, number);
    else
        audit->last[ticket->shard] = number;
    if (!written && !audit_same(ticket, data, caplen, len))
        audit_broken(audit, &audit->altered, number);
    audit->left++;
    audit->left_sum += audit_mix(number);
    ticket->number = 0;
}

static inline void audit_leave(struct audit *audit, uint32_t buffer, const uint8_t *data, uint32_t caplen, uint32_t len,
                               bool written, uint64_t time)
{
    audit_hand_in(audit, &audit->tickets[buffer], data, caplen, len, written, time);
}

/* "held", or what broke; at the end of a run, when nothing is in flight. *text is the caller's. */
const char *audit_loss_free(const struct audit *audit, struct sm_errbuf *text);
const char *audit_ordered(const struct audit *audit, struct sm_errbuf *text);

#endif
