/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Enumerating flows in a handler, and in a program's own loop. The packets are steered by host pair and all have the
 * same: whoever owns that shard sees all flows.
 */

#include "flows.h"

#define EVERY 40u /* packets */
#define OLD 6u    /* packets of a flow that is closed when it is met */

struct record {
    uint32_t packets, visits;
    uint8_t more[500];
};

struct total {
    uint64_t packets, visits, flows, closed;
};

static const sm_class cls = {1};

static void visit(struct sm_replica *replica, sm_class of, sm_flow flow, void *user)
{
    struct record *record = flow.state;
    struct total *total = user;

    total->flows++;
    total->packets += record->packets;
    total->visits += record->visits;
    if (!sm_flow_writable(replica, of, flow)) {
        mistakes++;
        return;
    }
    record->visits++;
    if (record->packets >= OLD) {
        sm_flow_close(replica, of, flow);
        total->closed++;
    }
}

static void read_only(struct sm_replica *replica, sm_class of, sm_flow flow, void *user)
{
    (void)replica, (void)of;
    ((struct total *)user)->packets += ((struct record *)flow.state)->packets;
}

static uint64_t note(const struct total *total, const struct record *record)
{
    return total->packets << 40 | total->visits << 24 | total->flows << 12 | (record->packets + record->visits);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number = packet_number(packet);
    struct total total = {0};
    sm_flow flow;

    (void)user;
    if (number % EVERY == 0) {
        struct total again = {0}, after = {0};
        if (sm_flow_each(replica, cls, visit, &total) != 0)
            mistakes++;
        sm_flow_each(replica, cls, read_only, &again);
        sm_flow_each(replica, cls, read_only, &after);
        if (again.packets != after.packets || again.packets + OLD * total.closed > total.packets)
            mistakes++;
    }
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) != 0) {
        mistakes++;
        return;
    }
    struct record *record = flow.state;
    record->packets++;
    noted[number] = note(&total, record);
    sm_packet_send(replica, packet, &noted[number], sizeof noted[number]);
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_field number = {"number", SM_FIELD_UINT, 0, 8, NULL, 0};
    const struct sm_field whole = {"record", SM_FIELD_BYTES, 0, sizeof(struct record), NULL, 0};
    struct sm_class_options options = {.size = sizeof options,
                                       .name = "pair",
                                       .record_size = 8,
                                       .fields = &number,
                                       .field_count = 1,
                                       .granularity = SM_BY_HOST_PAIR};
    sm_class got;

    (void)user;
    int result = sm_class_register(replica, &options, &got);
    options = (struct sm_class_options){.size = sizeof options,
                                        .name = "each",
                                        .record_size = sizeof(struct record),
                                        .fields = &whole,
                                        .field_count = 1,
                                        .granularity = SM_BY_FLOW};
    return result ? result : sm_class_register(replica, &options, &got);
}

static void model(const struct planned *plan, uint64_t *expected)
{
    static struct record records[65536];

    for (uint32_t i = 0; i < PACKETS; i++) {
        struct total total = {0};
        for (uint32_t flow = 0; i % EVERY == 0 && flow < 65536; flow++) {
            if (records[flow].packets == 0)
                continue;
            total.flows++;
            total.packets += records[flow].packets;
            total.visits += records[flow].visits++;
            if (records[flow].packets >= OLD)
                records[flow] = (struct record){0};
        }
        records[plan[i].flow].packets++;
        expected[i] = note(&total, &records[plan[i].flow]);
    }
}

const struct subject each = {.name = "each", .flows = 150, .on_packet = on_packet, .setup = setup, .model = model};

static void count(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) == 0)
        ((struct record *)flow.state)->packets++;
}

const char *each_between(const char *input)
{
    const struct sm_options options = {.size = sizeof options, .name = "between", .on_packet = count, .input = input};
    struct sm_replica *replica;
    struct sm_errbuf error;
    uint64_t taken = 0;
    unsigned limits = 0;
    int done;

    if (sm_open(&replica, &options, &error) != 0)
        return "no standalone run";
    setup(replica, NULL);
    if (sm_start(replica, &error) != 0)
        return "it did not start";
    while ((done = sm_poll(replica, 16)) >= 0) {
        /* Each time again until it is too much for one burst: the next must still find its room. */
        for (unsigned i = 0; i < 100; i++) {
            struct total total = {0};
            int result = sm_flow_each(replica, cls, visit, &total);
            limits += result == SM_E_LIMIT;
            if (result != 0)
                break;
            taken += total.closed;
        }
    }
    sm_close(replica);
    return done != SM_E_END            ? "it did not end"
           : taken == 0 || limits == 0 ? "nothing was closed, or no limit was met"
                                       : NULL;
}
