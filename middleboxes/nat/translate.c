/* SPDX-License-Identifier: BSD-2-Clause */
#include "translate.h"

#include <stddef.h>

#include "checksum.h"

#define IP_CHECKSUM 10
#define IP_SOURCE 12
#define IP_DESTINATION 16

/* A checksum that covers what changes; another one may cover the checksum itself. */
struct sum {
    uint8_t *at;
    bool optional; /* UDP: zero stands for none */
    const struct sum *outer;
};

static void put16(uint8_t *at, uint16_t value, const struct sum *sum);

static void amend(const struct sum *sum, uint16_t before, uint16_t after)
{
    if (!sum || (sum->optional && load16(sum->at) == 0))
        return;
    uint16_t amended = checksum_amend(load16(sum->at), before, after);
    put16(sum->at, sum->optional && amended == 0 ? 0xffff : amended, sum->outer);
}

/* Change a word, and what is summed over it. */
static void put16(uint8_t *at, uint16_t value, const struct sum *sum)
{
    uint16_t before = load16(at);

    store16(at, value);
    amend(sum, before, value);
}

/* The words of an address are in its header's checksum and, by the pseudo header, in the transport's. */
static void put_address(uint8_t *at, const uint8_t *address, const struct sum *header, const struct sum *transport,
                        const struct sum *outer)
{
    for (unsigned i = 0; i < 4; i += 2) {
        uint16_t before = load16(at + i), value = load16(address + i);
        put16(at + i, value, outer);
        amend(header, before, value);
        amend(transport, before, value);
    }
}

/* Where a protocol has its checksum and the port of one side; false: it has no ports that we know. */
static bool layout(uint8_t protocol, bool source, uint32_t *sum, uint32_t *port)
{
    *port = protocol == IP_ICMP ? 4 : source ? 0 : 2;
    *sum = protocol == IP_TCP ? 16 : protocol == IP_UDP ? 6 : 2;
    return protocol == IP_TCP || protocol == IP_UDP || protocol == IP_ICMP;
}

/* One IP packet, whole or quoted; `outer` sums over all of it. */
static void put_end(uint8_t *ip, uint32_t bytes, uint32_t transport, bool source, const struct end *end,
                    const struct sum *outer)
{
    const struct sum header = {.at = ip + IP_CHECKSUM, .outer = outer};
    uint8_t protocol = ip[9];
    uint32_t sum_at, port_at;
    bool known = transport != 0 && layout(protocol, source, &sum_at, &port_at);
    struct sum sum = {.outer = outer, .optional = protocol == IP_UDP};
    const struct sum *covers = NULL;

    if (known && transport + sum_at + 2 <= bytes) {
        sum.at = ip + transport + sum_at;
        covers = &sum;
    }
    put_address(ip + (source ? IP_SOURCE : IP_DESTINATION), end->address, &header, protocol == IP_ICMP ? NULL : covers,
                outer);
    if (known && transport + port_at + 2 <= bytes) {
        uint16_t before = load16(ip + transport + port_at);
        put16(ip + transport + port_at, end->port, outer);
        amend(covers, before, end->port);
    }
}

void translate(uint8_t *ip, uint32_t bytes, uint32_t transport, bool source, const struct end *end)
{
    put_end(ip, bytes, transport, source, end, NULL);
}

void translate_error(uint8_t *ip, uint32_t bytes, uint32_t icmp, bool source, const struct end *end)
{
    const struct sum outer = {.at = ip + icmp + 2};
    uint8_t *quoted = ip + icmp + 8;
    uint32_t room = bytes - icmp - 8, size = (uint32_t)(quoted[0] & 15) * 4;
    bool later = (load16(quoted + 6) & 0x1fff) != 0;
    const struct sum header = {.at = ip + IP_CHECKSUM};

    put_address(ip + (source ? IP_SOURCE : IP_DESTINATION), end->address, &header, NULL, NULL);
    put_end(quoted, room, later ? 0 : size, !source, end, &outer);
}
