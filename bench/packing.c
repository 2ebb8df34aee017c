/* SPDX-License-Identifier: BSD-2-Clause */
#include "packing.h"

#include <msgpack.h>

#include "replica/replica.h"

static void pack_flow(msgpack_packer *packer, const struct state *state, const struct state_class *cls,
                      struct flow *flow)
{
    msgpack_pack_array(packer, 4);
    msgpack_pack_uint8(packer, (uint8_t)flow_class(flow));
    msgpack_pack_bin(packer, sizeof(struct sm_key));
    msgpack_pack_bin_body(packer, flow_key(flow), sizeof(struct sm_key));
    msgpack_pack_array(packer, cls->timers);
    for (unsigned slot = 0; slot < cls->timers; slot++)
        msgpack_pack_uint64(packer, state_timer_get(state, flow, slot).ns);
    msgpack_pack_bin(packer, cls->record_size);
    msgpack_pack_bin_body(packer, flow_record(flow), cls->record_size);
}

uint64_t packing_reference(struct state *state)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    uint64_t flows = 0;
    struct flow *flow;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        for (uint32_t cursor = 0; (flow = state_next(state, shard, &cursor)) != NULL; flows++)
            pack_flow(&packer, state, state_class(state, flow_class(flow)), flow);
    msgpack_sbuffer_destroy(&buffer);
    return flows;
}
