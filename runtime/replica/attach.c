/* SPDX-License-Identifier: BSD-2-Clause */

/* A replica's way to its switch: attach, sleep, wake, leave. */

#include "replica/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "arena/core.h"
#include "replica/process.h"
#include "replica/replica.h"

#define ABANDON_MS 1000 /* how long a replica that leaves at once waits for its slot to be free */
#define DECLINE_MS 1000 /* how long a replica that cannot start waits until it has been heard */

#define ONE_REPLICA "the program runs one replica in a process: expected middlebox.threads 1"

struct attachment {
    int socket;
    int wake_fd;   /* the switch writes it when we sleep */
    int switch_fd; /* we write it when the switch sleeps */
    int epoll;     /* both of the above that can wake us */
    unsigned slot;
};

static int fail(struct sm_errbuf *error, int result, const char *what, const char *why)
{
    snprintf(error->text, sizeof error->text, "%s: %s", what, why);
    return result;
}

static int connect_to(const char *path, struct sm_errbuf *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int bytes = ATTACH_SOCKET_BYTES;

    if (strlen(path) >= sizeof address.sun_path)
        return fail(error, SM_E_INVALID, path, "the name of the attach socket is too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(error, SM_E_IO, path, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        int result = errno == EACCES ? SM_E_PERMISSION : SM_E_IO;
        fail(error, result, path, strerror(errno));
        close(fd);
        return result;
    }
    return fd;
}

/* Receive the welcome and its descriptors. */
static int receive_welcome(int socket, struct attach_welcome *welcome, int *fds, struct sm_errbuf *error)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(ATTACH_FDS * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = welcome, .iov_len = sizeof *welcome};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    if (got != sizeof *welcome)
        return fail(error, SM_E_PROTOCOL, "attach", "the switch did not answer");
    if (welcome->result != 0) {
        welcome->error[sizeof welcome->error - 1] = '\0';
        return fail(error, welcome->result, "the switch refused", welcome->error);
    }
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(ATTACH_FDS * sizeof(int)))
        return fail(error, SM_E_PROTOCOL, "attach", "the switch sent no arena");
    memcpy(fds, CMSG_DATA(header), ATTACH_FDS * sizeof(int));
    return 0;
}

static int watch(struct attachment *attachment)
{
    struct epoll_event wake = {.events = EPOLLIN, .data.fd = attachment->wake_fd};
    struct epoll_event gone = {.events = EPOLLRDHUP, .data.fd = attachment->socket};

    attachment->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (attachment->epoll < 0 || epoll_ctl(attachment->epoll, EPOLL_CTL_ADD, attachment->wake_fd, &wake) != 0 ||
        epoll_ctl(attachment->epoll, EPOLL_CTL_ADD, attachment->socket, &gone) != 0)
        return SM_E_IO;
    return 0;
}

int attach_open(struct sm_replica *replica, const char *path, const char *middlebox, const char *name,
                struct sm_errbuf *error)
{
    struct attachment *attachment = calloc(1, sizeof *attachment);
    struct attach_hello hello = {.magic = ATTACH_MAGIC, .version = ATTACH_VERSION};
    const char *names = getenv("SPLITMERGE_REPLICA");
    struct attach_welcome welcome;
    int fds[ATTACH_FDS];

    if (!attachment)
        return fail(error, SM_E_NO_MEMORY, "attach", sm_strerror(SM_E_NO_MEMORY));
    *attachment = (struct attachment){.socket = -1, .wake_fd = -1, .switch_fd = -1, .epoll = -1};
    replica->attachment = attachment;
    bool alone = !name && names && strchr(names, ','); /* it does not know of sm_threads() */
    if (!name)
        name = names;
    hello.replica = name && name[0] == 'r' ? (uint32_t)strtoul(name + 1, NULL, 10) : 0;
    snprintf(hello.middlebox, sizeof hello.middlebox, "%s", middlebox);

    attachment->socket = connect_to(path, error);
    if (attachment->socket < 0)
        return attachment->socket;
    if (send(attachment->socket, &hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello)
        return fail(error, SM_E_IO, path, strerror(errno));
    int result = receive_welcome(attachment->socket, &welcome, fds, error);
    if (result)
        return result;
    attachment->wake_fd = fds[1];
    attachment->switch_fd = fds[2];
    attachment->slot = welcome.slot;
    struct arena *arena;
    result = process_enter(&arena, fds[0], welcome.base, welcome.bytes, welcome.slot, error);
    if (result)
        return result;
    replica->arena = arena;
    if (alone) {
        attach_decline(replica, ONE_REPLICA);
        return fail(error, SM_E_INVALID, "attach", ONE_REPLICA);
    }
    /* After the lock: whoever takes the arena over counts first, then looks for locks. */
    if (atomic_load_explicit(&arena->generation, memory_order_seq_cst) != welcome.generation)
        return fail(error, SM_E_STATE, "attach", "the switch is gone");
    if (watch(attachment) != 0)
        return fail(error, SM_E_IO, "attach", strerror(errno));
    core_share();
    result = replica_bind(replica, arena, welcome.slot);
    return result ? fail(error, result, "attach", sm_strerror(result)) : 0;
}

int attach_start(struct sm_replica *replica, struct sm_errbuf *error)
{
    struct attach_reply reply;
    int socket = replica->attachment->socket;

    if (send(socket, replica->registration, sizeof *replica->registration, MSG_NOSIGNAL) !=
        (ssize_t)sizeof *replica->registration)
        return fail(error, SM_E_IO, "attach", strerror(errno));
    if (recv(socket, &reply, sizeof reply, 0) != sizeof reply)
        return fail(error, SM_E_PROTOCOL, "attach", "the switch did not answer the registration");
    if (reply.result) {
        reply.error[sizeof reply.error - 1] = '\0';
        return fail(error, reply.result, "the switch refused", reply.error);
    }
    return 0;
}

void attach_decline(struct sm_replica *replica, const char *reason)
{
    struct attach_decline decline = {{0}};
    struct pollfd heard = {.fd = replica->attachment->socket, .events = POLLIN};

    snprintf(decline.reason, sizeof decline.reason, "%s", reason);
    /* It is to be known before our exit is. Who does not hear it sees that. */
    if (send(heard.fd, &decline, sizeof decline, MSG_NOSIGNAL) == sizeof decline)
        poll(&heard, 1, DECLINE_MS);
}

void replica_wake_switch(struct sm_replica *replica)
{
    uint64_t one = 1;

    /* Full only when the switch has billions of wake-ups pending; then it is awake. */
    if (replica->attachment && write(replica->attachment->switch_fd, &one, sizeof one) < 0)
        return;
}

int attach_poll(struct sm_replica *replica, unsigned budget)
{
    /* Awake again, whoever waited: the switch need not write the eventfd for what comes now. */
    if (atomic_load_explicit(&replica->channel->replica_sleeps, memory_order_relaxed))
        atomic_store_explicit(&replica->channel->replica_sleeps, REPLICA_AWAKE, memory_order_relaxed);
    unsigned done = replica_burst(replica, budget);

    if (replica->failed)
        return replica->failed;
    if (done > 0)
        return (int)done;
    return replica->retired ? SM_E_END : 0;
}

static int switch_is_gone(struct sm_replica *replica)
{
    snprintf(replica->last_error.text, sizeof replica->last_error.text, "the switch is gone");
    return SM_E_IO;
}

/* Clear what woke us; SM_E_IO when it was the switch's end. */
static int look(struct sm_replica *replica)
{
    struct pollfd gone = {.fd = replica->attachment->socket, .events = POLLRDHUP};
    uint64_t counts;

    if (read(replica->attachment->wake_fd, &counts, sizeof counts) < 0 && errno != EAGAIN)
        return SM_E_IO;
    return poll(&gone, 1, 0) > 0 && !replica_has_input(replica) ? switch_is_gone(replica) : 0;
}

int attach_sleep_fd(struct sm_replica *replica, enum replica_sleep how)
{
    int result = look(replica);

    if (result)
        return result;
    atomic_store_explicit(&replica->channel->replica_sleeps, how, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (replica_has_input(replica)) {
        atomic_store_explicit(&replica->channel->replica_sleeps, REPLICA_AWAKE, memory_order_relaxed);
        return SM_E_AGAIN;
    }
    return replica->attachment->epoll;
}

/* What the process itself waits for, so in one call. */
int attach_sleep(struct sm_replica *replica, enum replica_sleep how, int break_fd, int timeout_ms)
{
    const struct attachment *attachment = replica->attachment;
    struct pollfd wait[] = {{.fd = attachment->wake_fd, .events = POLLIN},
                            {.fd = break_fd, .events = POLLIN},
                            {.fd = attachment->socket, .events = POLLRDHUP}};
    uint64_t counts;
    int ready = 1;

    atomic_store_explicit(&replica->channel->replica_sleeps, how, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!replica_has_input(replica))
        ready = poll(wait, sizeof wait / sizeof *wait, timeout_ms);
    atomic_store_explicit(&replica->channel->replica_sleeps, REPLICA_AWAKE, memory_order_relaxed);
    for (unsigned i = 0; i < 2; i++)
        if (ready > 0 && wait[i].revents && read(wait[i].fd, &counts, sizeof counts) < 0 && errno != EAGAIN)
            return SM_E_IO;
    if (ready > 0 && wait[2].revents && !replica_has_input(replica))
        return switch_is_gone(replica);
    return ready == 0 ? SM_E_AGAIN : 0;
}

int attach_fd(const struct sm_replica *replica)
{
    return replica->attachment->epoll;
}

void attach_wake(struct sm_replica *replica)
{
    uint64_t one = 1;

    /* Full only when it is readable anyway. */
    if (write(replica->attachment->wake_fd, &one, sizeof one) < 0)
        return;
}

int attach_renumber(struct sm_replica *replica, int number)
{
    struct attachment *attachment = replica->attachment;

    if (attachment->epoll == number)
        return 0;
    if (dup3(attachment->epoll, number, O_CLOEXEC) < 0)
        return SM_E_IO;
    close(attachment->epoll);
    attachment->epoll = number;
    return 0;
}

void attach_abandon(struct sm_replica *replica)
{
    struct pollfd gone = {.fd = replica->attachment->socket, .events = POLLRDHUP};

    /* The switch closes its end when the slot is free. */
    if (shutdown(gone.fd, SHUT_WR) == 0)
        poll(&gone, 1, ABANDON_MS);
}

void attach_close(struct sm_replica *replica)
{
    struct attachment *attachment = replica->attachment;
    const int fds[] = {attachment->epoll, attachment->switch_fd, attachment->wake_fd, attachment->socket};

    replica_unbind(replica);
    if (replica->arena)
        process_leave(replica->arena, attachment->slot);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(attachment);
}
