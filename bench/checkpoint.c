/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Checkpoints of a service with one replica: flows a second, without traffic, beside msgpack-c that packs the same
 * flows into memory; and how long packets take while checkpoints are written one after the other, beside without. The
 * file is in memory, and written by a thread of its own, as by sm-switch.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "packing.h"
#include "service.h"
#include "switch/checkpoint.h"
#include "switch/histogram.h"

#define RATE 200000u /* packets a second */
#define PACKINGS 2u  /* of the reference in one repetition: the first finds no memory touched */

enum { NOTHING, A_PART, THE_END, LEAVE };

/* The thread that writes the file. */
struct writer {
    pthread_t thread;
    int wake_fd;
    _Atomic int work; /* NOTHING: it waits */
    struct checkpoint *checkpoint;
    const uint8_t *part;
    bool last;
    struct checkpoint_size size;
    int result;
    struct sm_errbuf error;
};

struct latency_port {
    struct sm_port port;
    struct histogram latencies;
};

struct saving {
    struct service service;
    sm_class cls;
    struct writer writer;
    struct latency_port *out;
    char file[64];
};

static void *write_file(void *arg)
{
    struct writer *w = arg;
    uint64_t wakes;

    while (read(w->wake_fd, &wakes, sizeof wakes) == sizeof wakes) {
        int work = atomic_load_explicit(&w->work, memory_order_acquire);
        if (work == LEAVE)
            break;
        if (work == A_PART)
            w->result = checkpoint_part(w->checkpoint, w->part, &w->last, &w->error);
        else
            w->result = checkpoint_finish(w->checkpoint, &w->size, &w->error);
        atomic_store_explicit(&w->work, NOTHING, memory_order_release);
    }
    return NULL;
}

static void tell(struct writer *w, int work)
{
    const uint64_t one = 1;

    atomic_store_explicit(&w->work, work, memory_order_release);
    if (write(w->wake_fd, &one, sizeof one) < 0)
        abort();
}

static void give(struct saving *s, int work)
{
    tell(&s->writer, work);
    while (atomic_load_explicit(&s->writer.work, memory_order_acquire) != NOTHING)
        service_turn(&s->service);
}

/* One checkpoint, while packets go on. */
static int save(struct saving *s, struct sm_errbuf *error)
{
    struct sm_switch *sw = s->service.sw;
    struct writer *w = &s->writer;
    enum switch_snapshot_step step;
    int result = switch_snapshot_start(sw, error);

    if (result == 0)
        result = checkpoint_open(&w->checkpoint, s->service.arena, s->file, error);
    if (result)
        return result;
    while (w->result == 0 && (step = switch_snapshot_next(sw, &w->part)) != SNAPSHOT_DONE) {
        if (step == SNAPSHOT_PART) {
            give(s, A_PART);
            switch_snapshot_taken(sw, w->last, checkpoint_covered(w->checkpoint));
        } else {
            service_turn(&s->service);
        }
    }
    switch_snapshot_end(sw);
    if (w->result == 0)
        give(s, THE_END);
    *error = w->error;
    return w->result;
}

/* ---- a port that measures ---- */

static int measure(struct sm_port *port, const struct sm_frame *frame)
{
    struct latency_port *self = (struct latency_port *)(void *)port;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, then = sm_frame_time(port, frame).ns;
    histogram_add(&self->latencies, ns > then ? ns - then : 0);
    return 0;
}

static int flush(struct sm_port *port)
{
    (void)port;
    return 0;
}

static int close_port(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    (void)whole, (void)error;
    free(port);
    return 0;
}

static int replace_output(struct saving *s)
{
    static const struct sm_port_ops ops = {.send = measure, .flush = flush, .close = close_port};
    struct sm_port *old = s->service.sw->ports[1];
    struct sm_errbuf ignored;

    s->out = calloc(1, sizeof *s->out);
    if (!s->out)
        return SM_E_NO_MEMORY;
    s->out->port = *old;
    s->out->port.ops = &ops;
    s->service.sw->ports[1] = &s->out->port;
    return old->ops->close(old, true, &ignored);
}

/* ---- figures ---- */

struct findings {
    struct figure *rate, *p99;
};

static double p99_us(struct saving *s)
{
    return (double)histogram_quantile(&s->out->latencies, 0.99) / 1e3;
}

/* The packets' p99 without checkpoints, then with one after the other. */
static int with_traffic(const struct bench_options *options, struct saving *s, struct findings *found,
                        struct sm_errbuf *error)
{
    const uint64_t ns = (uint64_t)(options->seconds * 1e9);
    struct sm_port *generator;
    int result = sm_port_open_generator(&generator, options->flows, 64, 0, RATE);

    if (result)
        return result;
    service_input(&s->service, generator);
    for (uint64_t begin = bench_now(); bench_now() - begin < ns / 4;)
        service_turn(&s->service);
    memset(&s->out->latencies, 0, sizeof s->out->latencies);
    for (uint64_t begin = bench_now(); bench_now() - begin < ns;)
        service_turn(&s->service);
    samples_add(&found->p99->reference, p99_us(s));
    memset(&s->out->latencies, 0, sizeof s->out->latencies);
    for (uint64_t begin = bench_now(); result == 0 && bench_now() - begin < ns;)
        result = save(s, error);
    samples_add(&found->p99->ours, p99_us(s));
    return result;
}

static int without_traffic(struct saving *s, struct findings *found, struct sm_errbuf *error)
{
    uint64_t begin = bench_now();
    int result = save(s, error);

    samples_add(&found->rate->ours, (double)s->writer.size.flows * 1e3 / (double)(bench_now() - begin));
    for (unsigned i = 0; i < PACKINGS; i++) {
        begin = bench_now();
        uint64_t flows = packing_reference(s->service.arena->state);
        if (i + 1 == PACKINGS)
            samples_add(&found->rate->reference, (double)flows * 1e3 / (double)(bench_now() - begin));
    }
    return result;
}

static int repeat(const struct bench_options *options, struct saving *s, struct findings *found,
                  struct sm_errbuf *error)
{
    const struct service_options wanted = {.replicas = 1,
                                           .threads = true,
                                           .buffers = 4096,
                                           .flows = options->flows,
                                           .seed = options->seed,
                                           .setup = counter_setup,
                                           .on_packet = counter_packet,
                                           .user = &s->cls};
    struct sm_errbuf ignored;
    int result = service_open(&s->service, &wanted, error);

    bench_pin(0);
    s->writer.result = 0;
    if (result == 0)
        result = service_warm(&s->service, options->flows, error);
    if (result == 0)
        result = replace_output(s);
    if (result == 0)
        result = without_traffic(s, found, error);
    if (result == 0)
        result = with_traffic(options, s, found, error);
    int closed = service_close(&s->service, result ? &ignored : error);
    return result ? result : closed;
}

int bench_checkpoint(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct saving *s = calloc(1, sizeof *s);
    struct findings found = {.rate = report_figure(report, "checkpoint: flows written", "M/s"),
                             .p99 = report_figure(report, "checkpoint: packet latency, p99", "us")};
    int result = SM_E_NO_MEMORY;

    found.rate->ratio = (struct target){TARGET_AT_LEAST, 0.5};
    found.p99->ratio = (struct target){TARGET_AT_MOST, 2};
    if (!s)
        return result;
    snprintf(s->file, sizeof s->file, "/dev/shm/sm-bench.%d", getpid());
    s->writer.wake_fd = eventfd(0, EFD_CLOEXEC);
    if (s->writer.wake_fd >= 0 && pthread_create(&s->writer.thread, NULL, write_file, &s->writer) == 0) {
        result = 0;
        for (unsigned i = 0; result == 0 && i < options->repeat; i++)
            result = repeat(options, s, &found, error);
        tell(&s->writer, LEAVE);
        pthread_join(s->writer.thread, NULL);
    }
    close(s->writer.wake_fd);
    unlink(s->file);
    free(s);
    json_object_set_new(report->parameters, "checkpoint",
                        json_pack("{s:i, s:i}", "packets_per_second", RATE, "record_bytes", 64));
    return result;
}
