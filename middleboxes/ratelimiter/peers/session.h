/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_SESSION_H
#define RATELIMITER_SESSION_H

/*
 * What makes a datagram that bears the right code be of now: a copy of an old one bears it too.
 *
 * Overview.  Each start of a limiter is a session of a random number; its datagrams to a peer are numbered. A peer
 * takes data only of the session that has answered a challenge of its own, a number made for this alone; and each
 * number of it once. So nothing that was sent before the answer is ever taken, by whatever was recorded, and no clock
 * and no file is needed to know that.
 *
 * Life-cycle.  unknown (challenged at each hello, at most every SESSION_HELLO_NS) -> known (data is taken) -> known
 * with another session, when another one has answered. Nothing ends a known session but that.
 *
 * Pure; one thread.
 */

#include <stdbool.h>
#include <stdint.h>

#include "peers/datagram.h"

#define SESSION_HELLO_NS 200000000ull
#define SESSION_WINDOW 64u /* a datagram that is so much older than the newest one is not taken */

struct session {
    uint64_t theirs; /* session that has answered; 0: none yet */
    uint64_t newest, window;
    uint64_t challenge; /* that is to be answered; 0: none */
    uint64_t answer;    /* their challenge, to be answered with the next hello */
    uint64_t sent;      /* number of the last datagram */
    uint64_t hello_at;
    uint64_t heard_at;
    uint64_t taken, lost, replayed, strange; /* datagrams; strange: of a session that is not known */
};

/* Fill a hello's challenge, answer and number. */
void session_hello(struct session *session, uint64_t now, struct datagram *datagram);

/* Whether a hello is due: something is to be answered, or nobody known is there. */
bool session_hello_due(const struct session *session, uint64_t now);

/* A hello has come. True: another session than before is known now, or the first. */
bool session_greeted(struct session *session, uint64_t now, const struct datagram *datagram);

/* Whether data may be taken; counts why not. */
bool session_takes(struct session *session, uint64_t now, const struct datagram *datagram);

#endif
