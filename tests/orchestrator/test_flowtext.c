/* SPDX-License-Identifier: BSD-2-Clause */
/* Keys as people read them, and back as selectors. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>

#include "smctl.h"

static const struct {
    uint8_t family, protocol;
    const char *a, *b;
    uint16_t a_port, b_port, tag;
    const char *text, *selector;
} rows[] = {
    {4, 6, "10.0.0.1", "10.0.0.2", 80, 1234, 0, "tcp 10.0.0.1:80 10.0.0.2:1234",
     "tcp and host 10.0.0.1 and port 80 and host 10.0.0.2 and port 1234"},
    {6, 17, "::1", "2001:db8::2", 53, 99, 0, "udp [::1]:53 [2001:db8::2]:99",
     "udp and host ::1 and port 53 and host 2001:db8::2 and port 99"},
    {4, 1, "10.0.0.1", "10.0.0.2", 7, 7, 0, "icmp 10.0.0.1 10.0.0.2 id 7", "icmp and host 10.0.0.1 and host 10.0.0.2"},
    {4, 47, "10.0.0.1", "10.0.0.2", 0, 0, 2, "proto-47 10.0.0.1 10.0.0.2 tag 2",
     "(ip proto 47 or ip6 proto 47) and host 10.0.0.1 and host 10.0.0.2"},
    {4, 0, "10.0.0.1", "10.0.0.2", 0, 0, 0, "10.0.0.1 10.0.0.2", "host 10.0.0.1 and host 10.0.0.2"},
    {6, 0, "2001:db8::2", "::", 0, 0, 0, "2001:db8::2", "host 2001:db8::2"},
    {6, 58, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", 65535, 65535, 65535,
     "icmp6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe id 65535 tag 65535",
     "icmp6 and host ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff and host ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"},
};

Test(flowtext, there_and_back)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct sm_key key = {.family = rows[i].family,
                             .protocol = rows[i].protocol,
                             .a_port = rows[i].a_port,
                             .b_port = rows[i].b_port,
                             .tag = rows[i].tag};
        char text[FLOW_TEXT], selector[1024];
        inet_pton(key.family == 6 ? AF_INET6 : AF_INET, rows[i].a, key.a);
        inet_pton(key.family == 6 ? AF_INET6 : AF_INET, rows[i].b, key.b);
        flow_text(&key, text);
        cr_expect_str_eq(text, rows[i].text);
        cr_expect(flow_text_selector(text, selector, sizeof(selector)), "row %zu", i);
        cr_expect_str_eq(selector, rows[i].selector);
    }
}

/* Keys that no selector names: tags, tunnels, what is in them. */
static const struct {
    uint8_t family, protocol;
    const char *a, *b;
    uint16_t a_port, b_port;
    const char *text;
} others[] = {
    {0, 0, "0.0.0.0", "0.0.0.0", 0, 0, "all"},
    {0, 0, "0.0.0.0", "0.0.0.0", 5, 0, "vlan 5"},
    {0, 0, "0.0.0.0", "0.0.0.0", 5, 4095, "vlan 5.4095"},
    {0, SM_TUNNELLED, "0.0.1.2", "0.0.0.0", 4789, 0, "tunnel vxlan 258"},
    {0, SM_TUNNELLED, "255.255.255.255", "0.0.0.0", 47, 0, "tunnel gre 4294967295"},
    {4, SM_TUNNELLED, "10.0.0.1", "10.0.0.2", 4, 0, "tunnel ip 10.0.0.1 10.0.0.2"},
    {6, SM_TUNNELLED, "2001:db8::1", "::1:2", 6081, 1, "2001:db8::1 in geneve"},
    {4, SM_TUNNELLED, "10.0.0.1", "0.0.0.7", 47, 1, "10.0.0.1 in gre 7"},
};

Test(flowtext, other_keys)
{
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        struct sm_key key = {.family = others[i].family,
                             .protocol = others[i].protocol,
                             .a_port = others[i].a_port,
                             .b_port = others[i].b_port};
        char text[FLOW_TEXT];
        inet_pton(strchr(others[i].a, ':') ? AF_INET6 : AF_INET, others[i].a, key.a);
        inet_pton(strchr(others[i].b, ':') ? AF_INET6 : AF_INET, others[i].b, key.b);
        flow_text(&key, text);
        cr_expect_str_eq(text, others[i].text);
    }
}

Test(flowtext, what_is_no_key)
{
    static const char *const texts[] = {"tcp",           "udp port 53", "host 10.0.0.1", "",      "tcp 10.0.0.1:x",
                                        "10.0.0.1:",     "[::1]",       "[:1",           "tag 7", "10.0.0.1 2 3",
                                        "10.0.0.1:66666"};
    char selector[1024];
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        cr_expect(!flow_text_selector(texts[i], selector, sizeof(selector)), "%s", texts[i]);
}
