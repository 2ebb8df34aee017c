/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Moves by copying, one at a time: deaths at every place that they pass, in either replica; what fails on the way, and
 * what is refused; and from one arena to another. Each ends as the run in which nothing moves. SM_FULL=1 kills at more
 * of the places that all moves have in common.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/test.h"

#define PACKETS 400u
#define FLOWS 3u
#define TAGS 40u /* flows of the middlebox under the same headers, so that a shard has many */
#define MOVE_AT 200u
#define EXTRA 21u /* bytes of a record that are a digest of the rest: odd, to shift what is behind */

struct record {
    uint32_t packets, timeouts;
    uint64_t last;
    uint8_t digest[EXTRA];
};

static const sm_class cls = {0};
static unsigned bad_encode, bad_decode; /* the flow's tag at which a callback fails; 0: none */

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint64_t now = sm_packet_time(packet).ns;
    uint16_t tag = (uint16_t)(1 + now / 1000000 % TAGS);
    sm_flow flow;

    (void)user;
    cr_assert_eq(sm_flow_create(replica, cls, packet, tag, &flow, NULL), 0);
    struct record *record = flow.state;
    record->packets++;
    record->last = now;
    memset(record->digest, (int)(record->packets + tag), EXTRA);
    sm_flow_timer_set(replica, cls, flow, 0, (sm_time){now + 37000000});
    sm_packet_send(replica, packet, record, sizeof *record);
}

static void on_timer(struct sm_replica *replica, sm_class of, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct record *record = flow.state;

    (void)user;
    record->timeouts += of.id == cls.id && slot == 0 && now.ns == record->last + 37000000;
    if (record->timeouts % 2 == 0)
        sm_flow_timer_set(replica, of, flow, 0, (sm_time){now.ns + 90000000});
}

static const struct sm_field fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct record, packets), 4, NULL, 0},
    {"timeouts", SM_FIELD_UINT, offsetof(struct record, timeouts), 4, NULL, 0},
    {"last", SM_FIELD_TIME, offsetof(struct record, last), 8, NULL, 0},
    {"digest", SM_FIELD_BYTES, offsetof(struct record, digest), EXTRA, NULL, 0},
};

static struct sm_class_options declared(void)
{
    return (struct sm_class_options){.size = sizeof(struct sm_class_options),
                                     .name = "tagged",
                                     .record_size = sizeof(struct record),
                                     .granularity = SM_BY_FLOW,
                                     .timers = 1,
                                     .on_timer = on_timer};
}

static int by_fields(struct sm_replica *replica, void **user)
{
    struct sm_class_options options = declared();
    sm_class got;

    (void)user;
    options.fields = fields;
    options.field_count = sizeof fields / sizeof *fields;
    return sm_class_register(replica, &options, &got);
}

static int not_at_all(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = declared();
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static int encode(struct sm_replica *replica, sm_class of, sm_flow flow, struct sm_writer *writer, void *user)
{
    (void)replica, (void)of, (void)user;
    sm_write_bytes(writer, "record", flow.state, sizeof(struct record));
    return sm_flow_key(flow)->tag == bad_encode ? SM_E_STATE : 0;
}

static int decode(struct sm_replica *replica, sm_class of, sm_flow flow, uint32_t version, sm_value value, void *user)
{
    size_t length;
    const void *bytes = sm_value_bytes(sm_value_get(value, "record"), &length);

    (void)replica, (void)of, (void)version, (void)user;
    if (length != sizeof(struct record) || sm_flow_key(flow)->tag == bad_decode)
        return SM_E_STATE;
    memcpy(flow.state, bytes, length);
    return 0;
}

static int by_callbacks(struct sm_replica *replica, void **user)
{
    struct sm_class_options options = declared();
    sm_class got;

    (void)user;
    options.encode = encode;
    options.decode = decode;
    return sm_class_register(replica, &options, &got);
}

static struct sm_trace *trace;

static struct sm_trace *make_trace(void)
{
    struct sm_trace *made = sm_trace_create();

    for (uint32_t i = 0; i < PACKETS; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.0.%u:1000", 1 + i % FLOWS);
        cr_assert_eq(sm_trace_udp(made, (sm_time){1000000000ull + i * 1000000ull}, from, "10.1.0.1:53", &i, sizeof i),
                     0);
    }
    return made;
}

static struct sm_test *open_with(int (*setup)(struct sm_replica *, void **), uint32_t bytes, uint64_t seed)
{
    const struct sm_test_options options = {.size = sizeof options,
                                            .on_packet = on_packet,
                                            .max_sends = 1,
                                            .setup = setup,
                                            .input = trace,
                                            .order_arrival = true,
                                            .seed = seed,
                                            .replicas = 2,
                                            .buffers = 64,
                                            .memory = 8u << 20,
                                            .max_flows = FLOWS * TAGS,
                                            .copy_bytes = bytes,
                                            .check_every = 16};
    struct sm_errbuf error;
    struct sm_test *test;

    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    return test;
}

static bool find_shard(const struct sm_test_flow *flow, void *arg)
{
    if (flow->key->a[3] == 1)
        *(uint32_t *)arg = flow->shard;
    return true;
}

/* Who has the shard that is moved. */
static unsigned owner_of(const struct sm_test *test)
{
    uint32_t shard = SM_SHARDS;

    sm_test_flows(test, find_shard, &shard);
    cr_assert_lt(shard, SM_SHARDS);
    return test->sw->slots[test->sw->shards[shard].owner].id;
}

/* Begin to copy the first flow's shard to the other replica. */
static void begin(struct sm_test *test, unsigned *from, unsigned *to)
{
    struct sm_errbuf error;

    cr_assert_eq(sm_test_until_packet(test, MOVE_AT), 0);
    *from = owner_of(test);
    *to = 3 - *from;
    cr_assert_eq(sm_test_copying(test, true, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_move(test, trace, 0, *to), 0);
}

static struct sm_test *base;

static void setup(void)
{
    bad_encode = bad_decode = 0;
    trace = make_trace();
    base = open_with(by_fields, 0, 1);
    cr_assert_eq(sm_test_finish(base), 0, "%s", sm_test_result(base)->broken);
}

static void teardown(void)
{
    sm_test_destroy(base, NULL);
    sm_trace_destroy(trace);
}

TestSuite(copying, .init = setup, .fini = teardown);

static void end(struct sm_test *test, const char *what)
{
    struct sm_errbuf error = {""};

    cr_assert_eq(sm_test_finish(test), 0, "%s: %s", what, sm_test_result(test)->broken);
    cr_assert(sm_test_same(base, test, SM_BY_ALL, &error), "%s: %s", what, error.text);
    sm_test_destroy(test, NULL);
}

static void through(int (*how)(struct sm_replica *, void **), uint32_t bytes)
{
    struct sm_test *test = open_with(how, bytes, 1);
    unsigned from, to;

    begin(test, &from, &to);
    cr_assert_eq(sm_test_settle(test), 0);
    cr_assert_eq(owner_of(test), to);
    cr_assert_eq(sm_test_result(test)->copied, 1);
    cr_assert_eq(sm_test_result(test)->moves, 1);
    end(test, "alive");
}

Test(copying, whole_and_in_parts)
{
    through(by_fields, 0);
    through(by_fields, 700);
    through(by_callbacks, 0);
    through(by_callbacks, 700);
}

/* Die at the nth pass of a place; false: it was not passed so often. */
static bool killed(bool source, uint32_t place, uint64_t nth)
{
    struct sm_test *test = open_with(by_fields, 700, 1);
    unsigned from, to;
    char what[160];

    begin(test, &from, &to);
    snprintf(what, sizeof what, "%s killed at pass %llu of %s", source ? "source" : "destination",
             (unsigned long long)nth, place == SM_TEST_ANYWHERE ? "any place" : sm_test_place_name(place));
    cr_assert_eq(sm_test_kill_at(test, source ? from : to, place, nth), 0);
    while (sm_test_kill_pending(test) && sm_test_step(test) == 0)
        ;
    bool carried_out = !sm_test_kill_pending(test);
    end(test, what);
    return carried_out;
}

static bool is_of_copying(uint32_t place)
{
    const char *name = sm_test_place_name(place);

    return strstr(name, " copy.c:") || strstr(name, " export.c:");
}

Test(copying, killed_at_every_place_of_its_own, .timeout = 200)
{
    unsigned places = 0, deaths[2] = {0}, met = 0;

    for (uint32_t place = 0; place < sm_test_places(); place++) {
        if (!is_of_copying(place))
            continue;
        unsigned before = deaths[0] + deaths[1];
        for (unsigned source = 0; source < 2; source++)
            for (uint64_t nth = 1; killed(source, place, nth); nth++)
                deaths[source]++;
        places++;
        met += deaths[0] + deaths[1] > before;
        cr_expect_gt(deaths[0] + deaths[1], before, "nobody passes %s", sm_test_place_name(place));
    }
    printf("%u of %u places, %u deaths of the source, %u of the destination\n", met, places, deaths[1], deaths[0]);
    cr_assert(deaths[0] > 20 && deaths[1] > 20, "flows and parts, in each");
}

Test(copying, killed_anywhere, .timeout = 200)
{
    const unsigned stride = getenv("SM_FULL") ? 3 : 37;
    unsigned deaths = 0;

    for (unsigned source = 0; source < 2; source++)
        for (uint64_t nth = 1; nth < 4000 && killed(source, SM_TEST_ANYWHERE, nth); nth += stride)
            deaths++;
    printf("%u deaths anywhere\n", deaths);
    cr_assert_gt(deaths, 40);
}

/* Memory that runs out at any allocation of the copy: the move is abandoned, and nothing else happens. */
Test(copying, without_memory)
{
    unsigned abandoned = 0;

    for (uint64_t nth = 1;; nth++) {
        struct sm_test *test = open_with(by_fields, 700, 1);
        unsigned from, to;
        begin(test, &from, &to);
        sm_test_fail_allocation(test, nth);
        cr_assert_eq(sm_test_settle(test), 0);
        struct sm_test_result result = *sm_test_result(test);
        cr_assert_eq(owner_of(test), result.abandoned ? from : to);
        sm_test_fail_allocation(test, 0);
        end(test, "an allocation fails");
        if (!result.abandoned)
            break;
        cr_assert_str_eq(result.abandoned_for, "no room for a copy within limits.memory");
        abandoned++;
    }
    cr_assert_gt(abandoned, TAGS, "each flow of the copy, and its tables");
}

static void abandoned(int (*how)(struct sm_replica *, void **), uint32_t bytes, const char *cause)
{
    struct sm_test *test = open_with(how, bytes, 1);
    unsigned from, to;

    begin(test, &from, &to);
    cr_assert_eq(sm_test_settle(test), 0);
    cr_assert_eq(owner_of(test), from);
    cr_assert_str_eq(sm_test_result(test)->abandoned_for, cause);
    cr_assert_eq(sm_test_result(test)->copied, 0);
    end(test, cause);
}

Test(copying, flows_that_cannot_go)
{
    bad_encode = 17;
    abandoned(by_callbacks, 700, "a flow could not be encoded");
    bad_encode = 0;
    bad_decode = 23;
    abandoned(by_callbacks, 700, "a flow could not be decoded");
    abandoned(by_fields, 100, "a flow is too large to be copied");
}

Test(copying, classes_that_cannot_are_refused)
{
    struct sm_test *test = open_with(not_at_all, 0, 1);
    struct sm_errbuf error = {""};

    cr_assert_eq(sm_test_copying(test, true, &error), SM_E_CONFLICT);
    cr_assert_str_eq(
        error.text, "flow class 'tagged' cannot be copied: it declares neither fields nor callbacks encode and decode");
    sm_test_destroy(test, NULL);
}

/* What a replica may answer is checked before it is believed. */
Test(copying, answers_that_nobody_asked_for)
{
    struct sm_test *test = open_with(by_fields, 700, 1);
    unsigned from, to;

    begin(test, &from, &to);
    const unsigned lane = 0;
    while (test->sw->lanes_used == 0 || test->sw->lanes[lane].awaits == SWITCH_NONE)
        cr_assert_eq(sm_test_step(test), 0);
    struct switch_lane *asked = &test->sw->lanes[lane];
    const unsigned slot = asked->awaits, other = 1 - slot;
    const struct out_entry right = {.kind = OUT_LANE, .buffer = lane, .length = asked->ticket};
    struct out_entry wrong[4] = {right, right, right, right};
    wrong[0].buffer = EXPORT_LANES;
    wrong[1].buffer = lane + 1;
    wrong[2].length++;
    wrong[3].reason = LANE_STATUSES;
    for (unsigned i = 0; i < 4; i++)
        cr_assert(!switch_lane_answered(test->sw, slot, &wrong[i]), "row %u", i);
    cr_assert(!switch_lane_answered(test->sw, other, &right), "another one's");
    end(test, "forged");
}

static void step_lane(struct sm_test *test, unsigned slot, enum in_kind kind, uint32_t shard)
{
    const struct in_entry entry = {.kind = (uint8_t)kind, .shard = (uint16_t)shard, .lane = 5};
    struct sm_replica *replica = test->members[slot].replica;

    journal_packet(&replica->journal);
    replica_lane(replica, &entry);
    const struct out_entry *answer = &replica->out[(replica->produced - 1) & replica->channel->ring_mask];
    cr_assert_eq(answer->kind, OUT_LANE);
    cr_assert_lt(answer->reason, LANE_NO_ROOM);
    replica->complete = replica->produced;
    replica_commit(replica, true);
}

/* As between two hosts: nothing but the bytes of the area goes from one to the other, which hashes by another secret.
 */
Test(copying, from_one_arena_to_another)
{
    struct sm_test *here = open_with(by_fields, 3000, 1), *there = open_with(by_fields, 3000, 2);

    cr_assert_eq(sm_test_until_packet(here, MOVE_AT), 0);
    cr_assert_neq(here->arena, there->arena);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        if (state_shard_flows(here->arena->state, shard) == 0)
            continue;
        struct export_area *from = &here->arena->exports[5], *to = &there->arena->exports[5];
        from->cursor = 0;
        do {
            step_lane(here, here->sw->shards[shard].owner, IN_EXPORT, shard);
            memcpy(to, from, sizeof *to);
            to->more = 1; /* only the copy is filled */
            step_lane(there, 0, IN_IMPORT, shard);
        } while (from->more);
    }
    unsigned flows = 0;
    const uint32_t copy = state_copy(5);
    struct flow *flow;
    for (uint32_t cursor = 0; (flow = state_next(there->arena->state, copy, &cursor)) != NULL; flows++) {
        const void *record = sm_test_flow(here, cls, flow_key(flow));
        cr_assert_not_null(record);
        cr_assert_eq(memcmp(record, flow_record(flow), sizeof(struct record)), 0);
        cr_assert_eq(state_timer_get(there->arena->state, flow, 0).ns,
                     state_timer_get(here->arena->state, flow_of_record((void *)(uintptr_t)record), 0).ns);
    }
    cr_assert_eq(flows, sm_test_result(here)->flows_live);
    struct sm_errbuf error = {""};
    cr_assert_eq(state_check(there->arena->state, &error), 0, "%s", error.text);
    sm_test_destroy(here, NULL);
    sm_test_destroy(there, NULL);
}
