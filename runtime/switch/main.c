/* SPDX-License-Identifier: BSD-2-Clause */

/* sm-switch: the switch of one service on this host. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "switch/control.h"

static const char usage[] = "usage: sm-switch [--seed N] SERVICE.yaml\n"
                            "Run the switch of a service: steer packets to replicas, move shards between them.\n"
                            "  --seed N   fix the secret that keys the hash, for tests\n"
                            "  --help, --version\n";

static int open_ports(const struct service *service, struct switch_options *options, struct sm_errbuf *error)
{
    const struct service_in *in = &service->in;
    int result;

    switch (in->kind) {
    case SERVICE_PORT_INTERFACE:
        result = sm_port_open_interface(&options->in, in->name, service->out.kind == SERVICE_PORT_INTERFACE, error);
        break;
    case SERVICE_PORT_GENERATOR:
        result = sm_port_open_generator(&options->in, in->generator.flows, in->generator.size, in->generator.count,
                                        in->generator.rate);
        break;
    default:
        result = sm_port_open_capture(&options->in, in->name, error);
        break;
    }
    if (result)
        return result;
    switch (service->out.kind) {
    case SERVICE_PORT_INTERFACE:
        result = sm_port_open_interface(&options->out, service->out.name, true, error);
        break;
    case SERVICE_PORT_DISCARD:
        result = sm_port_open_null(&options->out, options->in);
        break;
    case SERVICE_PORT_CAPTURE:
        result = sm_port_create_capture(&options->out, service->out.name, options->in, error);
        break;
    default:
        break;
    }
    if (result == 0 && options->out && options->out->linktype != options->in->linktype) {
        snprintf(error->text, sizeof error->text, "ports %s and %s are of different link types", options->in->name,
                 options->out->name);
        result = SM_E_INVALID;
    }
    return result;
}

static int build(struct control *control, const struct service *service, uint64_t seed, struct sm_errbuf *error)
{
    struct switch_options options = {
        .order_arrival = service->out.order == SERVICE_ORDER_ARRIVAL,
        .pace_recorded = service->in.pace == SERVICE_PACE_RECORDED,
        .pace_pps = service->in.pace == SERVICE_PACE_RATE ? (double)service->in.pace_pps : 0,
        .hold_bytes = service->limits.hold_bytes,
        .hold_ns = service->limits.hold_ns,
        .supervised = true,
        .unresponsive_ns = service->limits.unresponsive_ns,
        .poison_file = control->poison_file,
        .notify = worker_notify,
        .notify_arg = &control->worker,
    };
    int result = open_ports(service, &options, error);

    if (result == 0) {
        struct arena_options arena = {
            .service = service->name,
            .linktype = options.in->linktype,
            .mode = service->mode == SERVICE_TAP ? ARENA_TAP : ARENA_INLINE,
            .seed = seed,
            .memory = service->limits.memory,
            .flows = service->limits.flows,
            .bindings = service->limits.bindings,
        };
        result = arena_create(&control->arena, &control->arena_fd, &arena, error);
    }
    if (result == 0) {
        options.arena = control->arena;
        result = switch_create(&control->worker.sw, &options, error);
        if (result == 0)
            return 0;
    }
    struct sm_errbuf ignored;
    if (options.out)
        options.out->ops->close(options.out, false, &ignored);
    if (options.in)
        options.in->ops->close(options.in, false, &ignored);
    return result;
}

static int run(const char *file, uint64_t seed)
{
    static struct control control;
    struct service service = {0};
    struct rundir dir;
    struct sm_errbuf error;

    if (service_load(&service, file, &error) != 0) {
        fprintf(stderr, "sm-switch: %s\n", error.text);
        return 2;
    }
    control = (struct control){.loop = uv_default_loop(), .dir = &dir, .listen_fd = -1};
    snprintf(control.poison_file, sizeof control.poison_file, "%s.poison.pcap", service.name);
    control.mode = service.mode == SERVICE_TAP ? "tap" : "inline";
    control.worker.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rundir_init(&dir, service.name, &error) != 0 || rundir_create(&dir, &error) != 0 ||
        rundir_lock(&dir, &error) != 0 || build(&control, &service, seed, &error) != 0 ||
        control_start(&control, &error) != 0) {
        fprintf(stderr, "sm-switch: %s\n", error.text);
        service_free(&service);
        return 1;
    }
    uv_run(control.loop, UV_RUN_DEFAULT);

    int status = control.worker.sw->error[0] ? 1 : 0;
    worker_stop(&control.worker);
    rpc_server_close(control.server);
    attach_shutdown(&control);
    switch_destroy(control.worker.sw, false, &error);
    arena_unmap(control.arena);
    close(control.arena_fd);
    service_free(&service);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {NULL, 0, NULL, 0}};
    uint64_t seed = 0;
    char *end;

    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 's':
            seed = strtoull(optarg, &end, 0);
            if (*end != '\0' || end == optarg) {
                fprintf(stderr, "sm-switch: --seed: expected a number, got '%s'\n", optarg);
                return 2;
            }
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'V':
            puts("sm-switch " SPLITMERGE_VERSION);
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
    signal(SIGPIPE, SIG_IGN);
    return run(argv[optind], seed);
}
