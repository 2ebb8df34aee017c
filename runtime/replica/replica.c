/* SPDX-License-Identifier: BSD-2-Clause */
#include "replica/replica.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/query.h"
#include "packet/packet.h"
#include "replica/order.h"
#include "state/lookup.h"

_Static_assert(offsetof(struct packet_meta, key) == 0 && offsetof(struct packet_meta, headers) == sizeof(struct sm_key),
               "the first part of the meta data is a struct sm_parsed");
_Static_assert(REPLICA_FETCH_AHEAD *REPLICA_FETCHES <= REPLICA_AHEAD, "what was found out stays until it is used");
_Static_assert(sizeof(struct packet_meta) <= POOL_DATA_OFFSET - 128, "meta data leaves the headroom alone");

/* What the journal takes at most of a flow that is armed and closed: images of tables, counters and heaps. */
#define FLOW_PROMISE 1024u
#define TIMER_PROMISE 512u
#define BINDS_PROMISE 8192u

struct sm_replica *replica_new(const char *middlebox, struct sm_errbuf *error)
{
    struct sm_replica *replica = calloc(1, sizeof *replica);
    struct registration *registration = calloc(1, sizeof *registration);

    if (!replica || !registration) {
        free(replica);
        free(registration);
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return NULL;
    }
    snprintf(registration->middlebox, sizeof registration->middlebox, "%s", middlebox);
    replica->registration = registration;
    return replica;
}

int replica_bind(struct sm_replica *replica, struct arena *arena, unsigned slot)
{
    int result = state_actor_join(&replica->actor, arena->state, slot);
    if (result)
        return result;
    replica->arena = arena;
    replica->pool = arena->pool;
    replica->state = arena->state;
    replica->slot = slot;
    replica->channel = arena_channel(arena, 0, slot);
    replica->in = channel_in(replica->channel);
    replica->out = channel_out(replica->channel);
    replica->row = arena->rows[slot];
    arena_add_row(arena, slot);
    replica->committed = atomic_load_explicit(&replica->channel->commit, memory_order_relaxed);
    journal_open(&replica->journal, channel_journal(replica->channel), replica->actor, replica->committed);
    return 0;
}

void replica_unbind(struct sm_replica *replica)
{
    if (replica->actor)
        state_actor_leave(replica->actor);
    replica->actor = NULL;
    snapshot_end(&replica->snapshot);
    replica_restore_end(replica);
}

void replica_learn_classes(struct sm_replica *replica)
{
    const struct arena *arena = replica->arena;
    const struct build *build = &arena->builds[arena->slot_build[replica->slot]];

    replica->build = build->number;
    replica->class_count = (uint8_t)build->registration.class_count;
    for (unsigned i = 0; i < replica->class_count; i++) {
        const struct state_class *cls = state_class(replica->state, build->forms[i]);
        replica->forms[i] = build->forms[i];
        state_actor_form(replica->actor, i, build->forms[i]);
        replica->classes[i].record_size = cls->record_size;
        replica->classes[i].key = cls->key;
        replica->classes[i].steers = memcmp(&cls->key, &replica->arena->steering, sizeof cls->key) == 0;
        replica->classes[i].partitioned = cls->partitioned;
        replica->classes[i].evict = cls->partitioned && cls->at_limit == SM_AT_LIMIT_EVICT;
        if (cls->partitioned && (replica->classes[i].on_adopt || replica->classes[i].on_release))
            replica->hooked |= 1u << i;
        replica->classes[i].chunks = cls->alloc_limit > 0;
        replica->classes[i].promise = FLOW_PROMISE + cls->timers * TIMER_PROMISE + (cls->binds[0] ? BINDS_PROMISE : 0);
        replica->classes[i].idle_ns = cls->partitioned ? cls->idle_ns : 0;
        replica->classes[i].hard_ns = cls->partitioned ? cls->hard_ns : 0;
        replica->classes[i].direct = replica->classes[i].steers && cls->partitioned &&
                                     cls->key.granularity == SM_BY_FLOW && !replica->classes[i].idle_ns &&
                                     !replica->classes[i].chunks && cls->binds[0] == '\0';
    }
    codec_init(&replica->codec, replica->state, replica->actor, replica);
}

uint32_t replica_waiting(const struct sm_replica *replica)
{
    return atomic_load_explicit(&replica->channel->in_head, memory_order_acquire) - replica->consumed;
}

bool replica_has_input(const struct sm_replica *replica)
{
    return replica_waiting(replica) > 0;
}

struct out_entry *replica_answer(struct sm_replica *replica)
{
    return &replica->out[replica->produced++ & replica->channel->ring_mask];
}

/* Give back the strong objects of complete packets. */
static void unlock_committed(struct sm_replica *replica)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < replica->strong_count; i++) {
        if (replica->strong[i].current)
            replica->strong[kept++] = replica->strong[i];
        else
            atomic_store_explicit(&replica->arena->strong[replica->strong[i].id].holder, 0, memory_order_release);
        STEP();
    }
    replica->strong_count = kept;
}

void replica_commit(struct sm_replica *replica, bool all)
{
    struct channel *channel = replica->channel;
    uint64_t commit = commit_word(replica->consumed, replica->complete);

    if (commit == replica->committed)
        return; /* nothing is complete: the journal goes by the word's change */
    journal_prepare(&replica->journal, all);
    STEP();
    ORDER_BEFORE(replica);
    atomic_store_explicit(&channel->commit, commit, memory_order_release);
    STEP();
    journal_committed(&replica->journal, commit);
    replica->committed = commit;
    if (!all) {
        uint64_t low = atomic_load_explicit(&channel->low, memory_order_relaxed);
        atomic_store_explicit(&channel->floor, low, memory_order_release);
        replica->floor_unit = replica->journal.unit;
    }
    if (replica->strong_count > 0)
        unlock_committed(replica);
    /* The store above before the load below, in the single order that the switch's own pair (its flag, then our commit)
     * is part of: one of the two sees the other. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&channel->switch_sleeps, memory_order_relaxed))
        replica_wake_switch(replica);
}

void replica_progress(struct sm_replica *replica)
{
    *replica_answer(replica) = (struct out_entry){.kind = OUT_PROGRESS, .bound = replica->bound};
    replica->complete = replica->produced;
    STEP();
    replica_commit(replica, true);
    replica->entry_unit = replica->journal.unit;
    STEP();
}

void replica_piece(struct sm_replica *replica)
{
    if (journal_has_room(&replica->journal))
        journal_packet(&replica->journal);
    else
        replica_progress(replica);
}

/* Fire the timers of a shard that are due at `now`, in the order (deadline, flow key, slot). */
static void fire_timers(struct sm_replica *replica, uint32_t shard, uint64_t now)
{
    struct flow *flow;
    unsigned timer;
    sm_time deadline;
    struct sm_packet *packet = replica->current;
    uint64_t fired = 0;

    replica->current = NULL;
    replica->current_shard = shard;
    snapshot_touch(&replica->snapshot, shard);
    while (state_timer_expire(replica->actor, shard, (sm_time){now}, &flow, &timer, &deadline)) {
        unsigned cls = flow_class(flow);
        journal_image(&replica->journal, flow_record(flow), replica->classes[cls].record_size);
        STEP();
        if (timer < replica->classes[cls].timers)
            replica->classes[cls].on_timer(replica, (sm_class){(uint16_t)cls}, (sm_flow){flow_record(flow)}, timer,
                                           deadline, replica->classes[cls].user);
        else
            flow_expire(replica, flow, timer, deadline);
        fired++;
        replica_piece(replica);
    }
    replica->current = packet;
    shard_heap_set(&replica->timers, shard, state_timer_next(replica->state, shard));
    replica_count(&replica->channel->counters.timers_fired, fired);
}

/* By the replica's own heap: the shard's would be two cache misses, and the deadline here is never later. */
static bool timer_due(const struct sm_replica *replica, const struct in_entry *entry)
{
    return replica->timers.count > 0 && replica->timers.deadline[entry->shard] <= entry->time;
}

/* The packet or tick in hand is of this time. */
static inline void reach(struct sm_replica *replica, uint64_t time)
{
    atomic_store_explicit(&replica->channel->low, time, memory_order_release);
    if (replica->floor_unit < replica->journal.settled) {
        atomic_store_explicit(&replica->channel->floor, time, memory_order_release);
        replica->floor_unit = replica->journal.unit;
    }
}

/* A packet of a shard is about to be processed. */
static inline void audit_owner(struct sm_replica *replica, uint32_t shard)
{
    if (atomic_load_explicit(&replica->arena->writer[shard], memory_order_relaxed) != replica->slot + 1 &&
        !replica->arena->own_flows)
        replica_count(&replica->channel->counters.owner_violations, 1);
}

/* A packet comes into the middlebox's hands. */
static inline __attribute__((always_inline)) void take_packet(struct sm_replica *replica, const struct in_entry *entry,
                                                              struct sm_packet *packet)
{
    struct packet_meta *meta = pool_meta(&replica->pool, entry->buffer);

    *packet = (struct sm_packet){
        .meta = meta,
        .data = (uint8_t *)meta + POOL_DATA_OFFSET,
        .replica = replica,
        .time = entry->time,
        .buffer = entry->buffer,
        .shard = entry->shard,
    };
    reach(replica, entry->time);
    audit_owner(replica, entry->shard);
    if (timer_due(replica, entry))
        fire_timers(replica, entry->shard, entry->time);

    /* Its answer comes before what the middlebox sends because of it. */
    packet->place = replica->produced++ & replica->channel->ring_mask;
    replica->current = packet;
    replica->current_shard = entry->shard;
    snapshot_touch(&replica->snapshot, entry->shard);
    STEP();
}

/* The middlebox is done with it. */
static inline __attribute__((always_inline)) void answer_packet(struct sm_replica *replica,
                                                                const struct sm_packet *packet)
{
    struct channel *channel = replica->channel;

    STEP();
    replica->current = NULL;
    for (unsigned i = 0; i < replica->strong_count; i++)
        replica->strong[i].current = false;
    assert(replica->held_stripe == 0 && "a shared flow was not put");

    bool delayed = packet->delay > 0 && !(packet->flags & ANSWER_DROP);
    replica->out[packet->place] = (struct out_entry){
        .buffer = packet->buffer,
        .length = (uint32_t)packet->delay,
        .bound = replica->bound,
        .reason = delayed ? (uint16_t)(packet->delay >> 32) : packet->reason,
        .kind = OUT_PACKET,
        .flags = delayed ? packet->flags | ANSWER_DELAY : packet->flags,
    };
    replica_count(&channel->counters.packets, 1);
    replica_count(&channel->counters.bytes, packet->meta->len);
}

static void process_packet(struct sm_replica *replica, const struct in_entry *entry)
{
    struct sm_packet packet;

    take_packet(replica, entry, &packet);
    replica->on_packet(replica, &packet, replica->user);
    answer_packet(replica, &packet);
}

void replica_adopt(struct sm_replica *replica, uint32_t shard, uint64_t now)
{
    snapshot_touch(&replica->snapshot, shard);
    if (replica->kept_count > 0 && hold_kept_returns(replica, shard))
        return;
    STEP();
    uint8_t before =
        atomic_exchange_explicit(&replica->arena->writer[shard], (uint8_t)(replica->slot + 1), memory_order_acq_rel);
    if (before != 0)
        replica_count(&replica->channel->counters.owner_violations, 1);
    STEP();
    if (replica->arena->shard_build[shard] != replica->build && !replica_convert(replica, shard, now))
        return;
    replica->owned[shard] = 1;
    shard_heap_set(&replica->timers, shard, state_timer_next(replica->state, shard));
    if (replica->hooked)
        flow_hooks(replica, shard, true);
    STEP();
}

static void inherit(struct sm_replica *replica, uint32_t number, uint64_t now)
{
    STEP();
    for (uint32_t shard = 0; shard < SM_SHARDS && !replica->failed; shard++)
        if (atomic_load_explicit(&replica->arena->heir[shard], memory_order_acquire) ==
            arena_heir(number, replica->slot))
            replica_adopt(replica, shard, now);
    STEP();
}

void replica_release(struct sm_replica *replica, const struct in_entry *entry)
{
    const uint32_t shard = entry->shard;

    STEP();
    if (replica->owned[shard] && replica->hooked)
        flow_hooks(replica, shard, false);
    if (entry->lane == IN_RELEASE_BACK && !replica_convert_back(replica, shard, entry->time))
        return;
    if (replica->owned[shard])
        atomic_store_explicit(&replica->arena->writer[shard], 0, memory_order_release);
    STEP();
    replica->owned[shard] = 0;
    shard_heap_set(&replica->timers, shard, UINT64_MAX);
    *replica_answer(replica) = (struct out_entry){
        .kind = OUT_RELEASED, .reason = (uint16_t)shard, .buffer = entry->buffer, .bound = replica->bound};
    STEP();
}

static void tick(struct sm_replica *replica, uint64_t now)
{
    uint32_t shard;

    reach(replica, now);
    while (shard_heap_due(&replica->timers, now, &shard))
        fire_timers(replica, shard, now);
    *replica_answer(replica) = (struct out_entry){.kind = OUT_TICKED, .bound = replica->bound};
    STEP();
}

/* What a class's callback writes is what people can read. */
static uint32_t shown(void *arg, uint32_t shard, struct flow *flow, uint8_t *to, uint32_t room)
{
    const struct sm_replica *replica = arg;
    struct codec_buffer out = {.bytes = to, .size = room};
    int result = codec_record(&replica->codec, shard, flow, &out);

    return result == 0 ? (uint32_t)out.used : result == SM_E_LIMIT ? QUERY_NO_ROOM : 0;
}

static void query(struct sm_replica *replica, uint32_t shard, uint32_t cursor)
{
    query_fill(replica->state, channel_query(replica->channel), shard, cursor, SM_SHARDS, replica->owned, replica->slot,
               shown, replica);
    *replica_answer(replica) = (struct out_entry){.kind = OUT_QUERIED, .bound = replica->bound};
}

/* False: the replica has failed. */
static bool process_marker(struct sm_replica *replica, const struct in_entry *entry)
{
    switch ((enum in_kind)entry->kind) {
    case IN_PACKET:
        break;
    case IN_RELEASE:
        if (replica->hold_count == 0 || !hold_keep(replica, entry))
            replica_release(replica, entry);
        break;
    case IN_ADOPT:
        for (uint32_t shard = entry->shard; shard <= entry->buffer && shard < SM_SHARDS && !replica->failed; shard++)
            replica_adopt(replica, shard, entry->time);
        break;
    case IN_INHERIT:
        inherit(replica, entry->buffer, entry->time);
        break;
    case IN_TICK:
        tick(replica, entry->time);
        break;
    case IN_QUERY:
        query(replica, entry->shard, entry->buffer);
        break;
    case IN_EXPORT:
    case IN_IMPORT:
    case IN_INSTALL:
    case IN_CLEAR:
        replica_lane(replica, entry);
        break;
    case IN_SNAPSHOT:
        snapshot_ask(&replica->snapshot, entry->buffer);
        break;
    case IN_RESTORE:
        replica_restore(replica, entry->buffer, entry->time);
        break;
    case IN_RETIRE:
        replica->retired = true;
        break;
    }
    return replica->failed == 0;
}

static inline __attribute__((always_inline)) void fetch(struct sm_replica *replica, uint32_t at, unsigned step)
{
    const struct in_entry *entry = &replica->in[at & replica->channel->ring_mask];
    struct replica_ahead *ahead = &replica->ahead[at % REPLICA_AHEAD];

    if (step == 0) {
        ahead->meta = entry->kind == IN_PACKET ? pool_meta(&replica->pool, entry->buffer) : NULL;
        ahead->timed = timer_due(replica, entry);
    }
    if (!ahead->meta)
        return;
    const bool flows = replica->class_count > 0; /* else the table is never looked at */
    if (step == 0) {
        prefetch_for_read(ahead->meta);
        if (flows)
            lookup_fetch_shard(replica->state, entry->shard);
    } else if (step == 1) {
        if (flows) {
            ahead->group = lookup_group(replica->state, entry->shard, ahead->meta->hash);
            prefetch_for_read(ahead->group);
        }
        if (replica->reads_data)
            prefetch_for_read((const uint8_t *)ahead->meta + POOL_DATA_OFFSET);
    } else if (flows) {
        lookup_fetch_flow(replica->state, ahead->group, ahead->meta->hash);
    }
    if (ahead->timed)
        state_prefetch_timer(replica->state, entry->shard, step);
}

/*
 * Overlap the cache misses of the entries ahead: meta data and shard, then the table's group, then the record, each
 * REPLICA_FETCH_AHEAD entries nearer. Entries beyond the burst are as good: their shards are this replica's or
 * nobody's.
 */
static void fetch_ahead(struct sm_replica *replica, uint32_t head)
{
    uint32_t waiting = head - replica->consumed, ring = REPLICA_FETCH_AHEAD * (REPLICA_FETCHES + 1);

    prefetch_for_write(&replica->out[(replica->produced + REPLICA_FETCH_AHEAD) & replica->channel->ring_mask]);
    if (ring < waiting)
        prefetch_for_read(&replica->in[(replica->consumed + ring) & replica->channel->ring_mask]);
#pragma GCC unroll 3 /* so that fetch() knows its step */
    for (unsigned step = 0; step < REPLICA_FETCHES; step++) {
        uint32_t ahead = REPLICA_FETCH_AHEAD * (REPLICA_FETCHES - step);
        uint32_t to = replica->consumed + (ahead < waiting ? ahead : waiting);
        for (uint32_t at = replica->fetched[step]; at != to; at++)
            fetch(replica, at, step);
        replica->fetched[step] = to;
    }
}

/* Before the first entry of a burst. */
static void carry_out_notes(struct sm_replica *replica)
{
    struct note_queue *notes = &replica->arena->notes;

    if (atomic_load_explicit(&notes->tail, memory_order_acquire) !=
        atomic_load_explicit(&notes->head, memory_order_relaxed))
        replica_undo_notes(replica);
}

/* The `done`th entry of a burst. */
static inline __attribute__((always_inline)) const struct in_entry *next_entry(struct sm_replica *replica,
                                                                               uint32_t head, unsigned done)
{
    if (done % REPLICA_FETCH_EVERY == 0)
        fetch_ahead(replica, head);
    atomic_store_explicit(&replica->channel->at, replica->consumed, memory_order_relaxed);
    journal_packet(&replica->journal);
    replica->entry_unit = replica->journal.unit;
    return &replica->in[replica->consumed & replica->channel->ring_mask];
}

static inline void entry_done(struct sm_replica *replica)
{
    replica->consumed++;
    replica->complete = replica->produced;
}

unsigned replica_burst(struct sm_replica *replica, unsigned budget)
{
    uint32_t head = atomic_load_explicit(&replica->channel->in_head, memory_order_acquire);
    ORDER_AFTER(replica);
    uint32_t waiting = head - replica->consumed;
    unsigned given_up = replica->kept_count > 0 && !replica->failed ? hold_finish(replica) : 0;
    unsigned n = replica->failed ? 0 : waiting < budget ? waiting : budget, done = 0;

    if (n > CHANNEL_BURST)
        n = CHANNEL_BURST;
    if (n == 0 && given_up == 0)
        return replica->failed ? 0 : replica_snapshot(replica, false);
    carry_out_notes(replica);
    while (done < n && (done == 0 || journal_has_room(&replica->journal))) {
        const struct in_entry *entry = next_entry(replica, head, done);
        if (entry->kind == IN_PACKET)
            process_packet(replica, entry);
        else if (!process_marker(replica, entry))
            return done; /* what the burst has done is for its heirs to do */
        entry_done(replica);
        done++;
    }
    if (replica->kept_count > 0)
        given_up += hold_finish(replica);
    replica_commit(replica, true);
    return done + given_up + replica_snapshot(replica, true);
}

void replica_pull_end(struct sm_replica *replica)
{
    struct replica_pull *pull = &replica->pull;

    if (replica->current) {
        answer_packet(replica, &pull->packet);
        entry_done(replica);
    }
    if (pull->done == 0 || replica->failed)
        return;
    pull->done = 0;
    replica_commit(replica, true);
    replica_snapshot(replica, true);
}

/*
 * The next entry, a packet's; markers before it have been processed. NULL: there is none, and what was done is
 * committed.
 */
static const struct in_entry *pull_entry(struct sm_replica *replica)
{
    struct replica_pull *pull = &replica->pull;

    while (!replica->failed) {
        if (pull->done == CHANNEL_BURST || (pull->done > 0 && !journal_has_room(&replica->journal)))
            replica_pull_end(replica);
        if (pull->head == replica->consumed) {
            pull->head = atomic_load_explicit(&replica->channel->in_head, memory_order_acquire);
            if (pull->head == replica->consumed)
                break;
        }
        if (pull->done == 0)
            carry_out_notes(replica);
        const struct in_entry *entry = &replica->in[replica->consumed & replica->channel->ring_mask];
        if (entry->kind == IN_PACKET)
            return entry;
        next_entry(replica, pull->head, pull->done++);
        pull->marked |= entry->kind != IN_TICK;
        if (process_marker(replica, entry))
            entry_done(replica);
    }
    replica_pull_end(replica);
    while (!replica->failed && !replica_has_input(replica) && replica_snapshot(replica, false))
        ;
    return NULL;
}

struct sm_packet *replica_pull(struct sm_replica *replica)
{
    struct replica_pull *pull = &replica->pull;

    if (replica->current) {
        answer_packet(replica, &pull->packet);
        entry_done(replica);
    }
    if (!pull_entry(replica))
        return NULL;
    take_packet(replica, next_entry(replica, pull->head, pull->done++), &pull->packet);
    return &pull->packet;
}

unsigned replica_pull_run(struct sm_replica *replica)
{
    struct replica_pull *pull = &replica->pull;
    const uint32_t mask = replica->channel->ring_mask;
    const struct in_entry *entry = pull_entry(replica);
    unsigned n = 0;

    assert(replica->class_count == 0 && !replica->current);
    if (!entry)
        return 0;
    journal_packet(&replica->journal);
    replica->entry_unit = replica->journal.unit;
    reach(replica, entry->time);
    for (unsigned most = CHANNEL_BURST - pull->done; n < most && replica->consumed + n != pull->head; n++) {
        entry = &replica->in[(replica->consumed + n) & mask];
        if (entry->kind != IN_PACKET)
            break;
        audit_owner(replica, entry->shard);
        if (n % REPLICA_FETCH_EVERY == 0)
            prefetch_for_write(&replica->out[(replica->produced + n) & mask]);
        if (n < REPLICA_FETCH_AHEAD)
            replica_fetch_packet(replica, entry);
    }
    return n;
}

void replica_pull_ran(struct sm_replica *replica, unsigned done)
{
    struct replica_counters *counters = &replica->channel->counters;
    const uint32_t mask = replica->channel->ring_mask;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < done; i++) {
        const uint32_t buffer = replica->in[replica->consumed++ & mask].buffer;
        replica->out[replica->produced++ & mask] =
            (struct out_entry){.buffer = buffer, .bound = replica->bound, .kind = OUT_PACKET};
        bytes += pool_meta(&replica->pool, buffer)->len;
    }
    replica->complete = replica->produced;
    replica->pull.done += done;
    for (unsigned step = 0; step < REPLICA_FETCHES; step++)
        replica->fetched[step] = replica->consumed;
    replica_count(&counters->packets, done);
    replica_count(&counters->bytes, bytes);
}
