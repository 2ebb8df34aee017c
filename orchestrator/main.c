/* SPDX-License-Identifier: BSD-2-Clause */

/* sm-orchestrator: who owns what in one service. */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <splitmerge/version.h>

#include "conf/command_line.h"
#include "daemon/manager.h"
#include "orchestrator.h"

static const char usage[] = "usage: sm-orchestrator [--events FILE] [--report FILE] [--restore FILE]\n"
                            "                       [--run-dir DIR] [--log-format F] [--log-level L] SERVICE.yaml\n"
                            "Start the replicas of a service and give them shards; needs the service's sm-switch.\n"
                            "  --events FILE   operations to run at given packets or times\n"
                            "  --report FILE   write a report when the service ends, as JSON\n"
                            "  --restore FILE  begin with the state of a checkpoint\n"
                            "  --run-dir DIR   where run directories are, instead of SPLITMERGE_RUN\n"
                            "  --log-format F  what the log is written as: text or json\n"
                            "  --log-level L   how much: error, warning, notice or info\n"
                            "  --seed N        taken for symmetry with sm-switch, which decides it\n"
                            "  --help, --version\n";

static int fail(int status, const struct sm_errbuf *error)
{
    log_failure(error->text);
    return status;
}

static int run(struct orchestrator *o, const char *file, const char *events)
{
    struct sm_errbuf error;
    uv_loop_t loop;
    int result = service_load(&o->service, file, &error);
    if (result == 0 && events)
        result = events_load(&o->events, events, &error);
    if (result != 0)
        return fail(2, &error);
    log_of_service(o->service.name);
    log_write(LEVEL_INFO, "started", LOG_WITH(log_text("version", SPLITMERGE_VERSION), log_number("pid", getpid())),
              "service %s: the orchestrator begins", o->service.name);
    if (program_set(&o->program, o->service.exec, o->service.args) != 0) {
        snprintf(error.text, sizeof(error.text), "out of memory");
        return fail(1, &error);
    }
    if (rundir_init(&o->dir, o->service.name, &error) != 0 || rundir_create(&o->dir, &error) != 0)
        return fail(1, &error);
    /* A lock that a parent handed on is not for our replicas to inherit. */
    if (getenv("SPLITMERGE_LOCK_FD") && rundir_lock(&o->dir, &error) != 0)
        return fail(1, &error);
    uv_loop_init(&loop);
    o->loop = &loop;
    if (serve_listen(o, &error) != 0 || metrics_listen(o, &error) != 0) {
        rpc_server_close(o->server);
        uv_run(&loop, UV_RUN_DEFAULT);
        uv_loop_close(&loop);
        return fail(1, &error);
    }
    orchestrator_start(o);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return o->again ? ORCHESTRATOR_AGAIN : report_write(o);
}

int main(int argc, char **argv)
{
    static char path[PATH_MAX];
    static struct orchestrator orchestrator;
    struct orchestrator *o = &orchestrator;
    const char *events = NULL, *restore = NULL, *run_dir = NULL, *seed = NULL, *format = NULL, *level = NULL;
    struct command_line line = {.program = "sm-orchestrator",
                                .usage = usage,
                                .options = {{"events", &events},
                                            {"report", &o->report_file},
                                            {"restore", &restore},
                                            {"run-dir", &run_dir},
                                            {"log-format", &format},
                                            {"log-level", &level},
                                            {"seed", &seed}}};
    int status = command_line_read(&line, argc, argv, stdout, stderr);

    if (status >= 0)
        return status;
    log_begin(line.program);
    manager_begin();
    if ((format && !log_set_format(format)) || (level && !log_set_level(level)))
        return 2;
    if (format)
        setenv(LOG_ENVIRONMENT, format, 1); /* for replicas */
    if (restore && !(o->restore_file = realpath(restore, path))) {
        log_write(LEVEL_ERROR, "failed", LOG_WITH(log_text("file", restore)), "%s: %s", restore, strerror(errno));
        return 1;
    }
    if (run_dir)
        setenv("SPLITMERGE_RUN", run_dir, 1);
    status = run(o, line.operand, events);
    json_decref(o->status);
    free(o->intent);
    if (o->kept_text)
        wire_message_free(o->kept_text);
    children_free(o);
    program_free(&o->program);
    program_free(&o->next);
    events_free(&o->events);
    service_free(&o->service);
    rundir_unlock(&o->dir);
    return status;
}
