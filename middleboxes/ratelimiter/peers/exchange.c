/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  A tick fills the buckets of all distributed limits, and at the end of a limit's interval takes in what the
 * replicas have counted and asks the limit's state machine (drl.h, exact.h) what others are to be told. What goes to
 * one host in a tick is one datagram. Sessions (session.h) stand between the network and those machines.
 *
 * Life-cycle.  An exchange may end at any moment, with its replica or alone; the next one, in another replica of the
 * host, finds buckets and members in the arena, and is a new session to the others. Limits that are not exact then
 * begin with 1/N; leases of exact ones go on (exact_host.c), a home's account of them is learned anew (exact_home.c).
 *
 * Members.  The policy's, those added by hand, and those that join by knowing the key. When they change, limits that
 * depend on their number begin anew with it. Hosts are told of all in each hello, and greet whom they did not know.
 *
 * Limits.  EXACT_MAX_HOSTS numbers of hosts, SHARE_MOST limits; what is wrong with a datagram is counted.
 */

#include "peers/exchange.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "peers/internal.h"
#include <splitmerge/bucket.h>

#define KEYS_LEASE_NS 3000000000ull /* keys are many, and each is asked for by turns */

uint64_t exchange_lease(const struct exchange_limit *config)
{
    uint64_t ten = 10 * config->interval_ns, least = config->keyed ? KEYS_LEASE_NS : 1000000000ull;

    return ten > least ? ten : least;
}

/* FNV-1a: limits that hosts do not agree on are not one limit. */
static uint32_t limit_id(const struct exchange_config *config, const struct exchange_limit *limit)
{
    const uint64_t numbers[] = {limit->exact ? 99 : limit->mode, limit->rate, limit->burst, limit->interval_ns,
                                config->home};
    uint32_t hash = 2166136261u;

    for (const char *c = limit->name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    for (const char *c = limit->keyed ? limit->keyed : ""; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 16777619u;
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        for (unsigned k = 0; k < 64; k += 8)
            hash = (hash ^ (uint8_t)(numbers[i] >> k)) * 16777619u;
    return hash;
}

/* ---- members ---- */

bool exchange_has(const struct exchange *exchange, unsigned host)
{
    const struct datagram_member *member = &exchange->members->host[host];

    return host == exchange->config->self || (member->version != 0 && !member->removed);
}

void exchange_drl_options(const struct exchange *exchange, const struct exchange_limit *limit,
                          struct drl_options *options)
{
    const struct exchange_config *config = exchange->config;
    unsigned others = exchange->count - 1, mesh = others < EXCHANGE_MESH ? others : EXCHANGE_FANOUT;

    *options = (struct drl_options){.mode = limit->mode,
                                    .rate = (double)limit->rate / 8,
                                    .burst = (double)limit->burst,
                                    .interval_ns = limit->interval_ns,
                                    .limiters = exchange->count,
                                    .self = exchange->place[config->self],
                                    .fanout = config->fanout ? config->fanout : mesh};
}

/* The limits that depend on how many there are begin anew. The home is limiter 0, the others follow by number. */
static void count_members(struct exchange *exchange, uint64_t now)
{
    const struct exchange_config *config = exchange->config;

    exchange->count = 0;
    exchange->order[exchange->count++] = config->home;
    for (unsigned host = 1; host < EXACT_MAX_HOSTS; host++)
        if (host != config->home && exchange_has(exchange, host))
            exchange->order[exchange->count++] = (uint16_t)host;
    for (unsigned i = 0; i < exchange->count; i++)
        exchange->place[exchange->order[i]] = (uint16_t)i;
    for (unsigned i = 0; i < config->limit_count; i++) {
        struct limit_part *part = &exchange->parts[i];
        struct drl_options options;
        if (part->config->exact || part->config->keyed)
            continue;
        exchange_drl_options(exchange, part->config, &options);
        options.seed = datagram_random();
        struct drl *drl = drl_create(&options, now);
        if (!drl)
            continue; /* out of memory: the one before goes on */
        drl_destroy(part->drl);
        part->drl = drl;
    }
    if (exchange->keys)
        exchange_keys_members(exchange, now);
}

static void greet_all(struct exchange *exchange)
{
    for (unsigned host = 1; host < EXACT_MAX_HOSTS; host++)
        exchange->peers[host].greet = true;
}

/* An account of a member. True: it is newer than what was known. */
static bool learn(struct exchange *exchange, const struct datagram_member *told)
{
    struct datagram_member *known;

    if (told->host == 0 || told->host >= EXACT_MAX_HOSTS || told->host == exchange->config->self || told->port == 0 ||
        (told->removed && told->host == exchange->config->home))
        return false;
    known = &exchange->members->host[told->host];
    if (told->version < known->version || (told->version == known->version && told->removed <= known->removed))
        return false;
    *known = *told;
    return true;
}

static void learn_and_tell(struct exchange *exchange, uint64_t now, const struct datagram_member *told)
{
    if (!learn(exchange, told))
        return;
    if (told->removed)
        exchange->peers[told->host].session = (struct session){0};
    count_members(exchange, now);
    greet_all(exchange);
}

static bool change(struct exchange *exchange, uint64_t now, uint16_t host, const struct datagram_member *at,
                   bool removed)
{
    struct datagram_member told = *at;

    if (host == 0 || host >= EXACT_MAX_HOSTS || host == exchange->config->self ||
        (removed && host == exchange->config->home))
        return false;
    told.host = host;
    told.removed = removed;
    told.version = (uint16_t)(exchange->members->host[host].version + 1);
    learn_and_tell(exchange, now, &told);
    return true;
}

bool exchange_add(struct exchange *exchange, uint64_t now, uint16_t host, const struct datagram_member *at)
{
    return change(exchange, now, host, at, false);
}

bool exchange_remove(struct exchange *exchange, uint64_t now, uint16_t host)
{
    if (host >= EXACT_MAX_HOSTS || !exchange_has(exchange, host))
        return false;
    return change(exchange, now, host, &exchange->members->host[host], true);
}

/* ---- what goes out ---- */

static void transmit(struct exchange *exchange, unsigned host, const struct datagram_member *at,
                     const struct datagram *datagram, unsigned *done)
{
    uint8_t bytes[DATAGRAM_MAX];
    size_t length = datagram_seal(bytes, datagram_encode(datagram, bytes, done), exchange->config->key);

    (void)host;
    exchange->counters.sent++;
    exchange->counters.sent_bytes += length;
    exchange->send(exchange->user, at, bytes, length);
}

static void say_hello(struct exchange *exchange, uint64_t now, unsigned host, const struct datagram_member *at)
{
    static _Thread_local struct datagram hello;
    unsigned done, *turn = &exchange->turn;

    hello = (struct datagram){.from = exchange->config->self, .to = (uint16_t)host, .session = exchange->session};
    session_hello(&exchange->peers[host].session, now, &hello);
    exchange->peers[host].greet = false;
    /* Members by turns, where there are more than a datagram has room for. */
    for (unsigned i = 0; i < EXACT_MAX_HOSTS && hello.member_count < DATAGRAM_MAX_MEMBERS; i++) {
        const struct datagram_member *member = &exchange->members->host[ *turn = (*turn + 1) % EXACT_MAX_HOSTS];
        if (member->version != 0)
            hello.members[hello.member_count++] = *member;
    }
    transmit(exchange, host, at, &hello, &done);
}

static void flush(struct exchange *exchange, unsigned host)
{
    struct peer *peer = &exchange->peers[host];
    struct datagram *out = &peer->out;
    unsigned done;

    while (out->item_count > 0) {
        out->type = DATAGRAM_DATA;
        out->from = exchange->config->self;
        out->to = (uint16_t)host;
        out->session = exchange->session;
        out->sequence = ++peer->session.sent;
        transmit(exchange, host, &exchange->members->host[host], out, &done);
        memmove(out->items, out->items + done, (out->item_count - done) * sizeof *out->items);
        out->item_count -= done;
    }
}

void exchange_tell(struct exchange *exchange, unsigned host, const struct datagram_item *item)
{
    struct datagram *out = &exchange->peers[host].out;

    if (host == exchange->config->self || !exchange_has(exchange, host))
        return;
    if (out->item_count == DATAGRAM_MAX_ITEMS)
        flush(exchange, host);
    out->items[out->item_count++] = *item;
}

/* ---- limits ---- */

/* Take in what the replicas have counted since the last time. */
static void count(struct limit_part *part, uint64_t now)
{
    double seconds = (double)(now - part->counted_at) / 1e9;
    struct share_count count = share_count(part->share, &part->seen, part->drl, now);

    part->counted_at = now;
    part->demand = (part->demand + count.arrived / seconds) / 2;
    part->worth = count.worth;
    part->came += count.arrived;
    part->let += count.passed;
    bool pressed = count.arrived - count.passed > 0.02 * count.arrived;
    if (pressed && !part->pressed)
        part->host.hurry = true;
    part->pressed = pressed;
}

static void tick_shared_out(struct exchange *exchange, struct limit_part *part, uint64_t now)
{
    uint32_t to[DRL_MAX_FANOUT];
    struct drl_update update[DRL_MAX_FANOUT];

    meter_fill(&part->share->head->meter, now, false);
    if (now < part->next)
        return;
    part->next = now + part->config->interval_ns;
    count(part, now);
    unsigned told = drl_interval(part->drl, now, to, update);
    share_publish(part->share, &part->seen, part->drl, now);
    for (unsigned i = 0; i < told; i++) {
        const struct datagram_item item = {.limit = part->id, .kind = DATAGRAM_UPDATE, .update = update[i]};
        exchange_tell(exchange, exchange->order[to[i]], &item);
    }
}

static void tick_exact(struct exchange *exchange, struct limit_part *part, uint64_t now)
{
    const struct exchange_config *config = exchange->config;
    struct datagram_item item = {.limit = part->id, .kind = DATAGRAM_ASK};
    struct exact_grant grant;

    if (config->home == config->self)
        exact_home_time(&part->home, now);
    if (now >= part->next) {
        part->next = now + part->config->interval_ns;
        count(part, now);
    }
    if (!exact_host_time(&part->host, now))
        return;
    exact_host_ask(&part->host, now, &item.ask);
    item.ask.demand = (uint64_t)(part->demand * 8);
    item.ask.weight = (uint32_t)(part->worth * 1000);
    item.ask.pressed = part->pressed;
    if (config->home != config->self)
        exchange_tell(exchange, config->home, &item);
    else if (exact_home_asked(&part->home, config->self, &item.ask, &grant))
        exact_host_granted(&part->host, now, &grant);
}

void exchange_tick(struct exchange *exchange, uint64_t now)
{
    for (unsigned i = 0; i < exchange->config->limit_count; i++) {
        struct limit_part *part = &exchange->parts[i];
        if (part->config->keyed)
            exact_home_time(&part->home, now);
        else if (part->config->exact)
            tick_exact(exchange, part, now);
        else
            tick_shared_out(exchange, part, now);
    }
    if (exchange->keys)
        exchange_keys_tick(exchange, now);
    for (unsigned host = 1; host < EXACT_MAX_HOSTS; host++) {
        struct peer *peer = &exchange->peers[host];
        if (host == exchange->config->self || !exchange_has(exchange, host))
            continue;
        if (peer->greet || session_hello_due(&peer->session, now))
            say_hello(exchange, now, host, &exchange->members->host[host]);
        flush(exchange, host);
    }
}

/* ---- what comes in ---- */

static bool may_come(const struct exchange_limit *limit, enum datagram_kind kind)
{
    if (limit->keyed)
        return kind == DATAGRAM_KEY_ASK || kind == DATAGRAM_KEY_GRANT;
    return limit->exact ? kind == DATAGRAM_ASK || kind == DATAGRAM_GRANT : kind == DATAGRAM_UPDATE;
}

static void item_came(struct exchange *exchange, uint64_t now, const struct datagram *datagram,
                      const struct datagram_item *item)
{
    struct datagram_item answer = {.limit = item->limit};
    struct limit_part *part = NULL;
    unsigned replies = 0;

    for (unsigned i = 0; i < exchange->config->limit_count && !part; i++)
        if (exchange->parts[i].id == item->limit && may_come(exchange->parts[i].config, item->kind))
            part = &exchange->parts[i];
    if (!part) {
        exchange->counters.unknown_limit++;
        return;
    }
    if (item->kind == DATAGRAM_UPDATE) {
        struct drl_update update = item->update;
        update.from = exchange->place[datagram->from];
        update.sequence = (uint32_t)datagram->sequence;
        answer.kind = DATAGRAM_UPDATE;
        if (drl_receive(part->drl, now, &update, &answer.update, &replies))
            share_allow(part->share, part->drl, now);
    } else if (item->kind == DATAGRAM_KEY_ASK) {
        replies = exchange_key_asked(exchange, part, now, datagram->from, item, &answer);
    } else if (item->kind == DATAGRAM_KEY_GRANT) {
        if (datagram->from == exchange->config->home)
            exchange_key_granted(exchange, now, item);
    } else if (item->kind == DATAGRAM_GRANT) {
        if (datagram->from == exchange->config->home)
            exact_host_granted(&part->host, now, &item->grant);
    } else if (exchange->config->home == exchange->config->self) {
        answer.kind = DATAGRAM_GRANT;
        exact_home_time(&part->home, now);
        replies = exact_home_asked(&part->home, datagram->from, &item->ask, &answer.grant);
    }
    if (replies > 0)
        exchange_tell(exchange, datagram->from, &answer);
}

static void hello_came(struct exchange *exchange, uint64_t now, const struct datagram_member *from,
                       const struct datagram *datagram)
{
    struct peer *peer = &exchange->peers[datagram->from];
    bool known = exchange_has(exchange, datagram->from);

    if (session_greeted(&peer->session, now, datagram)) {
        struct datagram_member at = *from;
        at.host = datagram->from;
        at.version = 1;
        at.removed = false;
        for (unsigned i = 0; i < exchange->config->limit_count; i++)
            if (exchange->parts[i].drl && known)
                drl_forget(exchange->parts[i].drl, exchange->place[datagram->from]);
        exchange->counters.joined += !known;
        learn_and_tell(exchange, now, &at);
    }
    if (datagram->session == peer->session.theirs)
        for (unsigned i = 0; i < datagram->member_count; i++)
            learn_and_tell(exchange, now, &datagram->members[i]);
    if (peer->session.answer != 0 || (!known && session_hello_due(&peer->session, now)))
        say_hello(exchange, now, datagram->from, from);
}

void exchange_receive(struct exchange *exchange, uint64_t now, const struct datagram_member *from, const uint8_t *bytes,
                      size_t length)
{
    static _Thread_local struct datagram datagram;
    struct exchange_counters *counters = &exchange->counters;
    enum datagram_fault fault = datagram_decode(bytes, length, exchange->config->key, &datagram);

    counters->forged += fault == DATAGRAM_FORGED;
    counters->malformed += fault == DATAGRAM_MALFORMED;
    if (fault != DATAGRAM_SOUND)
        return;
    bool here = datagram.to == exchange->config->self || (datagram.type == DATAGRAM_HELLO && datagram.to == 0);
    if (!here || datagram.from == 0 || datagram.from >= EXACT_MAX_HOSTS || datagram.from == exchange->config->self) {
        counters->misdirected++;
        return;
    }
    if (exchange->members->host[datagram.from].removed) {
        counters->refused++;
    } else if (datagram.type == DATAGRAM_HELLO) {
        hello_came(exchange, now, from, &datagram);
    } else if (!exchange_has(exchange, datagram.from)) {
        counters->unknown_host++;
    } else if (session_takes(&exchange->peers[datagram.from].session, now, &datagram)) {
        for (unsigned i = 0; i < datagram.item_count; i++)
            item_came(exchange, now, &datagram, &datagram.items[i]);
        flush(exchange, datagram.from);
    }
}

/* ---- life ---- */

static void begin_limit(struct limit_part *part, uint64_t now)
{
    const struct exchange_limit *config = part->config;
    const struct exact_limit limit = {.whole = {config->rate, config->burst * SM_BUCKET_UNIT},
                                      .lease_ns = exchange_lease(config)};

    exact_home_start(&part->home, &limit, datagram_random() | 1, now);
    if (config->keyed)
        return;
    share_start(part->share, &part->seen, part->drl, now);
    part->counted_at = now;
    part->next = now + config->interval_ns;
    if (config->exact) {
        const struct exact_host_options options = {
            .interval_ns = config->interval_ns, .queue_ns = config->queue_ns, .random = (uint32_t)datagram_random()};
        exact_host_start(&part->host, &part->share->head->meter, &limit, &options, now);
    }
}

static bool has_keys(const struct exchange_config *config)
{
    bool any = false;

    for (unsigned i = 0; i < config->limit_count; i++)
        any |= config->limits[i].keyed != NULL;
    return any;
}

/* Whether there is all that the limits need. */
static bool is_whole(const struct exchange *exchange)
{
    for (unsigned i = 0; i < exchange->config->limit_count; i++) {
        const struct exchange_limit *limit = &exchange->config->limits[i];
        if (!limit->exact && !limit->keyed && !exchange->parts[i].drl)
            return false;
    }
    return true;
}

struct exchange *exchange_create(const struct exchange_config *config, const struct exchange_state *state,
                                 exchange_send *send, void *user, uint64_t now)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    struct members *members = state->members;

    if (!exchange)
        return NULL;
    exchange->config = config;
    exchange->members = members;
    exchange->send = send;
    exchange->user = user;
    exchange->session = datagram_random();
    for (unsigned host = 1; host < EXACT_MAX_HOSTS; host++)
        if (atomic_load(&members->begun) == 0 && config->members[host].version != 0)
            members->host[host] = config->members[host];
    atomic_store(&members->begun, 1);
    for (unsigned i = 0; i < config->limit_count; i++) {
        exchange->parts[i].config = &config->limits[i];
        exchange->parts[i].share = &state->shares[i];
        exchange->parts[i].id = limit_id(config, &config->limits[i]);
    }
    bool made = !has_keys(config) || exchange_keys_create(exchange, &state->keys);
    if (made)
        count_members(exchange, now);
    if (!made || !is_whole(exchange)) {
        exchange_destroy(exchange);
        return NULL;
    }
    for (unsigned i = 0; i < config->limit_count; i++)
        begin_limit(&exchange->parts[i], now);
    return exchange;
}

void exchange_destroy(struct exchange *exchange)
{
    if (!exchange)
        return;
    for (unsigned i = 0; i < SHARE_MOST; i++)
        drl_destroy(exchange->parts[i].drl);
    exchange_keys_destroy(exchange->keys);
    free(exchange);
}
