/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * At a class's limit the longest idle flow makes room. The packets are steered by host pair and all have the same, so
 * that there is one shard, and the model is exact whoever owns it.
 */

#include <string.h>

#include "flows.h"

#define LIMIT 60u
#define REFUSED 0xfffffffeull

struct record {
    uint64_t last;
    uint64_t packets;
};

static const sm_class cls = {1};
static uint64_t evicted, refused;

static void on_expire(struct sm_replica *replica, sm_class of, sm_flow flow, enum sm_ending why, sm_time now,
                      void *user)
{
    struct record *record = flow.state;

    (void)replica, (void)user;
    if (why != SM_ENDED_EVICTED || record->last >= now.ns || record->packets == 0 || of.id != cls.id)
        mistakes++;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number = packet_number(packet);
    sm_flow flow;

    (void)user;
    noted[number] = REFUSED;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) != 0)
        return;
    struct record *record = flow.state;
    record->last = sm_packet_time(packet).ns;
    noted[number] = ++record->packets;
    sm_packet_send(replica, packet, record, sizeof *record);
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
    options = (struct sm_class_options){
        .size = sizeof options,
        .name = "evict",
        .record_size = sizeof(struct record),
        .fields = &whole,
        .field_count = 1,
        .granularity = SM_BY_FLOW,
        .limit = LIMIT,
        .at_limit = SM_AT_LIMIT_EVICT,
        .on_expire = on_expire,
    };
    return result ? result : sm_class_register(replica, &options, &got);
}

/* The port decides between keys, compared as bytes. */
static bool key_before(uint32_t a, uint32_t b)
{
    const uint16_t left = (uint16_t)(1024 + a), right = (uint16_t)(1024 + b);

    return memcmp(&left, &right, sizeof left) < 0;
}

static void model(const struct planned *plan, uint64_t *expected)
{
    static struct record records[65536];
    uint32_t live = 0;

    for (uint32_t i = 0; i < PACKETS; i++) {
        struct record *record = &records[plan[i].flow];
        if (record->packets == 0 && live == LIMIT) {
            uint32_t best = UINT32_MAX;
            for (uint32_t flow = 0; flow < 65536; flow++)
                if (records[flow].packets > 0 && records[flow].last < plan[i].ns &&
                    (best == UINT32_MAX || records[flow].last < records[best].last ||
                     (records[flow].last == records[best].last && key_before(flow, best))))
                    best = flow;
            if (best == UINT32_MAX) {
                expected[i] = REFUSED;
                refused++;
                continue;
            }
            records[best].packets = 0;
            live--;
            evicted++;
        }
        live += record->packets == 0;
        record->last = plan[i].ns;
        expected[i] = ++record->packets;
    }
}

static const char *verdict(const struct sm_test_result *result)
{
    if (result->flows_evicted != evicted || evicted < 1000)
        return "evictions are not what the model says";
    return result->flows_refused == refused && result->flows_live == LIMIT ? NULL
                                                                           : "refusals are not what the model says";
}

const struct subject evict = {
    .name = "evict", .flows = 300, .on_packet = on_packet, .setup = setup, .model = model, .verdict = verdict};
