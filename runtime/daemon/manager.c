/* SPDX-License-Identifier: BSD-2-Clause */
#include "daemon/manager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */
#define NAMES 256

static struct {
    struct sockaddr_un address;
    socklen_t length; /* 0: there is no manager */
    int kept;         /* descriptors from FIRST_FD on */
    char names[NAMES];
    uint64_t watchdog_us;
} manager;

/* Whether a variable that names a process names us. */
static bool is_ours(const char *variable, bool or_nobody)
{
    const char *pid = getenv(variable);

    return pid ? atoi(pid) == (int)getpid() : or_nobody;
}

static void find_socket(void)
{
    const char *path = getenv("NOTIFY_SOCKET");

    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof manager.address.sun_path)
        return;
    manager.address.sun_family = AF_UNIX;
    memcpy(manager.address.sun_path, path, strlen(path));
    if (path[0] == '@')
        manager.address.sun_path[0] = '\0'; /* of the abstract name space */
    manager.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
}

void manager_begin(void)
{
    static const char *const variables[] = {"NOTIFY_SOCKET",  "WATCHDOG_USEC", "WATCHDOG_PID",
                                            "LISTEN_FDNAMES", "LISTEN_FDS",    "LISTEN_PID"};
    const char *kept = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES"), *patience = getenv("WATCHDOG_USEC");

    find_socket();
    if (kept && is_ours("LISTEN_PID", false))
        manager.kept = atoi(kept);
    for (int i = 0; i < manager.kept; i++)
        fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC);
    snprintf(manager.names, sizeof manager.names, "%s", names ? names : "");
    if (patience && is_ours("WATCHDOG_PID", true))
        manager.watchdog_us = strtoull(patience, NULL, 10);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
}

int manager_kept(const char *name)
{
    const char *at = manager.names;

    for (int i = 0; i < manager.kept; i++) {
        size_t length = strcspn(at, ":");
        if (length == strlen(name) && strncmp(at, name, length) == 0)
            return FIRST_FD + i;
        at += length + (at[length] == ':');
    }
    return -1;
}

/* One datagram; `fd` goes along, unless it is -1. */
static bool send_state(const char *state, int fd, int flags)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)state, .iov_len = strlen(state)};
    struct msghdr message = {
        .msg_name = &manager.address, .msg_namelen = manager.length, .msg_iov = &part, .msg_iovlen = 1};

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    int outlet = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool sent = outlet >= 0 && sendmsg(outlet, &message, MSG_NOSIGNAL | flags) > 0;
    int why = errno;
    if (outlet >= 0)
        close(outlet);
    errno = why;
    return sent;
}

int manager_store(int fd, const char *name, struct sm_errbuf *error)
{
    char state[128];

    snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s", name);
    if (manager.length == 0 || send_state(state, fd, 0))
        return 0;
    snprintf(error->text, sizeof error->text, "nobody keeps the %s: %s", name, strerror(errno));
    return SM_E_IO;
}

void manager_discard(const char *name)
{
    char state[128];

    snprintf(state, sizeof state, "FDSTOREREMOVE=1\nFDNAME=%s", name);
    manager_tell(state);
}

void manager_tell(const char *state)
{
    if (manager.length > 0)
        send_state(state, -1, MSG_DONTWAIT);
}

uint64_t manager_watchdog_ms(void)
{
    const uint64_t ms = manager.watchdog_us / 2000;

    return manager.watchdog_us > 0 && ms == 0 ? 1 : ms;
}
