/* SPDX-License-Identifier: BSD-2-Clause */
/* A server and its clients in one loop, over a real socket; and clients that do not keep to the protocol. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "wire/rpc.h"

static uv_loop_t loop;
static char path[64];
static struct rpc_server *server;
static struct rpc_call *deferred;

struct seen {
    unsigned done, notified, closed;
    enum rpc_code code;
    char text[256];
};

static void serve(void *user, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    (void)user;
    struct wire_out *result = NULL;
    if (strcmp(method, "later") == 0) {
        deferred = call;
        return;
    }
    if (strcmp(method, "fail") == 0) {
        rpc_refuse(call, RPC_BUSY, "not %s", "now");
        return;
    }
    if (strcmp(method, "hangup") == 0) {
        rpc_close(rpc_call_peer(call));
        rpc_reply(call, NULL);
        return;
    }
    result = wire_new();
    wire_put_value(result, "echo", wire_get(params, "say"));
    rpc_reply(call, result);
}

static void on_notify(void *user, struct rpc_peer *peer, const char *method, const struct wire_value *params)
{
    (void)peer;
    struct seen *seen = user;
    seen->notified++;
    snprintf(seen->text, sizeof(seen->text), "%s %s", method, wire_get_str(params, "what", "-"));
}

static void on_closed(void *user, struct rpc_peer *peer, const char *reason)
{
    (void)peer;
    struct seen *seen = user;
    seen->closed++;
    snprintf(seen->text, sizeof(seen->text), "%s", reason);
}

static void on_done(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct seen *seen = user;
    seen->done++;
    seen->code = error ? error->code : RPC_OK;
    snprintf(seen->text, sizeof(seen->text), "%s", error ? error->message : wire_get_str(result, "echo", "-"));
}

static void start(void)
{
    struct sm_errbuf error;
    struct rpc_handlers handlers = {.request = serve};
    uv_loop_init(&loop);
    snprintf(path, sizeof(path), "/tmp/sm-rpc-%d.sock", (int)getpid());
    cr_assert_eq(rpc_listen(&server, &loop, path, &handlers, &error), 0, "%s", error.text);
}

static void stop(void)
{
    rpc_server_close(server);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0, "a handle is left");
    cr_expect_neq(access(path, F_OK), 0, "the socket is left");
}

static struct rpc_peer *join(struct seen *seen)
{
    struct rpc_handlers handlers = {.user = seen, .notify = on_notify, .closed = on_closed};
    struct sm_errbuf error;
    struct rpc_peer *peer;
    cr_assert_eq(rpc_connect(&peer, &loop, path, &handlers, &error), 0, "%s", error.text);
    return peer;
}

static void until(const unsigned *counter, unsigned value)
{
    for (unsigned i = 0; i < 1000 && *counter < value; i++)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_geq(*counter, value);
}

static void greet(struct rpc_peer *peer, struct seen *seen)
{
    rpc_hello(peer, 1000, on_done, seen);
    until(&seen->done, 1);
    cr_assert_eq(seen->code, RPC_OK);
    seen->done = 0;
}

Test(rpc, requests_and_answers, .init = start, .fini = stop)
{
    struct seen seen = {0};
    struct rpc_peer *peer = join(&seen);
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0600u);
    greet(peer, &seen);
    struct wire_out *params = wire_new();
    wire_put_str(params, "say", "hello world");
    rpc_request(peer, "echo", params, 1000, on_done, &seen);
    cr_expect_eq(seen.done, 0, "never from within the call");
    until(&seen.done, 1);
    cr_expect_str_eq(seen.text, "hello world");
    rpc_request(peer, "fail", NULL, 0, on_done, &seen);
    until(&seen.done, 2);
    cr_expect_eq(seen.code, RPC_BUSY);
    cr_expect_str_eq(seen.text, "not now");
    rpc_close(peer);
}

Test(rpc, a_large_message_arrives_whole, .init = start, .fini = stop)
{
    struct seen seen = {0};
    struct rpc_peer *peer = join(&seen);
    greet(peer, &seen);
    size_t length = 8u << 20;
    char *text = malloc(length + 1);
    memset(text, 'x', length);
    text[length] = '\0';
    struct wire_out *params = wire_new();
    wire_put_str(params, "say", text);
    rpc_request(peer, "echo", params, 0, on_done, &seen);
    until(&seen.done, 1);
    cr_expect_eq(strlen(seen.text), 255);
    free(text);
    rpc_close(peer);
}

Test(rpc, later_answers_and_timeouts, .init = start, .fini = stop)
{
    struct seen a = {0}, b = {0};
    struct rpc_peer *peer = join(&a);
    greet(peer, &a);
    rpc_request(peer, "later", NULL, 20, on_done, &a);
    rpc_request(peer, "echo", NULL, 0, on_done, &b);
    until(&b.done, 1);
    until(&a.done, 1);
    cr_expect_eq(a.code, RPC_TIMED_OUT);
    cr_expect_str_eq(a.text, "no answer to 'later' within 0.0 s");
    rpc_reply(deferred, NULL); /* too late: ignored */
    rpc_request(peer, "later", NULL, 0, on_done, &a);
    rpc_request(peer, "echo", NULL, 0, on_done, &b);
    until(&b.done, 2);
    cr_expect_eq(a.done, 1);
    rpc_reply(deferred, NULL);
    until(&a.done, 2);
    cr_expect_eq(a.code, RPC_OK);
    /* The client goes before its answer comes. */
    rpc_request(peer, "later", NULL, 0, on_done, &a);
    rpc_request(peer, "echo", NULL, 0, on_done, &b);
    until(&b.done, 3);
    rpc_close(peer);
    cr_expect_eq(a.done, 3);
    cr_expect_eq(a.code, RPC_FAILED);
    for (unsigned i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_null(rpc_call_peer(deferred));
    rpc_reply(deferred, NULL);
}

Test(rpc, notifications_go_to_those_who_said_hello, .init = start, .fini = stop)
{
    struct seen a = {0}, b = {0};
    struct rpc_peer *first = join(&a), *second = join(&b);
    greet(first, &a);
    struct wire_out *params = wire_new();
    wire_put_str(params, "what", "news");
    rpc_broadcast(server, "event", params);
    until(&a.notified, 1);
    cr_expect_str_eq(a.text, "event news");
    cr_expect_eq(b.notified, 0);
    rpc_close(first);
    rpc_close(second);
}

Test(rpc, the_server_closes, .init = start, .fini = stop)
{
    struct seen seen = {0}, call = {0};
    struct rpc_peer *peer = join(&seen);
    greet(peer, &seen);
    rpc_request(peer, "hangup", NULL, 0, on_done, &call);
    until(&seen.closed, 1);
    cr_expect_eq(call.done, 1);
    cr_expect_eq(call.code, RPC_FAILED);
}

Test(rpc, hello_comes_first_and_in_our_version, .init = start, .fini = stop)
{
    struct seen seen = {0}, call = {0};
    struct rpc_peer *peer = join(&seen);
    rpc_request(peer, "echo", NULL, 0, on_done, &call);
    until(&seen.closed, 1);
    cr_expect_eq(call.done, 1);
    cr_expect_str_eq(call.text, "the first request must be 'hello'");
    peer = join(&seen);
    struct wire_out *params = wire_new();
    wire_put_uint(params, "version", 2);
    rpc_request(peer, "hello", params, 0, on_done, &call);
    until(&seen.closed, 2);
    cr_expect_str_eq(call.text, "control protocol version 2 is not spoken here, 1 is");
    cr_expect_eq(rpc_server_counters(server)->malformed, 2);
}

Test(rpc, bad_input_closes_the_connection, .init = start, .fini = stop)
{
#define BAD(text)                                                                                                      \
    {                                                                                                                  \
        text, sizeof(text) - 1                                                                                         \
    }
    static const struct {
        const char *bytes;
        size_t length;
    } rows[] = {
        BAD("GET / HTTP/1.1\r\n"),
        BAD("\xc1"),
        BAD("\x01"),
        BAD("\x90"),
        BAD("\x94\x03\x01\xa1x\x91\x80"),      /* no such kind */
        BAD("\x94\x00\x01\xa5hello\x91\x90"),  /* parameters are no map */
        BAD("\x94\x00\xa1x\xa5hello\x91\x80"), /* an id that is a text */
        BAD("\x94\x01\x01\xc0\xc0"),           /* a response without a result */
        BAD("\x93\x02\xa1x\x91\x80"),          /* a notification before hello */
        BAD("\xdd\xff\xff\xff\xff"),
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strcpy(address.sun_path, path);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        cr_assert_eq(write(fd, rows[i].bytes, rows[i].length), (ssize_t)rows[i].length);
        for (unsigned turn = 0; turn < 100 && rpc_server_counters(server)->malformed <= i; turn++)
            uv_run(&loop, UV_RUN_ONCE);
        cr_expect_eq(rpc_server_counters(server)->malformed, i + 1, "row %zu", i);
        char byte;
        cr_expect_leq(read(fd, &byte, 1), 0, "row %zu: still open", i);
        close(fd);
    }
}

Test(rpc, who_does_not_read_is_closed, .init = start, .fini = stop)
{
    struct seen seen = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    static const char hello[] = "\x94\x00\x01\xa5hello\x91\x81\xa7version\x01";
    cr_assert_eq(write(fd, hello, sizeof(hello) - 1), (ssize_t)sizeof(hello) - 1);
    struct rpc_peer *peer = join(&seen);
    greet(peer, &seen);
    rpc_close(peer);
    char *text = calloc(1, 8u << 20);
    for (unsigned i = 0; i < 20; i++) {
        struct wire_out *params = wire_new();
        wire_put_bin(params, "load", text, 8u << 20);
        rpc_broadcast(server, "load", params);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    cr_expect_eq(rpc_server_counters(server)->overrun, 1);
    free(text);
    close(fd);
}

Test(rpc, sockets_that_are_left_and_taken)
{
    struct rpc_handlers handlers = {.request = serve};
    struct sm_errbuf error;
    struct rpc_server *other;
    struct rpc_peer *peer;
    start();
    cr_expect_eq(rpc_listen(&other, &loop, path, &handlers, &error), SM_E_STATE);
    stop();
    uv_loop_init(&loop);
    cr_expect_eq(rpc_connect(&peer, &loop, path, &handlers, &error), SM_E_NOT_FOUND);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    cr_expect_eq(rpc_connect(&peer, &loop, path, &handlers, &error), SM_E_NOT_FOUND);
    cr_assert_eq(rpc_listen(&server, &loop, path, &handlers, &error), 0, "%s", error.text);
    stop();
}
