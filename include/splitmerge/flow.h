/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_FLOW_H
#define SPLITMERGE_FLOW_H

/*
 * Per-flow (partitioned) state, in the paper's words: create_flow, get_flow, put_flow, delete_flow, flow_timer
 * (Rajagopalan et al., NSDI 2013, table 1; docs/freeflow.md maps the calls one by one).
 *
 * A flow class is a kind of record, kept per flow key of one granularity. The runtime owns the memory: records live
 * in the host's arena at addresses that never change and that are the same in every replica, so a record may point
 * into the arena. All calls are made on the thread that runs the replica.
 */

#include <splitmerge/packet.h>
#include <splitmerge/record.h>
#include <splitmerge/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A registered class; by value, from sm_class_register(). */
typedef struct sm_class {
    uint16_t id;
} sm_class;

/* A reference to one flow's record; by value. Null where `state` is NULL. */
typedef struct sm_flow {
    void *state; /* the record, struct sm_class_options.size bytes, 16-byte aligned */
} sm_flow;

/* What a field of a record is. The numbers stand in checkpoints: they stay. */
enum sm_field_type {
    SM_FIELD_UINT,
    SM_FIELD_INT,
    SM_FIELD_BYTES,   /* shown as hexadecimal digits */
    SM_FIELD_TIME,    /* packet time, in nanoseconds */
    SM_FIELD_BOOL,    /* one byte, 0 or 1 */
    SM_FIELD_FLOAT,   /* a float or a double */
    SM_FIELD_ADDRESS, /* IPv4 (4 bytes) or IPv6 (16), as in the packet */
    SM_FIELD_MAC,     /* 6 bytes */
    SM_FIELD_TEXT,    /* UTF-8, up to the first zero or the end */
    SM_FIELD_OPAQUE   /* bytes that are copied and not shown */
};

/*
 * One field of a record. Fields are what `smctl flow show` prints, and what copies are made by: moves that copy,
 * checkpoints, and records of another version. For that they cover the record, but for the padding of up to 7 bytes
 * that a compiler puts in between (zero in a copy), and hold no addresses.
 */
struct sm_field {
    const char *name; /* at most 23 characters, unique in the class */
    enum sm_field_type type;
    uint16_t offset;  /* bytes from the record's start */
    uint16_t size;    /* bytes; whole numbers and times: 1, 2, 4 or 8 */
    const char *unit; /* at most 7 characters, NULL: none */
    double scale;     /* the value shown is the field's divided by this; 0 means 1 */
};

#define SM_MAX_CLASSES 32
#define SM_MAX_FIELDS 24
#define SM_MAX_TIMERS 4
#define SM_MAX_RECORD 32768
#define SM_MAX_BINDS_FILTER 512 /* bytes of sm_class_options.binds, its end counted in */

/*
 * A timer of a flow fired. `now` is the timer's deadline (not later: the switch's clock has passed it, nothing of
 * this shard after it was processed). The slot is disarmed before the call; the handler may arm it again or close
 * the flow.
 */
typedef void sm_timer_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now,
                         void *user);

/*
 * Why the runtime ends a flow by itself: nothing got or created it for idle_timeout_ns; hard_timeout_ns have passed
 * since it was created; its place was needed for another (SM_AT_LIMIT_EVICT).
 */
enum sm_ending { SM_ENDED_IDLE, SM_ENDED_HARD, SM_ENDED_EVICTED };

/*
 * The runtime is about to end a flow: a last look. The record may be read and written; the flow is closed when the
 * callback returns (sm_flow_close() of it does nothing), and no flow may be created in it. `now` is the deadline that
 * has passed, as for timers; for an evicted flow, the time of the packet that the new one is created for.
 */
typedef void sm_expire_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, enum sm_ending why, sm_time now,
                          void *user);

/*
 * A flow has come to this replica, or is about to leave it: its shard has moved, or its owner died. For what a
 * process keeps beside the state (a cache, a descriptor), which cannot move. The record may be read, not written; the
 * flow stays as it is, and none is created. Flows that are created or end while the replica owns them are met
 * elsewhere: in the packet handler, in on_expire. A flow that left may come back.
 */
typedef void sm_hook_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, void *user);

/*
 * A flow's state as it leaves the arena, and as it comes back, for classes whose records hold addresses, memory by
 * sm_alloc(), or anything else that fields cannot say. encode reads the flow and writes named values; it changes
 * nothing. decode is given them with a fresh flow, as after sm_flow_create(), and the version of the class that wrote
 * them (no later than its own); it may sm_alloc(), and the timers are set after it. Both return 0; any other value, an
 * error of types.h, ends the copy, which says so: a flow that is moved then stays where it is. So does one whose values
 * take more than 256 KiB.
 */
typedef int sm_encode_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, struct sm_writer *writer, void *user);
typedef int sm_decode_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, sm_value value,
                         void *user);

/*
 * Make a flow's record from one of an older version of the class, `old`, which was described by fields. As decode
 * otherwise. Without it fields go over by their names: new ones are zero, those that are gone are left out, and a value
 * that does not fit its field any more, or a field whose type or scale is another, is refused.
 */
typedef int sm_upgrade_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, const void *old,
                          size_t old_size, void *user);

/*
 * The way back: make a flow's record, zeroed and of the size that class had in the older version `version`, from
 * `from`, one of this version. For an upgrade that is taken back where fields do not say all of the record; it is
 * called in the new version's replicas, as they give the shard back, so it takes one that lives. Any value but 0: this
 * flow cannot go back; it ends, and is counted (`flows.unconverted`).
 */
typedef int sm_downgrade_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, const void *from,
                            size_t from_size, void *user);

/*
 * Undo a change of a flow of a shared class, as sm_flow_escrow() noted it: the replica that made it has died before its
 * burst was committed, and its packet will be processed once more. Called by whichever replica comes first, with the
 * flow locked, before it processes its next packet; others may have changed the flow since. The record may be written;
 * no flow is created, got or closed.
 */
typedef void sm_undo_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t bytes,
                        void *user);

/* What sm_flow_create() does when a new flow would exceed a limit of flows. */
enum sm_at_limit { SM_AT_LIMIT_REFUSE, SM_AT_LIMIT_EVICT };

struct sm_class_options {
    size_t size;          /* sizeof(struct sm_class_options) */
    const char *name;     /* at most 31 characters, unique in the service */
    uint32_t version;     /* schema version */
    uint32_t record_size; /* bytes, 1..SM_MAX_RECORD */
    enum sm_granularity granularity;
    bool may_share; /* accept that the class is shared where the steering key does not partition it */
    uint8_t timers; /* numbered timer slots a flow has, at most SM_MAX_TIMERS; partitioned classes only */
    uint32_t limit; /* most flows of this class in the service; 0: the service's limit alone */
    const struct sm_field *fields; /* NULL: shown as bytes */
    unsigned field_count;
    sm_timer_fn *on_timer; /* needed when timers > 0 */
    void *user;            /* handed to callbacks */

    /*
     * Timeouts, in nanoseconds of packet time; 0: none. A flow ends when no sm_flow_get() or sm_flow_create() has met
     * it for idle_timeout_ns, and hard_timeout_ns after its creation whatever comes. Like timers they fire with `now`
     * equal to the deadline, before any later packet of the shard (a packet at the deadline itself finds the flow
     * gone), after the flow's own timers of that instant. Partitioned classes only: a class that turns out shared
     * ignores them.
     */
    uint64_t idle_timeout_ns, hard_timeout_ns;
    sm_expire_fn *on_expire; /* NULL: the flow just ends */

    /*
     * At the class's or the service's limit of flows. REFUSE: SM_E_LIMIT. EVICT: the flow of this class and of the
     * packet's shard that has been idle for longest ends (ties by key), and the new one takes its place; SM_E_LIMIT
     * when there is none in the shard that was idle since before this packet's time, and when it is memory that is
     * wanting. Evictions are counted (`flows.evicted` in the report). Finding that flow costs a look at each flow of
     * the shard, so limits should be well above the number of shards (16384). Shared classes always refuse.
     */
    enum sm_at_limit at_limit;

    sm_hook_fn *on_adopt;   /* before the first packet of its shard; NULL: nobody is called, and it costs nothing */
    sm_hook_fn *on_release; /* behind the last packet of its shard; not when the service ends; may be NULL */

    uint32_t alloc_limit; /* most bytes that a flow may hold by sm_alloc(); 0: it has none */

    /*
     * How flows are copied: by encode and decode, both or neither, or else by the fields. A class that offers no way is
     * refused where copies are asked for, with the reason; it is moved within its host and upgraded by nobody.
     */
    sm_encode_fn *encode;
    sm_decode_fn *decode;
    sm_upgrade_fn *upgrade;  /* NULL: by the fields' names */
    uint32_t oldest_version; /* that records are read of; 0: any */

    /*
     * Which packets may bind keys to flows of this class: a filter in libpcap's language, at most 511 characters, over
     * packets that begin with their outermost IP header. NULL: none. A file is read on behind such a packet only when
     * all packets up to it are back, so that each later one is steered by what it bound. Partitioned classes only; a
     * service with such a class steers by flow.
     */
    const char *binds;

    sm_undo_fn *on_undo; /* for sm_flow_escrow(); may be NULL */

    sm_downgrade_fn *downgrade; /* NULL: there is a way back by the fields' names, or none */

    /*
     * Keys of one address only: how many bits of it count, from the first; 0: all. A key of fewer bits is a function of
     * one with more, so steering by 24 bits of the source partitions the classes by 24 and more bits of it.
     */
    uint8_t prefix4, prefix6; /* at most 32 and 128 */

    /*
     * For records or chunks that hold addresses in the program (virtual tables of C++, pointers to functions): any
     * address in the executable or library where these lead. NULL: they hold none. Every replica must have that object
     * of the same build, with a build id, and at the same place, which takes an executable that is linked with
     * -no-pie, or no address randomisation (setarch -R); sm_start() refuses one that has not: SM_E_CONFLICT, without a
     * build id SM_E_INVALID. Another build is another version, by way of `upgrade`; records are copied by encode and
     * decode only.
     */
    const void *code;
};

/*
 * Register a class, between sm_open() and sm_start(). *cls is set on success. Every replica registers the same
 * classes in the same order. SM_E_INVALID: an option is out of its range, or only one of encode and decode is given.
 * SM_E_STATE: after sm_start(). Conflicts with other replicas' registrations are reported by sm_start().
 */
SM_EXPORT int sm_class_register(struct sm_replica *replica, const struct sm_class_options *options, sm_class *cls);

/*
 * The build of the executable or library that an address lies in: the first 8 bytes of its build id; 0: it has none, or
 * the address is in none. For what is kept of code otherwise than as it is (sm_class_options.code). Any thread.
 */
SM_EXPORT uint64_t sm_code_build(const void *code);

/* After sm_start(): whether the steering key partitions the class. When not, its flows are shared by all replicas. */
SM_EXPORT bool sm_class_partitioned(const struct sm_replica *replica, sm_class cls);

/*
 * get_flow / create_flow: the flow of `packet` in class `cls`, under `tag` (0 unless the middlebox keeps several).
 * sm_flow_get() gives a null flow when there is none; sm_flow_create() then makes one, zero-initialised, and says so
 * in *created (may be NULL).
 *
 * A partitioned flow is the caller's alone until the packet handler returns. A flow of a shared class is locked
 * against all other replicas until sm_flow_put(); hold one at a time and put it in the same handler.
 *
 * sm_flow_create: SM_E_LIMIT (but see at_limit) at the class's or service's flow limit or out of arena memory,
 * counted by the runtime as `flow_limit`; what to do with the packet is the caller's choice.
 *
 * One call of the handler is sure of SM_MAX_IN_HAND flows with small records, and of fewer with more timers, chunks or
 * larger records: for each of them room is kept to undo all that may be done to it. What is asked for beyond that is
 * refused: sm_flow_get() gives a null flow, sm_flow_create() SM_E_LIMIT.
 */
#define SM_MAX_IN_HAND 128
SM_EXPORT sm_flow sm_flow_get(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag);
SM_EXPORT int sm_flow_create(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag,
                             sm_flow *flow, bool *created);

/*
 * Flows of shared classes are coherent state, a table of it by key: bounded by the class's limit, a refusal at it
 * counted. What is done to one between get and put is final at put, before the packet is: should the replica die then,
 * the packet is processed once more, and would change it twice. Two ways to keep it exact:
 *
 * sm_flow_add(): add `amount` to the 8-byte integer at `offset` of the record, creating the flow where there is none;
 * with no flow held. Undone if the packet is not committed. For partitioned classes too: then it is a plain addition.
 * SM_E_LIMIT as sm_flow_create(); SM_E_INVALID: not within the record.
 *
 * sm_flow_escrow(): say, with the flow held, how to undo what was done to it, in at most SM_MAX_NOTE bytes of the
 * middlebox's own for the class's on_undo; once between get and put. It counts from put on until the packet is
 * committed. sm_flow_unescrow(): with the flow held, what this packet has said of it by sm_flow_escrow() does not count
 * any more: it has undone it itself. What it has added by sm_flow_add() is not concerned. SM_E_INVALID: no on_undo, or
 * too long; SM_E_STATE: it was said already. For flows of partitioned classes both do nothing, and need not.
 *
 * While such changes are not committed the flow must not be closed.
 */
#define SM_MAX_NOTE 64
SM_EXPORT int sm_flow_add(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag,
                          size_t offset, int64_t amount);
SM_EXPORT int sm_flow_escrow(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t bytes);
SM_EXPORT void sm_flow_unescrow(struct sm_replica *replica, sm_class cls, sm_flow flow);

/* put_flow: give a reference back. Needed for flows of shared classes and of ones that are held; else it does nothing.
 */
SM_EXPORT void sm_flow_put(struct sm_replica *replica, sm_class cls, sm_flow flow);

/*
 * Keep a reference beyond the handler, for a program with a loop of its own that waits for something on the flow's
 * behalf; until sm_flow_put(), as often as it was held, in a handler or between calls of sm_poll(). Meanwhile the flow
 * stays with this replica. Between calls of sm_poll() its record may be read, and written after sm_flow_writable() said
 * yes, as in sm_flow_each(); no other call takes it there. A flow that ends is not held any more: on_expire tells.
 *
 * A move of its shard waits, and so do the shard's packets. Past limits.hold.time the move is abandoned, and its report
 * says that a flow was held. The next sm_poll() after the last put gives the shard up.
 *
 * In the packet handler, for a flow of a partitioned class: 0, or SM_E_LIMIT: this replica holds SM_MAX_HOLDS already.
 * SM_E_INVALID: elsewhere, or the class is shared.
 */
#define SM_MAX_HOLDS 256
SM_EXPORT int sm_flow_hold(struct sm_replica *replica, sm_class cls, sm_flow flow);

/* delete_flow: the flow ends; its record and its timers are gone, the reference is void. Also gives back a shared one.
 */
SM_EXPORT void sm_flow_close(struct sm_replica *replica, sm_class cls, sm_flow flow);

/* The flow's key. Valid as long as the reference. */
SM_EXPORT const struct sm_key *sm_flow_key(sm_flow flow);

/*
 * Bind a key to a flow: from the next commit on, packets of that key (SM_BY_FLOW, tag 0: sm_key_make()) come to the
 * flow's shard, in whose order they are processed, and sm_flow_get() and sm_flow_create() with tag 0 find the flow by
 * them, unless the class has a flow of that very key there. What else is kept by that key lives in this shard too. The
 * binding moves with the flow and ends with it. In the packet handler, for a flow of the packet's shard, before the
 * packet is written.
 *
 * 0, also when the key is bound to this flow already. SM_E_CONFLICT: it is bound to another flow of this shard; choose
 * another key. SM_E_LIMIT: SM_MAX_BINDS by this packet, SM_MAX_BINDINGS of this flow, or limits.bindings in all, which
 * is counted (`bindings.refused` in the report). SM_E_INVALID: the class binds none, the packet is not among those that
 * it declares, or the key is not of this kind. Where flows of two shards bind one key, both succeed: its packets go to
 * the flow that bound it first (on an interface: the one that the switch heard of first), and to the other one once
 * that binding has ended, where a file's packet that ends one is declared as one that may bind. After a switch has
 * died, or a checkpoint was restored, the one in the shard of the lower number counts as first.
 *
 * Packets of the key that entered before: a file has none under way (see sm_class_options.binds); those of an interface
 * are processed where they were sent, and may leave later than the first ones that are steered by the binding. Likewise
 * when a binding ends.
 *
 * sm_flow_unbind: SM_E_NOT_FOUND: the key is not bound to this flow. In any handler, for the flow in hand.
 */
#define SM_MAX_BINDS 4
#define SM_MAX_BINDINGS 16
SM_EXPORT int sm_flow_bind(struct sm_replica *replica, sm_class cls, sm_flow flow, const struct sm_key *key);
SM_EXPORT int sm_flow_unbind(struct sm_replica *replica, sm_class cls, sm_flow flow, const struct sm_key *key);

/* flow_timer: arm slot `slot` to fire at `deadline` (packet time), replacing what was armed; cancel it. */
SM_EXPORT void sm_flow_timer_set(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot,
                                 sm_time deadline);
SM_EXPORT void sm_flow_timer_cancel(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot);

/* When the slot will fire; ns 0 when it is not armed. */
SM_EXPORT sm_time sm_flow_timer_get(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot);

/*
 * Call `fn` for each flow of a partitioned class in the shards that this replica owns: which part of the service's
 * flows that is depends on the splits. In a handler, or between calls of sm_poll(), where what was changed becomes
 * final with the next burst that does something. No use of the flows: idle timeouts run on. `fn` may read the record,
 * write it after sm_flow_writable() said yes, set timers, close the flow that it is given; it creates none, and
 * closes none that the handler has in hand. 0: all were visited. SM_E_LIMIT: the call has changed as much as one may,
 * and the rest was not visited; go on with a later packet (visiting alone changes nothing). SM_E_INVALID: the class
 * is shared.
 */
typedef void sm_each_fn(struct sm_replica *replica, sm_class cls, sm_flow flow, void *user);
SM_EXPORT int sm_flow_each(struct sm_replica *replica, sm_class cls, sm_each_fn *fn, void *user);

/* Ask to write the record of a flow that sm_flow_each() gave. False: the call has changed too much already. */
SM_EXPORT bool sm_flow_writable(struct sm_replica *replica, sm_class cls, sm_flow flow);

/*
 * Memory of a flow beside its record: chunks, freed with the flow, at addresses that stay and are the same in every
 * replica, so records and chunks may point to one another. Flows of partitioned classes with an alloc_limit only; in
 * a handler, for the flow in hand.
 *
 * sm_alloc: `bytes` (1..SM_MAX_ALLOC) of zeroed, 16-byte aligned memory. NULL: the flow would hold more than its
 * class's alloc_limit or SM_MAX_CHUNKS chunks, the arena is full, or this packet has changed too much already (see
 * sm_writable()); counted, as `allocations_refused` in the report. A chunk takes 16 bytes more than asked for, at
 * least 64 in all, and up to half as much again by rounding; above 32 KiB, whole slabs of 64 KiB.
 *
 * sm_realloc: a chunk of another size at another address, with the old contents as far as they fit and zeroes behind;
 * NULL chunk: as sm_alloc(). NULL, as sm_alloc(): the old one stays as it is.
 *
 * sm_free: of NULL does nothing. The memory is used again when the burst is committed.
 */
#define SM_MAX_ALLOC 4194288u
#define SM_MAX_CHUNKS 1024u
SM_EXPORT void *sm_alloc(struct sm_replica *replica, sm_class cls, sm_flow flow, size_t bytes);
SM_EXPORT void *sm_realloc(struct sm_replica *replica, sm_class cls, sm_flow flow, void *chunk, size_t bytes);
SM_EXPORT void sm_free(struct sm_replica *replica, sm_class cls, sm_flow flow, void *chunk);

/*
 * Ask to write bytes [offset, offset + length) of a chunk, in each handler call in which it is written: what was
 * there is kept, so that it can be put back if the replica dies. Not needed for records, and for a chunk in the call
 * that got it from sm_alloc() or sm_realloc(). False, and nothing may be written: the range is not within the chunk,
 * or the call has changed too much: a call is sure of SM_MAX_WRITABLE bytes, with records and 16 bytes for each range
 * counted in.
 */
#define SM_MAX_WRITABLE 786432u
SM_EXPORT bool sm_writable(struct sm_replica *replica, void *chunk, size_t offset, size_t length);

#ifdef __cplusplus
}
#endif

#endif
