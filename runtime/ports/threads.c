/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. What costs on an interface is the kernel's own work, in calls that send and receive. Here it is done by
 * several threads, each with a port of its own, its *engine*: some of the interface's queues. The owner's thread
 * exchanges descriptors with them by rings that have one producer and one consumer each:
 *
 *     received: packets, thread to owner       lent:     free buffers, owner to thread
 *     to_send:  packets, owner to thread       returned: free buffers, thread to owner
 *
 * so the lender's functions are called by the owner alone. A packet that is not in a buffer of the pool is copied to
 * one of a ring's few places for that.
 *
 * Order. Receiving, that of each queue. Sending, that of each flow: it always has the same thread.
 *
 * Waiting. The owner waits in send where a thread's ring is full: a thread always goes on, since the kernel takes what
 * it is to send, or the engine refuses it. A thread that may not receive any more leaves packets to the kernel, which
 * counts those that it drops. Threads poll, yield and sleep as everyone does; whoever sleeps says so, and is woken.
 *
 * Life-cycle. A thread runs from open to close, and begins to receive with the first call of receive. What it has
 * received when the port is closed is lost, as what the kernel has; `pending` says whether all was sent.
 *
 * Limits. RING packets each way, of them COPIES copied ones; LENT buffers.
 */
#include "ports/threads.h"

#include "ports/internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    BURST = 64,
    RING = 512,
    COPIES = 8,
    LENT = SM_PORT_THREAD_BUFFERS - RING,
    LENT_ENOUGH = LENT - BURST, /* for the longest packet, cut or in parts */
};

#define YIELD_NS 50000      /* poll this long, yielding the core, before sleeping */
#define SLEEP_NS 100000000  /* then the engine takes back what was sent, and reads its counters */
#define SEND_WAIT_NS 100000 /* while it cannot send what it was given */

/* Positions in a ring. They only grow. */
struct ring {
    _Alignas(64) _Atomic uint64_t head; /* the producer's: up to here there is something, */
    uint64_t put;                       /* or will be when it is published */
    _Alignas(64) _Atomic uint64_t tail; /* the consumer's: up to here places are free again, */
    uint64_t took;                      /* or will be when they are released */
};

struct frames {
    struct ring ring;
    struct sm_frame at[RING];
    uint8_t *copies;
    uint64_t copied, behind[COPIES]; /* of each place for copies: the position behind its packet */
};

enum sleep { AWAKE, SLEEPS, NEEDS }; /* NEEDS: room or buffers, too */

struct thread {
    struct threads *all;
    struct sm_port *engine;
    struct sm_port_lender lender; /* the engine's */
    pthread_t id;
    bool started;
    int wake_fd;
    struct frames received, to_send;
    struct ring lent, returned;
    uint32_t lent_at[LENT], *returned_at; /* room for every buffer of the pool */

    /* The owner's word to the thread. */
    _Alignas(64) _Atomic bool stop;
    _Atomic bool receives;
    _Atomic uint64_t refusals; /* how often the pool had no buffer to lend */

    /* The thread's to the owner. */
    _Alignas(64) _Atomic int sleeps; /* enum sleep */
    _Atomic int ended;               /* what the engine's receive repeats */
    _Atomic uint64_t tx_packets, tx_bytes, tx_failed, rx_missed;
    _Atomic uint64_t settled; /* of what is to be sent: up to here it is sent or has failed, and is counted */

    /* The thread's own. */
    _Alignas(64) bool needs;
    uint64_t
        refused; /* `refusals` when it began to need buffers for the packet that is next; UINT64_MAX: it does not */

    /* The owner's own. */
    _Alignas(64) unsigned left; /* of a burst, not yet given */
};

struct threads {
    struct sm_port port;
    struct sm_port_pool pool;
    char driver[64], *name;
    uint32_t copy_bytes;
    uint64_t returned_mask;
    void (*begin)(void);
    unsigned count, current;
    bool receives;
    bool asked; /* fd has been called since receive was */
    int ended;  /* what receive repeats; 0: still receiving */
    int fd;     /* threads write it when the owner may sleep: */
    _Atomic bool sleeps;
    uint64_t too_long; /* packets that there is no place for */
    struct thread *threads;
};

/* Rings. */

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)word, memory_order_acquire);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static uint64_t filled(const struct ring *ring)
{
    return load(&ring->head) - ring->took;
}

static void publish(struct ring *ring)
{
    store(&ring->head, ring->put);
}

static void release(struct ring *ring)
{
    store(&ring->tail, ring->took);
}

static bool has_room(const struct frames *frames, bool copied)
{
    const uint64_t tail = load(&frames->ring.tail);
    return frames->ring.put - tail < RING && (!copied || frames->behind[frames->copied % COPIES] <= tail);
}

static void put(struct frames *frames, const struct sm_frame *frame, bool copied, uint32_t copy_bytes)
{
    struct sm_frame *place = &frames->at[frames->ring.put++ % RING];
    *place = *frame;
    if (!copied)
        return;
    uint8_t *copy = frames->copies + (size_t)(frames->copied % COPIES) * copy_bytes;
    memcpy(copy, frame->data, frame->caplen);
    place->data = copy;
    frames->behind[frames->copied++ % COPIES] = frames->ring.put;
}

static bool is_in_pool(const struct threads *all, const uint8_t *data)
{
    return (size_t)(data - all->pool.memory) < (size_t)all->pool.count * all->pool.stride;
}

static void write_event(int fd)
{
    const uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0)
        return; /* its counter is full: it is readable */
}

static void read_event(int fd)
{
    uint64_t events;
    if (read(fd, &events, sizeof events) < 0)
        return; /* nobody has written it */
}

/* A thread. */

static uint32_t take_lent(void *arg)
{
    struct thread *thread = arg;
    if (filled(&thread->lent) > 0)
        return thread->lent_at[thread->lent.took++ % LENT];
    thread->needs = true;
    return UINT32_MAX;
}

static void give_back(void *arg, uint32_t buffer)
{
    struct thread *thread = arg;
    thread->returned_at[thread->returned.put++ & thread->all->returned_mask] = buffer;
}

/* Behind what was published to it. */
static void wake_owner(struct threads *all)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&all->sleeps, memory_order_relaxed) &&
        atomic_exchange_explicit(&all->sleeps, false, memory_order_relaxed))
        write_event(all->fd);
}

static bool may_receive(const struct thread *thread)
{
    return atomic_load_explicit(&thread->receives, memory_order_acquire) &&
           atomic_load_explicit(&thread->ended, memory_order_relaxed) == 0;
}

static unsigned receive_burst(struct thread *thread)
{
    struct frames *received = &thread->received;
    struct sm_frame frame;
    unsigned done = 0;
    int result = 1;

    if (!may_receive(thread))
        return 0;
    for (; done < BURST; done++) {
        if (!has_room(received, true)) {
            thread->needs = true;
            break;
        }
        result = thread->engine->ops->receive(thread->engine, &frame);
        if (result != 1)
            break;
        put(received, &frame, !is_in_pool(thread->all, frame.data), thread->all->copy_bytes);
    }
    if (done > 0)
        publish(&received->ring);
    if (result < 0)
        atomic_store_explicit(&thread->ended, result, memory_order_release);
    if (done > 0 || result < 0)
        wake_owner(thread->all);
    return done;
}

/* A long packet waits for as many buffers as it may take, unless the pool has none to lend. */
static bool lacks_buffers(struct thread *thread, const struct sm_frame *frame)
{
    const uint64_t refusals = load(&thread->refusals);
    if (is_in_pool(thread->all, frame->data) || filled(&thread->lent) >= LENT_ENOUGH ||
        (thread->refused != UINT64_MAX && thread->refused != refusals)) {
        thread->refused = UINT64_MAX;
        return false;
    }
    thread->refused = thread->refused == UINT64_MAX ? refusals : thread->refused;
    thread->needs = true;
    return true;
}

static unsigned send_burst(struct thread *thread)
{
    struct sm_port *engine = thread->engine;
    struct ring *ring = &thread->to_send.ring;
    const struct sm_port_pool *pool = &thread->all->pool;
    const uint64_t waiting = filled(ring);
    unsigned done = 0;

    for (; done < BURST && done < waiting; done++) {
        const struct sm_frame *frame = &thread->to_send.at[ring->took % RING];
        if (lacks_buffers(thread, frame))
            break;
        int result = engine->ops->send(engine, frame);
        assert(result >= 0);
        if (result != SM_PORT_KEEPS && is_in_pool(thread->all, frame->data))
            give_back(thread, (uint32_t)((size_t)(frame->data - pool->memory) / pool->stride));
        ring->took++;
    }
    if (engine->pending)
        engine->ops->flush(engine);
    release(ring);
    return done;
}

/* What the turn has come to. */
static void tell(struct thread *thread)
{
    const struct sm_port_counters *counters = &thread->engine->counters;
    const uint64_t took = thread->to_send.ring.took, pending = thread->engine->pending,
                   settled = atomic_load_explicit(&thread->settled, memory_order_relaxed);
    publish(&thread->returned);
    release(&thread->lent);
    atomic_store_explicit(&thread->tx_packets, counters->tx_packets, memory_order_relaxed);
    atomic_store_explicit(&thread->tx_bytes, counters->tx_bytes, memory_order_relaxed);
    atomic_store_explicit(&thread->tx_failed, counters->tx_failed, memory_order_relaxed);
    atomic_store_explicit(&thread->rx_missed, counters->rx_missed, memory_order_relaxed);
    if (took > settled + pending)
        store(&thread->settled, took - pending);
}

/* It changes with whatever the owner does that a thread may wait for. */
static uint64_t heard(const struct thread *thread)
{
    return load(&thread->to_send.ring.head) + load(&thread->received.ring.tail) + load(&thread->lent.head) +
           load(&thread->refusals) + atomic_load_explicit(&thread->receives, memory_order_acquire) +
           atomic_load_explicit(&thread->stop, memory_order_acquire);
}

static void sleep_until_work(struct thread *thread, uint64_t before)
{
    const struct timespec bound = {.tv_nsec = thread->engine->pending ? SEND_WAIT_NS : SLEEP_NS};
    struct pollfd fds[2] = {{.fd = thread->wake_fd, .events = POLLIN}};
    nfds_t count = 1;

    if (may_receive(thread) && has_room(&thread->received, true))
        fds[count++] = (struct pollfd){.fd = thread->engine->ops->fd(thread->engine), .events = POLLIN};
    atomic_store_explicit(&thread->sleeps, thread->needs ? NEEDS : SLEEPS, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (heard(thread) == before)
        ppoll(fds, count, &bound, NULL);
    atomic_store_explicit(&thread->sleeps, AWAKE, memory_order_relaxed);
    if (fds[0].revents)
        read_event(thread->wake_fd);
}

static uint64_t monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *run(void *arg)
{
    struct thread *thread = arg;
    uint64_t idle_since = 0;

    thread->all->begin();
    while (!atomic_load_explicit(&thread->stop, memory_order_acquire)) {
        const uint64_t before = heard(thread);
        thread->needs = false;
        unsigned done = send_burst(thread);
        done += receive_burst(thread);
        tell(thread);
        if (done > 0) {
            idle_since = 0;
            continue;
        }
        const uint64_t now = monotonic();
        if (idle_since == 0)
            idle_since = now;
        if (now - idle_since < YIELD_NS)
            sched_yield();
        else
            sleep_until_work(thread, before);
    }
    return NULL;
}

/* The owner. */

/* Behind what was published to it, or released. */
static void wake_thread(struct thread *thread, enum sleep least)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&thread->sleeps, memory_order_relaxed) >= (int)least &&
        atomic_exchange_explicit(&thread->sleeps, AWAKE, memory_order_relaxed) != AWAKE)
        write_event(thread->wake_fd);
}

/* Free buffers: all that came back, and as many lent as there is room for. */
static void exchange(struct thread *thread)
{
    const struct sm_port_lender *lender = thread->all->port.lender;
    struct ring *lent = &thread->lent, *returned = &thread->returned;
    const uint64_t before = lent->put, tail = load(&lent->tail);
    uint32_t buffer = 0;

    for (uint64_t count = filled(returned); count > 0; count--)
        lender->give(lender->arg, thread->returned_at[returned->took++ & thread->all->returned_mask]);
    release(returned);
    while (lent->put - tail < LENT && (buffer = lender->take(lender->arg)) < thread->all->pool.count)
        thread->lent_at[lent->put++ % LENT] = buffer;
    if (buffer >= thread->all->pool.count)
        store(&thread->refusals, load(&thread->refusals) + 1);
    if (lent->put == before && buffer < thread->all->pool.count)
        return;
    publish(lent);
    wake_thread(thread, NEEDS);
}

static void collect(struct threads *all)
{
    struct sm_port_counters *counters = &all->port.counters;
    uint64_t pending = 0;

    counters->tx_packets = counters->tx_bytes = counters->rx_missed = 0;
    counters->tx_failed = all->too_long;
    for (unsigned i = 0; i < all->count; i++) {
        struct thread *thread = &all->threads[i];
        pending += thread->to_send.ring.put - load(&thread->settled);
        counters->tx_packets += atomic_load_explicit(&thread->tx_packets, memory_order_relaxed);
        counters->tx_bytes += atomic_load_explicit(&thread->tx_bytes, memory_order_relaxed);
        counters->tx_failed += atomic_load_explicit(&thread->tx_failed, memory_order_relaxed);
        counters->rx_missed += atomic_load_explicit(&thread->rx_missed, memory_order_relaxed);
    }
    all->port.pending = all->port.under_way = (uint32_t)pending;
}

static int nothing(struct threads *all)
{
    collect(all);
    for (unsigned i = 0; i < all->count && !all->ended; i++) {
        all->ended = atomic_load_explicit(&all->threads[i].ended, memory_order_acquire);
        if (all->ended)
            all->port.error = all->threads[i].engine->error;
    }
    return all->ended;
}

static void start_receiving(struct threads *all)
{
    all->receives = true;
    for (unsigned i = 0; i < all->count; i++) {
        atomic_store_explicit(&all->threads[i].receives, true, memory_order_release);
        wake_thread(&all->threads[i], SLEEPS);
    }
}

/* Done with a burst. */
static void next_thread(struct threads *all)
{
    struct thread *thread = &all->threads[all->current];
    if (thread->received.ring.took != load(&thread->received.ring.tail)) {
        release(&thread->received.ring);
        wake_thread(thread, NEEDS);
    }
    exchange(thread);
    all->current = all->current + 1 < all->count ? all->current + 1 : 0;
    thread = &all->threads[all->current];
    const uint64_t count = filled(&thread->received.ring);
    thread->left = count < BURST ? (unsigned)count : BURST;
}

static int threads_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct threads *all = (struct threads *)port;

    if (all->ended)
        return all->ended;
    if (!all->receives)
        start_receiving(all);
    if (all->asked) {
        all->asked = false;
        atomic_store_explicit(&all->sleeps, false, memory_order_relaxed);
        read_event(all->fd);
    }
    for (unsigned i = 0; i < all->count && all->threads[all->current].left == 0; i++)
        next_thread(all);
    struct thread *thread = &all->threads[all->current];
    if (thread->left == 0)
        return nothing(all);
    const uint64_t at = thread->received.ring.took++;
    thread->left--;
    *frame = thread->received.at[at % RING];
    port->counters.rx_packets++;
    port->counters.rx_bytes += frame->caplen;
    return 1;
}

static void wait_for_room(struct thread *thread)
{
    publish(&thread->to_send.ring);
    wake_thread(thread, SLEEPS);
    exchange(thread);
    sched_yield();
}

static int threads_send(struct sm_port *port, const struct sm_frame *frame)
{
    struct threads *all = (struct threads *)port;
    struct thread *thread = &all->threads[frame->flow % all->count];
    const bool copied = !is_in_pool(all, frame->data);

    port->pending++;
    if (copied && frame->caplen > all->copy_bytes) {
        all->too_long++;
        return 0;
    }
    while (!has_room(&thread->to_send, copied))
        wait_for_room(thread);
    put(&thread->to_send, frame, copied, all->copy_bytes);
    return copied ? 0 : SM_PORT_KEEPS;
}

static int threads_flush(struct sm_port *port)
{
    struct threads *all = (struct threads *)port;
    for (unsigned i = 0; i < all->count; i++) {
        struct thread *thread = &all->threads[i];
        if (thread->to_send.ring.put != load(&thread->to_send.ring.head)) {
            publish(&thread->to_send.ring);
            wake_thread(thread, SLEEPS);
        }
        exchange(thread);
    }
    collect(all);
    return 0;
}

static int threads_fd(struct sm_port *port)
{
    struct threads *all = (struct threads *)port;
    bool something = false;
    all->asked = true;
    atomic_store_explicit(&all->sleeps, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < all->count; i++)
        something = something || filled(&all->threads[i].received.ring) > 0 ||
                    atomic_load_explicit(&all->threads[i].ended, memory_order_acquire) != 0;
    if (something)
        write_event(all->fd);
    return all->fd;
}

static void stop(struct thread *thread)
{
    struct sm_errbuf ignored;
    if (thread->started) {
        atomic_store_explicit(&thread->stop, true, memory_order_release);
        write_event(thread->wake_fd);
        pthread_join(thread->id, NULL);
    }
    thread->engine->ops->close(thread->engine, false, &ignored);
    if (thread->wake_fd >= 0)
        close(thread->wake_fd);
    free(thread->received.copies);
    free(thread->to_send.copies);
    free(thread->returned_at);
}

static int threads_close(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    struct threads *all = (struct threads *)port;
    (void)whole;
    (void)error;
    for (unsigned i = 0; i < all->count; i++)
        stop(&all->threads[i]);
    if (all->fd >= 0)
        close(all->fd);
    free(all->threads);
    free(all->name);
    free(all);
    return 0;
}

static const struct sm_port_ops threads_ops = {
    .receive = threads_receive,
    .send = threads_send,
    .flush = threads_flush,
    .fd = threads_fd,
    .close = threads_close,
};

static bool start(struct threads *all, struct thread *thread)
{
    thread->refused = UINT64_MAX;
    thread->lender = (struct sm_port_lender){.take = take_lent, .give = give_back, .arg = thread};
    thread->engine->lender = &thread->lender;
    thread->received.copies = malloc((size_t)COPIES * all->copy_bytes);
    thread->to_send.copies = malloc((size_t)COPIES * all->copy_bytes);
    thread->returned_at = malloc((all->returned_mask + 1) * sizeof *thread->returned_at);
    thread->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    thread->started = thread->received.copies && thread->to_send.copies && thread->returned_at &&
                      thread->wake_fd >= 0 && pthread_create(&thread->id, NULL, run, thread) == 0;
    return thread->started;
}

/* All of it but what threads have; NULL: out of memory. */
static struct threads *make(struct sm_port *const *engines, unsigned count, const struct sm_port_pool *pool,
                            void (*begin)(void))
{
    struct threads *all = calloc(1, sizeof *all);
    struct thread *threads = aligned_alloc(_Alignof(struct thread), count * sizeof *threads);

    if (!all || !threads) {
        free(all);
        free(threads);
        return NULL;
    }
    *all = (struct threads){.port = *engines[0],
                            .pool = *pool,
                            .copy_bytes = engines[0]->snaplen,
                            .begin = begin,
                            .count = count,
                            .threads = threads};
    memset(threads, 0, count * sizeof *threads);
    while (all->returned_mask < pool->count)
        all->returned_mask = 2 * all->returned_mask + 1;
    for (unsigned i = 0; i < count; i++) {
        threads[i].all = all;
        threads[i].engine = engines[i];
        threads[i].wake_fd = -1;
    }
    snprintf(all->driver, sizeof all->driver, "%s, %u thread%s", engines[0]->driver, count, count > 1 ? "s" : "");
    all->port.ops = &threads_ops;
    all->port.driver = all->driver;
    all->port.name = all->name = strdup(engines[0]->name);
    all->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return all;
}

int sm_port_open_threads(struct sm_port **port, struct sm_port *const *engines, unsigned count,
                         const struct sm_port_pool *pool, void (*begin)(void), struct sm_errbuf *error)
{
    struct threads *all = make(engines, count, pool, begin);
    struct sm_errbuf ignored;
    bool started = all && all->name && all->fd >= 0;

    for (unsigned i = 0; i < count && started; i++)
        started = start(all, &all->threads[i]);
    if (started) {
        *port = &all->port;
        return 0;
    }
    sm_port_fail(error, SM_E_NO_MEMORY, "%s: no memory for %u threads", engines[0]->name, count);
    for (unsigned i = 0; i < count && !all; i++)
        engines[i]->ops->close(engines[i], false, &ignored);
    if (all)
        threads_close(&all->port, false, &ignored);
    return SM_E_NO_MEMORY;
}
