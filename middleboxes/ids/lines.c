/* SPDX-License-Identifier: BSD-2-Clause */
#include "lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The strong object. All zero: nobody has begun. */
struct end {
    uint64_t at;
    uint64_t begun;
};

bool lines_open(struct lines *log, const char *file, struct sm_errbuf *error)
{
    const bool standard = strcmp(file, "-") == 0;
    struct stat status;

    *log = (struct lines){.fd = standard ? dup(STDOUT_FILENO) : open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
    if (log->fd < 0 || fstat(log->fd, &status) != 0) {
        snprintf(error->text, sizeof error->text, "--log %.180s: %s", file, strerror(errno));
        lines_close(log);
        return false;
    }
    log->places = !standard && S_ISREG(status.st_mode);
    return true;
}

void lines_close(struct lines *log)
{
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
}

int lines_register(struct lines *log, struct sm_replica *replica)
{
    return sm_strong_register(replica, "log", sizeof(struct end), &log->end);
}

void lines_start(struct lines *log, struct sm_replica *replica)
{
    if (log->begun || !log->places)
        return;
    struct end *end = sm_shared_get(replica, log->end, SM_PULL | SM_SYNCH, NULL);
    if (!end)
        return;
    if (!end->begun && ftruncate(log->fd, 0) == 0)
        end->begun = 1;
    sm_shared_put(replica, log->end, SM_PUSH | SM_SYNCH);
    log->begun = true;
}

static bool write_at(int fd, const char *bytes, size_t count, uint64_t at)
{
    while (count > 0) {
        ssize_t done = pwrite(fd, bytes, count, (off_t)at);
        if (done < 0 && errno != EINTR)
            return false;
        size_t written = done > 0 ? (size_t)done : 0;
        bytes += written;
        count -= written;
        at += written;
    }
    return true;
}

bool lines_write(struct lines *log, struct sm_replica *replica, const char *lines, size_t bytes)
{
    if (!log->places)
        return write(log->fd, lines, bytes) == (ssize_t)bytes;
    struct end *end = sm_shared_get(replica, log->end, SM_PULL | SM_SYNCH, NULL);
    bool written = end && write_at(log->fd, lines, bytes, end->at);
    if (written)
        end->at += bytes;
    if (end)
        sm_shared_put(replica, log->end, SM_PUSH | SM_SYNCH);
    return written;
}
