/* SPDX-License-Identifier: BSD-2-Clause */
#include "replica/snapshot.h"

#include <assert.h>
#include <sched.h>
#include <stdlib.h>

#include "replica/replica.h"
#include "state/journal.h"
#include "state/prefetch.h"

#define FLOWS_AHEAD 12u /* whose lines are fetched before they are encoded */
enum { ENCODED_ALL, ENCODED_SOME, ENCODED_LATER };

#define SETTLE_YIELDS 200u /* in which others commit what they have done to a stripe's flows */

#define RESTARTS 3u /* of a shard that changes while it is encoded */
#define REST_MIN (1u << 20)
#define REST_MAX (1u << 30)
#define SHARD_WORK 1u        /* of a portion, by an empty shard, */
#define FLOW_WORK 4u         /* a flow, */
#define SHARE_BYTES 64u      /* and so many bytes of a contribution, */
#define UNWANTED_AT_ONCE 16u /* or so many shards that are not wanted */
#define REST_BYTES 8192u     /* of a large shard in one portion */
#define BUSY_BURSTS 8u       /* a portion behind so many, where packets never stop waiting */

_Static_assert(SNAPSHOT_PARTS == 2, "requests move up by one");
_Static_assert(SNAPSHOT_PART_BYTES - sizeof(struct snapshot_part) - sizeof(struct snapshot_block) >
                   SM_MAX_RECORD + CODEC_FLOW_BYTES,
               "a part has room for any flow with fields");

static void forget_rest(struct snapshot *snapshot)
{
    free(snapshot->rest.bytes);
    snapshot->rest = (struct codec_buffer){0};
    snapshot->given = 0;
    snapshot->progress = (struct snapshot_progress){0};
}

void snapshot_begin(struct snapshot *snapshot, uint32_t first)
{
    forget_rest(snapshot);
    snapshot->next = first;
}

void snapshot_end(struct snapshot *snapshot)
{
    forget_rest(snapshot);
    *snapshot = (struct snapshot){0};
}

void snapshot_begin_part(uint8_t *area)
{
    *(struct snapshot_part *)(void *)area = (struct snapshot_part){0};
}

static void fetch_flow(const struct state *state, uint32_t shard, uint32_t *cursor)
{
    const char *flow = (const char *)state_next(state, shard, cursor);

    for (unsigned line = 0; flow && line < 3; line++)
        prefetch_for_read(flow + 64 * ((int)line - 1)); /* timers lie before it */
}

/* At most so many more flows of a shard. ENCODED_SOME: there are more. SM_E_LIMIT: the buffer is too small. */
static int encode_flows(const struct codec *codec, uint32_t most, struct snapshot_progress *progress,
                        struct codec_buffer *out, uint32_t *cls)
{
    uint32_t ahead = progress->cursor;
    struct flow *flow;

    for (unsigned i = 0; i < FLOWS_AHEAD; i++)
        fetch_flow(codec->state, progress->shard, &ahead);
    for (; most > 0; most--) {
        if ((flow = state_next(codec->state, progress->shard, &progress->cursor)) == NULL)
            return ENCODED_ALL;
        fetch_flow(codec->state, progress->shard, &ahead);
        int result = codec_encode(codec, progress->shard, flow, out);
        *cls = flow_class(flow);
        progress->flows++;
        if (result)
            return result;
    }
    return ENCODED_SOME;
}

/*
 * Wait, with the stripe's lock, until what was done to its flows is committed: nobody can do more meanwhile. Whoever
 * comes for one commits first what it has complete (flow_api.c). It cannot where the packet in hand has been here
 * before, nor can one that is dead: false after a while.
 */
static bool settle(struct arena *arena, uint32_t stripe)
{
    unsigned turns = 0;

    if (arena_is_settled(arena, stripe))
        return true;
    atomic_store_explicit(&arena->settling, stripe, memory_order_relaxed);
    while (!arena_is_settled(arena, stripe) && turns++ < SETTLE_YIELDS)
        sched_yield();
    atomic_store_explicit(&arena->settling, 0, memory_order_relaxed);
    return turns <= SETTLE_YIELDS;
}

/* ENCODED_LATER: the stripe has what is not committed. */
static int encode_locked(const struct codec *codec, const struct snapshot_scope *scope, uint32_t most,
                         struct snapshot_progress *progress, struct codec_buffer *out, uint32_t *cls)
{
    int result = ENCODED_LATER;

    if (progress->shard < SM_SHARDS)
        return encode_flows(codec, most, progress, out, cls);
    state_lock(codec->state, progress->shard, scope->slot);
    if (!scope->arena || settle(scope->arena, progress->shard))
        result = encode_flows(codec, UINT32_MAX, progress, out, cls);
    state_unlock(codec->state, progress->shard);
    return result;
}

static struct snapshot_block *block_at(struct snapshot_part *part)
{
    return (struct snapshot_block *)(void *)((uint8_t *)(part + 1) + part->bytes);
}

static uint32_t room_in(const struct snapshot_part *part)
{
    uint32_t used = (uint32_t)(sizeof *part + part->bytes + sizeof(struct snapshot_block));

    return used < SNAPSHOT_PART_BYTES ? SNAPSHOT_PART_BYTES - used : 0;
}

static void put_block(struct snapshot_part *part, uint32_t shard, uint32_t flows, uint32_t bytes, bool begins,
                      bool ends)
{
    *block_at(part) =
        (struct snapshot_block){.shard = shard, .flows = flows, .bytes = bytes, .begins = begins, .ends = ends};
    part->bytes += (uint32_t)sizeof(struct snapshot_block) + ((bytes + 3) & ~3u);
}

/* Some more of the shard that did not fit in one part, as far as there is room. */
static void put_rest(struct snapshot *snapshot, struct snapshot_part *part)
{
    size_t left = snapshot->rest.used - snapshot->given;
    uint32_t bytes = room_in(part) & ~3u;

    bytes = bytes < REST_BYTES ? bytes : REST_BYTES;
    bytes = left < bytes ? (uint32_t)left : bytes;
    memcpy(block_at(part) + 1, snapshot->rest.bytes + snapshot->given, bytes);
    put_block(part, snapshot->next, snapshot->rest_flows, bytes, snapshot->given == 0, bytes == left);
    snapshot->given += bytes;
    if (bytes == left)
        snapshot_begin(snapshot, snapshot->next + 1);
}

/* The whole shard, in memory of our own. */
static int take_rest(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                     uint32_t *cls)
{
    int result = SM_E_LIMIT;

    for (size_t size = REST_MIN; result == SM_E_LIMIT; size *= 2) {
        uint8_t *larger = size <= REST_MAX ? realloc(snapshot->rest.bytes, size) : NULL;
        struct snapshot_progress progress = {.shard = snapshot->next};
        if (!larger)
            return SM_E_NO_MEMORY;
        snapshot->rest = (struct codec_buffer){.bytes = larger, .size = size};
        result = encode_locked(codec, scope, UINT32_MAX, &progress, &snapshot->rest, cls);
        snapshot->rest_flows = progress.flows;
    }
    return result;
}

static bool is_wanted(const struct snapshot_scope *scope, uint32_t shard)
{
    uint64_t covered = atomic_load_explicit(&scope->covered[shard / 64], memory_order_relaxed);

    return (!scope->owned || scope->owned[shard]) && !(covered >> shard % 64 & 1);
}

/* Go on with the next shard, or begin it. One that packets come for again and again is encoded at once. */
static struct snapshot_progress *progress_of(struct snapshot *snapshot)
{
    struct snapshot_progress *progress = &snapshot->progress;
    const uint32_t shard = snapshot->next;

    if (progress->open != shard + 1) {
        const unsigned restarts = progress->shard == shard ? progress->restarts + 1 : 0;
        *progress = (struct snapshot_progress){.shard = shard, .restarts = restarts};
    }
    progress->open = 0;
    return progress;
}

enum filled { FILLED_SOME, FILLED_PART };

/* Some of a shard, or all; *left: of the portion. */
static enum filled fill_shard(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                              struct snapshot_part *part, unsigned *left)
{
    if (sizeof *part + part->bytes + sizeof(struct snapshot_block) > SNAPSHOT_PART_BYTES)
        return FILLED_PART; /* not even for a shard without flows */
    struct snapshot_progress *progress = progress_of(snapshot);
    struct codec_buffer out = {
        .bytes = (uint8_t *)(block_at(part) + 1), .size = room_in(part) & ~3u, .used = progress->used};
    const uint32_t before = progress->flows;
    const uint32_t most = scope->at_once || progress->restarts >= RESTARTS ? UINT32_MAX : *left / FLOW_WORK + 1;
    int result = encode_locked(codec, scope, most, progress, &out, &part->cls);
    if (result == ENCODED_LATER) {
        *left = 0;
        return FILLED_SOME;
    }
    if (result == ENCODED_SOME) {
        progress->open = progress->shard + 1;
        progress->used = out.used;
        *left = 0;
        return FILLED_SOME;
    }
    if (result == SM_E_LIMIT && part->bytes > 0)
        return FILLED_PART; /* it begins the next part */
    if (result == SM_E_LIMIT)
        result = take_rest(snapshot, codec, scope, &part->cls);
    if (result == ENCODED_LATER) {
        forget_rest(snapshot);
        *left = 0;
        return FILLED_SOME;
    }
    part->error = result;
    if (result)
        return FILLED_PART;
    if (snapshot->rest.bytes) {
        *left = 0;
        return FILLED_SOME;
    }
    put_block(part, progress->shard, progress->flows, (uint32_t)out.used, true, true);
    snapshot->next++;
    const unsigned work = SHARD_WORK + (progress->flows - before) * FLOW_WORK;
    *left -= work < *left ? work : *left;
    return FILLED_SOME;
}

static unsigned work_of(const struct snapshot *snapshot)
{
    return snapshot->work ? snapshot->work : SNAPSHOT_WORK;
}

bool snapshot_fill(struct snapshot *snapshot, const struct codec *codec, const struct snapshot_scope *scope,
                   uint8_t *area)
{
    struct snapshot_part *part = (struct snapshot_part *)(void *)area;
    unsigned left = work_of(snapshot);

    if (snapshot->rest.bytes && room_in(part) < sizeof(uint32_t))
        return true;
    if (snapshot->rest.bytes) {
        STEP();
        put_rest(snapshot, part);
        left = 0;
    }
    while (snapshot->next < scope->end) {
        if (left == 0)
            return false;
        if (snapshot->next < SM_SHARDS && !is_wanted(scope, snapshot->next)) {
            left -= snapshot->next++ % UNWANTED_AT_ONCE == 0;
            continue;
        }
        STEP();
        if (fill_shard(snapshot, codec, scope, part, &left) == FILLED_PART)
            return true;
    }
    part->last = 1;
    return true;
}

bool snapshot_fill_row(struct snapshot *snapshot, struct arena *arena, unsigned row, uint8_t *area)
{
    struct snapshot_part *part = (struct snapshot_part *)(void *)area;
    unsigned left = work_of(snapshot);

    for (; snapshot->next < arena->registration.shared_count; snapshot->next++) {
        const struct shared_object *object = &arena->registration.shared[snapshot->next];
        uint32_t bytes = coherent_value_bytes(object);
        if (!coherent_has_part(object))
            continue;
        if (left == 0)
            return false;
        if (room_in(part) < bytes + sizeof(uint32_t))
            return true;
        STEP();
        if (coherent_copy(coherent_place(arena->rows[row], object), block_at(part) + 1, bytes))
            put_block(part, SNAPSHOT_OBJECTS + snapshot->next, row, bytes, true, true);
        left -= left < bytes / SHARE_BYTES ? left : bytes / SHARE_BYTES;
    }
    part->last = 1;
    return true;
}

/* ---- the replica's side ---- */

void snapshot_ask(struct snapshot *snapshot, uint32_t request)
{
    assert(snapshot->waiting < SNAPSHOT_PARTS && "the switch counts what is not answered");
    snapshot->requests[snapshot->waiting++] = request;
}

/* A portion of the part that was asked for first. True: it is written. */
static bool write_portion(struct sm_replica *replica, uint32_t request)
{
    struct snapshot *snapshot = &replica->snapshot;
    uint8_t *area = channel_snapshot(replica->channel) + request % SNAPSHOT_PARTS * SNAPSHOT_PART_BYTES;
    const bool stripes = request & SNAPSHOT_STRIPES, row = request & SNAPSHOT_ROW;
    const struct snapshot_scope scope = {
        .owned = replica->owned,
        .covered = replica->arena->snapshot_covered,
        .end = stripes ? SM_SHARDS + STATE_STRIPES : SM_SHARDS,
        .slot = replica->slot,
        .at_once = replica->hold_count > 0,
        .arena = replica->arena,
    };

    if (stripes)
        replica_undo_notes(replica);

    if (!snapshot->begun) {
        if (request & SNAPSHOT_BEGIN)
            snapshot_begin(snapshot, stripes ? SM_SHARDS : 0);
        snapshot_begin_part(area);
        snapshot->begun = true;
    }
    return row ? snapshot_fill_row(snapshot, replica->arena, replica->slot, area)
               : snapshot_fill(snapshot, &replica->codec, &scope, area);
}

unsigned replica_snapshot(struct sm_replica *replica, bool busy)
{
    struct snapshot *snapshot = &replica->snapshot;
    const uint32_t request = snapshot->requests[0];

    if (snapshot->waiting == 0 || (busy && ++snapshot->passed_over < BUSY_BURSTS))
        return 0;
    snapshot->passed_over = 0;
    if (!write_portion(replica, request))
        return 1;
    snapshot->begun = false;
    snapshot->requests[0] = snapshot->requests[1];
    snapshot->waiting--;
    *replica_answer(replica) = (struct out_entry){.kind = OUT_SNAPSHOT, .buffer = request, .bound = replica->bound};
    replica->complete = replica->produced;
    STEP();
    replica_commit(replica, true);
    return 1;
}
