/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A port of three threads whose engines make packets and take some back: what each made comes once and in its order,
 * what is sent reaches one engine by flow and in order, bytes are what they were, every buffer comes back, nothing is
 * counted as sent before it is, and the end of one engine is the port's, behind all packets.
 */

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "ports/internal.h"
#include "ports/threads.h"

enum {
    ENGINES = 3,
    BUFFERS = 4096,
    STRIDE = 2048,
    FLOWS = 20, /* of each engine's packets */
    MADE = 40000,
    LONG = 70000, /* bytes of one packet in 50 */
    PARTS = 40,   /* buffers that it takes to send one */
    LENT = 256,   /* that a thread has when all is quiet */
    SECONDS = 120,
};

struct packet {
    uint32_t engine, flow, number, bytes;
};

struct engine {
    struct sm_port port;
    uint32_t number, made, calls;
    uint32_t kept[BUFFERS], kept_count; /* sent, not yet gone */
    uint32_t last[ENGINES * FLOWS];     /* number of the last packet of each flow that was sent here, plus one */
    uint8_t assembled[LONG];
    int fd;
    _Atomic bool holds; /* nothing that is sent leaves */
    _Atomic bool ends;
};

static uint8_t pool[BUFFERS][STRIDE];
static uint32_t free_buffers[BUFFERS], free_count;
static bool is_free[BUFFERS];
static struct engine engines[ENGINES];
static _Atomic uint32_t
    leaves_by[ENGINES * FLOWS]; /* each flow: the engine's number plus one; 0: nothing left so far */
static _Atomic int failed, begun;

#define CHECK(that, ...)                                                                                               \
    do {                                                                                                               \
        if (!(that) && ++failed < 20) {                                                                                \
            printf("FAIL " __VA_ARGS__);                                                                               \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

static uint32_t lend(void *arg)
{
    (void)arg;
    if (free_count == 0)
        return UINT32_MAX;
    is_free[free_buffers[free_count - 1]] = false;
    return free_buffers[--free_count];
}

static void take_back(void *arg, uint32_t buffer)
{
    (void)arg;
    CHECK(buffer < BUFFERS && !is_free[buffer], "buffer %u comes back twice", buffer);
    is_free[buffer] = true;
    free_buffers[free_count++] = buffer;
}

/* All bytes of a packet follow from its head. */
static void fill(uint8_t *data, struct packet packet)
{
    memcpy(data, &packet, sizeof packet);
    memset(data + sizeof packet, (int)(packet.number & 0xff), packet.bytes - sizeof packet);
}

static bool is_whole(const struct sm_frame *frame, const struct packet *packet)
{
    const uint8_t *rest = frame->data + sizeof *packet, byte = (uint8_t)packet->number;
    for (uint32_t i = 0; i < packet->bytes - sizeof *packet; i++)
        if (rest[i] != byte)
            return false;
    return frame->caplen == packet->bytes;
}

static int make(struct sm_port *port, struct sm_frame *frame)
{
    struct engine *engine = (struct engine *)port;
    if (atomic_load(&engine->ends) && engine->made == MADE)
        return sm_port_fail(&port->error, SM_E_IO, "engine %u is gone", engine->number);
    if (engine->made == MADE || engine->calls++ % 100 == 99)
        return 0;
    const bool is_long = engine->made % 50 == 7;
    uint8_t *data = engine->assembled;
    if (!is_long) {
        uint32_t buffer = port->lender->take(port->lender->arg);
        if (buffer >= BUFFERS)
            return 0;
        data = pool[buffer];
    }
    const struct packet packet = {.engine = engine->number,
                                  .flow = engine->number * FLOWS + engine->made % FLOWS,
                                  .number = engine->made,
                                  .bytes = is_long ? LONG : 60 + engine->made % 1000};
    fill(data, packet);
    engine->made++;
    if (engine->made == MADE) {
        uint64_t events;
        CHECK(read(engine->fd, &events, sizeof events) == sizeof events, "the engine's descriptor");
    }
    *frame = (struct sm_frame){.data = data, .caplen = packet.bytes, .len = packet.bytes};
    return 1;
}

/* As a long one is sent: from buffers of the port's own. */
static bool send_parts(struct sm_port *port)
{
    uint32_t parts[PARTS], count = 0;
    while (count < PARTS && (parts[count] = port->lender->take(port->lender->arg)) < BUFFERS)
        count++;
    const bool sent = count == PARTS;
    while (count > 0)
        port->lender->give(port->lender->arg, parts[--count]);
    return sent;
}

static int swallow(struct sm_port *port, const struct sm_frame *frame)
{
    struct engine *engine = (struct engine *)port;
    const bool in_pool = frame->data >= pool[0] && frame->data < pool[BUFFERS];
    struct packet packet;
    memcpy(&packet, frame->data, sizeof packet);
    CHECK(is_whole(frame, &packet), "packet %u of flow %u has other bytes", packet.number, packet.flow);
    uint32_t nobody = 0;
    CHECK(atomic_compare_exchange_strong(&leaves_by[packet.flow], &nobody, engine->number + 1) ||
              nobody == engine->number + 1,
          "flow %u leaves by %u and by %u", packet.flow, nobody - 1, engine->number);
    CHECK(packet.number >= engine->last[packet.flow], "packet %u of flow %u is overtaken by %u", packet.number,
          packet.flow, engine->last[packet.flow] - 1);
    engine->last[packet.flow] = packet.number + 1;
    port->pending++;
    if (packet.number % 11 == 5 || (!in_pool && !send_parts(port))) {
        CHECK(packet.number % 11 == 5, "no buffers for packet %u", packet.number);
        port->counters.tx_failed++;
        return 0;
    }
    port->counters.tx_packets++;
    port->counters.tx_bytes += frame->caplen;
    if (!in_pool)
        return 0;
    engine->kept[engine->kept_count++] = (uint32_t)((size_t)(frame->data - pool[0]) / STRIDE);
    return SM_PORT_KEEPS;
}

static int let_go(struct sm_port *port)
{
    struct engine *engine = (struct engine *)port;
    if (atomic_load(&engine->holds))
        return 0;
    while (engine->kept_count > 0)
        port->lender->give(port->lender->arg, engine->kept[--engine->kept_count]);
    port->pending = 0;
    return 0;
}

static int fd_of(struct sm_port *port)
{
    return ((struct engine *)port)->fd;
}

static int end(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    (void)whole;
    (void)error;
    return close(((struct engine *)port)->fd);
}

static const struct sm_port_ops ops = {.receive = make, .send = swallow, .flush = let_go, .fd = fd_of, .close = end};

static void begin(void)
{
    atomic_fetch_add(&begun, 1);
}

static struct sm_port *open_port(const struct sm_port_lender *lender)
{
    const struct sm_port_pool memory = {.memory = pool[0], .count = BUFFERS, .stride = STRIDE};
    struct sm_port *parts[ENGINES], *port;
    struct sm_errbuf error;
    for (uint32_t i = 0; i < ENGINES; i++) {
        engines[i] = (struct engine){
            .port = {.ops = &ops, .name = "made", .driver = "engine", .snaplen = 262144, .is_interface = true},
            .number = i,
            .fd = eventfd(1, EFD_NONBLOCK)};
        parts[i] = &engines[i].port;
    }
    if (sm_port_open_threads(&port, parts, ENGINES, &memory, begin, &error) != 0) {
        printf("FAIL %s\n", error.text);
        exit(1);
    }
    port->lender = lender;
    return port;
}

/* Wait until all that was sent is settled. */
static void settle(struct sm_port *port, time_t deadline)
{
    while (port->pending > 0 && time(NULL) < deadline) {
        port->ops->flush(port);
        usleep(100);
    }
    CHECK(port->pending == 0 && port->under_way == 0, "%u are still to be sent", port->pending);
}

static void send_back(struct sm_port *port, const struct sm_frame *frame, uint32_t flow)
{
    struct sm_frame back = *frame;
    const bool in_pool = frame->data >= pool[0] && frame->data < pool[BUFFERS];
    back.flow = flow;
    int result = port->ops->send(port, &back);
    CHECK(result == (in_pool ? SM_PORT_KEEPS : 0), "send says %d", result);
}

/* Everything that the engines make, back to them. */
static void forward(struct sm_port *port, uint32_t *next, time_t deadline)
{
    uint32_t received = 0, idle = 0;
    while (received < ENGINES * MADE && time(NULL) < deadline) {
        struct sm_frame frame;
        if (port->ops->receive(port, &frame) != 1) {
            port->ops->flush(port);
            struct pollfd fds = {.fd = port->ops->fd(port), .events = POLLIN};
            if (++idle % 100 == 0)
                poll(&fds, 1, 1000);
            continue;
        }
        struct packet packet;
        memcpy(&packet, frame.data, sizeof packet);
        CHECK(packet.number == next[packet.engine], "packet %u of engine %u comes as number %u", packet.number,
              packet.engine, next[packet.engine]);
        CHECK(is_whole(&frame, &packet), "packet %u of engine %u comes with other bytes", packet.number, packet.engine);
        next[packet.engine] = packet.number + 1;
        send_back(port, &frame, packet.flow);
        if (++received % 64 == 0)
            port->ops->flush(port);
    }
    CHECK(received == ENGINES * MADE, "%u of %u came", received, ENGINES * MADE);
}

/* What engines have not let go is under way. */
static void hold_back(struct sm_port *port, time_t deadline)
{
    enum { HELD = 10 };
    const uint64_t before = port->counters.tx_packets + port->counters.tx_failed;
    for (uint32_t i = 0; i < ENGINES; i++)
        atomic_store(&engines[i].holds, true);
    for (uint32_t i = 0; i < HELD; i++) {
        uint32_t buffer = lend(NULL);
        fill(pool[buffer], (struct packet){.flow = i % ENGINES, .number = MADE + i, .bytes = 60});
        send_back(port, &(struct sm_frame){.data = pool[buffer], .caplen = 60, .len = 60}, i % ENGINES);
    }
    do {
        port->ops->flush(port);
        usleep(100);
    } while (port->counters.tx_packets + port->counters.tx_failed < before + HELD && time(NULL) < deadline);
    port->ops->flush(port);
    CHECK(port->under_way == HELD, "%u are under way, not %d", port->under_way, HELD);
    for (uint32_t i = 0; i < ENGINES; i++)
        atomic_store(&engines[i].holds, false);
    settle(port, deadline);
    CHECK(port->counters.tx_packets + port->counters.tx_failed == before + HELD, "held back: counted once");
}

int main(void)
{
    const struct sm_port_lender lender = {.take = lend, .give = take_back};
    const time_t deadline = time(NULL) + SECONDS;
    uint32_t next[ENGINES] = {0}, refused = 0;
    struct sm_frame frame;
    struct sm_errbuf ignored;

    for (uint32_t i = 0; i < BUFFERS; i++)
        take_back(NULL, i);
    struct sm_port *port = open_port(&lender);
    forward(port, next, deadline);
    settle(port, deadline);
    for (uint32_t i = 0; i < MADE; i++)
        refused += i % 11 == 5;
    CHECK(port->counters.rx_packets == ENGINES * MADE, "%llu received", (unsigned long long)port->counters.rx_packets);
    CHECK(port->counters.tx_failed == (uint64_t)ENGINES * refused, "%llu refused",
          (unsigned long long)port->counters.tx_failed);
    CHECK(port->counters.tx_packets == (uint64_t)ENGINES * (MADE - refused), "%llu sent",
          (unsigned long long)port->counters.tx_packets);
    hold_back(port, deadline);
    while (free_count != BUFFERS - ENGINES * LENT && time(NULL) < deadline)
        port->ops->flush(port);
    CHECK(free_count == BUFFERS - ENGINES * LENT, "%u buffers are free", free_count);
    atomic_store(&engines[1].ends, true);
    while (port->ops->receive(port, &frame) == 0 && time(NULL) < deadline)
        usleep(100);
    CHECK(port->ops->receive(port, &frame) == SM_E_IO && strcmp(port->error.text, "engine 1 is gone") == 0,
          "the end is '%s'", port->error.text);
    port->ops->close(port, true, &ignored);
    CHECK(begun == ENGINES, "%d threads have begun", begun);
    printf("%d failed\n", failed);
    return failed ? 1 : 0;
}
