/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of flows: an array that grows, a list of nodes, now and then a chunk larger than a slab. Flows end by
 * themselves, with all that they hold. What is in that memory is compared with the model at each packet.
 */

#include <string.h>

#include "flows.h"

#define NODES 24u /* then the list is freed */
#define LIFE 180u /* packets, then the flow is closed */
#define BIG 100u  /* the packet at which it gets a large chunk */
#define BIG_BYTES 200000u
#define LIMIT 300000u

struct node {
    struct node *next;
    uint32_t number;
    uint8_t more[]; /* of some length */
};

struct record {
    uint32_t packets, room, nodes;
    uint32_t *numbers;
    struct node *list;
    uint8_t *big;
};

static const sm_class cls = {0};

static uint64_t mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x9e3779b97f4a7c15ull + 1;
}

static bool append(struct sm_replica *replica, sm_flow flow, uint32_t number)
{
    struct record *record = flow.state;
    uint32_t *place;

    if (record->packets == record->room) {
        uint32_t room = record->room ? record->room * 2 : 4;
        uint32_t *larger = sm_realloc(replica, cls, flow, record->numbers, room * sizeof *larger);
        if (!larger)
            return false;
        record->numbers = larger;
        record->room = room;
    } else if (!sm_writable(replica, record->numbers, record->packets * sizeof *record->numbers,
                            sizeof *record->numbers)) {
        return false;
    }
    place = &record->numbers[record->packets++];
    *place = number;
    return true;
}

static bool push(struct sm_replica *replica, sm_flow flow, uint32_t number)
{
    struct record *record = flow.state;

    if (record->nodes == NODES) {
        /* The second one first: out of the middle of the list. */
        struct node *second = record->list->next;
        if (!sm_writable(replica, record->list, 0, sizeof record->list->next))
            return false;
        record->list->next = second->next;
        sm_free(replica, cls, flow, second);
        while (record->list) {
            struct node *node = record->list;
            record->list = node->next;
            sm_free(replica, cls, flow, node);
        }
        record->nodes = 0;
    }
    struct node *node = sm_alloc(replica, cls, flow, sizeof *node + number % 700);
    if (!node)
        return false;
    for (uint32_t i = 0; i < number % 700; i++)
        if (node->more[i] != 0)
            return false;
    memset(node->more, 0xa5, number % 700);
    node->next = record->list;
    node->number = number;
    record->list = node;
    record->nodes++;
    return true;
}

static bool large(struct sm_replica *replica, sm_flow flow, uint32_t number)
{
    struct record *record = flow.state;

    if (record->packets == BIG) {
        if (sm_alloc(replica, cls, flow, LIMIT) != NULL)
            return false;
        record->big = sm_alloc(replica, cls, flow, BIG_BYTES);
        if (!record->big)
            return false;
    } else if (record->big && (sm_writable(replica, record->big, BIG_BYTES - 3, 4) ||
                               !sm_writable(replica, record->big, BIG_BYTES - 4, 4))) {
        return false;
    }
    if (record->big)
        memcpy(record->big + BIG_BYTES - 4, &number, sizeof number);
    return true;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number = packet_number(packet), last = 0;
    uint64_t sum = 0;
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) != 0) {
        mistakes++;
        return;
    }
    struct record *record = flow.state;
    if (record->big)
        memcpy(&last, record->big + BIG_BYTES - 4, sizeof last);
    if (!append(replica, flow, number) || !push(replica, flow, number) || !large(replica, flow, number))
        mistakes++;
    for (uint32_t i = 0; i < record->packets; i++)
        sum = mix(sum, record->numbers[i]);
    for (const struct node *node = record->list; node; node = node->next)
        sum = mix(sum, node->number);
    noted[number] = mix(sum, last);
    sm_packet_send(replica, packet, &noted[number], sizeof noted[number]);
    if (record->packets == LIFE)
        sm_flow_close(replica, cls, flow);
}

/* Addresses do not leave the arena: what is behind them does, the list from its end, as it grew. */
static int encode(struct sm_replica *replica, sm_class of, sm_flow flow, struct sm_writer *writer, void *user)
{
    const struct record *record = flow.state;
    const struct node *nodes[NODES];
    uint32_t count = 0;

    (void)replica, (void)of, (void)user;
    sm_write_uint(writer, "room", record->room);
    sm_write_bytes(writer, "numbers", record->numbers, record->packets * sizeof *record->numbers);
    for (const struct node *node = record->list; node; node = node->next)
        nodes[count++] = node;
    sm_write_list(writer, "list");
    while (count-- > 0)
        sm_write_uint(writer, NULL, nodes[count]->number);
    sm_write_end(writer);
    if (record->big)
        sm_write_bytes(writer, "big", record->big, BIG_BYTES);
    return 0;
}

static int decode(struct sm_replica *replica, sm_class of, sm_flow flow, uint32_t version, sm_value value, void *user)
{
    struct record *record = flow.state;
    size_t numbers, big;
    const void *bytes = sm_value_bytes(sm_value_get(value, "numbers"), &numbers);
    const void *last = sm_value_bytes(sm_value_get(value, "big"), &big);
    sm_value list = sm_value_get(value, "list"), item = {NULL, NULL};

    (void)of, (void)version, (void)user;
    record->room = (uint32_t)sm_value_uint(sm_value_get(value, "room"), 0);
    record->packets = (uint32_t)(numbers / sizeof *record->numbers);
    record->numbers = sm_alloc(replica, cls, flow, record->room * sizeof *record->numbers);
    if (!record->numbers)
        return SM_E_LIMIT;
    memcpy(record->numbers, bytes, numbers);
    while (sm_value_next(list, &item))
        if (!push(replica, flow, (uint32_t)sm_value_uint(item, 0)))
            return SM_E_LIMIT;
    if (last && !(record->big = sm_alloc(replica, cls, flow, big)))
        return SM_E_LIMIT;
    if (last)
        memcpy(record->big, last, big);
    return 0;
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = "chunks",
        .record_size = sizeof(struct record),
        .granularity = SM_BY_FLOW,
        .idle_timeout_ns = 400000000,
        .alloc_limit = LIMIT,
        .encode = encode,
        .decode = decode,
    };
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static void model(const struct planned *plan, uint64_t *expected)
{
    static struct {
        uint64_t last;
        uint32_t packets, nodes;
        uint32_t numbers[LIFE];
    } flows[65536];

    for (uint32_t i = 0; i < PACKETS; i++) {
        uint32_t of = plan[i].flow, last = 0;
        uint64_t sum = 0;
        if (plan[i].ns >= flows[of].last + 400000000)
            flows[of].packets = flows[of].nodes = 0;
        flows[of].last = plan[i].ns;
        if (flows[of].packets >= BIG)
            last = flows[of].numbers[flows[of].packets - 1];
        flows[of].numbers[flows[of].packets++] = i;
        flows[of].nodes = flows[of].nodes == NODES ? 1 : flows[of].nodes + 1;
        for (uint32_t n = 0; n < flows[of].packets; n++)
            sum = mix(sum, flows[of].numbers[n]);
        for (uint32_t n = 0; n < flows[of].nodes; n++)
            sum = mix(sum, flows[of].numbers[flows[of].packets - 1 - n]);
        expected[i] = mix(sum, last);
        if (flows[of].packets == LIFE)
            flows[of].packets = flows[of].nodes = 0;
    }
}

const struct subject chunks = {.name = "chunks", .flows = 24, .on_packet = on_packet, .setup = setup, .model = model};
