/* SPDX-License-Identifier: BSD-2-Clause */
/* Idle and hard timeouts, beside a timer of the middlebox's own. */

#include "flows.h"

#define IDLE 40000000ull
#define HARD 150000000ull
#define TIMER 15000000ull

struct record {
    uint64_t created, last;
    uint32_t packets, fired;
};

static const sm_class cls = {0};

static void on_expire(struct sm_replica *replica, sm_class of, sm_flow flow, enum sm_ending why, sm_time now,
                      void *user)
{
    struct record *record = flow.state;

    (void)user;
    if (now.ns != (why == SM_ENDED_IDLE ? record->last + IDLE : record->created + HARD))
        mistakes++;
    record->packets = 0;
    sm_flow_close(replica, of, flow); /* without effect */
}

static void on_timer(struct sm_replica *replica, sm_class of, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct record *record = flow.state;

    (void)replica, (void)of, (void)user;
    if (slot != 0 || now.ns != record->last + TIMER)
        mistakes++;
    record->fired++;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint64_t now = sm_packet_time(packet).ns;
    uint32_t number = packet_number(packet);
    bool created = false;
    sm_flow flow = {NULL};

    (void)user;
    /* By turns through each call that is a use of the flow. */
    if (number % 2)
        flow = sm_flow_get(replica, cls, packet, 0);
    if (!flow.state && sm_flow_create(replica, cls, packet, 0, &flow, &created) != 0) {
        mistakes++;
        return;
    }
    struct record *record = flow.state;
    if (created)
        record->created = now;
    record->last = now;
    record->packets++;
    sm_flow_timer_set(replica, cls, flow, 0, (sm_time){now + TIMER});
    noted[number] = (uint64_t)record->fired << 32 | record->packets;
    sm_packet_send(replica, packet, record, sizeof *record);
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_field whole = {"record", SM_FIELD_BYTES, 0, sizeof(struct record), NULL, 0};
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = "timeouts",
        .record_size = sizeof(struct record),
        .fields = &whole,
        .field_count = 1,
        .granularity = SM_BY_FLOW,
        .timers = 1,
        .on_timer = on_timer,
        .idle_timeout_ns = IDLE,
        .hard_timeout_ns = HARD,
        .on_expire = on_expire,
    };
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static void model(const struct planned *plan, uint64_t *expected)
{
    static struct record records[65536];

    for (uint32_t i = 0; i < PACKETS; i++) {
        struct record *record = &records[plan[i].flow];
        uint64_t now = plan[i].ns;
        if (record->packets > 0 && now >= record->last + TIMER)
            record->fired++;
        if (record->packets > 0 && (now >= record->last + IDLE || now >= record->created + HARD))
            *record = (struct record){0};
        if (record->packets++ == 0)
            record->created = now;
        record->last = now;
        expected[i] = (uint64_t)record->fired << 32 | record->packets;
    }
}

static const char *verdict(const struct sm_test_result *result)
{
    return result->flows_created > 2000 && result->flows_live < 500 ? NULL : "hardly any flow ended";
}

const struct subject timeouts = {
    .name = "timeouts", .flows = 500, .on_packet = on_packet, .setup = setup, .model = model, .verdict = verdict};
