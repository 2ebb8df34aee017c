/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Contributions to eventual objects, and a flow of a shared class, in a checkpoint that is taken while replicas, on
 * threads of their own, are in the middle of bursts: each packet adds one twice to both, with the core given away in
 * between, and what is committed is even.
 */

#include "checkpoint.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_PACKETS 60000u
#define CHECKPOINTS 5u

static sm_eventual pairs_of_ones;
static sm_class all_packets;
static int64_t ones;
static struct sm_errbuf error;

static void add(void *into, const void *from, void *user)
{
    (void)user;
    *(int64_t *)into += *(const int64_t *)from;
}

static int setup(struct sm_replica *replica, void **user)
{
    static const int64_t zero = 0;
    const struct sm_eventual_options options = {.size = sizeof options,
                                                .name = "ones",
                                                .combiner = SM_COMBINE,
                                                .value_size = sizeof(int64_t),
                                                .combine = add,
                                                .identity = &zero};

    static const struct sm_field field = {.name = "ones", .type = SM_FIELD_INT, .size = sizeof(int64_t)};
    const struct sm_class_options all = {.size = sizeof all,
                                         .name = "all",
                                         .version = 1,
                                         .record_size = sizeof(int64_t),
                                         .granularity = SM_BY_ALL,
                                         .may_share = true,
                                         .fields = &field,
                                         .field_count = 1};
    int result = sm_class_register(replica, &all, &all_packets);

    (void)user;
    return result ? result : sm_eventual_register(replica, &options, &pairs_of_ones);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const int64_t one = 1;

    (void)user;
    for (unsigned times = 0; times < 2; times++) {
        sm_eventual_update(replica, pairs_of_ones, &one);
        sm_flow_add(replica, all_packets, packet, 0, 0, one);
        sched_yield();
    }
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)user;
    sm_eventual_read(replica, pairs_of_ones, &ones, sizeof ones, NULL);
}

static struct sm_test_options busy(uint64_t seed, const struct sm_trace *input, bool threads)
{
    return (struct sm_test_options){
        .size = sizeof(struct sm_test_options),
        .on_packet = on_packet,
        .setup = setup,
        .ended = ended,
        .input = input,
        .replicas = threads ? 2 : 1,
        .threads = threads,
        .seed = seed,
    };
}

static bool read_all(const struct sm_test_flow *flow, void *arg)
{
    memcpy(arg, flow->record, sizeof(int64_t));
    return true;
}

/* What a new service has after it was restored, and in *all the shared flow; -1: it could not be. */
static int64_t ones_in(uint64_t seed, const char *file, int64_t *all)
{
    struct sm_trace *nothing = trace_make(seed, 1, 1);
    const struct sm_test_options options = busy(seed, nothing, false);
    struct sm_test *test;

    if (sm_test_create(&test, &options, &error) != 0)
        abort();
    int result = checkpoint_restore(test, file, &error);
    *all = 0;
    sm_test_flows(test, read_all, all);
    sm_test_destroy(test, NULL); /* calls ended() */
    sm_trace_destroy(nothing);
    return result ? -1 : ones;
}

const char *shares_test(uint64_t seed, const char *file)
{
    struct sm_trace *input = trace_make(seed, 0, BUSY_PACKETS);
    const struct sm_test_options options = busy(seed, input, true);
    const char *wrong = NULL;
    int64_t before = 0, before_all = 0, all;
    struct sm_test *test;
    unsigned under_way = 0;

    if (sm_test_create(&test, &options, &error) != 0)
        abort();
    for (unsigned i = 1; !wrong && i <= CHECKPOINTS; i++) {
        if (sm_test_until_packet(test, i * (uint64_t)BUSY_PACKETS / (CHECKPOINTS + 1)) != 0 ||
            checkpoint_take(test, file, STEPS, &error) != 0) {
            wrong = error.text[0] ? error.text : sm_test_result(test)->broken;
            break;
        }
        int64_t now = ones_in(seed, file, &all);
        under_way += now > 0 && now < 2 * (int64_t)BUSY_PACKETS;
        if (now < before || now > 2 * (int64_t)BUSY_PACKETS || now % 2 != 0)
            wrong = "a checkpoint has contributions that are not committed, or lacks some";
        if (all < before_all || all > 2 * (int64_t)BUSY_PACKETS || all % 2 != 0)
            wrong = "a checkpoint has of a shared flow what is not committed, or lacks some";
        before = now;
        before_all = all;
    }
    if (!wrong && sm_test_finish(test) != 0)
        wrong = sm_test_result(test)->broken;
    printf("%u checkpoints of eventual objects among bursts\n", under_way);
    sm_test_destroy(test, NULL);
    if (!wrong && under_way == 0)
        wrong = "no checkpoint was taken among bursts";
    if (!wrong && ones != 2 * (int64_t)BUSY_PACKETS)
        wrong = "the replicas themselves lost contributions";
    sm_trace_destroy(input);
    return wrong;
}
