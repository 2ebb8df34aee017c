/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Properties of keys over every capture in the folder SM_TRACES, and over the samples of this folder:
 * P-join: the host-pair key is a function of the flow key, for every packet, so that state by flow may be steered by
 * host pair. P-order: a two-way key is in order. P-outer: one-way keys are the outer header's. P-count: counters add
 * up.
 */
#define _XOPEN_SOURCE 700
#include "ports/port.h"
#include "samples.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

enum { SEEN = 1 << 16 }; /* flow keys remembered at a time */

/* What each flow key was joined to when it was first seen; forgets on collision. */
static struct {
    bool used;
    struct sm_key flow, pair;
} seen[SEEN];
static unsigned long captures, packets, ip_packets, errors, fragments;

static uint32_t slot_of(const struct sm_key *key)
{
    const uint8_t *bytes = (const uint8_t *)key;
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ bytes[i]) * 16777619u;
    return h % SEEN;
}

static void check_packet(const char *name, struct sm_parser *parser, int linktype, const uint8_t *data, uint32_t caplen,
                         uint32_t len, sm_time now)
{
    static const struct sm_key zero;
    struct sm_parsed parsed;
    struct sm_key flow, pair, source, destination, all;
    uint64_t number = sm_parser_counters(parser)->packets + 1;

    sm_parse(parser, linktype, data, caplen, len, now, &parsed);
    sm_parsed_key(&parsed, data, caplen, SM_BY_FLOW, &flow);
    sm_parsed_key(&parsed, data, caplen, SM_BY_HOST_PAIR, &pair);
    sm_parsed_key(&parsed, data, caplen, SM_BY_SOURCE, &source);
    sm_parsed_key(&parsed, data, caplen, SM_BY_DESTINATION, &destination);
    sm_parsed_key(&parsed, data, caplen, SM_BY_ALL, &all);
    cr_assert_arr_eq(&all, &zero, sizeof all);
    packets++;
    if (parsed.headers.family == 0) {
        cr_assert_arr_eq(&flow, &zero, sizeof flow, "%s: packet %lu", name, (unsigned long)number);
        cr_assert_arr_eq(&pair, &zero, sizeof pair, "%s: packet %lu", name, (unsigned long)number);
        return;
    }
    ip_packets++;
    errors += (parsed.headers.flags & SM_HDR_ICMP_ERROR) != 0;
    fragments += (parsed.headers.flags & SM_HDR_FRAGMENT) != 0;

    uint32_t slot = slot_of(&flow);
    if (seen[slot].used && memcmp(&seen[slot].flow, &flow, sizeof flow) == 0)
        cr_assert_arr_eq(&seen[slot].pair, &pair, sizeof pair, "%s: packet %lu: join", name, (unsigned long)number);
    seen[slot].used = true;
    seen[slot].flow = flow;
    seen[slot].pair = pair;

    int order = memcmp(flow.a, flow.b, sizeof flow.a);
    cr_assert(order < 0 || (order == 0 && flow.a_port <= flow.b_port), "%s: packet %lu: order", name,
              (unsigned long)number);
    cr_assert(memcmp(pair.a, pair.b, sizeof pair.a) <= 0);
    uint32_t size = parsed.headers.family == 4 ? 4 : 16, at = parsed.headers.l3 + (size == 4 ? 12 : 8);
    cr_assert(at + 2 * size <= caplen);
    cr_assert(memcmp(source.a, data + at, size) == 0 && memcmp(destination.a, data + at + size, size) == 0,
              "%s: packet %lu: outer", name, (unsigned long)number);
    if (!(parsed.headers.flags & SM_HDR_ICMP_ERROR)) {
        bool reverse = parsed.headers.flags & SM_HDR_REVERSE;
        cr_assert(memcmp(reverse ? flow.b : flow.a, source.a, 16) == 0, "%s: packet %lu: direction", name,
                  (unsigned long)number);
    }
}

static void check_counters(const char *name, const struct sm_parse_counters *c)
{
    cr_assert_eq(c->ipv4 + c->ipv6 + c->non_ip, c->packets, "%s", name);
    cr_assert_eq(c->tcp + c->udp + c->sctp + c->icmp + c->icmpv6 + c->other_protocol, c->ipv4 + c->ipv6, "%s", name);
    cr_assert_leq(c->fragment_orphan, c->fragment_later, "%s", name);
    cr_assert_leq(c->icmp_error + c->icmp_error_unquoted, c->icmp + c->icmpv6, "%s", name);
}

static int check_file(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)where;
    struct sm_errbuf error;
    struct sm_port *port;
    struct sm_parser *parser;
    struct sm_frame frame;
    sm_time now = {0};
    if (kind != FTW_F || strstr(path, "cap") == NULL || sm_port_open_capture(&port, path, &error) != 0)
        return 0;
    cr_assert_eq(sm_parser_create(&parser, 1024), 0);
    while (port->ops->receive(port, &frame) == 1) {
        sm_time time = sm_frame_time(port, &frame);
        now = time.ns > now.ns ? time : now;
        check_packet(path, parser, port->linktype, frame.data, frame.caplen, frame.len, now);
    }
    check_counters(path, sm_parser_counters(parser));
    captures++;
    sm_parser_destroy(parser);
    port->ops->close(port, true, NULL);
    return 0;
}

Test(captures, properties_of_keys)
{
    const char *folder = getenv("SM_TRACES") != NULL ? getenv("SM_TRACES") : SM_TRACES_DEFAULT;
    struct sm_parser *parser;
    cr_assert_eq(sm_parser_create(&parser, 1024), 0);
    for (unsigned i = 0; i < SAMPLES; i++) {
        uint32_t size;
        uint8_t *bytes = sample_bytes(samples[i].bytes, &size);
        check_packet("samples", parser, samples[i].linktype, bytes, size, size + samples[i].uncaptured, (sm_time){0});
        free(bytes);
    }
    check_counters("samples", sm_parser_counters(parser));
    sm_parser_destroy(parser);

    if (access(folder, R_OK) != 0 || nftw(folder, check_file, 16, 0) != 0 || captures == 0)
        fprintf(stderr, "no captures in %s: ran only on the samples of this test\n", folder);
    fprintf(stderr, "%lu captures, %lu packets, %lu of IP, %lu ICMP errors, %lu fragments\n", captures, packets,
            ip_packets, errors, fragments);
}
