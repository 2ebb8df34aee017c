/* SPDX-License-Identifier: BSD-2-Clause */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "smctl.h"

#define OPERATION_MS 60000
#define HEAR_MS 1000 /* in which an operation that waits for flows, and gives that up at its time, is heard */

/* ---- progress, on a terminal only ---- */

struct progress {
    const char *what;
    const struct options *options;
    uint64_t started;
};

/* Where flows are waited for, how many; -1: nobody is asked now, or nothing is waited for. */
static json_int_t flows_left(const struct options *options)
{
    struct client *client;
    json_t *status;
    if (client_open(&client, options) != 0)
        return -1;
    int code = client_ask(client, "status", NULL, 5000, NULL, NULL, &status);
    client_close(client);
    if (code != 0)
        return -1;
    const json_t *left = json_object_get(json_object_get(status, "affinity"), "left");
    json_int_t count = left ? json_integer_value(left) : -1;
    json_decref(status);
    return count;
}

static void tick(void *user)
{
    struct progress *progress = user;
    if (!progress) {
        fputs("\r\033[K", stderr);
    } else {
        json_int_t left = flows_left(progress->options);
        fprintf(stderr, "\r%s ... %.0f s", progress->what, (double)(uv_hrtime() - progress->started) / 1e9);
        if (left >= 0)
            fprintf(stderr, ", %" JSON_INTEGER_FORMAT " flows left  ", left);
    }
    fflush(stderr);
}

static void print_result(const char *what, const json_t *result, bool copy)
{
    json_int_t completed = json_integer_value(json_object_get(result, "completed"));
    const char *into = json_string_value(json_object_get(result, "into"));
    printf("%s%s%s: %" JSON_INTEGER_FORMAT " shards with %" JSON_INTEGER_FORMAT
           " flows %s in %.1f ms, %" JSON_INTEGER_FORMAT " packets held\n",
           what, into ? " into " : "", into ? into : "", completed,
           json_integer_value(json_object_get(result, "flows")), copy ? "copied" : "moved",
           json_number_value(json_object_get(result, "seconds")) * 1e3,
           json_integer_value(json_object_get(result, "held_packets")));
}

/* Of rebalance, where there was load to go by. */
static void print_balance(const json_t *result)
{
    const json_t *before = json_object_get(result, "imbalance_before"), *elephant;
    size_t i;
    if (!before)
        return;
    printf("the busiest replica had %.2f times its share of the load, and now has %.2f times\n",
           json_number_value(before), json_number_value(json_object_get(result, "imbalance_after")));
    json_array_foreach(json_object_get(result, "elephants"), i, elephant)
    {
        printf("shard %" JSON_INTEGER_FORMAT " alone has %.0f %% of all load: it can be moved, not shared out\n",
               json_integer_value(json_object_get(elephant, "shard")),
               json_number_value(json_object_get(elephant, "share")) * 100);
    }
}

/* Under --wait an operation that is under way is waited for. */
static int wait_idle(struct client *client, uint64_t until)
{
    for (;;) {
        json_t *status;
        int code = client_ask(client, "status", NULL, 5000, NULL, NULL, &status);
        if (code != 0)
            return code;
        bool idle = json_is_null(json_object_get(status, "operation"));
        json_decref(status);
        if (idle || uv_hrtime() >= until)
            return 0;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

int operation(struct options *options, const char *method, struct wire_out *params, const char *what)
{
    struct client *client;
    json_t *result;
    struct progress progress = {what, options, uv_hrtime()};
    uint64_t timeout = options->timeout_ms ? options->timeout_ms : OPERATION_MS;
    bool terminal = !options->json && isatty(STDERR_FILENO);
    int status = client_open(&client, options);
    if (status != 0) {
        wire_free(params);
        return status;
    }
    if (!params)
        params = wire_new();
    wire_put_bool(params, "copy", options->copy);
    wire_put_str(params, "strategy", options->strategy);
    wire_put_uint(params, "drain_ms", timeout);
    if (options->wait)
        status = wait_idle(client, progress.started + timeout * 1000000);
    if (status == 0)
        status = client_ask(client, method, params, client_flows_stay(client) ? timeout + HEAR_MS : timeout,
                            terminal ? tick : NULL, &progress, &result);
    else
        wire_free(params);
    client_close(client);
    if (status != 0)
        return status;
    json_int_t abandoned = json_integer_value(json_object_get(result, "abandoned"));
    const char *cause = json_string_value(json_object_get(result, "cause"));
    if (abandoned > 0)
        status = fail(options, RPC_FAILED, "%" JSON_INTEGER_FORMAT " moves were abandoned: %s", abandoned,
                      cause ? cause : "no cause was given");
    if (options->json) {
        print_json(result);
    } else {
        print_result(what, result, options->copy);
        print_balance(result);
        json_decref(result);
    }
    return status;
}
