/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>

#include "smctl.h"

static void print_check(const json_t *result)
{
    const json_t *findings = json_object_get(result, "findings"), *line;
    const long long count = (long long)json_integer_value(json_object_get(result, "count"));
    size_t i;
    json_array_foreach(findings, i, line) puts(json_string_value(line));
    if (count > (long long)json_array_size(findings))
        printf("... and %lld more\n", count - (long long)json_array_size(findings));
    printf("%lld found; packets waited for %.0f us\n", count, json_number_value(json_object_get(result, "paused_us")));
}

int cmd_check(struct options *options)
{
    json_t *result;
    if (options->argc != 1)
        return usage(options, "check");
    int status = client_call(options, "check", NULL, 60000, &result);
    if (status != 0)
        return status;
    status = json_integer_value(json_object_get(result, "count")) > 0 ? RPC_FAILED : 0;
    if (options->json)
        print_json(result);
    else {
        print_check(result);
        json_decref(result);
    }
    return status;
}
