/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "smctl.h"

static void print_replicas(const json_t *list)
{
    size_t i;
    json_t *r;
    printf("%-8s %8s %-9s %12s %7s %9s %7s %s\n", "REPLICA", "PID", "STATE", "PACKETS", "SHARDS", "FLOWS", "QUEUE",
           "PROGRAM");
    json_array_foreach(list, i, r)
    {
        const char *exec = json_string_value(json_object_get(r, "exec"));
        printf("%-8s %8lld %-9s %12lld %7lld %9lld %7lld %s\n", json_string_value(json_object_get(r, "name")),
               (long long)json_integer_value(json_object_get(r, "pid")), json_string_value(json_object_get(r, "state")),
               (long long)json_integer_value(json_object_get(r, "packets")),
               (long long)json_integer_value(json_object_get(r, "shards")),
               (long long)json_integer_value(json_object_get(r, "flows")),
               (long long)json_integer_value(json_object_get(r, "queue")), exec ? exec : "");
    }
}

int cmd_replicas(struct options *options)
{
    json_t *result;
    if (options->argc != 1)
        return usage(options, "replicas");
    int status = client_call(options, "status", NULL, 5000, &result);
    if (status != 0)
        return status;
    const json_t *list = json_object_get(result, "replicas");
    if (options->json)
        print_json(json_pack("{s:O}", "replicas", list));
    else
        print_replicas(list);
    json_decref(result);
    return 0;
}
