/* SPDX-License-Identifier: BSD-2-Clause */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smctl.h"

static const struct {
    uint8_t number;
    const char *name; /* also libpcap's */
    bool ports;
} protocols[] = {{6, "tcp", true},     {17, "udp", true},  {132, "sctp", true}, {1, "icmp", false},
                 {58, "icmp6", false}, {50, "esp", false}, {51, "ah", false}};

#define PROTOCOLS (sizeof(protocols) / sizeof(*protocols))

static bool is_zero(const uint8_t address[16])
{
    static const uint8_t zero[16];
    return memcmp(address, zero, 16) == 0;
}

static int put_end(char *text, size_t size, const struct sm_key *key, const uint8_t *address, int port)
{
    char ip[INET6_ADDRSTRLEN];
    inet_ntop(key->family == 6 ? AF_INET6 : AF_INET, address, ip, sizeof(ip));
    if (port < 0)
        return snprintf(text, size, " %s", ip);
    return snprintf(text, size, key->family == 6 ? " [%s]:%d" : " %s:%d", ip, port);
}

/* "vxlan 258", "gre". */
static int put_tunnel(char *text, size_t size, unsigned kind, const uint8_t identifier[4])
{
    const char *name = kind == 47 ? "gre" : kind == 4789 ? "vxlan" : kind == 6081 ? "geneve" : "ip";
    uint32_t number = (uint32_t)identifier[0] << 24 | identifier[1] << 16 | identifier[2] << 8 | identifier[3];

    return number ? snprintf(text, size, "%s %u", name, number) : snprintf(text, size, "%s", name);
}

/* Keys that are no flow of addresses, and tunnels. False: it is none of them. */
static bool special_text(const struct sm_key *key, char text[static FLOW_TEXT])
{
    static const uint8_t none[4];
    bool tunnel = key->protocol == SM_TUNNELLED && key->a_port;
    int at = 0;

    if (tunnel && key->b_port) {
        at = put_end(text, FLOW_TEXT, key, key->a, -1);
        at += snprintf(text + at, FLOW_TEXT - (size_t)at, " in ");
        put_tunnel(text + at, FLOW_TEXT - (size_t)at, key->a_port, key->b);
        memmove(text, text + 1, strlen(text)); /* the blank in front of the address */
    } else if (tunnel) {
        at = snprintf(text, FLOW_TEXT, "tunnel ");
        at += put_tunnel(text + at, FLOW_TEXT - (size_t)at, key->a_port, key->family ? none : key->a);
        if (key->family)
            at += put_end(text + at, FLOW_TEXT - (size_t)at, key, key->a, -1);
        if (key->family)
            put_end(text + at, FLOW_TEXT - (size_t)at, key, key->b, -1);
    } else if (key->family == 4 || key->family == 6) {
        return false;
    } else if (key->b_port) {
        snprintf(text, FLOW_TEXT, "vlan %u.%u", key->a_port, key->b_port);
    } else if (key->a_port) {
        snprintf(text, FLOW_TEXT, "vlan %u", key->a_port);
    } else {
        snprintf(text, FLOW_TEXT, "all");
    }
    return true;
}

/* No text is longer than FLOW_TEXT: two addresses of 45, two ports, a protocol, an identifier, a tag. */
void flow_text(const struct sm_key *key, char text[static FLOW_TEXT])
{
    size_t at = 0, known = 0;
    while (known < PROTOCOLS && protocols[known].number != key->protocol)
        known++;
    bool ports = known < PROTOCOLS && protocols[known].ports;
    if (special_text(key, text))
        return;
    if (known < PROTOCOLS)
        at += (size_t)snprintf(text, FLOW_TEXT, "%s", protocols[known].name);
    else if (key->protocol)
        at += (size_t)snprintf(text, FLOW_TEXT, "proto-%u", key->protocol);
    at += (size_t)put_end(text + at, FLOW_TEXT - at, key, key->a, ports ? key->a_port : -1);
    /* One-way keys have one address, and no protocol. */
    if (key->protocol || !is_zero(key->b))
        at += (size_t)put_end(text + at, FLOW_TEXT - at, key, key->b, ports ? key->b_port : -1);
    if (!ports && key->a_port)
        at += (size_t)snprintf(text + at, FLOW_TEXT - at, " id %u", key->a_port);
    if (key->tag)
        snprintf(text + at, FLOW_TEXT - at, " tag %u", key->tag);
    if (!key->protocol)
        memmove(text, text + 1, strlen(text)); /* the blank in front of the address */
}

/* "10.0.0.1:80", "[::1]:80", "10.0.0.1": the address in `ip`, and the port, or -1. */
static bool parse_end(const char *word, char ip[static INET6_ADDRSTRLEN], int *port)
{
    uint8_t address[16];
    const char *colon = strrchr(word, ':');
    bool bracket = *word == '[';
    size_t length = strlen(word);
    *port = -1;
    if (bracket || (colon && strchr(word, ':') == colon)) {
        char *end;
        if (!colon || colon[1] < '0' || colon[1] > '9' || (bracket && (colon < word + 2 || colon[-1] != ']')))
            return false;
        *port = (int)strtol(colon + 1, &end, 10);
        if (*end || *port > 65535)
            return false;
        length = (size_t)(colon - word) - (bracket ? 2 : 0);
    }
    if (length >= INET6_ADDRSTRLEN)
        return false;
    memcpy(ip, word + bracket, length);
    ip[length] = '\0';
    return inet_pton(AF_INET, ip, address) == 1 || inet_pton(AF_INET6, ip, address) == 1;
}

bool flow_text_selector(const char *text, char *selector, size_t size)
{
    char copy[FLOW_TEXT], ip[INET6_ADDRSTRLEN], *rest = copy, *word;
    int port;
    size_t at = 0;
    unsigned ends = 0, number;
    if ((size_t)snprintf(copy, sizeof(copy), "%s", text) >= sizeof(copy))
        return false;
    selector[0] = '\0';
    while ((word = strsep(&rest, " ")) && at < size) {
        const char *and = at ? " and " : "";
        size_t known = 0;
        while (known < PROTOCOLS && strcmp(protocols[known].name, word) != 0)
            known++;
        if (ends == 0 && at == 0 && known < PROTOCOLS)
            at += (size_t)snprintf(selector, size, "%s", word);
        else if (ends == 0 && at == 0 && sscanf(word, "proto-%u", &number) == 1)
            at += (size_t)snprintf(selector, size, "(ip proto %u or ip6 proto %u)", number, number);
        else if (ends < 2 && parse_end(word, ip, &port)) {
            ends++;
            at += (size_t)snprintf(selector + at, size - at, "%shost %s", and, ip);
            if (port >= 0 && at < size)
                at += (size_t)snprintf(selector + at, size - at, " and port %d", port);
        } else if (ends > 0 && (strcmp(word, "id") == 0 || strcmp(word, "tag") == 0) && rest) {
            strsep(&rest, " "); /* not in a header: the flows that are found are compared by their texts */
        } else {
            return false;
        }
    }
    return ends > 0 && at < size;
}

static bool parse_hex(const char *text, struct sm_key *key)
{
    uint8_t bytes[sizeof(*key)];
    if (!text || strlen(text) != 2 * sizeof(bytes))
        return false;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            return false;
        bytes[i] = (uint8_t)byte;
    }
    memcpy(key, bytes, sizeof(bytes));
    return true;
}

json_t *flows_for_people(const json_t *flows)
{
    json_t *list = json_array(), *flow;
    size_t i;
    json_array_foreach(flows, i, flow)
    {
        struct sm_key key;
        char text[FLOW_TEXT] = "?", name[16] = "-";
        json_int_t replica = json_integer_value(json_object_get(flow, "replica"));
        if (parse_hex(json_string_value(json_object_get(flow, "key")), &key))
            flow_text(&key, text);
        if (replica > 0)
            snprintf(name, sizeof(name), "r%u", (unsigned)replica);
        json_array_append_new(list, json_pack("{s:O, s:s, s:s, s:O, s:O}", "class", json_object_get(flow, "class"),
                                              "key", text, "replica", name, "shard", json_object_get(flow, "shard"),
                                              "state", json_object_get(flow, "state")));
    }
    return list;
}

void print_value(const json_t *value)
{
    if (json_is_string(value))
        fputs(json_string_value(value), stdout);
    else if (json_is_integer(value))
        printf("%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        printf("%.10g", json_real_value(value));
    else
        json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
}
