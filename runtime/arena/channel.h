/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_CHANNEL_H
#define SM_ARENA_CHANNEL_H

/*
 * What one switch worker and one replica share: a ring in, a ring out, and the commit word.
 *
 * Life-cycle of a burst.  The switch writes entries and publishes them by `in_head`. The replica reads entries
 * (`commit`.consumed .. in_head), processes up to a burst of them, writes its answers behind `commit`.produced, and
 * makes all of it visible by one store of `commit`: until then nothing has happened, after it everything has. The
 * switch reads answers up to `commit`.produced.
 *
 * Room.  The rings hold every buffer of the pool and CHANNEL_MARKERS markers besides, so neither side ever waits for
 * room: the switch bounds what is in flight at admission.
 *
 * Concurrency.  One writer a cache line: the fields say whose.
 */

#include <splitmerge/types.h>
#include <stdatomic.h>

#define CHANNEL_BURST 64u
#define CHANNEL_MARKERS 2048u /* markers in flight */
#define CHANNEL_RELEASES 768u /* of them, that ask for a shard; an answer to one may come in two (OUT_HELD) */
#define CHANNEL_QUERY_BYTES (256u << 10)
#define CHANNEL_JOURNAL_AT 4096u /* the same in all channels: others look there, and replicas write on channels */
#define CHANNEL_JOURNAL_BYTES (4u << 20) /* undo journal of the uncommitted burst; untouched memory costs nothing */

enum in_kind {
    IN_PACKET,   /* process `buffer` */
    IN_RELEASE,  /* give up `shard` */
    IN_ADOPT,    /* take over the shards `shard` to `buffer`, both included */
    IN_INHERIT,  /* take over the shards that the arena's `heir` names for inheritance `buffer`: their owner has died */
    IN_TICK,     /* packet time has reached `time` for all shards */
    IN_QUERY,    /* write the flows of owned shards, from `shard` and cursor `buffer` on, to the query area */
    IN_RETIRE,   /* nothing more will come */
    IN_RESTORE,  /* make flows of a checkpoint from the area, as `buffer` says (arena/snapshot.h) */
    IN_SNAPSHOT, /* write the next part of a snapshot, to area `buffer` (arena/snapshot.h) */
    /* Steps of copying `shard` by way of lane `lane` (arena/export.h); `buffer`: the ticket, to be given back. */
    IN_EXPORT,  /* encode its flows, as many as there is room for; it is frozen: released, and not yet adopted */
    IN_IMPORT,  /* decode what was encoded into the lane's copy */
    IN_INSTALL, /* copy and shard change places; take the shard over */
    IN_CLEAR,   /* free flows of the lane's copy */
};

/* Switch to replica; 16 bytes. */
struct in_entry {
    uint64_t time;
    uint32_t buffer; /* IN_RELEASE: the move's generation, to be given back */
    uint16_t shard;
    uint8_t kind;
    uint8_t lane; /* IN_RELEASE: IN_RELEASE_BACK, or 0 */
};

/* The shard goes to an older build, which reads only its own forms: it is to be brought back into these first. */
#define IN_RELEASE_BACK 1u

enum out_kind {
    OUT_PACKET,    /* `buffer` has been processed */
    OUT_GENERATED, /* `buffer`, of the last packet's reserve, holds a new packet of `length` bytes */
    OUT_RELEASED,  /* answer to IN_RELEASE */
    OUT_HELD,      /* that answer waits: the middlebox holds a flow of the shard; same fields */
    OUT_TICKED,    /* answer to IN_TICK */
    OUT_QUERIED,   /* the query area is filled: struct query_header */
    OUT_SNAPSHOT,  /* a part of a snapshot is written */
    OUT_RESTORED,  /* answer to IN_RESTORE; `length` is the result's negative */
    OUT_PROGRESS,  /* nothing to take back: part of what an entry asks for is done, and that is final */
    OUT_LANE,      /* answer to the steps of copying: lane `buffer`, ticket `length` */
};

/* Flags of an OUT_PACKET. */
enum {
    ANSWER_DROP = 1 << 0,
    ANSWER_WRITTEN = 1 << 1, /* the middlebox asked to write the packet */
    ANSWER_DELAY = 1 << 2,   /* it departs later: answer_delay() */
};

/* Replica to switch; 16 bytes. The switch trusts no field. */
struct out_entry {
    uint32_t buffer; /* OUT_RELEASED: the move's generation; OUT_SNAPSHOT, OUT_RESTORED: the request */
    uint32_t length; /* OUT_GENERATED; OUT_RESTORED: the result's negative; ANSWER_DELAY: the low part */
    uint32_t bound;  /* bind entries up to here are final with this answer */
    uint16_t reason; /* of a drop; ANSWER_DELAY: the high part; OUT_RELEASED: the shard; OUT_LANE: enum lane_status */
    uint8_t kind;
    uint8_t flags;
};

/* How much later than its time a packet with ANSWER_DELAY departs, in ns. It is not dropped, so its reason is free. */
static inline uint64_t answer_delay(const struct out_entry *entry)
{
    return (uint64_t)entry->reason << 32 | entry->length;
}

/*
 * A key was bound to a flow of a shard, or is not any more. These are in a ring of their own, behind one another; an
 * answer says up to where they are final, so they take effect in its place and are undone as it is. The ring has room
 * for all that can be: SM_MAX_BINDS for each packet, and the end of every binding.
 */
struct bind_entry {
    struct sm_key key;
    uint16_t shard;
    uint8_t ends; /* the binding does; else it begins */
};

_Static_assert(sizeof(struct in_entry) == 16 && sizeof(struct out_entry) == 16, "four entries a cache line");

/* What the replica counts about itself; read by the switch for reports. */
struct replica_counters {
    _Atomic uint64_t packets;
    _Atomic uint64_t bytes;
    _Atomic uint64_t generated;
    _Atomic uint64_t owner_violations; /* packets of shards that somebody else was processing */
    _Atomic uint64_t timers_fired;
};

/* At the start of the query area, followed by `count` times {struct query_flow, record bytes padded to 8}. */
struct query_header {
    uint32_t count;
    uint32_t bytes;      /* of all that follows */
    uint32_t next_shard; /* where to go on; the end that was asked for: finished */
    uint32_t next_cursor;
};

struct query_flow {
    uint8_t key[40]; /* struct sm_key */
    uint16_t form;   /* of its class */
    uint16_t shard;
    uint32_t record_bytes;
    uint32_t encoded; /* by the class's callback, as MessagePack: not the record's own bytes */
    uint32_t unused;
};

/* What a replica's eventfd is to be written for. One that naps looks by itself before long. */
enum replica_sleep {
    REPLICA_AWAKE,
    REPLICA_SLEEPS, /* in_head moves */
    REPLICA_NAPS,   /* there is a marker that somebody waits for, packets have gathered, or none will */
};

struct journal_region;

struct channel {
    /* Written by the switch. */
    _Alignas(64) _Atomic uint32_t in_head;

    /* Written by the replica. */
    _Alignas(64) _Atomic uint64_t commit; /* produced << 32 | consumed */
    _Alignas(
        64) _Atomic uint64_t low;    /* packet time of the packet or tick that is being processed, or of the last one */
    _Atomic uint64_t floor;          /* the same of the first one that is not committed: it may be processed again */
    _Atomic uint32_t at;             /* the entry that is being processed */
    _Atomic uint32_t replica_sleeps; /* enum replica_sleep */
    _Alignas(64) struct replica_counters counters;

    /* Written by the switch: it wants its eventfd written when commit moves. */
    _Alignas(64) _Atomic uint32_t switch_sleeps;

    uint32_t ring_mask; /* entries of each ring, less one */
    uint32_t bind_mask; /* entries of the ring of bindings, less one */
    uint64_t in_offset, out_offset, query_offset, snapshot_offset, bind_offset; /* from this struct's address */
};

_Static_assert(sizeof(struct channel) <= CHANNEL_JOURNAL_AT, "the journal is behind it");

static inline struct in_entry *channel_in(struct channel *channel)
{
    return (struct in_entry *)(void *)((uint8_t *)channel + channel->in_offset);
}

static inline struct out_entry *channel_out(struct channel *channel)
{
    return (struct out_entry *)(void *)((uint8_t *)channel + channel->out_offset);
}

static inline uint8_t *channel_query(struct channel *channel)
{
    return (uint8_t *)channel + channel->query_offset;
}

static inline struct bind_entry *channel_bind(struct channel *channel)
{
    return (struct bind_entry *)(void *)((uint8_t *)channel + channel->bind_offset);
}

static inline uint8_t *channel_snapshot(struct channel *channel)
{
    return (uint8_t *)channel + channel->snapshot_offset;
}

static inline struct journal_region *channel_journal(struct channel *channel)
{
    return (struct journal_region *)(void *)((uint8_t *)channel + CHANNEL_JOURNAL_AT);
}

static inline uint32_t commit_consumed(uint64_t commit)
{
    return (uint32_t)commit;
}
static inline uint32_t commit_produced(uint64_t commit)
{
    return (uint32_t)(commit >> 32);
}
static inline uint64_t commit_word(uint32_t consumed, uint32_t produced)
{
    return (uint64_t)produced << 32 | consumed;
}

/* Bytes of a channel whose rings hold `buffers` packets and what happens to `bindings`, rounded to pages. */
uint64_t channel_bytes(uint32_t buffers, uint32_t bindings);

/*
 * Say where a channel's parts are, whatever is written there now. The switch, which knows, also once the replica is
 * dead: it could write anywhere.
 */
void channel_lay_out(struct channel *channel, uint32_t buffers, uint32_t bindings);

/* Empty a channel for a new replica. The switch, before the replica attaches. */
void channel_reset(struct channel *channel, uint32_t buffers, uint32_t bindings);

#endif
