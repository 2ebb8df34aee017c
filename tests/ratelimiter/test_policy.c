/* SPDX-License-Identifier: BSD-2-Clause */
/* Policies: what they say, and one line for each way to get one wrong. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "policy.h"

static struct policy *parse(const char *text, struct sm_errbuf *error)
{
    memset(error, 0, sizeof(*error));
    return policy_parse("p.yaml", text, strlen(text), error);
}

/* A policy of one limit with one line more, or instead. */
#define LIMIT "limits:\n  - name: a\n    per: flow\n    rate: 1Mbit\n    burst: 2KiB\n"
#define FRAME(name, per, rate, burst)                                                                                  \
    "limits:\n  - name: " name "\n    per: " per "\n    rate: " rate "\n    burst: " burst "\n"
#define SECOND "  - name: b\n    per: source\n    rate: 10pps\n    burst: 20\n"

static const struct {
    const char *text, *error; /* the error begins so */
} wrong[] = {
    {"", "p.yaml:"},
    {"limit: []\n", "p.yaml:1: limit: "},
    {"limits: []\n", "p.yaml:1: limits: expected 1 to 256 limits, got 0"},
    {"limits: 5\n", "p.yaml:1: limits: expected a list, got '5'"},
    {"limits:\n  - per: flow\n    rate: 1Mbit\n    burst: 1B\n", "p.yaml:2: limits[0].name: expected a name"},
    {"limits:\n  - name: a\n    rate: 1Mbit\n    burst: 1B\n", "p.yaml:2: limits[0].per: expected flow, host-pair"},
    {"limits:\n  - name: a\n    per: flow\n    burst: 1B\n", "p.yaml:2: limits[0].rate: expected a rate"},
    {"limits:\n  - name: a\n    per: flow\n    rate: 1Mbit\n", "p.yaml:2: limits[0].burst: expected a size"},
    {FRAME("a b", "flow", "1Mbit", "1B"), "p.yaml:2: limits[0].name: expected at most 41 letters"},
    {FRAME("aaaaaaaaaabbbbbbbbbbccccccccccddddddddddee", "flow", "1Mbit", "1B"), "p.yaml:2: limits[0].name: "},
    {FRAME("a", "flows", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected "},
    {FRAME("a", "flow/24", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination, inner-source or"},
    {FRAME("a", "source/", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination, inner-source or"},
    {FRAME("a", "source/33", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination, inner-source or"},
    {FRAME("a", "source/0", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination, inner-source or"},
    {FRAME("a", "source/24/129", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination,"},
    {FRAME("a", "source/24/64/1", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination,"},
    {FRAME("a", "source/24x", "1Mbit", "1B"), "p.yaml:3: limits[0].per: expected source, destination,"},
    {FRAME("a", "flow", "1mbit", "1B"), "p.yaml:4: limits[0].rate: expected a rate"},
    {FRAME("a", "flow", "0bit", "1B"), "p.yaml:4: limits[0].rate: expected a rate"},
    {FRAME("a", "flow", "-1bit", "1B"), "p.yaml:4: limits[0].rate: expected a rate"},
    {FRAME("a", "flow", "1001Gbit", "1B"), "p.yaml:4: limits[0].rate: expected at most 1000Gbit, got '1001Gbit'"},
    {FRAME("a", "flow", "125001Mpps", "1"), "p.yaml:4: limits[0].rate: expected at most 125000Mpps"},
    {FRAME("a", "flow", "1Mbit", "0B"), "p.yaml:5: limits[0].burst: expected 1 to 1073741824 bytes"},
    {FRAME("a", "flow", "1Mbit", "2GiB"), "p.yaml:5: limits[0].burst: expected 1 to 1073741824 bytes"},
    {FRAME("a", "flow", "1Mbit", "100"), "p.yaml:5: limits[0].burst: expected "},
    {FRAME("a", "flow", "1kpps", "1KiB"), "p.yaml:5: limits[0].burst: expected a number of packets"},
    {FRAME("a", "flow", "1kpps", "0"), "p.yaml:5: limits[0].burst: expected a number of packets"},
    {FRAME("a", "flow", "1kpps", "2G"), "p.yaml:5: limits[0].burst: expected a number of packets"},
    {FRAME("a", "flow", "[1]", "1B"), "p.yaml:4: limits[0].rate: expected a rate"},
    {LIMIT "    brust: 1B\n", "p.yaml:6: limits[0].brust: "},
    {LIMIT "    burst: 1B\n", "p.yaml:6: limits[0].burst: "},
    {LIMIT "    match: []\n", "p.yaml:6: limits[0].match: expected text"},
    {LIMIT "    exceed: pass\n", "p.yaml:6: limits[0].exceed: expected drop, {mark: ce}"},
    {LIMIT "    exceed: {drop: 1}\n", "p.yaml:6: limits[0].exceed.drop: "},
    {LIMIT "    exceed: {}\n",
     "p.yaml:6: limits[0].exceed: expected drop, {mark: ce}, {mark: {dscp: CODEPOINT}} or {sh"},
    {LIMIT "    exceed: {mark: ce, shape: {queue: 1s}}\n", "p.yaml:6: limits[0].exceed: expected drop, {mark: ce}, "},
    {LIMIT "    ceil: 2Mbit\n    parent: b\n    exceed: {shape: {queue: 1s}}\n" SECOND,
     "p.yaml:6: limits[0].ceil: expected none, as the limit shapes"},
    {LIMIT "    exceed: {shape: 50ms}\n", "p.yaml:6: limits[0].exceed.shape: expected a mapping"},
    {LIMIT "    exceed: {shape: {}}\n", "p.yaml:6: limits[0].exceed.shape.queue: expected the longest delay"},
    {LIMIT "    exceed: {shape: {queue: 2h}}\n", "p.yaml:6: limits[0].exceed.shape.queue: expected a time such as"},
    {LIMIT "    exceed: {shape: {queue: 0s}}\n",
     "p.yaml:6: limits[0].exceed.shape.queue: expected 1 to 3600000000000 "},
    {LIMIT "    exceed: {shape: {queue: 5s, size: 1}}\n", "p.yaml:6: limits[0].exceed.shape.size: unknown key"},
    {LIMIT "    exceed: {mark: ect}\n", "p.yaml:6: limits[0].exceed.mark: expected ce or {dscp: CODEPOINT}, got 'ect'"},
    {LIMIT "    exceed: {mark: {}}\n", "p.yaml:6: limits[0].exceed.mark.dscp: expected a code point"},
    {LIMIT "    exceed: {mark: {dscp: CS9}}\n", "p.yaml:6: limits[0].exceed.mark.dscp: expected CS0 to CS7"},
    {LIMIT "    exceed: {mark: {dscp: [1]}}\n", "p.yaml:6: limits[0].exceed.mark.dscp: expected CS0 to CS7"},
    {LIMIT "    prefixes: x\n", "p.yaml:6: limits[0].prefixes: expected a mapping"},
    {LIMIT "    prefixes: {}\n", "p.yaml:6: limits[0].prefixes: expected source or destination"},
    {LIMIT "    prefixes: {source: []}\n", "p.yaml:6: limits[0].prefixes.source: expected at least one prefix"},
    {LIMIT "    prefixes: {source: /none/x}\n", "p.yaml:6: limits[0].prefixes.source: expected a file of prefixes"},
    {LIMIT "    prefixes: {src: [0.0.0.0/0]}\n", "p.yaml:6: limits[0].prefixes.src: "},
    {LIMIT "    prefixes: {source: [10.0.0.1/8]}\n", "p.yaml:6: limits[0].prefixes.source[0]: expected a prefix such"},
    {LIMIT "    prefixes: {source: [1.2.3.4 5]}\n", "p.yaml:6: limits[0].prefixes.source[0]: expected a rate such as"},
    {LIMIT "    prefixes: {source: [1.2.3.4 5pps]}\n", "p.yaml:6: limits[0].prefixes.source[0]: expected a rate such"},
    {LIMIT "    prefixes: {source: [1.2.3.4 5bit 6]}\n", "p.yaml:6: limits[0].prefixes.source[0]: expected a burst"},
    {LIMIT "    prefixes: {source: [1.2.3.4 5bit 6B 7]}\n", "p.yaml:6: limits[0].prefixes.source[0]: expected PREFIX,"},
    {LIMIT "    prefixes: {source: [1.2.3.4, '::1', 1.2.3.4/32 1bit]}\n",
     "p.yaml:6: limits[0].prefixes.source: expected each prefix once, got the same in lines 1 and 3"},
    {LIMIT "    ceil: 2Mbit\n", "p.yaml:6: limits[0].ceil: expected a parent to borrow from, got '2Mbit'"},
    {LIMIT "    ceil: 2kpps\n    parent: b\n" SECOND,
     "p.yaml:6: limits[0].ceil: expected bits, as the rate is in bits"},
    {LIMIT "    ceil: 1kbit\n    parent: b\n" SECOND,
     "p.yaml:6: limits[0].ceil: expected at least the rate, got '1kbit'"},
    {LIMIT "    ceil: 2Gbyte\n    parent: b\n" SECOND, "p.yaml:6: limits[0].ceil: expected a rate"},
    {LIMIT "    ceil: 2Mbit\n    parent: b\n" SECOND, "p.yaml:6: limits[0].ceil: expected a parent whose rate is in"},
    {LIMIT "    ceil: 2Mbit\n    parent: b\n  - {name: b, per: all, rate: 3Mbit, burst: 4095B}\n",
     "p.yaml:8: limits[1].burst: expected at least 4096, twice the bursts of its children, since 'a' may borrow"},
    {LIMIT "    parent: c\n", "p.yaml:6: limits[0].parent: expected the name of a limit of this file, got 'c'"},
    {LIMIT "    parent: a\n", "p.yaml:6: limits[0].parent: expected no circle of parents, but 'a' leads back"},
    {LIMIT "    parent: b\n" SECOND "    parent: a\n", "p.yaml:6: limits[0].parent: expected no circle of parents"},
    {LIMIT "  - name: a\n    per: all\n    rate: 1pps\n    burst: 1\n",
     "p.yaml:6: limits[1].name: expected a name of its own"},
};

Test(policy, says_what_is_wrong_and_where)
{
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct sm_errbuf error;
        struct policy *policy = parse(wrong[i].text, &error);

        cr_expect_null(policy, "accepted:\n%s", wrong[i].text);
        cr_expect_eq(strncmp(error.text, wrong[i].error, strlen(wrong[i].error)), 0, "%sgives  %s\nwanted %s",
                     wrong[i].text, error.text, wrong[i].error);
        cr_expect_null(strchr(error.text, '\n'), "one line: %s", error.text);
        policy_free(policy);
    }
}

/* It ends nowhere but at its end. */
Test(policy, of_a_file_of_prefixes_that_is_no_text)
{
    char file[] = "/tmp/prefixes-XXXXXX", text[256];
    static const char bytes[] = "10.0.0.0/8\n\0nonsense\n";
    struct sm_errbuf error;
    int fd = mkstemp(file);

    cr_assert(fd >= 0 && write(fd, bytes, sizeof(bytes) - 1) == (ssize_t)sizeof(bytes) - 1);
    close(fd);
    snprintf(text, sizeof(text), LIMIT "    prefixes: {source: %s}\n", file);
    cr_expect_null(parse(text, &error));
    cr_expect_not_null(strstr(error.text, ":2: expected text, got 'a zero byte'"), "%s", error.text);
    unlink(file);
}

/* More than there are places for, by far. */
Test(policy, of_too_many_limits)
{
    enum { LIMITS = 5000 };
    static char text[LIMITS * 8] = "limits:\n";
    struct sm_errbuf error;

    for (size_t i = 0, at = strlen(text); i < LIMITS; i++, at += 6)
        strcpy(text + at, "  - a\n");
    cr_expect_null(parse(text, &error));
    cr_expect_str_eq(error.text, "p.yaml:2: limits: expected 1 to 256 limits, got 5000");
}

Test(policy, reads_all_there_is_to_say)
{
    struct sm_errbuf error;
    struct policy *policy = parse("limits:\n"
                                  "  - name: per-source\n"
                                  "    match: \"ip and src net 10.0.0.0/8\"\n"
                                  "    per: source\n"
                                  "    rate: 1Mbit\n"
                                  "    burst: 16KiB\n"
                                  "    exceed: {mark: {dscp: CS1}}\n"
                                  "    parent: site\n"
                                  "  - {name: ecn, per: host-pair, rate: 2kpps, burst: 1k, exceed: {mark: ce}}\n"
                                  "  - {name: site, per: all, rate: 1.5Gbit, burst: 1GiB, exceed: drop, parent: top}\n"
                                  "  - {name: top, per: all, rate: 1000Gbit, burst: 1B}\n",
                                  &error);
    const struct limit *limit;

    cr_assert_not_null(policy, "%s", error.text);
    cr_assert_eq(policy->count, 4);
    limit = &policy->limits[0];
    cr_assert_str_eq(limit->name, "per-source");
    cr_assert_str_eq(policy->filters[limit->filter].text, "ip and src net 10.0.0.0/8");
    cr_assert_eq(policy->keys[limit->key].by, SM_BY_SOURCE);
    cr_assert_eq(policy->allowed[limit->tag].rate.rate, 1000000);
    cr_assert_eq(policy->allowed[limit->tag].rate.burst, 16384);
    cr_assert_not(limit->packets || limit->drops || limit->mark.ce);
    cr_assert_eq(limit->mark.dscp, 8);
    cr_assert_eq(limit->parent, 2);
    cr_assert_eq(limit->with_parents.word[0], 1 | 4 | 8);
    limit = &policy->limits[1];
    cr_assert(limit->packets && limit->mark.ce && !limit->drops);
    cr_assert_eq(policy->allowed[limit->tag].rate.rate, 16000);
    cr_assert_eq(policy->allowed[limit->tag].rate.burst, 1000);
    cr_assert_eq(limit->with_parents.word[0], 2);
    limit = &policy->limits[2];
    cr_assert(limit->drops);
    cr_assert_eq(policy->allowed[limit->tag].rate.rate, 1500000000);
    cr_assert_eq(policy->allowed[limit->tag].rate.burst, 1u << 30);
    cr_assert(policy->limits[3].drops, "the default");
    policy_free(policy);
}

Test(policy, children_are_asked_before_their_parents)
{
    static const char *const order[] = {"leaf", "a", "b", "root", "other"};
    static const uint64_t chains[] = {1 | 2 | 8, 2 | 8, 4 | 8, 8, 16};
    struct sm_errbuf error;
    struct policy *policy = parse("limits:\n"
                                  "  - {name: root, per: all, rate: 1pps, burst: 1}\n"
                                  "  - {name: a, per: flow, rate: 2pps, burst: 1, parent: root}\n"
                                  "  - {name: b, per: flow, rate: 3pps, burst: 1, parent: root}\n"
                                  "  - {name: other, per: all, rate: 4pps, burst: 1}\n"
                                  "  - {name: leaf, per: flow, rate: 5pps, burst: 1, parent: a}\n",
                                  &error);

    cr_assert_not_null(policy, "%s", error.text);
    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        cr_assert_str_eq(policy->limits[i].name, order[i]);
        cr_assert_eq(policy->limits[i].with_parents.word[0], chains[i], "%s", order[i]);
    }
    cr_assert_eq(policy->allowed[policy->limits[0].tag].rate.rate, 40);
    policy_free(policy);
}

Test(policy, keys_of_prefixes)
{
    struct sm_errbuf error;
    struct policy *policy = parse("limits:\n"
                                  "  - {name: a, per: source/24/64, rate: 1pps, burst: 1}\n"
                                  "  - {name: b, per: source, rate: 1pps, burst: 1}\n"
                                  "  - {name: c, per: inner-destination/8, rate: 1pps, burst: 1}\n"
                                  "  - {name: d, per: source/24/64, rate: 1pps, burst: 1}\n",
                                  &error);
    const struct limit_key *key;

    cr_assert_not_null(policy, "%s", error.text);
    cr_assert_eq(policy->key_count, 3);
    key = &policy->keys[0];
    cr_assert(key->by == SM_BY_SOURCE && key->prefix4 == 24 && key->prefix6 == 64);
    cr_assert_str_eq(key->name, "source/24/64");
    cr_assert_eq(policy->by_key[0].word[0], 1 | 8);
    key = &policy->keys[2];
    cr_assert(key->by == SM_BY_INNER_DESTINATION && key->prefix4 == 8 && key->prefix6 == 0);
    policy_free(policy);
}

Test(policy, equal_filters_are_one)
{
    struct sm_errbuf error;
    struct policy *policy = parse("limits:\n"
                                  "  - {name: a, per: flow, rate: 1pps, burst: 1, match: tcp}\n"
                                  "  - {name: b, per: flow, rate: 1pps, burst: 1}\n"
                                  "  - {name: c, per: flow, rate: 1pps, burst: 1, match: udp}\n"
                                  "  - {name: d, per: all, rate: 1pps, burst: 1, match: tcp}\n",
                                  &error);

    cr_assert_not_null(policy, "%s", error.text);
    cr_assert_eq(policy->filter_count, 2);
    cr_assert_eq(policy->limits[0].filter, policy->limits[3].filter);
    cr_assert_eq(policy->limits[1].filter, -1);
    cr_assert_neq(policy->limits[2].filter, policy->limits[0].filter);
    cr_assert_eq(policy->key_count, 2);
    policy_free(policy);
}

Test(policy, sets_are_walked_in_order)
{
    struct limit_set set = {{0}}, more = {{0}};
    static const int members[] = {0, 63, 64, 200, 255};
    int at = -1;

    set.word[0] = 1ull << 63;
    more.word[0] = 1;
    more.word[1] = 1;
    more.word[3] = 1ull << 8 | 1ull << 63;
    limit_set_add(&set, &more);
    for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
        at = limit_set_next(&set, (unsigned)(at + 1));
        cr_assert_eq(at, members[i]);
    }
    cr_assert_eq(limit_set_next(&set, 256), -1);
    cr_assert_eq(limit_set_next(&(struct limit_set){{0}}, 0), -1);
}

Test(policy, filters_that_do_not_compile_are_named)
{
    struct sm_errbuf error;
    struct policy *policy = parse(LIMIT "    match: tcp and and\n", &error);

    cr_assert_not_null(policy, "%s", error.text);
    cr_assert_not(policy_compile(policy, 1, &error));
    cr_assert_eq(strncmp(error.text, "p.yaml:6: limits[0].match: expected a filter", 40), 0, "%s", error.text);
    policy_free(policy);
    policy = parse(LIMIT "    match: tcp port 80\n", &error);
    cr_assert(policy_compile(policy, 1, &error), "%s", error.text);
    cr_assert(policy_compile(policy, 12, &error), "again, for raw IP: %s", error.text);
    policy_free(policy);
}
