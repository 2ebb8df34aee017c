/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The control protocol's `checkpoint` and `restore`: between the switch's thread, which gives and takes parts, and the
 * disk, which a thread of libuv's waits for, at low priority. The control loop itself never waits for either.
 *
 * Life-cycle.  IDLE -> AT_WORK: a file is created and written, part by part, by one thread from beginning to end; or
 * read and checked, then pumped: the switch is asked for a step, and AWAITING its end -> IDLE, and the answer.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "switch/checkpoint.h"
#include "switch/control.h"
#include "switch/restore.h"

#define AGAIN_MS 2        /* shards may be between owners */
#define PATIENCE_MS 30000 /* of restoring, without anything to do */

enum transfer_state { IDLE, AT_WORK, AWAITING };

/* One at a time. */
struct transfer {
    struct control *control;
    struct rpc_call *call;
    enum transfer_state state;
    uv_work_t work;
    uv_timer_t again;
    uint64_t began, progress; /* uv_hrtime() */
    char file[1024];
    struct checkpoint *checkpoint; /* being written, or */
    struct restore *restore;       /* read */
    bool restoring, gave_up;
    _Atomic bool stop; /* the process is about to end */
    struct checkpoint_size size;
    int result;
    struct sm_errbuf error;
};

static void pump(struct transfer *t);

static void at_work(struct transfer *t, uv_work_cb work, uv_after_work_cb after)
{
    t->state = AT_WORK;
    t->work.data = t;
    uv_queue_work(t->control->loop, &t->work, work, after);
}

/* ---- jobs of the switch's thread ---- */

static void start_job(struct sm_switch *sw, void *arg)
{
    struct transfer *t = arg;

    t->result = sw->input_held ? SM_E_STATE : switch_snapshot_start(sw, &t->error);
    if (sw->input_held)
        snprintf(t->error.text, sizeof t->error.text, "a checkpoint is being restored");
}

static void end_job(struct sm_switch *sw, void *arg)
{
    (void)arg;
    switch_snapshot_end(sw);
}

static void restore_job(struct sm_switch *sw, void *arg)
{
    struct transfer *t = arg;

    if (t->gave_up)
        restore_give_up(t->restore);
    t->gave_up = false;
    t->result = restore_step(t->restore, sw, &t->error);
}

/* ---- the end ---- */

static void answer(struct transfer *t)
{
    struct rpc_call *call = t->call;

    t->state = IDLE;
    t->call = NULL;
    uv_timer_stop(&t->again);
    if (t->result) {
        rpc_refuse(call, RPC_FAILED, "%s", t->error.text);
        return;
    }
    struct wire_out *out = wire_new();
    wire_put_uint(out, "flows", t->size.flows);
    wire_put_uint(out, "bytes", t->size.bytes);
    wire_put_double(out, "seconds", (double)(uv_hrtime() - t->began) / 1e9);
    rpc_reply(call, out);
}

static void close_work(uv_work_t *work)
{
    struct transfer *t = work->data;

    checkpoint_stand_back();
    if (t->result == 0)
        t->result = checkpoint_finish(t->checkpoint, &t->size, &t->error);
    else
        checkpoint_abandon(t->checkpoint);
    t->checkpoint = NULL;
}

static void closed(uv_work_t *work, int status)
{
    (void)status;
    answer(work->data);
}

/* The snapshot is over, well or not; what is in the file is still to reach the disk. */
static void written(uv_work_t *work, int status)
{
    struct transfer *t = work->data;

    (void)status;
    worker_call(&t->control->worker, end_job, t);
    at_work(t, close_work, closed);
}

static void taken(void *arg)
{
    worker_wake(arg);
}

static void write_work(uv_work_t *work)
{
    struct transfer *t = work->data;
    const struct checkpoint_peer peer = {.taken = taken, .arg = &t->control->worker, .stop = &t->stop};

    checkpoint_stand_back();
    t->result = checkpoint_write(t->checkpoint, t->control->worker.sw, &peer, &t->error);
}

/* ---- pumping ---- */

static void on_again(uv_timer_t *timer)
{
    pump(timer->data);
}

static void await(struct transfer *t)
{
    t->state = AWAITING;
    uv_timer_start(&t->again, on_again, AGAIN_MS, 0);
}

static bool out_of_patience(const struct transfer *t)
{
    return uv_hrtime() - t->progress > PATIENCE_MS * 1000000ull;
}

static void pump(struct transfer *t)
{
    uv_timer_stop(&t->again);
    t->gave_up = out_of_patience(t);
    if (t->gave_up)
        t->progress = uv_hrtime();
    worker_call(&t->control->worker, restore_job, t);
    if (t->result == RESTORE_WAIT) {
        await(t);
        return;
    }
    t->size.flows = restore_flows(t->restore);
    restore_close(t->restore);
    t->restore = NULL;
    answer(t);
}

/* Something that was waited for has come. */
void checkpoint_noticed(struct control *control)
{
    if (control->transfer && control->transfer->state == AWAITING) {
        control->transfer->progress = uv_hrtime();
        pump(control->transfer);
    }
}

/* ---- beginning ---- */

static void open_work(uv_work_t *work)
{
    struct transfer *t = work->data;

    checkpoint_stand_back();
    t->result = t->restoring ? restore_open(&t->restore, t->control->arena, t->file, &t->error)
                             : checkpoint_open(&t->checkpoint, t->control->arena, t->file, &t->error);
}

static void opened(uv_work_t *work, int status)
{
    struct transfer *t = work->data;

    (void)status;
    t->progress = uv_hrtime();
    if (t->result == 0 && t->restoring) {
        pump(t);
    } else if (t->result == 0) {
        at_work(t, write_work, written);
    } else {
        if (!t->restoring)
            worker_call(&t->control->worker, end_job, t);
        answer(t);
    }
}

static struct transfer *transfer_of(struct control *control)
{
    if (!control->transfer) {
        control->transfer = calloc(1, sizeof *control->transfer);
        if (control->transfer) {
            uv_timer_init(control->loop, &control->transfer->again);
            control->transfer->again.data = control->transfer;
            control->transfer->control = control;
        }
    }
    return control->transfer;
}

static void begin(struct control *control, struct rpc_call *call, const struct wire_value *params, bool restoring)
{
    const char *file = wire_get_str(params, "file", "");
    struct transfer *t = transfer_of(control);

    if (!t || file[0] != '/' || strlen(file) >= sizeof t->file) {
        rpc_refuse(call, t ? RPC_USAGE : RPC_FAILED, t ? "file: expected an absolute path" : "out of memory");
        return;
    }
    if (t->state != IDLE || control->finish_call) {
        rpc_refuse(call, RPC_BUSY, t->state != IDLE ? "another checkpoint is under way" : "the end is under way");
        return;
    }
    t->restoring = restoring;
    t->call = call;
    t->result = 0;
    t->size = (struct checkpoint_size){0};
    t->began = uv_hrtime();
    strcpy(t->file, file);
    if (!restoring)
        worker_call(&control->worker, start_job, t);
    if (t->result)
        answer(t);
    else
        at_work(t, open_work, opened);
}

void checkpoint_end(struct control *control)
{
    struct transfer *t = control->transfer;

    if (!t)
        return;
    atomic_store_explicit(&t->stop, true, memory_order_relaxed);
    while (t->state == AT_WORK)
        uv_run(control->loop, UV_RUN_ONCE);
}

void checkpoint_serve(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    begin(control, call, params, false);
}

void restore_serve(struct control *control, struct rpc_call *call, const struct wire_value *params)
{
    begin(control, call, params, true);
}
