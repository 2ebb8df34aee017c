/* SPDX-License-Identifier: BSD-2-Clause */
#include "checkpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define KEEP 5u /* notes of a pair */
#define IDLE_NS 40000000u
#define PAYLOAD_BYTES 16u

struct note {
    struct note *next;
    uint32_t packet;
    uint8_t more[]; /* of some length */
};

struct payload {
    uint32_t number;
    uint32_t unused;
    uint64_t known; /* by the middlebox, when the packet came */
};

_Static_assert(sizeof(struct payload) == PAYLOAD_BYTES, "the end of each packet");

int64_t counted;
uint64_t saved_flows;

static sm_counter packets, thirds[3]; /* all; every third of them */
static sm_strong_counter tokens;
static sm_strong last;
static sm_eventual pairs_seen, highest;

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

uint32_t packet_pair(uint64_t seed, uint32_t number)
{
    return (uint32_t)(mix(seed + number) % HOSTS);
}

uint32_t packet_flow(uint64_t seed, uint32_t number)
{
    return packet_pair(seed, number) * FLOWS_OF_PAIR + (uint32_t)(mix(seed * 31 + number) % FLOWS_OF_PAIR);
}

uint32_t record_pair(const struct sm_key *key)
{
    return key->a[3];
}

uint32_t record_flow(const struct sm_key *key)
{
    return key->a[3] * FLOWS_OF_PAIR + key->a_port - 1000;
}

struct sm_trace *trace_make(uint64_t seed, uint32_t from, uint32_t to)
{
    struct sm_trace *trace = sm_trace_create();
    uint64_t now = 1000000000;

    for (uint32_t number = 0; number < to; number++) {
        struct payload payload = {.number = number};
        char source[32];
        now += mix(seed * 7 + number) % 2000000;
        snprintf(source, sizeof source, "10.0.0.%u:%u", packet_pair(seed, number),
                 1000 + packet_flow(seed, number) % FLOWS_OF_PAIR);
        if (number >= from)
            sm_trace_udp(trace, (sm_time){now}, source, "10.9.9.9:53", &payload, sizeof payload);
    }
    return trace;
}

/* A note of the packet at the pair; the oldest goes when there are many. */
static uint64_t note(struct sm_replica *replica, sm_flow pair, uint32_t number)
{
    struct pair_record *record = pair.state;
    uint32_t more = number % 300;
    struct note *made = sm_alloc(replica, (sm_class){PAIRS}, pair, sizeof *made + more);
    uint64_t sum = 0;

    if (!made)
        return 1;
    made->packet = number;
    memset(made->more, (int)number, more);
    made->next = record->notes;
    record->notes = made;
    if (++record->count > KEEP) {
        struct note *before = record->notes;
        while (before->next->next)
            before = before->next;
        if (!sm_writable(replica, before, 0, sizeof *before))
            return 2;
        sm_free(replica, (sm_class){PAIRS}, pair, before->next);
        before->next = NULL;
        record->count--;
    }
    for (const struct note *at = record->notes; at; at = at->next)
        sum = mix(sum + at->packet + (at->packet % 300 ? at->more[at->packet % 300 - 1] : 0));
    return sum;
}

static void shared_objects(struct sm_replica *replica, uint32_t pair, int64_t number)
{
    uint64_t *value = sm_shared_get(replica, last, SM_PULL | SM_SYNCH, NULL);

    sm_counter_add(replica, packets, 1);
    sm_counter_add(replica, thirds[number % 3], 1);
    *value += 3;
    sm_shared_put(replica, last, SM_PUSH | SM_SYNCH);
    sm_eventual_update(replica, pairs_seen, &pair);
    sm_eventual_update(replica, highest, &number);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint8_t *bytes = sm_packet_writable(packet, sm_packet_caplen(packet) - PAYLOAD_BYTES, PAYLOAD_BYTES);
    struct payload payload;
    sm_flow flow, pair, all;
    bool fresh;

    (void)user;
    memcpy(&payload, bytes, sizeof payload);
    const uint32_t number = payload.number;
    if (number % 3 == 0)
        sm_strong_counter_take(replica, tokens, 1);
    if (sm_flow_create(replica, (sm_class){PAIRS}, packet, 0, &pair, NULL) != 0 ||
        sm_flow_create(replica, (sm_class){FLOWS}, packet, 0, &flow, &fresh) != 0)
        return;
    struct pair_record *of_pair = pair.state;
    struct flow_record *of_flow = flow.state;
    of_pair->packets++;
    of_pair->last = number;
    of_flow->packets++;
    of_flow->last = number;
    if (of_pair->packets % 4 == 0)
        sm_flow_timer_set(replica, (sm_class){PAIRS}, pair, 0, (sm_time){sm_packet_time(packet).ns + IDLE_NS / 3});
    payload.known = mix(of_pair->packets * 1000 + of_flow->packets + note(replica, pair, number));
    shared_objects(replica, record_pair(sm_flow_key(pair)), number);
    if (sm_flow_create(replica, (sm_class){EVERYTHING}, packet, 0, &all, NULL) == 0) {
        ++*(uint64_t *)all.state;
        sm_flow_put(replica, (sm_class){EVERYTHING}, all);
    }
    memcpy(bytes, &payload, sizeof payload);
    if (of_flow->packets % 7 == 0)
        sm_packet_drop(packet, 0);
}

static void on_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct pair_record *record = flow.state;

    (void)replica, (void)cls, (void)slot, (void)now, (void)user;
    record->packets += 1000000; /* seen by the packets that follow */
}

static int encode(struct sm_replica *replica, sm_class cls, sm_flow flow, struct sm_writer *writer, void *user)
{
    const struct pair_record *record = flow.state;

    (void)replica, (void)cls, (void)user;
    sm_write_uint(writer, "packets", record->packets);
    sm_write_uint(writer, "last", record->last);
    sm_write_list(writer, "notes");
    for (const struct note *at = record->notes; at; at = at->next) {
        sm_write_list(writer, NULL);
        sm_write_uint(writer, NULL, at->packet);
        sm_write_bytes(writer, NULL, at->more, at->packet % 300);
        sm_write_end(writer);
    }
    sm_write_end(writer);
    return 0;
}

static int decode(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, sm_value value, void *user)
{
    struct pair_record *record = flow.state;
    struct note **link = &record->notes;
    sm_value notes = sm_value_get(value, "notes");

    (void)version, (void)user;
    record->packets = sm_value_uint(sm_value_get(value, "packets"), 0);
    record->last = (uint32_t)sm_value_uint(sm_value_get(value, "last"), 0);
    for (sm_value item = {NULL, NULL}; sm_value_next(notes, &item);) {
        sm_value number = {NULL, NULL}, more;
        size_t length;
        if (!sm_value_next(item, &number))
            return SM_E_DAMAGED;
        more = number;
        const void *bytes = sm_value_next(item, &more) ? sm_value_bytes(more, &length) : NULL;
        struct note *made = bytes ? sm_alloc(replica, cls, flow, sizeof *made + length) : NULL;
        if (!made)
            return SM_E_LIMIT;
        made->packet = (uint32_t)sm_value_uint(number, 0);
        memcpy(made->more, bytes, length);
        *link = made;
        link = &made->next;
        record->count++;
    }
    return 0;
}

static int register_shared(struct sm_replica *replica)
{
    const struct sm_eventual_options pairs = {
        .size = sizeof pairs, .name = "pairs", .combiner = SM_UNION, .value_size = sizeof(uint32_t), .capacity = HOSTS};
    const struct sm_eventual_options high = {.size = sizeof high, .name = "highest", .combiner = SM_MAX};
    int result = sm_counter_register(replica, "packets", &packets);

    result = result ? result : sm_counters_register(replica, "thirds", 3, thirds);
    result = result ? result : sm_strong_counter_register(replica, "tokens", PACKETS, &tokens);
    result = result ? result : sm_strong_register(replica, "last", sizeof(uint64_t), &last);
    result = result ? result : sm_eventual_register(replica, &pairs, &pairs_seen);
    return result ? result : sm_eventual_register(replica, &high, &highest);
}

static int setup(struct sm_replica *replica, void **user)
{
    static const struct sm_field of_flow[] = {
        {"packets", SM_FIELD_UINT, offsetof(struct flow_record, packets), 8, NULL, 0},
        {"last", SM_FIELD_UINT, offsetof(struct flow_record, last), 4, NULL, 0},
        {"expired", SM_FIELD_UINT, offsetof(struct flow_record, expired), 1, NULL, 0},
    };
    static const struct sm_field of_all[] = {{"packets", SM_FIELD_UINT, 0, 8, NULL, 0}};
    struct sm_class_options options[] = {
        [FLOWS] = {.name = "flows",
                   .record_size = sizeof(struct flow_record),
                   .fields = of_flow,
                   .field_count = 3,
                   .idle_timeout_ns = IDLE_NS},
        [PAIRS] = {.name = "pairs",
                   .record_size = sizeof(struct pair_record),
                   .granularity = SM_BY_HOST_PAIR,
                   .timers = 1,
                   .on_timer = on_timer,
                   .alloc_limit = 1u << 20,
                   .encode = encode,
                   .decode = decode},
        [EVERYTHING] = {.name = "everything",
                        .record_size = 8,
                        .granularity = SM_BY_ALL,
                        .may_share = true,
                        .fields = of_all,
                        .field_count = 1},
    };
    uint16_t reason;
    int result = sm_drop_reason(replica, "seventh", &reason);

    (void)user;
    for (unsigned i = 0; result == 0 && i < 3; i++) {
        sm_class cls;
        options[i].size = sizeof *options;
        options[i].version = 1;
        result = sm_class_register(replica, &options[i], &cls);
    }
    return result ? result : register_shared(replica);
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)user;
    counted = sm_counter_read(replica, packets, NULL);
    for (int64_t i = 0, all = counted; i < 3; i++)
        if (sm_counter_read(replica, thirds[i], NULL) != (all + 2 - i) / 3)
            counted = -1;
}

struct sm_test_options middlebox(uint64_t seed, const struct sm_trace *input, unsigned replicas)
{
    return (struct sm_test_options){
        .size = sizeof(struct sm_test_options),
        .on_packet = on_packet,
        .setup = setup,
        .ended = ended,
        .input = input,
        .replicas = replicas,
        .order_arrival = true,
        .seed = seed,
        .schedule = replicas > 1,
    };
}

/* Everybody takes a turn, packets or not. */
void turn(struct sm_test *test)
{
    unsigned slots[ARENA_SLOTS];
    unsigned count = test_ready(test, slots);

    switch_poll(test->sw);
    for (unsigned i = 0; i < count; i++)
        test_burst(test, slots[i], CHANNEL_BURST);
    test->clock += 1000000;
}

static int end_snapshot(struct sm_test *test, struct checkpoint *checkpoint, int result, struct sm_errbuf *error)
{
    struct checkpoint_size size;

    switch_snapshot_end(test->sw);
    if (result == 0) {
        result = checkpoint_finish(checkpoint, &size, error);
        saved_flows = size.flows;
        return result;
    }
    checkpoint_abandon(checkpoint);
    return result;
}

/* The one replica encodes a flow at a time, and packets come whenever a shard is half encoded. */
static void turn_between_flows(struct sm_test *test)
{
    struct sm_replica *replica = test->members[0].replica;

    replica->snapshot.work = 1;
    test->sw->input_held = replica->snapshot.progress.open == 0;
    switch_poll(test->sw);
    replica_burst(replica, CHANNEL_BURST);
    test->clock += 1000;
}

int checkpoint_take(struct sm_test *test, const char *file, enum meanwhile meanwhile, struct sm_errbuf *error)
{
    struct checkpoint *checkpoint = NULL;
    const uint8_t *part;
    int result = switch_snapshot_start(test->sw, error);

    if (result)
        return result;
    result = checkpoint_open(&checkpoint, test->arena, file, error);
    while (result == 0) {
        bool end = false;
        enum switch_snapshot_step step = switch_snapshot_next(test->sw, &part);
        if (step == SNAPSHOT_DONE)
            break;
        if (step == SNAPSHOT_PART) {
            result = checkpoint_part(checkpoint, part, &end, error);
            switch_snapshot_taken(test->sw, end, checkpoint_covered(checkpoint));
        }
        if (meanwhile == STEPS && sm_test_step(test) == SM_E_STATE)
            result = SM_E_STATE;
        else if (meanwhile == BETWEEN_FLOWS)
            turn_between_flows(test);
        else if (meanwhile == NOTHING)
            turn(test);
    }
    test->sw->input_held = false;
    return end_snapshot(test, checkpoint, result, error);
}

int checkpoint_restore(struct sm_test *test, const char *file, struct sm_errbuf *error)
{
    struct restore *restore;
    int result = restore_open(&restore, test->arena, file, error);

    if (result)
        return result;
    while ((result = restore_step(restore, test->sw, error)) == RESTORE_WAIT)
        turn(test);
    restore_close(restore);
    return result;
}
