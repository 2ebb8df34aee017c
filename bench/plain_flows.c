/* SPDX-License-Identifier: BSD-2-Clause */
#include "plain_flows.h"

#include <stddef.h>
#include <stdlib.h>

#include "bench.h"
#include "state/lookup.h"
#include "testing/random.h"

/* In the harness's table: when the timer fires (0: not armed), then the record. */
struct value {
    uint64_t deadline;
    uint8_t record[];
};

static struct value *value_of(void *record)
{
    return (struct value *)(void *)((uint8_t *)record - offsetof(struct value, record));
}

static bool open_state(struct plain_flows *flows, uint32_t count, uint32_t record_bytes)
{
    struct state_config config = {.memory = (uint64_t)count * 512 + (64u << 20), .flows = 2 * count};
    const struct state_class cls = {.name = "flow", .record_size = record_bytes, .timers = 1};
    const size_t bytes = state_bytes(&config);

    uint64_t random = 1;
    for (unsigned i = 0; i < STATE_SECRET_BYTES; i++)
        config.secret[i] = (uint8_t)(random_star(&random) >> 32);
    flows->memory = bench_memory(bytes);
    return flows->memory && state_format(&flows->state, flows->memory, bytes, &config) == 0 &&
           state_actor_join(&flows->actor, flows->state, 0) == 0 && state_class_add(flows->state, &cls) == 0;
}

bool plain_flows_open(struct plain_flows *flows, bool library, uint32_t count, uint32_t record_bytes)
{
    *flows = (struct plain_flows){.sweep = 0};
    return library ? open_state(flows, count, record_bytes)
                   : table_init(&flows->table, count, (uint32_t)sizeof(struct value) + record_bytes);
}

void plain_flows_close(struct plain_flows *flows)
{
    free(flows->memory);
    table_free(&flows->table);
}

void *plain_flows_find(struct plain_flows *flows, const struct sm_key *key)
{
    if (!flows->state) {
        struct value *value = table_find(&flows->table, key, table_hash(key));
        return value ? value->record : NULL;
    }
    uint64_t hash = state_hash(flows->state, key);
    flows->shard = state_shard_of(hash);
    struct flow *flow = lookup_flow(flows->state, flows->shard, 0, key, key->tag, hash);
    return flow ? flow_record(flow) : NULL;
}

void *plain_flows_insert(struct plain_flows *flows, const struct sm_key *key)
{
    if (!flows->state) {
        struct value *value = table_insert(&flows->table, key, table_hash(key));
        return value ? value->record : NULL;
    }
    uint64_t hash = state_hash(flows->state, key);
    struct flow *flow;
    flows->shard = state_shard_of(hash);
    return state_insert(flows->actor, flows->shard, 0, key, hash, &flow) == 0 ? flow_record(flow) : NULL;
}

void plain_flows_remove(struct plain_flows *flows, void *record)
{
    if (flows->state)
        state_remove(flows->actor, flows->shard, flow_of_record(record));
    else
        table_remove(&flows->table, value_of(record));
}

void plain_flows_arm(struct plain_flows *flows, void *record, uint64_t deadline)
{
    if (flows->state)
        state_timer_set(flows->actor, flows->shard, flow_of_record(record), 0, (sm_time){deadline});
    else
        value_of(record)->deadline = deadline;
}

/* One shard after the other. */
static void *state_due(struct plain_flows *flows, uint64_t now, uint64_t *deadline)
{
    struct flow *flow;
    unsigned slot;
    sm_time due;

    flows->shard = (uint32_t)(flows->sweep++ % SM_SHARDS);
    if (state_timer_next(flows->state, flows->shard) > now ||
        !state_timer_expire(flows->actor, flows->shard, (sm_time){now}, &flow, &slot, &due))
        return NULL;
    *deadline = due.ns;
    return flow_record(flow);
}

void *plain_flows_due(struct plain_flows *flows, uint64_t now, uint64_t *deadline)
{
    if (flows->state)
        return state_due(flows, now, deadline);
    struct value *value = table_next(&flows->table, &flows->sweep);
    if (!value) {
        flows->sweep = 0;
        return NULL;
    }
    if (value->deadline == 0 || value->deadline > now)
        return NULL;
    *deadline = value->deadline;
    value->deadline = 0;
    return value->record;
}
