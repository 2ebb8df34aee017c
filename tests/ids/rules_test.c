/* SPDX-License-Identifier: BSD-2-Clause */
/* Rule files, good and bad; what addresses and ports of a rule have; Community IDs. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "community_id.h"
#include "rules.h"

#define TCP "alert tcp any any -> any any "
#define X "content:\"x\"; sid:1;"

static struct rules *parse(const char *text, struct sm_errbuf *error)
{
    error->text[0] = '\0';
    return rules_parse("r.rules", text, strlen(text), error);
}

static const struct {
    const char *text, *said; /* NULL: it is one */
} files[] = {
    {TCP "(" X ")", NULL},
    {"# nothing\n\n \t\nalert icmp any any <> any any ( msg:\"a \\\"b\\\"; c\" ; sid:7 ; gid:3; rev:2; "
     "content:\"y\"; "
     "classtype:web; reference:url,example.org; reference:cve,1; metadata:a b, c d; ) \r\n",
     NULL},
    {"var HOME [10.0.0.0/8, !10.1.0.0/16,$MORE]\n" TCP "(" X ")", "r.rules:1: expected addresses, ports"},
    {"var M fd00::/8\nvar HOME [10.0.0.0/8, !10.1.0.0/16,$M]\nvar WEB [80,8000:8080,!8001]\n"
     "alert tcp !$HOME 1024: -> [$HOME,192.0.2.1-192.0.2.9] $WEB (" X ")",
     NULL},
    {TCP "(content:\"|41 4243|d|0a|\"; offset:3; depth:9; sid:1; content:\"z\"; distance:0; within:1; nocase;)", NULL},
    {TCP "(pcre:\"/^a[^;\\\"]b\\/c/ims\"; pcre:\"/d/R\"; sid:1; flow:established, to_server;)", NULL},
    {"alert ip any any -> any any (" X ")", NULL},
    /* lines */
    {"", "r.rules:0: expected a rule"},
    {"# only\n", "r.rules:1: expected a rule"},
    {"drop tcp any any -> any any (" X ")", "r.rules:1: expected alert, var or a comment, got 'drop'"},
    {"\n\n" TCP "(" X ")\n" TCP "(" X ")", "r.rules:4: expected another sid: that of line 3 is 1, too"},
    {TCP "(msg:\"\xc3\xa4\"; " X ")", "r.rules:1: expected printed ASCII, got the byte 0xc3"},
    {"var", "r.rules:1: expected var NAME VALUE"},
    {"var A-B 1", "r.rules:1: expected var NAME VALUE, with a name of letters"},
    {"var A 1\nvar A 2", "r.rules:2: expected another name: A is set already"},
    {"var A [1,2", "r.rules:1: expected addresses, ports, or a list of them, got '[1,2'"},
    {"var A 1 2", "r.rules:1: expected addresses, ports, or a list of them, got '1 2'"},
    /* headers */
    {"alert http any any -> any any (" X ")", "expected tcp, udp, icmp or ip, got 'http'"},
    {"alert tcp 10.0.0.300 any -> any any (" X ")", "expected addresses (any"},
    {"alert tcp 10.0.0.0/33 any -> any any (" X ")", "expected addresses (any"},
    {"alert tcp 10.0.0.9-10.0.0.1 any -> any any (" X ")", "expected addresses (any"},
    {"alert tcp !any any -> any any (" X ")", "!any is nothing"},
    {"alert tcp [10.0.0.1 any -> any any (" X ")", "expected a comma or ] in a list, got 'any"},
    {"alert tcp [[[[[[[[[10.0.0.1]]]]]]]]] any -> any any (" X ")", "expected at most 8 lists in one another"},
    {"alert tcp $HOME any -> any any (" X ")", "expected a variable that is set above, got $HOME"},
    {"var P 80\nalert tcp $P any -> any any (" X ")", "r.rules:2: expected addresses (any"},
    {"alert tcp any 65536 -> any any (" X ")", "expected ports (any, 80"},
    {"alert tcp any 9:8 -> any any (" X ")", "expected ports (any, 80"},
    {"alert tcp any : -> any any (" X ")", "expected ports (any, 80"},
    {"alert tcp any any <- any any (" X ")", "expected -> or <>, got '<-'"},
    {"alert icmp any 80 -> any any (" X ")", "expected any for the ports of icmp"},
    {"alert tcp any any -> any any", "expected ( and the rule's options, got ''"},
    /* options */
    {TCP "(" X, "expected ) at the end of a rule"},
    {TCP "(" X ") x", "expected nothing behind a rule's ), got 'x'"},
    {TCP "(content:\"x\"; sid:1)", "expected a semicolon behind each option"},
    {TCP "(content:\"x; sid:1;)", "expected a closing quote"},
    {TCP "(http_uri; " X ")", "expected an option that is supported, got 'http_uri'"},
    {TCP "(content:\"x\"; nocase:1; sid:1;)", "expected nocase;"},
    {TCP "(msg; " X ")", "expected msg:VALUE;"},
    {TCP "(msg:; " X ")", "expected msg:VALUE;"},
    {TCP "(msg:\"a\"; msg:\"b\"; " X ")", "expected msg once"},
    {TCP "(msg:a; " X ")", "expected text in quotes, got 'a'"},
    {TCP "(content:\"x\"; sid:0;)", "expected sid: a number up to 4294967295, got '0'"},
    {TCP "(content:\"x\"; sid:4294967296;)", "expected sid: a number"},
    {TCP "(content:\"x\";)", "expected sid:NUMBER in a rule"},
    {TCP "(sid:1;)", "expected content or pcre in a rule"},
    {TCP "(content:!\"x\"; sid:1;)", "negated content is not supported"},
    {TCP "(content:\"a|4\"; sid:1;)", "expected bytes of two hexadecimal digits up to the next |, got '|4\"'"},
    {TCP "(content:\"|4x|\"; sid:1;)", "expected bytes of two hexadecimal digits"},
    {TCP "(content:\"||\"; sid:1;)", "expected content of 1 to 255 bytes"},
    {TCP "(content:\"\\n\"; sid:1;)", "expected one of \" \\ ; : behind a backslash in content"},
    {TCP "(depth:1; " X ")", "expected a content before depth"},
    {TCP "(pcre:\"/a/\"; offset:1; sid:1;)", "expected a content before offset"},
    {TCP "(content:\"x\"; depth:1; depth:2; sid:1;)", "expected one depth for a content"},
    {TCP "(content:\"x\"; offset:-1; sid:1;)", "expected offset: a number from 0 to 32767, got '-1'"},
    {TCP "(content:\"xyz\"; depth:2; sid:1;)", "expected a depth of at least the content's 3 bytes"},
    {TCP "(content:\"a\"; content:\"xyz\"; within:2; sid:1;)", "expected a within of at least"},
    {TCP "(content:\"a\"; distance:1; sid:1;)", "expected a content or pcre before one with distance or within"},
    {TCP "(content:\"a\"; content:\"b\"; distance:1; offset:1; sid:1;)", "expected offset and depth, or distance"},
    {TCP "(content:\"a\"; offset:30000; depth:30000; sid:1;)", "expected offset + depth, and distance + within"},
    {TCP "(pcre:\"a\"; sid:1;)", "expected pcre:\"/EXPRESSION/FLAGS\", got '\"a\"'"},
    {TCP "(pcre:\"//\"; sid:1;)", "expected pcre:\"/EXPRESSION/FLAGS\""},
    {TCP "(pcre:\"/a/U\"; sid:1;)", "expected of pcre's flags i, s, m and R, got 'U'"},
    {TCP "(pcre:\"/a/R\"; sid:1;)", "expected a content before a pcre with R"},
    {TCP "(flow:stateless; " X ")", "expected flow: established, and one of to_server"},
    {TCP "(flow:to_server,to_client; " X ")", "expected flow: established, and one of to_server"},
    {TCP "(flow:to_server to_server; " X ")", "expected a comma between the words of flow"},
    {"alert udp any any -> any any (flow:to_server; " X ")", "expected flow in rules of tcp only"},
};

Test(ids, rule_files)
{
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        struct sm_errbuf error;
        struct rules *rules = parse(files[i].text, &error);
        cr_expect_eq(rules == NULL, files[i].said != NULL, "row %u: '%s' %s", i, files[i].text, error.text);
        cr_expect(!files[i].said || strstr(error.text, files[i].said), "row %u: '%s' said '%s', not '%s'", i,
                  files[i].text, error.text, files[i].said);
        cr_expect(!files[i].said || strncmp(error.text, "r.rules:", 8) == 0, "row %u: %s", i, error.text);
        rules_destroy(rules);
    }
}

Test(ids, what_a_rule_says)
{
    struct sm_errbuf error;
    struct rules *rules =
        parse("alert tcp any any <> any any (msg:\"a \\\"b\\\"; \\\\c\"; sid:7; gid:3; rev:2; classtype:web; "
              "flow:to_client,established; content:\"|41 4243|d\\|0a|\"; offset:3; depth:9; nocase; "
              "content:\"z\"; distance:1; within:4; pcre:\"/a\\/b/is\";)",
              &error);

    cr_assert_null(rules); /* a | is written in hexadecimal digits */
    rules = parse("alert tcp any any <> any any (msg:\"a \\\"b\\\"; \\\\c\"; sid:7; gid:3; rev:2; classtype:web; "
                  "flow:to_client,established; content:\"|41 4243|d\\;|0a|\"; offset:3; depth:9; nocase; "
                  "content:\"z\"; distance:1; within:4; pcre:\"/a\\/b/is\";)",
                  &error);
    cr_assert(rules, "%s", error.text);
    const struct rule *rule = rules->rules;
    cr_expect_str_eq(rule->msg, "a \"b\"; \\c");
    cr_expect_str_eq(rule->classtype, "web");
    cr_expect(rule->sid == 7 && rule->gid == 3 && rule->rev == 2 && rule->line == 1);
    cr_expect(rule->both_ways && rule->established && rule->toward == RULE_TO_CLIENT && rule->anchored);
    cr_assert_eq(rule->content_count, 3);
    cr_expect(rule->contents[0].length == 6 && memcmp(rule->contents[0].text, "ABCd;\n", 6) == 0);
    cr_expect(rule->contents[0].nocase && rule->contents[0].offset == 3 && rule->contents[0].depth == 9);
    cr_expect(rule->contents[1].relative && rule->contents[1].distance == 1 && rule->contents[1].within == 4);
    cr_expect(rule->contents[2].pcre && rule->contents[2].ignore_case && rule->contents[2].dot_all);
    cr_expect_str_eq(rule->contents[2].text, "a\\/b");
    rules_destroy(rules);
}

/* Whether what follows depends on where the data begins. */
Test(ids, anchors)
{
    static const struct {
        const char *contents;
        bool anchored;
    } rows[] = {
        {"content:\"x\";", false},         {"content:\"x\"; offset:1;", true},
        {"content:\"x\"; depth:1;", true}, {"content:\"x\"; content:\"y\"; within:9;", false},
        {"pcre:\"/^x/\";", true},          {"pcre:\"/a|(^x)/\";", true},
        {"pcre:\"/[^x]/\";", false},       {"pcre:\"/[]^x]y/\";", false},
        {"pcre:\"/[^]^x]y/\";", false},    {"pcre:\"/\\^x/\";", false},
        {"pcre:\"/\\Ax/\";", true},        {"pcre:\"/[\\]^]/\";", false},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        struct sm_errbuf error;
        snprintf(text, sizeof text, TCP "(sid:1; %s)", rows[i].contents);
        struct rules *rules = parse(text, &error);
        cr_assert(rules, "%s: %s", text, error.text);
        cr_expect_eq(rules->rules[0].anchored, rows[i].anchored, "%s", text);
        rules_destroy(rules);
    }
}

static bool has(const struct span *span, const char *address)
{
    const int family = strchr(address, ':') ? AF_INET6 : AF_INET;
    uint8_t bytes[16];

    cr_assert_eq(inet_pton(family, address, bytes), 1);
    return span_has(span, family == AF_INET6 ? 6 : 4, bytes, family == AF_INET6 ? 16 : 4);
}

Test(ids, addresses_and_ports)
{
    struct sm_errbuf error;
    struct rules *rules =
        parse("var NET [10.0.0.0/8,!10.1.0.0/16,fd00::/9]\nvar WEB [80,8000:8080,!8001]\n"
              "alert tcp $NET $WEB -> !$NET !$WEB (" X ")\n"
              "alert tcp [!192.0.2.0/31] [!:1023] -> 192.0.2.3-192.0.2.5 65535: (content:\"y\"; sid:2;)",
              &error);

    cr_assert(rules, "%s", error.text);
    const struct rule *one = &rules->rules[0], *two = &rules->rules[1];
    static const struct {
        const char *address;
        bool net, without, range;
    } rows[] = {
        {"10.0.0.0", true, true, false},   {"10.255.255.255", true, true, false},
        {"10.1.0.0", false, true, false},  {"10.1.255.255", false, true, false},
        {"10.2.0.0", true, true, false},   {"9.255.255.255", false, true, false},
        {"fd00::1", true, true, false},    {"fd7f:ffff::1", true, true, false},
        {"fd80::", false, true, false},    {"192.0.2.1", false, false, false},
        {"192.0.2.2", false, true, false}, {"192.0.2.3", false, true, true},
        {"192.0.2.5", false, true, true},  {"192.0.2.6", false, true, false},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(has(one->source, rows[i].address), rows[i].net, "%s", rows[i].address);
        cr_expect_eq(has(one->destination, rows[i].address), !rows[i].net, "%s", rows[i].address);
        cr_expect_eq(has(two->source, rows[i].address), rows[i].without, "%s", rows[i].address);
        cr_expect_eq(has(two->destination, rows[i].address), rows[i].range, "%s", rows[i].address);
    }
    for (unsigned port = 0; port <= UINT16_MAX; port++) {
        const uint8_t bytes[2] = {(uint8_t)(port >> 8), (uint8_t)port};
        const bool web = port == 80 || (port >= 8000 && port <= 8080 && port != 8001);
        cr_assert_eq(span_has(one->source_ports, 0, bytes, 2), web, "%u", port);
        cr_assert_eq(span_has(one->destination_ports, 0, bytes, 2), !web, "%u", port);
        cr_assert_eq(span_has(two->source_ports, 0, bytes, 2), port >= 1024, "%u", port);
        cr_assert_eq(span_has(two->destination_ports, 0, bytes, 2), port == 65535, "%u", port);
    }
    rules_destroy(rules);
}

/* The vectors that the specification publishes (corelight/community-id-spec, baseline). */
Test(ids, community_ids)
{
    static const struct {
        uint8_t protocol;
        const char *source, *destination;
        uint16_t source_port, destination_port;
        const char *id;
    } rows[] = {
        {58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, 0, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="},
        {58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 136, 0, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="},
        {58, "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 135, 0, "1:zavyT/cezQr1fmImYCwYnMXbgck="},
        {58, "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 136, 0, "1:zavyT/cezQr1fmImYCwYnMXbgck="},
        {58, "3ffe:501:1800:2345::2", "3ffe:507:0:1:200:86ff:fe05:80da", 3, 0, "1:2ObVBgIn28oZvibYZhZMBgh7WdQ="},
        {58, "3ffe:501:410:0:2c0:dfff:fe47:33e", "3ffe:507:0:1:200:86ff:fe05:80da", 1, 4,
         "1:hLZd0XGWojozrvxqE0dWB1iM6R0="},
        {58, "3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:501:0:1001::2", 128, 0, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="},
        {58, "3ffe:501:0:1001::2", "3ffe:507:0:1:200:86ff:fe05:80da", 129, 0, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="},
        {58, "fe80::200:86ff:fe05:80da", "ff02::2", 133, 0, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0="},
        {58, "fe80::260:97ff:fe07:69ea", "ff02::1", 134, 0, "1:pkvHqCL88/tg1k4cPigmZXUtL00="},
        {1, "192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
        {1, "192.168.0.1", "192.168.0.89", 0, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
        {1, "10.0.0.1", "10.0.0.2", 11, 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM="},
        {6, "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 63943, 25,
         "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
        {6, "2607:f8b0:400c:c03::1a", "2001:470:e5bf:dead:4957:2174:e82c:4887", 25, 63943,
         "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
        {132, "192.168.170.8", "192.168.170.56", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
        {132, "192.168.170.56", "192.168.170.8", 7, 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
        {6, "128.232.110.120", "66.35.250.204", 34855, 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
        {6, "66.35.250.204", "128.232.110.120", 80, 34855, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
        {17, "192.168.1.52", "8.8.8.8", 54585, 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
        {17, "8.8.8.8", "192.168.1.52", 53, 54585, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
        {46, "10.1.12.1", "10.1.12.2", 1, 2, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="},
        {46, "10.1.12.2", "10.1.12.1", 1, 2, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="},
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const int family = strchr(rows[i].source, ':') ? AF_INET6 : AF_INET;
        uint8_t source[16], destination[16];
        char id[COMMUNITY_ID_ROOM];
        cr_assert(inet_pton(family, rows[i].source, source) == 1 &&
                  inet_pton(family, rows[i].destination, destination) == 1);
        community_id(id, rows[i].protocol, family == AF_INET6 ? 16 : 4, source, rows[i].source_port, destination,
                     rows[i].destination_port);
        cr_expect_str_eq(id, rows[i].id, "row %u", i);
    }
}
