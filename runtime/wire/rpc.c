/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Overview: a peer is a connected pipe with a reader (bytes to messages), the requests we sent on it (`pending`) and
 * those it sent us (`calls`). A server is a listening pipe and a list of peers.
 *
 * Life-cycle of a peer: connected -> (a server's: greeted, by hello) -> closing -> freed. Closing fails what is
 * pending, orphans the calls (their answers then go nowhere), and leaves the server's list at once; the memory goes
 * with the last of its two uv handles, so a callback further up the stack may still hold the pointer and look at
 * `closing`. A failed write does not close the peer there and then, since the writer is in the middle of something:
 * it marks the peer broken, and the timer closes it from the loop. That is also what makes `done` never run inside
 * rpc_request().
 *
 * Concurrency: the loop's thread only.
 *
 * Limits: RPC_MAX_* in rpc.h, WIRE_MAX_* in wire.h.
 */

#include "wire/rpc.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { KIND_REQUEST = 0, KIND_RESPONSE = 1, KIND_NOTIFICATION = 2 };

struct pending {
    uint32_t id;
    uint64_t deadline; /* of the loop's clock, ms; 0: none */
    uint64_t timeout_ms;
    char method[24];
    rpc_result_fn *done;
    void *user;
    struct pending *next;
};

struct rpc_call {
    struct rpc_peer *peer; /* NULL: gone */
    uint32_t id;
    bool hello;
    struct rpc_call *next;
};

struct rpc_peer {
    uv_pipe_t pipe;
    uv_timer_t timer;
    unsigned handles; /* open */
    struct rpc_handlers handlers;
    struct rpc_server *server; /* NULL: a client's, or off the server's list */
    struct rpc_peer *next;     /* of the server's */
    struct wire_reader *reader;
    bool greeted;
    bool closing;
    const char *broken; /* why it is to be closed; NULL: it is not */
    uint32_t last_id;
    struct pending *pending; /* unordered */
    struct rpc_call *calls;
    unsigned call_count;
};

struct rpc_server {
    uv_pipe_t pipe;
    struct rpc_handlers handlers;
    struct rpc_peer *peers;
    unsigned peer_count;
    struct rpc_counters counters;
};

static const struct rpc_error connection_closed = {RPC_FAILED, "the connection was closed"};

/* ---- closing ---- */

static void handle_closed(uv_handle_t *handle)
{
    struct rpc_peer *peer = handle->data;
    if (--peer->handles == 0) {
        wire_reader_free(peer->reader);
        free(peer);
    }
}

static void leave_server(struct rpc_peer *peer)
{
    if (!peer->server)
        return;
    struct rpc_peer **link = &peer->server->peers;
    while (*link != peer)
        link = &(*link)->next;
    *link = peer->next;
    peer->server->peer_count--;
    peer->server = NULL;
}

void rpc_close(struct rpc_peer *peer)
{
    if (!peer || peer->closing)
        return;
    peer->closing = true;
    leave_server(peer);
    for (struct rpc_call *call = peer->calls; call; call = call->next)
        call->peer = NULL;
    peer->calls = NULL;
    uv_close((uv_handle_t *)&peer->pipe, handle_closed);
    uv_close((uv_handle_t *)&peer->timer, handle_closed);
    while (peer->pending) {
        struct pending *pending = peer->pending;
        peer->pending = pending->next;
        pending->done(pending->user, &connection_closed, NULL);
        free(pending);
    }
}

static void fail_peer(struct rpc_peer *peer, const char *reason)
{
    if (peer->closing)
        return;
    if (peer->handlers.closed)
        peer->handlers.closed(peer->handlers.user, peer, reason);
    rpc_close(peer);
}

static void malformed(struct rpc_peer *peer, const char *reason)
{
    if (peer->server)
        peer->server->counters.malformed++;
    fail_peer(peer, reason);
}

static void overrun(struct rpc_peer *peer, const char *reason)
{
    if (peer->server)
        peer->server->counters.overrun++;
    fail_peer(peer, reason);
}

/* ---- timer: deadlines of requests, and breakage found outside the loop's callbacks ---- */

static void on_timer(uv_timer_t *timer);

static void arm_timer(struct rpc_peer *peer)
{
    uint64_t now = uv_now(peer->timer.loop), first = UINT64_MAX;
    for (struct pending *p = peer->pending; p; p = p->next)
        if (p->deadline && p->deadline < first)
            first = p->deadline;
    if (peer->closing)
        return;
    if (peer->broken)
        uv_timer_start(&peer->timer, on_timer, 0, 0);
    else if (first == UINT64_MAX)
        uv_timer_stop(&peer->timer);
    else
        uv_timer_start(&peer->timer, on_timer, first > now ? first - now : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct rpc_peer *peer = timer->data;
    if (peer->broken) {
        fail_peer(peer, peer->broken);
        return;
    }
    uint64_t now = uv_now(timer->loop);
    struct pending **link = &peer->pending;
    while (!peer->closing && *link) {
        struct pending *pending = *link;
        if (!pending->deadline || pending->deadline > now) {
            link = &pending->next;
            continue;
        }
        *link = pending->next;
        struct rpc_error error = {.code = RPC_TIMED_OUT};
        snprintf(error.message, sizeof(error.message), "no answer to '%s' within %.1f s", pending->method,
                 (double)pending->timeout_ms / 1000);
        pending->done(pending->user, &error, NULL);
        free(pending);
        link = &peer->pending; /* the callback may have changed the list */
    }
    arm_timer(peer);
}

static void broken(struct rpc_peer *peer, const char *reason)
{
    if (!peer->broken)
        peer->broken = reason;
    arm_timer(peer);
}

/* ---- sending ---- */

struct chunk {
    uv_write_t request;
    uint8_t data[];
};

static void on_written(uv_write_t *request, int status)
{
    struct rpc_peer *peer = request->handle->data;
    free(request);
    if (status < 0)
        fail_peer(peer, connection_closed.message);
}

/* Most messages go out at once; what the socket has no room for waits in the loop. Takes `chunk` over. */
static void send_chunk(struct rpc_peer *peer, struct chunk *chunk, size_t length)
{
    uv_stream_t *stream = (uv_stream_t *)&peer->pipe;
    uv_buf_t buf = uv_buf_init((char *)chunk->data, (unsigned)length);
    int sent = uv_try_write(stream, &buf, 1);
    if (sent > 0) {
        buf.base += sent;
        buf.len -= (size_t)sent;
    }
    if (buf.len == 0) {
        free(chunk);
    } else if (sent < 0 && sent != UV_EAGAIN) {
        free(chunk);
        broken(peer, connection_closed.message);
    } else if (uv_stream_get_write_queue_size(stream) + buf.len > RPC_MAX_BACKLOG) {
        free(chunk);
        if (peer->server)
            peer->server->counters.overrun++;
        broken(peer, "it does not read what it is sent");
    } else if (uv_write(&chunk->request, stream, &buf, 1, on_written) != 0) {
        free(chunk);
        broken(peer, connection_closed.message);
    }
}

/*
 * One message: what stands before its map, the map, and a nil behind it where the form has one. The heads are few and
 * fixed, so they are written as the bytes they are: 0x93, 0x94 an array of 3 or 4, 0xce a number of 32 bits, 0xd9 a
 * text with its length in the next byte, 0x91 an array of 1, 0xc0 nil.
 */
static void send_message(struct rpc_peer *peer, const uint8_t *head, size_t head_length, struct wire_out *map,
                         bool nil_behind)
{
    size_t length = 0;
    const uint8_t *body = wire_bytes(map, &length);
    struct chunk *chunk = body ? malloc(sizeof(*chunk) + head_length + length + 1) : NULL;
    if (peer->closing || peer->broken) {
        free(chunk);
    } else if (!chunk) {
        broken(peer, "a message to it is too large, or memory is out");
    } else {
        memcpy(chunk->data, head, head_length);
        memcpy(chunk->data + head_length, body, length);
        chunk->data[head_length + length] = 0xc0;
        send_chunk(peer, chunk, head_length + length + nil_behind);
    }
}

static size_t put_id(uint8_t *p, uint32_t id)
{
    p[0] = 0xce;
    for (unsigned i = 0; i < 4; i++)
        p[1 + i] = (uint8_t)(id >> (24 - 8 * i));
    return 5;
}

static size_t put_method(uint8_t *p, const char *method)
{
    size_t length = strlen(method);
    assert(length < 24);
    p[0] = 0xd9;
    p[1] = (uint8_t)length;
    memcpy(p + 2, method, length);
    return 2 + length;
}

static void send_notification(struct rpc_peer *peer, const char *method, struct wire_out *params)
{
    uint8_t head[40] = {0x93, KIND_NOTIFICATION};
    size_t at = 2;
    at += put_method(head + at, method);
    head[at++] = 0x91;
    send_message(peer, head, at, params, false);
}

void rpc_notify(struct rpc_peer *peer, const char *method, struct wire_out *params)
{
    struct wire_out *map = params ? params : wire_new();
    send_notification(peer, method, map);
    wire_free(map);
}

void rpc_request(struct rpc_peer *peer, const char *method, struct wire_out *params, uint64_t timeout_ms,
                 rpc_result_fn *done, void *user)
{
    assert(done && !peer->closing);
    struct pending *pending = calloc(1, sizeof(*pending));
    if (!pending) {
        const struct rpc_error error = {RPC_FAILED, "out of memory"};
        wire_free(params);
        done(user, &error, NULL);
        return;
    }
    pending->id = ++peer->last_id;
    pending->timeout_ms = timeout_ms;
    pending->deadline = timeout_ms ? uv_now(peer->timer.loop) + timeout_ms : 0;
    pending->done = done;
    pending->user = user;
    snprintf(pending->method, sizeof(pending->method), "%s", method);
    pending->next = peer->pending;
    peer->pending = pending;
    uint8_t head[40] = {0x94, KIND_REQUEST};
    size_t at = 2;
    at += put_id(head + at, pending->id);
    at += put_method(head + at, method);
    head[at++] = 0x91;
    struct wire_out *map = params ? params : wire_new();
    send_message(peer, head, at, map, false);
    wire_free(map);
    arm_timer(peer);
}

void rpc_hello(struct rpc_peer *peer, uint64_t timeout_ms, rpc_result_fn *done, void *user)
{
    struct wire_out *params = wire_new();
    wire_put_uint(params, "version", RPC_VERSION);
    rpc_request(peer, "hello", params, timeout_ms, done, user);
}

/* ---- answering ---- */

struct rpc_peer *rpc_call_peer(const struct rpc_call *call)
{
    return call->peer;
}

static void end_call(struct rpc_call *call)
{
    struct rpc_peer *peer = call->peer;
    if (peer) {
        struct rpc_call **link = &peer->calls;
        while (*link != call)
            link = &(*link)->next;
        *link = call->next;
        peer->call_count--;
    }
    free(call);
}

void rpc_reply(struct rpc_call *call, struct wire_out *result)
{
    struct rpc_peer *peer = call->peer;
    uint8_t head[16] = {0x94, KIND_RESPONSE};
    size_t at = 2;
    at += put_id(head + at, call->id);
    head[at++] = 0xc0;
    struct wire_out *map = result ? result : wire_new();
    if (peer) {
        peer->greeted |= call->hello;
        send_message(peer, head, at, map, false);
    }
    wire_free(map);
    end_call(call);
}

void rpc_refuse(struct rpc_call *call, enum rpc_code code, const char *format, ...)
{
    if (call->peer) {
        char message[256];
        va_list args;
        va_start(args, format);
        vsnprintf(message, sizeof(message), format, args);
        va_end(args);
        struct wire_out *error = wire_new();
        wire_put_uint(error, "code", code);
        wire_put_str(error, "message", message);
        uint8_t head[16] = {0x94, KIND_RESPONSE};
        size_t at = 2 + put_id(head + 2, call->id);
        send_message(call->peer, head, at, error, true);
        wire_free(error);
    }
    end_call(call);
}

/* ---- receiving ---- */

/* A server's peer speaks only once it has said hello in our version. False: it was refused, and is closed. */
static bool greet(struct rpc_peer *peer, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    uint64_t version = wire_get_uint(params, "version", 0);
    call->hello = strcmp(method, "hello") == 0;
    if (!peer->server || (call->hello && version == RPC_VERSION) || (!call->hello && peer->greeted))
        return true;
    if (call->hello)
        rpc_refuse(call, RPC_FAILED, "control protocol version %llu is not spoken here, %d is",
                   (unsigned long long)version, RPC_VERSION);
    else
        rpc_refuse(call, RPC_FAILED, "the first request must be 'hello'");
    malformed(peer, "it did not say hello in a version that is spoken here");
    return false;
}

static void got_request(struct rpc_peer *peer, const struct wire_value *message)
{
    const struct wire_value *id = wire_item(message, 1), *list = wire_item(message, 3);
    const char *method = wire_str(wire_item(message, 2), NULL);
    const struct wire_value *params = wire_item(list, 0);
    uint64_t number = wire_uint(id, UINT64_MAX);
    if (wire_count(message) != 4 || number > UINT32_MAX || !method || wire_type(list) != WIRE_ARRAY ||
        (params && wire_type(params) != WIRE_MAP)) {
        malformed(peer, "it sent a malformed request");
        return;
    }
    if (peer->call_count == RPC_MAX_CALLS) {
        overrun(peer, "it has too many requests under way");
        return;
    }
    struct rpc_call *call = calloc(1, sizeof(*call));
    if (!call) {
        fail_peer(peer, "out of memory");
        return;
    }
    *call = (struct rpc_call){.peer = peer, .id = (uint32_t)number, .next = peer->calls};
    peer->calls = call;
    peer->call_count++;
    if (!greet(peer, call, method, params))
        return;
    if (peer->handlers.request)
        peer->handlers.request(peer->handlers.user, call, method, params);
    else
        rpc_refuse(call, RPC_FAILED, "requests are not answered here");
}

static void got_response(struct rpc_peer *peer, const struct wire_value *message)
{
    const struct wire_value *failure = wire_item(message, 2), *result = wire_item(message, 3);
    uint64_t id = wire_uint(wire_item(message, 1), UINT64_MAX);
    bool failed = wire_type(failure) == WIRE_MAP;
    if (wire_count(message) != 4 || (!failed && wire_type(failure) != WIRE_NIL) ||
        (!failed && wire_type(result) != WIRE_MAP)) {
        malformed(peer, "it sent a malformed response");
        return;
    }
    struct pending **link = &peer->pending;
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    struct pending *pending = *link;
    if (!pending)
        return; /* answered after its time had run out */
    *link = pending->next;
    struct rpc_error error = {.code = RPC_FAILED};
    uint64_t code = wire_get_uint(failure, "code", RPC_FAILED);
    if (code >= RPC_FAILED && code <= RPC_TIMED_OUT)
        error.code = (enum rpc_code)code;
    snprintf(error.message, sizeof(error.message), "%s", wire_get_str(failure, "message", "it gave no reason"));
    pending->done(pending->user, failed ? &error : NULL, failed ? NULL : result);
    free(pending);
    arm_timer(peer);
}

static void got_notification(struct rpc_peer *peer, const struct wire_value *message)
{
    const char *method = wire_str(wire_item(message, 1), NULL);
    const struct wire_value *list = wire_item(message, 2), *params = wire_item(list, 0);
    if (wire_count(message) != 3 || !method || wire_type(list) != WIRE_ARRAY ||
        (params && wire_type(params) != WIRE_MAP) || (peer->server && !peer->greeted))
        malformed(peer, "it sent a malformed notification");
    else if (peer->handlers.notify)
        peer->handlers.notify(peer->handlers.user, peer, method, params);
}

static void got_message(struct rpc_peer *peer, const struct wire_value *message)
{
    uint64_t kind = wire_type(message) == WIRE_ARRAY ? wire_uint(wire_item(message, 0), UINT64_MAX) : UINT64_MAX;
    if (kind == KIND_REQUEST)
        got_request(peer, message);
    else if (kind == KIND_RESPONSE)
        got_response(peer, message);
    else if (kind == KIND_NOTIFICATION)
        got_notification(peer, message);
    else
        malformed(peer, "it sent what is no message");
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct rpc_peer *peer = handle->data;
    size_t size = 0;
    void *space = wire_reader_space(peer->reader, &size);
    *buf = uv_buf_init(space, space ? (unsigned)size : 0);
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buf)
{
    (void)buf;
    struct rpc_peer *peer = stream->data;
    if (length < 0) {
        fail_peer(peer, length == UV_ENOBUFS ? "out of memory" : connection_closed.message);
        return;
    }
    wire_reader_filled(peer->reader, (size_t)length);
    struct wire_message *message;
    int result = 0;
    while (!peer->closing && (result = wire_reader_next(peer->reader, &message)) == 1) {
        got_message(peer, wire_message_value(message));
        wire_message_free(message);
    }
    if (peer->closing || result == 0)
        return;
    if (result == SM_E_NO_MEMORY)
        fail_peer(peer, "out of memory");
    else
        malformed(peer, result == SM_E_LIMIT ? "it sent a message that is too large" : "it sent what is no message");
}

/* ---- peers ---- */

static struct rpc_peer *peer_new(uv_loop_t *loop, const struct rpc_handlers *handlers)
{
    struct rpc_peer *peer = calloc(1, sizeof(*peer));
    if (!peer || !(peer->reader = wire_reader_new())) {
        free(peer);
        return NULL;
    }
    peer->handlers = *handlers;
    uv_pipe_init(loop, &peer->pipe, 0);
    uv_timer_init(loop, &peer->timer);
    peer->pipe.data = peer;
    peer->timer.data = peer;
    peer->handles = 2;
    return peer;
}

static int system_error(int number, const char *path, struct sm_errbuf *error)
{
    snprintf(error->text, sizeof(error->text), "%.150s: %s", path, strerror(number));
    if (number == EACCES || number == EPERM)
        return SM_E_PERMISSION;
    return number == ENOENT || number == ECONNREFUSED ? SM_E_NOT_FOUND : SM_E_IO;
}

/* A connected descriptor, or an error. Connecting to a Unix socket does not wait for anybody. */
static int connect_to(const char *path, struct sm_errbuf *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return system_error(ENAMETOOLONG, path, error);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return system_error(errno, path, error);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        int code = system_error(errno, path, error);
        close(fd);
        return code;
    }
    return fd;
}

int rpc_connect(struct rpc_peer **peer, uv_loop_t *loop, const char *path, const struct rpc_handlers *handlers,
                struct sm_errbuf *error)
{
    signal(SIGPIPE, SIG_IGN);
    *peer = NULL;
    int fd = connect_to(path, error);
    if (fd < 0)
        return fd;
    struct rpc_peer *p = peer_new(loop, handlers);
    if (!p) {
        close(fd);
        snprintf(error->text, sizeof(error->text), "out of memory");
        return SM_E_NO_MEMORY;
    }
    if (uv_pipe_open(&p->pipe, fd) != 0 || uv_read_start((uv_stream_t *)&p->pipe, on_alloc, on_read) != 0) {
        int code = system_error(EIO, path, error);
        rpc_close(p);
        return code;
    }
    *peer = p;
    return 0;
}

/* ---- server ---- */

static void on_connection(uv_stream_t *stream, int status)
{
    struct rpc_server *server = stream->data;
    struct rpc_peer *peer = status == 0 ? peer_new(stream->loop, &server->handlers) : NULL;
    if (!peer)
        return;
    if (uv_accept(stream, (uv_stream_t *)&peer->pipe) != 0) {
        rpc_close(peer);
    } else if (server->peer_count == RPC_MAX_PEERS) {
        server->counters.turned_away++;
        rpc_close(peer);
    } else {
        server->counters.accepted++;
        server->peer_count++;
        peer->server = server;
        peer->next = server->peers;
        server->peers = peer;
        if (uv_read_start((uv_stream_t *)&peer->pipe, on_alloc, on_read) != 0)
            rpc_close(peer);
    }
}

/* A socket on which nobody listens is what a dead server left. */
static int remove_stale(const char *path, struct sm_errbuf *error)
{
    struct stat status;
    if (lstat(path, &status) != 0 && errno == ENOENT)
        return 0;
    int fd = connect_to(path, error);
    if (fd >= 0) {
        close(fd);
        snprintf(error->text, sizeof(error->text), "%.150s: another process listens there", path);
        return SM_E_STATE;
    }
    if (fd == SM_E_NOT_FOUND && S_ISSOCK(status.st_mode) && unlink(path) == 0)
        return 0;
    return fd == SM_E_NOT_FOUND ? SM_E_IO : fd;
}

static void server_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int rpc_listen(struct rpc_server **server, uv_loop_t *loop, const char *path, const struct rpc_handlers *handlers,
               struct sm_errbuf *error)
{
    signal(SIGPIPE, SIG_IGN);
    *server = NULL;
    int result = remove_stale(path, error);
    if (result < 0)
        return result;
    struct rpc_server *s = calloc(1, sizeof(*s));
    if (!s) {
        snprintf(error->text, sizeof(error->text), "out of memory");
        return SM_E_NO_MEMORY;
    }
    s->handlers = *handlers;
    uv_pipe_init(loop, &s->pipe, 0);
    s->pipe.data = s;
    mode_t mask = umask(0177);
    result = uv_pipe_bind(&s->pipe, path);
    umask(mask);
    if (result == 0)
        result = uv_listen((uv_stream_t *)&s->pipe, 64, on_connection);
    if (result != 0) {
        result = system_error(-result, path, error);
        uv_close((uv_handle_t *)&s->pipe, server_closed);
        return result;
    }
    *server = s;
    return 0;
}

void rpc_broadcast(struct rpc_server *server, const char *method, struct wire_out *params)
{
    struct wire_out *map = params ? params : wire_new();
    for (struct rpc_peer *peer = server->peers; peer; peer = peer->next)
        if (peer->greeted)
            send_notification(peer, method, map);
    wire_free(map);
}

void rpc_server_close(struct rpc_server *server)
{
    if (!server)
        return;
    while (server->peers)
        rpc_close(server->peers);
    uv_close((uv_handle_t *)&server->pipe, server_closed);
}

const struct rpc_counters *rpc_server_counters(const struct rpc_server *server)
{
    return &server->counters;
}
