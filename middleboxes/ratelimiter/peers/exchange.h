/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_EXCHANGE_H
#define RATELIMITER_EXCHANGE_H

/*
 * A host's part in limits that several hosts have together: who the others are, what they are told, and what comes of
 * what they say. One exchange for a host, whatever its replicas.
 *
 * Datagrams and time come in, datagrams go out through `send`; no socket, no clock. One thread. Times are ns of a clock
 * that goes on while the host sleeps, and is never set.
 */

#include "drl/keys.h"
#include "drl/share.h"
#include "peers/session.h"

#define EXCHANGE_TICK_NS 2000000ull /* between calls of exchange_tick() */
#define EXCHANGE_MESH 16u           /* with no more hosts everybody tells everybody */
#define EXCHANGE_FANOUT 3u

#define SHARE_MOST KEYS_LIMITS /* distributed limits of a policy */

/* Who is there: by number of host. Version 0: nobody. Written by the exchange alone; kept for the next one. */
struct members {
    _Atomic uint64_t begun; /* not 0: this is to be believed, rather than the policy */
    struct datagram_member host[EXACT_MAX_HOSTS];
};

struct exchange_limit {
    const char *name;
    bool exact;
    enum drl_mode mode; /* where it is not */
    const char *keyed;  /* it is one of each key of this name: exact, DRL_POOL or DRL_SPLIT; NULL: of all */
    bool packets;       /* it counts packets, else bytes */
    uint64_t rate;      /* units a nanosecond (bucket.h) */
    uint64_t burst;     /* bytes, or packets */
    uint64_t interval_ns;
    uint64_t queue_ns; /* its packets wait for so long at most; 0: they do not */
};

struct exchange_config {
    uint16_t self, home; /* numbers of hosts, 1 to EXACT_MAX_HOSTS - 1 */
    uint8_t key[DATAGRAM_KEY];
    unsigned fanout; /* 0: EXCHANGE_MESH says */
    struct datagram_member listen;
    struct datagram_member members[EXACT_MAX_HOSTS]; /* by number; not this host */
    unsigned limit_count;
    struct exchange_limit limits[SHARE_MOST];
};

struct exchange_counters {
    uint64_t forged, malformed, misdirected, unknown_limit, unknown_host, refused, joined, sent_bytes, sent;
    uint64_t keys_refused; /* asks for keys that the home had no room for */
};

typedef void exchange_send(void *user, const struct datagram_member *to, const uint8_t *bytes, size_t length);

struct exchange;

/* What a host's replicas and exchanges have together; it is zeroed at first. */
struct exchange_state {
    struct share shares[SHARE_MOST]; /* of the limits without keys */
    struct keys keys;                /* of the others, where there are such */
    struct members *members;
};

/* `config` and `state` must outlive it. NULL: out of memory. */
struct exchange *exchange_create(const struct exchange_config *config, const struct exchange_state *state,
                                 exchange_send *send, void *user, uint64_t now);
void exchange_destroy(struct exchange *exchange);

void exchange_tick(struct exchange *exchange, uint64_t now);

/* A datagram has come; only the address and port of `from` count. */
void exchange_receive(struct exchange *exchange, uint64_t now, const struct datagram_member *from, const uint8_t *bytes,
                      size_t length);

/* False: the number is out of range, or this host's, or the home's (which cannot be removed). */
bool exchange_add(struct exchange *exchange, uint64_t now, uint16_t host, const struct datagram_member *at);
bool exchange_remove(struct exchange *exchange, uint64_t now, uint16_t host);

/* The state as a JSON object; returns its length, at most `room` - 1. */
size_t exchange_report(const struct exchange *exchange, uint64_t now, char *text, size_t room);

/* The same of the keys that have a place here, as the records of buckets that are one host's would be told. */
size_t exchange_report_keys(const struct exchange *exchange, char *text, size_t room);

#endif
