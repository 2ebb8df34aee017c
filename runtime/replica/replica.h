/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_REPLICA_H
#define SM_REPLICA_REPLICA_H

/*
 * A replica's own side: the packet loop over one channel, and what the public calls need.
 *
 * Life-cycle.  opened (the program registers) -> started (packets come) -> retired (IN_RETIRE was met, or the switch
 * is gone). A shard is *owned* from IN_ADOPT to IN_RELEASE; only then its state may be touched.
 *
 * A burst.  Entries are processed in ring order; answers are written behind what is produced already; one store of the
 * channel's commit word makes everything visible. replica_commit() may be called inside a burst for the packets that
 * are complete (before waiting for another replica). Until its commit everything that a packet changed can be undone:
 * old bytes go to the undo journal first (state/journal.h).
 *
 * Concurrency.  One thread. What others read of it: the commit word, `low`, the counters.
 */

#include <signal.h>
#include <splitmerge/splitmerge.h>

#include "arena/arena.h"
#include "replica/codec.h"
#include "replica/shard_heap.h"
#include "replica/snapshot.h"
#include "state/journal.h"
#include "state/prefetch.h"

/* One packet in the hands of the middlebox. */
struct sm_packet {
    struct packet_meta *meta;
    uint8_t *data;
    struct sm_replica *replica;
    uint64_t time;  /* packet time, ns */
    uint64_t delay; /* how much later it departs, ns */
    uint32_t buffer;
    uint32_t place; /* of its answer */
    uint16_t shard;
    uint16_t reason;
    uint8_t flags; /* of its answer: ANSWER_* */
    uint8_t sent;
    uint8_t binds; /* keys that were bound for it */
};

/* The look-ahead: so many steps, each so many entries before the next, for a cache line of the ring at a time. */
#define REPLICA_FETCHES 3
#define REPLICA_FETCH_AHEAD 16u
#define REPLICA_FETCH_EVERY 4u
#define REPLICA_AHEAD 64u             /* entries; at least as many as the steps of the look-ahead reach over */
#define REPLICA_KEPT CHANNEL_RELEASES /* shards that are to be released at a time: the switch's bound */

struct sm_replica {
    struct arena *arena;
    struct pool_layout pool; /* as in the arena */
    struct state *state;
    struct state_actor *actor;
    struct channel *channel;
    struct in_entry *in;
    struct out_entry *out;
    unsigned slot;
    uint8_t *row; /* own contributions to shared objects (state/coherent.h) */

    uint32_t consumed;                 /* entries completely processed; committed up to channel->commit */
    uint32_t fetched[REPLICA_FETCHES]; /* entries that each step of the look-ahead has been done for */
    struct replica_ahead {
        struct packet_meta *meta;  /* NULL: it is not a packet's */
        const struct group *group; /* of the flow that the packet is likely to meet */
        bool timed;                /* a timer of the shard is due before it */
    } ahead[REPLICA_AHEAD];        /* what the steps have found out about the entries ahead */
    uint32_t produced;             /* answers written */
    uint32_t complete;             /* answers of completely processed entries */
    uint32_t bound;                /* entries of the ring of bindings written */
    uint64_t committed;            /* the commit word */
    struct journal journal;
    bool retired;
    bool delays; /* packets may be delayed */
    bool started;
    int failed;      /* it cannot go on, and commits nothing more: an SM_E_ value, last_error says why */
    bool reads_data; /* of packets, not only what the switch says of them: it is prefetched from then on */

    sm_packet_fn *on_packet;
    void *user;
    struct {
        sm_timer_fn *on_timer;
        sm_expire_fn *on_expire;
        sm_hook_fn *on_adopt, *on_release;
        sm_encode_fn *encode;
        sm_decode_fn *decode;
        sm_upgrade_fn *upgrade;
        sm_downgrade_fn *downgrade;
        sm_undo_fn *on_undo;
        void *user;
        uint64_t idle_ns, hard_ns; /* 0: none */
        uint32_t record_size;
        uint8_t timers; /* the middlebox's; the slots of the timeouts follow: idle, then hard */
        struct keying key;
        bool steers; /* the key is what packets are steered by */
        bool partitioned;
        bool direct;      /* both, by flow, and without an idle timeout, chunks or bindings */
        uint32_t promise; /* of journal that a flow in hand may take, but for its chunks */
        bool chunks;
        bool evict;              /* at a limit; idle_ns is not 0 then */
        struct sm_filter *binds; /* packets that may bind keys to its flows; NULL: none */
    } classes[SM_MAX_CLASSES];
    struct registration *registration; /* until sm_start() */
    uint8_t build;                     /* the number of the build whose registration that was */
    uint8_t class_count;
    uint8_t forms[SM_MAX_CLASSES]; /* of its classes */
    struct codec codec;
    struct snapshot snapshot;
    struct codec_source *source; /* of the checkpoint that is being restored */
    struct codec_buffer rest;    /* of it: a flow that is larger than a part, as far as it has come */

    /* Where the program asks for packets (replica_pull()): the one that it has, and the burst so far. */
    struct replica_pull {
        struct sm_packet packet;
        uint32_t head; /* of the ring, when it was looked at last */
        unsigned done; /* entries of the burst, that in hand too */
        bool marked;   /* there was a marker; cleared by who looks */
    } pull;

    struct sm_packet *current; /* the packet or, in a timer, NULL */
    uint32_t current_shard;
    uint32_t hooked;      /* classes with on_adopt or on_release, a bit for each */
    const void *ending;   /* the record of the flow that on_expire was called for */
    uint32_t held_stripe; /* of the shared flow that is held; 0: none (stripes are numbered from SM_SHARDS) */

    struct {
        uint16_t id;
        bool current; /* got for the packet that is being processed: stays locked over a commit inside the burst */
    } strong[SM_MAX_SHARED]; /* locked strong objects, ascending; unlocked at commit */
    unsigned strong_count;
    uint64_t floor_unit; /* that the channel's floor was set for */
    uint64_t entry_unit; /* the first unit (journal.h) of the entry in hand */
    uint64_t taken_unit; /* the last one that took from a strong counter */
    unsigned taken_from; /* the last registered of those that its entry took from */
    struct {
        sm_combine_fn *combine;
        const void *identity;
        void *user;
    } combiners[SM_MAX_SHARED];                         /* the middlebox's own */
    struct sm_bucket_rate bucket_rates[SM_MAX_CLASSES]; /* of the classes that are buckets (buckets.c) */

    /* Flows that the middlebox holds; shards whose release waits for that (hold.c). */
    struct {
        const void *record;
        uint32_t shard;
    } holds[SM_MAX_HOLDS];
    struct in_entry kept[REPLICA_KEPT];
    unsigned hold_count, kept_count;

    struct shard_heap timers; /* owned shards by earliest deadline */
    uint8_t owned[SM_SHARDS];

    struct attachment *attachment; /* to a switch; NULL when standalone */
    struct standalone *standalone; /* this process is its own host; NULL when attached */
    volatile sig_atomic_t stop;
    volatile sig_atomic_t interrupted; /* sm_run() is to return */
    struct sm_errbuf last_error;
};

/* All zero, with the beginnings of a registration; both the caller's to free. NULL: no memory, *error says so. */
struct sm_replica *replica_new(const char *middlebox, struct sm_errbuf *error);

/* Bind an opened replica to its channel. SM_E_NO_MEMORY. */
int replica_bind(struct sm_replica *replica, struct arena *arena, unsigned slot);
void replica_unbind(struct sm_replica *replica);

/* Take a shared object into the registration, under a place in the row. Returns its number; errors as the public calls.
 */
int replica_register_shared(struct sm_replica *replica, const char *name, struct shared_object wanted,
                            struct shared_object **object);

/* Carry out the notes of replicas that have died (escrow.c). */
void replica_undo_notes(struct sm_replica *replica);

/* Wait for another replica a little, the longer the more often. */
void replica_back_off(unsigned *turns);

/* Classes as the arena has them now, after registration. */
void replica_learn_classes(struct sm_replica *replica);

/* Counters have one writer: a plain add, atomic only so that readers see whole values. */
static inline void replica_count(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount, memory_order_relaxed);
}

/* A timeout of a flow of the current shard has fired, in timer slot `slot`: the flow ends (flow_api.c). */
void flow_expire(struct sm_replica *replica, struct flow *flow, unsigned slot, sm_time now);

/* Bring the flows of a shard that has come into the replica's own forms (convert.c). False: it cannot, and has failed.
 */
bool replica_convert(struct sm_replica *replica, uint32_t shard, uint64_t now);

/* The same into the forms of the service's build, which an older one reads. */
bool replica_convert_back(struct sm_replica *replica, uint32_t shard, uint64_t now);

/* Part of what an entry asks for is done, and the journal is filling up: make it final. */
void replica_progress(struct sm_replica *replica);

/* Call the hooks for the flows of a shard that has come or is about to go. */
void flow_hooks(struct sm_replica *replica, uint32_t shard, bool adopted);

/* bind_api.c: classes that bind; what the switch has to know of a flow that is about to end. */
bool bind_declared(const struct sm_class_options *options);
int bind_register(struct sm_replica *replica, unsigned cls, const struct sm_class_options *options);
void bind_forget(struct sm_replica *replica);
void bind_end(struct sm_replica *replica, uint32_t shard, const struct flow *flow);

/* hold.c. keep: whether the release of a shard waits; it is noted then. kept_returns: whether an adopted shard was one
 * of these: it is back. end: a flow ends. finish: give up the shards that nothing is held of any more; how many. */
bool hold_keep(struct sm_replica *replica, const struct in_entry *entry);
bool hold_kept_returns(struct sm_replica *replica, uint32_t shard);
void hold_put(struct sm_replica *replica, const void *record);
void hold_end(struct sm_replica *replica, const void *record);
unsigned hold_finish(struct sm_replica *replica);

/* Give up a shard, and say so. */
void replica_release(struct sm_replica *replica, const struct in_entry *entry);

/* Process at most `budget` entries and commit. Returns how many. */
unsigned replica_burst(struct sm_replica *replica, unsigned budget);

/*
 * The same for a program that asks for packets one by one, instead of having on_packet called: the next packet, valid
 * until the next call, by which the program is done with it. NULL: there is none now, or the replica is `retired` or
 * has `failed`. A burst is committed when it is full, and when there is no packet left; replica_pull_end() ends it at
 * once, the packet in hand too.
 */
struct sm_packet *replica_pull(struct sm_replica *replica);
void replica_pull_end(struct sm_replica *replica);

/*
 * The same for a program that has no classes and sends nothing: how many of the packets that come next it may have
 * before it comes back (0: as replica_pull()'s NULL), each by replica_pull_look(), in order. Then it is done with so
 * many of them, and the others come again.
 */
unsigned replica_pull_run(struct sm_replica *replica);
void replica_pull_ran(struct sm_replica *replica, unsigned done);

static inline void replica_fetch_packet(const struct sm_replica *replica, const struct in_entry *entry)
{
    const struct packet_meta *meta = pool_meta(&replica->pool, entry->buffer);

    prefetch_for_read(meta);
    prefetch_for_read((const uint8_t *)meta + POOL_DATA_OFFSET);
}

/* The `i`th entry of a run; and fetch what is behind it, which may be a marker: then that is of no use. */
static inline const struct in_entry *replica_pull_look(struct sm_replica *replica, unsigned i)
{
    const uint32_t at = replica->consumed + i, mask = replica->channel->ring_mask;

    if (replica->pull.head - at > REPLICA_FETCH_AHEAD)
        replica_fetch_packet(replica, &replica->in[(at + REPLICA_FETCH_AHEAD) & mask]);
    atomic_store_explicit(&replica->channel->at, at, memory_order_relaxed);
    return &replica->in[at & mask];
}

/* Commit the entries processed so far in this burst; `all`: nothing of another one has been begun. */
void replica_commit(struct sm_replica *replica, bool all);

/* Commit inside an entry that is not complete, but may become final in pieces. */
void replica_progress(struct sm_replica *replica);

/* A piece of an entry (a timer, a flow) is complete in itself, though final only with the burst or when room is wanted.
 */
void replica_piece(struct sm_replica *replica);

/* Room for an answer. */
struct out_entry *replica_answer(struct sm_replica *replica);

/* Own a shard from now on. */
void replica_adopt(struct sm_replica *replica, uint32_t shard, uint64_t now);

/* export.c: a step of copying a shard. */
void replica_lane(struct sm_replica *replica, const struct in_entry *entry);

/* restore.c: a step of restoring a checkpoint, answered; nothing of it is left. */
void replica_restore(struct sm_replica *replica, uint32_t request, uint64_t now);
void replica_restore_end(struct sm_replica *replica);

/* Whether entries wait; how many. */
bool replica_has_input(const struct sm_replica *replica);
uint32_t replica_waiting(const struct sm_replica *replica);

/* Wake the switch when it sleeps; nothing to do when standalone. */
void replica_wake_switch(struct sm_replica *replica);

/* attach.c: the way to a switch. `name` NULL: that of the process. */
int attach_open(struct sm_replica *replica, const char *path, const char *middlebox, const char *name,
                struct sm_errbuf *error);
int attach_start(struct sm_replica *replica, struct sm_errbuf *error);
void attach_decline(struct sm_replica *replica, const char *reason);
int attach_poll(struct sm_replica *replica, unsigned budget);
int attach_sleep_fd(struct sm_replica *replica, enum replica_sleep how);
/* What attach_sleep_fd() returns, without falling asleep; make it readable, so that whoever waits for it looks again.
 */
int attach_fd(const struct sm_replica *replica);
void attach_wake(struct sm_replica *replica);
/*
 * Sleep, until there is input, `break_fd`, an eventfd, is written, a signal was handled, or `timeout_ms` is over (-1:
 * never). 0: there may be something, and both descriptors are clear; SM_E_AGAIN: the time is over; SM_E_IO: the switch
 * is gone.
 */
int attach_sleep(struct sm_replica *replica, enum replica_sleep how, int break_fd, int timeout_ms);
/* Have it under another number. SM_E_IO. */
int attach_renumber(struct sm_replica *replica, int number);
/* Give the slot back without having registered; the process lives on. Then attach_close(). */
void attach_abandon(struct sm_replica *replica);
void attach_close(struct sm_replica *replica);

/* standalone.c: this process as its own host. */
int standalone_open(struct sm_replica *replica, const struct sm_options *options, struct sm_errbuf *error);
int standalone_start(struct sm_replica *replica, struct sm_errbuf *error);
int standalone_poll(struct sm_replica *replica, unsigned budget);
int standalone_sleep_fd(struct sm_replica *replica);
void standalone_close(struct sm_replica *replica);

#endif
