/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A switch that only speaks the control protocol: enough of one to see what orchestrator and smctl make of its
 * answers. Packets are a number: PACKETS enter at once, up to a gate.
 *
 *     fake-switch SERVICE.yaml     the switch
 *     fake-switch --replica        a replica: connects to $SPLITMERGE_ATTACH, ends when told
 *     fake-switch --early          a replica that exits before it is ready
 *
 * The environment's FAKE names misbehaviour: endless (the input does not end), slow (moves take half a second),
 * abandon, busy (moves are refused), die (at start), broken (an invariant), lossy (packets are missing), hasty (a move
 * that a second orchestrator finds under way ends as soon as it has been told so), vanished (a second orchestrator is
 * told of a replica that has just attached, and whose process has ended), stuck (what is in flight never comes back, so
 * that nothing finishes, nor any move), frail (replica r5 exits before it is ready), barren (all but r1 do).
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "wire/rpc.h"

#define PACKETS 1000
#define SHARDS 16384
#define REPLICAS 64
#define VANISHED 40

static uv_loop_t loop;
static struct rpc_server *control, *attach;
static struct service service;
static uint32_t owners[SHARDS];
static struct replica {
    uint32_t id;
    int pid;
    struct rpc_peer *peer;
} replicas[REPLICAS];
static unsigned replica_count;
static uint64_t entered, gate_at, moved_shards;
static uint8_t kept[1 << 20]; /* for the next orchestrator */
static size_t kept_bytes;
static bool started, gated;
static bool vanished; /* a replica that nobody will hear of again is in the status */
static uv_timer_t move_timer, flow_timer;

static bool fake(const char *what)
{
    const char *text = getenv("FAKE");
    return text && strstr(text, what);
}

/* A moment after the gate was opened, so that the next one may still be set. */
static void on_flow(uv_timer_t *timer)
{
    (void)timer;
    struct wire_out *params = wire_new();
    entered = gate_at && gate_at <= PACKETS ? gate_at : PACKETS;
    gated = gate_at && gate_at <= PACKETS;
    gate_at = 0;
    wire_put_uint(params, gated ? "packet" : "packets", entered);
    if (gated || !fake("endless"))
        rpc_broadcast(control, gated ? "gated" : "ended", params);
    else
        wire_free(params);
}

static void flow_on(void)
{
    uv_timer_start(&flow_timer, on_flow, 2, 0);
}

/* A process that has been, and has been waited for. */
static int pid_of_nobody(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    return pid;
}

static void put_status(struct wire_out *out)
{
    wire_put_str(out, "state", !started ? "waiting" : gated ? "gated" : "running");
    wire_map_begin(out, "packets");
    wire_put_uint(out, "in", entered);
    wire_put_uint(out, "generated", 0);
    wire_put_uint(out, "out", entered - 10 - (fake("lossy") ? 1 : 0));
    wire_map_begin(out, "dropped");
    wire_put_uint(out, "limit:x", 10);
    wire_map_end(out);
    wire_map_end(out);
    wire_map_begin(out, "moves");
    wire_put_uint(out, "completed", moved_shards);
    wire_map_end(out);
    wire_array_begin(out, "replicas");
    if (vanished) {
        wire_map_begin(out, NULL);
        wire_put_uint(out, "id", VANISHED);
        wire_put_str(out, "state", "attached");
        wire_put_int(out, "pid", pid_of_nobody());
        wire_map_end(out);
    }
    for (unsigned i = 0; i < replica_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "r%u", replicas[i].id);
        wire_map_begin(out, NULL);
        wire_put_uint(out, "id", replicas[i].id);
        wire_put_str(out, "name", name);
        wire_put_str(out, "state", replicas[i].peer ? "ready" : "gone");
        wire_put_int(out, "pid", replicas[i].pid);
        wire_put_uint(out, "packets", 100 * replicas[i].id);
        wire_map_end(out);
    }
    wire_array_end(out);
    wire_map_begin(out, "invariants");
    wire_put_str(out, "one_owner", "held");
    wire_put_str(out, "loss_free", "held");
    wire_put_str(out, "ordered", fake("broken") ? "broken: packet 7" : "held");
    wire_map_end(out);
    wire_array_begin(out, "shared");
    wire_map_begin(out, NULL);
    wire_put_str(out, "name", "tokens");
    wire_put_str(out, "kind", "strong_counter");
    wire_put_int(out, "value", 12);
    wire_array_begin(out, "contributions");
    wire_map_begin(out, NULL);
    wire_put_nil(out, "replica");
    wire_put_uint(out, "added", 7);
    wire_put_uint(out, "taken", 5);
    wire_map_end(out);
    wire_array_end(out);
    wire_map_end(out);
    wire_array_end(out);
    wire_put_double(out, "seconds", 1);
    wire_put_uint(out, "first_time", 0);
    wire_put_uint(out, "time", 2000000000);
    wire_put_nil(out, "error");
}

static void put_owners(struct wire_out *out)
{
    wire_array_begin(out, "owners");
    for (unsigned i = 0; i < SHARDS; i++)
        wire_put_uint(out, NULL, owners[i]);
    wire_array_end(out);
}

/* Two flows, on two pages. */
static void put_flows(struct wire_out *out, uint64_t page)
{
    struct sm_key key = {
        .a = {10, 0, 0, 1}, .b = {10, 0, 0, 2}, .a_port = 80, .b_port = 1000, .family = 4, .protocol = 6};
    key.b_port = (uint16_t)(key.b_port + page);
    wire_array_begin(out, "flows");
    wire_map_begin(out, NULL);
    wire_put_str(out, "class", "flow");
    wire_put_bin(out, "key", &key, sizeof(key));
    wire_put_uint(out, "shard", 100 * page);
    wire_put_uint(out, "replica", owners[100 * page]);
    wire_map_begin(out, "state");
    wire_map_begin(out, "bytes");
    wire_put_uint(out, "value", 42);
    wire_put_str(out, "unit", "B");
    wire_map_end(out);
    wire_map_end(out);
    wire_map_end(out);
    wire_array_end(out);
    if (page == 0)
        wire_put_uint(out, "cursor", 1);
    else
        wire_put_nil(out, "cursor");
}

static uint64_t apply(const struct wire_value *list)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < wire_count(list); i++) {
        const struct wire_value *range = wire_item(list, i);
        for (uint64_t s = wire_uint(wire_item(range, 0), 0); s <= wire_uint(wire_item(range, 1), 0) && s < SHARDS;
             s++) {
            owners[s] = (uint32_t)wire_uint(wire_item(range, 2), 0);
            count++;
        }
    }
    return count;
}

static void on_moved(uv_timer_t *timer)
{
    (void)timer;
    struct wire_out *params = wire_new();
    wire_put_uint(params, "id", 1);
    wire_put_uint(params, fake("abandon") ? "abandoned" : "completed", moved_shards);
    wire_put_double(params, "seconds", 0.001);
    if (fake("abandon"))
        wire_put_str(params, "cause", "the hold is full");
    rpc_broadcast(control, "moved", params);
}

static void keep(const struct wire_value *params)
{
    const uint8_t *text = wire_get_bin(params, "text", &kept_bytes);
    kept_bytes = text && kept_bytes <= sizeof(kept) ? kept_bytes : 0;
    if (kept_bytes)
        memcpy(kept, text, kept_bytes);
}

static void put_kept(struct wire_out *out)
{
    if (kept_bytes)
        wire_put_bin(out, "text", kept, kept_bytes);
    wire_put_uint(out, "last_id", vanished ? VANISHED : replica_count);
    wire_put_uint(out, "moving", uv_is_active((uv_handle_t *)&move_timer) ? 1 : 0);
}

static void end(void)
{
    rpc_broadcast(attach, "end", NULL);
    rpc_server_close(attach);
    rpc_server_close(control);
    uv_close((uv_handle_t *)&move_timer, NULL);
    uv_close((uv_handle_t *)&flow_timer, NULL);
}

static void retire(struct rpc_call *call, uint64_t id)
{
    for (unsigned i = 0; i < replica_count; i++)
        if (replicas[i].id == id && replicas[i].peer)
            rpc_notify(replicas[i].peer, "end", NULL);
    rpc_reply(call, NULL);
}

static void on_request(void *user, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    struct wire_out *out = wire_new();
    (void)user;
    if (strcmp(method, "move") == 0 && fake("busy")) {
        wire_free(out);
        rpc_refuse(call, RPC_BUSY, "the switch is busy");
        return;
    }
    if (strcmp(method, "finish") == 0 && fake("stuck")) {
        wire_free(out); /* the call is never answered */
        return;
    }
    if (strcmp(method, "retire") == 0) {
        wire_free(out);
        retire(call, wire_get_uint(params, "replica", 0));
        return;
    }
    if (strcmp(method, "hello") == 0) {
        wire_put_uint(out, "version", RPC_VERSION);
        wire_put_str(out, "service", service.name);
        wire_put_uint(out, "pid", (uint64_t)getpid());
    } else if (strcmp(method, "status") == 0 || strcmp(method, "finish") == 0) {
        put_status(out);
    } else if (strcmp(method, "keep") == 0) {
        keep(params);
    } else if (strcmp(method, "kept") == 0) {
        vanished = kept_bytes > 0 && fake("vanished");
        put_kept(out);
    } else if (strcmp(method, "shards") == 0) {
        put_owners(out);
    } else if (strcmp(method, "flows") == 0) {
        put_flows(out, wire_get_uint(params, "cursor", 0));
    } else if (strcmp(method, "assign") == 0) {
        apply(wire_get_array(params, "owners"));
    } else if (strcmp(method, "gate") == 0) {
        gate_at = wire_get_uint(params, "packet", wire_get_uint(params, "time", 0) ? UINT64_MAX : 0);
    } else if (strcmp(method, "move") == 0) {
        moved_shards = apply(wire_get_array(params, "moves"));
        wire_put_uint(out, "id", 1);
        wire_put_uint(out, "shards", moved_shards);
        if (!fake("stuck"))
            uv_timer_start(&move_timer, on_moved, fake("slow") ? 500 : 1, 0);
    }
    rpc_reply(call, out);
    if (strcmp(method, "kept") == 0 && fake("hasty") && uv_is_active((uv_handle_t *)&move_timer)) {
        uv_timer_stop(&move_timer);
        on_moved(&move_timer);
    }
    if (strcmp(method, "start") == 0 && fake("die"))
        raise(SIGKILL);
    if (strcmp(method, "start") == 0 || strcmp(method, "open_gate") == 0 ||
        (strcmp(method, "move") == 0 && wire_get_bool(params, "open_gate", false))) {
        started = true;
        if (gated)
            gate_at = 0;
        flow_on();
    }
    if (strcmp(method, "shutdown") == 0)
        end();
}

static void on_attach(void *user, struct rpc_call *call, const char *method, const struct wire_value *params)
{
    (void)user;
    if (strcmp(method, "attach") == 0 && replica_count < REPLICAS) {
        struct wire_out *ready = wire_new();
        const char *name = wire_get_str(params, "name", "r0");
        replicas[replica_count++] =
            (struct replica){(uint32_t)atoi(name + 1), (int)wire_get_int(params, "pid", 0), rpc_call_peer(call)};
        wire_put_uint(ready, "id", replicas[replica_count - 1].id);
        wire_put_str(ready, "name", name);
        wire_put_int(ready, "pid", replicas[replica_count - 1].pid);
        rpc_broadcast(control, "ready", ready);
    }
    rpc_reply(call, NULL);
}

static void on_detach(void *user, struct rpc_peer *peer, const char *reason)
{
    (void)user;
    (void)reason;
    for (unsigned i = 0; i < replica_count; i++)
        if (replicas[i].peer == peer) {
            struct wire_out *exited = wire_new();
            replicas[i].peer = NULL;
            wire_put_uint(exited, "id", replicas[i].id);
            wire_put_uint(exited, "packets", 1);
            rpc_broadcast(control, "exited", exited);
        }
}

static void ignore(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    (void)user;
    (void)error;
    (void)result;
}

static void on_end(void *user, struct rpc_peer *peer, const char *method, const struct wire_value *params)
{
    (void)user;
    (void)method;
    (void)params;
    rpc_close(peer);
}

static int replica(void)
{
    struct rpc_handlers handlers = {.notify = on_end};
    struct sm_errbuf error;
    struct rpc_peer *peer;
    const char *name = getenv("SPLITMERGE_REPLICA");
    if ((fake("frail") && strcmp(name, "r5") == 0) || (fake("barren") && strcmp(name, "r1") != 0))
        return 3;
    if (rpc_connect(&peer, &loop, getenv("SPLITMERGE_ATTACH"), &handlers, &error) != 0)
        return 1;
    rpc_hello(peer, 0, ignore, NULL);
    struct wire_out *params = wire_new();
    wire_put_str(params, "name", name);
    wire_put_int(params, "pid", getpid());
    rpc_request(peer, "attach", params, 0, ignore, NULL);
    return 0;
}

static int serve(const char *file)
{
    struct rpc_handlers on_control = {.request = on_request}, on_attached = {.request = on_attach, .closed = on_detach};
    struct rundir dir;
    struct sm_errbuf error;
    char path[108];
    if (service_load(&service, file, &error) != 0 || rundir_init(&dir, service.name, &error) != 0 ||
        rundir_create(&dir, &error) != 0 || rundir_lock(&dir, &error) != 0 ||
        rpc_listen(&attach, &loop, rundir_file(&dir, "attach.sock", path), &on_attached, &error) != 0 ||
        rpc_listen(&control, &loop, rundir_file(&dir, "switch.sock", path), &on_control, &error) != 0) {
        fprintf(stderr, "fake-switch: %s\n", error.text);
        return 2;
    }
    uv_timer_init(&loop, &move_timer);
    uv_timer_init(&loop, &flow_timer);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--early") == 0)
        return 3;
    uv_loop_init(&loop);
    int status = argc > 1 && strcmp(argv[1], "--replica") == 0 ? replica() : serve(argv[argc - 1]);
    if (status == 0)
        uv_run(&loop, UV_RUN_DEFAULT);
    service_free(&service);
    uv_loop_close(&loop);
    return status;
}
