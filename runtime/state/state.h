/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_STATE_H
#define SM_STATE_STATE_H

/*
 * Per-flow state in shared memory: the directory of shards, each with its own flow table and timers, and the slabs
 * that records live in.
 *
 * Overview.  A `struct state` is formatted once, by the host, into a block of memory that every process of the
 * service maps at the same address; so pointers inside it are plain pointers. A *shard* is the unit of ownership: its
 * table, flows and timers are read and written only by the replica that owns it, without locks or atomics. Behind the
 * SM_SHARDS shards come STATE_STRIPES *stripes*: the same structure, each guarded by a lock, holding flows of classes
 * that the steering key does not partition. Behind these come STATE_COPIES *copies*: a shard that is moved by copying
 * is made anew there and then changes places with the old one, of which nothing is known outside (copy.c).
 *
 * Concurrency.  Shard functions: the owner only. Slabs: allocation from a slab only by the actor that holds it,
 * freeing by anybody (atomic bit operations), so that a flow created by one replica can end in another.
 *
 * Limits.  Memory, flows in all, flows per class, flows per shard (STATE_SHARD_FLOWS); each refusal is SM_E_LIMIT.
 */

#include <splitmerge/flow.h>
#include <splitmerge/types.h>

#define SM_SHARD_BITS 14
#define SM_SHARDS (1u << SM_SHARD_BITS)
#define STATE_STRIPES 1024u
#define STATE_COPIES 64u /* shards that can be copied at a time */
#define STATE_SHARD_FLOWS 32768u
#define STATE_FORMS 64u                   /* descriptions of classes, of all versions that a service has ever run */
#define STATE_TIMERS (SM_MAX_TIMERS + 2u) /* a flow's: the middlebox's, then those of its timeouts */
#define STATE_ACTORS 66u                  /* replica slots, and one for the host */
#define STATE_SECRET_BYTES 192

/* The runtime's part of a flow; the record follows, 16-byte aligned. */
struct flow;

struct state;

/* How records leave the arena and come back. */
enum class_copy { CLASS_NOT_COPIED, CLASS_BY_FIELDS, CLASS_BY_CALLBACKS };

/* What the keys of a class, or those that packets are steered by, are made of. */
struct keying {
    uint8_t granularity;      /* enum sm_granularity */
    uint8_t prefix4, prefix6; /* bits of a one-way key's address; 0: all */
};

struct state_class {
    char name[32];
    uint32_t version;
    uint32_t oldest; /* version that records are read of */
    uint32_t record_size;
    uint32_t limit; /* flows of this class; 0: only the service's limit */
    struct keying key;
    uint8_t timers; /* slots of a flow, its timeouts' too */
    bool may_share;
    bool partitioned; /* decided by the host when the steering key is chosen */
    uint16_t field_count;
    uint64_t idle_ns, hard_ns;       /* timeouts; the replica arms them (0: none) */
    uint32_t alloc_limit;            /* bytes of chunks that a flow may have; 0: it has none */
    uint8_t at_limit;                /* enum sm_at_limit */
    uint8_t copy;                    /* enum class_copy */
    bool upgrades;                   /* it has a callback for records of older versions */
    bool downgrades;                 /* and one that makes such again */
    uint64_t code, code_build;       /* addresses of code that it holds lead into this build, which is there; 0: none */
    char binds[SM_MAX_BINDS_FILTER]; /* which packets may bind keys to its flows; empty: none */
    struct {
        char name[24];
        char unit[8];
        uint8_t type;
        uint16_t offset;
        uint16_t size;
        double scale;
    } fields[SM_MAX_FIELDS];
};

struct state_config {
    uint64_t memory;                    /* bytes of slabs; SM_E_LIMIT beyond */
    uint32_t flows;                     /* flows of all classes */
    uint32_t bindings;                  /* bound keys */
    uint8_t secret[STATE_SECRET_BYTES]; /* keys the hash */
};

struct state_usage {
    uint64_t memory_used, memory_limit;                              /* bytes of slabs taken */
    uint64_t flows_live, flows_created, flows_closed, flows_refused; /* over all classes */
    uint64_t allocations_refused;
    uint64_t flows_evicted; /* closed, as another needed the place */
    uint64_t bindings_live, bindings_refused;
};

/*
 * Host: how much memory state_format() needs for `config` (0: more than can be, or no flows), and formatting it (memory
 * is zero-filled, page-aligned; touched only where it is used). config->memory is rounded down to whole slabs of 64
 * KiB, at least one. SM_E_INVALID: an impossible config, too few bytes, not aligned.
 */
size_t state_bytes(const struct state_config *config);
int state_format(struct state **state, void *memory, size_t bytes, const struct state_config *config);

/* What keys the hash, STATE_SECRET_BYTES. Host: another one, while there are no flows and nobody hashes. */
const uint8_t *state_secret(const struct state *state);
void state_secret_set(struct state *state, const uint8_t *secret);

/*
 * Forms. A class is known by its number, which stays; what its flows look like is a *form*, and a later version of the
 * middlebox may bring another one. Each flow says which it is made in. The forms of the first version have the numbers
 * of their classes.
 *
 * Host: describe a class by a form, before any replica uses it. Returns its number (>= 0), SM_E_LIMIT, or SM_E_INVALID
 * (sizes, timers, granularity out of range). state_class(), of a form: NULL beyond the last; `limit` and `partitioned`
 * may be changed through it.
 */
int state_class_add(struct state *state, const struct state_class *cls);
struct state_class *state_class(struct state *state, unsigned form);
unsigned state_class_count(const struct state *state);

/* Sums over actors; any thread, a snapshot. */
void state_usage(const struct state *state, struct state_usage *usage);

/*
 * An actor is one thread that changes state: private cursors and the slabs it allocates from. `slot` is its own
 * among all actors alive, below STATE_ACTORS. state_actor_leave() lets others allocate from its slabs; the host may
 * call state_actor_abandon(slot) for an actor that has died. SM_E_INVALID: no such slot. SM_E_CONFLICT: taken, or held
 * by a dead actor that was not abandoned. Actors live in the state: nothing to free.
 */
struct state_actor;
int state_actor_join(struct state_actor **actor, struct state *state, unsigned slot);
void state_actor_leave(struct state_actor *actor);
void state_actor_abandon(struct state *state, unsigned slot);

/* The form in which the actor makes flows of a class; at first the one of the class's number. */
void state_actor_form(struct state_actor *actor, unsigned cls, unsigned form);

/*
 * Keyed hash of a key (XXH3 with the service's secret); two-way keys are canonical already, so it is symmetric. That of
 * one with a tag follows from that with tag 0 (state_hash_tagged()).
 */
uint64_t state_hash(const struct state *state, const struct sm_key *key);

/* Where a hash belongs. */
static inline uint32_t state_shard_of(uint64_t hash)
{
    return (uint32_t)(hash >> (64 - SM_SHARD_BITS));
}
static inline uint32_t state_stripe_of(uint64_t hash)
{
    return SM_SHARDS + (uint32_t)(hash >> 32) % STATE_STRIPES;
}

/* The shard in which a copy is made. Its flows count for no limit and in no usage. */
static inline uint32_t state_copy(unsigned number)
{
    return SM_SHARDS + STATE_STRIPES + number;
}

/* The flow of a key, NULL: there is none. `hash` is state_hash(key). lookup.h has it inline, with steps that fetch. */
struct flow *state_find(const struct state *state, uint32_t shard, unsigned cls, const struct sm_key *key,
                        uint64_t hash);

/* Fetch what state_timer_expire() reads, where a timer of the shard seems to be due: step 0, 1, 2 before the call. */
void state_prefetch_timer(const struct state *state, uint32_t shard, unsigned step);

/* The key must not be there. The record is zeroed. SM_E_LIMIT: a limit of memory or flows; nothing has changed. */
int state_insert(struct state_actor *actor, uint32_t shard, unsigned cls, const struct sm_key *key, uint64_t hash,
                 struct flow **flow);
void state_remove(struct state_actor *actor, uint32_t shard, struct flow *flow);

/* Whether a limit of flows would refuse an insertion now. */
bool state_is_full(const struct state_actor *actor, uint32_t shard, unsigned cls);

/* The flow of a class whose timer `slot` is armed for the earliest time before `before` (ties by key), NULL: none. */
struct flow *state_earliest(const struct state *state, uint32_t shard, unsigned cls, unsigned slot, sm_time before);

/* Count a flow that is to be removed as evicted. */
void state_count_evicted(struct state_actor *actor, uint32_t shard);

/* The flows of a shard: start with *cursor 0; NULL at the end. Removing the flow just returned is allowed, inserting is
 * not. */
struct flow *state_next(const struct state *state, uint32_t shard, uint32_t *cursor);
uint32_t state_shard_flows(const struct state *state, uint32_t shard);

/* Fetch the lines of the flow that state_next() would give, and go on behind it, without a look at it. */
void state_prefetch_next(const struct state *state, uint32_t shard, uint32_t *cursor);

/*
 * Keys bound to a flow of a class with `binds` (bound.c): state_bound() finds the flow by them, in the flow's own
 * shard; they end with it. `key` has tag 0. state_bind(): 0, also when it is bound to this flow already; SM_E_CONFLICT:
 * to another flow of the shard; SM_E_LIMIT: too many, of the flow or in all. state_unbind(): SM_E_NOT_FOUND.
 * state_binding(): the flow's bound keys one by one, the latest first: start with *cursor 0; NULL at the end.
 * state_binding_next(): those of a shard, as state_next().
 */
int state_bind(struct state_actor *actor, uint32_t shard, struct flow *flow, const struct sm_key *key, uint64_t hash);
int state_unbind(struct state_actor *actor, uint32_t shard, struct flow *flow, const struct sm_key *key, uint64_t hash);
struct flow *state_bound(const struct state *state, uint32_t shard, const struct sm_key *key, uint64_t hash);
const struct sm_key *state_binding(const struct state *state, const struct flow *flow, uint32_t *cursor);
const struct sm_key *state_binding_next(const struct state *state, uint32_t shard, uint32_t *cursor);

/*
 * A copy and its shard change places: one change to the journal, so that after a death one of the two is whole in the
 * shard and the other in the copy. Both hold the same flows. The shard's owner only.
 */
void state_copy_install(struct state_actor *actor, uint32_t shard, uint32_t copy);

/* Free flows of a copy, at least one and about `budget`. True: the copy is empty. One actor at a time. */
bool state_copy_clear(struct state_actor *actor, uint32_t copy, uint32_t budget);

/* Parts of a flow. The record's address is what the public API calls sm_flow.state. */
void *flow_record(struct flow *flow);
struct flow *flow_of_record(void *record);
const struct sm_key *flow_key(const struct flow *flow);
unsigned flow_class(const struct flow *flow);
unsigned flow_form(const struct flow *flow);

/* All of a flow that its owner writes when it is used: timers, key, record. */
void *flow_extent(struct flow *flow, uint32_t record_size, uint32_t *bytes);

/*
 * Chunks: memory of a flow whose class has an alloc_limit. state_chunk_new(): zeroed; instead of `old` where that is
 * not NULL, with its contents as far as they fit. NULL: a limit, counted. state_chunk_bytes(): as asked for.
 */
void *state_chunk_new(struct state_actor *actor, uint32_t shard, struct flow *flow, void *old, uint64_t bytes);
void state_chunk_free(struct state_actor *actor, struct flow *flow, void *chunk);
uint32_t state_chunk_bytes(const void *chunk);
uint32_t state_chunk_count(const struct flow *flow);

/*
 * Timers of a shard's flows, by packet time. Re-arming to a later time is one store (the heap is put right when the
 * old deadline comes). state_timer_next(): the earliest deadline that may fire (may be early, never late),
 * UINT64_MAX: none. state_timer_expire(): disarm and return the earliest timer whose deadline is <= now, ties by flow
 * key (memcmp), slot, class; false: none. state_timer_set() returns 0: state_insert() has made room.
 */
int state_timer_set(struct state_actor *actor, uint32_t shard, struct flow *flow, unsigned slot, sm_time deadline);
void state_timer_cancel(struct state_actor *actor, uint32_t shard, struct flow *flow, unsigned slot);
sm_time state_timer_get(const struct state *state, const struct flow *flow, unsigned slot);
uint64_t state_timer_next(const struct state *state, uint32_t shard);
bool state_timer_expire(struct state_actor *actor, uint32_t shard, sm_time now, struct flow **flow, unsigned *slot,
                        sm_time *deadline);

/* Stripe locks: short, held only across one get..put of a shared flow. `slot` of the holder is in the lock word. */
void state_lock(struct state *state, uint32_t stripe, unsigned slot);
bool state_try_lock(struct state *state, uint32_t stripe, unsigned slot); /* a while; false: its holder may be dead */
void state_unlock(struct state *state, uint32_t stripe);

/* The slot that holds the stripe's lock, -1: nobody. Host: what a dead actor left locked, to undo and then unlock. */
int state_lock_holder(const struct state *state, uint32_t stripe);

/*
 * Check every table, slab, list and heap against each other; nobody may be writing. Returns the number of
 * inconsistencies and describes the first in *error.
 */
unsigned state_check(const struct state *state, struct sm_errbuf *error);

/* The same, with a call of `tell` (may be NULL) for each of them. */
typedef void state_found_fn(void *arg, const char *text);
unsigned state_check_all(const struct state *state, state_found_fn *tell, void *arg);

/*
 * The frame: what was settled when the state was formatted, and all else is found by. The host keeps a copy where no
 * replica can write, and puts it back where one did: false, it was not as it had been.
 */
struct state_frame {
    uint64_t magic, bytes;
    const void *slabs, *heap;
    uint32_t slab_count, flow_limit;
};
void state_frame_keep(const struct state *state, struct state_frame *frame);
bool state_frame_restore(struct state *state, const struct state_frame *frame);

#endif
