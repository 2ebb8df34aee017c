/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/keeper.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXIT_MS 5000

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
