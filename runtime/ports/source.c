/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. A capture file as a stream of bytes: the file, standard input, or the output of `gzip -dc` reading one of
 * them. Decompression is a child process, so that a damaged archive cannot harm us and no library is added.
 *
 * Life-cycle. open -> read* -> close. The child lives from open to close at the latest; it is always reaped, there or
 * when its output ends. Closing early closes its pipe, which ends it by SIGPIPE.
 *
 * Concurrency. One thread. The child is made by posix_spawn, which is safe in a process with threads.
 */
#include "ports/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/*
 * Look at up to `size` bytes of `fd` without consuming them: gzip must get the file from its first byte. Pipes allow
 * that by tee(2). What is neither seekable nor a pipe cannot be looked at, and is not taken for an archive.
 */
static size_t peek(int fd, uint8_t *bytes, size_t size)
{
    off_t position = lseek(fd, 0, SEEK_CUR);
    if (position >= 0) {
        ssize_t n = pread(fd, bytes, size, position);
        return n > 0 ? (size_t)n : 0;
    }

    int copy[2];
    size_t got = 0;
    for (int attempts = 0; got < size && attempts < 1000; attempts++) {
        if (pipe2(copy, O_CLOEXEC) < 0)
            return 0;
        ssize_t n = tee(fd, copy[1], size, 0);
        ssize_t taken = n > 0 ? read(copy[0], bytes, size) : 0;
        close(copy[0]);
        close(copy[1]);
        if (taken <= 0)
            return 0;
        if ((size_t)taken == got)
            usleep(1000); /* a writer of single bytes: wait for its next one, within reason */
        got = (size_t)taken;
    }
    return got;
}

/* Start gzip on `input`; its output becomes *output. 0 or an errno. */
static int spawn_gzip(int input, int *output, pid_t *child)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return errno;

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    /* We may ignore SIGPIPE or block signals; gzip must not inherit that. */
    sigset_t set;
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attributes, &set);
    sigaddset(&set, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &set);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

    char *arguments[] = {(char[]){"gzip"}, (char[]){"-dc"}, NULL};
    int failed = posix_spawnp(child, "gzip", &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        return failed;
    }
    *output = ends[0];
    return 0;
}

static int open_file(struct sm_source *source, const char *file, const char *name, struct sm_errbuf *error)
{
    source->owned = strcmp(file, "-") != 0;
    source->fd = source->owned ? open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY) : STDIN_FILENO;
    if (source->fd < 0)
        return sm_port_fail(error, sm_port_errno_code(errno), "%s: %s", name, strerror(errno));

    struct stat status;
    if (fstat(source->fd, &status) == 0 && S_ISDIR(status.st_mode))
        return sm_port_fail(error, SM_E_IO, "%s: is a directory", name);
    return 0;
}

int sm_source_open(struct sm_source *source, const char *file, struct sm_errbuf *error)
{
    const char *name = strcmp(file, "-") == 0 ? "standard input" : file;
    *source = (struct sm_source){.fd = -1};
    int failed = open_file(source, file, name, error);
    if (failed) {
        sm_source_close(source);
        return failed;
    }

    uint8_t magic[2];
    if (peek(source->fd, magic, sizeof magic) == sizeof magic && magic[0] == 0x1f && magic[1] == 0x8b) {
        int output = -1;
        int errnum = spawn_gzip(source->fd, &output, &source->gzip);
        if (errnum) {
            source->gzip = 0;
            sm_source_close(source);
            return sm_port_fail(error, SM_E_IO, "%s: cannot run gzip: %s", name, strerror(errnum));
        }
        if (source->owned)
            close(source->fd);
        source->fd = output;
        source->owned = true;
    }

    /* The head is read now and replayed, so that the caller can tell formats apart. */
    uint8_t head[sizeof source->head];
    size_t length = 0;
    for (ssize_t n = 1; n > 0 && length<sizeof head; length += n> 0 ? (size_t)n : 0)
        n = sm_source_read(source, head + length, sizeof head - length);
    memcpy(source->head, head, length);
    source->head_length = length;
    return 0;
}

ssize_t sm_source_read(struct sm_source *source, void *buffer, size_t size)
{
    size_t waiting = source->head_length - source->head_used;
    if (waiting > 0) {
        size_t n = size < waiting ? size : waiting;
        memcpy(buffer, source->head + source->head_used, n);
        source->head_used += n;
        return (ssize_t)n;
    }
    ssize_t n;
    do
        n = read(source->fd, buffer, size);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        source->errnum = errno;
    return n;
}

bool sm_source_close(struct sm_source *source)
{
    if (source->owned && source->fd >= 0)
        close(source->fd);
    source->fd = -1;
    if (source->gzip <= 0)
        return source->gzip == 0;

    int status = 0;
    pid_t reaped;
    do
        reaped = waitpid(source->gzip, &status, 0);
    while (reaped < 0 && errno == EINTR);
    bool good = reaped == source->gzip && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    source->gzip = good ? 0 : -1;
    return good;
}
