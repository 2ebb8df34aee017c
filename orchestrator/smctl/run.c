/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A whole service in the foreground: takes its lock, starts switch and orchestrator, and waits for both. The lock goes
 * to the children, so it is held until the last of them has gone. Children are in process groups of their own, so a
 * terminal's interrupt comes here alone and the orchestrator ends the service in order; they die with us, whatever
 * kills us.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "events.h"
#include "smctl.h"

#define TICK_NS 200000000 /* when one has gone, the other is looked after this often */
#define LEAVE_TICKS 25    /* and is killed after so many */

struct part {
    const char *name;
    const char *build; /* its folder in a build tree, from ours */
    pid_t pid;         /* 0: not running */
    int status;        /* of waitpid() */
    bool told;         /* to end, by us */
};

static bool find(const struct part *part, char *path, size_t size)
{
    char self[2048];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length < 0)
        return false;
    self[length] = '\0';
    *strrchr(self, '/') = '\0';
    snprintf(path, size, "%s/%s", self, part->name);
    if (access(path, X_OK) == 0)
        return true;
    snprintf(path, size, "%s/%s/%s", self, part->build, part->name);
    return access(path, X_OK) == 0;
}

static void become(const char *path, const char **argv, pid_t parent, const sigset_t *mask)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, mask, NULL);
    if (getppid() == parent)
        execv(path, (char **)(uintptr_t)argv);
    fprintf(stderr, "smctl: %s: %s\n", path, strerror(errno));
    _exit(127);
}

static int start(const struct options *options, struct part *part, const char **argv, const sigset_t *mask)
{
    char path[4096];
    pid_t parent = getpid();
    if (!find(part, path, sizeof(path)))
        return fail(options, RPC_FAILED, "%s is not beside smctl", part->name);
    argv[0] = part->name;
    part->pid = fork();
    if (part->pid == 0)
        become(path, argv, parent, mask);
    if (part->pid < 0) {
        part->pid = 0;
        return fail(options, RPC_FAILED, "%s cannot be started: %s", part->name, strerror(errno));
    }
    return 0;
}

static void collect(struct part parts[2])
{
    for (unsigned i = 0; i < 2; i++)
        if (parts[i].pid > 0 && waitpid(parts[i].pid, &parts[i].status, WNOHANG) == parts[i].pid)
            parts[i].pid = 0;
}

static void signal_part(struct part *part, int number)
{
    if (part->pid > 0) {
        part->told = true;
        kill(part->pid, number);
    }
}

/*
 * Wait until both have gone. The orchestrator ends the switch; when one goes without the other, the other is told to,
 * and made to after a while.
 */
static void wait_for_both(struct part parts[2], const sigset_t *signals)
{
    struct part *sw = &parts[0], *orchestrator = &parts[1];
    unsigned left = 0; /* ticks since the first went */
    for (;;) {
        const struct timespec tick = {.tv_nsec = TICK_NS};
        collect(parts);
        if (sw->pid == 0 && orchestrator->pid == 0)
            return;
        bool one_left = sw->pid == 0 || orchestrator->pid == 0;
        int number = sigtimedwait(signals, NULL, one_left ? &tick : NULL);
        if (number == SIGINT || number == SIGTERM)
            signal_part(orchestrator->pid ? orchestrator : sw, SIGTERM);
        if (!one_left || number > 0)
            continue;
        left++;
        if (left == 1)
            signal_part(orchestrator, SIGTERM);
        if (left == LEAVE_TICKS / 2)
            signal_part(sw, SIGTERM);
        if (left == LEAVE_TICKS) {
            signal_part(sw, SIGKILL);
            signal_part(orchestrator, SIGKILL);
        }
    }
}

/* The orchestrator's word, unless a part was killed by somebody else: who exits has said why, who was killed could not.
 */
static int verdict(const struct options *options, const struct part parts[2])
{
    for (unsigned i = 0; i < 2; i++)
        if (WIFSIGNALED(parts[i].status) && !parts[i].told && WTERMSIG(parts[i].status) != SIGTERM)
            return fail(options, RPC_FAILED, "%s was killed by signal %d", parts[i].name, WTERMSIG(parts[i].status));
    if (WIFEXITED(parts[0].status) && WEXITSTATUS(parts[0].status) == RPC_USAGE)
        return RPC_USAGE;
    return WIFEXITED(parts[1].status) ? WEXITSTATUS(parts[1].status) : RPC_FAILED;
}

static int run_parts(const struct options *options, const char *file, const char *const events[2],
                     const char *const report[2], const char *const seed[2])
{
    struct part parts[2] = {{.name = "sm-switch", .build = "../runtime/switch"},
                            {.name = "sm-orchestrator", .build = "../orchestrator"}};
    const char *sw[5] = {NULL}, *orchestrator[9] = {NULL};
    unsigned s = 1, o = 1;
    sigset_t signals, old;
    for (unsigned i = 0; i < 2 && seed[0]; i++)
        sw[s++] = orchestrator[o++] = seed[i];
    for (unsigned i = 0; i < 2 && events[0]; i++)
        orchestrator[o++] = events[i];
    for (unsigned i = 0; i < 2 && report[0]; i++)
        orchestrator[o++] = report[i];
    sw[s] = orchestrator[o] = file;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, &old);
    if (start(options, &parts[0], sw, &old) != 0)
        return RPC_FAILED;
    if (start(options, &parts[1], orchestrator, &old) != 0) {
        signal_part(&parts[0], SIGKILL);
        waitpid(parts[0].pid, NULL, 0);
        return RPC_FAILED;
    }
    wait_for_both(parts, &signals);
    return verdict(options, parts);
}

int cmd_run(struct options *options)
{
    bool wrong = false;
    struct service service;
    struct rundir dir;
    struct sm_errbuf error;
    const char *events[2] = {"--events", take_option(options, "--events", &wrong)};
    const char *report[2] = {"--report", take_option(options, "--report", &wrong)};
    const char *seed[2] = {"--seed", take_option(options, "--seed", &wrong)};
    if (wrong || options->argc != 2)
        return usage(options, "run SERVICE.yaml [--events FILE] [--report FILE] [--seed N]");
    events[0] = events[1] ? events[0] : NULL;
    report[0] = report[1] ? report[0] : NULL;
    seed[0] = seed[1] ? seed[0] : NULL;
    if (service_load(&service, options->argv[1], &error) != 0)
        return fail(options, RPC_USAGE, "%s", error.text);
    if (events[0]) {
        struct events parsed;
        if (events_load(&parsed, events[1], &error) != 0) {
            service_free(&service);
            return fail(options, RPC_USAGE, "%s", error.text);
        }
        events_free(&parsed);
    }
    int result = rundir_init(&dir, service.name, &error);
    if (result == 0)
        result = rundir_create(&dir, &error);
    if (result == 0)
        result = rundir_lock(&dir, &error);
    service_free(&service);
    if (result != 0)
        return fail(options, RPC_FAILED, "%s", error.text);
    if (rundir_pass_lock(&dir) != 0)
        return fail(options, RPC_FAILED, "the lock cannot be handed on");
    int status = run_parts(options, options->argv[1], events, report, seed);
    rundir_unlock(&dir);
    return status;
}
