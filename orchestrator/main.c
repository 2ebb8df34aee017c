/* SPDX-License-Identifier: BSD-2-Clause */

/* sm-orchestrator: who owns what in one service. */

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <splitmerge/version.h>

#include "orchestrator.h"

static const char usage[] = "usage: sm-orchestrator [--events FILE] [--report FILE] [--restore FILE]\n"
                            "                       [--run-dir DIR] SERVICE.yaml\n"
                            "Start the replicas of a service and give them shards; needs the service's sm-switch.\n"
                            "  --events FILE   operations to run at given packets or times\n"
                            "  --report FILE   write a report when the service ends, as JSON\n"
                            "  --restore FILE  begin with the state of a checkpoint\n"
                            "  --run-dir DIR   where run directories are, instead of SPLITMERGE_RUN\n"
                            "  --seed N        taken for symmetry with sm-switch, which decides it\n"
                            "  --help, --version\n";

static int fail(int status, const struct sm_errbuf *error)
{
    fprintf(stderr, "sm-orchestrator: %s\n", error->text);
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
    static const struct option options[] = {
        {"events", required_argument, NULL, 'e'},  {"report", required_argument, NULL, 'r'},
        {"restore", required_argument, NULL, 'R'}, {"run-dir", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 's'},    {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},       {NULL, 0, NULL, 0},
    };
    static char restore[PATH_MAX];
    static struct orchestrator orchestrator;
    struct orchestrator *o = &orchestrator;
    const char *events = NULL;

    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'e':
            events = optarg;
            break;
        case 'r':
            o->report_file = optarg;
            break;
        case 'R':
            o->restore_file = realpath(optarg, restore);
            if (!o->restore_file) {
                fprintf(stderr, "sm-orchestrator: %s: %s\n", optarg, strerror(errno));
                return 1;
            }
            break;
        case 'd':
            setenv("SPLITMERGE_RUN", optarg, 1);
            break;
        case 's':
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'V':
            puts("sm-orchestrator " SPLITMERGE_VERSION);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    if (argc - optind != 1) {
        fputs(usage, stderr);
        return 2;
    }
    int status = run(o, argv[optind], events);
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
