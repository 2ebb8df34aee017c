/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <string.h>

#include "smctl.h"

static long long number(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : otherwise;
}

/* Interfaces; files have nothing to say. */
static void print_ports(const json_t *ports)
{
    size_t at;
    json_t *port;
    json_array_foreach(ports, at, port)
    {
        const char *driver = text(port, "driver", "file"), *why = text(port, "why", NULL);
        if (strcmp(driver, "file") == 0)
            continue;
        printf("port        %s: %s%s%s%s\n", text(port, "name", "?"), driver, why ? " (" : "", why ? why : "",
               why ? ")" : "");
        printf("            %lld received, %lld sent, %lld missed, %lld failed\n", number(port, "rx_packets"),
               number(port, "tx_packets"), number(port, "rx_missed"), number(port, "tx_failed"));
    }
}

static void print_status(const json_t *status)
{
    const json_t *packets = json_object_get(status, "packets"), *flows = json_object_get(status, "flows"),
                 *moves = json_object_get(status, "moves"), *pause = json_object_get(moves, "pause_us"),
                 *memory = json_object_get(status, "memory"), *held = json_object_get(status, "invariants"),
                 *limits = json_object_get(status, "limits"), *affinity = json_object_get(status, "affinity");
    const char *reason;
    json_t *count;
    printf("service     %s, %s for %.1f s\n", text(status, "service", "?"), text(status, "state", "?"),
           json_number_value(json_object_get(status, "seconds")));
    printf("replicas    %zu (%lld to %lld)\n", json_array_size(json_object_get(status, "replicas")),
           number(limits, "min"), number(limits, "max"));
    const char *stage = text(status, "stage", NULL);
    printf(stage ? "operation   %s (%s)\n" : "operation   %s\n", text(status, "operation", "none"), stage);
    printf("packets     %lld in, %lld generated, %lld out, %lld in flight\n", number(packets, "in"),
           number(packets, "generated"), number(packets, "out"), number(status, "in_flight"));
    json_object_foreach(json_object_get(packets, "dropped"), reason, count)
        printf("  dropped   %lld %s\n", (long long)json_integer_value(count), reason);
    print_ports(json_object_get(status, "ports"));
    printf("flows       %lld live, %lld created, %lld expired, %lld moved, %lld refused\n", number(flows, "live"),
           number(flows, "created"), number(flows, "expired"), number(flows, "moved"), number(flows, "refused"));
    printf("moves       %lld completed, %lld abandoned; pause p50 %.0f us, p99 %.0f us, max %.0f us\n",
           number(moves, "completed"), number(moves, "abandoned"), json_number_value(json_object_get(pause, "p50")),
           json_number_value(json_object_get(pause, "p99")), json_number_value(json_object_get(pause, "max")));
    if (json_is_object(affinity))
        printf("staying     %lld flows of at most %lld, %lld left in replicas without shards, %lld not known\n",
               number(affinity, "live"), number(affinity, "limit"), number(affinity, "left"),
               number(affinity, "refused"));
    printf("memory      %.1f of %.1f MiB\n", (double)number(memory, "used") / 1048576,
           (double)number(memory, "limit") / 1048576);
    printf("invariants  one owner: %s, loss free: %s, ordered: %s\n", text(held, "one_owner", "?"),
           text(held, "loss_free", "?"), text(held, "ordered", "?"));
    if (json_is_string(json_object_get(status, "error")))
        printf("error       %s\n", text(status, "error", ""));
}

int cmd_status(struct options *options)
{
    json_t *result;
    if (options->argc != 1)
        return usage(options, "status");
    int status = client_call(options, "status", NULL, 5000, &result);
    if (status != 0)
        return status;
    if (options->json)
        return print_json(result);
    print_status(result);
    json_decref(result);
    return 0;
}
