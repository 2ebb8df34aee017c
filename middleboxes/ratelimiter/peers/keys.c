/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview.  The limits that have keys (drl/keys.h): for each key that has packets here this host asks the home for a
 * lease, as for a limit of its own (drl/exact.h), and the home keeps an account of each key that anybody has leased.
 *
 * Life-cycle of a key here.  A replica gives it a place; this thread finds it there and asks; when no packet has come
 * for a lease's time, or another key needs the place more, its buckets are voided and the place is free. Nothing that
 * was leased is used after that, so who comes back begins with nothing.
 *
 * Life-cycle of a key at home.  From the first ask until the last lease has ended, by the clock of leases. A new one
 * may have been leased by a home before this one as long as that home's leases may last: it inherits what is left of
 * that time from the limit.
 *
 * Limits.  KEYS_ASKS asks go out in KEYS_WINDOW_NS, by turns; leases last so long that a full table keeps its own.
 * HOME_KEYS keys at home; what finds no room there is counted, and has no answer.
 */

#include <stdlib.h>

#include "peers/internal.h"
#include <splitmerge/bucket.h>

#define SECOND 1000000000ull
#define KEYS_WINDOW_NS 100000000ull
#define KEYS_ASKS 128u
#define QUIET_ASKS 10u /* without packets: what it had goes to others by then */
#define HOME_WAYS 16u
#define HOME_SETS 256u
#define HOME_KEYS (HOME_SETS * HOME_WAYS)
#define HOME_SWEEP 16u /* ticks in which the home's clocks are all moved on */

struct key_host {
    uint64_t key; /* 0: nobody's; odd: seen so */
    struct exact_host host;
    uint64_t counted_at, heard_at; /* when packets were counted, and when there were some */
    uint64_t arrived, passed, window_arrived;
    uint64_t second_at, second_went_on, rate; /* since when it is the next second, and what came in the last one */
    double demand;                            /* bytes (or packets) a second */
    bool pressed, silent;
};

struct home_key {
    uint64_t key; /* 0: free */
    const struct limit_part *part;
    struct exact_part whole;
    uint64_t ends; /* by the home's clock: then no lease is left */
    struct exact_home home;
};

struct exchange_keys {
    const struct keys *table;
    uint64_t window_ends;
    unsigned asked, cursor, sweep;
    uint64_t turned_away[KEYS_PLACES / KEYS_WAYS];
    struct key_host host[KEYS_PLACES];
    struct home_key *home; /* NULL: another host is it */
};

static struct key_place *place_at(const struct exchange_keys *keys, unsigned number)
{
    return &keys_set(keys->table, number / KEYS_WAYS)->place[number % KEYS_WAYS];
}

static bool shares(const struct limit_part *part)
{
    return !part->config->exact;
}

static bool leases(const struct limit_part *part)
{
    return part->config->exact || part->config->mode == DRL_POOL;
}

static void exact_limit_of(const struct limit_part *part, const struct exact_part *whole, struct exact_limit *limit)
{
    *limit = (struct exact_limit){.whole = *whole, .lease_ns = exchange_lease(part->config)};
}

/* ---- at home ---- */

/* The account of a key, made if need be. NULL: there is no room. */
static struct home_key *account(struct exchange *exchange, const struct limit_part *part, uint64_t key,
                                const struct exact_part *whole, uint64_t now)
{
    struct home_key *set = &exchange->keys->home[(key >> 32) % HOME_SETS * HOME_WAYS], *free = NULL;
    struct exact_limit limit;

    for (unsigned i = 0; i < HOME_WAYS; i++) {
        if (set[i].key == key && set[i].part == part)
            return set[i].whole.rate == whole->rate && set[i].whole.depth == whole->depth ? &set[i] : NULL;
        if (set[i].key == 0)
            free = &set[i];
    }
    if (!free || whole->rate == 0 || whole->rate > SM_BUCKET_MAX_RATE)
        return NULL;
    exact_limit_of(part, whole, &limit);
    free->key = key;
    free->part = part;
    free->whole = *whole;
    exact_home_start(&free->home, &limit, datagram_random() | 1, now);
    free->home.learned = part->home.learned > part->home.clock ? part->home.learned - part->home.clock : 0;
    return free;
}

bool exchange_key_asked(struct exchange *exchange, const struct limit_part *part, uint64_t now, unsigned host,
                        const struct datagram_item *item, struct datagram_item *answer)
{
    struct home_key *found;

    if (!exchange->keys->home || item->key == 0 || item->key & 1 || !leases(part))
        return false;
    found = account(exchange, part, item->key, &item->whole, now);
    if (!found) {
        exchange->counters.keys_refused++;
        return false;
    }
    exact_home_time(&found->home, now);
    found->ends = found->home.clock + exchange_lease(part->config) * 2; /* what is granted now has ended before */
    answer->kind = DATAGRAM_KEY_GRANT;
    answer->key = item->key;
    return exact_home_asked(&found->home, host, &item->ask, &answer->grant);
}

static void sweep_home(struct exchange_keys *keys, uint64_t now)
{
    keys->sweep = (keys->sweep + 1) % HOME_SWEEP;
    for (unsigned i = keys->sweep; i < HOME_KEYS; i += HOME_SWEEP) {
        struct home_key *at = &keys->home[i];
        if (at->key == 0)
            continue;
        exact_home_time(&at->home, now);
        if (at->home.clock >= at->ends)
            at->key = 0;
    }
}

/* ---- at a host ---- */

/* Two replicas may give a key a place each; there is no lease yet, and one of them goes. */
static bool has_twin(const struct exchange_keys *keys, unsigned number, uint64_t key)
{
    for (unsigned way = 0; way < KEYS_WAYS; way++) {
        unsigned other = number / KEYS_WAYS * KEYS_WAYS + way;
        if (other != number && keys->host[other].key == key && atomic_load(&place_at(keys, other)->key) == key)
            return true;
    }
    return false;
}

static void forget(struct exchange_keys *keys, unsigned number)
{
    keys->host[number].key = 0;
    keys_free(place_at(keys, number));
}

/* What a key's share is among so many hosts as there are. */
static void set_share(const struct exchange *exchange, struct key_place *place, uint64_t now)
{
    uint64_t hosts = exchange->count;

    meter_fill(&place->share, now, false);
    meter_set(&place->share, atomic_load(&place->rate) / hosts, atomic_load(&place->depth) / hosts);
}

/* A key has a place, or had one when this exchange began. */
static void begin_key(struct exchange *exchange, unsigned number, uint64_t key, uint64_t now)
{
    struct exchange_keys *keys = exchange->keys;
    struct key_place *place = place_at(keys, number);
    struct key_host *host = &keys->host[number];
    uint64_t limit_number = atomic_load(&place->limit);
    struct exact_part whole = {.rate = atomic_load(&place->rate), .depth = atomic_load(&place->depth)};
    struct exact_limit limit;

    if (limit_number >= exchange->config->limit_count || !exchange->config->limits[limit_number].keyed ||
        has_twin(keys, number, key)) {
        forget(keys, number);
        return;
    }
    const struct limit_part *part = &exchange->parts[limit_number];
    const struct exact_host_options options = {.interval_ns = part->config->interval_ns,
                                               .queue_ns = part->config->queue_ns,
                                               .random = (uint32_t)datagram_random()};
    exact_limit_of(part, &whole, &limit);
    *host = (struct key_host){.key = key,
                              .counted_at = now,
                              .heard_at = now,
                              .second_at = now,
                              .second_went_on = atomic_load(&place->went_on)};
    exact_host_start(&host->host, &place->lease, &limit, &options, now);
    if (!shares(part))
        return;
    meter_resume(&place->share, now);
    set_share(exchange, place, now);
}

static void count(struct key_host *host, const struct key_place *place, uint64_t interval_ns, uint64_t now)
{
    uint64_t arrived = atomic_load(&place->arrived), passed = atomic_load(&place->passed);
    double came = (double)(arrived - host->arrived);

    if (arrived != host->arrived)
        host->heard_at = now;
    if (now - host->counted_at < interval_ns)
        return;
    host->demand = (host->demand + came * 1e9 / (double)(now - host->counted_at)) / 2;
    bool pressed = came - (double)(passed - host->passed) > 0.02 * came;
    host->host.hurry |= pressed && !host->pressed;
    host->pressed = pressed;
    host->silent = came == 0;
    host->counted_at = now;
    host->arrived = arrived;
    host->passed = passed;
}

static void count_second(struct key_host *host, const struct key_place *place, uint64_t now)
{
    if (now - host->second_at < SECOND)
        return;
    uint64_t went_on = atomic_load(&place->went_on);
    host->rate = (uint64_t)((double)(went_on - host->second_went_on) * SECOND / (double)(now - host->second_at));
    host->second_at = now;
    host->second_went_on = went_on;
}

static void granted(struct key_host *host, uint64_t now, const struct exact_grant *grant)
{
    /* The first part is nothing, as nothing is held: what there is to have comes with the next. */
    if (exact_host_granted(&host->host, now, grant) && grant->part.rate == 0)
        host->host.hurry = true;
}

void exchange_key_granted(struct exchange *exchange, uint64_t now, const struct datagram_item *item)
{
    struct exchange_keys *keys = exchange->keys;
    unsigned set = keys_set_of(item->key);

    for (unsigned number = set * KEYS_WAYS; item->key != 0 && number < (set + 1) * KEYS_WAYS; number++)
        if (keys->host[number].key == item->key)
            granted(&keys->host[number], now, &item->grant);
}

static void ask(struct exchange *exchange, const struct limit_part *part, unsigned number, uint64_t now)
{
    struct exchange_keys *keys = exchange->keys;
    const struct key_place *place = place_at(keys, number);
    struct key_host *host = &keys->host[number];
    struct datagram_item answer, item = {.limit = part->id,
                                         .kind = DATAGRAM_KEY_ASK,
                                         .key = host->key,
                                         .whole = {atomic_load(&place->rate), atomic_load(&place->depth)}};

    keys->asked++;
    exact_host_ask(&host->host, now, &item.ask);
    item.ask.demand = (uint64_t)(host->demand * 8);
    item.ask.weight = host->silent ? 0 : 1000;
    item.ask.pressed = host->pressed;
    if (exchange->config->home != exchange->config->self)
        exchange_tell(exchange, exchange->config->home, &item);
    else if (exchange_key_asked(exchange, part, now, exchange->config->self, &item, &answer))
        granted(host, now, &answer.grant);
}

/* Fills a key's buckets. True: an ask is due. */
static bool tick_key(struct exchange *exchange, unsigned number, uint64_t now)
{
    struct exchange_keys *keys = exchange->keys;
    struct key_place *place = place_at(keys, number);
    struct key_host *host = &keys->host[number];
    const struct limit_part *part = &exchange->parts[atomic_load(&place->limit)];
    bool due = exact_host_time(&host->host, now);

    if (shares(part))
        meter_fill(&place->share, now, false);
    count(host, place, part->config->interval_ns, now);
    count_second(host, place, now);
    uint64_t quiet = now - host->heard_at;
    if (quiet > exchange_lease(part->config)) {
        forget(keys, number);
        return false;
    }
    return due && leases(part) && quiet <= QUIET_ASKS * part->config->interval_ns;
}

/* In a set that has turned somebody away, whoever has sent less than those makes room. */
static void make_room(struct exchange_keys *keys, unsigned set)
{
    uint64_t now_away = atomic_load(&keys_set(keys->table, set)->turned_away);
    uint64_t least = now_away - keys->turned_away[set];
    unsigned out = KEYS_PLACES;

    keys->turned_away[set] = now_away;
    for (unsigned number = set * KEYS_WAYS; number < (set + 1) * KEYS_WAYS; number++) {
        struct key_host *host = &keys->host[number];
        uint64_t arrived = atomic_load(&place_at(keys, number)->arrived), sent = arrived - host->window_arrived;
        host->window_arrived = arrived;
        if (host->key == 0 || host->key & 1 || sent >= least)
            continue;
        least = sent;
        out = number;
    }
    if (out < KEYS_PLACES)
        forget(keys, out);
}

/* A place that is being filled in for a whole window: who did it has died. */
static void clear_claim(struct exchange_keys *keys, unsigned number)
{
    uint64_t key = atomic_load(&place_at(keys, number)->key);

    if ((key & 1) == 0)
        return;
    if (keys->host[number].key == key && atomic_compare_exchange_strong(&place_at(keys, number)->key, &key, 0))
        key = 0;
    keys->host[number].key = key;
}

static void end_window(struct exchange_keys *keys, uint64_t now)
{
    keys->window_ends = now + KEYS_WINDOW_NS;
    keys->asked = 0;
    for (unsigned number = 0; number < KEYS_PLACES; number++)
        clear_claim(keys, number);
    for (unsigned set = 0; set < KEYS_PLACES / KEYS_WAYS; set++)
        make_room(keys, set);
}

void exchange_keys_tick(struct exchange *exchange, uint64_t now)
{
    struct exchange_keys *keys = exchange->keys;
    unsigned first = keys->cursor;
    bool waits = false;

    for (unsigned i = 0; i < exchange->config->limit_count; i++)
        if (exchange->config->limits[i].keyed && shares(&exchange->parts[i]))
            meter_fill(&keys->table->head->rest[i], now, false);
    if (now >= keys->window_ends)
        end_window(keys, now);
    for (unsigned i = 0; i < KEYS_PLACES; i++) {
        unsigned number = (first + i) % KEYS_PLACES;
        uint64_t key = atomic_load(&place_at(keys, number)->key);
        if (key == 0 || key & 1)
            continue;
        if (key != keys->host[number].key)
            begin_key(exchange, number, key, now);
        if (keys->host[number].key == 0 || !tick_key(exchange, number, now))
            continue;
        /* Those for whom there is no more in this window are the first of the next. */
        if (keys->asked < KEYS_ASKS)
            ask(exchange, &exchange->parts[atomic_load(&place_at(keys, number)->limit)], number, now);
        else if (!waits)
            keys->cursor = number;
        waits |= keys->asked >= KEYS_ASKS;
    }
    if (keys->home)
        sweep_home(keys, now);
}

/* ---- life ---- */

void exchange_keys_members(struct exchange *exchange, uint64_t now)
{
    struct exchange_keys *keys = exchange->keys;
    uint64_t hosts = exchange->count;

    atomic_store(&keys->table->head->hosts, hosts);
    for (unsigned i = 0; i < exchange->config->limit_count; i++) {
        const struct exchange_limit *limit = &exchange->config->limits[i];
        struct meter *rest = &keys->table->head->rest[i];
        if (!limit->keyed || limit->exact)
            continue;
        if (atomic_load(&rest->until) != METER_ALWAYS)
            keys_begin_share(rest, limit->rate, limit->burst * SM_BUCKET_UNIT, hosts, now);
        meter_fill(rest, now, false);
        meter_set(rest, limit->rate / hosts, limit->burst * SM_BUCKET_UNIT / hosts);
    }
    for (unsigned number = 0; number < KEYS_PLACES; number++) {
        struct key_place *place = place_at(keys, number);
        uint64_t key = keys->host[number].key;
        if (key != 0 && (key & 1) == 0 && shares(&exchange->parts[atomic_load(&place->limit)]))
            set_share(exchange, place, now);
    }
}

bool exchange_keys_create(struct exchange *exchange, const struct keys *table)
{
    struct exchange_keys *keys = calloc(1, sizeof *keys);

    exchange->keys = keys;
    if (!keys)
        return false;
    keys->table = table;
    if (exchange->config->home == exchange->config->self)
        keys->home = calloc(HOME_KEYS, sizeof *keys->home);
    return keys->home || exchange->config->home != exchange->config->self;
}

void exchange_keys_destroy(struct exchange_keys *keys)
{
    if (keys)
        free(keys->home);
    free(keys);
}

void exchange_keys_sum(const struct exchange *exchange, unsigned limit, uint64_t now, struct keys_sum *sum)
{
    const struct exchange_keys *keys = exchange->keys;

    *sum = (struct keys_sum){0};
    for (unsigned number = 0; number < KEYS_PLACES; number++) {
        const struct key_host *host = &keys->host[number];
        const struct key_place *place = place_at(keys, number);
        if (host->key == 0 || host->key & 1 || atomic_load(&place->limit) != limit)
            continue;
        uint64_t until = atomic_load(&place->lease.until);
        sum->keys++;
        sum->leased += now < until && atomic_load(&place->lease.rate) > 0;
        sum->allowed += (double)atomic_load(now < until ? &place->lease.rate : &place->share.rate);
        sum->demand += host->demand;
        sum->arrived += (double)atomic_load(&place->arrived);
        sum->passed += (double)atomic_load(&place->passed);
    }
}

bool exchange_keys_told(const struct exchange *exchange, unsigned number, struct key_told *told)
{
    const struct key_host *host = &exchange->keys->host[number];
    const struct key_place *place = place_at(exchange->keys, number);

    if (host->key == 0 || host->key & 1 || !keys_who(place, host->key, &told->who))
        return false;
    told->limit = (unsigned)atomic_load(&place->limit);
    told->passed = atomic_load(&place->went_on);
    told->rate = host->rate;
    told->exceeded = atomic_load(&place->exceeded);
    return told->limit < exchange->config->limit_count;
}

uint64_t exchange_keys_turned_away(const struct exchange *exchange)
{
    return exchange->keys ? atomic_load(&exchange->keys->table->head->turned_away) : 0;
}
