/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Buffers of the pool: two free lists, last in first out so that warm buffers are used again, and the reserve that
 * each replica has for packets that it makes.
 */

#include <assert.h>

#include "switch/switch.h"

uint32_t switch_buffer_take(struct sm_switch *sw, uint32_t bytes)
{
    uint32_t *list = bytes <= POOL_SMALL_BYTES - POOL_DATA_OFFSET ? &sw->free_small : &sw->free_jumbo;
    uint32_t buffer = *list;

    if (buffer != POOL_NONE)
        *list = sw->packets[buffer].next;
    return buffer;
}

void switch_buffer_free(struct sm_switch *sw, uint32_t buffer)
{
    struct switch_packet *packet = &sw->packets[buffer];
    uint32_t *list = buffer < sw->arena->pool.small_count ? &sw->free_small : &sw->free_jumbo;

    assert(packet->place != PLACE_FREE);
    packet->place = PLACE_FREE;
    packet->next = *list;
    *list = buffer;
}

void switch_lend(struct sm_switch *sw, unsigned slot)
{
    struct switch_slot *s = &sw->slots[slot];
    uint32_t head = atomic_load_explicit(&s->channel->reserve_head, memory_order_relaxed);

    for (; s->lent < CHANNEL_RESERVE; s->lent++) {
        uint32_t buffer = switch_buffer_take(sw, 1);
        if (buffer == POOL_NONE)
            break;
        sw->packets[buffer].place = PLACE_LENT;
        sw->packets[buffer].slot = (uint8_t)slot;
        s->channel->reserve[head++ % CHANNEL_RESERVE] = buffer;
    }
    atomic_store_explicit(&s->channel->reserve_head, head, memory_order_release);
}
