/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which key steers packets, and so which classes are partitioned (design D3). A class is partitioned when the steering
 * key is a function of the class's key for every packet: then all packets of a flow meet one replica.
 */

#include "arena/arena.h"

bool steering_partitions(enum sm_granularity steering, enum sm_granularity granularity)
{
    if (granularity == SM_BY_ALL)
        return false;
    return granularity == steering || (steering == SM_BY_HOST_PAIR && granularity == SM_BY_FLOW);
}

enum sm_granularity steering_choose(const struct state_class *classes, unsigned count)
{
    enum sm_granularity best = SM_BY_FLOW;
    unsigned most = 0;

    for (unsigned i = 0; i < count; i++) {
        unsigned partitioned = 0;
        for (unsigned j = 0; j < count; j++)
            partitioned += steering_partitions(classes[i].granularity, classes[j].granularity);
        if (partitioned > most) {
            most = partitioned;
            best = classes[i].granularity;
        }
    }
    return best;
}
