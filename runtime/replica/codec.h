/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_CODEC_H
#define SM_REPLICA_CODEC_H

/*
 * Flows as MessagePack: for moves that copy, for checkpoints, and from one version of a middlebox to another.
 *
 * Overview.  A stream is a header, which describes each class once (codec_header()), and flows. A flow is
 *
 *     [class, key, [deadline, ...], record]
 *     [class, key, [deadline, ...], record, [bound key, ...]]     of a class that binds keys
 *
 * with the class's place in the header, the key's 40 bytes, the deadline of each timer slot (0: disarmed; the timeouts'
 * come last), and the record: of a class with fields its bytes as they lie in memory, as the header describes them, so
 * that a reader with the same layout copies them and another converts them; of a class with callbacks the map that
 * these wrote. Nothing in it refers to the arena. docs/checkpoint-format.md has all of it.
 *
 * Concurrency.  Whoever may read the shard encodes; whoever may write it decodes.
 *
 * Limits.  A flow is encoded whole into the buffer, or not at all.
 */

#include "replica/record.h"
#include "state/layout.h"
#include "state/state.h"

struct sm_replica;

#define CODEC_FLOW_BYTES 128u /* most that a flow takes besides its record and the keys bound to it */
#define CODEC_BOUND_BYTES (3u + SM_MAX_BINDINGS * (2u + (unsigned)sizeof(struct sm_key))) /* most that these take */

/* One end of streams: the classes of a build of the middlebox, and who encodes or decodes. */
struct codec {
    struct state *state;
    uint8_t class_count;
    uint8_t forms[SM_MAX_CLASSES]; /* of the classes; flows in others cannot be encoded */
    struct state_actor *actor;     /* NULL: only encodes */
    struct sm_replica *replica;    /* whose callbacks are called; NULL: classes with callbacks can do nothing */
    struct {
        uint8_t gap_count; /* ranges that belong to no field: zero in what is encoded */
        struct layout_range gaps[SM_MAX_FIELDS + 1];
    } classes[SM_MAX_CLASSES];
};

void codec_init(struct codec *codec, struct state *state, struct state_actor *actor, struct sm_replica *replica);

/* For the host, who only encodes and looks: the classes of the build that the service runs (arena/builds.h). */
struct arena;
void codec_init_base(struct codec *codec, const struct arena *arena);

/* Whether all flows can be encoded: SM_E_CONFLICT: *error names the class that cannot, and why. */
int codec_complete(const struct codec *codec, struct sm_errbuf *error);

/* Append the header of the stream. SM_E_LIMIT: it does not fit (64 KiB always do). */
int codec_header(const struct codec *codec, struct codec_buffer *out);

/*
 * Append a flow of a shard that the caller may read. SM_E_LIMIT: the buffer is too small, nothing was appended.
 * SM_E_CONFLICT: the class cannot be copied, here at least (codec_complete()). SM_E_INVALID: the callback's writing was
 * wrong. Other errors are the callback's own.
 */
int codec_encode(const struct codec *codec, uint32_t shard, struct flow *flow, struct codec_buffer *out);

/* What the class's callback writes of a flow, alone. Errors as of codec_encode(); SM_E_CONFLICT: it has none. */
int codec_record(const struct codec *codec, uint32_t shard, struct flow *flow, struct codec_buffer *out);

/*
 * A stream that somebody else wrote, as its header describes it: which of our classes each is, and how its records
 * become ours. *error says what does not fit together: SM_E_CONFLICT; SM_E_DAMAGED: it is no header; SM_E_NO_MEMORY.
 */
struct codec_source;
int codec_source_open(struct codec_source **source, const struct codec *codec, const uint8_t *header, size_t length,
                      struct sm_errbuf *error);
void codec_source_close(struct codec_source *source);

/*
 * Make the first flow of `bytes` in a shard, and say how long it is, once it was found whole. `source` NULL: the stream
 * is of our own classes. In the journal and by the limits as for any new flow; whoever calls does so between packets,
 * or in a packet of its own (journal_packet()). `now` is for timeouts that the flow had none of. The shard's timers are
 * known to the state, not to the replica's heap of shards. Nothing was made unless the result is 0. SM_E_DAMAGED: no
 * flow is at `bytes`. SM_E_STATE: the flow is there already. SM_E_CONFLICT: it is of a class that cannot be copied.
 * SM_E_LIMIT: a limit, memory, or a value that does not fit its field. Others are the callbacks' own. *error says
 * which.
 */
int codec_decode(const struct codec *codec, const struct codec_source *source, uint32_t shard, uint64_t now,
                 const uint8_t *bytes, size_t length, size_t *used, struct sm_errbuf *error);

/* The key of the first flow of `bytes`, and how long it is, with all of it checked but what the record means. */
int codec_peek(const struct codec *codec, const struct codec_source *source, const uint8_t *bytes, size_t length,
               struct sm_key *key, unsigned *cls, size_t *used);

#endif
