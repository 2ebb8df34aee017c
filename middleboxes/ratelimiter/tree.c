/* SPDX-License-Identifier: BSD-2-Clause */

/* Parents and children: the limits of a policy as a hierarchy. */

#include <stdlib.h>
#include <string.h>

#include "policy.h"

/* Parents may stand anywhere in the file, so they are looked up when all names are known. */
static void read_parent(struct policy *policy, struct limit *limit)
{
    struct conf_node node = conf_get(limit->node, "parent");
    const char *name;

    if (!conf_string(node, &name))
        return;
    limit->parent = policy_find(policy, policy->count, name);
    if (limit->parent < 0)
        conf_expected(node, "the name of a limit of this file");
}

/* Number a limit behind all that have it for an ancestor; `left[i]`: limit i has no number yet. */
static void order_limit(const struct policy *policy, unsigned index, bool *left, unsigned *order, unsigned *count)
{
    if (!left[index])
        return;
    left[index] = false;
    for (unsigned i = 0; i < policy->count; i++)
        if (policy->limits[i].parent == (int)index)
            order_limit(policy, i, left, order, count);
    order[(*count)++] = index;
}

/* Put children before their parents, and say for each limit who its ancestors are. */
static bool order_limits(struct policy *policy)
{
    struct limit *before = calloc(POLICY_MAX_LIMITS, sizeof(*before));
    unsigned order[POLICY_MAX_LIMITS], number[POLICY_MAX_LIMITS], count = 0;
    bool left[POLICY_MAX_LIMITS];

    if (!before)
        return false;
    memcpy(before, policy->limits, policy->count * sizeof(*before));
    memset(left, true, sizeof(left));
    for (unsigned i = 0; i < policy->count; i++)
        order_limit(policy, i, left, order, &count);
    for (unsigned i = 0; i < policy->count; i++)
        number[order[i]] = i;
    for (unsigned i = 0; i < policy->count; i++) {
        policy->limits[i] = before[order[i]];
        if (policy->limits[i].parent >= 0)
            policy->limits[i].parent = (int)number[policy->limits[i].parent];
    }
    free(before);
    for (unsigned i = 0; i < policy->count; i++) {
        limit_set_put(&policy->by_key[policy->limits[i].key], i);
        for (int at = (int)i; at >= 0; at = policy->limits[at].parent)
            limit_set_put(&policy->limits[i].with_parents, (unsigned)at);
    }
    return true;
}

/* A chain longer than there are limits has a circle. */
static void check_circle(const struct policy *policy, const struct limit *limit)
{
    unsigned steps = 0;

    for (int at = limit->parent; at >= 0 && steps <= policy->count; at = policy->limits[at].parent)
        steps++;
    if (steps > policy->count)
        conf_fail(conf_get(limit->node, "parent"), "expected no circle of parents, but '%s' leads back",
                  policy->limits[limit->parent].name);
}

/* The largest, or the smallest, burst of a limit's buckets. */
static uint64_t burst_of(const struct policy *policy, const struct limit *limit, bool largest)
{
    uint32_t count = limit->prefixes ? limit->prefix_count : 1;
    uint64_t found = policy->allowed[limit->tag].rate.burst;

    for (uint32_t i = 1; i < count; i++) {
        uint64_t burst = policy->allowed[limit->tag + i].rate.burst;

        if (largest ? burst > found : burst < found)
            found = burst;
    }
    return found;
}

/* What borrowers leave for the children that are within their guarantees: the bursts of one key of each. */
static void keep_reserve(struct policy *policy, unsigned index)
{
    struct limit *parent = &policy->limits[index];
    const struct limit *borrower = NULL, *child;
    uint64_t bursts = 0;

    for (child = policy->limits; child < parent; child++) {
        if (child->parent != (int)index)
            continue;
        if (child->borrows)
            borrower = child;
        if (child->packets == parent->packets)
            bursts += burst_of(policy, child, true);
        else if (child->borrows)
            conf_expected(conf_get(child->node, "ceil"),
                          "a parent whose rate is in packets if this is, in bits if not");
    }
    if (!borrower)
        return;
    parent->reserve = bursts;
    if (burst_of(policy, parent, false) < 2 * bursts)
        conf_fail(conf_get(parent->node, "burst"),
                  "expected at least %llu, twice the bursts of its children, since '%s' may borrow",
                  2 * (unsigned long long)bursts, borrower->name);
}

bool policy_read_tree(struct policy *policy)
{
    for (unsigned i = 0; i < policy->count; i++) {
        struct limit *limit = &policy->limits[i];

        read_parent(policy, limit);
        if (limit->borrows && limit->parent < 0)
            conf_expected(conf_get(limit->node, "ceil"), "a parent to borrow from");
    }
    for (unsigned i = 0; i < policy->count; i++)
        check_circle(policy, &policy->limits[i]);
    if (conf_error(policy->conf))
        return true;
    if (!order_limits(policy))
        return false;
    for (unsigned i = 0; i < policy->count; i++)
        keep_reserve(policy, i);
    return true;
}
