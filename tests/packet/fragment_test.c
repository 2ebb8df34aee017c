/* SPDX-License-Identifier: BSD-2-Clause */
/* What fragments do to each other: one row a packet, in order. */
#include "samples.h"

#include <criterion/criterion.h>

struct step {
    const char *bytes;
    double seconds;
    uint16_t a_port, b_port; /* of the key it must get */
    uint8_t flags;
};

#define FIRST4 IP4("0020", "2000", "11") UDP
#define LATER4 IP4("0020", "0003", "11") "000000000000000000000000"
#define OTHER_PORTS4                                                                                                   \
    IP4("0020", "2000", "11")                                                                                          \
    "0001"                                                                                                             \
    "0002"                                                                                                             \
    "000c"                                                                                                             \
    "0000"                                                                                                             \
    "00000000"
#define FIRST6 IP6("0014", "2c") "1100000100000007" UDP
#define LATER6                                                                                                         \
    IP6("0014", "2c")                                                                                                  \
    "1100001000000007"                                                                                                 \
    "000000000000000000000000"
#define LATER6_OTHER_ID                                                                                                \
    IP6("0014", "2c")                                                                                                  \
    "1100001000000008"                                                                                                 \
    "000000000000000000000000"
/* The quoted packet is a later fragment, so only the table knows its ports. */
#define ERROR_OF_LATER4                                                                                                \
    IP4_("45", "0038", "0000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0028", "0003", "11") "1111111111111111"
/* An ICMP error that is itself in two fragments. */
#define ERROR_FIRST                                                                                                    \
    IP4_("45", "0038", "2000", "01", "c0a80001", "0a000001") UNREACHABLE IP4("0028", "0000", "11") "13880035000c0000"
#define ERROR_LATER IP4_("45", "001c", "0005", "01", "c0a80001", "0a000001") "0000000000000000"

enum { FIRST = SM_HDR_FRAGMENT, LATER = SM_HDR_FRAGMENT | SM_HDR_LATER_FRAGMENT };
enum { ERROR = SM_HDR_ICMP_ERROR | SM_HDR_REVERSE };

static void play(const char *name, unsigned entries, const struct step *steps, unsigned count,
                 struct sm_parse_counters *counters)
{
    struct sm_parser *parser;
    cr_assert_eq(sm_parser_create(&parser, entries), 0);
    for (unsigned i = 0; i < count; i++) {
        struct sm_parsed parsed;
        uint32_t size;
        uint8_t *bytes = sample_bytes(steps[i].bytes, &size);
        sm_time now = {1000000000000 + (uint64_t)(steps[i].seconds * 1e9)};
        sm_parse(parser, RAW, bytes, size, size, now, &parsed);
        cr_expect_eq(parsed.key.a_port, steps[i].a_port, "%s, packet %u: port a %u", name, i, parsed.key.a_port);
        cr_expect_eq(parsed.key.b_port, steps[i].b_port, "%s, packet %u: port b %u", name, i, parsed.key.b_port);
        cr_expect_eq(parsed.headers.flags, steps[i].flags, "%s, packet %u: flags %x", name, i, parsed.headers.flags);
        free(bytes);
    }
    *counters = *sm_parser_counters(parser);
    sm_parser_destroy(parser);
}
#define PLAY(entries, steps, counters) play(#steps, entries, steps, sizeof(steps) / sizeof(steps)[0], counters)

Test(fragments, follow_their_first)
{
    static const struct step in_order[] = {{LATER4, 0, 0, 0, LATER},      {FIRST4, 0, 5000, 53, FIRST},
                                           {LATER4, 0, 5000, 53, LATER},  {LATER4, 29, 5000, 53, LATER},
                                           {FIRST6, 29, 5000, 53, FIRST}, {LATER6, 30, 5000, 53, LATER},
                                           {LATER4, 30, 5000, 53, LATER}, {LATER6_OTHER_ID, 30, 0, 0, LATER}};
    struct sm_parse_counters counters;
    PLAY(64, in_order, &counters);
    cr_expect_eq(counters.fragment_first, 2);
    cr_expect_eq(counters.fragment_later, 6);
    cr_expect_eq(counters.fragment_orphan, 2);
    cr_expect_eq(counters.fragment_evicted, 0);
}

Test(fragments, live_30_seconds_of_packet_time)
{
    static const struct step expiry[] = {{FIRST4, 0, 5000, 53, FIRST},
                                         {LATER4, 30, 5000, 53, LATER},
                                         {LATER4, 30.000001, 0, 0, LATER},
                                         {FIRST4, 40, 5000, 53, FIRST},
                                         {LATER4, 69, 5000, 53, LATER}};
    struct sm_parse_counters counters;
    PLAY(64, expiry, &counters);
    cr_expect_eq(counters.fragment_orphan, 1);
    cr_expect_eq(counters.fragment_evicted, 0);
}

Test(fragments, a_new_first_replaces)
{
    static const struct step replaced[] = {{FIRST4, 0, 5000, 53, FIRST},
                                           {LATER4, 1, 5000, 53, LATER},
                                           {OTHER_PORTS4, 2, 1, 2, FIRST},
                                           {LATER4, 3, 1, 2, LATER},
                                           {LATER4, 31, 1, 2, LATER}};
    struct sm_parse_counters counters;
    PLAY(64, replaced, &counters);
    cr_expect_eq(counters.fragment_evicted, 0);
}

Test(fragments, give_way_when_the_table_is_full)
{
    static const struct step evicted[] = {{FIRST4, 0, 5000, 53, FIRST},
                                          {FIRST6, 1, 5000, 53, FIRST},
                                          {LATER4, 1, 0, 0, LATER},
                                          {LATER6, 1, 5000, 53, LATER},
                                          /* an entry past its time gives way uncounted */
                                          {FIRST4, 40, 5000, 53, FIRST}};
    struct sm_parse_counters counters;
    PLAY(1, evicted, &counters);
    cr_expect_eq(counters.fragment_evicted, 1);
    cr_expect_eq(counters.fragment_orphan, 1);
}

Test(fragments, errors_of_fragments)
{
    static const struct step quoted[] = {
        {ERROR_OF_LATER4, 0, 0, 0, ERROR}, {FIRST4, 0, 5000, 53, FIRST}, {ERROR_OF_LATER4, 0, 5000, 53, ERROR}};
    static const struct step in_fragments[] = {{ERROR_FIRST, 0, 5000, 53, FIRST | ERROR},
                                               {ERROR_LATER, 0, 5000, 53, LATER | ERROR}};
    struct sm_parse_counters counters;
    PLAY(64, quoted, &counters);
    cr_expect_eq(counters.fragment_orphan, 0);
    PLAY(64, in_fragments, &counters);
    cr_expect_eq(counters.icmp, 2);
    cr_expect_eq(counters.icmp_error, 1, "errors are counted by their first fragment");
}
