/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A whole service in the foreground: takes its lock, starts switch and orchestrator, and waits for both. The lock goes
 * to the children, so it is held until the last of them has gone. Children are in process groups of their own, so a
 * terminal's interrupt comes here alone and the orchestrator ends the service in order; they die with us, whatever
 * kills us.
 *
 * Life-cycle of a part: running -> it ended by itself, which is the service's end: the other part is told to end, and
 * made to after a while; or it was killed, or exits with "go on": started again, at once, or ever later where it keeps
 * dying.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "daemon/log.h"
#include "events.h"
#include "smctl.h"

#define TICK_NS 200000000ull /* when one has gone, the other is looked after this often */
#define LEAVE_TICKS 25       /* and is killed after so many */
#define SHORT_NS 1000000000ull
#define AGAIN_AT_ONCE 16            /* so many in a row that lived shorter than SHORT_NS are started again at once */
#define AGAIN_FIRST_NS 100000000ull /* before the next one; then doubled */
#define AGAIN_MOST_NS 30000000000ull
#define LOCK_FD 10
#define EXIT_AGAIN 75 /* of an orchestrator that leaves it to its successor */

struct part {
    const char *name;
    const char *build; /* its folder in a build tree, from ours */
    const char **argv;
    pid_t pid;       /* 0: not running */
    int status;      /* of waitpid() */
    bool told;       /* to end, by us */
    uint64_t born;   /* monotonic, ns */
    unsigned in_row; /* lives that were short */
    uint64_t delay;  /* before its next start */
    uint64_t due;    /* when it is to be started again; 0: it is not */
};

struct run {
    const struct options *options;
    struct part parts[2]; /* the switch, the orchestrator */
    sigset_t signals, before;
    bool stopping; /* we were asked to */
    int notify;    /* socket that the switch sends its arena to, as to systemd; -1: none */
    int arena;     /* kept for the next switch; -1: none came */
    unsigned left; /* ticks since the first part went for good */
};

static uint64_t monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

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

/* The arena that is kept, for the next switch, as systemd would give it. */
static void hand_over(const struct run *run)
{
    char pid[16];
    if (run->arena < 0 || dup2(run->arena, 3) != 3 || fcntl(3, F_SETFD, 0) != 0)
        return;
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "arena", 1);
}

/* What the switch has sent to be kept. */
static void take_arena(struct run *run)
{
    char text[256];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = text, .iov_len = sizeof(text)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    while (run->notify >= 0 && recvmsg(run->notify, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0) {
        const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int))) {
            if (run->arena >= 0)
                close(run->arena);
            memcpy(&run->arena, CMSG_DATA(header), sizeof(run->arena));
        }
        message.msg_controllen = sizeof(control);
    }
}

static int keep_arenas(struct run *run, const struct rundir *dir)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[108];
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", rundir_file(dir, "notify.sock", path));
    unlink(path);
    run->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (run->notify < 0 || bind(run->notify, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        setenv("NOTIFY_SOCKET", path, 1) != 0)
        return fail(run->options, RPC_FAILED, "%s: %s", path, strerror(errno));
    return 0;
}

static void become(const struct run *run, const char *path, const char **argv, pid_t parent, const sigset_t *mask)
{
    setpgid(0, 0);
    if (argv == run->parts[0].argv)
        hand_over(run);
    else
        unsetenv("NOTIFY_SOCKET"); /* it has nothing to be kept */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, mask, NULL);
    if (getppid() == parent)
        execv(path, (char **)(uintptr_t)argv);
    log_write(LEVEL_ERROR, "failed", LOG_WITH(log_text("file", path)), "%s: %s", path, strerror(errno));
    _exit(127);
}

static int start(struct run *run, struct part *part)
{
    char path[4096];
    pid_t parent = getpid();
    part->due = 0;
    if (!find(part, path, sizeof(path)))
        return fail(run->options, RPC_FAILED, "%s is not beside smctl", part->name);
    part->born = monotonic();
    part->pid = fork();
    if (part->pid == 0)
        become(run, path, part->argv, parent, &run->before);
    if (part->pid < 0) {
        part->pid = 0;
        return fail(run->options, RPC_FAILED, "%s cannot be started: %s", part->name, strerror(errno));
    }
    return 0;
}

static void signal_part(struct part *part, int number)
{
    if (part->pid > 0) {
        part->told = true;
        kill(part->pid, number);
    }
}

/* A part has gone: whether it is to be started again, and when. */
static void look_at_end(struct run *run, struct part *part)
{
    bool killed = WIFSIGNALED(part->status) && WTERMSIG(part->status) != SIGTERM;
    bool again = part == &run->parts[1] && WIFEXITED(part->status) && WEXITSTATUS(part->status) == EXIT_AGAIN;
    part->pid = 0;
    if (part == &run->parts[0])
        take_arena(run);
    bool nothing_left = part == &run->parts[0] && run->arena < 0; /* another one could only begin anew */
    if (part->told || nothing_left || (!killed && !again))
        return;
    uint64_t now = monotonic();
    char when[32] = "";
    if (now - part->born >= SHORT_NS)
        part->in_row = 0, part->delay = 0;
    if (part->delay > 0)
        snprintf(when, sizeof(when), " in %.1f s", (double)part->delay / 1e9);
    if (killed)
        log_write(LEVEL_WARNING, "part_killed",
                  LOG_WITH(log_text("part", part->name), log_number("signal", WTERMSIG(part->status))),
                  "%s was killed by signal %d: it is started again%s", part->name, WTERMSIG(part->status), when);
    part->due = now + part->delay;
    if (++part->in_row >= AGAIN_AT_ONCE)
        part->delay = part->delay ? 2 * part->delay : AGAIN_FIRST_NS;
    if (part->delay > AGAIN_MOST_NS)
        part->delay = AGAIN_MOST_NS;
}

static void collect(struct run *run)
{
    for (unsigned i = 0; i < 2; i++)
        if (run->parts[i].pid > 0 && waitpid(run->parts[i].pid, &run->parts[i].status, WNOHANG) == run->parts[i].pid)
            look_at_end(run, &run->parts[i]);
}

static bool gone(const struct part *part)
{
    return part->pid == 0 && part->due == 0;
}

/* Start again who is due. Where the other part has gone for good there is nothing to go on with. */
static void start_again(struct run *run)
{
    for (unsigned i = 0; i < 2; i++) {
        struct part *part = &run->parts[i];
        if (gone(&run->parts[1 - i]))
            part->due = 0;
        else if (part->due && (run->stopping || monotonic() >= part->due))
            start(run, part);
    }
}

/* One has gone for good: the other is told to end, and made to. */
static void see_off(struct run *run)
{
    run->left++;
    if (run->left == 1)
        signal_part(&run->parts[1], SIGTERM);
    if (run->left == LEAVE_TICKS / 2)
        signal_part(&run->parts[0], SIGTERM);
    if (run->left == LEAVE_TICKS) {
        signal_part(&run->parts[0], SIGKILL);
        signal_part(&run->parts[1], SIGKILL);
    }
}

/* Wait until both have gone. The orchestrator ends the switch. */
static void wait_for_both(struct run *run)
{
    struct part *sw = &run->parts[0], *orchestrator = &run->parts[1];
    const struct timespec tick = {.tv_nsec = TICK_NS};
    for (;;) {
        collect(run);
        start_again(run);
        if (gone(sw) && gone(orchestrator))
            return;
        bool one_left = gone(sw) || gone(orchestrator), waits = sw->due || orchestrator->due;
        int number = sigtimedwait(&run->signals, NULL, one_left || waits || run->stopping ? &tick : NULL);
        if (number == SIGINT || number == SIGTERM)
            run->stopping = true;
        else if (one_left && number <= 0)
            see_off(run);
        /* One that was just started again may not listen yet. */
        if (run->stopping && orchestrator->pid && !orchestrator->told && monotonic() - orchestrator->born > TICK_NS)
            signal_part(orchestrator, SIGTERM);
        else if (run->stopping && gone(orchestrator) && !sw->told)
            signal_part(sw, SIGTERM);
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
    if (!WIFEXITED(parts[1].status) || WEXITSTATUS(parts[1].status) == EXIT_AGAIN)
        return RPC_FAILED;
    return WEXITSTATUS(parts[1].status);
}

/* Options as pairs of name and value; a NULL name: it was not given. The first ones are the switch's too. */
enum { RUN_SEED, RUN_FORMAT, RUN_LEVEL, RUN_EVENTS, RUN_REPORT, RUN_RESTORE, RUN_OPTIONS };
#define RUN_OF_SWITCH RUN_EVENTS

static int run_parts(const struct options *options, const char *file, const char *given[RUN_OPTIONS][2],
                     const struct rundir *dir)
{
    const char *sw[2 * RUN_OF_SWITCH + 3] = {"sm-switch"}, *orchestrator[2 * RUN_OPTIONS + 3] = {"sm-orchestrator"};
    struct run run = {.options = options,
                      .notify = -1,
                      .arena = -1,
                      .parts = {{.name = sw[0], .build = "../runtime/switch", .argv = sw},
                                {.name = orchestrator[0], .build = "../orchestrator", .argv = orchestrator}}};
    unsigned s = 1, o = 1;
    for (unsigned k = 0; k < RUN_OPTIONS; k++)
        for (unsigned i = 0; i < 2 && given[k][0]; i++) {
            orchestrator[o++] = given[k][i];
            if (k < RUN_OF_SWITCH)
                sw[s++] = given[k][i];
        }
    sw[s] = orchestrator[o] = file;
    if (keep_arenas(&run, dir) != 0)
        return RPC_FAILED;
    sigemptyset(&run.signals);
    sigaddset(&run.signals, SIGINT);
    sigaddset(&run.signals, SIGTERM);
    sigaddset(&run.signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &run.signals, &run.before);
    if (start(&run, &run.parts[0]) != 0)
        return RPC_FAILED;
    if (start(&run, &run.parts[1]) != 0) {
        signal_part(&run.parts[0], SIGKILL);
        waitpid(run.parts[0].pid, NULL, 0);
        return RPC_FAILED;
    }
    wait_for_both(&run);
    unlink(getenv("NOTIFY_SOCKET"));
    return verdict(options, run.parts);
}

/* In the foreground routine is not told, unless it is asked for. */
static bool begin_log(const char *given[RUN_OPTIONS][2])
{
    log_begin("smctl");
    if (!given[RUN_LEVEL][0]) {
        given[RUN_LEVEL][0] = "--log-level";
        given[RUN_LEVEL][1] = "notice";
    }
    return (!given[RUN_FORMAT][0] || log_set_format(given[RUN_FORMAT][1])) && log_set_level(given[RUN_LEVEL][1]);
}

int cmd_run(struct options *options)
{
    bool wrong = false;
    struct service service;
    struct rundir dir;
    struct sm_errbuf error;
    const char *given[RUN_OPTIONS][2] = {{"--seed"},   {"--log-format"}, {"--log-level"},
                                         {"--events"}, {"--report"},     {"--restore"}};
    for (unsigned i = 0; i < RUN_OPTIONS; i++) {
        given[i][1] = take_option(options, given[i][0], &wrong);
        given[i][0] = given[i][1] ? given[i][0] : NULL;
    }
    const char *target = take_option(options, "--collect", &wrong);
    if (wrong || options->argc != 2)
        return usage(options, "run SERVICE.yaml [--events FILE] [--report FILE] [--restore FILE] [--seed N] "
                              "[--collect FILE|FOLDER] [--log-format text|json] [--log-level LEVEL]");
    if (!begin_log(given))
        return RPC_USAGE;
    options->json |= given[RUN_FORMAT][0] && strcmp(given[RUN_FORMAT][1], "json") == 0;
    if (service_load(&service, options->argv[1], &error) != 0)
        return fail(options, RPC_USAGE, "%s", error.text);
    if (target && collect_check(options, &service, target) != 0) {
        service_free(&service);
        return RPC_USAGE;
    }
    if (given[RUN_RESTORE][0] && access(given[RUN_RESTORE][1], R_OK) != 0) {
        service_free(&service);
        return fail(options, RPC_FAILED, "%s: %s", given[RUN_RESTORE][1], strerror(errno));
    }
    if (given[RUN_EVENTS][0]) {
        struct events parsed;
        if (events_load(&parsed, given[RUN_EVENTS][1], &error) != 0) {
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
    if (result != 0) {
        service_free(&service);
        return fail(options, RPC_FAILED, "%s", error.text);
    }
    int lock = fcntl(dir.lock, F_DUPFD_CLOEXEC, LOCK_FD); /* 3 is where descriptors are handed over */
    if (lock >= 0) {
        rundir_unlock(&dir);
        dir.lock = lock;
    }
    if (lock < 0 || rundir_pass_lock(&dir) != 0) {
        service_free(&service);
        return fail(options, RPC_FAILED, "the lock cannot be handed on");
    }
    struct timespec since; /* by the clock of files */
    clock_gettime(CLOCK_REALTIME_COARSE, &since);
    int status = run_parts(options, options->argv[1], given, &dir);
    if (target) {
        int collected = collect_outputs(options, &service, target, &since);
        status = status ? status : collected;
    }
    rundir_unlock(&dir);
    service_free(&service);
    return status;
}
