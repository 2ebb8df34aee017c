/* SPDX-License-Identifier: BSD-2-Clause */

/* The public calls on packets (include/splitmerge/packet.h). */

#include <string.h>

#include "packet/packet.h"
#include "replica/replica.h"

_Static_assert(SM_PACKET_SHARDS == SM_SHARDS, "one and the same");
_Static_assert(SM_MAX_SEND_BYTES <= POOL_SMALL_BYTES - POOL_DATA_OFFSET, "a reserve is of small buffers");

const uint8_t *sm_packet_data(const struct sm_packet *packet)
{
    packet->replica->reads_data = true;
    return packet->data;
}

uint32_t sm_packet_caplen(const struct sm_packet *packet)
{
    return packet->meta->caplen;
}

uint32_t sm_packet_len(const struct sm_packet *packet)
{
    return packet->meta->len;
}

sm_time sm_packet_time(const struct sm_packet *packet)
{
    return (sm_time){packet->time};
}

int sm_packet_linktype(const struct sm_packet *packet)
{
    return packet->replica->arena->linktype;
}

const struct sm_headers *sm_packet_headers(const struct sm_packet *packet)
{
    return &packet->meta->headers;
}

void sm_packet_key(const struct sm_packet *packet, enum sm_granularity granularity, struct sm_key *key)
{
    if (granularity != SM_BY_FLOW && granularity != SM_BY_HOST_PAIR && granularity != SM_BY_ALL)
        packet->replica->reads_data = true;
    if (granularity == SM_BY_VLAN) {
        sm_vlan_key(sm_packet_linktype(packet), packet->data, packet->meta->caplen, key);
        return;
    }
    sm_parsed_key((const struct sm_parsed *)(const void *)packet->meta, packet->data, packet->meta->caplen, granularity,
                  key);
}

uint32_t sm_packet_shard(const struct sm_packet *packet)
{
    return packet->shard;
}

uint8_t *sm_packet_writable(struct sm_packet *packet, uint32_t offset, uint32_t length)
{
    if (offset > packet->meta->caplen || length > packet->meta->caplen - offset)
        return NULL;
    if (!journal_image(&packet->replica->journal, packet->data + offset, length))
        return NULL;
    packet->replica->reads_data = true;
    packet->flags |= ANSWER_WRITTEN;
    return packet->data + offset;
}

void sm_packet_pass(struct sm_packet *packet)
{
    packet->flags &= (uint8_t)~ANSWER_DROP;
}

void sm_packet_drop(struct sm_packet *packet, uint16_t reason)
{
    packet->flags |= ANSWER_DROP;
    packet->reason = reason;
}

int sm_packet_delay(struct sm_packet *packet, sm_time until)
{
    uint64_t delay = until.ns > packet->time ? until.ns - packet->time : 0;

    if (!packet->replica->delays)
        return SM_E_STATE;
    if (delay > SM_MAX_DELAY_NS)
        return SM_E_LIMIT;
    packet->delay = delay;
    return 0;
}

int sm_packet_send(struct sm_replica *replica, struct sm_packet *cause, const void *data, uint32_t length)
{
    struct channel *channel = replica->channel;

    if (length == 0)
        return SM_E_INVALID;
    if (length > SM_MAX_SEND_BYTES || cause->sent == cause->meta->reserve_count)
        return SM_E_LIMIT;
    uint32_t buffer = cause->meta->reserve[cause->sent++];
    memcpy(pool_data(&replica->arena->pool, buffer), data, length);
    STEP();
    replica->out[replica->produced++ & channel->ring_mask] =
        (struct out_entry){.buffer = buffer, .length = length, .kind = OUT_GENERATED, .bound = replica->bound};
    replica_count(&channel->counters.generated, 1);
    return 0;
}
