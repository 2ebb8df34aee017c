/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "conf/units.h"
#include "smctl.h"

#define TOP 10
#define MOST 1000
#define SAMPLE_MS 1000 /* from one look to the next, of which rates are made */

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static int ask(struct client *client, const struct options *options, const char *by, uint64_t top, json_t **result)
{
    struct wire_out *params = wire_new();

    wire_put_str(params, "by", by);
    wire_put_uint(params, "top", top);
    return client_ask(client, "limits", params, options->timeout_ms ? options->timeout_ms : 30000, NULL, NULL, result);
}

/* Packets and bytes a second since a look before; a limit that is new had none. */
static void add_rates(json_t *limits, const json_t *before, double seconds)
{
    json_t *limit, *old;
    size_t i, k;

    json_array_foreach(limits, i, limit)
    {
        long long packets = number(limit, "packets"), bytes = number(limit, "bytes");
        json_array_foreach(before, k, old) if (strcmp(json_string_value(json_object_get(old, "name")),
                                                      json_string_value(json_object_get(limit, "name"))) == 0)
        {
            packets -= number(old, "packets");
            bytes -= number(old, "bytes");
        }
        json_object_set_new(limit, "packets_per_second", json_real((double)packets / seconds));
        json_object_set_new(limit, "bytes_per_second", json_real((double)bytes / seconds));
    }
}

/* Of a limit, or of a key, which has a state. */
static double rank(const json_t *item, const char *by)
{
    const json_t *state = json_object_get(item, "state");

    if (state)
        return json_number_value(json_object_get(state, by));
    return json_number_value(json_object_get(item, strcmp(by, "rate") == 0 ? "bytes_per_second" : "exceeded"));
}

/* The most first, else in the order that they had. */
static void sort(json_t *items, const char *by)
{
    for (size_t i = 1; i < json_array_size(items); i++) {
        json_t *item = json_incref(json_array_get(items, i));
        size_t at = i;
        while (at > 0 && rank(json_array_get(items, at - 1), by) < rank(item, by))
            at--;
        json_array_remove(items, i);
        json_array_insert_new(items, at, item);
    }
}

static void print(const json_t *limits, const json_t *keys)
{
    json_t *item;
    size_t i;

    printf("%-24s %12s %15s %12s %12s %12s %14s\n", "LIMIT", "PACKETS", "BYTES", "EXCEEDED", "DROPPED", "PACKETS/S",
           "BIT/S");
    json_array_foreach(limits, i, item)
        printf("%-24s %12lld %15lld %12lld %12lld %12.0f %14.0f\n", json_string_value(json_object_get(item, "name")),
               number(item, "packets"), number(item, "bytes"), number(item, "exceeded"), number(item, "dropped"),
               json_number_value(json_object_get(item, "packets_per_second")),
               json_number_value(json_object_get(item, "bytes_per_second")) * 8);
    if (json_array_size(keys) == 0)
        return;
    printf("\n%-24s %-44s %-6s %15s %12s %16s\n", "LIMIT", "KEY", "OWNER", "PASSED", "EXCEEDED", "RATE");
    json_array_foreach(keys, i, item)
    {
        const json_t *state = json_object_get(item, "state");
        const char *name = json_string_value(json_object_get(state, "limit"));
        bool packets = strcmp(json_string_value(json_object_get(state, "unit")), "packets") == 0;
        printf("%-24s %-44s %-6s %14lld%s %12lld %10lld %s\n", name ? name : "-",
               json_string_value(json_object_get(item, "key")), json_string_value(json_object_get(item, "replica")),
               number(state, "passed"), packets ? "p" : "B", number(state, "exceeded"),
               number(state, "rate") * (packets ? 1 : 8), packets ? "pps" : "bit/s");
    }
}

/* Two looks, and what there is to see. */
static int look(struct client *client, const struct options *options, const char *by, uint64_t top)
{
    json_t *before, *result;
    int status = ask(client, options, by, 0, &before);

    if (status != 0)
        return status;
    uint64_t begin = uv_hrtime();
    uv_sleep(SAMPLE_MS);
    status = ask(client, options, by, top, &result);
    if (status != 0) {
        json_decref(before);
        return status;
    }
    json_t *busy = json_object_get(result, "keys");
    if (top > 0)
        status = peers_keys(options, busy);
    if (status == 0) {
        sort(busy, by);
        while (json_array_size(busy) > top)
            json_array_remove(busy, json_array_size(busy) - 1);
        json_t *limits = json_object_get(result, "limits"), *keys = flows_for_people(busy);
        add_rates(limits, json_object_get(before, "limits"), (double)(uv_hrtime() - begin) / 1e9);
        sort(limits, by);
        if (options->json) {
            print_json(
                json_pack("{s:O, s:O, s:O}", "time", json_object_get(result, "time"), "limits", limits, "keys", keys));
        } else {
            print(limits, keys);
        }
        json_decref(keys);
    }
    json_decref(result);
    json_decref(before);
    return status;
}

int cmd_limits(struct options *options)
{
    struct client *client;
    bool wrong = false;
    uint64_t top = TOP;
    const char *by = take_option(options, "--by", &wrong), *count = take_option(options, "--top", &wrong);

    if (wrong || options->argc != 1)
        return usage(options, "limits [--by drops|rate] [--top N]");
    if (by && strcmp(by, "drops") != 0 && strcmp(by, "rate") != 0)
        return fail(options, RPC_USAGE, "limits: --by: expected drops or rate, got '%s'", by);
    if (count && (!unit_count(count, &top) || top > MOST))
        return fail(options, RPC_USAGE, "limits: --top: expected 0 to %d keys, got '%s'", MOST, count);
    int status = client_open(&client, options);
    if (status != 0)
        return status;
    status = look(client, options, by && strcmp(by, "rate") == 0 ? "rate" : "exceeded", top);
    client_close(client);
    return status;
}
