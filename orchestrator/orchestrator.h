/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_ORCHESTRATOR_H
#define SM_ORCHESTRATOR_ORCHESTRATOR_H

/*
 * The orchestrator of one service: starts replicas, gives them shards, runs operations and events, and ends the
 * service. Never on the packet path.
 *
 * Life-cycle: connecting (the switch is starting) -> starting (the first replicas) -> running -> finishing (the switch
 * drains and closes its outputs) -> leaving (switch and replicas end) -> the loop has nothing left. A service that
 * fails goes to leaving from anywhere, saying why once. Where the switch is at work already, connecting leads to where
 * the orchestrator before us was (resume.c), which has died; what it intended the switch has kept (intent.c).
 *
 * Concurrency: one loop, one thread. Nothing waits: what needs an answer goes on in the answer's callback, and checks
 * there whether the phase is still the one it was made for.
 */

#include <jansson.h>
#include <uv.h>

#include "conf/rundir.h"
#include "conf/service.h"
#include "daemon/log.h"
#include "events.h"
#include "ops.h"
#include "selector.h"
#include "wire/rpc.h"

#define REPLACE_FIRST_MS                                                                                               \
    100 /* before a replacement for one that died soon, without having done anything; then doubled */
#define REPLACE_MOST_MS 30000

#define ORCHESTRATOR_AGAIN 75 /* our exit status where another one of us is to go on (sysexits.h: EX_TEMPFAIL) */

enum phase { PHASE_CONNECTING, PHASE_STARTING, PHASE_RUNNING, PHASE_FINISHING, PHASE_LEAVING };

/* Who is to hear how the operation under way went. */
enum operation_for { FOR_CLIENT, FOR_EVENT, FOR_US };

#define CHILD_UNKNOWN INT64_MAX /* the status of a replica whose parent was an orchestrator that has died */

/* What replicas run; its own memory. */
struct program {
    char *exec;  /* NULL: none */
    char **args; /* after the program's name, ended by NULL */
};

/* A replica. Stays listed when it has ended, for the report. Those of one process have one of them as their host. */
struct child {
    struct child *host;
    /* Of a host, for its process. */
    uv_process_t process; /* of one that we have started */
    uv_poll_t watch;      /* on the pidfd of one that we have not */
    int pidfd;            /* -1: it is ours */
    pid_t pid;
    bool exited;
    bool weighed; /* its end has made replacements slower, or quick again */
    /* Of each. */
    uint32_t id;
    bool alive;
    uint64_t since; /* ms, of the loop's clock: when it was started, or found alive */
    bool was_ready;
    bool gone;      /* the switch has noticed its end, and given its shards away */
    bool lost;      /* it ended and nobody had told it to */
    int64_t status; /* of exit; negative: the signal; CHILD_UNKNOWN */
    uint64_t packets;
    uint32_t shards;
    char condemned[80]; /* why the switch had it killed; empty: it did not */
    char refusal[160];  /* why the switch refused it; empty: it did not */
    char *exec;         /* what it runs; NULL: an orchestrator before us has started it */
    struct orchestrator *o;
    struct child *next;
};

struct scan;

struct orchestrator {
    /* Given. */
    struct service service;
    struct rundir dir;
    struct events events;
    const char *report_file;
    const char *restore_file; /* absolute; NULL: begin without flows */
    struct program program;   /* that replicas are started of; at first the service file's */
    struct program next;      /* the new version, while the service is upgraded */

    uv_loop_t *loop;
    enum phase phase;
    struct rpc_peer *sw;
    int switch_pid;
    struct rpc_server *server;
    struct metrics *metrics; /* NULL: served nowhere */
    struct child *children;  /* by id, ascending */
    uv_timer_t timer;        /* connecting, starting, leaving */
    uv_timer_t patience;     /* of the operation's stage */
    uv_timer_t watchdog;     /* the service manager hears that the loop turns */
    struct {
        uv_timer_t timer;
        bool begun;
        uint64_t before[PLACEMENT_SHARDS]; /* packets of each shard when it began */
    } measure;                             /* of the load, for rebalance */
    uv_signal_t signals[2];
    uint64_t connect_until;
    bool stop_asked; /* while connecting */
    bool assigning;

    /* The operation under way. */
    struct ops ops;
    enum ops_stage patience_stage;
    enum operation_for operation_for;
    struct rpc_call *operation_call; /* the client; NULL: it asked another orchestrator */
    uint32_t move_id;                /* the switch's number of the moves under way */
    struct selector *selector;       /* of a move */
    struct scan *scans;

    /* Events. */
    size_t event; /* the one that is next, or runs */
    bool event_running;
    bool gated;           /* the input waits at the gate of events.list[event] */
    bool gate_open;       /* the running event's gate has been opened */
    uint64_t event_start; /* uv_hrtime() */
    uint32_t killed;      /* kill: whom */
    pid_t victim;         /* to be killed once that is kept: the switch, or we; 0: nobody */

    /* Replacements for replicas that died. */
    uv_timer_t replace;
    unsigned missing;    /* not yet replaced */
    unsigned surplus;    /* came although nobody wanted them any more */
    uint64_t replace_ms; /* how long to wait before the next */
    bool ended;          /* the input is at its end */
    uint64_t end_packets, end_time;

    /* What the switch keeps for us. */
    uint8_t *intent; /* as it was sent last */
    size_t intent_bytes;
    bool keeping; /* its answer is awaited */

    /* Going on where another orchestrator was. */
    struct wire_message *kept_text;
    uint32_t kept_moving;

    /* The end. */
    bool again;     /* the switch has died: others of us will go on */
    json_t *status; /* the switch's last */
    bool failed;
    char error[300];
};

/* metrics.c: serve metrics where the service file says so. SM_E_IO: *error says where not. */
int metrics_listen(struct orchestrator *o, struct sm_errbuf *error);
void metrics_close(struct orchestrator *o);

/* orchestrator.c */
void orchestrator_start(struct orchestrator *o);
void orchestrator_stop(struct orchestrator *o); /* end well, as far as it has come */
void orchestrator_fail(struct orchestrator *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Something has finished: see whether the service has. */
void orchestrator_check_end(struct orchestrator *o);
/* No operation is under way any more: start what is missing. */
void orchestrator_replace_missing(struct orchestrator *o);
void orchestrator_replaced(struct orchestrator *o, const struct ops_result *result);
/* What we intend is kept: what follows from it can be done. */
void orchestrator_kept(struct orchestrator *o);
/* From connecting to the phase that the service is in. */
void orchestrator_begin(struct orchestrator *o);  /* nothing has been assigned: have the first replicas */
void orchestrator_launch(struct orchestrator *o); /* all is assigned: begin to read the input */
void orchestrator_goes_on(struct orchestrator *o, const char *state, uint64_t entered);
/* A child is gone. */
void orchestrator_child_exited(struct orchestrator *o, struct child *child);
/* "exited with status 1", "was killed by signal 9" */
const char *child_how(const struct child *child, char text[static 48]);
/* "r1" */
const char *child_name(const struct child *child, char name[static 16]);

/* program.c */
int program_set(struct program *program, const char *exec, const char *const *args); /* SM_E_NO_MEMORY */
void program_free(struct program *program);
/* `from` becomes `program`; nothing where there is no `from`. */
void program_take_over(struct program *program, struct program *from);
/* The file that `exec` names: by its path, in PATH, or beside us. SM_E_NOT_FOUND, SM_E_PERMISSION: *error says why. */
int program_find(const char *exec, char *found, size_t size, struct sm_errbuf *error);
/* The library by which programs of libpcap become replicas. SM_E_NOT_FOUND. */
int program_find_pcap(char *found, size_t size, struct sm_errbuf *error);
/* Whether it needs that: an argument names the service's device. */
bool program_uses_pcap(const struct program *program);

/* children.c */
/* Start a process with that replica, and with those that are to be started after it, as many as it may have. Nothing is
 * done for one that was started with another. */
int child_spawn(struct orchestrator *o, uint32_t id, struct sm_errbuf *error);
/* A replica that we have not started, and that the switch has. False: its process has ended, and nobody will tell. */
bool child_adopt(struct orchestrator *o, uint32_t id, pid_t pid);
/* The child of that id, a new one (that is not alive) where there is none. NULL: out of memory. */
struct child *child_note(struct orchestrator *o, uint32_t id);
void child_kill(struct child *child, int signal); /* with all that are in its process */
/* It has ended, and its process goes on with others. */
void child_left(struct child *child);
struct child *child_of(struct orchestrator *o, uint32_t id);
unsigned children_alive(const struct orchestrator *o);
void children_kill(struct orchestrator *o, int signal);
void children_free(struct orchestrator *o);
/* Take over what a status of the switch says of each replica. */
void children_learn(struct orchestrator *o, const struct wire_value *status);

/* operate.c: do what the state machine asks for. */
void operate(struct orchestrator *o);
/* Begin an operation; takes `selector` over. `call`: FOR_CLIENT. */
enum ops_code operate_begin(struct orchestrator *o, const struct ops_request *request, struct selector *selector,
                            enum operation_for whom, struct rpc_call *call, struct ops_result *refusal);
void operate_moved(struct orchestrator *o, const struct wire_value *params);

/* scan.c: all flows of the service, a page at a time; one scan after the other. */
typedef bool scan_flow_fn(void *user, const struct wire_value *flow, const struct sm_key *key, uint32_t shard);
typedef void scan_done_fn(void *user, const struct rpc_error *error);
/* `flow` says whether to go on; `done` is called once, never from within this call. */
void scan_flows(struct orchestrator *o, scan_flow_fn *flow, scan_done_fn *done, void *user);

/* limits.c: a request for what the limits of a rate limiter, and their keys, have come to. */
void limits(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params);

/* runner.c: events. */
void runner_gate(struct orchestrator *o); /* the next event's gate */
void runner_gated(struct orchestrator *o);
void runner_ended(struct orchestrator *o);
void runner_go_on(struct orchestrator *o); /* something has finished */
void runner_operated(struct orchestrator *o, const struct ops_result *result);
void runner_child_exited(struct orchestrator *o, uint32_t id);
bool runner_done(const struct orchestrator *o);

/* The event that another orchestrator was at; `stands`: the input does, at a gate, with so many packets entered. */
void runner_resume(struct orchestrator *o, bool stands, uint64_t entered);

/* intent.c */
bool intent_kept(struct orchestrator *o); /* true: it is; else it is on its way, and orchestrator_kept() follows */
void intent_read(struct orchestrator *o, const struct wire_value *text);

/* resume.c */
void resume(struct orchestrator *o);
void resume_moved(struct orchestrator *o, const struct wire_value *params);

/* serve.c */
#define UPGRADE_ARGS 64u
/* o->next, for an upgrade that is to begin. `args` NULL: the present ones. SM_E_* with *error: there is no such
 * program. */
int serve_next(struct orchestrator *o, const char *exec, const char *const *args, struct sm_errbuf *error);
int serve_listen(struct orchestrator *o, struct sm_errbuf *error);
void serve_reply(struct rpc_call *call, const struct ops_result *result, bool split);

/* report.c: writes the report where one was asked for. Returns the exit status. */
int report_write(struct orchestrator *o);

#endif
