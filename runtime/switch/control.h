/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_CONTROL_H
#define SM_SWITCH_CONTROL_H

/*
 * The control thread of sm-switch: answers the control protocol (docs/control-protocol.md) and lets replicas attach.
 * It never touches packets; what it wants of the data plane goes through the worker.
 */

#include <uv.h>

#include "conf/rundir.h"
#include "switch/worker.h"
#include "wire/rpc.h"

struct attach_client;

/* Where a page of flows begins: a slot, a shard, and a place in it. */
struct flows_cursor {
    uint32_t slot, shard, at;
};

struct control {
    uv_loop_t *loop;
    struct worker worker;
    struct rpc_server *server;
    struct arena *arena;
    int arena_fd;
    uv_timer_t huge; /* now and then memory for flows is put in huge pages */
    uintptr_t huge_done;
    uv_timer_t watchdog; /* the service manager hears that both threads turn */
    const char *mode;
    const struct rundir *dir;
    char poison_file[80];

    /* Answers that are still due. */
    struct rpc_call *flows_call;
    struct rpc_call *finish_call;
    struct rpc_call *check_call;
    bool shutting_down;
    struct wire_out *flows_out;
    uint32_t flows_limit, flows_count;
    struct flows_cursor flows_from; /* of the page that a replica was asked for */

    struct transfer *transfer; /* checkpoint_server.c; NULL: there has been none */

    /* Attach (attach_server.c). */
    uv_poll_t listener;
    int listen_fd;
    struct attach_client *clients;
};

int control_start(struct control *control, struct sm_errbuf *error);

/* Stop the loop: the process ends. */
void control_end(struct control *control);

/* checkpoint_server.c: two methods, and what they wait for has come. */
void checkpoint_serve(struct control *control, struct rpc_call *call, const struct wire_value *params);
void restore_serve(struct control *control, struct rpc_call *call, const struct wire_value *params);
void checkpoint_noticed(struct control *control);
/* The loop has stopped: give up what is under way, so that no thread is left that uses arena or switch. */
void checkpoint_end(struct control *control);

/* upgrade.c: requests */
void upgrade_begin(struct control *control, struct rpc_call *call, const struct wire_value *params);
void upgrade_end(struct control *control, struct rpc_call *call, const struct wire_value *params);

/* attach_server.c */
int attach_listen(struct control *control, const char *path, struct sm_errbuf *error);
void attach_shutdown(struct control *control);
/* Kill the replicas that the switch has condemned. */
void attach_kill_condemned(struct control *control);

#endif
