/* SPDX-License-Identifier: BSD-2-Clause */
#include "peers/session.h"

bool session_hello_due(const struct session *session, uint64_t now)
{
    if (session->answer != 0)
        return true;
    return (session->theirs == 0 || session->challenge != 0) && now - session->hello_at >= SESSION_HELLO_NS;
}

void session_hello(struct session *session, uint64_t now, struct datagram *datagram)
{
    if (session->theirs == 0 && session->challenge == 0)
        session->challenge = datagram_random();
    datagram->type = DATAGRAM_HELLO;
    datagram->sequence = ++session->sent;
    datagram->challenge = session->challenge;
    datagram->answer = session->answer;
    session->answer = 0;
    session->hello_at = now;
}

/* A number comes for the first time, and is not too old: false otherwise. */
static bool number_is_new(struct session *session, uint64_t number)
{
    uint64_t ahead = number - session->newest, behind = session->newest - number;

    if (number > session->newest) {
        session->window = ahead >= SESSION_WINDOW ? 1 : session->window << ahead | 1;
        session->newest = number;
        session->lost += ahead - 1;
        return true;
    }
    if (behind >= SESSION_WINDOW || session->window >> behind & 1)
        return false;
    session->window |= 1ull << behind;
    session->lost -= session->lost > 0;
    return true;
}

bool session_greeted(struct session *session, uint64_t now, const struct datagram *datagram)
{
    bool answered = session->challenge != 0 && datagram->answer == session->challenge && datagram->session != 0;
    bool another = answered && datagram->session != session->theirs;

    /* A copy of an old hello does nothing but ask for one answer. */
    if (datagram->session == session->theirs)
        number_is_new(session, datagram->sequence);
    if (datagram->challenge != 0)
        session->answer = datagram->challenge;
    if (answered) {
        session->challenge = 0;
        session->heard_at = now;
    }
    if (another) {
        session->theirs = datagram->session;
        session->newest = datagram->sequence;
        session->window = ~0ull; /* nothing from before the answer */
    } else if (!answered && datagram->session != session->theirs && session->challenge == 0) {
        session->challenge = datagram_random();
        session->hello_at = now - SESSION_HELLO_NS;
    }
    return another;
}

bool session_takes(struct session *session, uint64_t now, const struct datagram *datagram)
{
    if (datagram->session != session->theirs || session->theirs == 0) {
        session->strange++;
        if (session->challenge == 0)
            session->challenge = datagram_random();
        return false;
    }
    if (!number_is_new(session, datagram->sequence)) {
        session->replayed++;
        return false;
    }
    session->taken++;
    session->heard_at = now;
    return true;
}
