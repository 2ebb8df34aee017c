/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- replicas and actions ---- */

void ops_init(struct ops *ops, unsigned min, unsigned max)
{
    memset(ops, 0, sizeof(*ops));
    ops->min = min;
    ops->max = max;
}

static struct ops_replica *find(struct ops *ops, uint32_t id)
{
    for (unsigned i = 0; i < ops->count; i++)
        if (ops->replicas[i].id == id)
            return &ops->replicas[i];
    return NULL;
}

const struct ops_replica *ops_replica(const struct ops *ops, uint32_t id)
{
    return find((struct ops *)(uintptr_t)ops, id);
}

unsigned ops_ready_ids(const struct ops *ops, uint32_t ids[OPS_MAX_REPLICAS])
{
    unsigned count = 0;
    for (unsigned i = 0; i < ops->count; i++)
        if (ops->replicas[i].state == OPS_REPLICA_READY)
            ids[count++] = ops->replicas[i].id;
    return count;
}

static unsigned in_state(const struct ops *ops, enum ops_replica_state state)
{
    unsigned count = 0;
    for (unsigned i = 0; i < ops->count; i++)
        count += ops->replicas[i].state == state;
    return count;
}

static void act(struct ops *ops, enum ops_action_kind kind, uint32_t id)
{
    const unsigned size = sizeof(ops->queue) / sizeof(*ops->queue);
    assert(ops->queue_tail - ops->queue_head < size);
    ops->queue[ops->queue_tail++ % size] = (struct ops_action){kind, id};
}

bool ops_next(struct ops *ops, struct ops_action *action)
{
    if (ops->queue_head == ops->queue_tail)
        return false;
    *action = ops->queue[ops->queue_head++ % (sizeof(ops->queue) / sizeof(*ops->queue))];
    return true;
}

bool ops_idle(const struct ops *ops)
{
    return ops->stage == OPS_IDLE && ops->queue_head == ops->queue_tail;
}

uint32_t ops_add(struct ops *ops)
{
    assert(ops->count < OPS_MAX_REPLICAS);
    ops->replicas[ops->count++] = (struct ops_replica){.id = ++ops->last_id, .state = OPS_REPLICA_STARTING};
    return ops->last_id;
}

static void remove_replica(struct ops *ops, struct ops_replica *replica)
{
    size_t behind = (size_t)(&ops->replicas[ops->count] - replica - 1);
    memmove(replica, replica + 1, behind * sizeof(*replica));
    ops->count--;
}

/* ---- beginning ---- */

static enum ops_code refuse(struct ops_result *refusal, enum ops_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum ops_code refuse(struct ops_result *refusal, enum ops_code code, const char *format, ...)
{
    va_list args;
    *refusal = (struct ops_result){.code = code};
    va_start(args, format);
    vsnprintf(refusal->message, sizeof(refusal->message), format, args);
    va_end(args);
    return code;
}

static bool is_ready(const struct ops *ops, uint32_t id)
{
    const struct ops_replica *replica = ops_replica(ops, id);
    return replica && replica->state == OPS_REPLICA_READY;
}

static const char *const verbs[] = {"scale", "split", "merge", "move", "drain", "rebalance", "upgrade"};

const char *ops_verb_name(enum ops_verb verb)
{
    return verbs[verb];
}

static enum ops_code check(const struct ops *ops, const struct ops_request *r, struct ops_result *refusal)
{
    bool takes_replica = r->verb == OPS_SPLIT || r->verb == OPS_MERGE || r->verb == OPS_DRAIN;
    if (!ops_idle(ops))
        return refuse(refusal, OPS_BUSY, "another operation (%s) is under way", verbs[ops->request.verb]);
    if (r->verb == OPS_SCALE && (r->count < ops->min || r->count > ops->max))
        return refuse(refusal, OPS_USAGE, "scale: expected %u to %u replicas, got %u", ops->min, ops->max, r->count);
    if (takes_replica && !is_ready(ops, r->replica))
        return refuse(refusal, OPS_NOT_FOUND, "there is no replica r%u", r->replica);
    if (r->into && !is_ready(ops, r->into))
        return refuse(refusal, OPS_NOT_FOUND, "there is no replica r%u", r->into);
    if ((r->verb == OPS_MERGE || r->verb == OPS_MOVE) && !r->into)
        return refuse(refusal, OPS_USAGE, "%s: expected a replica to move to", verbs[r->verb]);
    if (takes_replica && r->into == r->replica)
        return refuse(refusal, OPS_USAGE, "%s: expected two replicas, got r%u twice", verbs[r->verb], r->replica);
    if (r->verb == OPS_SPLIT && !r->into && ops->count >= ops->max)
        return refuse(refusal, OPS_FAILED, "split: the service may have %u replicas and has them", ops->max);
    if (r->verb == OPS_MERGE && ops->count <= ops->min)
        return refuse(refusal, OPS_FAILED, "merge: the service needs %u replicas and has no more", ops->min);
    if (r->strategy == SERVICE_NEW_FLOWS && (r->verb == OPS_MERGE || (r->verb == OPS_SCALE && r->count < ops->count)))
        return refuse(refusal, OPS_FAILED, "%s: a replica would end that flows stay in: expected strategy drain",
                      verbs[r->verb]);
    if (r->verb == OPS_DRAIN && in_state(ops, OPS_REPLICA_READY) < 2)
        return refuse(refusal, OPS_FAILED, "drain: there is no other replica");
    if (r->verb == OPS_UPGRADE && in_state(ops, OPS_REPLICA_READY) == 0)
        return refuse(refusal, OPS_FAILED, "upgrade: there is no replica to take over from");
    if (r->verb == OPS_UPGRADE && ops->count + (r->count ? r->count : ops->count) > OPS_MAX_REPLICAS)
        return refuse(refusal, OPS_FAILED,
                      "upgrade: it takes as many replicas again, expected at most %u, there are %u",
                      OPS_MAX_REPLICAS / 2, ops->count);
    return OPS_OK;
}

static void start_replicas(struct ops *ops, unsigned number)
{
    for (unsigned i = 0; i < number; i++) {
        uint32_t id = ops_add(ops);
        find(ops, id)->fresh = true;
        act(ops, OPS_DO_START, id);
    }
}

static void look(struct ops *ops)
{
    ops->stage = OPS_LOOKING;
    act(ops, OPS_DO_LOOK, 0);
}

/* The first stage that there is something to do in. Replicas that were started for this already are used. */
static void enter(struct ops *ops)
{
    const struct ops_request *request = &ops->request;
    if (request->verb == OPS_MOVE) {
        ops->stage = OPS_SELECTING;
        act(ops, OPS_DO_SELECT, 0);
        return;
    }
    if (request->verb == OPS_UPGRADE) {
        ops->stage = OPS_OPENING;
        act(ops, OPS_DO_OPEN, 0);
        return;
    }
    if (request->verb == OPS_SCALE && request->count > ops->count)
        start_replicas(ops, request->count - ops->count);
    if (request->verb == OPS_SPLIT && !request->into && !find(ops, ops->result.into)) {
        start_replicas(ops, 1);
        ops->result.into = ops->last_id;
    }
    /* The highest-numbered go. */
    for (unsigned i = request->count; request->verb == OPS_SCALE && i < ops->count; i++)
        ops->replicas[i].leaving = true;
    if (request->verb == OPS_MERGE)
        find(ops, request->replica)->leaving = true;
    if (in_state(ops, OPS_REPLICA_STARTING) > 0)
        ops->stage = OPS_STARTING;
    else
        look(ops);
}

enum ops_code ops_begin(struct ops *ops, const struct ops_request *request, struct ops_result *refusal)
{
    enum ops_code code = check(ops, request, refusal);
    if (code != OPS_OK)
        return code;
    ops->request = *request;
    ops->result = (struct ops_result){.into = request->into};
    for (unsigned i = 0; i < ops->count; i++)
        ops->replicas[i].fresh = ops->replicas[i].leaving = false;
    memset(ops->load, 0, sizeof(ops->load));
    ops->failure[0] = '\0';
    ops->began = ops->by_new = ops->returning = false;
    ops->tries = 0;
    enter(ops);
    return OPS_OK;
}

/* ---- going on ---- */

static void finish(struct ops *ops)
{
    ops->stage = OPS_IDLE;
    act(ops, OPS_DO_REPLY, 0);
}

/* Retire who leaves; when nobody does, the operation is over. */
static void retire(struct ops *ops)
{
    for (unsigned i = 0; i < ops->count; i++) {
        struct ops_replica *replica = &ops->replicas[i];
        if (!replica->leaving)
            continue;
        bool back = ops->request.verb == OPS_UPGRADE && ops->result.code != OPS_OK; /* it may own something */
        if (replica->state == OPS_REPLICA_READY && !back)
            act(ops, OPS_DO_RETIRE, replica->id);
        else if (replica->state != OPS_REPLICA_RETIRING)
            act(ops, OPS_DO_KILL, replica->id);
        replica->state = OPS_REPLICA_RETIRING;
    }
    if (in_state(ops, OPS_REPLICA_RETIRING) > 0)
        ops->stage = OPS_RETIRING;
    else
        finish(ops);
}

static void fail(struct ops *ops, enum ops_code code, const char *message)
{
    ops->result.code = code;
    snprintf(ops->result.message, sizeof(ops->result.message), "%s", message);
}

/* Whoever was started for this goes again, whoever was to leave stays. */
static void turn_round(struct ops *ops)
{
    for (unsigned i = 0; i < ops->count; i++)
        ops->replicas[i].leaving = ops->replicas[i].fresh;
}

static void take_back(struct ops *ops)
{
    turn_round(ops);
    if (ops->request.verb == OPS_UPGRADE)
        act(ops, OPS_DO_BACK, 0);
    retire(ops);
}

/* Before anything has moved. */
static void give_up(struct ops *ops, enum ops_code code, const char *message)
{
    fail(ops, code, message);
    take_back(ops);
}

static unsigned staying(const struct ops *ops, uint32_t ids[OPS_MAX_REPLICAS])
{
    unsigned count = 0;
    for (unsigned i = 0; i < ops->count; i++)
        if (ops->replicas[i].state == OPS_REPLICA_READY && !ops->replicas[i].leaving)
            ids[count++] = ops->replicas[i].id;
    return count;
}

static void plan(struct ops *ops, placement_table owners)
{
    uint32_t ids[OPS_MAX_REPLICAS];
    unsigned count = staying(ops, ids), others = 0;
    switch (ops->request.verb) {
    case OPS_SCALE:
        placement_spread(owners, ids, count);
        break;
    case OPS_REBALANCE:
        if (!balance_by_load(owners, ops->load, ids, count, &ops->result.balance))
            placement_spread(owners, ids, count);
        break;
    case OPS_SPLIT:
        placement_split(owners, ops->request.replica, ops->result.into);
        break;
    case OPS_MERGE:
        placement_merge(owners, ops->request.replica, ops->request.into);
        break;
    case OPS_MOVE:
        placement_move(owners, ops->set, ops->request.into);
        break;
    case OPS_DRAIN:
        for (unsigned i = 0; i < count; i++)
            if (ids[i] != ops->request.replica)
                ids[others++] = ids[i];
        if (others > 0)
            placement_drain(owners, ops->request.replica, ids, others);
        break;
    case OPS_UPGRADE:
        /* Each new replica gets what an old one has. */
        for (unsigned i = 0, old = 0; count > 0 && i < ops->count; i++)
            if (ops->replicas[i].leaving)
                placement_merge(owners, ops->replicas[i].id, ids[old++ % count]);
        break;
    }
}

static bool somebody_leaves(const struct ops *ops)
{
    for (unsigned i = 0; i < ops->count; i++)
        if (ops->replicas[i].leaving)
            return true;
    return false;
}

bool ops_drains(const struct ops *ops)
{
    if (ops->request.verb == OPS_UPGRADE) /* the old replicas are to end, whatever is said of new flows */
        return service_stays(ops->request.strategy);
    return ops->request.strategy == SERVICE_DRAIN && (ops->request.verb == OPS_DRAIN || somebody_leaves(ops));
}

/* ---- upgrades ---- */

/* A new replica that is left, or is started for that, gives back what the old ones cannot read. */
static void bring_back(struct ops *ops)
{
    bool left = false;
    ops->failure[0] = '\0';
    for (unsigned i = 0; i < ops->count; i++)
        left |= ops->replicas[i].fresh && ops->replicas[i].state == OPS_REPLICA_READY;
    if (left) {
        look(ops);
        return;
    }
    start_replicas(ops, 1);
    turn_round(ops);
    ops->stage = OPS_STARTING;
}

static void go_back(struct ops *ops, const char *why)
{
    char message[sizeof(ops->result.message)];
    snprintf(message, sizeof(message), "the new version failed: %s; the old one goes on", why);
    fail(ops, OPS_FAILED, message);
    ops->returning = ops->began && ops->by_new;
    if (ops->returning) {
        turn_round(ops);
        bring_back(ops);
    } else {
        take_back(ops);
    }
}

/* What fails is tried again: nobody but new replicas can read what has moved. */
static bool needs_new(const struct ops *ops)
{
    return ops->request.verb == OPS_UPGRADE && ops->began && (ops->request.no_rollback || ops->returning);
}

/* Something has moved already, and the old version could not read it: whoever is left of the new one, or others. */
static void go_forward(struct ops *ops)
{
    uint32_t ids[OPS_MAX_REPLICAS];
    ops->failure[0] = '\0';
    if (staying(ops, ids) > 0) {
        look(ops);
    } else {
        start_replicas(ops, ops->request.count);
        ops->stage = OPS_STARTING;
    }
}

static void stay_both(struct ops *ops, const char *why)
{
    char message[sizeof(ops->result.message)];
    snprintf(message, sizeof(message),
             "the new version failed (%.120s); both versions go on, and the upgrade may be asked for again", why);
    fail(ops, OPS_FAILED, message);
    finish(ops);
}

/* The new version has failed somewhere. */
static void go_on_or_back(struct ops *ops, const char *why)
{
    if (!needs_new(ops)) {
        go_back(ops, why);
    } else if (++ops->tries < OPS_UPGRADE_TRIES) {
        ops->stage = OPS_WAITING;
    } else {
        stay_both(ops, why);
    }
}

void ops_opened(struct ops *ops)
{
    if (ops->stage != OPS_OPENING)
        return;
    if (ops->request.count == 0)
        ops->request.count = in_state(ops, OPS_REPLICA_READY);
    if (ops->request.count == 0)
        ops->request.count = 1;
    for (unsigned i = 0; i < ops->count; i++)
        ops->replicas[i].leaving = true;
    start_replicas(ops, ops->request.count);
    ops->stage = OPS_STARTING;
}

static void close_upgrade(struct ops *ops)
{
    ops->stage = OPS_CLOSING;
    act(ops, OPS_DO_CLOSE, 0);
}

void ops_closed(struct ops *ops)
{
    if (ops->stage == OPS_CLOSING)
        retire(ops);
}

static void upgrade_moved(struct ops *ops, const struct ops_moved *moved)
{
    struct ops_moved *sum = &ops->result.moved;
    sum->completed += moved->completed;
    sum->flows += moved->flows;
    sum->held_packets += moved->held_packets;
    sum->seconds += moved->seconds;
    if (ops->failure[0] || moved->abandoned > 0)
        go_on_or_back(ops, ops->failure[0] ? ops->failure : moved->cause);
    else
        look(ops);
}

/* A replica is gone, of the old or the new version. False: it died as any replica may, and is replaced some time. */
static bool upgrade_exited(struct ops *ops, uint32_t id, enum ops_replica_state state, bool fresh, const char *how)
{
    if (!fresh || ops->stage == OPS_CLOSING)
        return false;
    snprintf(ops->failure, sizeof(ops->failure), "replica r%u %.170s%s", id, how,
             state == OPS_REPLICA_STARTING ? " before it was ready" : "");
    if (ops->stage == OPS_STARTING || ops->stage == OPS_LOOKING || ops->stage == OPS_TRIAL)
        go_on_or_back(ops, ops->failure);
    return true; /* moves end, and then it is seen */
}

void ops_load(struct ops *ops, const uint64_t load[PLACEMENT_SHARDS])
{
    memcpy(ops->load, load, sizeof(ops->load));
}

void ops_owners(struct ops *ops, const placement_table owners, bool by_new)
{
    placement_table after;
    uint32_t ids[OPS_MAX_REPLICAS];
    if (ops->stage != OPS_LOOKING)
        return;
    if (ops->request.verb != OPS_UPGRADE && staying(ops, ids) == 0) {
        give_up(ops, OPS_FAILED, "no replica is left"); /* whoever is started next has the shards that nobody has */
        return;
    }
    memcpy(after, owners, sizeof(after));
    plan(ops, after);
    ops->range_count = placement_ranges(owners, after, ops->ranges);
    ops->by_new = by_new;
    if (ops->returning && staying(ops, ids) == 0) {
        stay_both(ops, "no old replica is left");
    } else if (ops->range_count == 0 && ops->returning) {
        take_back(ops);
    } else if (ops->range_count == 0 && ops->request.verb == OPS_UPGRADE) {
        if (ops->request.trial_ms > 0 && !ops->request.no_rollback)
            ops->stage = OPS_TRIAL;
        else
            close_upgrade(ops);
    } else if (ops->range_count == 0 && !ops_drains(ops)) {
        retire(ops);
    } else {
        ops->began = true;
        ops->stage = OPS_MOVING;
        act(ops, OPS_DO_MOVE, 0);
    }
}

void ops_ready(struct ops *ops, uint32_t id)
{
    struct ops_replica *replica = find(ops, id);
    if (!replica || replica->state != OPS_REPLICA_STARTING)
        return;
    replica->state = OPS_REPLICA_READY;
    if (ops->stage == OPS_STARTING && in_state(ops, OPS_REPLICA_STARTING) == 0)
        look(ops);
}

bool ops_exited(struct ops *ops, uint32_t id, const char *how)
{
    char message[sizeof(ops->result.message)];
    struct ops_replica *replica = find(ops, id);
    if (!replica)
        return true;
    enum ops_replica_state state = replica->state;
    bool concerned = replica->leaving || id == ops->request.replica || id == ops->result.into;
    bool fresh = replica->fresh;
    remove_replica(ops, replica);
    if (state == OPS_REPLICA_RETIRING) {
        if (ops->stage == OPS_RETIRING && in_state(ops, OPS_REPLICA_RETIRING) == 0)
            finish(ops);
        return true;
    }
    if (ops->request.verb == OPS_UPGRADE && ops->stage != OPS_IDLE && ops->stage != OPS_RETIRING)
        return upgrade_exited(ops, id, state, fresh, how);
    if (state == OPS_REPLICA_STARTING && ops->stage == OPS_STARTING) {
        snprintf(message, sizeof(message), "replica r%u %s before it was ready", id, how);
        give_up(ops, OPS_FAILED, message);
        return true;
    }
    /* What is moving is for the switch to abandon. */
    if (concerned && (ops->stage == OPS_SELECTING || ops->stage == OPS_STARTING || ops->stage == OPS_LOOKING)) {
        snprintf(message, sizeof(message), "replica r%u %s", id, how);
        give_up(ops, OPS_FAILED, message);
    }
    return false;
}

void ops_selected(struct ops *ops, const bool set[PLACEMENT_SHARDS])
{
    if (ops->stage != OPS_SELECTING)
        return;
    memcpy(ops->set, set, sizeof(ops->set));
    if (!memchr(ops->set, true, sizeof(ops->set))) {
        give_up(ops, OPS_FAILED, "move: no flow matches the selector");
        return;
    }
    look(ops);
}

void ops_moved(struct ops *ops, const struct ops_moved *moved)
{
    if (ops->stage != OPS_MOVING)
        return;
    if (ops->request.verb == OPS_UPGRADE) {
        upgrade_moved(ops, moved);
        return;
    }
    ops->result.moved = *moved;
    if (moved->abandoned > 0) {
        ops->result.code = OPS_FAILED;
        snprintf(ops->result.message, sizeof(ops->result.message), "%llu of %llu moves were abandoned: %s",
                 (unsigned long long)moved->abandoned, (unsigned long long)(moved->completed + moved->abandoned),
                 moved->cause[0] ? moved->cause : "no cause was given");
    } else if (moved->flows_left > 0) {
        ops->result.code = OPS_TIMED_OUT;
        snprintf(ops->result.message, sizeof(ops->result.message),
                 "%llu flows are left in replicas without shards, which stay; new flows do not come there",
                 (unsigned long long)moved->flows_left);
    }
    for (unsigned i = 0; ops->result.code != OPS_OK && i < ops->count; i++)
        ops->replicas[i].leaving = false;
    retire(ops);
}

void ops_refused(struct ops *ops, enum ops_code code, const char *message)
{
    if (ops->stage != OPS_SELECTING && ops->stage != OPS_LOOKING && ops->stage != OPS_MOVING &&
        ops->stage != OPS_OPENING && ops->stage != OPS_CLOSING)
        return;
    if (needs_new(ops))
        go_on_or_back(ops, message);
    else
        give_up(ops, code, message);
}

void ops_stays(struct ops *ops, uint32_t id, const char *message)
{
    struct ops_replica *replica = find(ops, id);
    if (ops->stage != OPS_RETIRING || !replica || replica->state != OPS_REPLICA_RETIRING)
        return;
    replica->state = OPS_REPLICA_READY;
    ops->result.code = OPS_FAILED;
    snprintf(ops->result.message, sizeof(ops->result.message), "%s", message);
    if (in_state(ops, OPS_REPLICA_RETIRING) == 0)
        finish(ops);
}

const char *ops_stage_name(const struct ops *ops)
{
    static const char *const names[] = {
        [OPS_IDLE] = NULL,       [OPS_SELECTING] = "selecting", [OPS_STARTING] = "starting", [OPS_LOOKING] = "looking",
        [OPS_MOVING] = "moving", [OPS_RETIRING] = "retiring",   [OPS_OPENING] = "opening",   [OPS_CLOSING] = "closing",
        [OPS_TRIAL] = "trial",   [OPS_WAITING] = "waiting",
    };
    _Static_assert(sizeof(names) / sizeof(*names) == OPS_WAITING + 1, "a name for every stage");
    return names[ops->stage];
}

unsigned ops_patience(const struct ops *ops)
{
    switch (ops->stage) {
    case OPS_STARTING:
        return OPS_START_MS;
    case OPS_RETIRING:
        return OPS_RETIRE_MS;
    case OPS_TRIAL:
        return ops->request.trial_ms;
    case OPS_WAITING:
        return OPS_UPGRADE_WAIT_MS << (ops->tries - 1);
    case OPS_IDLE:
    case OPS_SELECTING:
    case OPS_LOOKING:
    case OPS_MOVING:
    case OPS_OPENING:
    case OPS_CLOSING:
        break;
    }
    return 0;
}

static void kill_all(struct ops *ops, enum ops_replica_state state)
{
    for (unsigned i = 0; i < ops->count; i++)
        if (ops->replicas[i].state == state)
            act(ops, OPS_DO_KILL, ops->replicas[i].id);
}

void ops_timed_out(struct ops *ops)
{
    if (ops->stage == OPS_TRIAL)
        close_upgrade(ops);
    else if (ops->stage == OPS_WAITING && ops->returning)
        bring_back(ops);
    else if (ops->stage == OPS_WAITING)
        go_forward(ops);
    else if (ops->stage == OPS_STARTING && needs_new(ops))
        kill_all(ops, OPS_REPLICA_STARTING);
    else if (ops->stage == OPS_STARTING)
        give_up(ops, OPS_TIMED_OUT, "a new replica was not ready within 30 s");
    else if (ops->stage == OPS_RETIRING)
        kill_all(ops, OPS_REPLICA_RETIRING);
}

/* ---- going on where another orchestrator was ---- */

static const struct ops_present *present_of(const struct ops_present *present, unsigned count, uint32_t id)
{
    while (count > 0 && present[count - 1].id != id)
        count--;
    return count ? &present[count - 1] : NULL;
}

static void insert_replica(struct ops *ops, const struct ops_present *present)
{
    unsigned at = ops->count;
    if (ops->count == OPS_MAX_REPLICAS)
        return;
    for (; at > 0 && ops->replicas[at - 1].id > present->id; at--)
        ops->replicas[at] = ops->replicas[at - 1];
    ops->replicas[at] = (struct ops_replica){.id = present->id, .state = present->state};
    ops->count++;
    if (present->id > ops->last_id)
        ops->last_id = present->id;
}

void ops_take_in(struct ops *ops, uint32_t id)
{
    insert_replica(ops, &(struct ops_present){.id = id, .state = OPS_REPLICA_READY});
}

/* Whether a replica was one of those that the service has: not started for what has not succeeded yet, not to leave
 * after what has. */
static bool counted(const struct ops *ops, const struct ops_replica *replica)
{
    if (replica->state != OPS_REPLICA_READY)
        return false;
    if (ops->stage == OPS_RETIRING)
        return !replica->leaving;
    return ops->stage == OPS_IDLE || !replica->fresh;
}

/*
 * Whoever is not there any more is forgotten: one that was only just starting may still come, as one unknown. Returns
 * how many have gone, less how many have come.
 */
static int reconcile(struct ops *ops, const struct ops_present *present, unsigned count)
{
    int gone = 0;
    for (unsigned i = ops->count; i-- > 0;) {
        const struct ops_present *found = present_of(present, count, ops->replicas[i].id);
        if (found) {
            ops->replicas[i].state = found->state;
            continue;
        }
        gone += counted(ops, &ops->replicas[i]);
        if (ops->request.verb == OPS_UPGRADE && ops->replicas[i].fresh)
            snprintf(ops->failure, sizeof(ops->failure), "replica r%u is gone", ops->replicas[i].id);
        remove_replica(ops, &ops->replicas[i]);
    }
    for (unsigned i = 0; i < count; i++) {
        if (find(ops, present[i].id))
            continue;
        insert_replica(ops, &present[i]);
        gone -= present[i].state != OPS_REPLICA_RETIRING;
    }
    return gone;
}

/* Whether the plan is made from where shards were before, so that it must not be made again. */
static bool planned(const struct ops *ops)
{
    return ops->stage == OPS_MOVING && (ops->request.verb == OPS_SPLIT || ops->request.verb == OPS_MOVE);
}

/* A replica that the operation cannot do without; 0: none is missing. To scale is to have so many, whoever they are. */
static uint32_t missed(const struct ops *ops)
{
    const struct ops_request *r = &ops->request;
    bool takes_replica = r->verb == OPS_SPLIT || r->verb == OPS_MERGE || r->verb == OPS_DRAIN;
    if (takes_replica && !is_ready(ops, r->replica))
        return r->replica;
    if (r->into && !is_ready(ops, r->into))
        return r->into;
    return planned(ops) && !is_ready(ops, ops->result.into) ? ops->result.into : 0;
}

/* What nobody has gone from goes on; but a replica of the new version that has just been started may still come. */
static void resume_upgrade(struct ops *ops)
{
    if (ops->stage == OPS_CLOSING)
        act(ops, OPS_DO_CLOSE, 0);
    else if (ops->stage == OPS_OPENING || ops->stage == OPS_STARTING)
        go_on_or_back(ops, "the orchestrator died meanwhile");
    else if (ops->failure[0] && ops->stage != OPS_WAITING)
        go_on_or_back(ops, ops->failure);
    else if (ops->stage != OPS_WAITING)
        look(ops);
}

int ops_resume(struct ops *ops, const struct ops_present *present, unsigned count, bool moving)
{
    char message[sizeof(ops->result.message)];
    int missing = reconcile(ops, present, count);
    if (ops->stage == OPS_IDLE || (ops->stage == OPS_MOVING && moving))
        return missing;
    if (ops->stage == OPS_RETIRING) {
        if (ops->request.verb == OPS_UPGRADE && ops->result.code != OPS_OK)
            act(ops, OPS_DO_BACK, 0);
        retire(ops);
        return missing;
    }
    if (ops->request.verb == OPS_UPGRADE) {
        resume_upgrade(ops);
        return missing;
    }
    uint32_t gone = missed(ops);
    if (gone) {
        snprintf(message, sizeof(message), "replica r%u is gone", gone);
        give_up(ops, OPS_FAILED, message);
    } else if (planned(ops)) {
        act(ops, OPS_DO_MOVE, 0);
    } else {
        for (unsigned i = 0; i < ops->count; i++)
            ops->replicas[i].leaving = false;
        enter(ops);
    }
    return ops->request.verb == OPS_SCALE ? 0 : missing; /* that makes up for them itself */
}
