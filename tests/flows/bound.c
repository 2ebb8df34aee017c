/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bound keys. Of each pair of flows, packets of the even one now and then bind the key of the odd one, or unbind it;
 * while it is bound, packets of the odd one find the even one's flow, wherever the two keys' own shards are.
 */

#include <string.h>

#include "flows.h"

#define ENDS 40u /* packets, then the flow is closed */
#define IDLE 400000000u
#define FLOWS 96u

/* What the packets of this number may do; the filter below says the same of the first. */
static bool binds(uint32_t number)
{
    return number % 4 == 0;
}

static bool unbinds(uint32_t number)
{
    return number % 16 == 5;
}

static const sm_class cls = {0};

static void key_of(uint32_t flow, struct sm_key *key)
{
    static const uint8_t from[4] = {10, 0, 0, 1}, to[4] = {10, 0, 0, 2};

    sm_key_make(key, 4, 17, from, (uint16_t)(1024 + flow), to, 53);
}

static uint32_t flow_number(const struct sm_packet *packet)
{
    struct sm_key key;

    sm_packet_key(packet, SM_BY_FLOW, &key);
    return (uint32_t)key.a_port - 1024;
}

/* Another flow of the shard may not have the key; nor may it be bound by a packet that is not declared. */
static void try_what_is_refused(struct sm_replica *replica, struct sm_packet *packet, sm_flow flow,
                                const struct sm_key *key)
{
    sm_flow other;

    if (!binds(packet_number(packet))) {
        mistakes += sm_flow_bind(replica, cls, flow, key) != SM_E_INVALID;
        return;
    }
    if (sm_flow_create(replica, cls, packet, 1, &other, NULL) != 0) {
        mistakes++;
        return;
    }
    mistakes += sm_flow_bind(replica, cls, other, key) != SM_E_CONFLICT;
    mistakes += sm_flow_unbind(replica, cls, other, key) != SM_E_NOT_FOUND;
    sm_flow_close(replica, cls, other);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number = packet_number(packet), of = flow_number(packet);
    sm_flow flow = sm_flow_get(replica, cls, packet, 0);
    struct sm_key odd;

    (void)user;
    noted[number] = 0;
    if (!flow.state && of % 2 == 0 && sm_flow_create(replica, cls, packet, 0, &flow, NULL) != 0)
        mistakes++;
    if (!flow.state)
        return;
    uint32_t *packets = flow.state;
    noted[number] = (uint64_t)flow_number(packet) / 2 << 32 | ++*packets;
    sm_packet_send(replica, packet, &noted[number], sizeof noted[number]);
    mistakes += sm_flow_key(flow)->a_port % 2;
    key_of(of | 1, &odd);
    if (of % 2 == 0 && binds(number) && sm_flow_bind(replica, cls, flow, &odd) != 0)
        mistakes++;
    if (of % 2 == 0 && binds(number) && sm_flow_bind(replica, cls, flow, &odd) != 0)
        mistakes++; /* again: it is there */
    try_what_is_refused(replica, packet, flow, &odd);
    if (unbinds(number))
        sm_flow_unbind(replica, cls, flow, &odd);
    if (*packets == ENDS)
        sm_flow_close(replica, cls, flow);
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_field number = {"number", SM_FIELD_UINT, 0, sizeof(uint32_t), NULL, 0};
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = "bind",
        .record_size = sizeof(uint32_t),
        .fields = &number,
        .field_count = 1,
        .granularity = SM_BY_FLOW,
        .idle_timeout_ns = IDLE,
        .binds = "udp and ip[28] & 3 = 0", /* the number, lowest byte first */
    };
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static void model(const struct planned *plan, uint64_t *expected)
{
    struct {
        uint64_t last;
        uint32_t packets; /* 0: there is no flow */
        bool bound;
    } pairs[FLOWS / 2] = {{0}};

    for (uint32_t i = 0; i < PACKETS; i++) {
        uint32_t of = plan[i].flow, pair = of / 2;
        bool odd = of % 2;
        if (plan[i].ns >= pairs[pair].last + IDLE)
            pairs[pair].packets = 0;
        if (pairs[pair].packets == 0)
            pairs[pair].bound = false;
        expected[i] = 0;
        if (odd && !pairs[pair].bound)
            continue;
        pairs[pair].last = plan[i].ns;
        expected[i] = (uint64_t)pair << 32 | ++pairs[pair].packets;
        if (!odd && binds(i))
            pairs[pair].bound = true;
        if (unbinds(i))
            pairs[pair].bound = false;
        if (pairs[pair].packets == ENDS)
            pairs[pair].packets = 0;
    }
}

static const char *verdict(const struct sm_test_result *result)
{
    return result->bindings_steered > 100 ? NULL : "hardly a packet was steered by a bound key";
}

const struct subject bound = {
    .name = "bound", .flows = FLOWS, .on_packet = on_packet, .setup = setup, .model = model, .verdict = verdict};
