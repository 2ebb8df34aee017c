/* SPDX-License-Identifier: BSD-2-Clause */
#include "placement.h"

#include <assert.h>

#define NOBODY UINT32_MAX /* a shard that is being given away */

unsigned placement_count(const placement_table owners, uint32_t id)
{
    unsigned count = 0;
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        count += owners[i] == id;
    return count;
}

void placement_even(placement_table owners, const uint32_t *ids, unsigned count)
{
    assert(count >= 1 && count <= PLACEMENT_MAX_IDS);
    for (unsigned i = 0; i < PLACEMENT_SHARDS; i++)
        owners[i] = ids[i * count / PLACEMENT_SHARDS];
}

/* Give the shards of NOBODY to whoever has the fewest, in runs: first how many each gets, then which. */
static void give_away(placement_table owners, const uint32_t *ids, unsigned count)
{
    unsigned has[PLACEMENT_MAX_IDS], gets[PLACEMENT_MAX_IDS] = {0};
    for (unsigned i = 0; i < count; i++)
        has[i] = placement_count(owners, ids[i]);
    for (unsigned left = placement_count(owners, NOBODY); left > 0; left--) {
        unsigned least = 0;
        for (unsigned i = 1; i < count; i++)
            if (has[i] < has[least])
                least = i;
        has[least]++;
        gets[least]++;
    }
    unsigned next = 0;
    for (unsigned shard = 0; shard < PLACEMENT_SHARDS; shard++) {
        if (owners[shard] != NOBODY)
            continue;
        while (gets[next] == 0)
            next++;
        owners[shard] = ids[next];
        gets[next]--;
    }
}

static bool among(uint32_t id, const uint32_t *ids, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The last `excess` shards of `id` are nobody's. */
static void take_last(placement_table owners, uint32_t id, unsigned excess)
{
    for (unsigned shard = PLACEMENT_SHARDS; excess > 0 && shard-- > 0;) {
        if (owners[shard] == id) {
            owners[shard] = NOBODY;
            excess--;
        }
    }
}

void placement_spread(placement_table owners, const uint32_t *ids, unsigned count)
{
    assert(count >= 1 && count <= PLACEMENT_MAX_IDS);
    unsigned owned = PLACEMENT_SHARDS - placement_count(owners, 0);
    for (unsigned shard = 0; shard < PLACEMENT_SHARDS; shard++)
        if (owners[shard] != 0 && !among(owners[shard], ids, count))
            owners[shard] = NOBODY;
    /* `spare` replicas may have one more than `share`: those that have it already keep it. */
    unsigned share = owned / count, spare = owned % count;
    for (unsigned i = 0; i < count; i++) {
        unsigned has = placement_count(owners, ids[i]), keeps = share;
        if (has > share && spare > 0) {
            keeps++;
            spare--;
        }
        if (has > keeps)
            take_last(owners, ids[i], has - keeps);
    }
    give_away(owners, ids, count);
}

void placement_split(placement_table owners, uint32_t from, uint32_t to)
{
    unsigned moved = placement_count(owners, from) / 2;
    for (unsigned shard = PLACEMENT_SHARDS; moved > 0 && shard-- > 0;) {
        if (owners[shard] == from) {
            owners[shard] = to;
            moved--;
        }
    }
}

void placement_merge(placement_table owners, uint32_t from, uint32_t to)
{
    for (unsigned shard = 0; shard < PLACEMENT_SHARDS; shard++)
        if (owners[shard] == from)
            owners[shard] = to;
}

void placement_drain(placement_table owners, uint32_t from, const uint32_t *ids, unsigned count)
{
    assert(count >= 1 && count <= PLACEMENT_MAX_IDS && !among(from, ids, count));
    placement_merge(owners, from, NOBODY);
    give_away(owners, ids, count);
}

void placement_move(placement_table owners, const bool set[PLACEMENT_SHARDS], uint32_t to)
{
    for (unsigned shard = 0; shard < PLACEMENT_SHARDS; shard++)
        if (set[shard] && owners[shard] != 0)
            owners[shard] = to;
}

size_t placement_ranges(const placement_table before, const placement_table after, struct placement_range *ranges)
{
    size_t count = 0;
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++) {
        if (before[shard] == after[shard])
            continue;
        struct placement_range *last = count ? &ranges[count - 1] : NULL;
        if (last && last->last == shard - 1 && last->to == after[shard])
            last->last = shard;
        else
            ranges[count++] = (struct placement_range){shard, shard, after[shard]};
    }
    return count;
}
