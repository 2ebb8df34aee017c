/* SPDX-License-Identifier: BSD-2-Clause */
#include "service.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena/huge.h"
#include "replay.h"

#define YIELD_NS 50000 /* as replicas of a real service do: see sm_run() */
#define PATIENCE_NS 30000000000ull
#define MOVE_PATIENCE_NS 60000000000ull

/* Nothing has come: yield for a while, then sleep. */
static void wait_for_input(const struct service_replica *self)
{
    struct channel *channel = self->replica->channel;
    uint64_t wakes;

    for (uint64_t start = bench_now(); !self->sleepy && bench_now() - start < YIELD_NS; sched_yield())
        if (replica_has_input(self->replica))
            return;
    atomic_store_explicit(&channel->replica_sleeps, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!replica_has_input(self->replica)) {
        struct pollfd wait = {.fd = self->wake_fd, .events = POLLIN};
        poll(&wait, 1, -1);
    }
    atomic_store_explicit(&channel->replica_sleeps, 0, memory_order_relaxed);
    if (read(self->wake_fd, &wakes, sizeof wakes) < 0)
        return; /* it had not been written: no wake-up to clear */
}

void service_work(const struct service_replica *self)
{
    bench_pin(self->core);
    while (!self->replica->retired)
        if (replica_burst(self->replica, CHANNEL_BURST) == 0)
            wait_for_input(self);
}

static void *run_replica(void *arg)
{
    service_work(arg);
    return NULL;
}

/* All of them in turns; it never sleeps. */
static void *run_all(void *arg)
{
    struct service *service = arg;
    unsigned at_work;

    bench_pin(1);
    do {
        unsigned done = 0;
        at_work = 0;
        for (unsigned i = 0; i < service->count; i++) {
            struct sm_replica *replica = service->replicas[i].replica;
            at_work += !replica->retired;
            done += replica->retired ? 0 : replica_burst(replica, CHANNEL_BURST);
        }
        if (done == 0)
            sched_yield();
    } while (at_work > 0);
    return NULL;
}

static int add_replica(struct service *service, struct sm_errbuf *error)
{
    struct service_replica *self = &service->replicas[service->count];
    struct sm_replica *replica = calloc(1, sizeof *replica);
    struct registration *registration = calloc(1, sizeof *registration);
    char name[16];

    if (!replica || !registration) {
        free(replica);
        free(registration);
        return SM_E_NO_MEMORY;
    }
    snprintf(name, sizeof name, "r%u", service->count + 1);
    self->core = service->options.spread ? service->count % 2 : 1;
    self->wake_fd = service->options.threads ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
    int slot = switch_slot_take(service->sw, service->count + 1, name, getpid(), self->wake_fd);
    strcpy(registration->middlebox, "sm-bench");
    replica->registration = registration;
    replica->on_packet = service->options.on_packet;
    replica->user = service->options.user;
    self->replica = replica;
    service->count++;
    int result = replica_bind(replica, service->arena, (unsigned)slot);
    self->sleepy = service->options.sleepy;
    if (result == 0)
        result = service->options.setup(replica, service->options.user);
    if (result == 0)
        result = arena_register(service->arena, (unsigned)slot, registration, error);
    free(registration);
    replica->registration = NULL;
    if (result)
        return result;
    replica_learn_classes(replica);
    switch_slot_ready(service->sw, (unsigned)slot);
    return 0;
}

static int start(struct service *service)
{
    if (service->count == 0)
        return 0;                                                               /* they are the caller's */
    const uint32_t first = service->options.halves ? SM_SHARDS / 2 : SM_SHARDS; /* shards of the first */
    int result = switch_assign(service->sw, 0, first - 1, 0);
    if (result == 0 && first < SM_SHARDS)
        result = switch_assign(service->sw, first, SM_SHARDS - 1, 1);
    if (result)
        return result;
    switch_start(service->sw);
    if (!service->options.threads)
        return 0;
    const unsigned wanted = service->options.together ? 1 : service->count;
    for (; service->running < wanted; service->running++) {
        struct service_replica *self = &service->replicas[service->running];
        if (pthread_create(&self->thread, NULL, service->options.together ? run_all : run_replica,
                           service->options.together ? (void *)service : self) != 0)
            return SM_E_NO_MEMORY;
    }
    return 0;
}

int service_open(struct service *service, const struct service_options *options, struct sm_errbuf *error)
{
    struct switch_options sw = {
        .order_arrival = options->order_arrival, .hold_bytes = UINT64_MAX, .hold_ns = UINT64_MAX};
    struct arena_options arena = {
        .service = "bench",
        .seed = options->seed,
        .memory = (uint64_t)options->flows * 512 + (64u << 20),
        .flows = options->flows * 2,
        .small_buffers = options->buffers,
        .jumbo_buffers = 8,
    };

    *service = (struct service){.options = *options, .arena_fd = -1};
    snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
    sw.in = options->in;
    sw.out = options->out;
    int result = sw.in ? 0 : replay_open(&sw.in, options->flows, 0, options->seed);
    if (result)
        return result;
    arena.linktype = sw.in->linktype;
    if (!sw.out)
        result = sm_port_open_null(&sw.out, sw.in);
    if (result == 0)
        result = arena_create(&service->arena, &service->arena_fd, &arena, error);
    if (result == 0)
        arena_huge_begin(service->arena);
    sw.arena = service->arena;
    if (result == 0)
        result = switch_create(&service->sw, &sw, error);
    for (unsigned i = 0; result == 0 && i < options->replicas; i++)
        result = add_replica(service, error);
    return result ? result : start(service);
}

void service_input(struct service *service, struct sm_port *port)
{
    struct sm_errbuf error;
    struct sm_port *old = service->sw->ports[0];

    service->sw->ports[0] = service->sw->options.in = port;
    service->sw->has_pending = false;
    old->ops->close(old, false, &error);
}

void service_populate(const struct service *service)
{
    (void)madvise(service->arena, service->arena->bytes, MADV_POPULATE_WRITE);
}

void service_turn(struct service *service)
{
    unsigned done = switch_poll(service->sw);

    if (service->options.threads) {
        if (done == 0)
            sched_yield();
        return;
    }
    for (unsigned i = 0; i < service->count; i++)
        replica_burst(service->replicas[i].replica, CHANNEL_BURST);
}

int service_warm(struct service *service, uint64_t count, struct sm_errbuf *error)
{
    uint64_t wanted = service->sw->entered + count, deadline = bench_now() + PATIENCE_NS;

    replay_more(service->sw->ports[0], count);
    while (service->sw->entered < wanted || service->sw->in_flight > 0) {
        arena_huge_ahead(service->arena, &service->huge_done); /* as the control thread of sm-switch does */
        service_turn(service);
        if (bench_now() < deadline && !service->sw->error[0])
            continue;
        snprintf(error->text, sizeof error->text, "%.200s",
                 service->sw->error[0] ? service->sw->error : "packets do not come back");
        return SM_E_STATE;
    }
    return 0;
}

void service_rest(struct service *service, uint64_t ns)
{
    for (uint64_t begin = bench_now(); bench_now() - begin < ns;)
        service_turn(service);
}

int service_move_all(struct service *service, unsigned to, bool copy, double *ms, struct sm_errbuf *error)
{
    struct sm_switch *sw = service->sw;
    int result = switch_move_begin(sw, bench_now() + MOVE_PATIENCE_NS, false);

    if (result == 0 && copy)
        result = switch_move_copy(sw, error);
    if (result == 0)
        result = switch_move_add(sw, 0, SM_SHARDS - 1, to);
    if (result)
        return result;
    uint64_t begin = bench_now();
    switch_move_go(sw);
    while (sw->operation.active || sw->lanes_used > 0)
        service_turn(service);
    *ms = (double)(bench_now() - begin) / 1e6;
    if (sw->operation.abandoned == 0 && sw->operation.completed == SM_SHARDS)
        return 0;
    snprintf(error->text, sizeof error->text, "moves were abandoned: %s", sw->operation.cause);
    return SM_E_STATE;
}

/* What is in flight comes back, timers too. */
static void drain(struct service *service)
{
    uint64_t deadline = bench_now() + PATIENCE_NS;

    switch_stop_input(service->sw);
    while (service->sw->state != SWITCH_ENDED && bench_now() < deadline && !service->sw->error[0])
        service_turn(service);
    switch_dismiss(service->sw);
    service_turn(service);
    for (unsigned i = 0; i < service->running; i++)
        pthread_join(service->replicas[i].thread, NULL);
}

static int judge(const struct service *service, struct sm_errbuf *error)
{
    const struct sm_switch *sw = service->sw;
    uint64_t violations = sw->owner_violations;

    for (unsigned i = 0; i < service->count; i++)
        violations += service->replicas[i].replica->channel->counters.owner_violations;
    if (sw->error[0])
        snprintf(error->text, sizeof error->text, "%s", sw->error);
    else if (violations > 0)
        snprintf(error->text, sizeof error->text, "a shard had two owners");
    else if (strcmp(audit_loss_free(&sw->audit, error), "held") == 0 &&
             strcmp(audit_ordered(&sw->audit, error), "held") == 0)
        return 0;
    return SM_E_STATE;
}

static int close_all(struct service *service, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;
    int result = 0;

    if (service->sw && service->sw->state == SWITCH_RUNNING) {
        drain(service);
        result = judge(service, error);
    }
    for (unsigned i = 0; i < service->count; i++) {
        replica_unbind(service->replicas[i].replica);
        free(service->replicas[i].replica);
        if (service->replicas[i].wake_fd >= 0)
            close(service->replicas[i].wake_fd);
    }
    if (service->sw)
        switch_destroy(service->sw, false, &ignored);
    if (service->arena)
        arena_unmap(service->arena);
    if (service->arena_fd >= 0)
        close(service->arena_fd);
    return result;
}

int service_close(struct service *service, int result, struct sm_errbuf *error)
{
    struct sm_errbuf closing;
    int closed = close_all(service, &closing);

    if (result == 0 && closed != 0)
        *error = closing;
    return result ? result : closed;
}

struct counter {
    uint64_t packets, bytes, first, last, reserved[4];
};

_Static_assert(sizeof(struct counter) == 64, "a record is a cache line");

static int counter_setup(struct sm_replica *replica, void *user)
{
    const struct sm_field whole = {"counter", SM_FIELD_BYTES, 0, sizeof(struct counter), NULL, 0};
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "counter",
                                             .version = 1,
                                             .record_size = sizeof(struct counter),
                                             .fields = &whole,
                                             .field_count = 1};

    return sm_class_register(replica, &options, user);
}

void counter_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const sm_class *cls = user;
    sm_flow flow;
    bool created;

    if (sm_flow_create(replica, *cls, packet, 0, &flow, &created) != 0) {
        sm_packet_drop(packet, 0);
        return;
    }
    struct counter *counter = flow.state;
    counter->last = sm_packet_time(packet).ns;
    if (created)
        counter->first = counter->last;
    counter->packets++;
    counter->bytes += sm_packet_len(packet);
    sm_flow_put(replica, *cls, flow);
}

struct service_options service_of_counters(unsigned replicas, uint32_t flows, uint64_t seed, sm_class *cls)
{
    return (struct service_options){
        .replicas = replicas,
        .buffers = SERVICE_BUFFERS,
        .flows = flows,
        .seed = seed,
        .setup = counter_setup,
        .on_packet = counter_packet,
        .user = cls,
    };
}
