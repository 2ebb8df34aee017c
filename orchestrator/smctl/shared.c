/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <string.h>

#include "smctl.h"

#define SHOWN 48 /* of a value's text */

/* A value in a few words; --json has it all. */
static void value_text(const json_t *value, char text[static SHOWN + 16])
{
    const char *string = json_string_value(value);

    if (json_is_integer(value))
        snprintf(text, SHOWN + 16, "%lld", (long long)json_integer_value(value));
    else if (json_is_array(value))
        snprintf(text, SHOWN + 16, "%zu elements", json_array_size(value));
    else if (string)
        snprintf(text, SHOWN + 16, "0x%.*s%s", SHOWN, string, strlen(string) > SHOWN ? "..." : "");
    else
        snprintf(text, SHOWN + 16, "-");
}

static void print_contribution(const json_t *item)
{
    const char *replica = json_string_value(json_object_get(item, "replica"));
    char text[SHOWN + 16];

    if (json_object_get(item, "added"))
        snprintf(text, sizeof(text), "+%lld -%lld", (long long)json_integer_value(json_object_get(item, "added")),
                 (long long)json_integer_value(json_object_get(item, "taken")));
    else
        value_text(json_object_get(item, "value"), text);
    printf("  %-37s %s\n", replica ? replica : "(gone)", text);
}

static void print_shared(const json_t *list)
{
    size_t i, k;
    json_t *object, *item;

    printf("%-24s %-14s %s\n", "OBJECT", "KIND", "VALUE");
    json_array_foreach(list, i, object)
    {
        char text[SHOWN + 16];
        value_text(json_object_get(object, "value"), text);
        printf("%-24s %-14s %s\n", json_string_value(json_object_get(object, "name")),
               json_string_value(json_object_get(object, "kind")), text);
        json_array_foreach(json_object_get(object, "contributions"), k, item) print_contribution(item);
    }
}

int cmd_shared(struct options *options)
{
    json_t *result;

    if (options->argc != 1)
        return usage(options, "shared");
    int status = client_call(options, "status", NULL, 5000, &result);
    if (status != 0)
        return status;
    json_t *list = json_object_get(result, "shared");
    if (options->json)
        print_json(json_pack("{s:O}", "shared", list));
    else
        print_shared(list);
    json_decref(result);
    return 0;
}
