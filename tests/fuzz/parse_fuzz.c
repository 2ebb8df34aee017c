/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packets of any content. The input's first byte chooses the link type, the second and third how much was not
 * captured, then packets follow, each behind two bytes of length, so that fragments can meet.
 */
#include "packet/packet.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void check_packet(struct sm_parser *parser, int linktype, const uint8_t *bytes, uint32_t caplen, uint32_t len,
                         sm_time now)
{
    /* In memory of its own, so that one byte too far is seen. */
    uint8_t *data = malloc(caplen > 0 ? caplen : 1);
    struct sm_parsed parsed;
    struct sm_key keys[SM_GRANULARITY_COUNT];
    memcpy(data, bytes, caplen);
    sm_parse(parser, linktype, data, caplen, len, now, &parsed);
    for (int g = 0; g < SM_GRANULARITY_COUNT; g++)
        sm_parsed_key(&parsed, data, caplen, (enum sm_granularity)g, &keys[g]);

    const struct sm_key *flow = &keys[SM_BY_FLOW], *pair = &keys[SM_BY_HOST_PAIR];
    struct sm_key joined = *flow;
    joined.a_port = joined.b_port = 0;
    joined.protocol = 0;
    check(memcmp(&joined, pair, sizeof joined) == 0);
    int order = memcmp(flow->a, flow->b, sizeof flow->a);
    check(order < 0 || (order == 0 && flow->a_port <= flow->b_port));
    if (parsed.headers.family == 0) {
        check(parsed.headers.l3 == 0 && parsed.headers.l4 == 0 && flow->family == 0);
    } else {
        check(parsed.headers.family == flow->family);
        check(parsed.headers.l3 + (flow->family == 4 ? 20u : 40u) <= caplen);
        check(parsed.headers.l4 == 0 || (parsed.headers.l4 > parsed.headers.l3 && parsed.headers.l4 < caplen));
        check(!(parsed.headers.flags & SM_HDR_LATER_FRAGMENT) || parsed.headers.l4 == 0);
    }
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const int linktypes[] = {1, 0, 12, 108, 113, 228, 229, 276, 127};
    struct sm_parser *parser;
    sm_time now = {0};
    if (size < 3 || sm_parser_create(&parser, 8) != 0)
        return 0;
    int linktype = linktypes[input[0] % (sizeof linktypes / sizeof linktypes[0])];
    uint32_t uncaptured = (uint32_t)input[1] << (input[2] & 31);

    for (size_t at = 3; at + 2 <= size;) {
        uint32_t caplen = (uint32_t)input[at] | (uint32_t)input[at + 1] << 8;
        at += 2;
        caplen = caplen < size - at ? caplen : (uint32_t)(size - at);
        check_packet(parser, linktype, input + at, caplen, caplen + uncaptured, now);
        at += caplen;
        now.ns += (uint64_t)uncaptured * 1000;
    }
    const struct sm_parse_counters *c = sm_parser_counters(parser);
    check(c->ipv4 + c->ipv6 + c->non_ip == c->packets);
    check(c->tcp + c->udp + c->sctp + c->icmp + c->icmpv6 + c->other_protocol == c->ipv4 + c->ipv6);
    sm_parser_destroy(parser);
    return 0;
}
