/* SPDX-License-Identifier: BSD-2-Clause */

/* P9: at each limit the documented thing happens, is counted, and every promise still holds. */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <splitmerge/testing.h>

struct record {
    uint64_t packets;
    uint8_t room[120];
};

static sm_class cls;
static uint16_t reason;
static bool drop_refused;

static void count(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) == 0)
        ((struct record *)flow.state)->packets++;
    else if (drop_refused)
        sm_packet_drop(packet, reason);
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "count",
                                             .record_size = sizeof(struct record),
                                             .granularity = SM_BY_FLOW,
                                             .limit = *(const uint32_t *)*user};

    int result = sm_drop_reason(replica, "flow_limit", &reason);
    return result ? result : sm_class_register(replica, &options, &cls);
}

static uint64_t pool_drops; /* of the last run */

static struct sm_test_result run(struct sm_test_options options, uint32_t class_limit)
{
    struct sm_test *test;
    char folder[] = "/tmp/splitmerge-limits-XXXXXX", output[64];
    struct sm_test_result result;
    struct sm_errbuf error;

    cr_assert_not_null(mkdtemp(folder));
    snprintf(output, sizeof output, "%s/out.pcap", folder);
    options.size = sizeof options;
    options.capture = SM_SAMPLE;
    options.output = output;
    options.replicas = 3;
    options.schedule = true;
    options.on_packet = count;
    options.setup = setup;
    options.user = &class_limit;
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    sm_test_finish(test);
    result = *sm_test_result(test);
    pool_drops = sm_test_dropped(test, "pool");
    cr_assert_eq(sm_test_destroy(test, &error), 0, "%s", error.text);
    unlink(output);
    rmdir(folder);
    cr_assert_str_empty(result.broken, "%s", result.broken);
    cr_assert_eq(result.in + result.generated, result.out + result.dropped);
    return result;
}

Test(limits, flows_of_the_service)
{
    drop_refused = true;
    struct sm_test_result result = run((struct sm_test_options){.seed = 1, .order_arrival = true, .max_flows = 50}, 0);
    cr_assert_eq(result.flows_live, 50);
    cr_assert_eq(result.flows_created, 50);
    cr_assert_gt(result.flows_refused, 0);
    cr_assert_eq(result.dropped, result.flows_refused, "each refusal is a drop under its reason");
}

Test(limits, flows_of_a_class)
{
    drop_refused = false;
    struct sm_test_result result = run((struct sm_test_options){.seed = 2}, 20);
    cr_assert_eq(result.flows_live, 20);
    cr_assert_gt(result.flows_refused, 0);
    cr_assert_eq(result.dropped, 0, "what to do with the packet is the middlebox's choice");
}

Test(limits, memory)
{
    drop_refused = true;
    struct sm_test_result result = run((struct sm_test_options){.seed = 3, .memory = 65536}, 0);
    cr_assert_gt(result.flows_refused, 0);
    cr_assert_leq(result.memory_used, 65536);
}

Test(limits, a_file_waits_for_buffers)
{
    struct sm_test_result result = run((struct sm_test_options){.seed = 4, .order_arrival = true, .buffers = 16}, 0);
    cr_assert_eq(result.dropped, 0);
}

Test(limits, an_interface_drops_for_want_of_buffers)
{
    drop_refused = false;
    struct sm_test_result result = run((struct sm_test_options){.seed = 5, .buffers = 16, .cannot_wait = true}, 0);
    cr_assert_gt(pool_drops, 0);
    cr_assert_eq(result.dropped, pool_drops);
}

Test(limits, the_hold_of_an_interface)
{
    uint64_t abandoned = 0;

    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct sm_test_result result =
            run((struct sm_test_options){.seed = seed, .cannot_wait = true, .hold_bytes = 1}, 0);
        if (strcmp(result.abandoned_for, "limits.hold.bytes") == 0)
            abandoned += result.abandoned;
    }
    cr_assert_gt(abandoned, 0, "a hold over its bound ends its move");
}

static void bind_some_key(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct sm_key key;
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, cls, packet, 0, &flow, NULL) != 0)
        return;
    sm_packet_key(packet, SM_BY_FLOW, &key);
    key.a[3] ^= 0x55;
    int result = sm_flow_bind(replica, cls, flow, &key);
    cr_assert(result == 0 || result == SM_E_LIMIT, "%d", result);
}

static int setup_binding(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "bind", .record_size = 8, .granularity = SM_BY_FLOW, .binds = "ip or ip6"};
    const struct sm_class_options coarser = {
        .size = sizeof options, .name = "pairs", .record_size = 8, .granularity = SM_BY_HOST_PAIR};
    sm_class got;

    int result = sm_class_register(replica, &options, &cls);
    return result == 0 && *user ? sm_class_register(replica, &coarser, &got) : result;
}

static const struct sm_test_options binding = {.size = sizeof binding,
                                               .capture = SM_SAMPLE,
                                               .replicas = 3,
                                               .schedule = true,
                                               .max_bindings = 10,
                                               .hold_bytes = 1 << 20,
                                               .on_packet = bind_some_key,
                                               .setup = setup_binding};

Test(limits, bindings)
{
    for (unsigned waits = 0; waits < 2; waits++) {
        struct sm_test_options options = binding;
        struct sm_test *test;
        struct sm_errbuf error;
        options.cannot_wait = waits == 0;
        options.seed = 5 + waits;
        cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
        sm_test_finish(test);
        const struct sm_test_result *result = sm_test_result(test);
        cr_assert_str_empty(result->broken, "%s", result->broken);
        cr_assert_eq(result->bindings_live, 10);
        cr_assert_gt(result->bindings_refused, 0);
        sm_test_destroy(test, NULL);
    }
}

Test(limits, bindings_need_steering_by_flow)
{
    struct sm_test_options options = binding;
    struct sm_test *test;
    struct sm_errbuf error;

    options.user = &cls;
    cr_assert_eq(sm_test_create(&test, &options, &error), SM_E_CONFLICT);
    cr_assert(strstr(error.text, "'bind' binds keys") != NULL, "%s", error.text);
}
