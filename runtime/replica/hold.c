/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Flows that the middlebox holds across packets, and shards that wait for it (design D4).
 *
 * Life-cycle.  A release marker for a shard of which a flow is held is met, but not answered: the shard is *kept*. Its
 * timers stand still, since its packets do. Then the last reference is put and the shard is released, at the end of the
 * burst or at the beginning of the next; or the move is abandoned, so that the shard is adopted by who still has it:
 * the release is answered, and all is as before.
 *
 * Limits.  SM_MAX_HOLDS references; REPLICA_KEPT shards, as many as the switch has between owners at a time.
 */

#include <assert.h>

#include "replica/replica.h"

static bool is_held(const struct sm_replica *replica, uint32_t shard)
{
    for (unsigned i = 0; i < replica->hold_count; i++)
        if (replica->holds[i].shard == shard)
            return true;
    return false;
}

int sm_flow_hold(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    if (!replica->current || !replica->classes[cls.id].partitioned)
        return SM_E_INVALID;
    if (replica->hold_count == SM_MAX_HOLDS)
        return SM_E_LIMIT;
    replica->holds[replica->hold_count].record = flow.state;
    replica->holds[replica->hold_count++].shard = replica->current_shard;
    return 0;
}

void hold_put(struct sm_replica *replica, const void *record)
{
    for (unsigned i = 0; i < replica->hold_count; i++)
        if (replica->holds[i].record == record) {
            replica->holds[i] = replica->holds[--replica->hold_count];
            return;
        }
}

void hold_end(struct sm_replica *replica, const void *record)
{
    for (unsigned before = 0; before != replica->hold_count;) {
        before = replica->hold_count;
        hold_put(replica, record);
    }
}

bool hold_keep(struct sm_replica *replica, const struct in_entry *entry)
{
    if (!is_held(replica, entry->shard))
        return false;
    assert(replica->kept_count < REPLICA_KEPT);
    replica->kept[replica->kept_count++] = *entry;
    shard_heap_set(&replica->timers, entry->shard, UINT64_MAX);
    *replica_answer(replica) =
        (struct out_entry){.kind = OUT_HELD, .reason = entry->shard, .buffer = entry->buffer, .bound = replica->bound};
    return true;
}

bool hold_kept_returns(struct sm_replica *replica, uint32_t shard)
{
    for (unsigned i = 0; i < replica->kept_count; i++) {
        if (replica->kept[i].shard != shard)
            continue;
        *replica_answer(replica) = (struct out_entry){.kind = OUT_RELEASED,
                                                      .reason = (uint16_t)shard,
                                                      .buffer = replica->kept[i].buffer,
                                                      .bound = replica->bound};
        replica->kept[i] = replica->kept[--replica->kept_count];
        shard_heap_set(&replica->timers, shard, state_timer_next(replica->state, shard));
        return true;
    }
    return false;
}

unsigned hold_finish(struct sm_replica *replica)
{
    unsigned released = 0;

    for (unsigned i = 0; i < replica->kept_count;) {
        if (is_held(replica, replica->kept[i].shard)) {
            i++;
            continue;
        }
        const struct in_entry entry = replica->kept[i];
        replica->kept[i] = replica->kept[--replica->kept_count];
        replica_release(replica, &entry);
        replica->complete = replica->produced;
        released++;
    }
    return released;
}
