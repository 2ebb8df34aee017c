/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_WORKER_H
#define SM_SWITCH_WORKER_H

/*
 * The thread that runs the data plane, and the only door to it.
 *
 * Overview.  The worker turns switch_poll() until told to stop; with nothing to do it yields for a while, then sleeps
 * until a replica, a port or the control thread has something (design D8). The control thread never touches the
 * switch: it hands a function over, which the worker runs between two turns.
 *
 * Concurrency.  worker_call() from one control thread; notices come back through a uv_async_t on its loop.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "switch/switch.h"

struct worker {
    struct sm_switch *sw;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t done;
    int wake_fd; /* replicas and the control thread write it */
    _Atomic bool has_job;
    _Atomic bool stop;
    void (*job)(struct sm_switch *sw, void *arg);
    void *job_arg;
    _Atomic unsigned notices; /* bits of enum switch_notice not yet seen by the control thread */
    uv_async_t async;
};

/* `on_notice` runs on the loop's thread. SM_E_IO, SM_E_NO_MEMORY. */
int worker_start(struct worker *worker, struct sm_switch *sw, uv_loop_t *loop, uv_async_cb on_notice);

/* Run `job` on the worker's thread and wait for it. */
void worker_call(struct worker *worker, void (*job)(struct sm_switch *sw, void *arg), void *arg);

/* Have the worker take a turn, should it sleep. Any thread. */
void worker_wake(struct worker *worker);

/* End the thread; the switch is the caller's again. */
void worker_stop(struct worker *worker);

/* For struct switch_options. */
void worker_notify(void *worker, enum switch_notice notice);

#endif
