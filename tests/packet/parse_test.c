/* SPDX-License-Identifier: BSD-2-Clause */
#include "packet/internal.h"
#include "samples.h"

#include <criterion/criterion.h>
#include <stdio.h>

static const sm_time NOW = {1000000000};

static struct sm_parser *new_parser(void)
{
    struct sm_parser *parser;
    cr_assert_eq(sm_parser_create(&parser, 64), 0);
    return parser;
}

/* Every counter is 1 when its name is in `names` and 0 otherwise. */
static void check_counters(const char *sample, const struct sm_parse_counters *counters, const char *names)
{
    char padded[256];
    snprintf(padded, sizeof padded, " packets %s ", names);
#define CHECK_COUNTER(name)                                                                                            \
    cr_expect_eq(counters->name, strstr(padded, " " #name " ") != NULL, "%s: counter " #name " is %lu", sample,        \
                 (unsigned long)counters->name);
    SM_PARSE_COUNTERS(CHECK_COUNTER)
#undef CHECK_COUNTER
}

static void check_key(const struct sample *sample, const struct sm_key *key)
{
    struct sm_key expected = {.a_port = sample->a_port, .b_port = sample->b_port, .protocol = sample->protocol};
    if (sample->ends != NULL) {
        uint32_t size;
        uint8_t *ends = sample_bytes(sample->ends, &size);
        memcpy(expected.a, ends, size / 2);
        memcpy(expected.b, ends + size / 2, size / 2);
        expected.family = size == 8 ? 4 : 6;
        free(ends);
    }
    cr_expect(memcmp(key, &expected, sizeof expected) == 0,
              "%s: key: family %u protocol %u ports %u %u, a ends in %u, b in %u", sample->name, key->family,
              key->protocol, key->a_port, key->b_port, key->a[key->family == 4 ? 3 : 15],
              key->b[key->family == 4 ? 3 : 15]);
}

Test(parse, samples)
{
    for (unsigned i = 0; i < SAMPLES; i++) {
        const struct sample *sample = &samples[i];
        struct sm_parser *parser = new_parser();
        struct sm_parsed parsed;
        uint32_t size;
        uint8_t *bytes = sample_bytes(sample->bytes, &size);

        sm_parse(parser, sample->linktype, bytes, size, size + sample->uncaptured, NOW, &parsed);
        check_counters(sample->name, sm_parser_counters(parser), sample->counters);
        check_key(sample, &parsed.key);
        cr_expect_eq(parsed.headers.family, parsed.key.family, "%s: family", sample->name);
        cr_expect_eq(parsed.headers.l3, sample->l3, "%s: l3 %u", sample->name, parsed.headers.l3);
        cr_expect_eq(parsed.headers.l4, sample->l4, "%s: l4 %u", sample->name, parsed.headers.l4);
        cr_expect_eq(parsed.headers.flags, sample->flags, "%s: flags %x", sample->name, parsed.headers.flags);
        free(bytes);
        sm_parser_destroy(parser);
    }
}

/* The samples meet every counter but the one that needs several packets. */
Test(parse, samples_meet_every_counter){
#define CHECK_MET(name)                                                                                                \
    {                                                                                                                  \
        bool met = strcmp(#name, "packets") == 0 || strcmp(#name, "fragment_evicted") == 0;                            \
        for (unsigned i = 0; i < SAMPLES && !met; i++) {                                                               \
            char padded[256];                                                                                          \
            snprintf(padded, sizeof padded, " %s ", samples[i].counters);                                              \
            met = strstr(padded, " " #name " ") != NULL;                                                               \
        }                                                                                                              \
        cr_expect(met, "no sample for counter " #name);                                                                \
    }
    SM_PARSE_COUNTERS(CHECK_MET)
#undef CHECK_MET
}

/* Cut at every length, in memory of exactly that size, with every length on the wire that makes a difference. */
Test(parse, cut_anywhere)
{
    for (unsigned i = 0; i < SAMPLES; i++) {
        struct sm_parser *parser = new_parser();
        uint32_t size;
        uint8_t *bytes = sample_bytes(samples[i].bytes, &size);
        for (uint32_t cut = 0; cut <= size; cut++) {
            uint8_t *some = malloc(cut > 0 ? cut : 1);
            const uint32_t lengths[] = {0, 1, cut, size, UINT32_MAX};
            memcpy(some, bytes, cut);
            for (unsigned l = 0; l < 5; l++) {
                struct sm_parsed parsed;
                sm_parse(parser, samples[i].linktype, some, cut, lengths[l], NOW, &parsed);
                cr_assert(parsed.headers.l4 == 0 || parsed.headers.l4 < cut, "%s cut to %u", samples[i].name, cut);
                for (int g = 0; g < SM_GRANULARITY_COUNT; g++) {
                    struct sm_key key;
                    sm_parsed_key(&parsed, some, cut, (enum sm_granularity)g, &key);
                }
            }
            free(some);
        }
        const struct sm_parse_counters *c = sm_parser_counters(parser);
        cr_expect_eq(c->ipv4 + c->ipv6 + c->non_ip, c->packets, "%s", samples[i].name);
        cr_expect_eq(c->tcp + c->udp + c->sctp + c->icmp + c->icmpv6 + c->other_protocol, c->ipv4 + c->ipv6, "%s",
                     samples[i].name);
        free(bytes);
        sm_parser_destroy(parser);
    }
}

static void expect_address(const char *what, const struct sm_key *key, uint8_t last)
{
    const uint8_t expected[16] = {10, 0, 0, last};
    struct sm_key zero = {.family = 4};
    memcpy(zero.a, expected, sizeof expected);
    cr_expect_arr_eq(key, &zero, sizeof zero, "%s", what);
}

Test(parse, granularities)
{
    uint32_t size;
    uint8_t *bytes = sample_bytes(ETH("0800") BACK4("0028", "0000", "06") BACKTCP, &size);
    struct sm_parser *parser = new_parser();
    struct sm_parsed parsed;
    struct sm_key key;

    sm_parse(parser, ETHERNET, bytes, size, size, NOW, &parsed);
    sm_parsed_key(&parsed, bytes, size, SM_BY_FLOW, &key);
    cr_expect_arr_eq(&key, &parsed.key, sizeof key);
    sm_parsed_key(&parsed, bytes, size, SM_BY_SOURCE, &key);
    expect_address("source", &key, 2);
    sm_parsed_key(&parsed, bytes, size, SM_BY_DESTINATION, &key);
    expect_address("destination", &key, 1);
    sm_parsed_key(&parsed, bytes, size, SM_BY_HOST_PAIR, &key);
    cr_expect_eq(key.a[3], 1);
    cr_expect_eq(key.b[3], 2);
    cr_expect_eq(key.a_port | key.b_port | key.protocol | key.tag, 0);
    sm_parsed_key(&parsed, bytes, size, SM_BY_ALL, &key);
    cr_expect_arr_eq(&key, &(struct sm_key){0}, sizeof key);
    free(bytes);
    sm_parser_destroy(parser);
}

/* One-way keys of an ICMP error are those of its outer header, two-way keys those of its quote. */
Test(parse, granularities_of_an_error)
{
    uint32_t size;
    uint8_t *bytes = sample_bytes(ETH("0800") IP4_("45", "0038", "0000", "01", "0a000009", "0a000001")
                                      UNREACHABLE IP4("0020", "0000", "11") "13880035000c0000",
                                  &size);
    struct sm_parser *parser = new_parser();
    struct sm_parsed parsed;
    struct sm_key key;

    sm_parse(parser, ETHERNET, bytes, size, size, NOW, &parsed);
    sm_parsed_key(&parsed, bytes, size, SM_BY_SOURCE, &key);
    expect_address("source", &key, 9);
    sm_parsed_key(&parsed, bytes, size, SM_BY_DESTINATION, &key);
    expect_address("destination", &key, 1);
    sm_parsed_key(&parsed, bytes, size, SM_BY_HOST_PAIR, &key);
    cr_expect_eq(key.a[3], 1);
    cr_expect_eq(key.b[3], 2);
    cr_expect_eq(parsed.headers.protocol, 1, "the outer packet's protocol");
    free(bytes);
    sm_parser_destroy(parser);
}

/* Both ways through one IPv4 packet. Returns whether it may go the plain way. */
static bool go_both_ways(const uint8_t *bytes, uint32_t captured, uint32_t wire, const char *what)
{
    struct sm_parser *plain_parser = new_parser(), *general_parser = new_parser();
    struct sm_span span = {.data = bytes, .captured = captured, .wire = wire};
    struct sm_parsed plain, general = {.headers.flags = 0};
    bool taken = sm_ip4_plain(plain_parser, &span, 14, &plain);
    if (taken) {
        cr_assert(sm_ip4_general(general_parser, &span, 14, NOW, &general));
        general.headers.l3 = 14; /* sm_parse() does that */
        cr_assert_arr_eq(&plain, &general, sizeof plain, "%s", what);
        cr_assert_arr_eq(sm_parser_counters(plain_parser), sm_parser_counters(general_parser),
                         sizeof(struct sm_parse_counters), "%s: counters", what);
    }
    sm_parser_destroy(plain_parser);
    sm_parser_destroy(general_parser);
    return taken;
}

/* The plain way says what the general way says, or nothing: with every value of every byte, and cut anywhere. */
Test(parse, plain_way_is_general_way)
{
    static const char *const seeds[] = {ETH("0800") IP4("0028", "0000", "06") TCP,
                                        ETH("0800") BACK4("0020", "0000", "11") UDP "0000000000000000"};
    char what[64];
    for (unsigned s = 0; s < 2; s++) {
        uint32_t size;
        uint8_t *bytes = sample_bytes(seeds[s], &size);
        cr_assert(go_both_ways(bytes, size, size, "seed"));
        for (uint32_t at = 14; at < size; at++) {
            uint8_t was = bytes[at];
            for (unsigned value = 0; value < 256; value++) {
                snprintf(what, sizeof what, "seed %u, byte %u is %u", s, at, value);
                bytes[at] = (uint8_t)value;
                for (uint32_t more = 0; more <= 60; more += 30)
                    go_both_ways(bytes, size, size + more, what);
            }
            bytes[at] = was;
        }
        for (uint32_t cut = 14; cut < size; cut++) {
            snprintf(what, sizeof what, "seed %u cut to %u", s, cut);
            go_both_ways(bytes, cut, size, what);
            go_both_ways(bytes, cut, cut, what);
        }
        free(bytes);
    }
}
