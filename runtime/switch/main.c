/* SPDX-License-Identifier: BSD-2-Clause */

/* sm-switch: the switch of one service on this host. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "arena/core.h"
#include "arena/huge.h"
#include "conf/command_line.h"
#include "conf/rundir.h"
#include "conf/service.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "switch/control.h"
#include "switch/drivers.h"
#include "switch/keeper.h"

static const char usage[] = "usage: sm-switch [--seed N] [--log-format F] [--log-level L] SERVICE.yaml\n"
                            "Run the switch of a service: steer packets to replicas, move shards between them.\n"
                            "  --seed N        fix the secret that keys the hash, for tests\n"
                            "  --log-format F  what the log is written as: text or json\n"
                            "  --log-level L   how much: error, warning, notice or info\n"
                            "  --help, --version\n";

/* What a switch before us has left: where the input is, and whether anything has been written. */
struct inheritance {
    uint64_t position; /* packets read */
    bool resumed;      /* the output is to be gone on with */
};

/* Packets that a generator is to make; 0: no end. Without a rate it makes them all again, to be skipped. */
static uint64_t packets_left(const struct service_in *in, const struct inheritance *left)
{
    uint64_t count = in->generator.count;

    if (count == 0 || in->generator.rate == 0)
        return count;
    return count > left->position ? count - left->position : 1;
}

static uint64_t to_skip(const struct service_in *in, const struct inheritance *left)
{
    if (in->kind == SERVICE_PORT_INTERFACE)
        return 0;
    if (in->kind != SERVICE_PORT_GENERATOR || in->generator.rate == 0)
        return left->position;
    return in->generator.count > 0 && left->position >= in->generator.count ? 1 : 0;
}

static int open_in(const struct service_in *in, bool both, const struct inheritance *left, struct sm_port **port,
                   struct sm_errbuf *error)
{
    switch (in->kind) {
    case SERVICE_PORT_INTERFACE:
        return sm_port_open_interface(port, in->name, both, error);
    case SERVICE_PORT_GENERATOR:
        return sm_port_open_generator(port, in->generator.flows, in->generator.size, packets_left(in, left),
                                      in->generator.rate);
    default:
        if (left->resumed && strcmp(in->name, "-") == 0) {
            snprintf(error->text, sizeof error->text,
                     "standard input cannot be gone on with behind packet %llu: the switch that read it has died",
                     (unsigned long long)left->position);
            return SM_E_INVALID;
        }
        return sm_port_open_capture(port, in->name, error);
    }
}

static int open_ports(const struct service *service, const struct inheritance *left, struct switch_options *options,
                      struct sm_errbuf *error)
{
    int result = open_in(&service->in, service->out.kind == SERVICE_PORT_INTERFACE, left, &options->in, error);

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
        result = (left->resumed ? sm_port_continue_capture : sm_port_create_capture)(&options->out, service->out.name,
                                                                                     options->in, error);
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

/* Take what was left, once nobody uses it any more. */
static int inherit(int fd, struct inheritance *left, struct sm_errbuf *error)
{
    struct arena *arena;
    int result = arena_peek(&arena, fd, error);

    if (result)
        return result;
    atomic_fetch_add_explicit(&arena->generation, 1, memory_order_seq_cst);
    result = keeper_await_replicas(fd, error);
    uint64_t state = atomic_load(&arena->ledger.state);
    *left = (struct inheritance){.position = atomic_load(&arena->ledger.position), .resumed = state != SWITCH_WAITING};
    if (result == 0 && state == SWITCH_FINISHED) {
        snprintf(error->text, sizeof error->text, "the service had ended when its switch died");
        result = SM_E_STATE;
    }
    arena_unmap(arena);
    return result;
}

static int make_arena(struct control *control, const struct arena_options *options, struct sm_errbuf *error)
{
    if (control->arena_fd >= 0)
        return arena_take_over(&control->arena, control->arena_fd, options, error);
    int result = arena_create(&control->arena, &control->arena_fd, options, error);
    if (result == 0 && manager_store(control->arena_fd, KEEPER_NAME, error) != 0) /* the service runs as well without */
        log_write(LEVEL_WARNING, "arena_not_kept", LOG_WITH(log_text("reason", error->text)), "%s", error->text);
    return result;
}

static void say_drivers(const struct switch_options *options)
{
    const struct sm_port *const ports[] = {options->in, options->out};

    for (unsigned i = 0; i < 2; i++)
        if (ports[i] && ports[i]->is_interface)
            log_write(LEVEL_NOTICE, "port_opened",
                      LOG_WITH(log_text("port", ports[i]->name), log_text("driver", ports[i]->driver),
                               log_text("reason", ports[i]->why.text[0] ? ports[i]->why.text : NULL)),
                      "%s: %s%s%s", ports[i]->name, ports[i]->driver, ports[i]->why.text[0] ? ": " : "",
                      ports[i]->why.text);
}

static int build(struct control *control, const struct service *service, uint64_t seed, struct sm_errbuf *error)
{
    struct switch_options options = {
        .order_arrival = service->out.order == SERVICE_ORDER_ARRIVAL,
        .pace_recorded = service->in.pace == SERVICE_PACE_RECORDED,
        .pace_pps = service->in.pace == SERVICE_PACE_RATE ? (double)service->in.pace_pps : 0,
        .hold_bytes = service->limits.hold_bytes,
        .hold_ns = service->limits.hold_ns,
        .shape_bytes = service->limits.shape_bytes,
        .supervised = true,
        .unresponsive_ns = service->limits.unresponsive_ns,
        .affinity_ns = service_stays(service->strategy) ? service->idle_ns : 0,
        .affinity_flows = service->limits.flows,
        .poison_file = control->poison_file,
        .notify = worker_notify,
        .notify_arg = &control->worker,
    };
    struct inheritance left = {0};
    bool taken = control->arena_fd >= 0;
    int result = taken ? inherit(control->arena_fd, &left, error) : 0;

    if (result == 0 && taken && !left.resumed) { /* nothing had been read: begin anew, with an arena that is empty */
        manager_discard(KEEPER_NAME);
        close(control->arena_fd);
        control->arena_fd = -1;
        taken = false;
    }
    if (result == 0)
        result = open_ports(service, &left, &options, error);
    if (result == 0) {
        struct arena_options arena = {
            .service = service->name,
            .linktype = options.in->linktype,
            .mode = service->mode == SERVICE_TAP ? ARENA_TAP : ARENA_INLINE,
            .own_flows = service->strategy != SERVICE_MOVE,
            .steered = service->steered,
            .steering = {.granularity = (uint8_t)service->steer},
            .seed = seed,
            .memory = service->limits.memory,
            .flows = service->limits.flows,
            .bindings = service->limits.bindings,
            .small_buffers = POOL_SMALL_COUNT + drivers_buffers(service, &options),
        };
        result = make_arena(control, &arena, error);
    }
    if (result == 0)
        result = drivers_choose(service, &options, control->arena, control->arena_fd, error);
    if (result == 0)
        say_drivers(&options);
    if (result == 0) {
        arena_huge_begin(control->arena);
        options.arena = control->arena;
        result = switch_create(&control->worker.sw, &options, error);
    }
    if (result == 0) {
        const struct switch_left ports = {
            .skip = to_skip(&service->in, &left),
            .counted = service->out.kind == SERVICE_PORT_CAPTURE,
            .written = options.out ? options.out->counters.tx_packets : 0,
        };
        return taken ? switch_resume(control->worker.sw, &ports, error) : 0;
    }
    struct sm_errbuf ignored;
    if (options.out)
        options.out->ops->close(options.out, false, &ignored);
    if (options.in)
        options.in->ops->close(options.in, false, &ignored);
    return result;
}

static void say_started(const struct control *control, const struct service *service)
{
    bool resumed = atomic_load(&control->arena->generation) > 0;

    log_write(LEVEL_INFO, "started",
              LOG_WITH(log_text("version", SPLITMERGE_VERSION), log_number("pid", getpid()),
                       log_text("arena", resumed ? "taken over" : "new")),
              "service %s: the switch %s", service->name, resumed ? "goes on" : "begins");
    manager_tell("READY=1\nSTATUS=The switch runs");
}

static int run(const char *file, uint64_t seed)
{
    static struct control control;
    struct service service = {0};
    struct rundir dir;
    struct sm_errbuf error;

    if (service_load(&service, file, &error) != 0) {
        log_failure(error.text);
        return 2;
    }
    log_of_service(service.name);
    core_choose(&service.cpus.worker);
    control = (struct control){
        .loop = uv_default_loop(), .dir = &dir, .listen_fd = -1, .arena_fd = manager_kept(KEEPER_NAME)};
    snprintf(control.poison_file, sizeof control.poison_file, "%s.poison.pcap", service.name);
    control.mode = service.mode == SERVICE_TAP ? "tap" : "inline";
    control.worker.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rundir_init(&dir, service.name, &error) != 0 || rundir_create(&dir, &error) != 0 ||
        rundir_lock(&dir, &error) != 0 || build(&control, &service, seed, &error) != 0 ||
        control_start(&control, &error) != 0) {
        log_failure(error.text);
        service_free(&service);
        return 1;
    }
    say_started(&control, &service);
    uv_run(control.loop, UV_RUN_DEFAULT);
    checkpoint_end(&control);

    manager_tell("STOPPING=1");
    manager_discard(KEEPER_NAME); /* it has ended by itself: there is nothing to go on with */
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
    const char *given = NULL, *format = NULL, *level = NULL;
    struct command_line line = {.program = "sm-switch",
                                .usage = usage,
                                .options = {{"seed", &given}, {"log-format", &format}, {"log-level", &level}}};
    int status = command_line_read(&line, argc, argv, stdout, stderr);
    char *end = NULL;

    if (status >= 0)
        return status;
    log_begin(line.program);
    manager_begin();
    if ((format && !log_set_format(format)) || (level && !log_set_level(level)))
        return 2;
    uint64_t seed = given ? strtoull(given, &end, 0) : 0;
    if (given && (*end != '\0' || end == given)) {
        log_write(LEVEL_ERROR, "refused", LOG_PLAIN, "--seed: expected a number, got '%s'", given);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    return run(line.operand, seed);
}
