/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "orchestrator.h"

extern char **environ;

static void on_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;
    child->process.data = NULL;
}

static void ended(struct child *child, int64_t status)
{
    child->alive = false;
    child->status = status;
    orchestrator_child_exited(child->o, child);
}

/* All of its replicas end with it. */
static void process_exited(struct child *host, int64_t status)
{
    host->exited = true;
    for (struct child *child = host->o->children; child; child = child->next)
        if (child->host == host && child->alive)
            ended(child, status);
}

static void on_watched_exit(uv_poll_t *watch, int status, int events)
{
    struct child *host = watch->data;
    (void)status, (void)events;
    uv_close((uv_handle_t *)watch, NULL);
    close(host->pidfd);
    process_exited(host, host->status);
}

/* Who has that process to look after, of those that an orchestrator before us has started. */
static struct child *host_of(struct orchestrator *o, pid_t pid)
{
    struct child *child = o->children;
    while (child && (!child->alive || child->host->pid != pid))
        child = child->next;
    return child ? child->host : NULL;
}

bool child_adopt(struct orchestrator *o, uint32_t id, pid_t pid)
{
    struct child *child = child_note(o, id), *host = host_of(o, pid);
    if (!child || child->alive)
        return true;
    if (!host) {
        child->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (child->pidfd < 0)
            return pid > 0 && errno != ESRCH;
        child->watch.data = child;
        uv_poll_init(o->loop, &child->watch, child->pidfd);
        uv_poll_start(&child->watch, UV_READABLE, on_watched_exit);
        child->pid = pid;
        host = child;
    }
    child->host = host;
    child->since = uv_now(o->loop);
    child->was_ready = true;
    child->alive = true;
    return true;
}

void child_kill(struct child *child, int number)
{
    struct child *host = child->host;
    if (host->exited)
        return;
    if (host->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, host->pidfd, number, NULL, 0);
    else
        uv_process_kill(&host->process, number);
}

void child_left(struct child *child)
{
    if (child->alive)
        ended(child, 0);
}

static void on_exit_of_child(uv_process_t *process, int64_t status, int signal_number)
{
    struct child *host = process->data;
    uv_close((uv_handle_t *)process, on_closed);
    process_exited(host, signal_number ? -signal_number : status);
}

/* What a replica is started with: its own copies, and what uv_spawn() takes. */
struct command {
    char **args;
    char **env;
    int output; /* where its standard output goes; -1: where ours goes */
};

static void command_free(struct command *command)
{
    char **const lists[] = {command->args, command->env};
    for (unsigned k = 0; k < 2; k++) {
        for (char **at = lists[k]; at && *at; at++)
            free(*at);
        free(lists[k]);
    }
    if (command->output >= 0)
        close(command->output);
}

const char *child_name(const struct child *child, char name[static 16])
{
    snprintf(name, 16, "r%u", child->id);
    return name;
}

static bool make_args(struct command *command, const struct child *child, const struct program *program)
{
    unsigned count = 0;
    char name[16];
    while (program->args[count])
        count++;
    command->args = calloc(count + 2, sizeof(*command->args));
    if (!command->args || !(command->args[0] = strdup(program->exec)))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!(command->args[i + 1] = service_expand(program->args[i], child->o->service.name, child_name(child, name))))
            return false;
    return true;
}

static char *variable(const char *format, ...)
{
    char *text;
    va_list values;
    va_start(values, format);
    int length = vasprintf(&text, format, values);
    va_end(values);
    return length < 0 ? NULL : text;
}

/* Who is to be started together: a replica, and those behind it that are to be started too. */
struct crew {
    uint32_t ids[SERVICE_MAX_REPLICAS];
    unsigned count;
    char names[SERVICE_MAX_REPLICAS * 12]; /* "r1,r2" */
};

static void gather(struct crew *crew, const struct orchestrator *o, uint32_t id)
{
    size_t used = 0;
    crew->ids[0] = id;
    crew->count = 1;
    for (unsigned i = 0; i < o->ops.count && crew->count < o->service.threads; i++) {
        const struct ops_replica *replica = &o->ops.replicas[i];
        if (replica->state == OPS_REPLICA_STARTING && replica->id > id &&
            !child_of((struct orchestrator *)(uintptr_t)o, replica->id))
            crew->ids[crew->count++] = replica->id;
    }
    for (unsigned i = 0; i < crew->count; i++)
        used += (size_t)snprintf(crew->names + used, sizeof(crew->names) - used, "%sr%u", i ? "," : "", crew->ids[i]);
}

/* Ours, and what a replica goes by; `library`: the drop-in, behind what else is to be loaded first. NULL: none. */
static bool make_env(struct command *command, struct orchestrator *o, const char *names, const char *library)
{
    char attach[108];
    unsigned count = 0, n = 0;
    while (environ[count])
        count++;
    char **env = command->env = calloc(count + 4, sizeof(*env));
    if (!env)
        return false;
    env[n++] = variable("SPLITMERGE_ATTACH=%s", rundir_file(&o->dir, "attach.sock", attach)); /* getenv() finds these */
    env[n++] = variable("SPLITMERGE_REPLICA=%s", names);
    if (library) {
        const char *before = getenv("LD_PRELOAD");
        env[n++] = variable("LD_PRELOAD=%s%s%s", before ? before : "", before ? ":" : "", library);
    }
    for (unsigned i = 0; i < n; i++)
        if (!env[i])
            return false;
    for (unsigned i = 0; i < count; i++) {
        if (library && strncmp(environ[i], "LD_PRELOAD=", 11) == 0)
            continue; /* the loader goes by the last */
        if (!(env[n++] = strdup(environ[i])))
            return false;
    }
    return true;
}

static int open_output(struct command *command, const struct child *child, struct sm_errbuf *error)
{
    const struct service *service = &child->o->service;
    char name[16];
    if (!service->output)
        return 0;
    char *file = service_expand(service->output, service->name, child_name(child, name));
    command->output = file ? open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (command->output < 0)
        snprintf(error->text, sizeof(error->text), "output of replica r%u: '%.150s' cannot be written: %s", child->id,
                 file ? file : service->output, strerror(errno));
    free(file);
    return command->output < 0 ? SM_E_IO : 0;
}

/* Of the service's processors those that fewest replicas are bound to: one for each of so many replicas. */
static void choose_processors(const struct orchestrator *o, unsigned count, cpu_set_t *chosen)
{
    const cpu_set_t *ours = &o->service.cpus.replicas;
    unsigned bound[CPU_SETSIZE] = {0};
    cpu_set_t its;
    for (const struct child *child = o->children; child; child = child->next)
        if (child->alive && sched_getaffinity(child->host->pid, sizeof its, &its) == 0)
            for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
                bound[cpu] += CPU_ISSET(cpu, &its) != 0;
    CPU_ZERO(chosen);
    for (; count > 0; count--) {
        unsigned best = CPU_SETSIZE;
        for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, ours) && (best == CPU_SETSIZE || bound[cpu] < bound[best]))
                best = cpu;
        bound[best]++;
        CPU_SET(best, chosen);
    }
}

/* uv_spawn(), on the service's processors. */
static int spawn_bound(struct child *child, unsigned count, const uv_process_options_t *options)
{
    cpu_set_t before, chosen;
    bool bind = CPU_COUNT(&child->o->service.cpus.replicas) > 0 && sched_getaffinity(0, sizeof before, &before) == 0;
    if (bind) {
        choose_processors(child->o, count, &chosen);
        sched_setaffinity(0, sizeof chosen, &chosen); /* a process begins on those of the thread that makes it */
    }
    int result = uv_spawn(child->o->loop, &child->process, options);
    if (bind)
        sched_setaffinity(0, sizeof before, &before);
    return result;
}

static int run_program(struct child *child, const struct crew *crew, const char *file, const struct program *program,
                       const char *library, struct sm_errbuf *error)
{
    struct command command = {.output = -1};
    if (!make_args(&command, child, program) || !make_env(&command, child->o, crew->names, library)) {
        command_free(&command);
        snprintf(error->text, sizeof(error->text), "out of memory");
        return SM_E_NO_MEMORY;
    }
    if (open_output(&command, child, error) != 0) {
        command_free(&command);
        return SM_E_IO;
    }
    uv_stdio_container_t stdio[] = {{.flags = UV_IGNORE},
                                    {.flags = UV_INHERIT_FD, .data.fd = command.output >= 0 ? command.output : 1},
                                    {.flags = UV_INHERIT_FD, .data.fd = 2}};
    /* In a session of its own: the terminal's interrupt is for us, who end replicas in order. */
    uv_process_options_t options = {
        .file = file,
        .args = command.args,
        .env = command.env,
        .exit_cb = on_exit_of_child,
        .flags = UV_PROCESS_DETACHED,
        .stdio = stdio,
        .stdio_count = 3,
    };
    int result = spawn_bound(child, crew->count, &options);
    child->process.data = child;
    child->pid = child->process.pid;
    command_free(&command);
    if (result == 0)
        return 0;
    child->status = 127;
    uv_close((uv_handle_t *)&child->process, on_closed);
    snprintf(error->text, sizeof(error->text), "middlebox '%.100s' cannot be started: %s", file, uv_strerror(result));
    return SM_E_IO;
}

/* One of those that a process was started with. */
static int started(struct child *host, uint32_t id, const struct program *program, const char *file,
                   struct sm_errbuf *error)
{
    char name[16];
    struct child *child = child_note(host->o, id);
    if (!child) {
        snprintf(error->text, sizeof(error->text), "out of memory");
        child_kill(host, SIGKILL);
        return SM_E_NO_MEMORY;
    }
    free(child->exec);
    child->exec = strdup(program->exec);
    child->host = host;
    child->since = uv_now(host->o->loop);
    child->alive = true;
    log_write(LEVEL_INFO, "replica_started",
              LOG_WITH(log_text("replica", child_name(child, name)), log_number("pid", host->pid)),
              "replica %s is started: %s", name, file);
    return 0;
}

int child_spawn(struct orchestrator *o, uint32_t id, struct sm_errbuf *error)
{
    char file[4096], library[4096];
    const struct ops_replica *replica = ops_replica(&o->ops, id);
    const struct program *program =
        replica && replica->fresh && o->ops.request.verb == OPS_UPGRADE && o->next.exec ? &o->next : &o->program;
    bool pcap = o->service.pcap || program_uses_pcap(program);
    struct crew crew;
    if (child_of(o, id))
        return 0;
    gather(&crew, o, id);
    int result = program_find(program->exec, file, sizeof(file), error);
    if (result == 0 && pcap)
        result = program_find_pcap(library, sizeof(library), error);
    if (result != 0)
        return result;
    struct child *host = child_note(o, id);
    if (!host) {
        snprintf(error->text, sizeof(error->text), "out of memory");
        return SM_E_NO_MEMORY;
    }
    result = run_program(host, &crew, file, program, pcap ? library : NULL, error);
    for (unsigned i = 0; result == 0 && i < crew.count; i++)
        result = started(host, crew.ids[i], program, file, error);
    return result;
}

struct child *child_note(struct orchestrator *o, uint32_t id)
{
    struct child **link = &o->children;
    while (*link && (*link)->id < id)
        link = &(*link)->next;
    if (*link && (*link)->id == id)
        return *link;
    struct child *child = calloc(1, sizeof(*child));
    if (!child)
        return NULL;
    *child = (struct child){.o = o, .id = id, .host = child, .pidfd = -1, .status = CHILD_UNKNOWN, .next = *link};
    *link = child;
    return child;
}

struct child *child_of(struct orchestrator *o, uint32_t id)
{
    struct child *child = o->children;
    while (child && child->id != id)
        child = child->next;
    return child;
}

unsigned children_alive(const struct orchestrator *o)
{
    unsigned count = 0;
    for (const struct child *child = o->children; child; child = child->next)
        count += child->alive;
    return count;
}

void children_kill(struct orchestrator *o, int signal_number)
{
    for (struct child *child = o->children; child; child = child->next)
        if (child->alive)
            child_kill(child, signal_number);
}

void children_free(struct orchestrator *o)
{
    while (o->children) {
        struct child *child = o->children;
        o->children = child->next;
        free(child->exec);
        free(child);
    }
}

void children_learn(struct orchestrator *o, const struct wire_value *status)
{
    const struct wire_value *list = wire_get_array(status, "replicas");
    for (unsigned i = 0; i < wire_count(list); i++) {
        const struct wire_value *replica = wire_item(list, i);
        struct child *child = child_of(o, (uint32_t)wire_get_uint(replica, "id", 0));
        if (!child)
            continue;
        child->packets = wire_get_uint(replica, "packets", child->packets);
        child->shards = (uint32_t)wire_get_uint(replica, "shards", 0);
    }
}

const char *child_how(const struct child *child, char text[static 48])
{
    if (child->status == CHILD_UNKNOWN)
        snprintf(text, 48, "ended");
    else if (child->status < 0)
        snprintf(text, 48, "was killed by signal %d", (int)-child->status);
    else
        snprintf(text, 48, "exited with status %d", (int)child->status);
    return text;
}
