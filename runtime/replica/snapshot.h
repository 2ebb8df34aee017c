/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_SNAPSHOT_H
#define SM_REPLICA_SNAPSHOT_H

/* Writing a snapshot's parts (arena/snapshot.h): a replica for the shards it owns, the switch for those of nobody. */

#include "replica/codec.h"

struct snapshot {
    uint32_t next;            /* shard */
    struct codec_buffer rest; /* of a shard that is larger than a part; bytes NULL: there is none */
    size_t given;             /* of `rest` */
    uint32_t rest_flows;
};

/* What is read: shards that `owned` has (by shard; NULL: all), and `covered` (a bit each) has not. */
struct snapshot_scope {
    const uint8_t *owned;
    _Atomic uint64_t *covered;
    uint32_t end; /* stripes, from SM_SHARDS on, are locked in turn by `slot` */
    unsigned slot;
};

void snapshot_begin(struct snapshot *snapshot, uint32_t first);

/* Fill a part, of SNAPSHOT_PART_BYTES. */
void snapshot_fill(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                   uint8_t *part);

/* Free what is left of it. */
void snapshot_end(struct snapshot *snapshot);

#endif
