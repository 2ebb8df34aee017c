/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The public calls that bind keys to flows (include/splitmerge/flow.h).
 *
 * A binding is kept in the flow's shard (state/bound.c); that it has begun or ended is written in the ring of bindings,
 * for the switch, and is final with the burst.
 */

#include <string.h>

#include "packet/packet.h"
#include "replica/replica.h"

#define LINKTYPE_RAW 12 /* DLT_RAW on Linux: a packet begins with its IP header */

bool bind_declared(const struct sm_class_options *options)
{
    return !options->binds || (options->binds[0] != '\0' && strlen(options->binds) < SM_MAX_BINDS_FILTER &&
                               options->granularity == SM_BY_FLOW && !options->may_share);
}

int bind_register(struct sm_replica *replica, unsigned cls, const struct sm_class_options *options)
{
    struct sm_errbuf error;

    if (!options->binds)
        return 0;
    return sm_filter_create(&replica->classes[cls].binds, LINKTYPE_RAW, options->binds, &error);
}

void bind_forget(struct sm_replica *replica)
{
    for (unsigned i = 0; i < SM_MAX_CLASSES; i++)
        sm_filter_destroy(replica->classes[i].binds);
}

static void tell(struct sm_replica *replica, uint32_t shard, const struct sm_key *key, bool ends)
{
    struct bind_entry *ring = channel_bind(replica->channel);

    ring[replica->bound++ & replica->channel->bind_mask] =
        (struct bind_entry){.key = *key, .shard = (uint16_t)shard, .ends = ends};
}

static bool declared(const struct sm_replica *replica, sm_class cls, const struct sm_packet *packet)
{
    const struct packet_meta *meta = packet->meta;
    uint32_t ip = meta->headers.l3;

    return replica->classes[cls.id].binds &&
           sm_filter_match(replica->classes[cls.id].binds, packet->data + ip, meta->caplen - ip, meta->len - ip);
}

int sm_flow_bind(struct sm_replica *replica, sm_class cls, sm_flow flow, const struct sm_key *key)
{
    struct sm_packet *packet = replica->current;

    if (!packet || key->tag != 0 || key->family == 0 || !declared(replica, cls, packet))
        return SM_E_INVALID;
    if (packet->binds == SM_MAX_BINDS)
        return SM_E_LIMIT;
    int result =
        state_bind(replica->actor, packet->shard, flow_of_record(flow.state), key, state_hash(replica->state, key));
    if (result)
        return result;
    packet->binds++;
    tell(replica, packet->shard, key, false);
    return 0;
}

int sm_flow_unbind(struct sm_replica *replica, sm_class cls, sm_flow flow, const struct sm_key *key)
{
    if (!replica->classes[cls.id].binds)
        return SM_E_INVALID;
    int result = state_unbind(replica->actor, replica->current_shard, flow_of_record(flow.state), key,
                              state_hash(replica->state, key));
    if (result == 0)
        tell(replica, replica->current_shard, key, true);
    return result;
}

void bind_end(struct sm_replica *replica, uint32_t shard, const struct flow *flow)
{
    const struct sm_key *key;

    for (uint32_t cursor = 0; (key = state_binding(replica->state, flow, &cursor)) != NULL;)
        tell(replica, shard, key, true);
}
