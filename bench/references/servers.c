/* SPDX-License-Identifier: BSD-2-Clause */
#include "references/servers.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

bool servers_installed(const char *names)
{
    char command[200];

    snprintf(command, sizeof command, "for i in %s; do command -v $i || exit 1; done >/dev/null 2>&1", names);
    return system(command) == 0;
}

bool servers_folder(char *folder)
{
    strcpy(folder, "/tmp/sm-bench.XXXXXX");
    return mkdtemp(folder) != NULL;
}

void servers_remove(const char *folder)
{
    char command[64];

    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command) != 0)
        fprintf(stderr, "%s stays\n", folder);
}

bool servers_file(const char *folder, const char *name, const char *format, ...)
{
    char path[96];
    va_list arguments;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "we");
    if (!file)
        return false;
    va_start(arguments, format);
    bool written = vfprintf(file, format, arguments) >= 0;
    va_end(arguments);
    return fclose(file) == 0 && written;
}

pid_t server_start(const char *command, unsigned core, int space)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    int nowhere = open("/dev/null", O_RDWR);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || nowhere < 0 || dup2(nowhere, STDIN_FILENO) < 0 || dup2(nowhere, STDOUT_FILENO) < 0 ||
        dup2(nowhere, STDERR_FILENO) < 0 || (space >= 0 && setns(space, CLONE_NEWNET) != 0))
        _exit(127);
    bench_pin(core);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    _exit(127);
}

bool server_wait(pid_t pid)
{
    int status;

    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void server_end(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
