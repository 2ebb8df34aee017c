/* SPDX-License-Identifier: BSD-2-Clause */
#include "reference.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH_BYTES 4096u
#define MAX_ARGUMENTS 6u

/* Where a program is. False: nowhere. */
static bool find(const char *program, char *path, size_t size)
{
    static const char *const places[] = {"", "../libexec/splitmerge/"};
    char own[PATH_BYTES];
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);

    if (length <= 0)
        return false;
    own[length] = '\0';
    *(strrchr(own, '/') + 1) = '\0';
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
        if (snprintf(path, size, "%s%s%s", own, places[i], program) < (int)size && access(path, X_OK) == 0)
            return true;
    return false;
}

/* In the child: its input and its output are the socket. */
static void become(const char *path, const char *program, const char *const *arguments, int socket)
{
    const char *all[MAX_ARGUMENTS + 2] = {program};

    for (unsigned i = 0; i < MAX_ARGUMENTS && arguments[i]; i++)
        all[i + 1] = arguments[i];
    bench_unpin();
    if (dup2(socket, STDIN_FILENO) >= 0 && dup2(socket, STDOUT_FILENO) >= 0)
        execv(path, (char *const *)(uintptr_t)all);
    _exit(127);
}

void reference_start(struct reference *reference, const char *program, const char *package,
                     const char *const *arguments)
{
    char path[PATH_BYTES];
    int ends[2];

    *reference = (struct reference){.pid = -1};
    if (!find(program, path, sizeof path)) {
        snprintf(reference->missing, sizeof reference->missing, "missing: not built (needs %s)", package);
        return;
    }
    snprintf(reference->missing, sizeof reference->missing, "missing: %s cannot be started", program);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return;
    fflush(NULL);
    reference->pid = fork();
    if (reference->pid == 0)
        become(path, program, arguments, ends[1]);
    close(ends[1]);
    reference->from = fdopen(ends[0], "r");
    reference->to = fdopen(fcntl(ends[0], F_DUPFD_CLOEXEC, 0), "w");
    char *line = reference->missing + strlen("missing: ");
    if (reference->pid < 0 || !reference->from || !reference->to ||
        !fgets(line, (int)(sizeof reference->missing - strlen("missing: ")), reference->from)) {
        snprintf(reference->missing, sizeof reference->missing, "missing: %s ended before it was ready", program);
        return;
    }
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "ready") == 0)
        reference->missing[0] = '\0';
}

int reference_ask(struct reference *reference, double *values, unsigned count, struct sm_errbuf *error)
{
    char line[256];

    fputc('\n', reference->to);
    fflush(reference->to);
    char *at = fgets(line, sizeof line, reference->from);
    for (unsigned i = 0; at && i < count; i++) {
        char *end;
        values[i] = strtod(at, &end);
        at = end == at || !(values[i] > 0) ? NULL : end;
    }
    if (at)
        return 0;
    snprintf(error->text, sizeof error->text, "a reference program has failed");
    return SM_E_STATE;
}

void reference_end(struct reference *reference)
{
    if (reference->to)
        fclose(reference->to);
    if (reference->from)
        fclose(reference->from);
    while (reference->pid > 0 && waitpid(reference->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    reference->pid = -1;
}
