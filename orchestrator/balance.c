/* SPDX-License-Identifier: BSD-2-Clause */
#include "balance.h"

struct scales {
    const uint64_t *load; /* by shard */
    const uint32_t *ids;
    unsigned count;
    uint64_t has[PLACEMENT_MAX_IDS];
    uint64_t limit; /* that nobody is to have more than */
};

static unsigned heaviest(const struct scales *scales)
{
    unsigned most = 0;
    for (unsigned i = 1; i < scales->count; i++)
        if (scales->has[i] > scales->has[most])
            most = i;
    return most;
}

static unsigned lightest(const struct scales *scales)
{
    unsigned least = 0;
    for (unsigned i = 1; i < scales->count; i++)
        if (scales->has[i] < scales->has[least])
            least = i;
    return least;
}

/*
 * A shard of `id` of at most `room`: the lightest one of at least `excess`, or, where there is none, the heaviest.
 * PLACEMENT_SHARDS: none.
 */
static uint32_t choose(const placement_table owners, const struct scales *scales, uint32_t id, uint64_t excess,
                       uint64_t room)
{
    uint32_t best = PLACEMENT_SHARDS;
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++) {
        uint64_t load = scales->load[shard];
        if (owners[shard] != id || load == 0 || load > room)
            continue;
        uint64_t than = best < PLACEMENT_SHARDS ? scales->load[best] : 0;
        bool better = than >= excess ? load >= excess && load < than : load > than;
        if (best == PLACEMENT_SHARDS || better)
            best = shard;
    }
    return best;
}

static void note_elephant(struct balance *balance, uint32_t shard, double share)
{
    unsigned at = balance->elephants < BALANCE_ELEPHANTS ? balance->elephants++ : BALANCE_ELEPHANTS;
    for (; at > 0 && share > balance->elephant[at - 1].share; at--)
        if (at < BALANCE_ELEPHANTS)
            balance->elephant[at] = balance->elephant[at - 1];
    if (at < BALANCE_ELEPHANTS) {
        balance->elephant[at].shard = shard;
        balance->elephant[at].share = share;
    }
}

/* Loads of all, and the limit. False: there is none. */
static bool weigh(struct scales *scales, const placement_table owners, struct balance *balance)
{
    uint64_t total = 0, most = 0;
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++)
        for (unsigned i = 0; i < scales->count; i++)
            if (owners[shard] == scales->ids[i]) {
                scales->has[i] += scales->load[shard];
                total += scales->load[shard];
                most = scales->load[shard] > most ? scales->load[shard] : most;
            }
    if (total == 0)
        return false;
    const uint64_t share = (total + scales->count - 1) / scales->count;
    scales->limit = (share > most ? share : most) / 100 * (100 + BALANCE_PERCENT) +
                    (share > most ? share : most) % 100 * (100 + BALANCE_PERCENT) / 100;
    balance->before = (double)scales->has[heaviest(scales)] * scales->count / (double)total;
    for (uint32_t shard = 0; shard < PLACEMENT_SHARDS; shard++)
        if (owners[shard] != 0 && scales->load[shard] > share)
            note_elephant(balance, shard, (double)scales->load[shard] / (double)total);
    return true;
}

bool balance_by_load(placement_table owners, const uint64_t load[PLACEMENT_SHARDS], const uint32_t *ids, unsigned count,
                     struct balance *balance)
{
    struct scales scales = {.load = load, .ids = ids, .count = count};
    uint64_t total = 0;
    *balance = (struct balance){0};
    if (!weigh(&scales, owners, balance))
        return false;
    for (;;) {
        unsigned from = heaviest(&scales), to = lightest(&scales);
        if (scales.has[from] <= scales.limit)
            break;
        uint32_t shard =
            choose(owners, &scales, ids[from], scales.has[from] - scales.limit, scales.limit - scales.has[to]);
        if (shard == PLACEMENT_SHARDS)
            break;
        owners[shard] = ids[to];
        scales.has[from] -= load[shard];
        scales.has[to] += load[shard];
    }
    for (unsigned i = 0; i < count; i++)
        total += scales.has[i];
    balance->after = (double)scales.has[heaviest(&scales)] * count / (double)total;
    return true;
}
