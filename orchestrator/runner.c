/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Events, one after the other. The switch stops reading at the gate of the next one; the operation's move opens it
 * when its first markers are queued, and right behind that move goes the gate after it. So the next gate may be
 * reached while the operation is still under way: the input then waits there until it has finished, or waits for
 * nothing but flows to end, which they do as packet time goes by.
 *
 * An event whose place has been passed already (its gate came too late to stop the input before its end, or was opened
 * for such flows) runs as soon as the one before has finished; only what lies behind the last packet is not reached.
 */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "orchestrator.h"

static struct event *current(struct orchestrator *o)
{
    return o->event < o->events.count ? &o->events.list[o->event] : NULL;
}

bool runner_done(const struct orchestrator *o)
{
    if (o->event_running)
        return false;
    if (o->event >= o->events.count)
        return true;
    const struct event *event = &o->events.list[o->event];
    return o->ended && event->when > (event->by_time ? o->end_time : o->end_packets);
}

static void on_answer(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    (void)result;
    if (error && error->code != RPC_TIMED_OUT)
        orchestrator_fail(user, "the switch refused a gate: %s", error->message);
}

void runner_gate(struct orchestrator *o)
{
    size_t next = o->event + o->event_running;
    if (next >= o->events.count || o->ended)
        return;
    struct wire_out *params = wire_new();
    wire_put_uint(params, o->events.list[next].by_time ? "time" : "packet", o->events.list[next].when);
    rpc_request(o->sw, "gate", params, 0, on_answer, o);
}

static void open_gate(struct orchestrator *o)
{
    if (o->gate_open || o->ended || o->phase != PHASE_RUNNING)
        return;
    o->gate_open = true;
    o->gated = false;
    runner_gate(o);
    rpc_request(o->sw, "open_gate", NULL, 0, on_answer, o);
}

/* It must not stop the input for ever. */
static void open_nobodys_gate(struct orchestrator *o)
{
    if (!o->gated || o->event_running || current(o))
        return;
    o->gate_open = false;
    open_gate(o);
}

static void finish_event(struct orchestrator *o, const char *result, const char *message)
{
    struct event *event = current(o);
    event->result = result;
    event->seconds = (double)(uv_hrtime() - o->event_start) / 1e9;
    snprintf(event->message, sizeof(event->message), "%s", message);
    if (message[0])
        log_write(LEVEL_WARNING, "event_not_done",
                  LOG_WITH(log_number("line", event->line), log_text("result", result), log_text("reason", message)),
                  "event of line %u (%s) was %s: %s", event->line, event->text, result, message);
    open_gate(o);
    o->event_running = false;
    o->killed = 0;
    o->event++;
    open_nobodys_gate(o); /* it may have been reached while this event ran */
}

/* Whoever is killed cannot say so: the event is done before, and that is kept. */
static void run_kill_of(struct orchestrator *o, enum event_victim victim)
{
    o->victim = victim == VICTIM_SWITCH ? o->switch_pid : getpid();
    finish_event(o, "done", "");
    intent_kept(o);
}

static void run_kill(struct orchestrator *o, uint32_t id)
{
    char message[64];
    struct child *child = o->children;
    while (child && (!child->alive || !child->was_ready || (id && child->id != id)))
        child = child->next;
    if (!child) {
        snprintf(message, sizeof(message), id ? "there is no replica r%u" : "there is no replica", id);
        finish_event(o, "refused", message);
        return;
    }
    o->killed = child->id;
    child_kill(child, SIGKILL);
    open_gate(o);
}

static void on_checkpoint(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    if (o->phase != PHASE_RUNNING || !o->event_running || !current(o)->file)
        return;
    finish_event(o, error ? "failed" : "done", error ? error->message : "");
    runner_go_on(o);
    orchestrator_check_end(o);
}

static void run_checkpoint(struct orchestrator *o, const char *file)
{
    char here[4096] = "", path[8192];
    if (file[0] != '/' && !getcwd(here, sizeof(here)))
        here[0] = '\0';
    snprintf(path, sizeof(path), "%s%s%s", here, here[0] ? "/" : "", file);
    struct wire_out *params = wire_new();
    wire_put_str(params, "file", path);
    rpc_request(o->sw, "checkpoint", params, 0, on_checkpoint, o);
}

static void run_event(struct orchestrator *o, struct event *event)
{
    struct ops_result refusal;
    struct sm_errbuf error;
    struct selector *selector = NULL;
    o->event_running = true;
    o->gate_open = !o->gated;
    o->event_start = uv_hrtime();
    if (event->kill && event->victim)
        run_kill_of(o, event->victim);
    else if (event->kill)
        run_kill(o, event->request.replica);
    else if (event->file)
        run_checkpoint(o, event->file);
    else if (event->selector && selector_create(&selector, event->selector, &error) != 0)
        finish_event(o, "refused", error.text);
    else if (event->exec && serve_next(o, event->exec, event->args, &error) != 0)
        finish_event(o, "refused", error.text);
    else if (operate_begin(o, &event->request, selector, FOR_EVENT, NULL, &refusal) != OPS_OK)
        finish_event(o, "refused", refusal.message);
}

void runner_go_on(struct orchestrator *o)
{
    while (o->phase == PHASE_RUNNING && !o->event_running && ops_idle(&o->ops) && o->missing + o->surplus == 0 &&
           !o->victim && current(o) && (o->gated || (o->ended && !runner_done(o))))
        run_event(o, current(o));
}

void runner_gated(struct orchestrator *o)
{
    o->gated = true;
    runner_go_on(o);
    open_nobodys_gate(o);
}

void runner_operated(struct orchestrator *o, const struct ops_result *result)
{
    if (!o->event_running)
        return;
    const char *word = result->code == OPS_OK ? "done" : result->moved.abandoned ? "abandoned" : "failed";
    finish_event(o, word, result->message);
}

void runner_child_exited(struct orchestrator *o, uint32_t id)
{
    if (!o->event_running || o->killed != id)
        return;
    finish_event(o, "done", "");
    runner_go_on(o);
    orchestrator_check_end(o);
}

void runner_ended(struct orchestrator *o)
{
    o->ended = true;
    o->gated = false;
    runner_go_on(o);
}

/*
 * The gate is set again, which changes nothing where it had been; an operation goes on by itself. A gate that the input
 * stands at before it has come to the event is that of one that is over: nobody had opened it yet.
 */
void runner_resume(struct orchestrator *o, bool stands, uint64_t entered)
{
    const struct event *event = current(o);
    o->gated = stands && (!event || event->by_time || entered >= event->when);
    o->gate_open = !o->gated;
    o->event_start = uv_hrtime();
    if (!o->gated)
        runner_gate(o);
    if (stands && !o->gated)
        rpc_request(o->sw, "open_gate", NULL, 0, on_answer, o);
    if (!o->event_running)
        return;
    const struct child *victim = child_of(o, o->killed);
    if (current(o)->kill && victim && victim->alive)
        run_kill(o, o->killed);
    else if (current(o)->kill)
        finish_event(o, "done", "");
    else if (current(o)->file)
        run_checkpoint(o, current(o)->file);
    else if (o->ops.stage == OPS_IDLE)
        runner_operated(o, &o->ops.result);
}
