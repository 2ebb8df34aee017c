/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/audit.h"

#include <stdio.h>
#include <stdlib.h>

int audit_init(struct audit *audit, uint32_t buffers)
{
    audit->tickets = aligned_alloc(_Alignof(struct audit_ticket), buffers * sizeof *audit->tickets);
    audit->buffers = buffers;
    if (!audit->tickets)
        return SM_E_NO_MEMORY;
    for (uint32_t i = 0; i < buffers; i++)
        audit->tickets[i] = (struct audit_ticket){.number = 0};
    return 0;
}

int audit_by_flow(struct audit *audit)
{
    audit->flows = calloc(AUDIT_FLOWS, sizeof *audit->flows);
    return audit->flows ? 0 : SM_E_NO_MEMORY;
}

void audit_free(struct audit *audit)
{
    free(audit->tickets);
    free(audit->flows);
    audit->tickets = NULL;
    audit->flows = NULL;
}

void audit_broken(struct audit *audit, uint64_t *counter, uint64_t ticket)
{
    ++*counter;
    if (audit->first_bad == 0)
        audit->first_bad = ticket;
}

/* Another flow of the same place takes it, and this one is begun anew: what is told is true, not all there is. */
static bool overtaken_by_flow(struct audit *audit, const struct audit_ticket *ticket, uint64_t departure)
{
    struct audit_flow *flow = &audit->flows[ticket->flow % AUDIT_FLOWS];

    if (flow->flow == ticket->flow && ticket->number < flow->number)
        return departure <= flow->departure;
    *flow = (struct audit_flow){ticket->flow, ticket->number, departure};
    return false;
}

bool audit_overtaken(struct audit *audit, const struct audit_ticket *ticket, uint64_t departure)
{
    struct audit_departure *latest = &audit->latest[ticket->shard];

    if (audit->flows && ticket->shard < SM_SHARDS)
        return overtaken_by_flow(audit, ticket, departure);
    if (ticket->number <= audit->last[ticket->shard]) /* by one that left before any was delayed */
        return true;
    if (ticket->number < latest->number)
        return departure <= latest->departure;
    *latest = (struct audit_departure){.number = ticket->number, .departure = departure};
    return false;
}

void audit_carry(struct audit *audit, uint32_t buffer, struct audit_ticket *to)
{
    audit->delays = true;
    *to = audit->tickets[buffer];
    audit->tickets[buffer].number = 0;
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
    snprintf(
        text->text, sizeof text->text, "broken: %llu packets left behind a later one of their %s; first at packet %llu",
        (unsigned long long)audit->reordered, audit->flows ? "flow" : "shard", (unsigned long long)audit->first_bad);
    return text->text;
}
