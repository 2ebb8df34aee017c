/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_BALANCE_H
#define SM_ORCHESTRATOR_BALANCE_H

/* Which shards move so that replicas have as much to do as one another. Pure (design D7). */

#include "placement.h"

#define BALANCE_PERCENT 5u /* that a replica may have above its share */
#define BALANCE_ELEPHANTS 8u

struct balance {
    double before, after; /* the most that a replica has, as a multiple of its share; 0: there is no load */
    /* Shards that alone are more than a replica's share: they can be moved, but not shared out. Heaviest first. */
    unsigned elephants;
    struct {
        uint32_t shard;
        double share; /* of all load, 0 to 1 */
    } elephant[BALANCE_ELEPHANTS];
};

/*
 * `load` of each shard, in any unit. Afterwards nobody of `ids` (as in placement.h; shards of others count for nobody)
 * has more than BALANCE_PERCENT above its share, or above the heaviest shard where that is more, as far as moving
 * single shards comes to that. Few shards are moved: of who has too much the heaviest for which there is room, last the
 * lightest that is enough. False: there is no load, and nothing was done.
 */
bool balance_by_load(placement_table owners, const uint64_t load[PLACEMENT_SHARDS], const uint32_t *ids, unsigned count,
                     struct balance *balance);

#endif
