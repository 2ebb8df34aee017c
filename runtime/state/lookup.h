/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_LOOKUP_H
#define SM_STATE_LOOKUP_H

/*
 * The look-up of a flow, inline: every packet makes one.
 *
 * It comes in steps so that a burst can overlap its cache misses: fetch the shard, then its table's group, then the
 * flow; each is optional. `hash` is state_hash() of the key (the shard need not be state_shard_of() it).
 */

#include "state/internal.h"
#include "state/prefetch.h"

/* The first group that the look-up meets, to be fetched. */
static inline const struct group *lookup_group(const struct state *state, uint32_t shard, uint64_t hash)
{
    uint32_t mask;
    struct group *groups = shard_groups(shard_at(state, shard), &mask);

    return group_at(groups, hash_group(hash) & mask);
}

static inline void lookup_fetch_shard(const struct state *state, uint32_t shard)
{
    prefetch_for_read(shard_at(state, shard));
}

/* Of the key with any tag. `group` may not be the table's any more: what is in it only says what is fetched. */
static inline void lookup_fetch_flow(const struct state *state, const struct group *group, uint64_t hash)
{
    for (uint64_t match = group_match_tags(group, hash); match != 0; match &= match - 1) {
        const char *flow = (const char *)flow_at(state, group->refs[group_slot(match)]);
        prefetch_for_read(flow);
        prefetch_for_read(flow + STATE_LINE);
    }
}

_Static_assert(offsetof(struct sm_key, tag) + sizeof(uint16_t) == sizeof(struct sm_key), "the tag comes last");

/* `tag` in place of the key's own, so that a packet's key serves under any. */
static inline __attribute__((always_inline)) struct flow *lookup_flow(const struct state *state, uint32_t shard,
                                                                      unsigned cls, const struct sm_key *key,
                                                                      uint16_t tag, uint64_t hash)
{
    uint32_t mask;
    struct group *groups = shard_groups(shard_at(state, shard), &mask);
    uint32_t at = hash_group(hash) & mask;

    for (uint32_t i = 0; i <= mask; i++, at = (at + 1) & mask) {
        const struct group *group = group_at(groups, at);
        for (uint64_t match = group_match(group, hash); match != 0; match &= match - 1) {
            struct flow *flow = flow_at(state, group->refs[group_slot(match)]);
            if (flow->hash == (uint32_t)hash && flow->cls == cls && flow->key.tag == tag &&
                memcmp(&flow->key, key, offsetof(struct sm_key, tag)) == 0)
                return flow;
        }
        if (group_empty(group->tags) != 0)
            break;
    }
    return NULL;
}

#endif
