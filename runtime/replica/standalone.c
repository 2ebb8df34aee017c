/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A program as its own host with one replica: the same switch and the same rings, taking turns on one thread. It is
 * how a middlebox is developed, and what a split service is compared with.
 */

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "arena/builds.h"
#include "replica/replica.h"
#include "switch/report.h"
#include "switch/switch.h"

#define DEFAULT_FLOWS 4194304u
#define DEFAULT_MEMORY (1ull << 30)
#define TAKE_OVER_NS 10000000000ull /* for all shards to go to an heir */

struct standalone {
    struct sm_switch *sw;
    struct sm_replica *replica; /* that runs; another one is its heir in the making */
    uint32_t heirs;             /* there have been so many */
    char *report;
    int wait_fd;  /* readable when a port has packets or the timer is due; -1: the input cannot be waited for */
    int timer_fd; /* for delayed packets; -1 as well */
    bool timer_set;
    bool finished;
    int result; /* once finished */
};

static int open_input(struct sm_port **port, const char *name, bool send, struct sm_errbuf *error)
{
    const char *prefix = "interface:";

    if (strncmp(name, prefix, strlen(prefix)) == 0)
        return sm_port_open_interface(port, name + strlen(prefix), send, error);
    return sm_port_open_capture(port, name, error);
}

static int open_output(struct sm_port **port, const char *name, const struct sm_port *in, struct sm_errbuf *error)
{
    const char *prefix = "interface:";

    if (strncmp(name, prefix, strlen(prefix)) == 0)
        return sm_port_open_interface(port, name + strlen(prefix), true, error);
    return sm_port_create_capture(port, name, in, error);
}

static int open_arena(struct sm_replica *replica, const struct sm_options *options, const struct sm_port *in,
                      struct sm_errbuf *error)
{
    struct arena_options arena = {
        .service = options->name,
        .linktype = in->linktype,
        .mode = options->output ? ARENA_INLINE : ARENA_TAP,
        .memory = options->memory ? options->memory : DEFAULT_MEMORY,
        .bindings = options->max_bindings,
        .flows = options->max_flows ? options->max_flows : DEFAULT_FLOWS,
        .small_buffers = 1024,
        .jumbo_buffers = 8,
    };
    int fd;
    int result = arena_create(&replica->arena, &fd, &arena, error);

    if (result == 0)
        close(fd); /* the mapping is enough: nobody else will come */
    return result;
}

/* Both ports receive where both are interfaces; a program with a loop of its own waits for one descriptor. */
static int open_wait_fd(struct standalone *standalone, struct sm_port *const ports[2])
{
    standalone->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    if (standalone->wait_fd < 0)
        return SM_E_IO;
    bool any = false;
    for (unsigned i = 0; i < 2 && ports[0]->is_interface; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        int fd = ports[i] && ports[i]->is_interface && ports[i]->ops->receive ? ports[i]->ops->fd(ports[i]) : -1;
        if (fd < 0)
            continue;
        if (epoll_ctl(standalone->wait_fd, EPOLL_CTL_ADD, fd, &event) != 0)
            return SM_E_IO;
        any = true;
    }
    if (!any) {
        close(standalone->wait_fd);
        standalone->wait_fd = -1;
        return 0;
    }
    struct epoll_event timer = {.events = EPOLLIN};
    standalone->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return standalone->timer_fd >= 0 && epoll_ctl(standalone->wait_fd, EPOLL_CTL_ADD, standalone->timer_fd, &timer) == 0
               ? 0
               : SM_E_IO;
}

int standalone_open(struct sm_replica *replica, const struct sm_options *options, struct sm_errbuf *error)
{
    struct switch_options sw = {.hold_bytes = UINT64_MAX, .hold_ns = UINT64_MAX};
    struct standalone *standalone = calloc(1, sizeof *standalone);
    int result = standalone ? 0 : SM_E_NO_MEMORY;

    replica->standalone = standalone;
    if (standalone)
        standalone->wait_fd = standalone->timer_fd = -1;
    if (result == 0)
        result = open_input(&sw.in, options->input, options->output != NULL, error);
    if (result == 0 && options->output)
        result = open_output(&sw.out, options->output, sw.in, error);
    if (result == 0 && sw.out && sw.out->linktype != sw.in->linktype) {
        snprintf(error->text, sizeof error->text, "%s and %s are of different link types", sw.in->name, sw.out->name);
        result = SM_E_INVALID;
    }
    if (result == 0 && options->report && !(standalone->report = strdup(options->report)))
        result = SM_E_NO_MEMORY;
    if (result == 0)
        result = open_wait_fd(standalone, (struct sm_port *[]){sw.in, sw.out});
    if (result == 0)
        result = open_arena(replica, options, sw.in, error);
    if (result == 0) {
        sw.arena = replica->arena;
        sw.order_arrival = !sw.in->is_interface;
        sw.shape_bytes = options->shape_memory;
        result = switch_create(&standalone->sw, &sw, error);
    }
    if (result == 0) {
        standalone->replica = replica;
        switch_slot_take(standalone->sw, 1, "r1", getpid(), -1);
        return replica_bind(replica, replica->arena, 0);
    }
    if (!standalone || !standalone->sw) {
        struct sm_errbuf ignored;
        if (sw.out)
            sw.out->ops->close(sw.out, false, &ignored);
        if (sw.in)
            sw.in->ops->close(sw.in, false, &ignored);
    }
    return result;
}

int sm_open_heir(struct sm_replica *replica, void *user, struct sm_replica **out, struct sm_errbuf *error)
{
    struct standalone *standalone = replica->standalone;
    struct sm_replica *heir = NULL;
    struct sm_errbuf ignored;
    char name[16];
    int result =
        !standalone || standalone->finished || standalone->replica != replica || !replica->started ? SM_E_STATE : 0;
    *out = NULL;
    if (result == 0)
        result = builds_open(replica->arena, true, false, error ? error : &ignored);
    if (result == 0)
        heir = calloc(1, sizeof *heir);
    if (heir)
        heir->registration = calloc(1, sizeof *heir->registration);
    if (result == 0 && (!heir || !heir->registration))
        result = SM_E_NO_MEMORY;
    if (result == 0) {
        snprintf(name, sizeof name, "r%u", ++standalone->heirs + 1);
        int slot = switch_slot_take(standalone->sw, standalone->heirs + 1, name, getpid(), -1);
        result = slot < 0 ? slot : replica_bind(heir, replica->arena, (unsigned)slot);
    }
    if (result) {
        if (heir)
            free(heir->registration);
        free(heir);
        return result;
    }
    const struct registration *base = &builds_base(replica->arena)->registration;
    memcpy(heir->registration->middlebox, base->middlebox, sizeof base->middlebox);
    heir->registration->sends = base->sends;
    heir->registration->delays = heir->delays = replica->delays;
    heir->standalone = standalone;
    heir->on_packet = replica->on_packet;
    heir->user = user;
    *out = heir;
    return 0;
}

/* Both replicas and the switch take turns. */
static void take_turns(struct sm_replica *replica, struct sm_replica *heir)
{
    switch_poll(replica->standalone->sw);
    replica_burst(replica, CHANNEL_BURST);
    replica_burst(heir, CHANNEL_BURST);
}

/* Flows that the middlebox holds stay where they are until it lets them go, which may be never: then none has gone. */
static bool move_all(struct sm_replica *replica, struct sm_replica *from, struct sm_replica *to)
{
    struct sm_switch *sw = replica->standalone->sw;

    if (switch_move_begin(sw, sw->now + TAKE_OVER_NS, false) != 0)
        return false;
    switch_move_add(sw, 0, SM_SHARDS - 1, to->slot);
    sw->operation.settle = true;
    switch_move_go(sw);
    while (sw->operation.active && !sw->error[0])
        take_turns(from, to);
    return sw->slots[from->slot].shards == 0 && !sw->error[0];
}

/* A slot of ours that has nothing any more, or never had. */
static void leave_slot(struct sm_replica *replica)
{
    unsigned slot = replica->slot;

    replica_unbind(replica);
    switch_slot_died(replica->standalone->sw, slot);
}

int sm_inherit(struct sm_replica *heir, struct sm_errbuf *error)
{
    struct standalone *standalone = heir->standalone;
    struct sm_replica *replica = standalone ? standalone->replica : NULL;

    if (!replica || replica == heir || !heir->started)
        return SM_E_STATE;
    /* Nothing is read meanwhile: that may wait for whoever writes it. */
    switch_gate(standalone->sw, standalone->sw->entered, false, 0);
    if (!move_all(replica, replica, heir) || switch_slot_retire(standalone->sw, replica->slot) != 0) {
        move_all(replica, heir, replica);
        switch_open_gate(standalone->sw);
        if (error)
            snprintf(error->text, sizeof error->text, "flows that are held cannot be taken over now");
        return SM_E_AGAIN;
    }
    while (!replica->retired)
        take_turns(replica, heir);
    leave_slot(replica);
    builds_close(heir->arena, true);
    switch_open_gate(standalone->sw);
    heir->stop = replica->stop;
    standalone->replica = heir;
    replica->standalone = NULL;
    return 0;
}

int standalone_start(struct sm_replica *replica, struct sm_errbuf *error)
{
    struct standalone *standalone = replica->standalone;
    struct sm_switch *sw = standalone->sw;
    int result = arena_register(replica->arena, replica->slot, replica->registration, error);

    if (result)
        return result;
    if (standalone->replica != replica) {
        switch_slot_ready(sw, replica->slot);
        return 0;
    }
    switch_slot_ready(sw, 0);
    switch_assign(sw, 0, SM_SHARDS - 1, 0);
    switch_start(sw);
    return 0;
}

static int write_report(const struct standalone *standalone, struct sm_errbuf *error)
{
    json_t *report = switch_report(standalone->sw);
    int result = report && json_dump_file(report, standalone->report, JSON_INDENT(2)) == 0 ? 0 : SM_E_IO;

    if (result)
        snprintf(error->text, sizeof error->text, "%s: cannot write the report", standalone->report);
    json_decref(report);
    return result;
}

/* The input has ended and everything is back: close the files, write the report, and settle the result. */
static int finish(struct sm_replica *replica)
{
    struct standalone *standalone = replica->standalone;
    struct sm_switch *sw = standalone->sw;
    struct sm_errbuf *error = &replica->last_error;
    bool damaged = sw->input_result != SM_E_END;
    int result = sw->error[0] ? SM_E_IO : damaged ? sw->input_result : 0;

    if (sw->error[0])
        memcpy(error->text, sw->error, sizeof error->text);
    else if (damaged)
        memcpy(error->text, sw->input_error.text, sizeof error->text);
    standalone->finished = true;
    switch_finish(sw);
    if (standalone->report && write_report(standalone, error) != 0 && result == 0)
        result = SM_E_IO;
    struct sm_errbuf closing;
    if (switch_close_ports(sw, result == 0 && !sw->input_cut, &closing) != 0 && result == 0) {
        *error = closing;
        result = SM_E_IO;
    }
    standalone->result = result ? result : SM_E_END;
    return standalone->result;
}

int standalone_poll(struct sm_replica *replica, unsigned budget)
{
    struct standalone *standalone = replica->standalone;

    if (standalone->finished)
        return standalone->result;
    if (replica->stop)
        switch_stop_input(standalone->sw);
    unsigned done = switch_poll(standalone->sw);
    for (unsigned n = 1; n > 0 && budget > 0; budget -= n < budget ? n : budget)
        done += n = replica_burst(replica, budget);
    if (standalone->sw->state == SWITCH_ENDED || standalone->sw->error[0])
        return finish(replica);
    return (int)done;
}

int standalone_sleep_fd(struct sm_replica *replica)
{
    struct standalone *standalone = replica->standalone;
    bool wanted = standalone->sw->shape_first != SHAPE_NONE;

    if (standalone->wait_fd < 0)
        return SM_E_AGAIN;
    if (!wanted && !standalone->timer_set)
        return standalone->wait_fd;
    int64_t ns = wanted ? switch_sleep_ns(standalone->sw) : 0; /* 0 unsets it */
    const struct itimerspec due = {.it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}};
    if ((wanted && ns <= 0) || timerfd_settime(standalone->timer_fd, 0, &due, NULL) != 0)
        return SM_E_AGAIN;
    standalone->timer_set = wanted;
    return standalone->wait_fd;
}

void standalone_close(struct sm_replica *replica)
{
    struct standalone *standalone = replica->standalone;
    struct sm_errbuf ignored;

    if (standalone->replica && standalone->replica != replica) { /* an heir that did not come to it */
        leave_slot(replica);
        builds_close(standalone->replica->arena, false);
        return;
    }
    replica_unbind(replica);
    if (standalone->sw)
        switch_destroy(standalone->sw, false, &ignored);
    if (replica->arena)
        arena_unmap(replica->arena);
    if (standalone->wait_fd >= 0)
        close(standalone->wait_fd);
    if (standalone->timer_fd >= 0)
        close(standalone->timer_fd);
    free(standalone->report);
    free(standalone);
}
