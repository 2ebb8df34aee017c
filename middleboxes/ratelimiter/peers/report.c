/* SPDX-License-Identifier: BSD-2-Clause */
#include <arpa/inet.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "peers/internal.h"

struct text {
    char *at;
    size_t room, length;
};

static void add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    int wrote;

    va_start(arguments, format);
    wrote = vsnprintf(text->at + text->length, text->room - text->length, format, arguments);
    va_end(arguments);
    text->length += (size_t)wrote < text->room - text->length ? (size_t)wrote : text->room - text->length - 1;
}

static const char *address(const struct datagram_member *member, char text[static 64])
{
    char name[INET6_ADDRSTRLEN];
    struct in6_addr in6;

    for (unsigned i = 0; i < 16; i++)
        in6.s6_addr[i] = member->address[i];
    if (IN6_IS_ADDR_V4MAPPED(&in6)) {
        inet_ntop(AF_INET, member->address + 12, name, sizeof name);
        snprintf(text, 64, "%s:%u", name, member->port);
    } else {
        inet_ntop(AF_INET6, &in6, name, sizeof name);
        snprintf(text, 64, "[%s]:%u", name, member->port);
    }
    return text;
}

static void add_peers(struct text *text, const struct exchange *exchange, uint64_t now)
{
    const char *separator = "";

    for (unsigned host = 1; host < EXACT_MAX_HOSTS; host++) {
        const struct datagram_member *member = &exchange->members->host[host];
        const struct session *session = &exchange->peers[host].session;
        char at[64];
        if (member->version == 0 || host == exchange->config->self)
            continue;
        add(text, "%s{\"host\": %u, \"address\": \"%s\", \"state\": \"%s\", ", separator, host, address(member, at),
            member->removed        ? "removed"
            : session->theirs == 0 ? "unknown"
                                   : "known");
        if (session->heard_at != 0)
            add(text, "\"heard_ms\": %lu, ", (now - session->heard_at) / 1000000);
        add(text, "\"taken\": %lu, \"lost\": %lu, \"replayed\": %lu, \"strange\": %lu, \"sent\": %lu}", session->taken,
            session->lost, session->replayed, session->strange, session->sent);
        separator = ", ";
    }
}

/*
 * What is promised when hosts are cut off from one another in any way: over any interval all let through at most `rate`
 * times the limit's rate, and `bytes` (or packets); null: without bound. And in how many milliseconds shares follow
 * demand when nothing is lost. docs/drl.md says why.
 */
static void add_bounds(struct text *text, const struct exchange *exchange, const struct limit_part *part)
{
    const struct exchange_limit *config = part->config;
    struct drl_options options;
    double settled = 3 * (double)config->interval_ns / 1e6, rate = 1, bytes = (double)config->burst;

    if (config->keyed && !config->exact) {
        rate = config->mode == DRL_POOL ? 2 : 1;
        bytes *= rate;
        bytes += rate * (double)config->rate / 8 * (double)config->queue_ns / 1e9;
    } else if (!config->exact) {
        exchange_drl_options(exchange, config, &options);
        struct drl_bound bound = drl_bound(&options);
        rate = bound.rate / options.rate;
        bytes = bound.bytes + options.rate * (double)config->queue_ns / 1e9; /* what waits while shares change */
        settled = config->mode == DRL_POOL ? 1000 : config->mode == DRL_SPLIT ? 0 : 8000;
    }
    add(text, "\"bounds\": {\"rate\": %.0f, \"bytes\": ", rate);
    if (isfinite(bytes))
        add(text, "%.0f", bytes);
    else
        add(text, "null");
    add(text, ", \"settled_ms\": %.0f}", settled);
}

/* A limit with keys: how many there are, and together. */
static void add_keyed(struct text *text, const struct exchange *exchange, unsigned number, uint64_t now)
{
    const struct limit_part *part = &exchange->parts[number];
    struct keys_sum sum;

    exchange_keys_sum(exchange, number, now, &sum);
    add(text, "%s{\"name\": \"%s\", \"distribute\": \"%s\", \"per\": \"%s\", \"rate_bit\": %lu, ", number ? ", " : "",
        part->config->name, part->config->exact ? "exact" : drl_mode_names[part->config->mode], part->config->keyed,
        part->config->rate);
    add(text, "\"allowed_bit\": %.0f, \"demand_bit\": %.0f, \"arrived\": %.0f, \"passed\": %.0f, ", sum.allowed,
        sum.demand * 8, sum.arrived, sum.passed);
    add(text, "\"keys\": %u, \"leased_keys\": %u, ", sum.keys, sum.leased);
    add_bounds(text, exchange, part);
    add(text, "}");
}

static void add_limits(struct text *text, const struct exchange *exchange, uint64_t now)
{
    for (unsigned i = 0; i < exchange->config->limit_count; i++) {
        const struct limit_part *part = &exchange->parts[i];
        if (part->config->keyed) {
            add_keyed(text, exchange, i, now);
            continue;
        }
        const struct meter *meter = &part->share->head->meter;
        uint64_t until = atomic_load(&meter->until);
        add(text, "%s{\"name\": \"%s\", \"distribute\": \"%s\", \"rate_bit\": %lu, ", i ? ", " : "", part->config->name,
            part->config->exact ? "exact" : drl_mode_names[part->config->mode], part->config->rate);
        add(text, "\"allowed_bit\": %lu, \"demand_bit\": %.0f, \"arrived\": %.0f, \"passed\": %.0f, ",
            now < until ? atomic_load(&meter->rate) : 0, part->demand * 8, part->came, part->let);
        if (part->config->exact && exchange->config->home == exchange->config->self)
            add(text, "\"leased_bit\": %lu, ", exact_home_out(&part->home).rate);
        add_bounds(text, exchange, part);
        add(text, "}");
    }
}

size_t exchange_report(const struct exchange *exchange, uint64_t now, char *room, size_t size)
{
    const struct exchange_counters *counters = &exchange->counters;
    struct text text = {.at = room, .room = size};

    add(&text, "{\"version\": 1, \"host\": %u, \"home\": %u, \"hosts\": %u, ", exchange->config->self,
        exchange->config->home, exchange->count);
    add(&text, "\"counters\": {\"sent\": %lu, \"sent_bytes\": %lu, \"forged\": %lu, \"malformed\": %lu, ",
        counters->sent, counters->sent_bytes, counters->forged, counters->malformed);
    uint64_t replayed = 0, strange = 0, lost = 0;
    for (unsigned host = 1; host < EXACT_MAX_HOSTS; host++) {
        replayed += exchange->peers[host].session.replayed;
        strange += exchange->peers[host].session.strange;
        lost += exchange->peers[host].session.lost;
    }
    add(&text, "\"replayed\": %lu, \"strange\": %lu, \"lost\": %lu, \"misdirected\": %lu, \"unknown_host\": %lu, ",
        replayed, strange, lost, counters->misdirected, counters->unknown_host);
    add(&text, "\"unknown_limit\": %lu, \"refused\": %lu, \"joined\": %lu, ", counters->unknown_limit,
        counters->refused, counters->joined);
    add(&text, "\"keys_refused\": %lu, \"keys_turned_away\": %lu}, \"peers\": [", counters->keys_refused,
        exchange_keys_turned_away(exchange));
    add_peers(&text, exchange, now);
    add(&text, "], \"limits\": [");
    add_limits(&text, exchange, now);
    add(&text, "]}\n");
    return text.length;
}

size_t exchange_report_keys(const struct exchange *exchange, char *room, size_t size)
{
    struct text text = {.at = room, .room = size};
    const char *separator = "";
    struct key_told told;

    add(&text, "{\"version\": 1, \"keys\": [");
    for (unsigned number = 0; exchange->keys && number < KEYS_PLACES; number++) {
        if (!exchange_keys_told(exchange, number, &told))
            continue;
        const struct exchange_limit *limit = &exchange->config->limits[told.limit];
        add(&text, "%s{\"class\": \"%s\", \"key\": \"", separator, limit->keyed);
        for (unsigned i = 0; i < sizeof told.who; i++)
            add(&text, "%02x", ((const uint8_t *)&told.who)[i]);
        add(&text, "\", \"shard\": null, \"replica\": 0, \"state\": {\"limit\": \"%s\", \"passed\": %lu, ", limit->name,
            told.passed);
        add(&text, "\"unit\": \"%s\", \"exceeded\": %lu, \"rate\": %lu}}", limit->packets ? "packets" : "bytes",
            told.exceeded, told.rate);
        separator = ", ";
    }
    add(&text, "]}\n");
    return text.length;
}
