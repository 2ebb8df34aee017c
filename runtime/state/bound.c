/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bindings: further keys by which a flow is found, in its own shard.
 *
 * Overview.  A binding is an entry of the shard's table like a flow's, of a class of its own that nobody registers: its
 * key is the bound one, its record refers to the flow that it is bound to. So it is found, undone, moved and checked as
 * flows are. A flow has a list of its bindings.
 *
 * Life-cycle.  Made for a flow, linked; unlinked and removed; or removed with its flow.
 *
 * Concurrency.  The shard's owner only.
 *
 * Limits.  In all: that of the class. Of a flow: SM_MAX_BINDINGS, so that its end fits in the journal.
 */

#include "state/internal.h"

void bindings_format(struct state *state, uint32_t limit)
{
    state->forms[BINDING_FORM] =
        (struct state_class){.name = "bindings", .record_size = sizeof(struct binding), .limit = limit};
    int bin = slab_bin_for(state, flow_bytes(sizeof(struct binding), 0, false));
    assert(bin >= 0 && "the first bin that is asked for");
    state->form_bin[BINDING_FORM] = (uint8_t)bin;
}

static struct flow_chunks *head_of(const struct flow *flow)
{
    assert(flow->has_chunks && "of a class that binds");
    return flow_object((struct flow *)(uintptr_t)flow);
}

static struct binding *binding_at(const struct state *state, uint32_t ref)
{
    return flow_record(flow_at(state, ref));
}

static unsigned count_bindings(const struct state *state, const struct flow *flow)
{
    unsigned count = 0;
    for (uint32_t ref = head_of(flow)->bindings; ref != 0; ref = binding_at(state, ref)->next) {
        count++;
    }
    return count;
}

struct flow *state_bound(const struct state *state, uint32_t shard, const struct sm_key *key, uint64_t hash)
{
    struct flow *entry = state_find(state, shard, STATE_BINDING, key, hash);
    const struct binding *binding = entry != NULL ? flow_record(entry) : NULL;
    return binding != NULL ? flow_at(state, binding->flow) : NULL;
}

int state_bind(struct state_actor *actor, uint32_t shard, struct flow *flow, const struct sm_key *key, uint64_t hash)
{
    const struct state *state = actor->state;
    const struct flow *there = state_bound(state, shard, key, hash);
    if (there != NULL) {
        return there == flow ? 0 : SM_E_CONFLICT;
    }
    struct flow *entry;
    if (count_bindings(state, flow) == SM_MAX_BINDINGS || state->forms[BINDING_FORM].limit == 0) {
        return SM_E_LIMIT;
    }
    int result = state_insert(actor, shard, STATE_BINDING, key, hash, &entry);
    if (result != 0) {
        return result;
    }
    struct flow_chunks *head = head_of(flow);
    struct binding *binding = flow_record(entry);
    binding->flow = flow_ref(state, flow);
    binding->next = head->bindings;
    save(actor, head, sizeof *head);
    STEP();
    head->bindings = flow_ref(state, entry);
    return 0;
}

int state_unbind(struct state_actor *actor, uint32_t shard, struct flow *flow, const struct sm_key *key, uint64_t hash)
{
    const struct state *state = actor->state;
    struct flow *entry = state_find(state, shard, STATE_BINDING, key, hash);
    if (entry == NULL || state_bound(state, shard, key, hash) != flow) {
        return SM_E_NOT_FOUND;
    }
    uint32_t *link = &head_of(flow)->bindings;
    while (*link != flow_ref(state, entry)) {
        link = &binding_at(state, *link)->next;
    }
    save(actor, link, sizeof *link);
    STEP();
    *link = ((const struct binding *)flow_record(entry))->next;
    state_remove(actor, shard, entry);
    return 0;
}

void bindings_release(struct state_actor *actor, uint32_t index, struct flow *flow)
{
    if (!flow->has_chunks) {
        return;
    }
    struct flow_chunks *head = head_of(flow);
    while (head->bindings != 0) {
        struct flow *entry = flow_at(actor->state, head->bindings);
        save(actor, head, sizeof *head);
        STEP();
        head->bindings = ((const struct binding *)flow_record(entry))->next;
        state_remove(actor, index, entry);
    }
}

void bindings_hand_over(struct state_actor *actor, struct flow *from, struct flow *to)
{
    const struct state *state = actor->state;
    if (!from->has_chunks) {
        return;
    }
    struct flow_chunks *head = head_of(from);
    for (uint32_t ref = head->bindings; ref != 0; ref = binding_at(state, ref)->next) {
        struct binding *binding = binding_at(state, ref);
        save(actor, binding, sizeof *binding);
        STEP();
        binding->flow = flow_ref(state, to);
    }
    if (head->bindings != 0) {
        head_of(to)->bindings = head->bindings;
        save(actor, head, sizeof *head);
        STEP();
        head->bindings = 0;
    }
}

const struct sm_key *state_binding(const struct state *state, const struct flow *flow, uint32_t *cursor)
{
    if (!flow->has_chunks) {
        return NULL;
    }
    *cursor = *cursor == 0 ? head_of(flow)->bindings : binding_at(state, *cursor)->next;
    return *cursor != 0 ? &flow_at(state, *cursor)->key : NULL;
}
