/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_SNAPSHOT_H
#define SM_REPLICA_SNAPSHOT_H

/*
 * Writing a snapshot's parts (arena/snapshot.h): a replica for the shards it owns, the switch for those of nobody.
 *
 * Life-cycle.  A part is asked for -> begun -> written in portions, between bursts -> answered. The answer is no part
 * of a burst: whoever dies before it has given nothing.
 */

#include "arena/snapshot.h"
#include "replica/codec.h"

/* What a portion does at most before it looks for packets again: a microsecond or two. */
#define SNAPSHOT_WORK 64u

/* A shard of which some flows are encoded, behind the blocks of the part. It begins anew if it changes meanwhile. */
struct snapshot_progress {
    uint32_t open; /* the shard and one; 0: none, or it has changed */
    uint32_t shard, cursor, flows;
    size_t used;       /* bytes encoded */
    unsigned restarts; /* of the shard */
};

struct snapshot {
    uint32_t next;            /* shard, stripe or object */
    struct codec_buffer rest; /* of a shard that is larger than a part; bytes NULL: there is none */
    size_t given;             /* of `rest` */
    uint32_t rest_flows;
    uint32_t requests[SNAPSHOT_PARTS]; /* that are not answered yet, the oldest first */
    unsigned waiting;                  /* of these */
    bool begun;                        /* the first one's part is */
    unsigned passed_over;              /* bursts in a row behind which packets waited */
    unsigned work;                     /* of a portion; 0: SNAPSHOT_WORK */
    struct snapshot_progress progress;
};

struct arena;

/* What is read: shards that `owned` has (by shard; NULL: all), and `covered` (a bit each) has not. */
struct snapshot_scope {
    const uint8_t *owned;
    _Atomic uint64_t *covered;
    uint32_t end; /* stripes, from SM_SHARDS on, are locked in turn by `slot` */
    unsigned slot;
    bool at_once;        /* flows may change between two portions where nobody sees it */
    struct arena *arena; /* whose stripes may hold what is not committed; NULL: nobody is there who could */
};

/* Flows of a shard are about to change. */
static inline void snapshot_touch(struct snapshot *snapshot, uint32_t shard)
{
    if (snapshot->progress.open == shard + 1)
        snapshot->progress.open = 0;
}

/* From the first shard on. */
void snapshot_begin(struct snapshot *snapshot, uint32_t first);

/* A part of SNAPSHOT_PART_BYTES: begin it, then fill it, a portion a call. True: it is written. */
void snapshot_begin_part(uint8_t *part);
bool snapshot_fill(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                   uint8_t *part);

/* As snapshot_fill(), with what a row has contributed to eventual objects; its writer, or nobody, is between bursts. */
struct arena;
bool snapshot_fill_row(struct snapshot *snapshot, struct arena *arena, unsigned row, uint8_t *part);

/* Free what is left of it. */
void snapshot_end(struct snapshot *snapshot);

/* The replica's: a part is asked for; go on between two bursts, `busy`: packets may wait. How much was done. */
void snapshot_ask(struct snapshot *snapshot, uint32_t request);
unsigned replica_snapshot(struct sm_replica *replica, bool busy);

#endif
