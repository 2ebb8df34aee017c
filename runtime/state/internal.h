/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_INTERNAL_H
#define SM_STATE_INTERNAL_H

/*
 * The layout of a `struct state`: what lies where in the block of shared memory.
 *
 *   struct state | slab descriptors | slabs (64 KiB each)
 *
 * All of it is valid when zero-filled, save for the few header fields that state_format() writes; so no memory is
 * touched before it is used. Nothing in it belongs to one process: the only pointers are into the block itself.
 *
 * A flow in memory (its address is that of the header, its reference the distance from the state in units of 16):
 *
 *   chunks, if its class has any | padding to 16 bytes | timer[n-1] .. timer[0] | header, 8 bytes | key, 40 bytes |
 * record
 *
 * A chunk (chunk.c) is an object or a run of its own, on its flow's list: header, 16 bytes | what the middlebox sees.
 */

#include "state/journal.h"
#include "state/slab.h"
#include "state/state.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#define STATE_MAGIC 0x31657461745373ull /* "sState1" */
#define STATE_LINE 64u
#define STATE_BINDING SM_MAX_CLASSES /* the class of bindings: flows to tables and slabs, to nobody else */
#define STATE_CLASSES (SM_MAX_CLASSES + 1u)
#define STATE_SHARDS (SM_SHARDS + STATE_STRIPES + STATE_COPIES)
#define BINDING_FORM STATE_FORMS
#define STATE_UNIT 16u                                      /* sizes and references count in these */
#define STATE_SPACE_MAX ((uint64_t)UINT32_MAX * STATE_UNIT) /* what references of 32 bits reach */

_Static_assert(sizeof(void *) == 8, "tables pack an address and a logarithm in one word");

struct flow_timer {
    uint64_t deadline; /* what was asked for last; 0 when disarmed */
};

struct flow {
    uint32_t hash; /* the low half of the key's */
    uint8_t cls;
    uint8_t timers;     /* as the class has; here so that a look at the flow suffices */
    uint8_t has_chunks; /* 1: struct flow_chunks lies before the timers (classes with chunks or bound keys) */
    uint8_t form;       /* the form of its class that it is made in */
    struct sm_key key;
};

/* The chunks of a flow. References are those of the chunks' headers; 0: none. */
struct flow_chunks {
    uint32_t first;
    uint32_t count;
    uint32_t bytes;    /* as they were asked for */
    uint32_t bindings; /* the first of the flow's bound keys (bound.c) */
};

/* The record of a binding; references. */
struct binding {
    uint32_t flow; /* that the key is bound to */
    uint32_t next; /* of that flow; 0: none */
};

struct chunk {
    uint32_t next, before;
    uint32_t bytes;
    uint32_t flow; /* that it belongs to */
};

_Static_assert(sizeof(struct flow) == 48, "the record follows, 16-byte aligned");
_Static_assert(sizeof(struct flow_chunks) == STATE_UNIT && sizeof(struct chunk) == STATE_UNIT, "16-byte aligned");
_Static_assert(SM_MAX_ALLOC == SLAB_RUN_MAX * SLAB_BYTES - sizeof(struct chunk), "the largest chunk is a run");
_Static_assert(SM_MAX_WRITABLE == JOURNAL_PACKET_BYTES - JOURNAL_RESERVE, "what a handler is sure of");

/* Eight slots of a flow table. In an array of groups each has a cache line of its own. */
#define GROUP_SLOTS 8u
#define GROUP_STRIDE STATE_LINE
#define GROUP_LOG_MAX 13u /* groups of the largest table, as a logarithm: 65536 slots for STATE_SHARD_FLOWS */
#define GROUP_LOG_LOW 8u  /* up to here `low` tells where a flow belongs */

struct group {
    uint64_t tags; /* a byte per slot: 0 empty, 1 tombstone, 0x80 | 7 bits of the hash */
    uint64_t low;  /* a byte per slot: the lowest bits of the hash */
    uint32_t refs[GROUP_SLOTS];
};

_Static_assert(sizeof(struct group) == 48, "a group and the counts of its shard are one cache line");
_Static_assert((GROUP_SLOTS << GROUP_LOG_MAX) * 7 / 8 > STATE_SHARD_FLOWS, "the largest table holds a full shard");

/* In a heap of fours. Its root is the fourth of its places, so that the four below an entry are one cache line. */
#define HEAP_ROOT 3u

struct timer_entry {
    uint64_t deadline; /* not later than the flow's own; put right when it comes to the top */
    uint32_t flow;     /* reference */
    uint32_t slot;
};

struct shard {
    /* First line: all that a look-up needs while there are few flows. */
    _Atomic(uint64_t) table; /* address of the groups | logarithm of their number; 0: the group below */
    _Atomic(uint16_t) count; /* the owner writes it, reports read it */
    uint16_t tombstones;
    uint32_t timers; /* timer slots of all flows: the heap has room for so many */
    struct group first;
    /* Second line. */
    struct timer_entry *heap;
    uint32_t heap_count;
    uint32_t heap_capacity; /* places, those before the root too; 0 or a power of two */
    _Atomic(uint32_t) lock; /* stripes: the holder's slot plus one, 0 free */
    uint32_t more[11];
};

_Static_assert(sizeof(struct shard) == 128, "a shard is two cache lines");
_Static_assert(STATE_SHARD_FLOWS <= UINT16_MAX, "counts of a shard have 16 bits");

/*
 * What a slot's actors have done, ever: one writer each, so that the journal can put them back. Changes in stripes are
 * final before the burst is, so they are counted apart; and so are copies, which are no flows yet, or no longer.
 */
struct actor_counters {
    _Alignas(STATE_LINE) _Atomic(uint64_t) created, closed, refused, evicted, unallocated, unbound;
    _Atomic(int64_t) live; /* flows made less flows closed; negative where others made them */
    _Atomic(int64_t) class_live[STATE_CLASSES];
};

enum counted_in { IN_SHARDS, IN_STRIPES, IN_COPIES, COUNTED };

struct state_actor {
    _Alignas(STATE_LINE) struct state *state;
    uint32_t slot;
    _Atomic(uint32_t) joined;
    struct journal *journal; /* the process's own; NULL: changes are final at once */
    struct slab_cursors slabs;
    uint8_t forms[STATE_CLASSES];            /* in which it makes flows of each class */
    struct actor_counters counters[COUNTED]; /* by enum counted_in */
};

struct state {
    uint64_t magic;
    uint64_t bytes;     /* of the whole block */
    struct slab *slabs; /* descriptors */
    unsigned char *heap;
    uint32_t slab_count;
    uint32_t flow_limit;
    _Atomic(uint32_t) form_count;
    uint32_t bin_count;
    struct slab_bin bins[SLAB_BINS];
    uint8_t form_bin[STATE_FORMS + 1];
    _Alignas(STATE_LINE) unsigned char secret[STATE_SECRET_BYTES];
    _Alignas(STATE_LINE) _Atomic(uint32_t) fresh; /* descriptors from here on were never used */
    _Atomic(uint32_t) actor_count;                /* slots that ever had an actor */
    struct state_class forms[STATE_FORMS + 1];    /* the last one: of bindings */
    struct state_actor actors[STATE_ACTORS];
    _Alignas(2 * STATE_LINE) struct shard shards[STATE_SHARDS];
};

static inline struct flow *flow_at(const struct state *state, uint32_t ref)
{
    return (struct flow *)((uintptr_t)state + (uint64_t)ref * STATE_UNIT);
}

static inline uint32_t flow_ref(const struct state *state, const struct flow *flow)
{
    return (uint32_t)(((uintptr_t)flow - (uintptr_t)state) / STATE_UNIT);
}

static inline struct flow_timer *flow_timer(const struct flow *flow, unsigned slot)
{
    return (struct flow_timer *)(uintptr_t)flow - 1 - slot;
}

/* What lies before a flow's header: its timers; and chunks. */
static inline uint32_t timers_bytes(unsigned timers)
{
    return (timers * (uint32_t)sizeof(struct flow_timer) + STATE_UNIT - 1) / STATE_UNIT * STATE_UNIT;
}
static inline uint32_t flow_offset(unsigned timers, bool chunks)
{
    return timers_bytes(timers) + (chunks ? STATE_UNIT : 0);
}

/* Where the slab's object that holds the flow begins. */
static inline void *flow_object(struct flow *flow)
{
    return (unsigned char *)flow - flow_offset(flow->timers, flow->has_chunks);
}

/* Whole cache lines where these cost an eighth more at most: half of the flows would lie across one line more. */
static inline uint32_t flow_bytes(uint32_t record_size, unsigned timers, bool chunks)
{
    uint32_t rounded = (record_size + STATE_UNIT - 1) / STATE_UNIT * STATE_UNIT;
    uint32_t bytes = flow_offset(timers, chunks) + (uint32_t)sizeof(struct flow) + rounded;
    uint32_t lines = (bytes + STATE_LINE - 1) / STATE_LINE * STATE_LINE;
    return (lines - bytes) * 8 <= lines ? lines : bytes;
}

static inline struct chunk *chunk_at(const struct state *state, uint32_t ref)
{
    return (struct chunk *)((uintptr_t)state + (uint64_t)ref * STATE_UNIT);
}

/* The form of its class that a flow was made in. */
static inline const struct state_class *flow_description(const struct state *state, const struct flow *flow)
{
    return &state->forms[flow->form];
}

/* chunk.c: the bin for a chunk and its header, and its objects' size; -1: a run. */
int chunk_bin(uint32_t bytes, uint32_t *size);
/* All chunks of a flow that ends; to another flow, which has none. */
void chunks_release(struct state_actor *actor, struct flow *flow);
void chunks_hand_over(struct state_actor *actor, struct flow *from, struct flow *to);

/* table.c: a flow in a form of its class, not in the table; the shard has room for its timers. NULL: no memory. */
struct flow *flow_make(struct state_actor *actor, unsigned form, unsigned cls, const struct sm_key *key, uint32_t hash);
/* The slot of the shard's table that refers to the flow. */
struct group *slot_of(const struct state *state, const struct shard *shard, const struct flow *flow, unsigned *slot);

static inline struct shard *shard_at(const struct state *state, uint32_t shard)
{
    assert(shard < STATE_SHARDS);
    return (struct shard *)(uintptr_t)&state->shards[shard];
}

/* The shard's groups, and their number less one. */
static inline struct group *shard_groups(const struct shard *shard, uint32_t *mask)
{
    uint64_t table = atomic_load_explicit(&((struct shard *)(uintptr_t)shard)->table, memory_order_relaxed);
    if (table == 0) {
        *mask = 0;
        return (struct group *)(uintptr_t)&shard->first;
    }
    *mask = (1u << (table & 15)) - 1;
    return (struct group *)(uintptr_t)(table & ~UINT64_C(15));
}

static inline struct group *group_at(struct group *groups, uint32_t index)
{
    return (struct group *)((unsigned char *)groups + (size_t)index * GROUP_STRIDE);
}

/* Bits of the hash that neither shards nor stripes are chosen by: 0..12 choose the group, 13..19 are the tag. */
#define GROUP_LOW UINT64_C(0x0101010101010101)
#define GROUP_HIGH UINT64_C(0x8080808080808080)
#define GROUP_TOMBSTONE 1u

static inline uint32_t hash_group(uint64_t hash)
{
    return (uint32_t)hash & ((1u << GROUP_LOG_MAX) - 1);
}
static inline uint8_t hash_tag(uint64_t hash)
{
    return (uint8_t)(0x80u | (hash >> GROUP_LOG_MAX & 0x7f));
}

/* The high bits of the slots that may hold a flow of this hash; one above a true match may be there by mistake. */
static inline uint64_t group_match(const struct group *group, uint64_t hash)
{
    uint64_t difference = (group->tags ^ GROUP_LOW * hash_tag(hash)) | (group->low ^ GROUP_LOW * (uint8_t)hash);
    return (difference - GROUP_LOW) & ~difference & GROUP_HIGH;
}

/*
 * The hash of a key with this tag, from the one with tag 0, which for packets is at hand. Flows of one key lie next to
 * each other in their shard's table, and what is fetched for a packet is what it meets whatever the tag is; but not in
 * one stripe, behind one lock.
 */
#define HASH_TAG_BITS 7u /* of the middlebox's tag, that are in the table's */
static inline uint64_t state_hash_tagged(uint64_t hash, uint16_t tag)
{
    return hash ^ (uint64_t)(tag & HASH_TAG_BITS) << GROUP_LOG_MAX ^ (uint64_t)tag << 20 ^ (uint64_t)tag << 32;
}

/* group_match() of this hash with any tag of the middlebox's. */
static inline uint64_t group_match_tags(const struct group *group, uint64_t hash)
{
    uint64_t difference = ((group->tags ^ GROUP_LOW * hash_tag(hash)) & ~(GROUP_LOW * HASH_TAG_BITS)) |
                          (group->low ^ GROUP_LOW * (uint8_t)hash);
    return (difference - GROUP_LOW) & ~difference & GROUP_HIGH;
}

/* The high bits of the tag bytes that are empty; that are empty or tombstones; that hold a flow. All exact. */
static inline uint64_t group_empty(uint64_t tags)
{
    return ~tags & ~(tags << 7) & GROUP_HIGH;
}
static inline uint64_t group_vacant(uint64_t tags)
{
    return ~tags & GROUP_HIGH;
}
static inline uint64_t group_full(uint64_t tags)
{
    return tags & GROUP_HIGH;
}

/* The slot of the lowest of such bits. */
static inline unsigned group_slot(uint64_t bits)
{
    return (unsigned)__builtin_ctzll(bits) / 8;
}

static inline uint8_t group_tag(const struct group *group, unsigned slot)
{
    return (uint8_t)(group->tags >> (8 * slot));
}

static inline uint8_t group_low(const struct group *group, unsigned slot)
{
    return (uint8_t)(group->low >> (8 * slot));
}

static inline uint64_t bytes_set(uint64_t bytes, unsigned slot, uint8_t byte)
{
    return (bytes & ~(UINT64_C(0xff) << (8 * slot))) | (uint64_t)byte << (8 * slot);
}

static inline uint32_t heap_end(const struct shard *shard)
{
    return HEAP_ROOT + shard->heap_count;
}
static inline uint32_t heap_parent(uint32_t at)
{
    return at / 4 + 2;
}
static inline uint32_t heap_child(uint32_t at)
{
    return 4 * at - 8;
}

/* timer.c: the place in the heap of an armed timer's entry; heap_end(): it has none. */
uint32_t timer_entry_of(const struct state *state, const struct shard *shard, const struct flow *flow, unsigned slot);
/* Room for `more` timer slots beyond those of the shard's flows; SM_E_LIMIT. */
int timers_reserve(struct state_actor *actor, struct shard *shard, unsigned more);
/* Disarm all timers of a flow that ends, and give its room back. */
void timers_release(struct state_actor *actor, struct shard *shard, struct flow *flow);

/* bound.c: the class of bindings; the bindings of a flow that ends. */
void bindings_format(struct state *state, uint32_t limit);
void bindings_release(struct state_actor *actor, uint32_t index, struct flow *flow);
void bindings_hand_over(struct state_actor *actor, struct flow *from, struct flow *to);

static inline bool class_has_chunks(const struct state_class *cls)
{
    return cls->alloc_limit > 0 || cls->binds[0] != '\0';
}

/* Flows alive of a class; of all where `cls` is LIVE_FLOWS. */
#define LIVE_FLOWS STATE_CLASSES
int64_t live_sum(const struct state *state, unsigned cls);
int64_t copied_sum(const struct state *state); /* flows in copies */

static inline struct actor_counters *counters_of(struct state_actor *actor, uint32_t shard)
{
    return &actor->counters[shard < SM_SHARDS ? IN_SHARDS : shard < SM_SHARDS + STATE_STRIPES ? IN_STRIPES : IN_COPIES];
}

/* Before it changes. */
static inline void save(const struct state_actor *actor, const void *address, uint32_t length)
{
    if (actor->journal != NULL) {
        bool kept = journal_image(actor->journal, address, length);
        assert(kept && "what tables and timers need fits in the room that a packet is sure of");
        (void)kept;
    }
}

/* All of a shard but its lock, which is nobody's to put back. */
static inline void save_shard(const struct state_actor *actor, const struct shard *shard)
{
    save(actor, shard, offsetof(struct shard, lock));
}

#endif
