/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Buffers of the pool: two free lists, last in first out so that warm buffers are used again, and the reserve that
 * each packet has for packets that the middlebox makes because of it.
 */

#include <assert.h>

#include "switch/switch.h"

uint32_t switch_buffer_take(struct sm_switch *sw, uint32_t bytes)
{
    uint32_t *list = bytes <= POOL_SMALL_BYTES - POOL_DATA_OFFSET ? &sw->free_small : &sw->free_jumbo;
    uint32_t buffer = *list;

    if (buffer != POOL_NONE) {
        *list = sw->packets[buffer].next;
        sw->packets[buffer].place = PLACE_WINDOW;
    }
    return buffer;
}

void switch_buffer_free(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];
    uint32_t *list = buffer < sw->pool.small_count ? &sw->free_small : &sw->free_jumbo;

    assert(packet->place != PLACE_FREE);
    packet->place = PLACE_FREE;
    packet->next = *list;
    *list = buffer;
}

/* A packet is admitted with a buffer for everything that may be sent because of it. */
bool switch_reserve_take(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];
    struct packet_meta *meta = pool_meta(&sw->pool, buffer);

    packet->reserve_count = 0;
    if (sw->sends == 0)
        return true;
    for (; packet->reserve_count < sw->sends; packet->reserve_count++) {
        uint32_t reserve = switch_buffer_take(sw, 1);
        if (reserve == POOL_NONE) {
            switch_reserve_free(sw, packet, 0);
            return false;
        }
        sw->packets[reserve].place = PLACE_RESERVE;
        packet->reserve[packet->reserve_count] = meta->reserve[packet->reserve_count] = reserve;
    }
    meta->reserve_count = packet->reserve_count;
    return true;
}

/* Give back what was not used: all but the first `used`. */
void switch_reserve_free(struct sm_switch *sw, struct switch_packet *packet, unsigned used)
{
    while (packet->reserve_count > used)
        switch_buffer_free(sw, packet->reserve[--packet->reserve_count]);
    packet->reserve_count = 0;
}
