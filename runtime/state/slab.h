/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_SLAB_H
#define SM_STATE_SLAB_H

/*
 * Slabs: the memory that flows, tables and timer heaps live in.
 *
 * Overview.  The heap is an array of slabs of 64 KiB, each cut into objects of one size. Everything there is to know
 * about a slab is in its descriptor: a control word (object size, holder, kind) and a bitmap of the objects in use.
 * There are no lists and no counts. An object too large for a slab gets a *run* of neighbouring slabs.
 *
 * Life-cycle of a descriptor, by its control word:
 *   unused     0. May be taken by anybody: CAS to held.
 *   held       size, holder. Only the holder sets bits; anybody who owns an object clears its bit. Left by the holder
 *              (slab full, actor leaves) or by the host for a dead holder: to idle.
 *   idle       size, no holder. May be taken by CAS: to held. When its bitmap is empty it may be cut anew, but only
 *              once held, since only then nobody else can set a bit.
 *   building   a run's part that its maker has taken; the maker alone changes it: to run and tail, or back to what it
 * was. run        the first slab of a run, `length` slabs long; bit 0 says whether it is in use. Not in use it may be
 * held (CAS) and taken apart: tails to unused, then itself. tail       `length` slabs behind its run's first one;
 * follows that one's fate.
 *
 * Concurrency.  Any number of actors. A bit is cleared with release and set with acquire order, so that what one actor
 * did to an object happens before what the next does to it. What a killed actor leaves is held and building slabs,
 * which slab_abandon() sorts out by looking at nothing but descriptors, and objects whose bit is set though nobody
 * refers to them yet, or still: those are the undo journal's.
 *
 * Limits.  The number of slabs, SLAB_BINS object sizes. An allocation searches SLAB_SEARCH descriptors for room and
 * then takes a fresh slab; when there is none it searches all, once; until room is found again later attempts only go
 * on searching SLAB_SEARCH each, and after a vain search for a run the next SLAB_SEARCH requests for one as long are
 * refused, so that a full heap does not make each refusal expensive. Each actor holds at most one
 * slab for each size.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SLAB_BYTES 65536u
#define SLAB_WORDS 15u
#define SLAB_OBJECTS (SLAB_WORDS * 64) /* at most, in one slab: costs sizes below 80 bytes up to 6 % */
#define SLAB_SEARCH 64u
#define SLAB_RUN_MAX 64u

/*
 * Bins: table sizes (64 bytes << 1..10), heap sizes (256 bytes << 0..8), sizes of chunks (64 bytes, 96 bytes << 0..8;
 * between them those of tables), sizes of flows.
 */
#define SLAB_TABLE_BINS 10u
#define SLAB_HEAP_BINS 9u
#define SLAB_CHUNK_BINS 10u
#define SLAB_FLOW_BINS 32u
#define SLAB_BIN_HEAP SLAB_TABLE_BINS
#define SLAB_BIN_CHUNK (SLAB_TABLE_BINS + SLAB_HEAP_BINS)
#define SLAB_BIN_FLOW (SLAB_BIN_CHUNK + SLAB_CHUNK_BINS)
#define SLAB_BINS (SLAB_BIN_FLOW + SLAB_FLOW_BINS)
#define SLAB_TABLE_MIN 128u
#define SLAB_HEAP_MIN 256u
#define SLAB_CHUNK_MIN 64u
#define SLAB_CHUNK_STEP 96u

_Static_assert(SLAB_BINS <= 64, "actors keep a set of bins in one word");

struct state;
struct state_actor;

enum slab_kind { SLAB_OBJECTS_OF_ONE_SIZE, SLAB_RUN, SLAB_TAIL, SLAB_BUILDING };

/* The control word, taken apart. */
struct slab_control {
    uint32_t units;  /* object size in 16 bytes; 0: none yet */
    uint32_t holder; /* actor slot plus one; 0: none */
    enum slab_kind kind;
    uint32_t length; /* run: its slabs; tail: how far behind its run's first */
};

struct slab {
    _Atomic(uint64_t) control;
    _Atomic(uint64_t) used[SLAB_WORDS];
};

_Static_assert(sizeof(struct slab) == 128, "a descriptor is two cache lines");

struct slab_bin {
    uint32_t units;   /* object size in 16 bytes */
    uint32_t objects; /* in one slab */
};

/* An actor's part. It only remembers what the descriptors say. */
struct slab_cursors {
    struct {
        uint32_t slab; /* held for this bin, plus one; 0: none */
        uint32_t word; /* of the bitmap, where the last free bit was */
    } current[SLAB_BINS];
    uint64_t dry;    /* bins for which a search of all slabs found nothing */
    uint32_t search; /* where to search on */
    uint32_t skip;   /* requests for runs, this long or longer, to refuse before searching again */
    uint32_t skip_length;
};

static inline uint64_t slab_pack(struct slab_control c)
{
    return (uint64_t)c.units | (uint64_t)c.holder << 16 | (uint64_t)c.kind << 32 | (uint64_t)c.length << 48;
}

static inline struct slab_control slab_unpack(uint64_t word)
{
    return (struct slab_control){.units = word & 0xffff,
                                 .holder = word >> 16 & 0xffff,
                                 .kind = (enum slab_kind)(word >> 32 & 0xffff),
                                 .length = word >> 48 & 0xffff};
}

static inline uint32_t slab_objects(uint32_t units)
{
    uint32_t objects = SLAB_BYTES / 16 / units;
    return objects < SLAB_OBJECTS ? objects : SLAB_OBJECTS;
}

/* Of slabs: the slabs' number for `memory` bytes. */
uint64_t slab_count_for(uint64_t memory);

/* Make the bins that every state has; find or add the one for objects of `bytes`. -1: no bin is left. */
void slab_format(struct state *state);
int slab_bin_for(struct state *state, uint32_t bytes);

/* One object of a bin, or a run of slabs; not zeroed, 16-byte aligned. NULL: no memory. */
void *slab_alloc(struct state_actor *actor, unsigned bin);
void *slab_alloc_run(struct state_actor *actor, uint32_t length);

/* Give back an object or a run, whoever allocated it: at the next commit where the actor has a journal, or at once. */
void slab_free(struct state_actor *actor, void *object);
void slab_release(struct state *state, struct state_actor *actor, void *object); /* at once; NULL actor: a dead one's */

/* Whether this is an object or run that is in use: what a dead replica's journal names may be anything in the heap. */
bool slab_may_release(struct state *state, const void *object);

/* Mark an object that is about to be freed; whether it still is marked, and so not yet free. */
void slab_bury(void *object);
bool slab_buried(struct state *state, const void *object);

/* Take back an allocation that a dead actor had announced, whether it was made or not. */
void slab_unmake(struct state *state, void *object);

/* Let go of all slabs that the actor holds; or of those that a dead one held. */
void slab_leave(struct state_actor *actor);
void slab_abandon(struct state *state, unsigned slot);

/* Whether no object of the slab is in use. Stable only for its holder. */
bool slab_is_empty(const struct slab *slab);

/* Slabs held or with an object in use. */
uint64_t slab_taken(const struct state *state);

#endif
