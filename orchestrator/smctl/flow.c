/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <string.h>

#include "smctl.h"

#define CANDIDATES 100

static void print_flow(const json_t *flow)
{
    const char *name;
    json_t *field;
    printf("key       %s\nclass     %s\nowner     %s\nshard     %lld\n",
           json_string_value(json_object_get(flow, "key")), json_string_value(json_object_get(flow, "class")),
           json_string_value(json_object_get(flow, "replica")),
           (long long)json_integer_value(json_object_get(flow, "shard")));
    json_object_foreach(json_object_get(flow, "state"), name, field)
    {
        const json_t *value = json_object_get(field, "value");
        const char *unit = json_string_value(json_object_get(field, "unit"));
        printf("  %-20s ", name);
        print_value(value);
        printf(unit && *unit ? " %s\n" : "\n", unit);
    }
}

static const char *key_of(const json_t *list, size_t i)
{
    return json_string_value(json_object_get(json_array_get(list, i), "key"));
}

/* Whether a key is the one that `text` names: a text without a tag names a flow with all its tags. */
static bool is_key(const char *key, const char *text)
{
    size_t length = strlen(text);
    return strncmp(key, text, length) == 0 && (key[length] == '\0' || strncmp(key + length, " tag ", 5) == 0);
}

/* Keep the flows that `text` names, when there are any: a selector finds other tags and identifiers too. */
static void keep_exact(json_t *list, const char *text)
{
    bool exact = false;
    for (size_t i = 0; i < json_array_size(list); i++)
        exact |= is_key(key_of(list, i), text);
    for (size_t i = json_array_size(list); exact && i-- > 0;)
        if (!is_key(key_of(list, i), text))
            json_array_remove(list, i);
}

/* Whether all are one flow, but for tags and classes. */
static bool one_flow(const json_t *list)
{
    char first[FLOW_TEXT];
    snprintf(first, sizeof(first), "%s", key_of(list, 0));
    char *tag = strstr(first, " tag ");
    if (tag)
        *tag = '\0';
    for (size_t i = 1; i < json_array_size(list); i++)
        if (!is_key(key_of(list, i), first))
            return false;
    return true;
}

static int show(const struct options *options, json_t *list, const char *key)
{
    size_t i;
    json_t *flow;
    int status = 0;
    keep_exact(list, key);
    if (json_array_size(list) == 0)
        status = fail(options, RPC_FAILED, "no flow is '%s'", key);
    else if (!one_flow(list))
        status = fail(options, RPC_FAILED, "'%s' is %s%zu flows, expected one", key,
                      json_array_size(list) == CANDIDATES ? "at least " : "", json_array_size(list));
    else if (options->json)
        print_json(json_pack("{s:O}", "flows", list));
    else
        json_array_foreach(list, i, flow) print_flow(flow);
    json_decref(list);
    return status;
}

int cmd_flow(struct options *options)
{
    json_t *result;
    size_t at = 0;
    char key[1024] = "", selector[1024];
    if (options->argc < 3 || strcmp(options->argv[1], "show") != 0)
        return usage(options, "flow show KEY");
    for (int word = 2; word < options->argc && at < sizeof(key); word++)
        at += (size_t)snprintf(key + at, sizeof(key) - at, "%s%s", at ? " " : "", options->argv[word]);
    if (at >= sizeof(key))
        return fail(options, RPC_USAGE, "flow: the key is too long");
    struct wire_out *params = wire_new();
    if (strcmp(key, "all") != 0)
        wire_put_str(params, "selector", flow_text_selector(key, selector, sizeof(selector)) ? selector : key);
    wire_put_uint(params, "limit", CANDIDATES);
    int status = client_call(options, "flows", params, 30000, &result);
    if (status != 0)
        return status;
    json_t *list = flows_for_people(json_object_get(result, "flows"));
    json_decref(result);
    return show(options, list, key);
}
