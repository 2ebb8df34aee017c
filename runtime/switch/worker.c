/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/worker.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "arena/core.h"

#define YIELD_NS 50000 /* poll this long, yielding the core, before sleeping */

static uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void run_job(struct worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    worker->sw->now = monotonic(); /* the last turn may be long ago, and jobs set deadlines */
    worker->job(worker->sw, worker->job_arg);
    worker->job = NULL;
    atomic_store_explicit(&worker->has_job, false, memory_order_release);
    pthread_cond_signal(&worker->done);
    pthread_mutex_unlock(&worker->mutex);
}

static void wait_for(struct pollfd *fds, nfds_t count, int64_t ns)
{
    const struct timespec bound = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

    ppoll(fds, count, ns < 0 ? NULL : &bound, NULL);
}

static void clear_wakes(struct worker *worker)
{
    uint64_t wakes;

    if (read(worker->wake_fd, &wakes, sizeof wakes) < 0 && errno != EAGAIN)
        switch_fail(worker->sw, "the worker's eventfd cannot be read");
}

/* No replica is asked to wake us: what it answers can wait, too. */
static void sleep_while_packets_gather(struct worker *worker)
{
    struct pollfd fd = {.fd = worker->wake_fd, .events = POLLIN};

    wait_for(&fd, 1, SWITCH_GATHER_NS);
    if (fd.revents)
        clear_wakes(worker);
}

static void sleep_until_work(struct worker *worker)
{
    struct sm_switch *sw = worker->sw;
    struct pollfd fds[3] = {{.fd = worker->wake_fd, .events = POLLIN}};
    nfds_t count = 1;

    if (sw->state == SWITCH_RUNNING && !sw->has_pending && !sw->input_ended)
        for (unsigned i = 0; i < 2; i++)
            if ((i == 0 || sw->two_way) && sw->ports[i]->is_interface)
                fds[count++] = (struct pollfd){.fd = sw->ports[i]->ops->fd(sw->ports[i]), .events = POLLIN};
    if (switch_sleep_prepare(sw) && !atomic_load_explicit(&worker->has_job, memory_order_acquire) &&
        !atomic_load_explicit(&worker->stop, memory_order_acquire))
        wait_for(fds, count, switch_sleep_ns(sw));
    switch_sleep_end(sw);
    if (fds[0].revents)
        clear_wakes(worker);
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    uint64_t idle_since = 0;

    core_share();
    while (!atomic_load_explicit(&worker->stop, memory_order_acquire)) {
        if (atomic_load_explicit(&worker->has_job, memory_order_acquire)) {
            run_job(worker);
            idle_since = 0;
        }
        if (switch_poll(worker->sw) > 0) {
            idle_since = 0;
            continue;
        }
        if (idle_since == 0)
            idle_since = worker->sw->now;
        if (monotonic() - idle_since >= YIELD_NS)
            sleep_until_work(worker);
        else if (switch_gathers(worker->sw))
            sleep_while_packets_gather(worker);
        else
            sched_yield();
    }
    return NULL;
}

void worker_notify(void *arg, enum switch_notice notice)
{
    struct worker *worker = arg;

    atomic_fetch_or_explicit(&worker->notices, 1u << notice, memory_order_release);
    uv_async_send(&worker->async);
}

int worker_start(struct worker *worker, struct sm_switch *sw, uv_loop_t *loop, uv_async_cb on_notice)
{
    worker->sw = sw;
    pthread_mutex_init(&worker->mutex, NULL);
    pthread_cond_init(&worker->done, NULL);
    worker->async.data = worker;
    if (uv_async_init(loop, &worker->async, on_notice) != 0)
        return SM_E_IO;
    return pthread_create(&worker->thread, NULL, run, worker) == 0 ? 0 : SM_E_NO_MEMORY;
}

void worker_wake(struct worker *worker)
{
    uint64_t one = 1;

    if (write(worker->wake_fd, &one, sizeof one) < 0)
        return; /* its counter is full: it is awake */
}

void worker_call(struct worker *worker, void (*job)(struct sm_switch *sw, void *arg), void *arg)
{
    pthread_mutex_lock(&worker->mutex);
    worker->job = job;
    worker->job_arg = arg;
    atomic_store_explicit(&worker->has_job, true, memory_order_release);
    worker_wake(worker);
    while (worker->job)
        pthread_cond_wait(&worker->done, &worker->mutex);
    pthread_mutex_unlock(&worker->mutex);
}

void worker_stop(struct worker *worker)
{
    atomic_store_explicit(&worker->stop, true, memory_order_release);
    worker_wake(worker);
    pthread_join(worker->thread, NULL);
}
