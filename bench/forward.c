/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How fast the switch and one replica forward 64-byte packets, each on a core of its own, from the generator to a port
 * that swallows them, against a bare ring that makes the same two crossings.
 *
 * The bare ring: a producer writes 64-byte packets to a pool and 16-byte descriptors to a ring, in bursts of 64; the
 * consumer reads the header, touches the flow's record of 64 bytes, and gives the descriptor back by a second ring.
 * Which record it is comes with the packet: nothing is parsed, hashed or looked up.
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
#define GENERATOR_MARGIN 1.3 /* the generator alone has to be so much faster than what it feeds */

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
    uint32_t *order; /* of flows, random */
    uint32_t flows;
    _Atomic bool stop;
};

static void bare_free(struct bare *bare)
{
    free(bare->there.entries);
    free(bare->back.entries);
    free(bare->pool);
    free(bare->records);
    free(bare->order);
}

static int bare_init(struct bare *bare, const struct bench_options *options)
{
    *bare = (struct bare){.flows = options->flows};
    bare->order = bench_shuffled(options->flows, options->seed);
    bare->pool = aligned_alloc(64, (size_t)BUFFERS * BUFFER_BYTES);
    bare->records = aligned_alloc(64, (size_t)options->flows * sizeof *bare->records);
    if (!ring_init(&bare->there, BUFFERS, sizeof(struct descriptor)) ||
        !ring_init(&bare->back, BUFFERS, sizeof(struct descriptor)) || !bare->order || !bare->pool || !bare->records)
        return SM_E_NO_MEMORY;
    memset(bare->pool, 0, (size_t)BUFFERS * BUFFER_BYTES);
    memset(bare->records, 0, (size_t)options->flows * sizeof *bare->records);
    return 0;
}

static void *bare_consume(void *arg)
{
    struct bare *bare = arg;

    bench_pin(1);
    while (!atomic_load_explicit(&bare->stop, memory_order_relaxed)) {
        uint32_t tail, head, flow[RING_BURST], n = ring_waiting(&bare->there, &tail);
        if (n == 0) {
            sched_yield();
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            const struct descriptor *entry = ring_at(&bare->there, tail + i);
            __builtin_prefetch(bare->pool + (size_t)entry->buffer * BUFFER_BYTES);
        }
        for (uint32_t i = 0; i < n; i++) {
            const struct descriptor *entry = ring_at(&bare->there, tail + i);
            memcpy(&flow[i], bare->pool + (size_t)entry->buffer * BUFFER_BYTES + 26, sizeof flow[i]);
            __builtin_prefetch(&bare->records[flow[i]], 1);
        }
        ring_room(&bare->back, &head); /* there is: it has a place for every buffer */
        for (uint32_t i = 0; i < n; i++) {
            const struct descriptor *entry = ring_at(&bare->there, tail + i);
            bare->records[flow[i]].packets++;
            bare->records[flow[i]].bytes += entry->length;
            *(struct descriptor *)ring_at(&bare->back, head + i) = *entry;
        }
        ring_publish(&bare->back, head + n);
        ring_consume(&bare->there, tail + n);
    }
    return NULL;
}

/* The producer's side, until `seconds` have been measured; packets a second that came back. */
static double bare_produce(struct bare *bare, double seconds)
{
    static const uint8_t template[64] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45};
    uint32_t free_list[BUFFERS], free_count, next = 0;
    uint64_t back = 0, counted_from = 0, begin = bench_now(), measured_from = 0, now;

    for (free_count = 0; free_count < BUFFERS; free_count++)
        free_list[free_count] = free_count;
    do {
        uint32_t tail, head, n = ring_waiting(&bare->back, &tail);
        for (uint32_t i = 0; i < n; i++)
            free_list[free_count++] = ((const struct descriptor *)ring_at(&bare->back, tail + i))->buffer;
        ring_consume(&bare->back, tail + n);
        back += n;
        ring_room(&bare->there, &head);
        uint32_t burst = free_count < RING_BURST ? free_count : RING_BURST;
        for (uint32_t i = 0; i < burst; i++) {
            uint32_t buffer = free_list[--free_count];
            uint8_t *packet = bare->pool + (size_t)buffer * BUFFER_BYTES;
            memcpy(packet, template, sizeof template);
            memcpy(packet + 26, &bare->order[next], sizeof *bare->order);
            next = next + 1 == bare->flows ? 0 : next + 1;
            *(struct descriptor *)ring_at(&bare->there, head + i) = (struct descriptor){.buffer = buffer, .length = 64};
        }
        ring_publish(&bare->there, head + burst);
        if (n == 0 && burst == 0)
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

static int measure(const struct bench_options *options, struct report *report, struct service *service,
                   struct bare *bare, struct sm_errbuf *error)
{
    struct figure *figure = report_figure(report, "forward: switch and one replica", "Mpps");
    struct figure *alone = report_figure(report, "forward: generator alone", "Mpps");
    int result = 0;

    figure->target = (struct target){TARGET_AT_LEAST, 3};
    figure->ratio = (struct target){TARGET_AT_LEAST, 0.4};
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        double rate = 0;
        samples_add(&alone->ours, measure_generator(service->sw->ports[0], options->seconds / 5) / 1e6);
        samples_add(&figure->ours, measure_service(service, options->seconds) / 1e6);
        result = measure_bare(bare, options->seconds, &rate);
        samples_add(&figure->reference, rate / 1e6);
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
