/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which key steers packets, and so which classes are partitioned (design D3). A class is partitioned when the steering
 * key is a function of the class's key for every packet: then all packets of a flow meet one replica.
 *
 * Two-way keys: the flow gives the host pair. One-way keys: an address gives its first bits. So of classes by the same
 * address the shortest prefix partitions all; where one is shorter for IPv4 and another for IPv6, the shorter of both.
 */

#include <stdio.h>

#include "arena/arena.h"

static bool one_way(unsigned granularity)
{
    return granularity == SM_BY_SOURCE || granularity == SM_BY_DESTINATION;
}

static unsigned bits4(struct keying key)
{
    return key.prefix4 ? key.prefix4 : 32;
}

static unsigned bits6(struct keying key)
{
    return key.prefix6 ? key.prefix6 : 128;
}

bool steering_partitions(struct keying steering, struct keying key)
{
    if (sm_granularity_is_shared(key.granularity))
        return false;
    if (one_way(key.granularity))
        return key.granularity == steering.granularity && bits4(steering) <= bits4(key) &&
               bits6(steering) <= bits6(key);
    return key.granularity == steering.granularity ||
           (steering.granularity == SM_BY_HOST_PAIR && key.granularity == SM_BY_FLOW);
}

/* The longest prefixes that partition all classes by the same address as `key`. */
static struct keying meet(struct keying key, const struct state_class *classes, unsigned count)
{
    for (unsigned i = 0; i < count && one_way(key.granularity); i++) {
        struct keying other = classes[i].key;
        if (other.granularity != key.granularity)
            continue;
        key.prefix4 = bits4(other) < bits4(key) ? other.prefix4 : key.prefix4;
        key.prefix6 = bits6(other) < bits6(key) ? other.prefix6 : key.prefix6;
    }
    return key;
}

struct keying steering_choose(const struct state_class *classes, unsigned count)
{
    struct keying best = {.granularity = SM_BY_FLOW};
    unsigned most = 0;

    for (unsigned i = 0; i < count; i++) {
        struct keying steering = meet(classes[i].key, classes, count);
        unsigned partitioned = 0;
        for (unsigned j = 0; j < count; j++)
            partitioned += steering_partitions(steering, classes[j].key);
        if (partitioned > most) {
            most = partitioned;
            best = steering;
        }
    }
    return best;
}

const char *keying_text(struct keying key, char text[static KEYING_TEXT])
{
    const char *name = sm_granularity_name((enum sm_granularity)key.granularity);

    if (key.prefix4 || key.prefix6)
        snprintf(text, KEYING_TEXT, "%s/%u/%u", name, bits4(key), bits6(key));
    else
        snprintf(text, KEYING_TEXT, "%s", name);
    return text;
}
