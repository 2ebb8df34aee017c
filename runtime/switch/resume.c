/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The switch before us has died (promise P6): its arena is here, its memory is gone.
 *
 * Overview.  Its replicas have gone too; the kernel has said so (keeper.c). What they had begun is undone by their
 * journals, locks are broken, copies half made are cleared, and so are the flows of a checkpoint that was restored in
 * part; all buffers are free. Then the state must be consistent, or
 * it is refused. Flows, timers, shared objects, bound keys and the secret are as they were. All shards are orphaned:
 * whichever replica comes first takes them over, and the orchestrator spreads them.
 *
 * What was in the old switch's hands is lost: packets in rings, holds, the window, and what was written but had not got
 * into the file. It is the difference between what entered and what came out, dropped as `switch_died`: that many at
 * most. Nothing is read twice, so nothing is sent twice.
 *
 * Limits.  Fragments whose first was seen by the old switch take protocol and addresses. Quantiles of pauses, parser
 * counters and the audit begin anew.
 */

#include <stdio.h>

#include "arena/builds.h"
#include "state/journal.h"
#include "switch/bind.h"
#include "switch/switch.h"

#define CLEAR_AT_A_TIME 4096u

static void store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static uint64_t load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)word, memory_order_acquire);
}

void switch_ledger_ahead(struct sm_switch *sw)
{
    STEP();
    store(&sw->arena->ledger.position, sw->entered + CHANNEL_BURST);
    STEP();
}

void switch_ledger_generated(struct sm_switch *sw)
{
    store(&sw->arena->ledger.generated, sw->generated);
    STEP();
}

void switch_ledger(struct sm_switch *sw)
{
    struct ledger *ledger = &sw->arena->ledger;

    STEP();
#define LEDGER_STORE(name)                                                                                             \
    store(&ledger->name, sw->name);                                                                                    \
    STEP();
    LEDGER_WORDS(LEDGER_STORE)
#undef LEDGER_STORE
    for (unsigned i = 0; i < SWITCH_DROP_COUNT + sw->reason_count; i++)
        store(&ledger->dropped[i], sw->dropped[i]);
    STEP();
    store(&ledger->position, sw->entered);
    STEP();
}

static void read_ledger(struct sm_switch *sw)
{
    const struct ledger *ledger = &sw->arena->ledger;

#define LEDGER_LOAD(name) sw->name = load(&ledger->name);
    LEDGER_WORDS(LEDGER_LOAD)
#undef LEDGER_LOAD
    for (unsigned i = 0; i < SWITCH_DROP_COUNT + sw->reason_count; i++)
        sw->dropped[i] = load(&ledger->dropped[i]);
}

static int put_slot_right(struct sm_switch *sw, unsigned slot, struct sm_errbuf *error)
{
    struct arena *arena = sw->arena;
    struct channel *channel = arena_channel(arena, 0, slot);

    if (channel->in_offset == 0)
        return 0; /* nobody ever had it */
    if (switch_put_right(sw, slot) == 0)
        return 0;
    snprintf(error->text, sizeof error->text, "the arena of service %.63s is damaged: the journal of slot %u",
             arena->service, slot);
    return SM_E_DAMAGED;
}

/*
 * Whatever replicas had under way. First of all those of the slot in whose notes the old switch died: which one that is
 * is kept until the next note.
 */
static int put_replicas_right(struct sm_switch *sw, struct sm_errbuf *error)
{
    struct arena *arena = sw->arena;

    for (unsigned slot = 0; slot < ARENA_SLOTS; slot++) /* a replica may have written on any of them */
        if (arena_channel(arena, 0, slot)->in_offset != 0)
            channel_lay_out(arena_channel(arena, 0, slot), sw->buffers, sw->bindings_max);
    unsigned first = switch_note_slot(arena);
    int result = first < ARENA_SLOTS ? put_slot_right(sw, first, error) : 0;

    for (unsigned slot = 0; result == 0 && slot < ARENA_SLOTS; slot++)
        result = put_slot_right(sw, slot, error);
    return result;
}

/* What they counted of two owners. A switch that dies here leaves some of it to be counted again, never none of it. */
static void keep_violations(struct arena *arena)
{
    uint64_t violations = load(&arena->ledger.owner_violations);

    for (unsigned slot = 0; slot < ARENA_SLOTS; slot++) {
        struct channel *channel = arena_channel(arena, 0, slot);
        violations += channel->in_offset ? load(&channel->counters.owner_violations) : 0;
    }
    store(&arena->ledger.owner_violations, violations);
    STEP();
    for (unsigned slot = 0; slot < ARENA_SLOTS; slot++)
        store(&arena_channel(arena, 0, slot)->counters.owner_violations, 0);
    STEP();
}

/* Changes to the state, a piece each. */
struct repair {
    struct channel *channel;
    struct state_actor *actor;
    struct journal journal;
    uint64_t commit;
};

/* As a replica would, in the first one's place: so that a switch that dies in the middle leaves a journal too. */
static int repair_begin(struct repair *repair, struct sm_switch *sw)
{
    *repair = (struct repair){.channel = arena_channel(sw->arena, 0, 0)};
    channel_reset(repair->channel, sw->buffers, sw->bindings_max);
    STEP();
    int result = state_actor_join(&repair->actor, sw->arena->state, 0);
    if (result == 0)
        journal_open(&repair->journal, channel_journal(repair->channel), repair->actor, repair->commit);
    return result;
}

static void repair_commit(struct repair *repair)
{
    journal_prepare(&repair->journal, true);
    STEP();
    store(&repair->channel->commit, ++repair->commit);
    STEP();
    journal_committed(&repair->journal, repair->commit);
}

static void clear_copies(struct repair *repair)
{
    for (unsigned copy = 0; copy < STATE_COPIES;) {
        journal_packet(&repair->journal);
        copy += state_copy_clear(repair->actor, state_copy(copy), CLEAR_AT_A_TIME);
        repair_commit(repair);
    }
}

/* All flows are of a checkpoint that the old switch was restoring: the service is as it was before that again. */
static void take_back_restore(struct repair *repair, struct arena *arena)
{
    for (uint32_t shard = 0; shard < SM_SHARDS + STATE_STRIPES; shard++)
        while (state_shard_flows(arena->state, shard) > 0) {
            uint32_t cursor = 0;
            journal_packet(&repair->journal);
            state_remove(repair->actor, shard, state_next(arena->state, shard, &cursor));
            repair_commit(repair);
        }
    state_secret_set(arena->state, arena->secret_before);
    atomic_store_explicit(&arena->restoring, RESTORING_NOTHING, memory_order_release);
}

/* Whatever the old switch had under way. */
static int put_host_right(struct sm_switch *sw)
{
    struct arena *arena = sw->arena;
    struct repair repair;

    for (uint32_t stripe = SM_SHARDS; stripe < SM_SHARDS + STATE_STRIPES; stripe++)
        if (state_lock_holder(arena->state, stripe) >= 0)
            state_unlock(arena->state, stripe);
    for (unsigned i = 0; i < arena->registration.shared_count; i++)
        if (atomic_load_explicit(&arena->strong[i].holder, memory_order_acquire) == SWITCH_HOLDER)
            atomic_store_explicit(&arena->strong[i].holder, 0, memory_order_release);
    STEP();
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        atomic_store_explicit(&arena->heir[shard], 0, memory_order_relaxed);
    STEP();
    for (unsigned slot = 0; slot < ARENA_SLOTS; slot++)
        store(&arena->late_time[slot], UINT64_MAX);
    STEP();
    store(&arena->ready_slots, 0);
    STEP();
    int result = repair_begin(&repair, sw);
    if (result)
        return result;
    clear_copies(&repair);
    if (atomic_load_explicit(&arena->restoring, memory_order_acquire) == RESTORING_FLOWS)
        take_back_restore(&repair, arena);
    state_actor_leave(repair.actor);
    return 0;
}

/* Behind the last packet that was read. The old switch may have meant to read more than there are. */
static void skip_input(struct sm_switch *sw, uint64_t position, uint64_t skip)
{
    struct sm_port *in = sw->ports[0];
    struct sm_frame frame;

    while (skip > 0 && in->ops->receive(in, &frame) == 1)
        skip--;
    sw->entered = position - skip;
}

/* What entered, or was made, and never came out. */
static void count_lost(struct sm_switch *sw, const struct switch_left *left)
{
    uint64_t before = sw->generated + sw->entered, after = 0;

    if (left->counted)
        sw->out = left->written;
    for (unsigned i = 0; i < SWITCH_DROP_COUNT + sw->reason_count; i++)
        after += sw->dropped[i];
    after += sw->out;
    if (after > before) /* made in the turn that was cut */
        sw->generated += after - before;
    else
        sw->dropped[DROP_SWITCH_DIED] += before - after;
}

static void orphan_shards(struct sm_switch *sw)
{
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        sw->shards[shard].move.state = MOVE_ORPHANED;
        sw->shards[shard].build = builds_of_shard(sw->arena, shard);
    }
    sw->orphans = SM_SHARDS;
}

int switch_resume(struct sm_switch *sw, const struct switch_left *left, struct sm_errbuf *error)
{
    struct arena *arena = sw->arena;
    struct sm_errbuf found;
    uint64_t position = load(&arena->ledger.position);

    if (arena->registration.reason_count > SM_MAX_REASONS || arena->registration.shared_count > SM_MAX_SHARED) {
        snprintf(error->text, sizeof error->text, "the arena of service %.63s is damaged: its registration",
                 arena->service);
        return SM_E_DAMAGED;
    }
    if (atomic_load_explicit(&arena->restoring, memory_order_acquire) == RESTORING_SHARED) {
        snprintf(error->text, sizeof error->text,
                 "the switch of service %.63s died while shared objects got the values of a checkpoint, and left some: "
                 "stop the service, and 'smctl run' it with '--restore FILE'",
                 arena->service);
        return SM_E_STATE;
    }
    int result = put_replicas_right(sw, error);
    if (result == 0) {
        keep_violations(arena);
        result = put_host_right(sw);
    }
    if (result)
        return result;
    if (state_check(arena->state, &found) != 0) {
        snprintf(error->text, sizeof error->text, "the arena of service %.63s is damaged: %.150s", arena->service,
                 found.text);
        return SM_E_DAMAGED;
    }
    if (arena->registered)
        switch_learn(sw);
    read_ledger(sw);
    STEP();
    skip_input(sw, position, left->skip);
    STEP();
    count_lost(sw, left);
    orphan_shards(sw);
    STEP();
    sw->switch_deaths++;
    if (sw->state == SWITCH_ENDED)
        sw->state = SWITCH_RUNNING; /* it will be met again */
    if (sw->input_cut)
        switch_stop_input(sw);
    switch_ledger(sw);
    return 0;
}
