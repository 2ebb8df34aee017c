/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public calls on flows (include/splitmerge/flow.h): from a packet to its record.
 *
 * A partitioned class's flows lie in the packet's shard, which this replica owns; a shared class's in the stripe that
 * their key hashes to, locked from get to put.
 */

#include <assert.h>
#include <string.h>

#include "packet/packet.h"
#include "replica/replica.h"
#include "state/lookup.h"

/* Where a packet's flow of a class is. */
struct place {
    const struct sm_key *key;
    struct sm_key made; /* what `key` points to, unless the packet has it ready */
    uint64_t hash;
    uint32_t shard;
};

static inline __attribute__((always_inline)) void
locate(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag, struct place *place)
{
    const struct keying key = replica->classes[cls.id].key;

    if (key.granularity == SM_BY_FLOW && tag == 0) {
        place->key = &packet->meta->key; /* no copy */
    } else {
        sm_packet_key(packet, (enum sm_granularity)key.granularity, &place->made);
        if (key.prefix4 | key.prefix6)
            sm_key_narrow(&place->made, key.prefix4, key.prefix6);
        place->made.tag = tag;
        place->key = &place->made;
    }
    place->hash = replica->classes[cls.id].steers ? state_hash_tagged(packet->meta->hash, tag)
                                                  : state_hash(replica->state, place->key);
    place->shard = replica->classes[cls.id].partitioned ? packet->shard : state_stripe_of(place->hash);
}

/* `noted`: what is done to the flow may be noted, to be undone. */
static void hold(struct sm_replica *replica, uint32_t shard, bool noted)
{
    if (shard < SM_SHARDS)
        return;
    assert(replica->held_stripe == 0 && "one shared flow at a time");
    /* A checkpoint waits, with the lock, for what we have not committed. */
    if (__builtin_expect(atomic_load_explicit(&replica->arena->settling, memory_order_relaxed) == shard, 0))
        replica_commit(replica, false);
    state_lock(replica->state, shard, replica->slot);
    STEP();
    replica->held_stripe = shard;
    journal_section_begin(&replica->journal, noted);
}

static void give_back(struct sm_replica *replica)
{
    if (replica->held_stripe == 0)
        return;
    journal_section_end(&replica->journal);
    STEP();
    state_unlock(replica->state, replica->held_stripe);
    STEP();
    replica->held_stripe = 0;
}

static void arm(struct sm_replica *replica, struct flow *flow, unsigned slot, uint64_t deadline)
{
    uint32_t shard = replica->current_shard;

    state_timer_set(replica->actor, shard, flow, slot, (sm_time){deadline});
    /* Only an earlier deadline matters to the order of shards; a later one is found when the old one comes. */
    if (replica->timers.place[shard] == 0 || deadline < replica->timers.deadline[shard])
        shard_heap_set(&replica->timers, shard, deadline);
}

/* Never beyond what a deadline can be: UINT64_MAX is for none. */
static uint64_t after(uint64_t time, uint64_t duration)
{
    return duration < UINT64_MAX - 1 - time ? time + duration : UINT64_MAX - 1;
}

/* The flow by its own key or, where there is none of it, by a bound one. */
static inline __attribute__((always_inline)) struct flow *find(const struct sm_replica *replica, sm_class cls,
                                                               const struct sm_packet *packet, uint16_t tag,
                                                               const struct place *place)
{
    struct flow *flow = lookup_flow(replica->state, place->shard, cls.id, place->key, tag, place->hash);

    if (flow || tag != 0 || !replica->classes[cls.id].binds)
        return flow;
    flow = state_bound(replica->state, place->shard, &packet->meta->key, packet->meta->hash);
    return flow && flow_class(flow) == cls.id ? flow : NULL;
}

/* What a flow in hand may take of the journal without asking. */
static inline uint32_t promise_of(const struct sm_replica *replica, sm_class cls, const struct flow *flow)
{
    uint32_t chunks = replica->classes[cls.id].chunks ? state_chunk_count(flow) : 0;

    return replica->classes[cls.id].promise + chunks * (uint32_t)sizeof(struct journal_entry);
}

/* The flow's record, to be written: its old bytes are kept. Null where the packet has too much in hand already. A use
 * of the flow, so its idle timeout starts anew: one store. */
static inline __attribute__((always_inline)) sm_flow hand_out(struct sm_replica *replica, sm_class cls,
                                                              const struct sm_packet *packet, struct flow *flow)
{
    uint64_t idle = replica->classes[cls.id].idle_ns;
    uint32_t bytes = replica->classes[cls.id].record_size;
    void *from = idle ? flow_extent(flow, bytes, &bytes) : flow + 1;

    if (!journal_promise(&replica->journal, bytes, promise_of(replica, cls, flow)))
        return (sm_flow){NULL};
    journal_record(&replica->journal, from, bytes);
    if (idle)
        state_timer_set(replica->actor, packet->shard, flow, replica->classes[cls.id].timers,
                        (sm_time){after(packet->time, idle)});
    return (sm_flow){flow + 1};
}

/*
 * Most packets by far: the flow of a class that is `direct`, all of which is at hand. Null where there is none, or the
 * packet has too much in hand already.
 */
static inline __attribute__((always_inline)) sm_flow direct(struct sm_replica *replica, sm_class cls,
                                                            const struct sm_packet *packet, uint16_t tag)
{
    const struct packet_meta *meta = packet->meta;
    uint32_t bytes = replica->classes[cls.id].record_size;
    struct flow *flow =
        lookup_flow(replica->state, packet->shard, cls.id, &meta->key, tag, state_hash_tagged(meta->hash, tag));

    if (!flow || !journal_promise(&replica->journal, bytes, replica->classes[cls.id].promise))
        return (sm_flow){NULL};
    journal_record(&replica->journal, flow + 1, bytes);
    return (sm_flow){flow + 1};
}

/* A new flow's timeouts. */
static void arm_timeouts(struct sm_replica *replica, sm_class cls, uint64_t now, struct flow *flow)
{
    unsigned slot = replica->classes[cls.id].timers;

    if (replica->classes[cls.id].idle_ns)
        arm(replica, flow, slot++, after(now, replica->classes[cls.id].idle_ns));
    if (replica->classes[cls.id].hard_ns)
        arm(replica, flow, slot, after(now, replica->classes[cls.id].hard_ns));
}

/* The runtime ends a flow of the current shard: the middlebox has a last look. */
static void end(struct sm_replica *replica, struct flow *flow, enum sm_ending why, sm_time now)
{
    unsigned cls = flow_class(flow);

    if (replica->classes[cls].on_expire) {
        journal_image(&replica->journal, flow_record(flow), replica->classes[cls].record_size);
        replica->ending = flow_record(flow);
        replica->classes[cls].on_expire(replica, (sm_class){(uint16_t)cls}, (sm_flow){flow_record(flow)}, why, now,
                                        replica->classes[cls].user);
        replica->ending = NULL;
    }
    hold_end(replica, flow_record(flow));
    bind_end(replica, replica->current_shard, flow);
    state_remove(replica->actor, replica->current_shard, flow);
}

void flow_expire(struct sm_replica *replica, struct flow *flow, unsigned slot, sm_time now)
{
    unsigned cls = flow_class(flow);
    bool idle = replica->classes[cls].idle_ns > 0 && slot == replica->classes[cls].timers;

    end(replica, flow, idle ? SM_ENDED_IDLE : SM_ENDED_HARD, now);
}

/* The shard or stripe that a flow in hand lives in. */
static uint32_t home(const struct sm_replica *replica, sm_class cls)
{
    return replica->classes[cls.id].partitioned ? replica->current_shard : replica->held_stripe;
}

/* Make room for a new flow, when it is flows that there are too many of. */
static void evict(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet)
{
    const sm_time unused = {after(packet->time, replica->classes[cls.id].idle_ns)};

    if (!state_is_full(replica->actor, packet->shard, cls.id))
        return;
    struct flow *flow = state_earliest(replica->state, packet->shard, cls.id, replica->classes[cls.id].timers, unused);
    if (!flow)
        return;
    state_count_evicted(replica->actor, packet->shard);
    end(replica, flow, SM_ENDED_EVICTED, (sm_time){packet->time});
}

static __attribute__((noinline)) sm_flow get(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet,
                                             uint16_t tag)
{
    struct place place;

    locate(replica, cls, packet, tag, &place);
    hold(replica, place.shard, replica->classes[cls.id].on_undo != NULL);
    struct flow *flow = find(replica, cls, packet, tag, &place);
    if (!flow) {
        give_back(replica);
        return (sm_flow){NULL};
    }
    sm_flow handed = hand_out(replica, cls, packet, flow);
    if (!handed.state)
        give_back(replica);
    return handed;
}

sm_flow sm_flow_get(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag)
{
    if (__builtin_expect(replica->classes[cls.id].direct, 1))
        return direct(replica, cls, packet, tag);
    return get(replica, cls, packet, tag);
}

/* A flow where there was none. */
static __attribute__((noinline)) int make(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet,
                                          const struct place *place, sm_flow *out)
{
    struct flow *flow;

    *out = (sm_flow){NULL};
    int result = journal_promise(&replica->journal, 0, replica->classes[cls.id].promise) ? 0 : SM_E_LIMIT;
    if (result == 0 && replica->classes[cls.id].evict)
        evict(replica, cls, packet);
    if (result == 0)
        result = state_insert(replica->actor, place->shard, cls.id, place->key, place->hash, &flow);
    if (result) {
        give_back(replica);
        return result;
    }
    arm_timeouts(replica, cls, packet->time, flow);
    *out = (sm_flow){flow_record(flow)};
    return 0;
}

static __attribute__((noinline)) int create(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet,
                                            uint16_t tag, bool noted, sm_flow *out, bool *created)
{
    struct place place;

    locate(replica, cls, packet, tag, &place);
    hold(replica, place.shard, noted);
    struct flow *flow = find(replica, cls, packet, tag, &place);
    if (!flow) {
        int result = make(replica, cls, packet, &place, out);
        if (result == 0 && created)
            *created = true;
        return result;
    }
    if (created)
        *created = false;
    *out = hand_out(replica, cls, packet, flow);
    if (out->state)
        return 0;
    give_back(replica);
    return SM_E_LIMIT;
}

int sm_flow_create(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag, sm_flow *out,
                   bool *created)
{
    if (__builtin_expect(replica->classes[cls.id].direct, 1) && (*out = direct(replica, cls, packet, tag)).state) {
        if (created)
            *created = false;
        return 0;
    }
    return create(replica, cls, packet, tag, replica->classes[cls.id].on_undo != NULL, out, created);
}

void sm_flow_put(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    if (!replica->classes[cls.id].partitioned)
        give_back(replica);
    else if (replica->hold_count > 0)
        hold_put(replica, flow.state);
}

void sm_flow_close(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    if (flow.state == replica->ending)
        return;
    hold_end(replica, flow.state);
    bind_end(replica, replica->current_shard, flow_of_record(flow.state));
    state_remove(replica->actor, home(replica, cls), flow_of_record(flow.state));
    sm_flow_put(replica, cls, flow);
}

const struct sm_key *sm_flow_key(sm_flow flow)
{
    return flow_key(flow_of_record(flow.state));
}

void sm_flow_timer_set(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time deadline)
{
    if (!replica->classes[cls.id].partitioned)
        return;
    assert(slot < replica->classes[cls.id].timers);
    arm(replica, flow_of_record(flow.state), slot, deadline.ns);
}

void sm_flow_timer_cancel(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot)
{
    if (replica->classes[cls.id].partitioned)
        state_timer_cancel(replica->actor, replica->current_shard, flow_of_record(flow.state), slot);
}

sm_time sm_flow_timer_get(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot)
{
    if (!replica->classes[cls.id].partitioned)
        return (sm_time){0};
    return state_timer_get(replica->state, flow_of_record(flow.state), slot);
}

/* ---- escrow ---- */

/* The flow in hand is changed in a way that the note undoes. */
static void note_change(struct sm_replica *replica, const struct journal_note *note)
{
    journal_note(&replica->journal, note);
    atomic_store_explicit(&replica->arena->noted[replica->slot][replica->held_stripe - SM_SHARDS],
                          replica->journal.unit, memory_order_release);
}

int sm_flow_escrow(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *data, size_t bytes)
{
    struct journal_note note = {.kind = NOTE_OWN, .cls = cls.id, .bytes = (uint16_t)bytes};

    if (bytes > SM_MAX_NOTE || !replica->classes[cls.id].on_undo)
        return SM_E_INVALID;
    if (replica->classes[cls.id].partitioned)
        return 0; /* its old bytes are kept */
    if (replica->journal.note->kind != NOTE_NONE)
        return SM_E_STATE;
    note.key = *sm_flow_key(flow);
    memcpy(note.data, data, bytes);
    note_change(replica, &note);
    return 0;
}

void sm_flow_unescrow(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    if (!replica->classes[cls.id].partitioned)
        journal_unnote(&replica->journal, cls.id, sm_flow_key(flow));
}

int sm_flow_add(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag, size_t offset,
                int64_t amount)
{
    struct journal_note note = {
        .kind = NOTE_ADD, .cls = cls.id, .amount = (uint64_t)amount, .offset = (uint32_t)offset};
    uint32_t size = replica->classes[cls.id].record_size;
    uint64_t number;
    sm_flow flow;

    if (offset > size || size - offset < sizeof number)
        return SM_E_INVALID;
    int result = create(replica, cls, packet, tag, true, &flow, NULL);
    if (result)
        return result;
    memcpy(&number, (uint8_t *)flow.state + offset, sizeof number);
    number += (uint64_t)amount;
    memcpy((uint8_t *)flow.state + offset, &number, sizeof number);
    if (!replica->classes[cls.id].partitioned) {
        note.key = *sm_flow_key(flow);
        note_change(replica, &note);
    }
    sm_flow_put(replica, cls, flow);
    return 0;
}

bool sm_class_partitioned(const struct sm_replica *replica, sm_class cls)
{
    return replica->classes[cls.id].partitioned;
}

void *sm_alloc(struct sm_replica *replica, sm_class cls, sm_flow flow, size_t bytes)
{
    return sm_realloc(replica, cls, flow, NULL, bytes);
}

void *sm_realloc(struct sm_replica *replica, sm_class cls, sm_flow flow, void *chunk, size_t bytes)
{
    if (!replica->classes[cls.id].partitioned || state_class(replica->state, replica->forms[cls.id])->alloc_limit == 0)
        return NULL;
    return state_chunk_new(replica->actor, replica->current_shard, flow_of_record(flow.state), chunk, bytes);
}

void sm_free(struct sm_replica *replica, sm_class cls, sm_flow flow, void *chunk)
{
    (void)cls;
    if (chunk)
        state_chunk_free(replica->actor, flow_of_record(flow.state), chunk);
}

bool sm_writable(struct sm_replica *replica, void *chunk, size_t offset, size_t length)
{
    size_t bytes = state_chunk_bytes(chunk);

    if (offset > bytes || length > bytes - offset || !journal_may_add(&replica->journal, length))
        return false;
    return journal_image(&replica->journal, (uint8_t *)chunk + offset, (uint32_t)length);
}

/* What a callback may need of the journal without asking: the end of a flow with all that it holds. */
#define EACH_ROOM 65536u

_Static_assert(SM_MAX_CHUNKS * sizeof(struct journal_entry) < EACH_ROOM / 2, "a flow's chunks are freed within it");

int sm_flow_each(struct sm_replica *replica, sm_class cls, sm_each_fn *fn, void *user)
{
    const uint32_t current = replica->current_shard;
    int result = 0;

    if (!replica->classes[cls.id].partitioned)
        return SM_E_INVALID;
    for (uint32_t shard = 0; result == 0 && shard < SM_SHARDS; shard++) {
        if (!replica->owned[shard] || state_shard_flows(replica->state, shard) == 0)
            continue;
        struct flow *flow;
        replica->current_shard = shard;
        for (uint32_t cursor = 0; result == 0 && (flow = state_next(replica->state, shard, &cursor)) != NULL;) {
            if (flow_class(flow) != cls.id)
                continue;
            if (journal_may_add(&replica->journal, EACH_ROOM))
                fn(replica, cls, (sm_flow){flow_record(flow)}, user);
            else
                result = SM_E_LIMIT;
        }
    }
    replica->current_shard = current;
    return result;
}

bool sm_flow_writable(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    uint32_t bytes = replica->classes[cls.id].record_size;

    return journal_may_add(&replica->journal, bytes) && journal_image(&replica->journal, flow.state, bytes);
}

_Static_assert(SM_MAX_CLASSES <= 32, "replicas keep a set of classes in one word");

void flow_hooks(struct sm_replica *replica, uint32_t shard, bool adopted)
{
    struct flow *flow;

    replica->current_shard = shard;
    for (uint32_t cursor = 0; (flow = state_next(replica->state, shard, &cursor)) != NULL;) {
        unsigned cls = flow_class(flow);
        if (!(replica->hooked & 1u << cls))
            continue;
        sm_hook_fn *hook = adopted ? replica->classes[cls].on_adopt : replica->classes[cls].on_release;
        if (hook)
            hook(replica, (sm_class){(uint16_t)cls}, (sm_flow){flow_record(flow)}, replica->classes[cls].user);
    }
}
