/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_WIRE_RPC_H
#define SM_WIRE_RPC_H

/*
 * MessagePack-RPC over Unix stream sockets (docs/control-protocol.md): servers, clients, requests that are answered
 * later, notifications. Everything runs on the thread of the uv loop; nothing blocks. Callbacks may call any function
 * here, closing the peer they are called for too.
 *
 * What a peer sends is never believed: bytes that are no message, messages that are no RPC, or more than the limits
 * allow close its connection, with a counter (of the server) and a reason (to `closed`).
 */

#include <uv.h>

#include "wire/wire.h"

#define RPC_VERSION 1
#define RPC_MAX_PEERS 256           /* clients of a server; more are turned away */
#define RPC_MAX_CALLS 1024          /* requests of one peer that are not answered yet */
#define RPC_MAX_BACKLOG (64u << 20) /* bytes that wait for a peer that does not read */

/* Exit statuses of smctl, and the codes of errors. */
enum rpc_code {
    RPC_OK = 0,
    RPC_FAILED = 1,
    RPC_USAGE = 2,
    RPC_NOT_FOUND = 3, /* no such service or replica */
    RPC_BUSY = 4,      /* another operation is under way */
    RPC_TIMED_OUT = 5,
};

struct rpc_error {
    enum rpc_code code;
    char message[256];
};

struct rpc_peer;   /* one connection, of either side */
struct rpc_server; /* a socket and its clients */
struct rpc_call;   /* a request that waits for its answer */

struct rpc_handlers {
    void *user;
    /*
     * A request has come. Answer it now or later, exactly once, with rpc_reply() or rpc_refuse(). A server's first
     * one is "hello", its version already checked: reply with what hello's result shall have. `method` and `params`
     * (a map) are valid until this returns. NULL: requests are refused.
     */
    void (*request)(void *user, struct rpc_call *call, const char *method, const struct wire_value *params);
    /* A notification has come. May be NULL. */
    void (*notify)(void *user, struct rpc_peer *peer, const char *method, const struct wire_value *params);
    /* The connection is gone, otherwise than by rpc_close() or rpc_server_close(); `peer` ends with this call. May be
     * NULL. */
    void (*closed)(void *user, struct rpc_peer *peer, const char *reason);
};

/* ---- server ---- */

/*
 * Listen on `path` (mode 0600; what a dead server left there is removed). *server is the caller's, until
 * rpc_server_close(). Ignores SIGPIPE in the process, as rpc_connect() does. SM_E_STATE: another process listens
 * there; SM_E_IO, SM_E_PERMISSION, SM_E_NO_MEMORY.
 */
int rpc_listen(struct rpc_server **server, uv_loop_t *loop, const char *path, const struct rpc_handlers *handlers,
               struct sm_errbuf *error);

/* Notify every client that has said hello. Takes `params` over (NULL: an empty map). */
void rpc_broadcast(struct rpc_server *server, const char *method, struct wire_out *params);

/* Stop listening, remove the socket, close the clients. Memory goes when the loop has run. NULL is allowed. */
void rpc_server_close(struct rpc_server *server);

struct rpc_counters {
    uint64_t accepted;
    uint64_t turned_away; /* more than RPC_MAX_PEERS */
    uint64_t malformed;   /* connections closed for what they sent */
    uint64_t overrun;     /* connections closed for what they did not read, or asked for without waiting */
};
const struct rpc_counters *rpc_server_counters(const struct rpc_server *server);

/* ---- answering ---- */

/* Both end `call`; where its peer has gone meanwhile that is all they do. Takes `result` over (NULL: an empty map). */
void rpc_reply(struct rpc_call *call, struct wire_out *result);
void rpc_refuse(struct rpc_call *call, enum rpc_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Who asks; NULL when it has gone. */
struct rpc_peer *rpc_call_peer(const struct rpc_call *call);

/* ---- client ---- */

/*
 * Connect to a server. SM_E_NOT_FOUND: nobody listens there (yet); SM_E_PERMISSION, SM_E_IO, SM_E_NO_MEMORY.
 * *peer is the caller's until rpc_close(), or handlers->closed. Say hello first.
 */
int rpc_connect(struct rpc_peer **peer, uv_loop_t *loop, const char *path, const struct rpc_handlers *handlers,
                struct sm_errbuf *error);

/* Close; requests without an answer fail now. Memory goes when the loop has run. NULL is allowed. */
void rpc_close(struct rpc_peer *peer);

/* ---- both ---- */

/* The answer to a request: `error` is NULL and `result` its map, or `error` says why not and `result` is NULL. */
typedef void rpc_result_fn(void *user, const struct rpc_error *error, const struct wire_value *result);

/*
 * Send a request. Takes `params` over (NULL: an empty map). `done` is called exactly once, and never from within this
 * call unless memory is out; with RPC_TIMED_OUT after `timeout_ms` (0: waits for ever), with RPC_FAILED when the
 * connection closes.
 */
void rpc_request(struct rpc_peer *peer, const char *method, struct wire_out *params, uint64_t timeout_ms,
                 rpc_result_fn *done, void *user);

/* rpc_request() of a hello with our version. */
void rpc_hello(struct rpc_peer *peer, uint64_t timeout_ms, rpc_result_fn *done, void *user);

/* Takes `params` over (NULL: an empty map). */
void rpc_notify(struct rpc_peer *peer, const char *method, struct wire_out *params);

#endif
