/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef NAT_SESSION_H
#define NAT_SESSION_H

/*
 * A session: one conversation of an inside host, and the outside address and port by which it is seen.
 *
 * Life-cycle.  Opened by the first packet from inside (TCP: a SYN), or by what an FTP client says of a data connection;
 * kept while it is used; ended by its timer, which every packet sets anew: how long it then lasts goes by the protocol
 * and, for TCP, by what was seen (RFC 5382: a connection is open when both ends have sent a SYN, and going when both
 * have sent a FIN, or one a RST).
 *
 * Ports.  Each shard of the service has its own: those that are its number plus a multiple of the number of shards,
 * above the first. A session is in one shard, so nobody else can give its port away, and no pool has to be kept in
 * step. What is taken is known by the bound keys: a port may serve several sessions of a shard as long as they go to
 * different places.
 */

#include <splitmerge/splitmerge.h>

#include "config.h"
#include "ftp.h"
#include "translate.h"

enum { SEEN_SYN_OUT = 1, SEEN_SYN_IN = 2, SEEN_FIN_OUT = 4, SEEN_FIN_IN = 8, SEEN_RST = 16 };

struct session {
    struct end inside, outside, remote;
    uint8_t protocol;
    uint8_t seen; /* TCP: SEEN_* */
    uint16_t unused;
    struct ftp_shift shift; /* of an FTP control connection's own numbers */
    uint64_t packets_out, packets_in;
};

/* How sessions look to people. */
extern const struct sm_field session_fields[];
extern const unsigned session_field_count;

/*
 * Take an outside address and port for a new session of `packet`'s shard, its other fields being set, and bind the key
 * of what comes back. SM_E_CONFLICT: none is free; else as sm_flow_bind().
 */
int session_map(const struct nat_config *config, struct sm_replica *replica, sm_class cls,
                const struct sm_packet *packet, sm_flow flow);

/* A TCP packet with these flags has come, from inside or not. */
void session_see(struct session *session, uint8_t flags, bool outbound);

/* How long it may now stay unused, ns. */
uint64_t session_patience(const struct nat_config *config, const struct session *session);

static inline bool session_is_closing(const struct session *session)
{
    const uint8_t both = SEEN_FIN_OUT | SEEN_FIN_IN;

    return (session->seen & SEEN_RST) || (session->seen & both) == both;
}

#endif
