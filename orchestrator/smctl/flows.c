/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "conf/units.h"
#include "smctl.h"

#define FLOWS_LIMIT 10000 /* what the orchestrator gives when not told otherwise */

/* Like conntrack: one flow a line, its fields as name=value. */
static void print_flow(const json_t *flow)
{
    const char *name;
    json_t *field;
    printf("%-16s %-44s %-6s %6lld ", json_string_value(json_object_get(flow, "class")),
           json_string_value(json_object_get(flow, "key")), json_string_value(json_object_get(flow, "replica")),
           (long long)json_integer_value(json_object_get(flow, "shard")));
    json_object_foreach(json_object_get(flow, "state"), name, field)
    {
        const char *unit = json_string_value(json_object_get(field, "unit"));
        printf(" %s=", name);
        print_value(json_object_get(field, "value"));
        fputs(unit ? unit : "", stdout);
    }
    putchar('\n');
}

int cmd_flows(struct options *options)
{
    json_t *result, *flow;
    bool wrong = false;
    uint64_t count = 0;
    size_t at = 0, i;
    char selector[4096] = "";
    const char *limit = take_option(options, "--limit", &wrong);
    if (wrong || (limit && !unit_count(limit, &count)))
        return usage(options, "flows [SELECTOR] [--limit N]");
    for (int word = 1; word < options->argc && at < sizeof(selector); word++)
        at += (size_t)snprintf(selector + at, sizeof(selector) - at, "%s%s", at ? " " : "", options->argv[word]);
    if (at >= sizeof(selector))
        return fail(options, RPC_USAGE, "flows: the selector is too long");
    struct wire_out *params = wire_new();
    if (at)
        wire_put_str(params, "selector", selector);
    if (limit)
        wire_put_uint(params, "limit", count);
    int status = client_call(options, "flows", params, 30000, &result);
    if (status != 0)
        return status;
    json_t *list = flows_for_people(json_object_get(result, "flows"));
    json_decref(result);
    if (options->json)
        return print_json(json_pack("{s:o}", "flows", list));
    printf("%-16s %-44s %-6s %6s  %s\n", "CLASS", "KEY", "OWNER", "SHARD", "STATE");
    json_array_foreach(list, i, flow) print_flow(flow);
    if (json_array_size(list) == (limit ? count : FLOWS_LIMIT))
        fprintf(stderr, "smctl: there may be more flows than these %zu; see --limit\n", json_array_size(list));
    json_decref(list);
    return 0;
}
