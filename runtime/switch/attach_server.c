/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Replicas come and go: the switch's side of the attach socket (replica/attach.h).
 *
 * Life-cycle of a client.  accepted -> hello: a slot, its channel and its eventfd -> registration: checked against
 * the other replicas' -> ready: packets may come -> its process has exited (the pidfd says so; a closed socket alone
 * means nothing, but for a replica that was retired and whose process has others): the slot is free again. One that
 * closes its socket before it has registered has only looked, or leaves it to a child of its own: it was never given
 * anything, so the slot is free at once.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/log.h"
#include "replica/attach.h"
#include "switch/control.h"

struct attach_client {
    struct attach_client *next;
    struct control *control;
    uv_poll_t socket, process;
    int socket_fd, pidfd, wake_fd;
    unsigned handles; /* open uv handles; the client is freed when there are none */
    pid_t pid;
    uint32_t id;
    int slot; /* -1: none yet */
    bool ready;
    bool killed;
};

static void name_of(const struct attach_client *client, char name[static 16])
{
    snprintf(name, 16, "r%u", client->id);
}

static void closed(uv_handle_t *handle)
{
    struct attach_client *client = handle->data;

    if (--client->handles > 0)
        return;
    for (struct attach_client **at = &client->control->clients; *at; at = &(*at)->next)
        if (*at == client) {
            *at = client->next;
            break;
        }
    if (client->wake_fd >= 0)
        close(client->wake_fd);
    close(client->pidfd);
    free(client);
}

static void close_socket(struct attach_client *client)
{
    if (client->socket_fd < 0)
        return;
    uv_close((uv_handle_t *)&client->socket, closed);
    close(client->socket_fd);
    client->socket_fd = -1;
}

struct drop_job {
    uint64_t slots; /* of replicas that have gone together */
    struct {
        bool retired;
        uint32_t shards;  /* that others had to take over */
        uint64_t packets; /* that it did */
    } of[ARENA_SLOTS];
};

static void drop_slots(struct sm_switch *sw, void *arg)
{
    struct drop_job *job = arg;

    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        job->of[i].retired = sw->slots[i].state == SLOT_RETIRING;
        job->of[i].shards = sw->slots[i].shards;
    }
    switch_slots_died(sw, job->slots);
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        job->of[i].packets = sw->slots[i].packets;
}

/* Its slot is free. `process`: and its process has ended. */
static void gone(struct attach_client *client, const struct drop_job *job, bool process)
{
    const unsigned slot = (unsigned)client->slot;
    const bool had = client->slot >= 0;
    char name[16];

    name_of(client, name);
    if (had)
        log_write(LEVEL_INFO, "replica_gone",
                  LOG_WITH(log_text("replica", name), log_number("shards", job->of[slot].shards),
                           log_number("packets", job->of[slot].packets)),
                  "replica %s has ended, with %u shards", name, job->of[slot].shards);
    struct wire_out *params = wire_new();
    wire_put_uint(params, "id", client->id);
    wire_put_str(params, "name", name);
    wire_put_bool(params, "retired", had && job->of[slot].retired);
    wire_put_bool(params, "process", process);
    wire_put_uint(params, "shards", had ? job->of[slot].shards : 0);
    wire_put_uint(params, "packets", had ? job->of[slot].packets : 0);
    rpc_broadcast(client->control->server, "exited", params);
    client->slot = -1;
    close_socket(client);
    uv_close((uv_handle_t *)&client->process, closed);
}

static bool has_exited(const struct attach_client *client)
{
    struct pollfd exited = {.fd = client->pidfd, .events = POLLIN};

    return !uv_is_closing((const uv_handle_t *)&client->process) && poll(&exited, 1, 0) > 0;
}

/* The kernel reports an exit: all whose exit it reports by now have gone together, as replicas of one process do. */
static void process_exited(uv_poll_t *handle, int status, int events)
{
    struct control *control = ((struct attach_client *)handle->data)->control;
    struct drop_job job = {0};
    bool exited[ARENA_SLOTS] = {false};

    (void)status, (void)events;
    for (struct attach_client *client = control->clients; client; client = client->next)
        if (client->slot >= 0 && has_exited(client)) {
            job.slots |= 1ull << client->slot;
            exited[client->slot] = true;
        }
    if (job.slots)
        worker_call(&control->worker, drop_slots, &job);
    for (struct attach_client *client = control->clients; client; client = client->next)
        if (client->slot >= 0 ? exited[client->slot] : client == handle->data)
            gone(client, &job, true);
}

static void refuse(struct attach_client *client, const char *reason)
{
    char name[16];
    struct wire_out *params = wire_new();

    name_of(client, name);
    wire_put_str(params, "name", name);
    wire_put_int(params, "pid", client->pid);
    wire_put_str(params, "reason", reason);
    rpc_broadcast(client->control->server, "refused", params);
}

struct take_job {
    struct attach_client *client;
    int slot;
    bool taken; /* the name */
};

static void take_slot(struct sm_switch *sw, void *arg)
{
    struct take_job *job = arg;
    char name[16];

    name_of(job->client, name);
    job->taken = switch_slot_of(sw, job->client->id) >= 0;
    if (!job->taken)
        job->slot = switch_slot_take(sw, job->client->id, name, job->client->pid, job->client->wake_fd);
}

static int send_welcome(struct attach_client *client, const struct attach_welcome *welcome, const int *fds)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(ATTACH_FDS * sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)welcome, .iov_len = sizeof *welcome};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (fds) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(ATTACH_FDS * sizeof(int));
        memcpy(CMSG_DATA(header), fds, ATTACH_FDS * sizeof(int));
    }
    return sendmsg(client->socket_fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof *welcome ? 0 : SM_E_IO;
}

static void on_hello(struct attach_client *client, const struct attach_hello *hello)
{
    struct control *control = client->control;
    struct attach_welcome welcome = {.version = ATTACH_VERSION};
    struct take_job job = {.client = client, .slot = SM_E_LIMIT};

    client->id = hello->replica;
    if (hello->magic != ATTACH_MAGIC || hello->version != ATTACH_VERSION) {
        welcome.result = SM_E_PROTOCOL;
        snprintf(welcome.error, sizeof welcome.error, "it speaks version %u of the attach protocol, expected %u",
                 hello->version, ATTACH_VERSION);
    } else {
        if (client->wake_fd < 0) /* it may have been refused before */
            client->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (client->wake_fd >= 0)
            worker_call(&control->worker, take_slot, &job);
        if (job.taken || job.slot < 0) {
            welcome.result = job.taken ? SM_E_CONFLICT : SM_E_LIMIT;
            snprintf(welcome.error, sizeof welcome.error,
                     job.taken ? "there is a replica r%u already" : "no slot for replica r%u", client->id);
        }
    }
    if (welcome.result) {
        refuse(client, welcome.error);
        send_welcome(client, &welcome, NULL);
        return;
    }
    client->slot = job.slot;
    welcome.slot = (uint32_t)job.slot;
    welcome.base = (uint64_t)(uintptr_t)control->arena;
    welcome.bytes = control->arena->bytes;
    welcome.generation = atomic_load_explicit(&control->arena->generation, memory_order_relaxed);
    const int fds[ATTACH_FDS] = {control->arena_fd, client->wake_fd, control->worker.wake_fd};
    if (send_welcome(client, &welcome, fds) != 0)
        refuse(client, "it went away");
}

struct register_job {
    const struct registration *registration;
    unsigned slot;
    int result;
    struct sm_errbuf error;
};

static void register_slot(struct sm_switch *sw, void *arg)
{
    struct register_job *job = arg;

    job->result = arena_register(sw->arena, job->slot, job->registration, &job->error);
    if (job->result == 0)
        switch_slot_ready(sw, job->slot);
}

static void on_registration(struct attach_client *client, const struct registration *registration)
{
    struct control *control = client->control;
    struct register_job job = {.registration = registration, .slot = (unsigned)client->slot};
    struct attach_reply reply = {0};
    char name[16];

    worker_call(&control->worker, register_slot, &job);
    name_of(client, name);
    reply.result = job.result;
    if (job.result) {
        snprintf(reply.error, sizeof reply.error, "%.200s",
                 job.error.text[0] ? job.error.text : sm_strerror(job.result));
        refuse(client, reply.error);
    }
    if (send(client->socket_fd, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply || job.result)
        return;
    client->ready = true;
    log_write(LEVEL_INFO, "replica_attached", LOG_WITH(log_text("replica", name), log_number("pid", client->pid)),
              "replica %s has attached", name);
    struct wire_out *params = wire_new();
    wire_put_uint(params, "id", client->id);
    wire_put_str(params, "name", name);
    wire_put_int(params, "pid", client->pid);
    rpc_broadcast(control->server, "ready", params);
}

static void on_decline(struct attach_client *client, const struct attach_decline *decline)
{
    char reason[sizeof decline->reason];

    snprintf(reason, sizeof reason, "%.*s", (int)sizeof decline->reason - 1, decline->reason);
    for (char *c = reason; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' '; /* it is to be one line */
    refuse(client, reason);
    close_socket(client);
}

struct leave_job {
    unsigned slot;
    bool left;
};

/* Whether a replica has been told to end, and has nothing left to do. */
static void has_left(struct sm_switch *sw, void *arg)
{
    struct leave_job *job = arg;
    const struct switch_slot *slot = &sw->slots[job->slot];
    uint64_t commit = atomic_load_explicit(&slot->channel->commit, memory_order_acquire);

    job->left = slot->state == SLOT_RETIRING && commit_consumed(commit) == slot->published;
}

/* Whether its process has other replicas. */
static bool has_company(const struct attach_client *client)
{
    for (const struct attach_client *other = client->control->clients; other; other = other->next)
        if (other != client && other->pid == client->pid && other->slot >= 0)
            return true;
    return false;
}

/*
 * The socket's end, or nonsense. Of one that has registered the process's exit is what counts; or this, where it was
 * retired and its process goes on with others.
 */
static void on_end(struct attach_client *client)
{
    struct drop_job job = {.slots = client->slot >= 0 ? 1ull << client->slot : 0};
    struct leave_job leave = {.slot = (unsigned)client->slot};

    if (client->slot >= 0 && !client->ready) {
        worker_call(&client->control->worker, drop_slots, &job);
        client->slot = -1;
    } else if (client->slot >= 0 && has_company(client)) {
        worker_call(&client->control->worker, has_left, &leave);
        if (leave.left) {
            worker_call(&client->control->worker, drop_slots, &job);
            gone(client, &job, false);
            return;
        }
    }
    close_socket(client);
}

static void socket_readable(uv_poll_t *handle, int status, int events)
{
    struct attach_client *client = handle->data;
    static union {
        struct attach_hello hello;
        struct registration registration;
        struct attach_decline decline;
    } message;
    ssize_t got = recv(client->socket_fd, &message, sizeof message, MSG_DONTWAIT);

    (void)status, (void)events;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got == sizeof message.hello && client->slot < 0)
        on_hello(client, &message.hello);
    else if (got == sizeof message.registration && client->slot >= 0 && !client->ready)
        on_registration(client, &message.registration);
    else if (got == sizeof message.decline && client->slot >= 0 && !client->ready)
        on_decline(client, &message.decline);
    else
        on_end(client);
}

static void connection(uv_poll_t *handle, int status, int events)
{
    struct control *control = handle->data;
    struct ucred peer;
    socklen_t length = sizeof peer;
    int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)status, (void)events;
    if (fd < 0)
        return;
    struct attach_client *client = calloc(1, sizeof *client);
    int pidfd = -1;
    if (!client || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 ||
        (peer.uid != geteuid() && peer.uid != 0) || (pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0)) < 0) {
        free(client);
        close(fd);
        return;
    }
    *client = (struct attach_client){
        .control = control, .socket_fd = fd, .pidfd = pidfd, .wake_fd = -1, .pid = peer.pid, .slot = -1, .handles = 2};
    client->next = control->clients;
    control->clients = client;
    client->socket.data = client->process.data = client;
    uv_poll_init(control->loop, &client->socket, fd);
    uv_poll_init(control->loop, &client->process, pidfd);
    uv_poll_start(&client->socket, UV_READABLE, socket_readable);
    uv_poll_start(&client->process, UV_READABLE, process_exited);
}

int attach_listen(struct control *control, const char *path, struct sm_errbuf *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    control->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (control->listen_fd < 0 || bind(control->listen_fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        chmod(path, 0600) != 0 || listen(control->listen_fd, 64) != 0) {
        snprintf(error->text, sizeof error->text, "%s: %s", path, strerror(errno));
        return SM_E_IO;
    }
    control->listener.data = control;
    uv_poll_init(control->loop, &control->listener, control->listen_fd);
    return uv_poll_start(&control->listener, UV_READABLE, connection) == 0 ? 0 : SM_E_IO;
}

struct condemned_job {
    uint32_t ids[ARENA_SLOTS];
    const char *why[ARENA_SLOTS]; /* NULL: this slot's replica is not */
};

static void list_condemned(struct sm_switch *sw, void *arg)
{
    struct condemned_job *job = arg;

    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].state == SLOT_READY || sw->slots[i].state == SLOT_RETIRING) {
            job->ids[i] = sw->slots[i].id;
            job->why[i] = sw->slots[i].condemned;
        }
}

void attach_kill_condemned(struct control *control)
{
    struct condemned_job job = {0};
    char name[16];

    worker_call(&control->worker, list_condemned, &job);
    for (struct attach_client *client = control->clients; client; client = client->next) {
        const char *why = client->slot >= 0 && job.ids[client->slot] == client->id ? job.why[client->slot] : NULL;
        if (!why || client->killed)
            continue;
        client->killed = true;
        syscall(SYS_pidfd_send_signal, client->pidfd, SIGKILL, NULL, 0);
        struct wire_out *params = wire_new();
        name_of(client, name);
        wire_put_uint(params, "id", client->id);
        wire_put_str(params, "name", name);
        wire_put_str(params, "reason", why);
        rpc_broadcast(control->server, "condemned", params);
    }
}

void attach_shutdown(struct control *control)
{
    char path[108];

    unlink(rundir_file(control->dir, "attach.sock", path));
}
