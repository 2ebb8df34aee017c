/* SPDX-License-Identifier: BSD-2-Clause */

/* Buffers that are spoken for: lent to ports, and the reserve that each packet has for packets that the middlebox makes
 * because of it. */

#include "switch/switch.h"

uint32_t switch_lend(void *arg)
{
    struct sm_switch *sw = arg;
    uint32_t buffer = switch_buffer_take(sw, 1);

    if (buffer != POOL_NONE)
        sw->packets[buffer].place = PLACE_PORT;
    return buffer;
}

void switch_lent_back(void *sw, uint32_t buffer)
{
    switch_buffer_free(sw, buffer);
}

/* A packet is admitted with a buffer for everything that may be sent because of it. */
bool switch_reserve_take(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_reserve *reserve = &sw->reserves[buffer];
    struct packet_meta *meta = pool_meta(&sw->pool, buffer);

    for (; reserve->count < sw->sends; reserve->count++) {
        uint32_t spare = switch_buffer_take(sw, 1);
        if (spare == POOL_NONE) {
            switch_reserve_free(sw, buffer, 0);
            return false;
        }
        sw->packets[spare].place = PLACE_RESERVE;
        reserve->buffers[reserve->count] = meta->reserve[reserve->count] = spare;
    }
    meta->reserve_count = reserve->count;
    return true;
}

/* Give back what was not used: all but the first `used`. */
void switch_reserve_free(struct sm_switch *sw, uint32_t buffer, unsigned used)
{
    struct switch_reserve *reserve = &sw->reserves[buffer];

    while (reserve->count > used)
        switch_buffer_free(sw, reserve->buffers[--reserve->count]);
    reserve->count = 0;
}
