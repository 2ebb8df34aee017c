/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Packets that a middlebox delays: what leaves, when and in which order, against a model of a few lines; unsplit, split
 * and moved at random, and with replicas killed at random steps. SM_SEED fixes the schedules.
 */

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <splitmerge/testing.h>

#include "testing/random.h"

#define PACKETS 3000u
#define FLOWS 24u
#define STEP_NS 400000ull
#define START_NS 1000000000000ull
#define GRID_NS 1000000ull /* departures of some flows: many at a time */
#define PACED_NS 3500000ull
#define CELL_BYTES 256u
#define MADE_EVERY 7u

static const sm_class cls = {0};
static bool makes; /* packets of its own */

/* Every other flow is paced; the others are delayed by chance, or not at all. `next` is a paced flow's. */
static uint64_t departure(uint32_t number, uint64_t now, uint64_t *next)
{
    uint32_t chance = number * 2654435761u >> 16;
    uint64_t at = now;

    if (number % FLOWS % 2 == 0) {
        at = *next > now ? *next : now;
        *next = at + PACED_NS;
    } else if (chance % 4 == 1) {
        at = (now / GRID_NS + 3) * GRID_NS;
    } else if (chance % 4 == 2) {
        at = now + chance % 40 * STEP_NS / 2;
    }
    return at;
}

/* The payload of each packet is its number. */
static uint32_t number_of(const uint8_t *data)
{
    uint32_t number;

    memcpy(&number, data + 28, sizeof number);
    return number;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number = number_of(sm_packet_data(packet));
    sm_flow flow;

    (void)user;
    cr_assert_eq(sm_flow_create(replica, cls, packet, 0, &flow, NULL), 0);
    cr_assert_eq(sm_packet_delay(packet, (sm_time){departure(number, sm_packet_time(packet).ns, flow.state)}), 0);
    if (makes && number % MADE_EVERY == 0)
        cr_assert_eq(sm_packet_send(replica, packet, sm_packet_data(packet), 20), 0);
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "paced", .record_size = 8, .granularity = SM_BY_FLOW};
    sm_class got;

    (void)user;
    return sm_class_register(replica, &options, &got);
}

static struct sm_trace *input(void)
{
    struct sm_trace *trace = sm_trace_create();

    for (uint32_t i = 0; i < PACKETS; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.0.1:%u", 1024 + i % FLOWS);
        cr_assert_eq(sm_trace_udp(trace, (sm_time){START_NS + i / 3 * STEP_NS}, from, "10.0.0.2:53", &i, sizeof i), 0);
    }
    return trace;
}

struct leaving {
    uint64_t departure;
    uint32_t number;
    bool made;
};

static int by_departure(const void *a, const void *b)
{
    const struct leaving *x = a, *y = b;

    if (x->departure != y->departure)
        return x->departure < y->departure ? -1 : 1;
    return x->number != y->number ? (x->number < y->number ? -1 : 1) : x->made - y->made;
}

/* What leaves where `cells` are kept for delayed packets; *dropped: how many found none. */
static struct sm_trace *model(const struct sm_trace *in, unsigned cells, uint64_t *dropped)
{
    static struct leaving leaving[2 * PACKETS];
    uint64_t next[FLOWS] = {0};
    unsigned count = 0;
    struct sm_trace *out = sm_trace_create();

    *dropped = 0;
    for (uint32_t i = 0; i < PACKETS; i++) {
        uint64_t now = sm_trace_at(in, i).time.ns, at = departure(i, now, &next[i % FLOWS]);
        for (unsigned made = 0; made <= (makes && i % MADE_EVERY == 0); made++) {
            unsigned waiting = 0;
            for (unsigned k = 0; k < count; k++)
                waiting +=
                    leaving[k].departure > now && leaving[k].departure != sm_trace_at(in, leaving[k].number).time.ns;
            if (at > now && waiting == cells)
                ++*dropped;
            else
                leaving[count++] = (struct leaving){at, i, made};
        }
    }
    qsort(leaving, count, sizeof *leaving, by_departure);
    for (unsigned i = 0; i < count; i++)
        sm_trace_add(out, (sm_time){leaving[i].departure}, sm_trace_at(in, leaving[i].number).data,
                     leaving[i].made ? 20 : 32);
    return out;
}

static uint64_t first_seed(void)
{
    uint64_t seed = random_seed();

    printf("SM_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static struct sm_test_options options(const struct sm_trace *in, uint64_t seed, unsigned replicas)
{
    return (struct sm_test_options){
        .size = sizeof(struct sm_test_options),
        .on_packet = on_packet,
        .setup = setup,
        .input = in,
        .seed = seed,
        .replicas = replicas,
        .schedule = replicas > 1,
        .kills = replicas > 1 && seed % 2 ? 60 : 0,
        .delays = true,
        .order_arrival = true,
        .buffers = 64,
        .max_sends = makes,
    };
}

/* One run, which is to send what the model says, and to drop no more. */
static void run(const struct sm_test_options *with, const struct sm_trace *expected, uint64_t dropped)
{
    struct sm_test *test;
    struct sm_errbuf error = {""};

    cr_assert_eq(sm_test_create(&test, with, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_finish(test), 0, "seed %llu: %s", (unsigned long long)with->seed,
                 sm_test_result(test)->broken);
    cr_assert(sm_trace_same(sm_test_output(test), expected, SM_BY_ALL, &error), "seed %llu: %s",
              (unsigned long long)with->seed, error.text);
    cr_assert_eq(sm_test_dropped(test, "shape"), dropped, "seed %llu: %llu dropped, not %llu",
                 (unsigned long long)with->seed, (unsigned long long)sm_test_dropped(test, "shape"),
                 (unsigned long long)dropped);
    cr_assert_eq(sm_test_result(test)->dropped, dropped);
    sm_test_destroy(test, NULL);
}

static void run_all(unsigned cells)
{
    uint64_t seed = first_seed(), dropped;
    struct sm_trace *in = input(), *expected = model(in, cells, &dropped);
    unsigned rounds = getenv("SM_FULL") ? 20 : 3;

    cr_assert_eq(dropped > 0, cells < 1000);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned replicas = 1; replicas <= 4; replicas++, seed++) {
            struct sm_test_options with = options(in, seed, replicas);
            with.shape_memory = (uint64_t)cells * CELL_BYTES;
            run(&with, expected, dropped);
        }
    sm_trace_destroy(in);
    sm_trace_destroy(expected);
}

Test(shape, packets_leave_by_departure_then_arrival_whatever_happens)
{
    run_all(4000);
}

Test(shape, the_memory_is_bounded_and_drops_are_a_function_of_the_input)
{
    run_all(40);
}

Test(shape, what_is_made_leaves_behind_its_cause)
{
    makes = true;
    run_all(4000);
    makes = false;
}

/* Whenever they leave: nothing is lost, and no packet is overtaken but by those that depart before it. */
Test(shape, promises_hold_on_interfaces)
{
    uint64_t seed = first_seed();
    struct sm_trace *in = input();

    for (unsigned i = 0; i < 8; i++, seed++) {
        struct sm_test_options with = options(in, seed, 1 + i % 4);
        struct sm_test_result result;
        struct sm_errbuf error;
        with.order_arrival = i & 4;
        with.cannot_wait = true;
        with.buffers = 4096;
        cr_assert_eq(sm_test_run(&with, &result, &error), 0, "%s", error.text);
        cr_assert_str_eq(result.broken, "", "seed %llu: %s", (unsigned long long)seed, result.broken);
        cr_assert_eq(result.out, PACKETS);
    }
    sm_trace_destroy(in);
}

static void too_far(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint64_t now = sm_packet_time(packet).ns;

    (void)replica, (void)user;
    cr_assert_eq(sm_packet_delay(packet, (sm_time){now + SM_MAX_DELAY_NS}), 0);
    cr_assert_eq(sm_packet_delay(packet, (sm_time){now + SM_MAX_DELAY_NS + 1}), SM_E_LIMIT);
    if (number_of(sm_packet_data(packet)) > 0)
        cr_assert_eq(sm_packet_delay(packet, (sm_time){now - 1}), 0, "takes it back");
}

static void undeclared(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    (void)replica, (void)user;
    cr_assert_eq(sm_packet_delay(packet, (sm_time){sm_packet_time(packet).ns + 1}), SM_E_STATE);
}

Test(shape, who_delays_says_so_at_the_start)
{
    struct sm_trace *in = input();
    struct sm_test_options with = options(in, 1, 1);
    struct sm_test_result result;

    with.on_packet = undeclared;
    with.delays = false;
    cr_assert_eq(sm_test_run(&with, &result, NULL), 0);
    cr_assert_eq(result.out, PACKETS);
    sm_trace_destroy(in);
}

Test(shape, a_delay_is_bounded_and_can_be_taken_back)
{
    struct sm_trace *in = input();
    struct sm_test_options with = options(in, 1, 1);
    struct sm_test *test;

    with.on_packet = too_far;
    cr_assert_eq(sm_test_create(&test, &with, NULL), 0);
    cr_assert_eq(sm_test_finish(test), 0);
    const struct sm_trace *out = sm_test_output(test);
    cr_assert_eq(sm_trace_count(out), PACKETS);
    cr_assert_eq(number_of(sm_trace_at(out, PACKETS - 1).data), 0, "the first packet is the last to leave");
    cr_assert_eq(sm_trace_at(out, PACKETS - 1).time.ns, START_NS + SM_MAX_DELAY_NS);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(in);
}
