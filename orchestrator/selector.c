/* SPDX-License-Identifier: BSD-2-Clause */
#include "selector.h"

#include <netinet/in.h>
#include <splitmerge/packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINKTYPE_RAW 12 /* DLT_RAW on Linux: a packet begins with its IP header */

static bool parse_number(const char **text, uint32_t *number)
{
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    unsigned long value = strtoul(*text, &end, 10);
    if (value >= PLACEMENT_SHARDS)
        return false;
    *number = (uint32_t)value;
    *text = end;
    return true;
}

static bool parse_shards(bool set[PLACEMENT_SHARDS], const char *text)
{
    do {
        uint32_t first, last;
        if (!parse_number(&text, &first))
            return false;
        last = first;
        if (*text == '-') {
            text++;
            if (!parse_number(&text, &last) || last < first)
                return false;
        }
        for (uint32_t shard = first; shard <= last; shard++)
            set[shard] = true;
    } while (*text++ == ',');
    return text[-1] == '\0';
}

int selector_create(struct selector **selector, const char *text, struct sm_errbuf *error)
{
    int result = 0;
    struct selector *s = calloc(1, sizeof(*s));
    *selector = NULL;
    if (!s || !(s->text = strdup(text))) {
        free(s);
        snprintf(error->text, sizeof(error->text), "out of memory");
        return SM_E_NO_MEMORY;
    }
    if (text[strspn(text, " \t")] == '\0') {
        /* libpcap takes nothing for everything, which nobody means by moving. */
        snprintf(error->text, sizeof(error->text), "expected a selector, got nothing");
        result = SM_E_SYNTAX;
    } else if (strncmp(text, "shards:", 7) == 0) {
        if (!parse_shards(s->shards, text + 7)) {
            snprintf(error->text, sizeof(error->text), "expected shards:FIRST-LAST,... of 0 to %u, got '%.80s'",
                     PLACEMENT_SHARDS - 1, text);
            result = SM_E_SYNTAX;
        }
    } else {
        result = sm_filter_create(&s->filter, LINKTYPE_RAW, text, error);
    }
    if (result == 0)
        *selector = s;
    else
        selector_free(s);
    return result;
}

void selector_free(struct selector *selector)
{
    if (!selector)
        return;
    sm_filter_destroy(selector->filter);
    free(selector->text);
    free(selector);
}

int selector_check(const char *text, struct sm_errbuf *error)
{
    struct selector *selector;
    int result = selector_create(&selector, text, error);
    selector_free(selector);
    return result;
}

static void put16(uint8_t *p, unsigned value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

/* What follows the IP header: as much of it as a key knows. Returns its length. */
static size_t transport(uint8_t *p, uint8_t protocol, uint16_t source, uint16_t destination)
{
    switch (protocol) {
    case IPPROTO_TCP:
        p[12] = 5 << 4; /* the header's length */
        break;
    case IPPROTO_UDP:
        put16(p + 4, 8);
        break;
    case IPPROTO_SCTP:
        break;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        p[0] = protocol == IPPROTO_ICMP ? 8 : 128; /* an echo request */
        put16(p + 4, source);
        return 8;
    default:
        return 0;
    }
    put16(p, source);
    put16(p + 2, destination);
    return protocol == IPPROTO_UDP ? 8 : 20;
}

static size_t header(uint8_t packet[64], const struct sm_key *key, bool reverse)
{
    const uint8_t *source = reverse ? key->b : key->a, *destination = reverse ? key->a : key->b;
    size_t ip = key->family == 4 ? 20 : 40;
    memset(packet, 0, 64);
    size_t length = ip + transport(packet + ip, key->protocol, reverse ? key->b_port : key->a_port,
                                   reverse ? key->a_port : key->b_port);
    if (key->family == 4) {
        packet[0] = 0x45;
        put16(packet + 2, (unsigned)length);
        packet[8] = 64;
        packet[9] = key->protocol;
        memcpy(packet + 12, source, 4);
        memcpy(packet + 16, destination, 4);
    } else {
        packet[0] = 0x60;
        put16(packet + 4, (unsigned)(length - ip));
        packet[6] = key->protocol ? key->protocol : IPPROTO_NONE;
        packet[7] = 64;
        memcpy(packet + 8, source, 16);
        memcpy(packet + 24, destination, 16);
    }
    return length;
}

bool selector_match(const struct selector *selector, const struct sm_key *key, uint32_t shard)
{
    uint8_t packet[64];
    if (!selector->filter)
        return shard < PLACEMENT_SHARDS && selector->shards[shard];
    if (key->family != 4 && key->family != 6)
        return false;
    for (unsigned reverse = 0; reverse < 2; reverse++) {
        size_t length = header(packet, key, reverse);
        if (sm_filter_match(selector->filter, packet, (uint32_t)length, (uint32_t)length))
            return true;
    }
    return false;
}
