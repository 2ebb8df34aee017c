/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */
#define EXIT_MS 5000
#define NAME "arena"

int keeper_take(void)
{
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
    int count = fds ? atoi(fds) : 0, found = -1;

    if (!pid || atoi(pid) != (int)getpid())
        count = 0;
    for (int i = 0; i < count && names; i++) {
        size_t length = strcspn(names, ":");
        fcntl(FIRST_FD + i, F_SETFD, FD_CLOEXEC);
        if (length == strlen(NAME) && strncmp(names, NAME, length) == 0)
            found = FIRST_FD + i;
        names = names[length] ? names + length + 1 : NULL;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return found;
}

int keeper_store(int arena_fd, struct sm_errbuf *error)
{
    static const char text[] = "FDSTORE=1\nFDNAME=" NAME;
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = sizeof text - 1};
    struct msghdr message = {.msg_name = &address,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof control};

    if (!path || strlen(path) >= sizeof address.sun_path)
        return 0;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &arena_fd, sizeof arena_fd);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool sent = fd >= 0 && sendmsg(fd, &message, MSG_NOSIGNAL) > 0;
    if (!sent)
        snprintf(error->text, sizeof error->text, "%s: nobody keeps the arena: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return sent ? 0 : SM_E_IO;
}

/* A process that holds a lock; 0: there is none. */
static pid_t holder(int arena_fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(arena_fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

int keeper_await_replicas(int arena_fd, struct sm_errbuf *error)
{
    for (pid_t pid; (pid = holder(arena_fd)) != 0;) {
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        struct pollfd exited = {.fd = pidfd, .events = POLLIN};
        bool gone = pidfd < 0;
        /* It still holds the lock now, so the descriptor is of nobody else. */
        if (!gone && holder(arena_fd) == pid) {
            syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
            gone = poll(&exited, 1, EXIT_MS) == 1;
        } else {
            gone = true;
            usleep(1000); /* it is on its way out, or was another one */
        }
        if (pidfd >= 0)
            close(pidfd);
        if (!gone) {
            snprintf(error->text, sizeof error->text, "a replica of the switch before (pid %d) does not end", (int)pid);
            return SM_E_STATE;
        }
    }
    return 0;
}
