/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static inline uint64_t fold(const uint8_t *at, uint64_t one, uint64_t other)
{
    uint64_t words[2];

    memcpy(words, at, sizeof words);
    unsigned __int128 product = (unsigned __int128)(words[0] ^ one) * (words[1] ^ other);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* What XXH3 does with as many bytes, without its choice of a way: each pair of words multiplied, with constants of its
 * own. */
static uint64_t digest(const uint8_t *data, uint32_t caplen, uint32_t len)
{
    uint8_t padded[AUDIT_DIGEST_BYTES];

    if (caplen < sizeof padded) {
        memset(padded, 0, sizeof padded);
        data = memcpy(padded, data, caplen);
    }
    return ((uint64_t)caplen << 32 | len) * 0x9e3779b97f4a7c15ull +
           fold(data, 0xbf58476d1ce4e5b9ull, 0x94d049bb133111ebull) +
           fold(data + 16, 0xd6e8feb86659fd93ull, 0xa0761d6478bd642full) +
           fold(data + 32, 0xe7037ed1a0b428dbull, 0x8ebc6af09c88c6e3ull) +
           fold(data + 48, 0x589965cc75374cc3ull, 0x9e6c63d0876a9a47ull);
}

/* An odd multiplier: sums of different sets of tickets differ, unlike sums of the tickets themselves. */
static uint64_t mix(uint64_t ticket)
{
    ticket *= 0x9e3779b97f4a7c15ull;
    return ticket ^ (ticket >> 29);
}

void audit_enter(struct audit *audit, uint32_t buffer, uint32_t shard, const uint8_t *data, uint32_t caplen,
                 uint32_t len)
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
    snprintf(text->text, sizeof text->text,
             "broken: %llu packets left behind a later one of their shard; first at packet %llu",
             (unsigned long long)audit->reordered, (unsigned long long)audit->first_bad);
    return text->text;
}
