/* SPDX-License-Identifier: BSD-2-Clause */
/* Checksums and segments that a card was to make, against sums that are made here byte by byte. */
#include "ports/offload.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/random.h"

enum { ROUNDS = 400, ROOM = 70000, TCP = 6, UDP = 17, SCTP = 132 };

struct packet {
    uint8_t bytes[ROOM];
    uint32_t ip, transport, length;
    bool six;
    uint8_t protocol;
};

static uint64_t state;

static uint32_t number(uint32_t below)
{
    return (uint32_t)(random_linear(&state) >> 33) % below;
}

static void seed(void)
{
    const char *given = getenv("SM_SEED");
    state = given ? strtoull(given, NULL, 0) : 20240611;
    fprintf(stderr, "SM_SEED=%llu\n", (unsigned long long)state);
}

static void put(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t get(const uint8_t *at)
{
    return (uint32_t)(at[0] << 8 | at[1]);
}

/* Byte by byte, as RFC 1071 has it. */
static uint32_t sum_of(const uint8_t *bytes, uint32_t count, uint32_t sum)
{
    for (uint32_t i = 0; i < count; i++) {
        sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint32_t pseudo(const struct packet *packet)
{
    uint32_t sum =
        packet->six ? sum_of(packet->bytes + packet->ip + 8, 32, 0) : sum_of(packet->bytes + packet->ip + 12, 8, 0);
    const uint8_t rest[4] = {0, packet->protocol, (uint8_t)((packet->length - packet->transport) >> 8),
                             (uint8_t)(packet->length - packet->transport)};
    return sum_of(rest, 4, sum);
}

static bool is_right(const struct packet *packet)
{
    bool header = packet->six || sum_of(packet->bytes + packet->ip, packet->transport - packet->ip, 0) == 0xffff;
    return header &&
           sum_of(packet->bytes + packet->transport, packet->length - packet->transport, pseudo(packet)) == 0xffff;
}

static uint8_t *field(struct packet *packet)
{
    return packet->bytes + packet->transport + (packet->protocol == TCP ? 16 : 6);
}

/* A packet of any kind with random contents, right in all but its transport's checksum. */
static void make(struct packet *packet, uint8_t protocol, uint32_t payload)
{
    const uint32_t tags = number(3);
    uint32_t at = 12;
    packet->protocol = protocol;
    packet->six = number(2);
    for (uint32_t i = 0; i < ROOM; i++)
        packet->bytes[i] = (uint8_t)number(256);
    for (uint32_t i = 0; i < tags; i++, at += 4)
        put(packet->bytes + at, i == 0 && tags == 2 ? 0x88a8 : 0x8100);
    put(packet->bytes + at, packet->six ? 0x86dd : 0x0800);
    packet->ip = at + 2;
    packet->transport = packet->ip + (packet->six ? 40 : 20);
    uint32_t header = protocol == UDP ? 8 : protocol == SCTP ? 12 : 20 + 4 * number(11);
    packet->length = packet->transport + header + payload;
    uint8_t *ip = packet->bytes + packet->ip;
    if (packet->six) {
        ip[0] = 0x60;
        put(ip + 4, packet->length - packet->ip - 40);
        ip[6] = protocol;
    } else {
        ip[0] = 0x45;
        put(ip + 2, packet->length - packet->ip);
        put(ip + 6, 0x4000);
        ip[9] = protocol;
        put(ip + 10, 0);
        put(ip + 10, ~sum_of(ip, 20, 0));
    }
    if (protocol == TCP)
        packet->bytes[packet->transport + 12] = (uint8_t)(header / 4 << 4);
}

static void leave_to_card(struct packet *packet)
{
    put(field(packet), pseudo(packet));
}

Test(offload, unfinished_checksums_are_finished_and_others_left)
{
    static struct packet packet, before;
    seed();
    for (unsigned round = 0; round < ROUNDS; round++) {
        make(&packet, number(2) ? TCP : UDP, number(1400));
        leave_to_card(&packet);
        before = packet;
        cr_assert(!is_right(&packet), "round %u", round);
        cr_assert(sm_offload_finish(packet.bytes, packet.length + number(8)), "round %u",
                  round); /* padding behind it */
        cr_assert(is_right(&packet), "round %u", round);
        memcpy(field(&before), field(&packet), 2);
        cr_assert_eq(memcmp(&before, &packet, sizeof packet), 0, "round %u: nothing else has changed", round);
        before = packet;
        cr_assert(!sm_offload_finish(packet.bytes, packet.length), "round %u: what is right", round);
        field(&packet)[0] ^= 0x40;
        before = packet;
        cr_assert(!sm_offload_finish(packet.bytes, packet.length), "round %u: what is damaged", round);
        cr_assert_eq(memcmp(&before, &packet, sizeof packet), 0);
    }
}

Test(offload, fragments_and_torsos_are_left)
{
    static struct packet packet;
    seed();
    for (unsigned round = 0; round < ROUNDS; round++) {
        make(&packet, UDP, 100);
        leave_to_card(&packet);
        cr_assert(!sm_offload_finish(packet.bytes, number(packet.length)), "round %u: cut off", round);
        if (packet.six)
            continue;
        put(packet.bytes + packet.ip + 6, 0x2000);
        cr_assert(!sm_offload_finish(packet.bytes, packet.length), "round %u: a fragment", round);
    }
}

Test(offload, udp_without_a_checksum_has_none)
{
    static struct packet packet;
    seed();
    make(&packet, UDP, 100);
    put(field(&packet), 0);
    cr_assert(!sm_offload_finish(packet.bytes, packet.length));
}

Test(offload, sctp)
{
    /* "123456789" has the CRC e3069283: RFC 3720 appendix B.4's polynomial, here behind 12 zero bytes */
    static struct packet packet;
    seed();
    make(&packet, SCTP, 0);
    memset(packet.bytes + packet.transport, 0, 12);
    cr_assert(sm_offload_finish(packet.bytes, packet.length));
    const uint8_t *crc = packet.bytes + packet.transport + 8;
    uint32_t expected = ~0u;
    for (unsigned bit = 0; bit < 12 * 8; bit++)
        expected = expected >> 1 ^ (expected & 1 ? 0x82f63b78u : 0);
    expected = ~expected;
    cr_assert_eq((uint32_t)(crc[0] | crc[1] << 8 | crc[2] << 16) | (uint32_t)crc[3] << 24, expected);
    cr_assert(!sm_offload_finish(packet.bytes, packet.length));
}

/* Segments carry the payload in order, each of them right and as long as the link's frames but for the last. */
static void expect_cut(const struct packet *whole, uint32_t mtu)
{
    static struct packet part;
    struct sm_segments segments;
    const uint32_t header = whole->transport + (whole->bytes[whole->transport + 12] >> 4) * 4u;
    const uint8_t *tcp = whole->bytes + whole->transport;
    uint32_t at = header, count = 0;
    cr_assert(sm_segments_begin(&segments, whole->bytes, whole->length, mtu));
    for (uint32_t length; (length = sm_segments_next(&segments, part.bytes)) != 0; count++) {
        part.ip = whole->ip, part.transport = whole->transport, part.length = length;
        part.six = whole->six, part.protocol = TCP;
        cr_assert(is_right(&part), "segment %u", count);
        const uint8_t *mine = part.bytes + part.transport;
        uint32_t sequence = get(tcp + 4) << 16 | get(tcp + 6), its = get(mine + 4) << 16 | get(mine + 6);
        bool last = at + length - header == whole->length;
        cr_assert_eq(its, sequence + (at - header), "segment %u", count);
        cr_assert_eq(mine[13], tcp[13] & (last ? 0xff : 0xf6) & (count ? 0x7f : 0xff), "segment %u: flags", count);
        cr_assert_eq(part.six ? get(part.bytes + part.ip + 4) + 40 : get(part.bytes + part.ip + 2), length - part.ip);
        cr_assert_eq(memcmp(part.bytes + header, whole->bytes + at, length - header), 0, "segment %u", count);
        cr_assert(length <= mtu + 14 + (whole->ip > 14 ? 4 : 0), "segment %u: %u bytes", count, length);
        cr_assert(last || length == sm_offload_longest(whole->bytes, whole->length, mtu), "segment %u", count);
        if (!part.six)
            cr_assert_eq(get(part.bytes + part.ip + 4), (get(whole->bytes + whole->ip + 4) + count) & 0xffff);
        at += length - header;
    }
    cr_assert_eq(at, whole->length);
}

Test(offload, long_tcp_is_cut)
{
    static struct packet packet;
    struct sm_segments segments;
    seed();
    for (unsigned round = 0; round < ROUNDS / 4; round++) {
        make(&packet, TCP, 1 + number(64000));
        expect_cut(&packet, 576 + number(2000));
    }
    make(&packet, UDP, 3000);
    cr_assert(!sm_segments_begin(&segments, packet.bytes, packet.length, 1500), "how UDP was to be cut is not known");
    make(&packet, TCP, 0);
    cr_assert(!sm_segments_begin(&segments, packet.bytes, packet.length, 1500), "there is nothing to cut");
}
