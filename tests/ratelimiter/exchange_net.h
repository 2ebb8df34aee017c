/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef EXCHANGE_NET_H
#define EXCHANGE_NET_H

/* Exchanges of several hosts, each with its own buckets, with datagrams that are lost, repeated and late, or cut off.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peers/exchange.h"
#include <splitmerge/bucket.h>

#include "testing/random.h"

#define HOSTS 4u
#define TICK EXCHANGE_TICK_NS
#define RATE 16000000ull /* bit/s */
#define MAIL 512u

struct letter {
    unsigned from, to;
    size_t length;
    uint64_t at;
    uint8_t bytes[DATAGRAM_MAX];
};

struct net {
    struct exchange_config config[HOSTS];
    struct exchange *exchange[HOSTS];
    struct exchange_state state[HOSTS];
    struct share_head head[HOSTS];
    struct share_page page[HOSTS][SHARE_PAGES];
    struct keys_head keys_head[HOSTS];
    struct keys_page keys_page[HOSTS][KEYS_PAGES];
    struct members members[HOSTS];
    struct sender {
        struct net *net;
        unsigned self;
    } sender[HOSTS];
    struct letter mail[MAIL];
    unsigned letters;
    double lost, repeated;
    uint64_t now, random;
    double passed[HOSTS];
    bool cut[HOSTS];
    struct sm_bucket *judge; /* NULL: there is none */
    uint64_t seed;
};

static inline double chance(struct net *net)
{
    return random_unit(random_linear(&net->random));
}

/* Host i is at port i + 1. */
static inline void send_letter(void *user, const struct datagram_member *to, const uint8_t *bytes, size_t length)
{
    struct sender *sender = user;
    struct net *net = sender->net;

    for (unsigned copies = chance(net) < net->repeated ? 2 : 1; copies > 0; copies--) {
        if (chance(net) < net->lost || net->cut[sender->self] || net->cut[to->port - 1] || net->letters == MAIL)
            continue;
        struct letter *letter = &net->mail[net->letters++];
        *letter = (struct letter){.from = sender->self, .to = to->port - 1u, .length = length, .at = net->now + TICK};
        memcpy(letter->bytes, bytes, length);
    }
}

static inline void begin(struct net *net, unsigned host)
{
    net->exchange[host] =
        exchange_create(&net->config[host], &net->state[host], send_letter, &net->sender[host], net->now);
    cr_assert(net->exchange[host]);
}

/* Host 0 is the home (number 1). The others know of it alone: they join. */
static inline struct net *build(bool exact, enum drl_mode mode, const char *keyed)
{
    struct net *net = calloc(1, sizeof *net);

    net->random = 3;
    net->now = 1000000000;
    for (unsigned i = 0; i < HOSTS; i++) {
        struct exchange_config *config = &net->config[i];
        *config = (struct exchange_config){.self = (uint16_t)(i + 1), .home = 1, .key = {9}, .limit_count = 1};
        config->limits[0] = (struct exchange_limit){.name = "all",
                                                    .exact = exact,
                                                    .mode = mode,
                                                    .keyed = keyed,
                                                    .rate = RATE,
                                                    .burst = 60000,
                                                    .interval_ns = 50000000};
        if (i > 0)
            config->members[1] = (struct datagram_member){.host = 1, .port = 1, .version = 1};
        net->state[i].members = &net->members[i];
        net->state[i].shares[0].head = &net->head[i];
        for (unsigned k = 0; k < SHARE_PAGES; k++)
            net->state[i].shares[0].page[k] = &net->page[i][k];
        net->state[i].keys.head = &net->keys_head[i];
        for (unsigned k = 0; k < KEYS_PAGES; k++)
            net->state[i].keys.page[k] = &net->keys_page[i][k];
        net->sender[i] = (struct sender){net, i};
        begin(net, i);
    }
    return net;
}

static inline void destroy(struct net *net)
{
    for (unsigned i = 0; i < HOSTS; i++)
        exchange_destroy(net->exchange[i]);
    free(net);
}

static inline void deliver(struct net *net)
{
    struct letter due[MAIL];
    unsigned count = net->letters;

    memcpy(due, net->mail, count * sizeof *due);
    net->letters = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct datagram_member from = {.port = (uint16_t)(due[i].from + 1)};
        exchange_receive(net->exchange[due[i].to], net->now, &from, due[i].bytes, due[i].length);
    }
}

static inline long reported(const struct net *net, unsigned host, const char *key)
{
    static char text[65536];
    char quoted[64];

    exchange_report(net->exchange[host], net->now, text, sizeof text);
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(text, quoted);
    return at ? atol(at + strlen(quoted)) : -1;
}

#endif
