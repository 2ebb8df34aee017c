/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_OPS_H
#define SM_ORCHESTRATOR_OPS_H

/*
 * Operations as a state machine. Pure (design D7): the loop tells it what has happened and does what it asks for.
 *
 * Life-cycle of an operation (one at a time; a second one is refused with code 4):
 *
 *     idle -> [selecting] -> [starting] -> looking -> [moving] -> [retiring] -> idle, with OPS_DONE
 *
 * selecting: a selector becomes a set of shards. starting: new replicas attach and register. looking: the switch says
 * who owns what, since it alone knows. moving: the plan is carried out. retiring: replicas that own nothing any more
 * end. A stage that has nothing to do is left out. What fails before `moving` changes nothing: replicas that the
 * operation started are retired again, and then it is done. Moves that were abandoned leave a valid service, whose
 * replicas then all stay.
 *
 * An upgrade has two stages more: the switch lets another version in, and makes it the service's:
 *
 *     idle -> opening -> starting -> looking -> [moving -> looking] -> [trial] -> closing -> retiring -> idle
 *
 * It looks again until all is with the new replicas, which are then on trial for a while: the old ones own nothing any
 * more, and stay. Whatever fails before closing has succeeded takes it back: the new replicas are killed, and the old
 * ones take over what these had. Where only the new ones can bring flows back, what they have is moved first, by
 * whoever is left of them or by another one that is started (looking -> moving -> looking). Where there is no way back,
 * there is no trial; once something has moved, whoever is left of the new replicas goes on after a while (waiting), or
 * others are started. Either is tried OPS_UPGRADE_TRIES times.
 */

#include "balance.h"
#include "conf/service.h"
#include "placement.h"

#define OPS_MAX_REPLICAS PLACEMENT_MAX_IDS
#define OPS_START_MS 30000  /* a replica is ready within this, or has failed */
#define OPS_RETIRE_MS 10000 /* a replica that was told to end is gone within this, or is killed */

#define OPS_UPGRADE_TRIES 5
#define OPS_UPGRADE_WAIT_MS 200 /* before the second try; then doubled */
#define OPS_TRIAL_MS 5000       /* of an upgrade that does not say */
#define OPS_TRIAL_MOST_MS 3600000

enum ops_verb { OPS_SCALE, OPS_SPLIT, OPS_MERGE, OPS_MOVE, OPS_DRAIN, OPS_REBALANCE, OPS_UPGRADE };

struct ops_request {
    enum ops_verb verb;
    uint32_t count;                 /* scale: replicas; upgrade: new ones, 0: as many as there are */
    uint32_t replica;               /* split, merge, drain */
    uint32_t into;                  /* split (0: a new one), merge, move */
    bool copy;                      /* shards move by copying; no stage depends on it */
    enum service_strategy strategy; /* what becomes of the flows of the shards that move */
    uint32_t drain_ms;              /* how long flows that stay are waited for; 0: until the last has ended */
    bool no_rollback;               /* upgrade: it is not taken back once something has moved */
    uint32_t trial_ms; /* upgrade: how long the new version has to live with all shards before the old one goes */
};

/* "scale", ... */
const char *ops_verb_name(enum ops_verb verb);

/* Codes are the exit statuses of smctl. */
enum ops_code { OPS_OK = 0, OPS_FAILED = 1, OPS_USAGE = 2, OPS_NOT_FOUND = 3, OPS_BUSY = 4, OPS_TIMED_OUT = 5 };

/* What the switch says when moves are through. */
struct ops_moved {
    uint64_t completed, abandoned, flows, held_packets;
    uint64_t flows_left; /* of replicas that were to have none any more, when they were not waited for any longer */
    double seconds;
    char cause[128]; /* empty: none */
};

struct ops_result {
    enum ops_code code;
    char message[256]; /* why not; empty where code is OPS_OK */
    struct ops_moved moved;
    uint32_t into;          /* split: who got the half */
    struct balance balance; /* rebalance, by load */
};

enum ops_stage {
    OPS_IDLE,
    OPS_SELECTING,
    OPS_STARTING,
    OPS_LOOKING,
    OPS_MOVING,
    OPS_RETIRING,
    OPS_OPENING,
    OPS_CLOSING,
    OPS_TRIAL,
    OPS_WAITING
};

enum ops_replica_state { OPS_REPLICA_STARTING, OPS_REPLICA_READY, OPS_REPLICA_RETIRING };

struct ops_replica {
    uint32_t id;
    enum ops_replica_state state;
    bool fresh;   /* started by the operation under way */
    bool leaving; /* retires when the moves are through */
};

enum ops_action_kind {
    OPS_DO_START,  /* start replica `id`; then ops_ready() or ops_exited() */
    OPS_DO_SELECT, /* then ops_selected() */
    OPS_DO_LOOK,   /* then ops_owners() */
    OPS_DO_MOVE,   /* ops->ranges, ops->range_count; then ops_moved() or ops_refused() */
    OPS_DO_RETIRE, /* tell `id` to end; then ops_exited() */
    OPS_DO_KILL,   /* `id` owns nothing and does not end; then ops_exited() */
    OPS_DO_REPLY,  /* the operation is over: ops->result */
    OPS_DO_OPEN,   /* upgrade: let the new version in; then ops_opened() or ops_refused() */
    OPS_DO_CLOSE,  /* it is the service's from now on; then ops_closed() or ops_refused() */
    OPS_DO_BACK,   /* it is not, and is let in no more */
};

struct ops_action {
    enum ops_action_kind kind;
    uint32_t id;
};

struct ops {
    unsigned min, max;
    struct ops_replica replicas[OPS_MAX_REPLICAS]; /* by id, ascending */
    unsigned count;
    uint32_t last_id;
    enum ops_stage stage;
    struct ops_request request;
    struct ops_result result;
    char failure[208];               /* upgrade: what the new version died of; empty: nothing so far */
    bool began;                      /* upgrade: something may have moved */
    bool by_new;                     /* upgrade: only new replicas can bring flows back */
    bool returning;                  /* upgrade: they do so */
    unsigned tries;                  /* upgrade: how often the new version has failed since */
    bool set[PLACEMENT_SHARDS];      /* move: what the selector gave */
    uint64_t load[PLACEMENT_SHARDS]; /* rebalance: what came to each shard of late */
    struct placement_range ranges[PLACEMENT_SHARDS];
    size_t range_count;
    struct ops_action queue[4 * OPS_MAX_REPLICAS];
    unsigned queue_head, queue_tail;
};

void ops_init(struct ops *ops, unsigned min, unsigned max);

/* A new replica, in state starting, outside any operation: the service's first ones. Returns its id. */
uint32_t ops_add(struct ops *ops);

/* One that is ready, and that nobody had started. */
void ops_take_in(struct ops *ops, uint32_t id);

/* Begin an operation. OPS_OK, or why not, in *refusal; then nothing has changed. */
enum ops_code ops_begin(struct ops *ops, const struct ops_request *request, struct ops_result *refusal);

/* The next action, in order; false: none now. Ask after every event. */
bool ops_next(struct ops *ops, struct ops_action *action);

/* Nothing is under way, and whoever asked last has been told how it ended: another operation may begin. */
bool ops_idle(const struct ops *ops);

/* Events. */
void ops_ready(struct ops *ops, uint32_t id);
/* A process is gone; `how` for people ("exited with status 1"). False: nobody expected that, and it is for the caller
 * to find out whether it owned anything. */
bool ops_exited(struct ops *ops, uint32_t id, const char *how);
void ops_selected(struct ops *ops, const bool set[PLACEMENT_SHARDS]);
/* Before ops_owners(), for rebalance: what came to each shard; zeros: it goes by the number of shards. */
void ops_load(struct ops *ops, const uint64_t load[PLACEMENT_SHARDS]);
/* `by_new`: an upgrade is taken back by moving what the new replicas have. */
void ops_owners(struct ops *ops, const placement_table owners, bool by_new);
void ops_moved(struct ops *ops, const struct ops_moved *moved);
void ops_opened(struct ops *ops);
void ops_closed(struct ops *ops);
/* Selecting, looking, moving, opening or closing was refused. */
void ops_refused(struct ops *ops, enum ops_code code, const char *message);
/* A replica would not retire, and lives on. */
void ops_stays(struct ops *ops, uint32_t id, const char *message);
/* ops_patience() has run out. */
void ops_timed_out(struct ops *ops);

/* What the switch has, for ops_resume(). */
struct ops_present {
    uint32_t id;
    enum ops_replica_state state;
};

/*
 * Go on where another orchestrator was, which has died: *ops holds what it kept (replicas, last_id, stage, request,
 * result, ranges, began, by_new,
 * returning, tries; the rest as after ops_init()), which was kept before anything followed from it.
 * `moving`: the switch carries moves out right now. Every stage can be done once more: moves to where shards are
 * already are none. Replicas that nobody knew of are taken in. Returns how many are there too few for the service to
 * have as many as was wanted, once the operation is over; negative: too many.
 */
int ops_resume(struct ops *ops, const struct ops_present *present, unsigned count, bool moving);

/* The present stage as a word; NULL: no operation is under way. */
const char *ops_stage_name(const struct ops *ops);

/* How long the present stage may last, in ms; 0: for ever. */
unsigned ops_patience(const struct ops *ops);

/* Whether the operation under way is over only when flows have left those who give their last shard away. */
bool ops_drains(const struct ops *ops);

/* A replica by id; NULL: there is none. */
const struct ops_replica *ops_replica(const struct ops *ops, uint32_t id);

/* Ids of the replicas that are ready. Returns how many. */
unsigned ops_ready_ids(const struct ops *ops, uint32_t ids[OPS_MAX_REPLICAS]);

#endif
