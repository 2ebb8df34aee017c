/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_PEERS_INTERNAL_H
#define RATELIMITER_PEERS_INTERNAL_H

#include "peers/exchange.h"

/* A host that may be told something. */
struct peer {
    struct session session;
    struct datagram out; /* items of this tick */
    bool greet;          /* a hello is due: members have changed */
};

/* A limit, as this host has it. */
struct limit_part {
    const struct exchange_limit *config;
    const struct share *share;
    uint32_t id;
    struct drl *drl;        /* of limits that are not exact */
    struct exact_host host; /* of those that are; */
    struct exact_home home; /* used where this host is the home */
    uint64_t next, counted_at;
    struct share_seen seen;
    double demand, worth; /* bytes (or packets) a second; flows' worth */
    double came, let;     /* in all */
    bool pressed;
};

struct exchange {
    const struct exchange_config *config;
    struct members *members;
    exchange_send *send;
    void *user;
    uint64_t session;
    unsigned count;                  /* hosts, with this one */
    uint16_t order[EXACT_MAX_HOSTS]; /* their numbers: of limiter 0, 1, ... */
    uint16_t place[EXACT_MAX_HOSTS]; /* the other way */
    unsigned turn;
    struct exchange_counters counters;
    struct peer peers[EXACT_MAX_HOSTS];
    struct limit_part parts[SHARE_MOST];
};

bool exchange_has(const struct exchange *exchange, unsigned host);
/* As the limit is now shared out, but for the seed. */
void exchange_drl_options(const struct exchange *exchange, const struct exchange_limit *limit,
                          struct drl_options *options);
uint64_t exchange_lease(const struct exchange_limit *config);

#endif
