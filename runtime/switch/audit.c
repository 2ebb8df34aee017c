/* SPDX-License-Identifier: BSD-2-Clause */
#define XXH_INLINE_ALL
#include "switch/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

int audit_init(struct audit *audit, uint32_t buffers)
{
    audit->tickets = calloc(buffers, sizeof *audit->tickets);
    audit->buffers = buffers;
    return audit->tickets ? 0 : SM_E_NO_MEMORY;
}

void audit_free(struct audit *audit)
{
    free(audit->tickets);
    audit->tickets = NULL;
}

static uint64_t digest(const uint8_t *data, uint32_t caplen, uint32_t len)
{
    return XXH3_64bits_withSeed(data, caplen < AUDIT_DIGEST_BYTES ? caplen : AUDIT_DIGEST_BYTES,
                                (uint64_t)caplen << 32 | len);
}

/* An odd multiplier: sums of different sets of tickets differ, unlike sums of the tickets themselves. */
static uint64_t mix(uint64_t ticket)
{
    ticket *= 0x9e3779b97f4a7c15ull;
    return ticket ^ (ticket >> 29);
}

void audit_enter(struct audit *audit, uint32_t buffer, uint32_t shard, const uint8_t *data, uint32_t caplen, uint32_t len)
{
    struct audit_ticket *ticket = &audit->tickets[buffer];

    ticket->number = ++audit->entered;
    ticket->shard = shard;
    ticket->digest = digest(data, caplen, len);
    audit->entered_sum += mix(ticket->number);
}

static void broken(struct audit *audit, uint64_t *counter, uint64_t ticket)
{
    ++*counter;
    if (audit->first_bad == 0)
        audit->first_bad = ticket;
}

void audit_leave(struct audit *audit, uint32_t buffer, const uint8_t *data, uint32_t caplen, uint32_t len, bool written)
{
    struct audit_ticket *ticket = &audit->tickets[buffer];

    if (ticket->number == 0) {
        broken(audit, &audit->twice, audit->left);
        return;
    }
    if (ticket->number <= audit->last[ticket->shard])
        broken(audit, &audit->reordered, ticket->number);
    else
        audit->last[ticket->shard] = ticket->number;
    if (!written && ticket->digest != digest(data, caplen, len))
        broken(audit, &audit->altered, ticket->number);
    audit->left++;
    audit->left_sum += mix(ticket->number);
    ticket->number = 0;
}

const char *audit_loss_free(const struct audit *audit, struct sm_errbuf *text)
{
    if (audit->twice == 0 && audit->altered == 0 && audit->entered == audit->left &&
        audit->entered_sum == audit->left_sum)
        return "held";
    snprintf(text->text, sizeof text->text,
             "broken: %llu entered, %llu left, %llu left without having entered, %llu altered; first at packet %llu",
             (unsigned long long)audit->entered, (unsigned long long)audit->left, (unsigned long long)audit->twice,
             (unsigned long long)audit->altered, (unsigned long long)audit->first_bad);
    return text->text;
}

const char *audit_ordered(const struct audit *audit, struct sm_errbuf *text)
{
    if (audit->reordered == 0)
        return "held";
    snprintf(text->text, sizeof text->text, "broken: %llu packets left behind a later one of their shard; first at packet %llu",
             (unsigned long long)audit->reordered, (unsigned long long)audit->first_bad);
    return text->text;
}
