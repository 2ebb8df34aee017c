/* SPDX-License-Identifier: BSD-2-Clause */
#include "ports/offload.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum {
    ETHERNET = 14,
    TAG = 4,
    TYPE_IP4 = 0x0800,
    TYPE_IP6 = 0x86dd,
    TYPE_VLAN = 0x8100,
    TYPE_QINQ = 0x88a8,
    TCP_SUM = 16,
    UDP_SUM = 6,
    SCTP_SUM = 8,
    FLAGS = 13, /* of TCP */
    FLAG_FIN = 0x01,
    FLAG_PSH = 0x08,
    FLAG_CWR = 0x80,
};

struct layout {
    uint32_t ip, transport, end; /* offsets: headers, and behind the last byte of IP */
    uint8_t protocol;
    bool six;
};

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static bool lay_out_4(struct layout *at, const uint8_t *frame, uint32_t length)
{
    const uint8_t *ip = frame + at->ip;
    if (length < at->ip + 20 || (get16(ip + 6) & 0x3fff) != 0)
        return false;
    uint32_t total = get16(ip + 2);
    at->transport = at->ip + (ip[0] & 15u) * 4;
    at->end = at->ip + (total != 0 ? total : length - at->ip); /* 0: longer than can be said */
    at->protocol = ip[9];
    return (ip[0] & 15) >= 5;
}

static bool lay_out_6(struct layout *at, const uint8_t *frame, uint32_t length)
{
    const uint8_t *ip = frame + at->ip;
    if (length < at->ip + 40)
        return false;
    uint32_t payload = get16(ip + 4);
    at->transport = at->ip + 40;
    at->end = payload != 0 ? at->transport + payload : length;
    at->protocol = ip[6];
    while (at->protocol == IPPROTO_HOPOPTS || at->protocol == IPPROTO_ROUTING || at->protocol == IPPROTO_DSTOPTS) {
        if (length < at->transport + 8)
            return false;
        const uint8_t *extension = frame + at->transport;
        at->protocol = extension[0];
        at->transport += (extension[1] + 1u) * 8;
    }
    return true;
}

/* False: not an IP packet that is there as a whole. */
static bool lay_out(struct layout *at, const uint8_t *frame, uint32_t length)
{
    uint32_t type = ETHERNET - 2;
    for (unsigned tags = 0; tags < 2 && length >= type + 2 + TAG; tags++, type += TAG)
        if (get16(frame + type) != TYPE_VLAN && get16(frame + type) != TYPE_QINQ)
            break;
    at->ip = type + 2;
    if (length < at->ip)
        return false;
    at->six = get16(frame + type) == TYPE_IP6;
    if (!at->six && get16(frame + type) != TYPE_IP4)
        return false;
    return (at->six ? lay_out_6 : lay_out_4)(at, frame, length) && at->transport <= at->end && at->end <= length;
}

/* Ones' complement sum of big-endian words, not folded. Four bytes at a time: the sum is the same in any order. */
static uint64_t add(uint64_t sum, const uint8_t *bytes, uint32_t count)
{
    for (; count >= 4; bytes += 4, count -= 4) {
        uint32_t word;
        memcpy(&word, bytes, sizeof word);
        sum += ntohl(word);
    }
    if (count >= 2) {
        sum += get16(bytes);
        bytes += 2;
    }
    return count & 1 ? sum + (uint64_t)(bytes[0] << 8) : sum;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static uint64_t pseudo_header(const struct layout *at, const uint8_t *frame)
{
    uint64_t sum = (uint64_t)at->protocol + (at->end - at->transport);
    return at->six ? add(sum, frame + at->ip + 8, 32) : add(sum, frame + at->ip + 12, 8);
}

static uint32_t crc32c(const uint8_t *bytes, uint32_t count)
{
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static bool finish_sctp(const struct layout *at, uint8_t *frame)
{
    static const uint8_t none[4];
    uint8_t *field = frame + at->transport + SCTP_SUM;
    if (at->end - at->transport < 12 || memcmp(field, none, sizeof none) != 0)
        return false;
    uint32_t crc = crc32c(frame + at->transport, at->end - at->transport);
    for (unsigned i = 0; i < 4; i++)
        field[i] = (uint8_t)(crc >> 8 * i);
    return true;
}

bool sm_offload_finish(uint8_t *frame, uint32_t length)
{
    struct layout at;
    if (!lay_out(&at, frame, length))
        return false;
    if (at.protocol == IPPROTO_SCTP)
        return finish_sctp(&at, frame);
    if (at.protocol != IPPROTO_TCP && at.protocol != IPPROTO_UDP)
        return false;
    uint32_t least = at.protocol == IPPROTO_TCP ? 20 : 8;
    uint8_t *field = frame + at.transport + (at.protocol == IPPROTO_TCP ? TCP_SUM : UDP_SUM);
    uint64_t pseudo = pseudo_header(&at, frame);
    /* One right checksum in 65,535 looks the same; it is recognised by being right. */
    if (at.end - at.transport < least || get16(field) != fold(pseudo))
        return false;
    uint64_t whole = add(pseudo, frame + at.transport, at.end - at.transport);
    if (fold(whole) == 0xffff)
        return false;
    uint16_t sum = (uint16_t)~fold(whole - get16(field));
    put16(field, sum == 0 && at.protocol == IPPROTO_UDP ? 0xffff : sum);
    return true;
}

uint32_t sm_offload_longest(const uint8_t *frame, uint32_t length, uint32_t mtu)
{
    bool tagged = length >= ETHERNET && (get16(frame + 12) == TYPE_VLAN || get16(frame + 12) == TYPE_QINQ);
    return mtu + ETHERNET + (tagged ? TAG : 0);
}

bool sm_segments_begin(struct sm_segments *segments, const uint8_t *frame, uint32_t length, uint32_t mtu)
{
    struct layout at;
    if (!lay_out(&at, frame, length) || at.protocol != IPPROTO_TCP || at.end - at.transport < 20)
        return false;
    uint32_t header = at.transport + (frame[at.transport + 12] >> 4) * 4u,
             most = sm_offload_longest(frame, length, mtu);
    if (header < at.transport + 20 || header >= at.end || header >= most)
        return false;
    *segments = (struct sm_segments){.frame = frame,
                                     .ip = at.ip,
                                     .tcp = at.transport,
                                     .header = header,
                                     .payload = most - header,
                                     .at = header,
                                     .end = at.end};
    return true;
}

uint32_t sm_segments_next(struct sm_segments *segments, uint8_t *out)
{
    const uint32_t left = segments->end - segments->at, header = segments->header;
    const uint32_t bytes = left < segments->payload ? left : segments->payload;
    const struct layout at = {.ip = segments->ip,
                              .transport = segments->tcp,
                              .end = header + bytes,
                              .protocol = IPPROTO_TCP,
                              .six = segments->frame[segments->ip] >> 4 == 6};
    if (left == 0)
        return 0;
    memcpy(out, segments->frame, header);
    memcpy(out + header, segments->frame + segments->at, bytes);

    uint8_t *ip = out + at.ip, *tcp = out + at.transport;
    if (at.six) {
        put16(ip + 4, at.end - at.ip - 40);
    } else {
        put16(ip + 2, at.end - at.ip);
        put16(ip + 4, get16(ip + 4) + segments->number);
        put16(ip + 10, 0);
        put16(ip + 10, (uint16_t)~fold(add(0, ip, at.transport - at.ip)));
    }
    uint32_t sequence = ((uint32_t)get16(tcp + 4) << 16 | get16(tcp + 6)) + (segments->at - header);
    put16(tcp + 4, sequence >> 16);
    put16(tcp + 6, sequence);
    if (bytes < left)
        tcp[FLAGS] &= (uint8_t) ~(FLAG_FIN | FLAG_PSH);
    if (segments->number > 0)
        tcp[FLAGS] &= (uint8_t)~FLAG_CWR;
    put16(tcp + TCP_SUM, 0);
    put16(tcp + TCP_SUM, (uint16_t)~fold(add(pseudo_header(&at, out), tcp, at.end - at.transport)));
    segments->at += bytes;
    segments->number++;
    return at.end;
}
