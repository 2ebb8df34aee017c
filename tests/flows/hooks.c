/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A cache in the process, of the flows that the replica has: kept by the hooks, it is right at every packet, whoever
 * had the flow before and however it came.
 */

#include <stdlib.h>

#include "flows.h"

#define ENDS 37u /* packets, then the flow is closed */

struct record {
    uint32_t flow; /* its number plus one */
    uint32_t packets;
};

#define FLOWS 400u

struct cache {
    bool has[FLOWS + 1];
};

static const sm_class cls = {0};
static uint64_t adopted, released;

static uint32_t flow_number(sm_flow flow)
{
    return (uint32_t)sm_flow_key(flow)->a_port - 1024 + 1;
}

static void on_adopt(struct sm_replica *replica, sm_class of, sm_flow flow, void *user)
{
    const struct record *record = flow.state;
    bool *has = &((struct cache *)user)->has[record->flow];

    (void)replica;
    if (of.id != cls.id || record->flow != flow_number(flow) || *has)
        mistakes++;
    *has = true;
    adopted++;
}

static void on_release(struct sm_replica *replica, sm_class of, sm_flow flow, void *user)
{
    const struct record *record = flow.state;
    bool *has = &((struct cache *)user)->has[record->flow];

    (void)replica;
    if (of.id != cls.id || record->flow != flow_number(flow) || !*has)
        mistakes++;
    *has = false;
    released++;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number = packet_number(packet);
    bool created = false;
    sm_flow flow;

    if (sm_flow_create(replica, cls, packet, 0, &flow, &created) != 0) {
        mistakes++;
        return;
    }
    struct record *record = flow.state;
    bool *has = &((struct cache *)user)->has[flow_number(flow)];
    if (created == *has)
        mistakes++;
    *has = true;
    record->flow = flow_number(flow);
    noted[number] = ++record->packets;
    sm_packet_send(replica, packet, record, sizeof *record);
    if (record->packets == ENDS) {
        *has = false;
        sm_flow_close(replica, cls, flow);
    }
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_field whole = {"record", SM_FIELD_BYTES, 0, sizeof(struct record), NULL, 0};
    struct sm_class_options options = {
        .size = sizeof options,
        .name = "hooks",
        .record_size = sizeof(struct record),
        .fields = &whole,
        .field_count = 1,
        .granularity = SM_BY_FLOW,
        .on_adopt = on_adopt,
        .on_release = on_release,
    };
    sm_class got;

    options.user = *user = calloc(1, sizeof(struct cache));
    return *user ? sm_class_register(replica, &options, &got) : SM_E_NO_MEMORY;
}

/* A replica that retires has nothing left; a dead one's process would be gone with its cache. */
static void ended(struct sm_replica *replica, void *user)
{
    (void)replica;
    free(user);
}

static void model(const struct planned *plan, uint64_t *expected)
{
    static uint32_t packets[FLOWS];

    for (uint32_t i = 0; i < PACKETS; i++) {
        expected[i] = ++packets[plan[i].flow];
        if (packets[plan[i].flow] == ENDS)
            packets[plan[i].flow] = 0;
    }
    adopted = released = 0;
}

static const char *verdict(const struct sm_test_result *result)
{
    /* A shard of a dead replica comes without having been released. Of moves few come to their end between deaths. */
    if (result->deaths > 0)
        return adopted >= released ? NULL : "not all that left has come";
    if (result->moves == 0)
        return adopted || released ? "hooks were called without a move" : NULL;
    if (adopted == 0 || released == 0)
        return "the hooks were not called";
    return adopted == released ? NULL : "not all that left has come, or more";
}

const struct subject hooks = {.name = "hooks",
                              .flows = FLOWS,
                              .on_packet = on_packet,
                              .setup = setup,
                              .ended = ended,
                              .model = model,
                              .verdict = verdict};
