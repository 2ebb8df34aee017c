/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_SWITCH_H
#define SM_SWITCH_SWITCH_H

/*
 * The switch's data plane: ports, steering, rings, holds, moves, output order.
 *
 * Overview.  A packet goes: port -> buffer of the pool -> parsed, hashed -> shard -> its owner's ring, or the shard's
 * hold while the shard is between owners -> back from the replica -> reorder window (order: arrival) -> port. Every
 * buffer comes back, dropped packets' too. What is not IP goes from the port straight to the output, unless the
 * middlebox wants to see it.
 *
 * Life-cycle.  switch_create -> slots become ready, shards are assigned -> switch_start -> RUNNING, held at gates ->
 * the input ends -> everything in flight comes back, timers up to the last packet's time fire -> ENDED -> switch_finish
 * (outputs closed) -> FINISHED. Moves run in RUNNING and in ENDED.
 *
 * Concurrency.  One thread calls all of this (the worker; in a standalone program the program's own). It shares with
 * replicas only the channels and a few words of the arena's header.
 *
 * Limits.  Buffers of the pool bound everything in flight; SWITCH_MOVES_IN_FLIGHT shards between owners at a time,
 * SWITCH_MOVES_WAITING behind a backlog; the hold in bytes and time on interfaces. A packet that finds no room on an
 * interface is dropped under one of SWITCH_DROPS; on a file the input waits.
 */

#include <assert.h>
#include <sys/types.h>

#include "arena/arena.h"
#include "packet/packet.h"
#include "ports/port.h"
#include "replica/snapshot.h"
#include "switch/affinity.h"
#include "switch/audit.h"
#include "switch/check.h"
#include "switch/histogram.h"
#include "switch/live.h"
#include "switch/move.h"
#include "switch/shape.h"

#define SWITCH_MOVES_IN_FLIGHT 64u /* where releases are answered at once; where they are not, up to */
#define SWITCH_MOVES_WAITING CHANNEL_RELEASES
#define SWITCH_GATHER_NS 500000
#define SWITCH_TICK_NS 100000000ull /* idle shards hear of the time this often, in packet time */
#define SWITCH_FILE_AHEAD 1024u     /* packets in flight for each replica, beyond which a file is not read on */
#define SWITCH_NONE 0xffu
#define SWITCH_POISON_DEATHS 3u
#define SWITCH_HOLDER (ARENA_SLOTS + 1) /* in the lock word of a strong object */

/* The switch's own reasons for dropping; those that a middlebox registers follow them. */
#define SWITCH_DROPS(X)                                                                                                \
    X(POOL, "pool")               /* interface: no packet buffer was free */                                           \
    X(HOLD, "hold")               /* interface: the hold was full and its move could not be abandoned any more */      \
    X(OVERSIZE, "oversize")       /* longer than the largest buffer */                                                 \
    X(NO_REPLICA, "no_replica")   /* its shard has no owner */                                                         \
    X(POISON, "poison")           /* SWITCH_POISON_DEATHS replicas in a row died while they processed it */            \
    X(REFUSED, "refused")         /* the interface would not send it, for its length for example */                    \
    X(UNKNOWN, "unknown")         /* the middlebox gave a reason that it had not registered */                         \
    X(SHAPE, "shape")             /* it was delayed, and the memory for that was full */                               \
    X(SWITCH_DIED, "switch_died") /* they were in the hands of a switch that died: so many at most */

enum switch_drop {
#define SWITCH_DROP_ENUM(id, name) DROP_##id,
    SWITCH_DROPS(SWITCH_DROP_ENUM)
#undef SWITCH_DROP_ENUM
        SWITCH_DROP_COUNT
};

enum slot_state { SLOT_FREE, SLOT_ATTACHED, SLOT_READY, SLOT_RETIRING, SLOT_GONE };

enum switch_state { SWITCH_WAITING, SWITCH_RUNNING, SWITCH_GATED, SWITCH_ENDED, SWITCH_FINISHED };

/* What the switch knows of a buffer; its own memory, not the arena's. One cache line. */
struct switch_packet {
    _Alignas(64) uint64_t sequence; /* of arrival; place in the reorder window */
    int64_t seconds;                /* timestamp to leave with */
    int64_t fraction;
    uint64_t time; /* packet time */
    uint32_t caplen, len;
    uint32_t next; /* in a hold or in a list of generated packets */
    uint16_t shard;
    uint8_t place;      /* enum packet_place */
    uint8_t slot;       /* whose ring */
    uint8_t from;       /* port it came in by */
    uint8_t deaths;     /* replicas that died while they processed it */
    bool late;          /* held once: in its slot's list of late packets */
    uint32_t flow;      /* with affinity, in a ring: AFFINITY_NONE: it is not known */
    uint64_t departure; /* packet time; later than `time` where the middlebox delays it */
};

_Static_assert(sizeof(struct switch_packet) == 64, "one cache line");

/* Buffers for what is sent because of a packet. */
struct switch_reserve {
    uint32_t count;
    uint32_t buffers[SM_MAX_SENDS];
};

/* Free buffers, last in first out so that warm ones are used again. */
struct switch_stack {
    uint32_t *buffers;
    uint32_t count;
};

/* Neighbours in a slot's list of late packets; POOL_NONE: none. */
struct late_link {
    uint32_t before, after;
};

/* PLACE_PORT: lent to a port, to be received into or until it has been sent. */
enum packet_place { PLACE_FREE, PLACE_RING, PLACE_HOLD, PLACE_WINDOW, PLACE_RESERVE, PLACE_PORT };

/* A replica's slot. */
struct switch_slot {
    enum slot_state state;
    uint32_t id; /* the number in its name */
    char name[32];
    pid_t pid;
    int wake_fd; /* its eventfd; -1: it never sleeps */

    struct channel *channel;
    uint32_t ring_mask; /* as in the channel, where a replica could write it */
    struct in_entry *in;
    struct out_entry *out;
    struct bind_entry *bind;
    uint8_t *query, *snapshot;
    uint32_t bind_mask, bind_tail;
    uint32_t in_head; /* written, published by the next publish() */
    uint32_t published;
    bool urgent; /* there is a marker among what is not published */
    uint32_t out_tail;
    uint32_t in_flight;             /* packets in its ring or not yet taken back */
    uint32_t late_first, late_last; /* of those, and of those held for it, the ones that were held, by time */
    bool ticking;                   /* an IN_TICK is unanswered */
    uint8_t snapshots;              /* parts of a snapshot that it was asked for and has not answered */
    bool distrusted;                /* it returned what it was not given: nothing is taken back any more */
    const char *condemned;          /* why it is to be killed; NULL: it is not */
    uint64_t watched_commit, moved; /* its commit word when last looked at, and when that had moved */
    uint64_t packets;
    uint32_t shards;
    struct switch_packet last; /* the last OUT_PACKET, if replicas send packets */
    uint32_t last_buffer;      /* its buffer, whose reserve generated packets come from; POOL_NONE: there is none */
    unsigned last_used;        /* of that reserve */
};

/* What every packet is steered by comes first, in one cache line nearly always. */
struct switch_shard {
    uint64_t packets;
    uint8_t owner; /* slot, or SWITCH_NONE */
    uint8_t build; /* without an owner: the number of the build of the last one */
    struct shard_move move;
    uint32_t hold_head, hold_tail; /* buffers; POOL_NONE: none */
    bool flow_held;                /* its move waits for a flow that the middlebox holds */
    uint64_t held_since;           /* wall clock, ns */
};

struct window_place {
    uint32_t buffer; /* POOL_NONE: not back yet */
    bool drop;
    bool written;
    uint32_t generated_head, generated_tail;
};

/* A shard's state on its way to another replica (lanes.c). */
enum lane_state { LANE_FREE, LANE_EXPORTING, LANE_IMPORTING, LANE_INSTALLING, LANE_CLEARING };

struct switch_lane {
    uint8_t state;  /* enum lane_state */
    uint8_t awaits; /* the slot whose answer is to come; SWITCH_NONE */
    uint8_t from, to;
    uint16_t shard;
    bool last;      /* the part in hand */
    bool discarded; /* when the answer comes, clear */
    bool filled;    /* something may be in its copy */
    uint32_t ticket;
};

/* A set of moves asked for together. One at a time. */
struct switch_operation {
    bool active;
    uint32_t id;
    uint16_t shards[SM_SHARDS]; /* to do, in order */
    uint8_t to[SM_SHARDS];
    uint32_t count, next;
    uint32_t first; /* all before it are over */
    uint32_t in_flight;
    uint64_t heard; /* wall clock, ns: when a shard was last answered for, or the first of them asked for */
    uint32_t completed, abandoned;
    uint64_t flows, held_packets;
    uint64_t started, deadline; /* wall clock, ns */
    bool open_gate;             /* once the first markers are queued */
    bool copy;                  /* by copying */
    bool settle;                /* it is over when the new owners have taken up all that was given to them */
    bool settling;
    bool drain;              /* nor before flows have left those who have no shards any more, */
    uint64_t drain_deadline; /* wall clock, ns: or this has come, with so many left: */
    uint32_t flows_left;
    uint64_t given;                  /* slots that got a shard */
    uint32_t settle_at[ARENA_SLOTS]; /* what they have to have consumed */
    char cause[96];                  /* why moves were abandoned */
};

struct switch_query {
    bool active;
    uint8_t slot;
    uint32_t shard, cursor;
};

/* The flows of all shards, on their way to a checkpoint (snapshot.c). */
enum snapshot_phase { SNAPSHOT_OF_SHARDS, SNAPSHOT_OF_STRIPES, SNAPSHOT_OF_ROWS };

struct switch_snapshot {
    bool active;
    enum snapshot_phase phase;
    uint8_t slot;       /* that is asked; SWITCH_NONE: nobody */
    bool begins;        /* nothing was asked of it so far */
    bool forsaken;      /* its replica is dead */
    uint32_t asked;     /* parts, in all */
    uint32_t ticket;    /* of the last part that any snapshot asked for */
    uint32_t look;      /* the next shard to be looked at, or row */
    bool missing;       /* one of those before is not covered */
    struct codec codec; /* for the shards that nobody owns: these, and where they are written */
    struct snapshot writer;
    uint8_t nobodys[SM_SHARDS];
    uint8_t *area; /* SNAPSHOT_PART_BYTES */

    /* Between the switch's thread, which offers parts, and the one that takes them. */
    const uint8_t *parts[SNAPSHOT_PARTS];
    _Atomic uint32_t offered, taken;
    _Atomic bool done;
    _Atomic bool last;                /* the slot's last part has been taken */
    uint64_t covered[SM_SHARDS / 64]; /* a bit for each shard that was taken; the taker's while a part is offered */
};

/* A step of restoring a checkpoint that a replica was asked for (restore.c). */
struct switch_restore {
    uint8_t slot; /* SWITCH_NONE: nobody is asked */
    bool answered, forsaken;
    uint32_t ticket;
    int result;
};

enum switch_notice {
    NOTICE_GATED,
    NOTICE_MOVED,
    NOTICE_ENDED,
    NOTICE_FAILED,
    NOTICE_QUERIED,
    NOTICE_CONDEMNED,
    NOTICE_RESTORED,
    NOTICE_CHECKED,
};

struct switch_options {
    struct arena *arena;
    struct sm_port *in, *out; /* out NULL: tap, or nothing to send on. The switch closes both */
    bool order_arrival;
    double pace_pps;     /* 0: as fast as it goes, or */
    bool pace_recorded;  /* as captured */
    uint64_t hold_bytes; /* interfaces only */
    uint64_t hold_ns;
    uint64_t shape_bytes;     /* of packets that are delayed; 0: SHAPE_DEFAULT_BYTES */
    bool supervised;          /* NOTICE_CONDEMNED gets replicas killed; else a misbehaving one is the end of the run */
    uint64_t affinity_ns;     /* the program keeps flows itself: they stay for as long as they are not idle for so
                               * long; 0: they go with their shards */
    uint32_t affinity_flows;  /* most that are known */
    uint64_t unresponsive_ns; /* how long a replica may leave its input unanswered; 0: for ever */
    const char *poison_file;  /* capture of the packets dropped as poison; NULL: none */
    void (*notify)(void *arg, enum switch_notice notice); /* on the switch's thread; may be NULL */
    void *notify_arg;
    uint64_t (*clock)(void *arg); /* virtual time instead of the wall's, in ns; NULL: the machine's clocks */
    void *clock_arg;
};

struct switch_unanswered {
    uint64_t sequence;
    uint32_t buffer;
};

struct sm_switch {
    struct switch_options options;
    struct arena *arena;
    enum switch_state state;
    struct pool_layout pool;
    uint32_t bindings_max;
    bool registered; /* the next three hold: own copies, not to be read where replicas write */
    bool others;     /* packets that are not IP go to the middlebox, too */
    uint32_t sends, reason_count;
    struct keying steering;
    struct sm_parser *parser;
    struct sm_port *ports[2];
    struct sm_port_lender lender; /* of the pool, to ports */
    bool cannot_wait;             /* packets come from an interface */
    bool two_way;                 /* both ports are interfaces that receive and send */
    uint32_t fraction_ns;         /* what a timestamp's fraction counts */
    struct {
        char name[256];
        char driver[64];                  /* empty: there is no such port */
        struct sm_errbuf why;             /* it is that one; empty: nothing to say */
        uint64_t refused;                 /* of tx_failed: counted as dropped */
        uint32_t under_way;               /* not counted as out */
        struct sm_port_counters counters; /* of a port that is closed */
    } port_reports[2];

    struct switch_packet *packets; /* this and the next two: by buffer */
    struct switch_reserve *reserves;
    struct late_link *late;
    struct switch_stack free_small, free_jumbo;
    uint32_t buffers, in_flight;

    struct switch_slot slots[ARENA_SLOTS];
    unsigned slot_count; /* slots from here on were never taken: what each turn looks at ends here */
    _Alignas(64) struct switch_shard shards[SM_SHARDS];
    struct switch_operation operation;
    uint32_t moves_in_flight;
    struct switch_lane lanes[EXPORT_LANES];
    uint32_t lanes_used;                  /* that are not free */
    uint32_t lane_ticket;                 /* of the last step asked for */
    uint32_t inheritance;                 /* number of the last one */
    uint32_t orphans;                     /* shards without a replica that could own them */
    uint64_t dying;                       /* slots whose replicas are dead, and are being dealt with: no heirs */
    struct switch_unanswered *unanswered; /* room for what a dead replica had in flight */
    uint64_t deaths, taken_over;          /* replicas that died, packets that others took over from them */
    uint64_t condemned;                   /* replicas that the switch had killed */
    uint64_t watched;                     /* when replicas were last looked at for life, wall clock */
    struct sm_port *poison;               /* NULL: nothing to keep so far */
    struct sm_errbuf poison_error;
    uint32_t epoch; /* of the assignment; counts every change of owner */

    struct affinity *affinity;        /* NULL: flows go with their shards */
    struct switch_bindings *bindings; /* NULL: no class binds keys */

    struct window_place *window;
    uint32_t window_mask;
    uint64_t window_next; /* sequence of the next packet to leave */

    uint64_t delay_max;   /* that a replica may ask for */
    uint64_t shape_first; /* departure of the first delayed packet; SHAPE_NONE: there is none */
    struct shaper shaper;

    /* Input. */
    struct sm_frame pending; /* received, waits for a buffer, a gate or its time */
    bool has_pending;
    bool input_ended;
    bool paused;      /* nothing is read until what is under way is back: a packet may have bound a key */
    bool input_cut;   /* it was ended before its end, and is not an interface: what was written is not whole */
    int input_result; /* SM_E_END, SM_E_DAMAGED or SM_E_IO */
    struct sm_errbuf input_error; /* unless it ended well */
    uint8_t next_port;            /* which of two interfaces is read next */
    uint8_t pending_port;
    uint64_t gate_packet; /* 0: no gate */
    uint64_t gate_time;   /* ns since the first packet, plus one; 0: no gate */
    bool final_tick;      /* sent after the end of the input */
    uint64_t clock;       /* packet time: the largest seen so far */
    struct live live;     /* on interfaces, by the machine's clocks: what it follows */
    uint64_t first_time;
    uint64_t last_tick;
    uint64_t now; /* wall clock, read once a turn */
    uint64_t start_wall;
    uint64_t start_time; /* packet time of the first packet, for pacing */

    /* Counters. */
    uint64_t entered, admitted, generated, out;
    uint64_t dropped[SWITCH_DROP_COUNT + SM_MAX_REASONS];
    uint64_t hold_bytes, held_packets;
    uint64_t moves_started, moves_completed, moves_abandoned, flows_moved;
    uint64_t moves_copied; /* of the completed ones */
    uint32_t in_flight_max, replicas_in_flight_max;
    struct histogram pauses;
    struct audit audit;
    uint64_t finished_wall;
    uint64_t owner_violations; /* of replicas whose slots are used again */
    uint64_t switch_deaths;    /* of switches before this one */
    struct switch_query query;
    struct switch_snapshot snapshot;
    struct switch_restore restore;
    bool input_held; /* a checkpoint is being restored: nothing is received, and time stands still */
    struct frame_copy *frame;
    struct {
        bool active;
        uint64_t since; /* wall clock, ns */
        struct check_findings findings;
    } check;
    char error[256]; /* why the run cannot end well; empty: it can */
};

/* What the ports of a switch say of the one before it. */
struct switch_left {
    uint64_t skip; /* packets of the input that were read: to be read again, and thrown away */
    bool counted;  /* the output tells how many packets it has got: */
    uint64_t written;
};

int switch_create(struct sm_switch **sw, const struct switch_options *options, struct sm_errbuf *error);

/* Close the ports (whole: rename outputs to their names) and free. 0 or SM_E_IO. The arena stays the caller's. */
int switch_destroy(struct sm_switch *sw, bool whole, struct sm_errbuf *error);
int switch_close_ports(struct sm_switch *sw, bool whole, struct sm_errbuf *error);

/*
 * Go on where the switch before this one was, which has died: right after switch_create(), with the arena that it has
 * left. Its replicas must have gone. SM_E_DAMAGED: *error says what of the arena is; SM_E_NO_MEMORY.
 */
int switch_resume(struct sm_switch *sw, const struct switch_left *left, struct sm_errbuf *error);

/* Slots. take: reset the channel of a free slot for a new replica, returns its number or SM_E_LIMIT. ready: it has
 * registered. died: the kernel has reported its exit; what it had is undone or taken over; slots: a bit for each.
 * retire: tell it to end; SM_E_STATE if it owns shards or is about to, or flows have stayed. */
int switch_slot_take(struct sm_switch *sw, uint32_t id, const char *name, pid_t pid, int wake_fd);
void switch_slot_ready(struct sm_switch *sw, unsigned slot);
void switch_slot_died(struct sm_switch *sw, unsigned slot);
void switch_slots_died(struct sm_switch *sw, uint64_t slots);
int switch_slot_retire(struct sm_switch *sw, unsigned slot);
/* Tell all replicas to end: the service does. */
void switch_dismiss(struct sm_switch *sw);
/* The slot of a replica id, or -1. */
int switch_slot_of(const struct sm_switch *sw, uint32_t id);

/* Give shards without an owner to a slot. SM_E_LIMIT: it was given many ranges and has not taken them yet. */
int switch_assign(struct sm_switch *sw, uint32_t first, uint32_t last, unsigned slot);

void switch_start(struct sm_switch *sw);
void switch_stop_input(struct sm_switch *sw);
void switch_finish(struct sm_switch *sw); /* the end has come: freeze the clock of the report */

void switch_gate(struct sm_switch *sw, uint64_t packet, bool by_time, uint64_t time);
void switch_open_gate(struct sm_switch *sw);

/* Moves: begin, add ranges, go. SM_E_STATE: another operation is under way. NOTICE_MOVED when it is done. */
int switch_move_begin(struct sm_switch *sw, uint64_t deadline_ns, bool open_gate);
int switch_move_add(struct sm_switch *sw, uint32_t first, uint32_t last, unsigned slot);
uint32_t switch_move_go(struct sm_switch *sw);
/* Whether all flows can be copied; the operation that has begun moves by copying. SM_E_CONFLICT: a class cannot be
 * copied; *error names it. */
int switch_can_copy(const struct sm_switch *sw, struct sm_errbuf *error);
int switch_move_copy(struct sm_switch *sw, struct sm_errbuf *error);

/* With affinity, after begin: it is over when replicas without shards have no flows any more, or at the deadline. */
void switch_move_drain(struct sm_switch *sw, uint64_t deadline_ns);
/* How many flows replicas without shards still have. */
uint32_t switch_flows_left(const struct sm_switch *sw);

/* Ask a slot for its flows from (shard, cursor) on; NOTICE_QUERIED when its query area holds them. SM_E_STATE: a query
 * is under way. */
int switch_query_start(struct sm_switch *sw, unsigned slot, uint32_t shard, uint32_t cursor);

/*
 * A snapshot of all flows, each shard's of one instant, a part at a time (arena/snapshot.h). start: SM_E_STATE: there
 * is one; SM_E_CONFLICT: a class cannot be copied; SM_E_NO_MEMORY. end: also before it is done, but not while somebody
 * takes parts.
 *
 * Any one thread takes them. next: PART: *part may be read until switch_snapshot_taken(); a replica may scribble on it.
 * WAIT: look again soon; shards may be between owners. DONE: all was taken. taken: whether the part was the slot's
 * last, and which shards have been taken whole (a bit each).
 */
enum switch_snapshot_step { SNAPSHOT_PART, SNAPSHOT_WAIT, SNAPSHOT_DONE };
int switch_snapshot_start(struct sm_switch *sw, struct sm_errbuf *error);
void switch_snapshot_end(struct sm_switch *sw);
enum switch_snapshot_step switch_snapshot_next(struct sm_switch *sw, const uint8_t **part);
void switch_snapshot_taken(struct sm_switch *sw, bool last, const uint64_t *covered);
unsigned switch_snapshot_poll(struct sm_switch *sw);
bool switch_snapshot_answered(struct sm_switch *sw, unsigned slot, uint32_t request);
void switch_snapshot_forsaken(struct sm_switch *sw, unsigned slot);
bool switch_restore_answered(struct sm_switch *sw, unsigned slot, const struct out_entry *entry); /* restore.c */
void switch_restore_forsaken(struct sm_switch *sw, unsigned slot);

/* The ports from now on, the pool lent to them; what was there before is the caller's again. */
void switch_set_ports(struct sm_switch *sw, struct sm_port *in, struct sm_port *out);

/* One turn: take back, move, send, receive, publish. Returns how much was done; 0: nothing to do now. */
unsigned switch_poll(struct sm_switch *sw);

/* Sleep support (design D8). prepare: tell peers that we sleep; false: something has come meanwhile. */
bool switch_sleep_prepare(struct sm_switch *sw);
void switch_sleep_end(struct sm_switch *sw);
/* How long a sleep may last, in ns: until a deadline, a packet or a tick is due. -1: no bound. */
int64_t switch_sleep_ns(const struct sm_switch *sw);

/*
 * Whether packets may gather where they come in, for SWITCH_GATHER_NS: the service is a tap, all its replicas nap
 * (channel.h), and the port knows when each packet came.
 */
bool switch_gathers(const struct sm_switch *sw);

/* Parts of the packet path in files of their own. */
unsigned switch_input(struct sm_switch *sw);              /* steer.c: receive, up to a burst */
void switch_steer(struct sm_switch *sw, uint32_t buffer); /* to a ring or a hold */
void switch_push(struct sm_switch *sw, unsigned slot, enum in_kind kind, uint32_t buffer, uint32_t shard,
                 uint64_t time);
void switch_push_lane(struct sm_switch *sw, unsigned slot, enum in_kind kind, uint32_t ticket, uint32_t shard,
                      unsigned lane);
void switch_moves_poll(struct sm_switch *sw); /* moves.c */
bool switch_room_for_markers(const struct sm_switch *sw, unsigned slot);
bool switch_flow_held(struct sm_switch *sw, unsigned slot, uint32_t shard, uint32_t generation);
bool switch_released(struct sm_switch *sw, unsigned slot, uint32_t shard, uint32_t generation);
void switch_move_abandon(struct sm_switch *sw, uint32_t shard, const char *cause);
void switch_flush_hold(struct sm_switch *sw, struct switch_shard *shard, unsigned late_slot);
void switch_copied(struct sm_switch *sw, uint32_t shard);
int switch_lane_take(struct sm_switch *sw, uint32_t shard, unsigned from, unsigned to); /* lanes.c; -1: none is free */
void switch_lane_export(struct sm_switch *sw, unsigned lane);
void switch_lane_install(struct sm_switch *sw, unsigned lane);
void switch_lane_discard(struct sm_switch *sw, unsigned lane);
bool switch_lane_answered(struct sm_switch *sw, unsigned slot, const struct out_entry *entry);
void switch_lanes_forsaken(struct sm_switch *sw, unsigned slot); /* its replica is dead */
void switch_lanes_poll(struct sm_switch *sw);
bool switch_lanes_busy(const struct sm_switch *sw);        /* and somebody is there to go on */
void switch_learn(struct sm_switch *sw);                   /* what was registered */
int switch_put_right(struct sm_switch *sw, unsigned slot); /* death.c */
unsigned switch_note_slot(const struct arena *arena); /* whose note was put in the queue last; ARENA_SLOTS: it is out */
void switch_ledger(struct sm_switch *sw);             /* resume.c */
void switch_ledger_ahead(struct sm_switch *sw);
void switch_ledger_generated(struct sm_switch *sw); /* before it can leave: else it would stand for one that is lost */
void switch_adopt_orphans(struct sm_switch *sw, unsigned slot);                           /* death.c */
void switch_condemn(struct sm_switch *sw, unsigned slot, bool distrust, const char *why); /* supervise.c */
void switch_watch(struct sm_switch *sw);
bool switch_awaits(const struct sm_switch *sw);
void switch_keep_poison(struct sm_switch *sw, uint32_t buffer);

/* A packet as it goes to a port. */
static inline struct sm_frame switch_frame_of(const struct sm_switch *sw, uint32_t buffer)
{
    const struct switch_packet *packet = &sw->packets[buffer];

    return (struct sm_frame){
        .data = pool_data(&sw->pool, buffer),
        .caplen = packet->caplen,
        .len = packet->len,
        .seconds = packet->seconds,
        .fraction = packet->fraction,
        .flow = packet->shard,
    };
}

unsigned switch_take_back(struct sm_switch *sw, unsigned slot); /* output.c */
void switch_unprocessed(struct sm_switch *sw, uint32_t buffer);
void switch_drop(struct sm_switch *sw, uint32_t buffer, unsigned reason);
void switch_output_poll(struct sm_switch *sw);
/* Not from a buffer of the pool: the port may keep none. */
void switch_send(struct sm_switch *sw, unsigned from, const struct sm_frame *frame);
/* Have interfaces send what they were given, and count what they refused. */
void switch_flush(struct sm_switch *sw);
uint32_t switch_lend(void *sw); /* pool.c: for struct sm_port_lender */
void switch_lent_back(void *sw, uint32_t buffer);
bool switch_reserve_take(struct sm_switch *sw, uint32_t buffer);
void switch_reserve_free(struct sm_switch *sw, uint32_t buffer, unsigned used);
/* A packet that is behind later ones of its slot: from now on; it is back; its move was abandoned, so another slot gets
 * it. */
void switch_late_enter(struct sm_switch *sw, unsigned slot, uint32_t buffer);
void switch_late_back(struct sm_switch *sw, unsigned slot, uint32_t buffer);
void switch_late_change(struct sm_switch *sw, unsigned from, unsigned to, uint32_t buffer);
void switch_notify(struct sm_switch *sw, enum switch_notice notice);
void switch_fail(struct sm_switch *sw, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A free buffer for a packet of so many bytes, or POOL_NONE. */
static inline uint32_t switch_buffer_take(struct sm_switch *sw, uint32_t bytes)
{
    struct switch_stack *free = bytes <= POOL_SMALL_BYTES - POOL_DATA_OFFSET ? &sw->free_small : &sw->free_jumbo;

    if (free->count == 0)
        return POOL_NONE;
    uint32_t buffer = free->buffers[--free->count];
    sw->packets[buffer].place = PLACE_WINDOW;
    return buffer;
}

static inline void switch_buffer_free(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_stack *free = buffer < sw->pool.small_count ? &sw->free_small : &sw->free_jumbo;

    assert(sw->packets[buffer].place != PLACE_FREE);
    sw->packets[buffer].place = PLACE_FREE;
    free->buffers[free->count++] = buffer;
}

#endif
