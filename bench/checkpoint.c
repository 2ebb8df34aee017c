/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Checkpoints of a service with one replica: flows a second, without traffic, beside msgpack-c that packs the same
 * flows into memory; and how long packets take while a checkpoint is written, beside without, in turns. The
 * file is in memory, and written by a thread of its own at low priority, as by sm-switch. Where that is one thread more
 * than there are cores its time is lost to packets whatever it does with it: what they notice of a thread that copies
 * as many bytes a second, and does nothing else, is told apart.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "arena/snapshot.h"
#include "bench.h"
#include "latency.h"
#include "packing.h"
#include "service.h"
#include "switch/checkpoint.h"

#define RATE 200000u /* packets a second */
#define COPY_BYTES (32u << 20)
#define WINDOWS 5u  /* of packets, in one repetition */
#define PACKINGS 2u /* of the reference in one repetition: the first finds no memory touched */

enum { NOTHING, SAVE, COPY, LEAVE };

/* The thread that writes the file. */
struct writer {
    pthread_t thread;
    int wake_fd;
    _Atomic int work; /* NOTHING: it waits */
    _Atomic bool stop;
    struct sm_switch *sw;
    const char *file;
    struct checkpoint_size size;
    double bytes_per_ns; /* of the last checkpoint */
    uint8_t *from, *to;  /* COPY_BYTES each */
    int result;
    struct sm_errbuf error;
};

struct saving {
    struct service service;
    sm_class cls;
    struct writer writer;
    struct latency_port *out;
    char file[64];
};

static void nothing(void *arg)
{
    (void)arg;
}

static void write_file(struct writer *w)
{
    const struct checkpoint_peer peer = {.taken = nothing, .stop = &w->stop};
    struct checkpoint *checkpoint = NULL;
    uint64_t begin = bench_now();

    w->result = checkpoint_open(&checkpoint, w->sw->arena, w->file, &w->error);
    if (w->result)
        return;
    w->result = checkpoint_write(checkpoint, w->sw, &peer, &w->error);
    if (w->result)
        checkpoint_abandon(checkpoint);
    else
        w->result = checkpoint_finish(checkpoint, &w->size, &w->error);
    w->bytes_per_ns = (double)w->size.bytes / (double)(bench_now() - begin);
}

/* As many bytes a second as the last checkpoint wrote, a part at a time. */
static void copy(struct writer *w)
{
    uint64_t begin = bench_now(), copied = 0;

    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        size_t at = copied % COPY_BYTES;
        memcpy(w->to + at, w->from + at, SNAPSHOT_PART_BYTES);
        copied += SNAPSHOT_PART_BYTES;
        uint64_t due = begin + (uint64_t)((double)copied / w->bytes_per_ns), now = bench_now();
        const struct timespec nap = {.tv_nsec = due > now ? (long)(due - now) : 0};
        if (due > now)
            nanosleep(&nap, NULL);
    }
}

static void *work(void *arg)
{
    struct writer *w = arg;
    uint64_t wakes;

    bench_unpin(); /* what was measured before has pinned whoever started us */
    checkpoint_stand_back();
    while (read(w->wake_fd, &wakes, sizeof wakes) == sizeof wakes) {
        int what = atomic_load_explicit(&w->work, memory_order_acquire);
        if (what == LEAVE)
            break;
        if (what == SAVE)
            write_file(w);
        else
            copy(w);
        atomic_store_explicit(&w->work, NOTHING, memory_order_release);
    }
    return NULL;
}

static void tell(struct writer *w, int what)
{
    const uint64_t one = 1;

    atomic_store_explicit(&w->work, what, memory_order_release);
    if (write(w->wake_fd, &one, sizeof one) < 0)
        abort();
}

static bool at_work(const struct saving *s)
{
    return atomic_load_explicit(&s->writer.work, memory_order_acquire) != NOTHING;
}

/* One checkpoint, while packets go on. */
static int save(struct saving *s, struct sm_errbuf *error)
{
    int result = switch_snapshot_start(s->service.sw, error);

    if (result)
        return result;
    tell(&s->writer, SAVE);
    while (at_work(s))
        service_turn(&s->service);
    switch_snapshot_end(s->service.sw);
    *error = s->writer.error;
    return s->writer.result;
}

/* ---- figures ---- */

struct findings {
    struct figure *rate, *p99, *copying;
};

static void turns(struct saving *s, uint64_t ns)
{
    for (uint64_t begin = bench_now(); bench_now() - begin < ns;)
        service_turn(&s->service);
}

/* The packets' p99 meanwhile. */
static double p99_of(struct saving *s, uint64_t ns)
{
    latency_begin(s->out);
    turns(s, ns);
    return latency_us(s->out, 0.99);
}

/* The packets' p99 without a checkpoint and with one, again and again, since what somebody else interrupts is to be one
 * of several; then without and while somebody copies. A repetition's figures are the medians. */
static int with_traffic(const struct bench_options *options, struct saving *s, struct findings *found,
                        struct sm_errbuf *error)
{
    const uint64_t ns = (uint64_t)(options->seconds * 1e9);
    struct samples steady = {0}, saving = {0}, alone = {0}, copying = {0};
    struct sm_port *generator;
    int result = sm_port_open_generator(&generator, options->flows, 64, 0, RATE);

    if (result)
        return result;
    service_input(&s->service, generator);
    turns(s, ns / 4);
    for (unsigned i = 0; result == 0 && i < WINDOWS; i++) {
        samples_add(&steady, p99_of(s, ns / 4));
        latency_begin(s->out);
        result = save(s, error);
        samples_add(&saving, latency_us(s->out, 0.99));
    }
    for (unsigned i = 0; result == 0 && i < WINDOWS; i++) {
        samples_add(&alone, p99_of(s, ns / 4));
        tell(&s->writer, COPY);
        samples_add(&copying, p99_of(s, ns / 4));
        atomic_store_explicit(&s->writer.stop, true, memory_order_relaxed);
        while (at_work(s))
            service_turn(&s->service);
        atomic_store_explicit(&s->writer.stop, false, memory_order_relaxed);
    }
    if (result)
        return result;
    samples_add(&found->p99->ours, samples_median(&saving));
    samples_add(&found->p99->reference, samples_median(&steady));
    samples_add(&found->copying->ours, samples_median(&copying));
    samples_add(&found->copying->reference, samples_median(&alone));
    return 0;
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
    struct service_options wanted = service_of_counters(1, options->flows, options->seed, &s->cls);

    wanted.threads = true;
    int result = service_open(&s->service, &wanted, error);

    bench_pin(0);
    s->writer.sw = s->service.sw;
    if (result == 0)
        result = service_warm(&s->service, options->flows, error);
    if (result == 0 && !(s->out = latency_output(&s->service)))
        result = SM_E_NO_MEMORY;
    if (result == 0)
        result = without_traffic(s, found, error);
    if (result == 0)
        result = with_traffic(options, s, found, error);
    return service_close(&s->service, result, error);
}

int bench_checkpoint(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct saving *s = calloc(1, sizeof *s);
    struct findings found = {.rate = report_figure(report, "checkpoint: flows written", "M/s"),
                             .p99 = report_figure(report, "checkpoint: packet latency, p99", "us"),
                             .copying = report_figure(report, "checkpoint: p99 while a thread copies", "us")};
    int result = SM_E_NO_MEMORY;

    found.rate->ratio = (struct target){TARGET_AT_LEAST, 0.5};
    found.p99->ratio = (struct target){TARGET_AT_MOST, 2};
    if (!s)
        return result;
    snprintf(s->file, sizeof s->file, "/dev/shm/sm-bench.%d", getpid());
    s->writer.file = s->file;
    s->writer.wake_fd = eventfd(0, EFD_CLOEXEC);
    s->writer.from = calloc(2, COPY_BYTES);
    s->writer.to = s->writer.from ? s->writer.from + COPY_BYTES : NULL;
    if (s->writer.to)
        memset(s->writer.from, 1, (size_t)2 * COPY_BYTES); /* memory that was never touched is another matter */
    if (s->writer.to && s->writer.wake_fd >= 0 && pthread_create(&s->writer.thread, NULL, work, &s->writer) == 0) {
        result = 0;
        for (unsigned i = 0; result == 0 && i < options->repeat; i++)
            result = repeat(options, s, &found, error);
        tell(&s->writer, LEAVE);
        pthread_join(s->writer.thread, NULL);
    }
    close(s->writer.wake_fd);
    unlink(s->file);
    free(s->writer.from);
    free(s);
    json_object_set_new(report->parameters, "checkpoint",
                        json_pack("{s:i, s:i}", "packets_per_second", RATE, "record_bytes", 64));
    return result;
}
