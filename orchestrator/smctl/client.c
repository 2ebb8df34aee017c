/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "smctl.h"

#define HELLO_MS 5000

struct client {
    const struct options *options;
    uv_loop_t loop;
    uv_timer_t timer;
    struct rpc_peer *peer;
    bool answered;
    int status;
    json_t *result;
    void (*tick)(void *user);
    void *tick_user;
    bool flows_stay;
};

struct running {
    char names[512];
    char last[64];
    unsigned count;
};

static void found(void *user, const char *service)
{
    struct running *running = user;
    size_t at = strlen(running->names);
    snprintf(running->names + at, sizeof(running->names) - at, "%s%s", running->count++ ? ", " : "", service);
    snprintf(running->last, sizeof(running->last), "%s", service);
}

/* A socket of the service asked for, or of the only one that runs; "" for `name` where a path was given. */
static int find_socket(const struct options *options, const char *file, char path[static 108], char name[static 64])
{
    struct running running = {.count = 0};
    struct rundir dir;
    struct sm_errbuf error;
    const char *service = options->service;
    if (options->socket) {
        if ((size_t)snprintf(path, 108, "%s", options->socket) >= 108)
            return fail(options, RPC_USAGE, "--socket: the path is too long");
        return 0;
    }
    if (!service) {
        rundir_list(found, &running);
        if (running.count == 0)
            return fail(options, RPC_NOT_FOUND, "no service is running");
        if (running.count > 1)
            return fail(options, RPC_USAGE, "say which with --service: %s are running", running.names);
        service = running.last;
    }
    if (!service_name_valid(service))
        return fail(options, RPC_USAGE, "--service: expected 1 to 63 of a-z, 0-9 and -, got '%.80s'", service);
    if (rundir_init(&dir, service, &error) != 0)
        return fail(options, RPC_FAILED, "%s", error.text);
    rundir_file(&dir, file, path);
    snprintf(name, 64, "%s", service);
    return 0;
}

int client_socket(const struct options *options, const char *file, char path[static 108])
{
    char name[64] = "", *slash;
    int status = find_socket(options, file, path, name);

    /* Beside the orchestrator's, where that was given. */
    if (status == 0 && options->socket) {
        slash = strrchr(path, '/');
        char *end = slash ? slash + 1 : path;
        if ((size_t)snprintf(end, 108 - (size_t)(end - path), "%s", file) >= 108 - (size_t)(end - path))
            return fail(options, RPC_USAGE, "--socket: the path is too long");
    }
    return status;
}

static void on_timer(uv_timer_t *timer)
{
    struct client *client = timer->data;
    if (client->tick)
        client->tick(client->tick_user);
}

static void on_answer(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct client *client = user;
    if (client->answered)
        return;
    client->answered = true;
    client->status = error ? (int)error->code : 0;
    client->result = error ? json_string(error->message) : wire_to_json(result);
}

/* The answer of one request; an error's message is a JSON text. */
static int ask(struct client *client, const char *method, struct wire_out *params, uint64_t timeout_ms)
{
    client->answered = false;
    client->result = NULL;
    if (!client->peer) {
        wire_free(params);
        client->result = json_string("the connection was closed");
        return RPC_FAILED;
    }
    rpc_request(client->peer, method, params, timeout_ms, on_answer, client);
    while (!client->answered)
        uv_run(&client->loop, UV_RUN_ONCE);
    return client->status;
}

static void on_closed(void *user, struct rpc_peer *peer, const char *reason)
{
    struct client *client = user;
    (void)peer;
    (void)reason;
    client->peer = NULL;
}

int client_open(struct client **client, const struct options *options)
{
    char path[108], name[64] = "";
    struct sm_errbuf error;
    int status = find_socket(options, "orchestrator.sock", path, name);
    *client = NULL;
    if (status != 0)
        return status;
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return fail(options, RPC_FAILED, "out of memory");
    c->options = options;
    uv_loop_init(&c->loop);
    uv_timer_init(&c->loop, &c->timer);
    c->timer.data = c;
    *client = c;
    struct rpc_handlers handlers = {.user = c, .closed = on_closed};
    int result = rpc_connect(&c->peer, &c->loop, path, &handlers, &error);
    if (result != 0) {
        status = result == SM_E_NOT_FOUND ? RPC_NOT_FOUND : RPC_FAILED;
        if (status == RPC_NOT_FOUND && name[0])
            fail(options, RPC_NOT_FOUND, "service '%s' is not running, or has no orchestrator", name);
        else
            fail(options, (enum rpc_code)status, "%s", error.text);
    } else {
        struct wire_out *params = wire_new();
        wire_put_uint(params, "version", RPC_VERSION);
        status = ask(c, "hello", params, HELLO_MS);
        if (status != 0)
            fail(options, (enum rpc_code)status, "%s", json_string_value(c->result));
        else
            c->flows_stay = json_is_true(json_object_get(c->result, "flows_stay"));
        json_decref(c->result);
    }
    if (status != 0) {
        client_close(c);
        *client = NULL;
    }
    return status;
}

bool client_flows_stay(const struct client *client)
{
    return client->flows_stay;
}

void client_close(struct client *client)
{
    if (!client)
        return;
    rpc_close(client->peer);
    uv_close((uv_handle_t *)&client->timer, NULL);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    uv_loop_close(&client->loop);
    free(client);
}

int client_ask(struct client *client, const char *method, struct wire_out *params, uint64_t timeout_ms,
               void (*tick)(void *user), void *user, json_t **result)
{
    client->tick = tick;
    client->tick_user = user;
    if (tick)
        uv_timer_start(&client->timer, on_timer, 500, 500);
    int status = ask(client, method, params, timeout_ms);
    uv_timer_stop(&client->timer);
    if (tick)
        tick(NULL); /* the last: clean up */
    *result = NULL;
    if (status == 0) {
        *result = client->result;
        return 0;
    }
    fail(client->options, (enum rpc_code)status, "%s", json_string_value(client->result));
    json_decref(client->result);
    return status;
}

int client_call(const struct options *options, const char *method, struct wire_out *params, uint64_t patience_ms,
                json_t **result)
{
    struct client *client;
    int status = client_open(&client, options);

    *result = NULL;
    if (status != 0) {
        wire_free(params);
        return status;
    }
    status =
        client_ask(client, method, params, options->timeout_ms ? options->timeout_ms : patience_ms, NULL, NULL, result);
    client_close(client);
    return status;
}
