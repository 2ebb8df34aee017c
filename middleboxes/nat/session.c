/* SPDX-License-Identifier: BSD-2-Clause */
#include "session.h"

#include <string.h>

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

#define FIELD(field, kind, place, bytes)                                                                               \
    {                                                                                                                  \
        .name = (field), .type = (kind), .offset = offsetof(struct session, place), .size = (bytes)                    \
    }

const struct sm_field session_fields[] = {
    FIELD("inside", SM_FIELD_BYTES, inside.address, 4),   FIELD("inside_port", SM_FIELD_UINT, inside.port, 2),
    FIELD("outside", SM_FIELD_BYTES, outside.address, 4), FIELD("outside_port", SM_FIELD_UINT, outside.port, 2),
    FIELD("remote", SM_FIELD_BYTES, remote.address, 4),   FIELD("remote_port", SM_FIELD_UINT, remote.port, 2),
    FIELD("protocol", SM_FIELD_UINT, protocol, 1),        FIELD("seen", SM_FIELD_UINT, seen, 1),
    FIELD("shift_at", SM_FIELD_UINT, shift.at, 4),        FIELD("shift_before", SM_FIELD_INT, shift.before, 4),
    FIELD("shift_after", SM_FIELD_INT, shift.after, 4),   FIELD("packets_out", SM_FIELD_UINT, packets_out, 8),
    FIELD("packets_in", SM_FIELD_UINT, packets_in, 8),
};
const unsigned session_field_count = sizeof session_fields / sizeof *session_fields;

/* The ICMP identifier of an echo stands for the port of both ends. */
static void key_outside(const struct session *session, const struct end *outside, struct sm_key *key)
{
    uint16_t remote_port = session->protocol == IP_ICMP ? outside->port : session->remote.port;

    sm_key_make(key, 4, session->protocol, outside->address, outside->port, session->remote.address, remote_port);
}

int session_map(const struct nat_config *config, struct sm_replica *replica, sm_class cls,
                const struct sm_packet *packet, sm_flow flow)
{
    struct session *session = flow.state;
    uint32_t ports = (uint32_t)config->last_port - config->first_port + 1;
    uint32_t shard = sm_packet_shard(packet), own = (ports - shard + SM_PACKET_SHARDS - 1) / SM_PACKET_SHARDS;
    uint32_t choices = own * config->outside_count, start = session->inside.port % choices;
    int result = SM_E_CONFLICT;

    for (uint32_t i = 0; i < choices && result == SM_E_CONFLICT; i++) {
        uint32_t choice = (start + i) % choices;
        struct end outside = {.port = (uint16_t)(config->first_port + shard + choice % own * SM_PACKET_SHARDS)};
        struct sm_key key;
        memcpy(outside.address, config->outside[choice / own], 4);
        key_outside(session, &outside, &key);
        result = sm_flow_bind(replica, cls, flow, &key);
        session->outside = outside;
    }
    return result;
}

void session_see(struct session *session, uint8_t flags, bool outbound)
{
    /* The same ends begin anew. */
    if ((flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && session_is_closing(session))
        session->seen = 0;
    if (flags & TCP_SYN)
        session->seen |= outbound ? SEEN_SYN_OUT : SEEN_SYN_IN;
    if (flags & TCP_FIN)
        session->seen |= outbound ? SEEN_FIN_OUT : SEEN_FIN_IN;
    if (flags & TCP_RST)
        session->seen |= SEEN_RST;
}

uint64_t session_patience(const struct nat_config *config, const struct session *session)
{
    const uint8_t open = SEEN_SYN_OUT | SEEN_SYN_IN;

    if (session->protocol == IP_UDP)
        return config->udp_ns;
    if (session->protocol == IP_ICMP)
        return config->icmp_ns;
    return (session->seen & open) == open && !session_is_closing(session) ? config->tcp_ns : config->transitory_ns;
}
