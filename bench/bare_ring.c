/* SPDX-License-Identifier: BSD-2-Clause */
#include "bare_ring.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "bench.h"

#define BUFFERS 4096u
#define BUFFER_BYTES 2048u
#define WARM_NS 20000000ull
#define SOURCE_OFFSET 26u   /* of the IPv4 source address: 10.0.0.0 and the flow's number */
#define SCATTER 2654435761u /* prime, so that multiples of it modulo the flows meet each record once a round */

struct descriptor {
    uint64_t time;
    uint32_t buffer;
    uint32_t length;
};

struct record {
    uint64_t packets, bytes, rest[6];
};

void bare_ring_close(struct bare_ring *bare)
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

int bare_ring_open(struct bare_ring *bare, uint32_t flows)
{
    *bare = (struct bare_ring){.flows = flows};
    bare->pool = bench_memory((size_t)BUFFERS * BUFFER_BYTES);
    bare->records = bench_memory((size_t)flows * sizeof *bare->records);
    if (!ring_init(&bare->there, BUFFERS, sizeof(struct descriptor)) ||
        !ring_init(&bare->back, BUFFERS, sizeof(struct descriptor)) || !bare->pool || !bare->records)
        return SM_E_NO_MEMORY;
    if (sm_port_open_generator(&bare->in, flows, 64, 0, 0) != 0 || sm_port_open_null(&bare->out, bare->in) != 0)
        return SM_E_NO_MEMORY;
    return 0;
}

static inline const uint8_t *packet_at(const struct bare_ring *bare, uint32_t buffer)
{
    return bare->pool + (size_t)buffer * BUFFER_BYTES;
}

static struct record *record_at(const struct bare_ring *bare, uint32_t buffer)
{
    uint32_t source;

    memcpy(&source, packet_at(bare, buffer) + SOURCE_OFFSET, sizeof source);
    return &bare->records[(uint64_t)(__builtin_bswap32(source) & 0xffffff) * SCATTER % bare->flows];
}

static void *consume(void *arg)
{
    struct bare_ring *bare = arg;

    bench_pin(1);
    while (!atomic_load_explicit(&bare->stop, memory_order_relaxed)) {
        struct record *record[RING_BURST];
        uint32_t tail, head, n = ring_waiting(&bare->there, &tail);
        if (n == 0) {
            sched_yield();
            continue;
        }
        for (uint32_t i = 0; i < n; i++)
            __builtin_prefetch(packet_at(bare, ((struct descriptor *)ring_at(&bare->there, tail + i))->buffer));
        for (uint32_t i = 0; i < n; i++) {
            record[i] = record_at(bare, ((struct descriptor *)ring_at(&bare->there, tail + i))->buffer);
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
static uint32_t take_back(struct bare_ring *bare, struct free_list *list)
{
    uint32_t tail, n = ring_waiting(&bare->back, &tail);

    for (uint32_t i = 0; i < n; i++) {
        const struct descriptor *entry = ring_at(&bare->back, tail + i);
        const struct sm_frame frame = {
            .data = packet_at(bare, entry->buffer), .caplen = entry->length, .len = entry->length};
        bare->out->ops->send(bare->out, &frame);
        list->buffer[list->count++] = entry->buffer;
    }
    ring_consume(&bare->back, tail + n);
    return n;
}

/* Fill and publish a burst. Returns how many packets. */
static uint32_t send_burst(struct bare_ring *bare, struct free_list *list)
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
static double produce(struct bare_ring *bare, double seconds)
{
    struct free_list list;
    uint64_t back = 0, counted_from = 0, begin = bench_now(), measured_from = 0, now;

    for (list.count = 0; list.count < BUFFERS; list.count++)
        list.buffer[list.count] = list.count;
    do {
        uint32_t n = take_back(bare, &list);
        back += n;
        if (send_burst(bare, &list) + n == 0)
            sched_yield();
        now = bench_now();
        if (measured_from == 0 && now - begin > WARM_NS) {
            measured_from = now;
            counted_from = back;
        }
    } while (measured_from == 0 || (double)(now - measured_from) < seconds * 1e9);
    return (double)(back - counted_from) * 1e9 / (double)(now - measured_from);
}

int bare_ring_measure(struct bare_ring *bare, double seconds, double *rate)
{
    pthread_t consumer;

    bare->stop = false;
    bare->there.head = bare->there.tail = bare->back.head = bare->back.tail = 0;
    if (pthread_create(&consumer, NULL, consume, bare) != 0)
        return SM_E_NO_MEMORY;
    *rate = produce(bare, seconds);
    atomic_store_explicit(&bare->stop, true, memory_order_relaxed);
    pthread_join(consumer, NULL);
    return 0;
}
