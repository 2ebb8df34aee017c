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

struct exchange_keys;

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
    struct exchange_keys *keys; /* NULL: no limit has any */
};

bool exchange_has(const struct exchange *exchange, unsigned host);
/* As the limit is now shared out, but for the seed. */
void exchange_drl_options(const struct exchange *exchange, const struct exchange_limit *limit,
                          struct drl_options *options);
uint64_t exchange_lease(const struct exchange_limit *config);
void exchange_tell(struct exchange *exchange, unsigned host, const struct datagram_item *item);

/* ---- limits that have keys: keys.c ---- */

bool exchange_keys_create(struct exchange *exchange, const struct keys *table); /* false: out of memory */
void exchange_keys_destroy(struct exchange_keys *keys);
void exchange_keys_members(struct exchange *exchange, uint64_t now); /* the number of hosts is known */
void exchange_keys_tick(struct exchange *exchange, uint64_t now);
void exchange_key_granted(struct exchange *exchange, uint64_t now, const struct datagram_item *item);
/* True: *answer is to be told `host`. */
bool exchange_key_asked(struct exchange *exchange, const struct limit_part *part, uint64_t now, unsigned host,
                        const struct datagram_item *item, struct datagram_item *answer);

struct keys_sum {
    unsigned keys, leased;                   /* that have a place here, and a lease */
    double allowed, demand, arrived, passed; /* all of them, since each has its place; bits, else bytes (or packets) */
};

/* What a key came to here since it has its place. */
struct key_told {
    unsigned limit;
    struct sm_key who;
    uint64_t passed, rate, exceeded; /* bytes or packets, those of the last second, and packets */
};
bool exchange_keys_told(const struct exchange *exchange, unsigned number, struct key_told *told); /* false: nobody's */
uint64_t exchange_keys_turned_away(const struct exchange *exchange); /* packets whose keys had no place */
void exchange_keys_sum(const struct exchange *exchange, unsigned limit, uint64_t now, struct keys_sum *sum);

#endif
