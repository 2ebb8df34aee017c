/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  A packet goes out (from an inside host to elsewhere), comes in (to an outside address), or is none of ours
 * and passes as it is. One that goes out finds its session by its own key, one that comes in by the key that the
 * session bound: both in the session's shard, so nothing here is shared.
 *
 * Life-cycle.  See session.h. Sessions of FTP data connections are opened ahead, beside their control connection's and
 * in its shard: they are flows of the control connection's key under other tags, with both directions bound.
 *
 * Limits.  Sessions: the service's flows. Ports of a shard: SM_E_CONFLICT of session_map(). Data connections of a
 * control connection: DATA_TAGS. What finds no room is dropped under the reasons
 * below.
 */

#include "nat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "session.h"

#define DATA_TAGS 8

#define NAT_DROPS(X)                                                                                                   \
    X(NO_SESSION, "no_session")   /* no session, and it may not open one */                                            \
    X(NO_PORT, "no_port")         /* all ports that the session could have are taken */                                \
    X(LIMIT, "session_limit")     /* limits.flows or limits.bindings */                                                \
    X(HAIRPIN, "hairpin")         /* from inside to an outside address */                                              \
    X(UNSUPPORTED, "unsupported") /* neither TCP, UDP, ICMP echo nor an error about them */                            \
    X(MALFORMED, "malformed")     /* it has no whole transport header */                                               \
    X(REWRITTEN, "ftp_rewritten") /* sent anew with another length */

enum nat_drop {
#define NAT_DROP_ENUM(id, name) NAT_##id,
    NAT_DROPS(NAT_DROP_ENUM)
#undef NAT_DROP_ENUM
        NAT_DROP_COUNT
};

struct nat {
    const struct nat_config *config;
    sm_class sessions;
    uint16_t reasons[NAT_DROP_COUNT];
    char binds[256];
};

/* A packet in hand. */
struct packet {
    struct sm_replica *replica;
    struct sm_packet *packet;
    const struct sm_headers *headers;
    const uint8_t *ip; /* from here on `bytes` are captured */
    uint32_t bytes;
    uint32_t transport; /* 0: a later fragment */
    uint8_t protocol;
    bool outbound;
    sm_flow flow;
    struct session *session;
};

struct nat *nat_create(const struct nat_config *config)
{
    struct nat *nat = calloc(1, sizeof *nat);

    if (!nat)
        return NULL;
    nat->config = config;
    /* As may_open() says; and what an FTP client sends. */
    snprintf(nat->binds, sizeof nat->binds,
             "src net %u.%u.%u.%u/%d and (udp or icmp[icmptype] = icmp-echo or tcp dst port %d or "
             "tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn)",
             config->inside >> 24, config->inside >> 16 & 255, config->inside >> 8 & 255, config->inside & 255,
             __builtin_popcount(config->mask), FTP_CONTROL);
    return nat;
}

void nat_destroy(struct nat *nat)
{
    free(nat);
}

static void drop(const struct nat *nat, struct packet *p, enum nat_drop why)
{
    sm_packet_drop(p->packet, nat->reasons[why]);
}

static bool is_inside(const struct nat *nat, const uint8_t *address)
{
    uint32_t value = (uint32_t)load16(address) << 16 | load16(address + 2);

    return (value & nat->config->mask) == nat->config->inside;
}

static bool is_outside(const struct nat *nat, const uint8_t *address)
{
    for (unsigned i = 0; i < nat->config->outside_count; i++)
        if (memcmp(nat->config->outside[i], address, 4) == 0)
            return true;
    return false;
}

static const uint8_t *transport_of(const struct packet *p)
{
    return p->ip + p->transport;
}

static uint8_t tcp_flags(const struct packet *p)
{
    return transport_of(p)[13];
}

/* Whether it may open a session: what `binds` says to the runtime. */
static bool may_open(const struct packet *p)
{
    enum { SYN = 2, ACK = 16 };

    if (p->transport == 0 || (p->headers->flags & SM_HDR_ICMP_ERROR))
        return false;
    return p->protocol == IP_UDP || (p->protocol == IP_TCP && (tcp_flags(p) & (SYN | ACK)) == SYN) ||
           (p->protocol == IP_ICMP && transport_of(p)[0] == ICMP_ECHO);
}

static void touch(const struct nat *nat, const struct packet *p, sm_flow flow)
{
    const struct session *session = flow.state;
    uint64_t now = sm_packet_time(p->packet).ns;

    sm_flow_timer_set(p->replica, nat->sessions, flow, 0, (sm_time){now + session_patience(nat->config, session)});
}

/* Map a session that was just made; it is closed again where that cannot be. */
static bool map(const struct nat *nat, struct packet *p, sm_flow flow)
{
    int result = session_map(nat->config, p->replica, nat->sessions, p->packet, flow);

    if (result == 0)
        return true;
    sm_flow_close(p->replica, nat->sessions, flow);
    drop(nat, p, result == SM_E_CONFLICT ? NAT_NO_PORT : NAT_LIMIT);
    return false;
}

static bool open_session(const struct nat *nat, struct packet *p)
{
    if (sm_flow_create(p->replica, nat->sessions, p->packet, 0, &p->flow, NULL) != 0) {
        drop(nat, p, NAT_LIMIT);
        return false;
    }
    struct session *session = p->session = p->flow.state;
    session->protocol = p->protocol;
    memcpy(session->inside.address, p->ip + 12, 4);
    memcpy(session->remote.address, p->ip + 16, 4);
    bool echo = p->protocol == IP_ICMP;
    session->inside.port = load16(transport_of(p) + (echo ? 4 : 0));
    session->remote.port = load16(transport_of(p) + (echo ? 4 : 2));
    return map(nat, p, p->flow);
}

/* ---- FTP ---- */

static void bind_forward(const struct nat *nat, struct packet *p, sm_flow flow)
{
    const struct session *data = flow.state;
    struct sm_key key;

    sm_key_make(&key, 4, IP_TCP, data->inside.address, data->inside.port, data->remote.address, data->remote.port);
    /* One that is bound, by a connection that the client had before, leads here too: ports of a shard differ. */
    sm_flow_bind(p->replica, nat->sessions, flow, &key);
}

/* The session of the data connection to this end of the client: the one it has, or a new one. Those that have ended
 * or were never used end. */
static struct session *expect(const struct nat *nat, struct packet *p, const struct end *inside)
{
    uint16_t room = 0;
    sm_flow flow;

    for (uint16_t tag = 1; tag <= DATA_TAGS; tag++) {
        flow = sm_flow_get(p->replica, nat->sessions, p->packet, tag);
        struct session *data = flow.state;
        bool same = data && data->inside.port == inside->port && !session_is_closing(data);
        bool over = data && (session_is_closing(data) || data->seen == 0); /* a new command takes the place of one */
        if (same)
            return data;
        if (over)
            sm_flow_close(p->replica, nat->sessions, flow);
        if (room == 0 && (over || !data))
            room = tag;
    }
    if (room == 0 || sm_flow_create(p->replica, nat->sessions, p->packet, room, &flow, NULL) != 0) {
        drop(nat, p, NAT_LIMIT);
        return NULL;
    }
    struct session *data = flow.state;
    *data = (struct session){.protocol = IP_TCP, .inside = *inside, .remote = p->session->remote};
    data->remote.port = FTP_DATA;
    if (!map(nat, p, flow))
        return NULL;
    bind_forward(nat, p, flow);
    touch(nat, p, flow);
    return data;
}

/* Where the payload of a segment begins; at its end where not all of it was captured. */
static uint32_t payload_of(const struct packet *p)
{
    uint32_t payload = p->transport + (uint32_t)(transport_of(p)[12] >> 4) * 4, total = load16(p->ip + 2);

    return payload > total || total > p->bytes ? total : payload;
}

/* Checksums of a packet whose payload is new. */
static void sum_anew(uint8_t *ip, uint32_t transport, uint32_t total)
{
    uint32_t pseudo = checksum_add(IP_TCP + total - transport, ip + 12, 8);

    store16(ip + 2, (uint16_t)total);
    store16(ip + 10, 0);
    store16(ip + 10, checksum_finish(checksum_add(0, ip, (uint32_t)(ip[0] & 15) * 4)));
    store16(ip + transport + 16, 0);
    store16(ip + transport + 16, checksum_finish(checksum_add(pseudo, ip + transport, total - transport)));
}

/* Put another command in the place of one; the packet is translated already. */
static void replace(const struct nat *nat, struct packet *p, uint32_t sequence, const struct ftp_command *command,
                    const struct end *end)
{
    uint8_t bytes[SM_MAX_SEND_BYTES];
    char text[FTP_MAX_TEXT];
    uint32_t length = ftp_write(text, command, end), total = load16(p->ip + 2), before = p->headers->l3;
    uint32_t payload = payload_of(p);
    uint32_t behind = total - payload - command->length, whole = payload + length + behind;
    int32_t more = (int32_t)length - (int32_t)command->length;

    if (before + whole > sizeof bytes) {
        drop(nat, p, NAT_MALFORMED);
        return;
    }
    memcpy(bytes, p->ip - before, before + payload);
    memcpy(bytes + before + payload, text, length);
    memcpy(bytes + before + payload + length, p->ip + payload + command->length, behind);
    sum_anew(bytes + before, p->transport, whole);
    if (more == 0) {
        memcpy(sm_packet_writable(p->packet, 0, before + whole), bytes, before + whole);
        return;
    }
    ftp_shift_add(&p->session->shift, sequence, more);
    if (sm_packet_send(p->replica, p->packet, bytes, before + whole) != 0)
        drop(nat, p, NAT_MALFORMED);
    else
        drop(nat, p, NAT_REWRITTEN);
}

/* Change a byte of a TCP header, and its checksum. */
static void put8(uint8_t *tcp, uint32_t at, uint8_t value)
{
    const uint8_t *word = tcp + (at & ~1u);
    uint16_t before = load16(word);

    tcp[at] = value;
    store16(tcp + 16, checksum_amend(load16(tcp + 16), before, load16(word)));
}

static void put32(uint8_t *tcp, uint32_t at, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++)
        put8(tcp, at + i, (uint8_t)(value >> (24 - 8 * i)));
}

static uint32_t load32(const uint8_t *at)
{
    return (uint32_t)load16(at) << 16 | load16(at + 2);
}

/* SACK would name numbers as they were before the shift: the connection does without. */
static void strip_sack(uint8_t *tcp, uint32_t size)
{
    enum { END, NOP, SACK_PERMITTED = 4 };

    for (uint32_t at = 20, length; at + 1 < size && tcp[at] != END; at += length) {
        length = tcp[at] == NOP ? 1 : tcp[at + 1];
        if (length == 0 || at + length > size)
            return;
        if (tcp[at] == SACK_PERMITTED && length == 2) {
            put8(tcp, at, NOP);
            put8(tcp, at + 1, NOP);
        }
    }
}

static bool is_control(const struct nat *nat, const struct packet *p)
{
    return nat->config->ftp && p->protocol == IP_TCP && p->session->remote.port == FTP_CONTROL;
}

/*
 * Before a segment of a control connection is written: where the client names an end of its own, open the session of
 * that data connection. True: there is one in *command and *end is to take its place. False, and the packet dropped,
 * where that is not possible.
 */
static bool command_in(const struct nat *nat, struct packet *p, struct ftp_command *command, struct end *end,
                       bool *dropped)
{
    uint32_t payload = payload_of(p), total = load16(p->ip + 2);

    /* Another host's address is not for this client to give. */
    if (!p->outbound || payload == total || !ftp_read(p->ip + payload, total - payload, command) ||
        memcmp(command->end.address, p->session->inside.address, 4) != 0)
        return false;
    const struct session *data = expect(nat, p, &command->end);
    *dropped = data == NULL;
    if (data)
        *end = data->outside;
    return data != NULL;
}

/* The numbers of a control connection's segment that is translated already. */
static void shift_numbers(struct packet *p, uint8_t *tcp)
{
    const struct ftp_shift *shift = &p->session->shift;

    if (tcp_flags(p) & 2)
        strip_sack(tcp, payload_of(p) - p->transport);
    if (p->outbound)
        put32(tcp, 4, ftp_shift_sequence(shift, load32(tcp + 4)));
    else
        put32(tcp, 8, ftp_shift_back(shift, load32(tcp + 8)));
}

/* ---- packets ---- */

/* The bytes that may change: all headers and, on a control connection, what it says. */
static uint8_t *writable(const struct nat *nat, struct packet *p)
{
    uint32_t bytes = p->transport ? p->transport + 20 : 20;

    if (p->headers->flags & SM_HDR_ICMP_ERROR || is_control(nat, p))
        bytes = p->bytes;
    return sm_packet_writable(p->packet, p->headers->l3, bytes < p->bytes ? bytes : p->bytes);
}

static void translate_packet(const struct nat *nat, struct packet *p)
{
    struct session *session = p->session;
    const struct end *end = p->outbound ? &session->outside : &session->inside;
    bool controls = p->transport && !(p->headers->flags & SM_HDR_ICMP_ERROR) && is_control(nat, p), dropped = false;
    struct ftp_command command;
    struct end data;
    bool commanded = controls && command_in(nat, p, &command, &data, &dropped);
    if (dropped)
        return;
    uint8_t *ip = writable(nat, p);

    if (!ip) {
        drop(nat, p, NAT_MALFORMED);
        return;
    }
    if (p->headers->flags & SM_HDR_ICMP_ERROR) {
        translate_error(ip, p->bytes, p->transport, p->outbound, end);
        return; /* no use of the session */
    }
    if (p->protocol == IP_TCP && p->transport)
        session_see(session, tcp_flags(p), p->outbound);
    translate(ip, p->bytes, p->transport, p->outbound, end);
    *(p->outbound ? &session->packets_out : &session->packets_in) += 1;
    touch(nat, p, p->flow);
    if (controls) {
        uint32_t sequence = load32(transport_of(p) + 4);
        shift_numbers(p, ip + p->transport);
        if (commanded)
            replace(nat, p, sequence, &command, &data);
    }
}

/* Whether the headers that are needed were captured and make sense. */
static bool is_whole(const struct packet *p)
{
    uint32_t needed = p->protocol == IP_TCP ? 20 : 8;

    if (p->headers->flags & SM_HDR_LATER_FRAGMENT)
        return true;
    return p->transport != 0 && p->transport + needed <= p->bytes && !(p->headers->flags & SM_HDR_MALFORMED);
}

static bool is_known(const struct packet *p)
{
    if (p->protocol == IP_TCP || p->protocol == IP_UDP || (p->headers->flags & SM_HDR_ICMP_ERROR))
        return true;
    return p->protocol == IP_ICMP && (p->transport == 0 || p->transport >= p->bytes ||
                                      transport_of(p)[0] == ICMP_ECHO || transport_of(p)[0] == ICMP_ECHO_REPLY);
}

void nat_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct nat *nat = user;
    const struct sm_headers *headers = sm_packet_headers(packet);
    struct packet p = {.replica = replica, .packet = packet, .headers = headers};

    if (headers->family != 4)
        return;
    p.ip = sm_packet_data(packet) + headers->l3;
    p.bytes = sm_packet_caplen(packet) - headers->l3;
    p.transport = headers->l4 ? (uint32_t)headers->l4 - headers->l3 : 0;
    p.protocol = headers->protocol;
    p.outbound = is_inside(nat, p.ip + 12) && !is_inside(nat, p.ip + 16);
    bool inbound = is_outside(nat, p.ip + 16);
    if (p.outbound && inbound) {
        drop(nat, &p, NAT_HAIRPIN);
        return;
    }
    if (!p.outbound && !inbound)
        return; /* none of ours */
    if (!is_known(&p) || !is_whole(&p)) {
        drop(nat, &p, is_known(&p) ? NAT_MALFORMED : NAT_UNSUPPORTED);
        return;
    }
    p.flow = sm_flow_get(replica, nat->sessions, packet, 0);
    p.session = p.flow.state;
    if (!p.session && !(p.outbound && may_open(&p))) {
        drop(nat, &p, NAT_NO_SESSION);
        return;
    }
    if (p.session || open_session(nat, &p))
        translate_packet(nat, &p);
}

static void on_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    (void)slot, (void)now, (void)user;
    sm_flow_close(replica, cls, flow);
}

int nat_register(struct nat *nat, struct sm_replica *replica)
{
    static const char *const names[] = {
#define NAT_DROP_NAME(id, name) name,
        NAT_DROPS(NAT_DROP_NAME)
#undef NAT_DROP_NAME
    };
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = "session",
        .version = 1,
        .record_size = sizeof(struct session),
        .granularity = SM_BY_FLOW,
        .timers = 1,
        .on_timer = on_timer,
        .fields = session_fields,
        .field_count = session_field_count,
        .binds = nat->binds,
    };
    int result = sm_class_register(replica, &options, &nat->sessions);

    for (unsigned i = 0; result == 0 && i < NAT_DROP_COUNT; i++)
        result = sm_drop_reason(replica, names[i], &nat->reasons[i]);
    return result;
}
