/* SPDX-License-Identifier: BSD-2-Clause */
#include "orchestrator.h"
#include "daemon/manager.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 10000 /* the switch listens within this */
#define RETRY_MS 20
#define ANSWER_MS 30000
#define LEAVE_MS 5000 /* replicas and switch end by themselves within this */

static void leave(struct orchestrator *o);
static void spawn_first(struct orchestrator *o);

/* ---- failing ---- */

void orchestrator_fail(struct orchestrator *o, const char *format, ...)
{
    if (o->failed || o->phase == PHASE_LEAVING)
        return; /* what follows from the first failure is not news */
    va_list args;
    va_start(args, format);
    vsnprintf(o->error, sizeof(o->error), format, args);
    va_end(args);
    log_failure(o->error);
    o->failed = true;
    leave(o);
}

/* ---- leaving: the switch tells replicas to end, and ends; whoever does not is made to ---- */

static void close_everything(struct orchestrator *o)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&o->timer,     (uv_handle_t *)&o->patience,
                              (uv_handle_t *)&o->replace,   (uv_handle_t *)&o->measure.timer,
                              (uv_handle_t *)&o->watchdog,  (uv_handle_t *)&o->signals[0],
                              (uv_handle_t *)&o->signals[1]};
    sigset_t late;
    metrics_close(o);
    rpc_server_close(o->server);
    o->server = NULL;
    rpc_close(o->sw);
    o->sw = NULL;
    /* Without their handlers they would kill us while the report is written. */
    sigemptyset(&late);
    sigaddset(&late, SIGINT);
    sigaddset(&late, SIGTERM);
    sigprocmask(SIG_BLOCK, &late, NULL);
    for (unsigned i = 0; i < sizeof(handles) / sizeof(*handles); i++)
        if (!uv_is_closing(handles[i]))
            uv_close(handles[i], NULL);
}

static void check_left(struct orchestrator *o)
{
    if (o->phase == PHASE_LEAVING && children_alive(o) == 0 && !o->sw)
        close_everything(o);
}

static void on_leave_timeout(uv_timer_t *timer)
{
    struct orchestrator *o = timer->data;
    children_kill(o, SIGKILL);
    if (o->sw && o->switch_pid > 0)
        kill(o->switch_pid, SIGTERM);
    rpc_close(o->sw);
    o->sw = NULL;
    check_left(o);
}

static void on_shutdown(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    (void)user; /* the connection's end, or the timer, is what counts */
    (void)error;
    (void)result;
}

static void on_last_status(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    if (error)
        return;
    children_learn(o, result);
    json_decref(o->status);
    o->status = wire_to_json(result);
}

static void leave(struct orchestrator *o)
{
    bool drained = o->phase == PHASE_FINISHING && !o->failed;
    manager_tell("STOPPING=1\nSTATUS=The service ends");
    o->phase = PHASE_LEAVING;
    uv_timer_stop(&o->patience);
    uv_timer_stop(&o->replace);
    if (o->operation_call)
        rpc_refuse(o->operation_call, RPC_FAILED, "the service ends");
    o->operation_call = NULL;
    selector_free(o->selector);
    o->selector = NULL;
    if (o->sw) {
        if (!drained)
            rpc_request(o->sw, "status", NULL, 0, on_last_status, o);
        rpc_request(o->sw, "shutdown", NULL, 0, on_shutdown, o);
    } else {
        children_kill(o, SIGKILL);
    }
    /* A service that has failed does not drain: its packets wait for somebody who is gone. */
    uv_timer_start(&o->timer, on_leave_timeout, drained ? LEAVE_MS : 500, 0);
    check_left(o);
}

/* ---- finishing ---- */

static void on_finished(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    if (o->phase != PHASE_FINISHING)
        return;
    if (error) {
        orchestrator_fail(o, "the switch cannot finish: %s", error->message);
        return;
    }
    children_learn(o, result);
    o->status = wire_to_json(result);
    if (!o->ended && o->service.in.kind != SERVICE_PORT_INTERFACE && o->service.out.kind == SERVICE_PORT_CAPTURE &&
        strcmp(o->service.out.name, "-") != 0)
        log_write(LEVEL_NOTICE, "stopped", LOG_WITH(log_text("file", o->service.out.name)),
                  "stopped before the end of the input: the output is %s.partial", o->service.out.name);
    leave(o);
}

static void finish(struct orchestrator *o)
{
    o->phase = PHASE_FINISHING;
    manager_tell("STOPPING=1\nSTATUS=The switch drains");
    uv_timer_stop(&o->patience);
    rpc_request(o->sw, "finish", NULL, 0, on_finished, o);
}

void orchestrator_stop(struct orchestrator *o)
{
    if (o->phase == PHASE_CONNECTING && o->sw) {
        o->stop_asked = true; /* it may be at work already */
    } else if (o->phase == PHASE_CONNECTING || o->phase == PHASE_STARTING) {
        o->failed = true; /* it has not run; whoever stopped it knows */
        snprintf(o->error, sizeof(o->error), "stopped before it ran");
        leave(o);
    } else if (o->phase == PHASE_RUNNING) {
        finish(o);
        if (children_alive(o) == 0)
            orchestrator_fail(o, "stopped while there was no replica: what waits for one is lost");
    }
}

void orchestrator_check_end(struct orchestrator *o)
{
    uint32_t ids[OPS_MAX_REPLICAS];
    bool served = ops_ready_ids(&o->ops, ids) > 0; /* else packets wait for the replacement */
    if (o->phase == PHASE_RUNNING && o->ended && runner_done(o) && ops_idle(&o->ops) && served)
        orchestrator_stop(o);
}

/* ---- running ---- */

/*
 * Replacements. The survivors have a dead replica's shards at once, without us; what is left to do is to have as many
 * replicas as before, with even loads: a scale operation of our own. Replicas that keep dying are started more and more
 * slowly.
 */
static void say_no_replacement(const struct ops_result *result)
{
    log_write(LEVEL_WARNING, "no_replacement", LOG_WITH(log_text("reason", result->message)), "no replacement: %s",
              result->message);
}

/* Whether somebody's end is still to be heard of from the switch, which tells of each replica of a process. */
static bool more_to_come(const struct orchestrator *o)
{
    for (const struct child *child = o->children; child; child = child->next)
        if (child->lost && child->was_ready && !child->gone)
            return true;
    return false;
}

static void replace(uv_timer_t *timer)
{
    struct orchestrator *o = timer->data;
    uint32_t ids[OPS_MAX_REPLICAS];
    unsigned ready = ops_ready_ids(&o->ops, ids);
    struct ops_request request = {.verb = OPS_SCALE, .count = ready + o->missing};
    struct ops_result refusal;
    request.count -= o->surplus < request.count ? o->surplus : request.count;
    if (request.count < o->ops.min)
        request.count = o->ops.min;
    if ((o->missing == 0 && o->surplus == 0) || o->phase != PHASE_RUNNING || !ops_idle(&o->ops) || more_to_come(o))
        return; /* an operation is under way, or there is more to replace: that comes back here */
    if (request.count > o->ops.max)
        request.count = o->ops.max;
    o->missing = o->surplus = 0;
    if (operate_begin(o, &request, NULL, FOR_US, NULL, &refusal) == OPS_OK)
        return;
    say_no_replacement(&refusal);
    runner_go_on(o); /* events have waited for it */
    orchestrator_check_end(o);
}

static void slow_down(struct orchestrator *o)
{
    o->replace_ms = o->replace_ms < REPLACE_FIRST_MS ? REPLACE_FIRST_MS : 2 * o->replace_ms;
    if (o->replace_ms > REPLACE_MOST_MS)
        o->replace_ms = REPLACE_MOST_MS;
}

/* Our own operation is over. One that failed is tried again, later each time. */
void orchestrator_replaced(struct orchestrator *o, const struct ops_result *result)
{
    if (result->code == OPS_OK)
        return;
    say_no_replacement(result);
    slow_down(o);
}

void orchestrator_replace_missing(struct orchestrator *o)
{
    if (o->missing + o->surplus > 0 && !uv_is_active((uv_handle_t *)&o->replace))
        uv_timer_start(&o->replace, replace, o->replace_ms, 0);
}

/* A replica has died: its process is gone, and the switch has given its shards away. */
static void lost(struct orchestrator *o, struct child *child)
{
    char how[48], name[16];
    log_write(LEVEL_WARNING, "replica_died",
              LOG_WITH(log_text("replica", child_name(child, name)), log_text("reason", child_how(child, how)),
                       log_number("shards", child->shards), log_number("packets", child->packets)),
              "replica %s %s; the others take over, a new one is started", name, how);
    if (child->packets > 0 || uv_now(o->loop) - child->since > REPLACE_MOST_MS)
        o->replace_ms = 0;
    else if (!child->host->weighed)
        slow_down(o);
    child->host->weighed = true;
    o->missing++;
    runner_child_exited(o, child->id);
    orchestrator_replace_missing(o);
}

void orchestrator_kept(struct orchestrator *o)
{
    if (o->victim && intent_kept(o)) {
        kill(o->victim, SIGKILL);
        o->victim = 0;
    }
    if (o->phase == PHASE_STARTING)
        spawn_first(o);
    operate(o);
}

/* The switch kills a replica; that it died will be reported as of any other. */
static void on_condemned(struct orchestrator *o, const struct wire_value *params)
{
    struct child *child = child_of(o, (uint32_t)wire_get_uint(params, "id", 0));
    if (!child)
        return;
    snprintf(child->condemned, sizeof(child->condemned), "%s", wire_get_str(params, "reason", "misbehaved"));
    char name[16];
    log_write(LEVEL_WARNING, "replica_condemned",
              LOG_WITH(log_text("replica", child_name(child, name)), log_text("reason", child->condemned)),
              "replica %s %s: the switch kills it", name, child->condemned);
}

static void on_gone(struct orchestrator *o, const struct wire_value *params)
{
    struct child *child = child_of(o, (uint32_t)wire_get_uint(params, "id", 0));
    if (!child)
        return;
    child->gone = true;
    child->packets = wire_get_uint(params, "packets", 0);
    child->shards = (uint32_t)wire_get_uint(params, "shards", 0);
    if (!wire_get_bool(params, "process", true))
        child_left(child);
    else if (child->lost)
        lost(o, child);
}

/* Why the switch refused it, or another one of its process; empty: it did not. */
static const char *refusal_of(const struct child *child)
{
    const struct child *other = child->o->children;
    while (!child->refusal[0] && other && (other->host != child->host || !other->refusal[0]))
        other = other->next;
    return child->refusal[0] || !other ? child->refusal : other->refusal;
}

void orchestrator_child_exited(struct orchestrator *o, struct child *child)
{
    const char *refusal = refusal_of(child);
    char how[48], name[16];
    child_how(child, how);
    if (o->phase == PHASE_CONNECTING || o->phase == PHASE_STARTING) {
        orchestrator_fail(o, "middlebox '%s' (replica r%u) %s before it was ready%s%s", o->program.exec, child->id, how,
                          refusal[0] ? ": " : "", refusal);
    } else if (o->phase == PHASE_RUNNING) {
        if (child->refusal[0])
            log_write(LEVEL_WARNING, "replica_refused",
                      LOG_WITH(log_text("replica", child_name(child, name)), log_text("reason", child->refusal)),
                      "replica %s was refused: %s", name, child->refusal);
        char why[sizeof(how) + sizeof(child->refusal) + 16];
        snprintf(why, sizeof(why), refusal[0] ? "%s (refused: %s)" : "%s%s", how, refusal);
        child->lost = !ops_exited(&o->ops, child->id, why);
        if (child->lost && child->gone)
            lost(o, child);
        operate(o);
    } else if (o->phase == PHASE_FINISHING && children_alive(o) == 0) {
        orchestrator_fail(o, "replica r%u %s before the end, and it was the last", child->id, how);
    }
    check_left(o);
}

static void on_ended_status(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    if (o->phase != PHASE_RUNNING)
        return;
    if (error) {
        orchestrator_fail(o, "the switch does not answer: %s", error->message);
        return;
    }
    uint64_t first = wire_get_uint(result, "first_time", 0), last = wire_get_uint(result, "time", 0);
    o->end_packets = wire_get_uint(wire_get_map(result, "packets"), "in", 0);
    o->end_time = last > first ? last - first : 0;
    children_learn(o, result);
    runner_ended(o);
    orchestrator_check_end(o);
}

static void on_ready(struct orchestrator *o, const struct wire_value *params);

static void on_notify(void *user, struct rpc_peer *peer, const char *method, const struct wire_value *params)
{
    struct orchestrator *o = user;
    (void)peer;
    if (strcmp(method, "ready") == 0) {
        on_ready(o, params);
    } else if (strcmp(method, "refused") == 0) {
        uint32_t id;
        struct child *child = replica_id(wire_get_str(params, "name", ""), &id) ? child_of(o, id) : NULL;
        if (child)
            snprintf(child->refusal, sizeof(child->refusal), "%s", wire_get_str(params, "reason", "refused"));
    } else if (strcmp(method, "condemned") == 0) {
        on_condemned(o, params);
    } else if (strcmp(method, "failed") == 0) {
        orchestrator_fail(o, "the switch cannot go on: %s", wire_get_str(params, "message", "it gave no reason"));
    } else if (o->phase == PHASE_CONNECTING && strcmp(method, "moved") == 0) {
        resume_moved(o, params);
    } else if (o->phase != PHASE_RUNNING) {
        return;
    } else if (strcmp(method, "exited") == 0) {
        on_gone(o, params);
    } else if (strcmp(method, "gated") == 0) {
        runner_gated(o);
        orchestrator_check_end(o);
    } else if (strcmp(method, "moved") == 0) {
        operate_moved(o, params);
    } else if (strcmp(method, "ended") == 0) {
        rpc_request(o->sw, "status", NULL, ANSWER_MS, on_ended_status, o);
    }
}

/* ---- starting ---- */

static void run(struct orchestrator *o)
{
    o->phase = PHASE_RUNNING;
    manager_tell("READY=1\nSTATUS=The service runs");
}

void orchestrator_goes_on(struct orchestrator *o, const char *state, uint64_t entered)
{
    run(o);
    runner_resume(o, strcmp(state, "gated") == 0, entered);
    if (strcmp(state, "finished") == 0)
        finish(o);
    else if (strcmp(state, "ended") == 0)
        rpc_request(o->sw, "status", NULL, ANSWER_MS, on_ended_status, o);
    else if (o->stop_asked)
        orchestrator_stop(o);
    orchestrator_replace_missing(o);
    operate(o);
    if (o->gated)
        runner_gated(o);
}

static void on_started(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    if (error)
        orchestrator_fail(o, "the switch refused to start: %s", error->message);
}

static void on_restored(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    if (o->phase != PHASE_STARTING)
        return;
    if (error)
        orchestrator_fail(o, "%s", error->message);
    else
        orchestrator_launch(o);
}

static void on_assigned(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    (void)result;
    if (o->phase != PHASE_STARTING)
        return;
    if (error) {
        orchestrator_fail(o, "the switch refused the assignment: %s", error->message);
        return;
    }
    if (!o->restore_file) {
        orchestrator_launch(o);
        return;
    }
    uv_timer_stop(&o->timer); /* all replicas are ready; a checkpoint takes its time */
    struct wire_out *params = wire_new();
    wire_put_str(params, "file", o->restore_file);
    rpc_request(o->sw, "restore", params, 0, on_restored, o);
}

void orchestrator_launch(struct orchestrator *o)
{
    uv_timer_stop(&o->timer);
    run(o);
    runner_gate(o);
    rpc_request(o->sw, "start", NULL, ANSWER_MS, on_started, o);
    orchestrator_replace_missing(o);
    operate(o);
}

static void assign(struct orchestrator *o)
{
    placement_table none = {0}, owners;
    static struct placement_range ranges[PLACEMENT_SHARDS];
    uint32_t ids[OPS_MAX_REPLICAS];
    placement_even(owners, ids, ops_ready_ids(&o->ops, ids));
    size_t count = placement_ranges(none, owners, ranges);
    struct wire_out *params = wire_new();
    wire_array_begin(params, "owners");
    for (size_t i = 0; i < count; i++) {
        wire_array_begin(params, NULL);
        wire_put_uint(params, NULL, ranges[i].first);
        wire_put_uint(params, NULL, ranges[i].last);
        wire_put_uint(params, NULL, ranges[i].to);
        wire_array_end(params);
    }
    wire_array_end(params);
    rpc_request(o->sw, "assign", params, ANSWER_MS, on_assigned, o);
}

static void assign_when_ready(struct orchestrator *o)
{
    uint32_t ids[OPS_MAX_REPLICAS];
    if (o->assigning || ops_ready_ids(&o->ops, ids) < o->service.replicas.start)
        return;
    o->assigning = true;
    assign(o);
}

static void on_ready(struct orchestrator *o, const struct wire_value *params)
{
    uint32_t id = (uint32_t)wire_get_uint(params, "id", 0);
    struct child *child = child_of(o, id);
    if (o->phase != PHASE_STARTING && o->phase != PHASE_RUNNING)
        return;                      /* the switch's status will say it again */
    if (!ops_replica(&o->ops, id)) { /* the last orchestrator had just started it */
        if (!child_adopt(o, id, (pid_t)wire_get_int(params, "pid", 0)))
            return; /* and has ended already */
        ops_take_in(&o->ops, id);
        o->surplus++;
        orchestrator_replace_missing(o);
    }
    if (child) {
        char name[16];
        log_write(LEVEL_INFO, "replica_ready", LOG_WITH(log_text("replica", child_name(child, name))),
                  "replica %s is ready", name);
        child->was_ready = true;
        child->gone = false; /* another process of it may have looked before, and left */
    }
    ops_ready(&o->ops, id);
    if (o->phase == PHASE_STARTING)
        assign_when_ready(o);
    else
        operate(o);
}

static void on_start_timeout(uv_timer_t *timer)
{
    struct orchestrator *o = timer->data;
    uint32_t late = 0;
    for (const struct child *child = o->children; child && !late; child = child->next)
        late = child->was_ready ? 0 : child->id;
    orchestrator_fail(o, "middlebox '%s' (replica r%u) was not ready within %u s", o->program.exec, late,
                      OPS_START_MS / 1000);
}

/* Those that have got their names, which the switch now keeps. */
static void spawn_first(struct orchestrator *o)
{
    struct sm_errbuf error;
    for (unsigned i = 0; i < o->ops.count && o->phase == PHASE_STARTING; i++) {
        const struct ops_replica *replica = &o->ops.replicas[i];
        if (replica->state == OPS_REPLICA_STARTING && !child_of(o, replica->id) &&
            child_spawn(o, replica->id, &error) != 0)
            orchestrator_fail(o, "%s", error.text);
    }
}

void orchestrator_begin(struct orchestrator *o)
{
    o->phase = PHASE_STARTING;
    if (o->stop_asked) {
        orchestrator_stop(o);
        return;
    }
    uv_timer_start(&o->timer, on_start_timeout, OPS_START_MS, 0);
    while (o->ops.count < o->service.replicas.start)
        ops_add(&o->ops);
    if (intent_kept(o))
        spawn_first(o);
    assign_when_ready(o);
}

/* ---- connecting ---- */

static void on_hello(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    const char *name = wire_get_str(result, "service", "");
    if (o->phase != PHASE_CONNECTING)
        return;
    if (error) {
        orchestrator_fail(o, "the switch does not answer: %s", error->message);
        return;
    }
    o->switch_pid = (int)wire_get_uint(result, "pid", 0);
    if (strcmp(name, o->service.name) != 0)
        orchestrator_fail(o, "expected the switch of service %s, got that of '%.64s'", o->service.name, name);
    else
        resume(o);
}

static void on_switch_closed(void *user, struct rpc_peer *peer, const char *reason)
{
    struct orchestrator *o = user;
    (void)peer;
    o->sw = NULL;
    o->again = o->phase != PHASE_LEAVING;
    if (o->phase == PHASE_LEAVING)
        check_left(o);
    else
        orchestrator_fail(o, "the switch is gone: %s", reason);
}

static void on_connect_timer(uv_timer_t *timer)
{
    struct orchestrator *o = timer->data;
    char path[108];
    struct sm_errbuf error;
    struct rpc_handlers handlers = {.user = o, .notify = on_notify, .closed = on_switch_closed};
    int result = rpc_connect(&o->sw, o->loop, rundir_file(&o->dir, "switch.sock", path), &handlers, &error);
    if (result == 0) {
        uv_timer_stop(timer);
        rpc_hello(o->sw, ANSWER_MS, on_hello, o);
    } else if (result != SM_E_NOT_FOUND || uv_now(o->loop) >= o->connect_until) {
        orchestrator_fail(o, "no switch of service %s: %s", o->service.name, error.text);
    }
}

static void on_signal(uv_signal_t *signal_handle, int number)
{
    (void)number;
    orchestrator_stop(signal_handle->data);
}

static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    manager_tell("WATCHDOG=1");
}

void orchestrator_start(struct orchestrator *o)
{
    static const int numbers[2] = {SIGINT, SIGTERM};
    uint64_t every = manager_watchdog_ms();
    ops_init(&o->ops, o->service.replicas.min, o->service.replicas.max);
    uv_timer_init(o->loop, &o->timer);
    uv_timer_init(o->loop, &o->patience);
    uv_timer_init(o->loop, &o->measure.timer);
    uv_timer_init(o->loop, &o->replace);
    uv_timer_init(o->loop, &o->watchdog);
    if (every > 0)
        uv_timer_start(&o->watchdog, on_watchdog, 0, every);
    o->replace.data = o;
    o->timer.data = o->measure.timer.data = o->patience.data = o;
    for (unsigned i = 0; i < 2; i++) {
        uv_signal_init(o->loop, &o->signals[i]);
        o->signals[i].data = o;
        uv_signal_start(&o->signals[i], on_signal, numbers[i]);
    }
    o->connect_until = uv_now(o->loop) + CONNECT_MS;
    uv_timer_start(&o->timer, on_connect_timer, 0, RETRY_MS);
}
