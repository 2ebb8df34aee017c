/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How fast the switch and one replica forward 64-byte packets, each on a core of its own, from the generator to a port
 * that swallows them, against a bare ring that makes the same two crossings.
 *
 * The bare ring: a producer copies the same generator's packets to a pool and writes 16-byte descriptors to a ring, in
 * bursts of 64; the consumer reads the header, touches a record of 64 bytes, and gives the descriptor back by a second
 * ring; the producer sends the packet to the same port. Records are met at random, as those of hashed flows are: which
 * one it is follows from the source address. Packets and records lie in huge pages, as they do there. Nothing is
 * parsed, hashed, looked up, audited or ordered. As many cache lines cross: there the packet's first, here the one with
 * what the switch has found in it, which is all that this middlebox reads.
 */

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "ring.h"
#include "service.h"

#define BUFFERS 4096u /* of either pool: what sm-switch takes by default */
#define BUFFER_BYTES 2048u
#define WARM_NS 20000000ull
#define STALL_NS 20000000000ull /* patience with a machine that gives a thread no time */
#define SOURCE_OFFSET 26u       /* of the IPv4 source address: 10.0.0.0 and the flow's number */
#define SCATTER 2654435761u     /* prime, so that multiples of it modulo the flows meet each record once a round */
#define GENERATOR_MARGIN 1.3    /* the generator alone has to be so much faster than what it feeds */

struct descriptor {
    uint64_t time;
    uint32_t buffer;
    uint32_t length;
};

struct record {
    uint64_t packets, bytes, rest[6];
};

struct bare {
    struct ring there, back;
    uint8_t *pool;
    struct record *records;
    struct sm_port *in, *out;
    uint32_t flows;
    _Atomic bool stop;
};

static void bare_free(struct bare *bare)
{
    struct sm_errbuf ignored;

    free(bare->there.entries);
    free(bare->back.entries);
    free(bare->pool);
    free(bare->records);
    if (bare->in)
        bare->in->ops->close(bare->in, false, &ignored);
    if (bare->out)
        bare->out->ops->close(bare->out, false, &ignored);
}

static int bare_init(struct bare *bare, const struct bench_options *options)
{
    *bare = (struct bare){.flows = options->flows};
    bare->pool = bench_memory((size_t)BUFFERS * BUFFER_BYTES);
    bare->records = bench_memory((size_t)options->flows * sizeof *bare->records);
    if (!ring_init(&bare->there, BUFFERS, sizeof(struct descriptor)) ||
        !ring_init(&bare->back, BUFFERS, sizeof(struct descriptor)) || !bare->pool || !bare->records)
        return SM_E_NO_MEMORY;
    if (sm_port_open_generator(&bare->in, options->flows, 64, 0, 0) != 0 ||
        sm_port_open_null(&bare->out, bare->in) != 0)
        return SM_E_NO_MEMORY;
    return 0;
}

static inline const uint8_t *bare_packet(const struct bare *bare, uint32_t buffer)
{
    return bare->pool + (size_t)buffer * BUFFER_BYTES;
}

static struct record *bare_record(const struct bare *bare, uint32_t buffer)
{
    uint32_t source;

    memcpy(&source, bare_packet(bare, buffer) + SOURCE_OFFSET, sizeof source);
    return &bare->records[(uint64_t)(__builtin_bswap32(source) & 0xffffff) * SCATTER % bare->flows];
}

static void *bare_consume(void *arg)
{
    struct bare *bare = arg;

    bench_pin(1);
    while (!atomic_load_explicit(&bare->stop, memory_order_relaxed)) {
        struct record *record[RING_BURST];
        uint32_t tail, head, n = ring_waiting(&bare->there, &tail);
        if (n == 0) {
            sched_yield();
            continue;
        }
        for (uint32_t i = 0; i < n; i++)
            __builtin_prefetch(bare_packet(bare, ((struct descriptor *)ring_at(&bare->there, tail + i))->buffer));
        for (uint32_t i = 0; i < n; i++) {
            record[i] = bare_record(bare, ((struct descriptor *)ring_at(&bare->there, tail + i))->buffer);
            __builtin_prefetch(record[i], 1);
        }
        ring_room(&bare->back, &head); /* there is: it has a place for every buffer */
        for (uint32_t i = 0; i < n; i++) {
            const struct descriptor *entry = ring_at(&bare->there, tail + i);
            record[i]->packets++;
            record[i]->bytes += entry->length;
            *(struct descriptor *)ring_at(&bare->back, head + i) = *entry;
        }
        ring_publish(&bare->back, head + n);
        ring_consume(&bare->there, tail + n);
    }
    return NULL;
}

struct free_list {
    uint32_t buffer[BUFFERS];
    uint32_t count;
};

/* Send what came back. Returns how many packets. */
static uint32_t bare_take_back(struct bare *bare, struct free_list *list)
{
    uint32_t tail, n = ring_waiting(&bare->back, &tail);

    for (uint32_t i = 0; i < n; i++) {
        const struct descriptor *entry = ring_at(&bare->back, tail + i);
        const struct sm_frame frame = {
            .data = bare_packet(bare, entry->buffer), .caplen = entry->length, .len = entry->length};
        bare->out->ops->send(bare->out, &frame);
        list->buffer[list->count++] = entry->buffer;
    }
    ring_consume(&bare->back, tail + n);
    return n;
}

/* Fill and publish a burst. Returns how many packets. */
static uint32_t bare_send(struct bare *bare, struct free_list *list)
{
    uint32_t head, burst = list->count < RING_BURST ? list->count : RING_BURST;

    ring_room(&bare->there, &head); /* as above */
    for (uint32_t i = 0; i < burst; i++) {
        uint32_t buffer = list->buffer[--list->count];
        struct sm_frame frame;
        bare->in->ops->receive(bare->in, &frame);
        memcpy(bare->pool + (size_t)buffer * BUFFER_BYTES, frame.data, frame.caplen);
        *(struct descriptor *)ring_at(&bare->there, head + i) =
            (struct descriptor){.time = (uint64_t)frame.fraction, .buffer = buffer, .length = frame.len};
    }
    ring_publish(&bare->there, head + burst);
    return burst;
}

/* The producer's side, until `seconds` have been measured; packets a second that came back. */
static double bare_produce(struct bare *bare, double seconds)
{
    struct free_list list;
    uint64_t back = 0, counted_from = 0, begin = bench_now(), measured_from = 0, now;

    for (list.count = 0; list.count < BUFFERS; list.count++)
        list.buffer[list.count] = list.count;
    do {
        uint32_t n = bare_take_back(bare, &list);
        back += n;
        if (bare_send(bare, &list) + n == 0)
            sched_yield();
        now = bench_now();
        if (measured_from == 0 && now - begin > WARM_NS) {
            measured_from = now;
            counted_from = back;
        }
    } while (measured_from == 0 || (double)(now - measured_from) < seconds * 1e9);
    return (double)(back - counted_from) * 1e9 / (double)(now - measured_from);
}

static int measure_bare(struct bare *bare, double seconds, double *rate)
{
    pthread_t consumer;

    bare->stop = false;
    bare->there.head = bare->there.tail = bare->back.head = bare->back.tail = 0;
    if (pthread_create(&consumer, NULL, bare_consume, bare) != 0)
        return SM_E_NO_MEMORY;
    *rate = bare_produce(bare, seconds);
    atomic_store_explicit(&bare->stop, true, memory_order_relaxed);
    pthread_join(consumer, NULL);
    return 0;
}

static double measure_service(struct service *service, double seconds)
{
    uint64_t begin = bench_now(), now = begin, counted_from = 0, measured_from = 0;

    while (measured_from == 0 || (double)(now - measured_from) < seconds * 1e9) {
        service_turn(service);
        now = bench_now();
        if (measured_from == 0 && now - begin > WARM_NS) {
            measured_from = now;
            counted_from = service->sw->out;
        }
    }
    return (double)(service->sw->out - counted_from) * 1e9 / (double)(now - measured_from);
}

/* The generator alone, its packets copied as the switch does. */
static double measure_generator(struct sm_port *generator, double seconds)
{
    static uint8_t pool[64][64];
    uint64_t begin = bench_now(), now, count = 0;

    do {
        for (unsigned i = 0; i < 64; i++) {
            struct sm_frame frame;
            generator->ops->receive(generator, &frame);
            memcpy(pool[i], frame.data, frame.caplen);
            __asm__ volatile("" ::"r"(pool[i]) : "memory");
        }
        count += 64;
        now = bench_now();
    } while ((double)(now - begin) < seconds * 1e9);
    return (double)count * 1e9 / (double)(now - begin);
}

static int open_service(struct service *service, sm_class *cls, const struct bench_options *options,
                        struct sm_errbuf *error)
{
    const struct service_options wanted = {
        .replicas = 1,
        .threads = true,
        .buffers = BUFFERS,
        .flows = options->flows,
        .seed = options->seed,
        .setup = counter_setup,
        .on_packet = counter_packet,
        .user = cls,
    };
    struct sm_port *generator;
    int result = service_open(service, &wanted, error);

    if (result == 0)
        result = service_warm(service, options->flows, error);
    if (result == 0)
        result = sm_port_open_generator(&generator, options->flows, 64, 0, 0);
    if (result == 0)
        service_input(service, generator);
    return result;
}

/* One repetition. False: a thread got no time at all, because others had its core; that says nothing of either. */
static bool repeat(const struct bench_options *options, struct service *service, struct bare *bare,
                   struct figure *figure, struct figure *alone, int *result)
{
    double rate = 0, generator = measure_generator(service->sw->ports[0], options->seconds / 5);
    double ours = measure_service(service, options->seconds);

    *result = measure_bare(bare, options->seconds, &rate);
    if (*result == 0 && (ours == 0 || rate == 0))
        return false;
    samples_add(&alone->ours, generator / 1e6);
    samples_add(&figure->ours, ours / 1e6);
    samples_add(&figure->reference, rate / 1e6);
    return true;
}

static int measure(const struct bench_options *options, struct report *report, struct service *service,
                   struct bare *bare, struct sm_errbuf *error)
{
    struct figure *figure = report_figure(report, "forward: switch and one replica", "Mpps");
    struct figure *alone = report_figure(report, "forward: generator alone", "Mpps");
    uint64_t stalled_since = 0;
    int result = 0;

    figure->target = (struct target){TARGET_AT_LEAST, 3};
    figure->ratio = (struct target){TARGET_AT_LEAST, 0.4};
    while (result == 0 && figure->ours.count < options->repeat) {
        if (repeat(options, service, bare, figure, alone, &result)) {
            stalled_since = 0;
        } else if (stalled_since == 0) {
            stalled_since = bench_now();
        } else if (bench_now() - stalled_since > STALL_NS) {
            snprintf(error->text, sizeof error->text, "the machine is too busy: a thread got no time on its core");
            return SM_E_STATE;
        }
    }
    double generator = samples_median(&alone->ours), ours = samples_median(&figure->ours);
    if (result == 0 && generator < GENERATOR_MARGIN * ours) {
        snprintf(error->text, sizeof error->text,
                 "generator was the bottleneck: alone %.2f Mpps, with switch and replica %.2f", generator, ours);
        return SM_E_STATE;
    }
    return result;
}

int bench_forward(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct service service;
    struct bare bare = {.flows = 0};
    struct sm_errbuf closing;
    sm_class cls;
    int result;

    bench_pin(0);
    result = open_service(&service, &cls, options, error);
    if (result == 0)
        result = bare_init(&bare, options);
    if (result == 0)
        result = measure(options, report, &service, &bare, error);
    int closed = service_close(&service, &closing);
    if (result == 0 && closed != 0) {
        result = closed;
        *error = closing;
    }
    bare_free(&bare);
    json_object_set_new(report->parameters, "forward",
                        json_pack("{s:i, s:i, s:s, s:i}", "packet_bytes", 64, "record_bytes", 64, "order", "flow",
                                  "buffers", (int)BUFFERS));
    return result;
}
