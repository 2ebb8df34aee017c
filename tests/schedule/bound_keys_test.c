/* SPDX-License-Identifier: BSD-2-Clause */

/* A key that flows of two shards bind: its packets go to the flow that bound it first, and then to the other. */

#include <criterion/criterion.h>
#include <stdio.h>

#include <splitmerge/testing.h>

#define ROUNDS 60u
#define NOBODY 0u

enum deed { LOOK, BIND, END };

static const sm_class cls = {0};

/* A round's packets, by the ports of their flows, one of which binds first. */
static const struct {
    enum deed deed;
    uint16_t port;  /* 1, 2: who binds the key of 3 */
    uint16_t finds; /* a packet of 3: whose flow */
} script[] = {
    {BIND, 1, 0}, {LOOK, 3, 1}, {BIND, 2, 0}, {LOOK, 3, 1}, {LOOK, 3, 1}, {END, 1, 0}, {LOOK, 3, 2},
    {LOOK, 3, 2}, {BIND, 1, 0}, {LOOK, 3, 2}, {END, 2, 0},  {LOOK, 3, 1}, {END, 1, 0}, {LOOK, 3, NOBODY},
};

#define SCRIPT (sizeof script / sizeof *script)

static uint16_t found[ROUNDS * SCRIPT];

static void key_of(uint16_t round, struct sm_key *key)
{
    const uint8_t from[4] = {10, 0, 0, (uint8_t)round}, to[4] = {10, 0, 1, 2};

    sm_key_make(key, 4, 17, from, 3, to, 53);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const uint8_t *payload = sm_packet_data(packet) + 28;
    const uint16_t number = (uint16_t)(payload[1] << 8 | payload[2]), round = number / SCRIPT;
    sm_flow flow = sm_flow_get(replica, cls, packet, 0);
    struct sm_key key;

    (void)user;
    key_of(round, &key);
    switch ((enum deed)payload[0]) {
    case LOOK:
        found[number] = flow.state ? sm_flow_key(flow)->a_port : NOBODY;
        break;
    case BIND:
        cr_assert_eq(sm_flow_create(replica, cls, packet, 0, &flow, NULL), 0);
        cr_assert_eq(sm_flow_bind(replica, cls, flow, &key), 0);
        break;
    case END:
        sm_flow_close(replica, cls, flow);
        break;
    }
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "binders",
                                             .record_size = 8,
                                             .granularity = SM_BY_FLOW,
                                             .binds = "udp and ip[28] > 0"};
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static struct sm_trace *make_trace(void)
{
    struct sm_trace *trace = sm_trace_create();

    for (uint16_t number = 0; number < ROUNDS * SCRIPT; number++) {
        const uint16_t at = number % SCRIPT;
        const uint8_t payload[] = {(uint8_t)script[at].deed, (uint8_t)(number >> 8), (uint8_t)number};
        char from[32];
        snprintf(from, sizeof from, "10.0.0.%u:%u", (unsigned)(number / SCRIPT), script[at].port);
        sm_trace_udp(trace, (sm_time){1000000000000 + number * 1000000ull}, from, "10.0.1.2:53", payload, 3);
    }
    return trace;
}

Test(bound_keys, who_bound_first_has_the_packets)
{
    struct sm_trace *trace = make_trace();
    struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_packet, .setup = setup, .input = trace, .order_arrival = true};

    for (unsigned i = 0; i < 8; i++) {
        struct sm_test_result result;
        struct sm_errbuf error = {""};
        options.seed = i + 1;
        options.replicas = 1 + i % 4;
        options.schedule = i % 2;
        options.kills = i > 4 ? 60 : 0;
        cr_assert_eq(sm_test_run(&options, &result, &error), 0, "%s", error.text);
        cr_assert_str_empty(result.broken);
        for (unsigned number = 0; number < ROUNDS * SCRIPT; number++)
            cr_assert_eq(found[number], script[number % SCRIPT].finds, "seed %u, packet %u of round %zu: of flow %u",
                         i + 1, (unsigned)(number % SCRIPT), number / SCRIPT, found[number]);
    }
    sm_trace_destroy(trace);
}
