/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_ARENA_H
#define SM_ARENA_ARENA_H

/*
 * The arena: one block of shared memory a service has on a host (design D1).
 *
 * Overview.  A memfd, created by the switch, mapped by every replica at the same virtual address, so that pointers
 * inside it mean the same everywhere. Regions, in order: the header (this file), the channels (channel.h), the export
 * areas (export.h), the packet pool, the flow state (state/state.h).
 *
 * Life-cycle.  arena_create() by the host; the descriptor goes to replicas over the attach socket; arena_map() there.
 * The registry is empty until the first replica hands its registration in, and changes after that only by an upgrade
 * (builds.h). The memory is gone when the last process that maps it is.
 *
 * Concurrency.  The header is written by the switch's control thread before replicas are ready, except where a field
 * says otherwise.
 *
 * Limits.  ARENA_SLOTS replicas at a time, ARENA_WORKERS switch workers; the sizes in struct arena_options.
 */

#include <splitmerge/splitmerge.h>
#include <stdatomic.h>

#include "arena/channel.h"
#include "arena/export.h"
#include "arena/kept.h"
#include "arena/ledger.h"
#include "arena/pool.h"
#include "state/coherent.h"
#include "state/state.h"

#define ARENA_MAGIC 0x31656772654d5053ull /* "SPMerge1" */
#define ARENA_VERSION 7u
#define ARENA_SLOTS 64u  /* replicas at a time; STATE_ACTORS has one more for the host */
#define ARENA_WORKERS 1u /* switch threads; every structure is laid out per worker */
#define ARENA_NAME 64
#define ARENA_BINDINGS 65536u

/*
 * Where arenas are mapped: an address range that AddressSanitizer and ThreadSanitizer leave alone and that lies below
 * everything the kernel places at random. Several arenas in one process (tests, benchmarks) take successive strides.
 */
#define ARENA_BASE 0x7ea000000000ull
#define ARENA_STRIDE (64ull << 30)
#define ARENA_STRIDES 16u

enum arena_mode { ARENA_INLINE, ARENA_TAP };

/* What a middlebox registers; the same for every replica of one build, compared byte by byte. */
struct registration {
    char middlebox[32];
    uint32_t class_count;
    uint32_t shared_count;
    uint32_t reason_count;
    uint32_t sends; /* buffers that every packet needs in reserve */
    bool delays;    /* it may delay packets */
    bool others;    /* what is not IP comes too; else it passes unprocessed */
    struct state_class classes[SM_MAX_CLASSES];
    struct shared_object shared[SM_MAX_SHARED];
    char reasons[SM_MAX_REASONS][48];
};

/* A build of the middlebox, in use or on its way in or out (builds.h). */
struct build {
    uint8_t number;                /* of all that the service ever had; 0: there is none */
    uint8_t forms[SM_MAX_CLASSES]; /* in which it makes flows of its classes */
    struct registration registration;
};

#define ARENA_BUILDS 2u       /* at a time */
#define ARENA_MIXED UINT8_MAX /* a shard's flows are of more than one build */

/* A strong object: locked by the replica slot whose number, plus one, is in `holder`. A strong counter has the lock
 * alone, for those who take from it. */
struct strong_object {
    _Alignas(64) _Atomic uint32_t holder;
    uint32_t size;
    _Alignas(16) uint8_t data[SM_MAX_SHARED_SIZE];
};

/*
 * Notes of dead replicas (journal.h): the host puts them in, whichever replica comes first carries them out, one at a
 * time, holding `holder`. A queue that is full refuses: what was taken then stays taken.
 */
#define ARENA_NOTES 4096u
struct note_queue {
    _Alignas(64) _Atomic uint32_t tail; /* written by the host */
    uint32_t place;                     /* the host's: where the note at `from`, in a dead replica's journal, goes */
    uint64_t from;
    uint64_t refused;
    _Alignas(64) _Atomic uint32_t head;
    _Atomic uint32_t holder; /* slot plus one */
    struct journal_note notes[ARENA_NOTES];
};

/* Whether a service goes on with `base` when another build has had flows: it cannot; replicas of that one, which live,
 * bring them back as they release them; or `base` reads them as they are. */
enum way_back { WAY_BACK_NONE, WAY_BACK_BY_NEW, WAY_BACK_BY_OLD };

/* What there is of a checkpoint that is being restored. Flows can be taken back: there were none before. */
enum arena_restoring { RESTORING_NOTHING, RESTORING_FLOWS, RESTORING_SHARED };

struct arena {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /* sizeof(struct arena): another layout is refused */
    uint64_t bytes;        /* of the whole arena */
    uint64_t base;         /* where it is mapped */
    char service[ARENA_NAME];
    char host[ARENA_NAME];
    int32_t linktype; /* DLT_* of the ports */
    uint32_t mode;    /* enum arena_mode */
    bool own_flows;   /* the program keeps its flows itself, and a shard's may be in several replicas: it has no flow
                       * classes, and its packets need not come from the shard's owner */
    uint64_t seed;

    struct state *state;
    struct pool_layout pool;
    struct export_area *exports; /* EXPORT_LANES */
    uint32_t export_bytes;       /* of an area that are used */
    uint8_t *channels;
    uint64_t channel_bytes;
    uint32_t bindings; /* most bound keys */

    bool registered;                  /* the registration below holds */
    bool steered;                     /* the service says by which key, not the classes */
    struct keying steering;           /* chosen from the registered classes (design D3), or by the service */
    struct registration registration; /* with what later builds have added */

    struct build builds[ARENA_BUILDS];
    uint8_t base_build;  /* that the service runs; the other one is on its way in, or of no use */
    uint8_t build_count; /* that the service ever had */
    bool upgrading;      /* replicas of another build than `base` may register */
    bool forward_only;   /* even where `base` cannot read what they make of its flows */
    uint8_t way_back;    /* enum way_back */
    uint8_t slot_build[ARENA_SLOTS];
    /* The number of the build whose forms a shard's flows are in; 0: none yet. The owner writes it. */
    uint8_t shard_build[SM_SHARDS];
    /* Flows that a replica ended, as they could not be brought back into an older form. */
    _Atomic uint64_t unconverted[ARENA_SLOTS];

    /* Who is processing a shard's packets, slot + 1, written by replicas: set at adoption, cleared at release, checked
     * at every packet. It is how a replica notices a second owner; it shares nothing with the switch's own table. */
    _Atomic uint8_t writer[SM_SHARDS];

    /* Shards that a replica is to take over at the IN_INHERIT of that number: arena_heir(). Written by the switch. */
    _Atomic uint32_t heir[SM_SHARDS];

    /* Shards that the checkpoint under way has, a bit each. Written by the switch. */
    _Atomic uint64_t snapshot_covered[SM_SHARDS / 64];

    /* Packet time up to which everything has been put in the replicas' rings. Written by the switch. */
    _Alignas(64) _Atomic uint64_t pushed_time;
    /* The earliest packet time among packets held for, or handed late to, a slot; UINT64_MAX: none. Written by the
     * switch. Its packets are behind later ones in that slot's ring, so they bound shared token buckets. */
    _Alignas(64) _Atomic uint64_t late_time[ARENA_SLOTS];
    /* Slots that have a ready replica. Written by the switch. */
    _Alignas(64) _Atomic uint64_t ready_slots;

    struct strong_object strong[SM_MAX_SHARED];
    struct note_queue notes;
    /* The last unit (journal.h) in which the replica of a slot noted a change of a stripe's flows; 0: none. Written
     * under the stripe's lock, and by the switch once the replica is dead, or before the next one comes. */
    _Atomic uint64_t noted[ARENA_SLOTS][STATE_STRIPES];
    /* The stripe that a checkpoint waits for, locked; 0: none. Written by whoever has the lock. */
    _Atomic uint32_t settling;
    _Atomic uint32_t restoring;                /* enum arena_restoring. Written by the switch */
    uint8_t secret_before[STATE_SECRET_BYTES]; /* of the service, while `restoring`; written by the switch */
    /* What the replicas of each slot have contributed to shared objects (coherent.h); rows beyond these are empty. */
    _Alignas(64) _Atomic uint32_t row_count;
    _Alignas(4096) uint8_t rows[ARENA_SLOTS][COHERENT_ROW_BYTES];

    /* Counts the switches. Written by each before it looks whether a replica of the one before is still there. */
    _Atomic uint32_t generation;
    struct ledger ledger;
    _Atomic uint32_t last_id; /* the highest number that a replica was ever named by. Written by the switch. */
    struct kept kept;         /* by the orchestrator */
};

struct arena_options {
    const char *service;
    int linktype;
    enum arena_mode mode;
    bool own_flows; /* as in struct arena */
    bool steered;   /* likewise */
    struct keying steering;
    uint64_t seed;   /* 0: a random secret */
    uint64_t memory; /* bytes of flow state */
    uint32_t flows;
    uint32_t bindings;      /* bound keys; 0: ARENA_BINDINGS */
    uint32_t small_buffers; /* packet buffers of POOL_SMALL_BYTES; 0: POOL_SMALL_COUNT */
    uint32_t jumbo_buffers; /* packet buffers of POOL_JUMBO_BYTES; 0: 64 */
    uint32_t export_bytes;  /* flows that are copied at a time; 0: EXPORT_BYTES, which is the most */
};

/* Host: make an arena. *fd is its memfd, the caller's. SM_E_NO_MEMORY, SM_E_RANGE (no stride is free), SM_E_INVALID. */
int arena_create(struct arena **arena, int *fd, const struct arena_options *options, struct sm_errbuf *error);

/* Replica: map the arena behind `fd` at `base`. SM_E_RANGE: taken; SM_E_PROTOCOL: not an arena of this version. */
int arena_map(struct arena **arena, int fd, uint64_t base, uint64_t bytes, struct sm_errbuf *error);

/*
 * Host: map the arena that another switch has left behind in `fd`, where it was; take_over: for this service and these
 * ports. SM_E_PROTOCOL: not an arena of this version; SM_E_CONFLICT: of another service, or for other ports;
 * SM_E_RANGE. *error says which.
 */
int arena_peek(struct arena **arena, int fd, struct sm_errbuf *error);
int arena_take_over(struct arena **arena, int fd, const struct arena_options *options, struct sm_errbuf *error);

void arena_unmap(struct arena *arena);

/*
 * Take the registration of a slot's replica. The first one is checked, chooses the steering key and fixes the classes;
 * later ones must be equal to it, unless the service is being upgraded (builds.h). SM_E_CONFLICT: *error names what
 * differs; SM_E_LIMIT.
 */
int arena_register(struct arena *arena, unsigned slot, const struct registration *registration,
                   struct sm_errbuf *error);

/* The steering key of a set of classes (design D3): the candidate that partitions most of them, ties by order. */
struct keying steering_choose(const struct state_class *classes, unsigned count);
bool steering_partitions(struct keying steering, struct keying key);

/* "source", "source/24/64"; what is not narrowed of two is whole: "source/24/128". Returns `text`. */
#define KEYING_TEXT 40
const char *keying_text(struct keying key, char text[static KEYING_TEXT]);

/* An inheritance's number and its heir; never 0. */
static inline uint32_t arena_heir(uint32_t number, unsigned slot)
{
    return number << 8 | (slot + 1);
}

static inline struct channel *arena_channel(const struct arena *arena, unsigned worker, unsigned slot)
{
    return (struct channel *)(void *)(arena->channels + (worker * ARENA_SLOTS + slot) * arena->channel_bytes);
}

/* How many rows may have something in them; a replica that comes adds its own. */
static inline unsigned arena_rows(struct arena *arena)
{
    return atomic_load_explicit(&arena->row_count, memory_order_acquire);
}
void arena_add_row(struct arena *arena, unsigned slot);

/* What is noted of a slot's replica is committed, or queued. */
void arena_forget_noted(struct arena *arena, unsigned slot);

/* Whether all that was noted of a locked stripe is committed, and nothing waits to be undone. */
bool arena_is_settled(struct arena *arena, uint32_t stripe);

static inline struct coherent_writer arena_writer(struct arena *arena, unsigned slot)
{
    struct channel *channel = arena_channel(arena, 0, slot);
    return (struct coherent_writer){arena->rows[slot], channel_journal(channel), &channel->commit};
}

#endif
