/* SPDX-License-Identifier: BSD-2-Clause */
/* The guard's test, over the runtime's test kit: what it does, and that nobody notices splits, moves and deaths. */
#include <splitmerge/testing.h>

/* The program itself, with what is static in it; only its main() gives way to the test's. */
#define main guard_main
int main(int argc, char **argv);
#include "guard.c"
#undef main

static struct sm_errbuf error;

static int setup_replica(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica);
}

/* 6 host pairs, each with 9 conversations in turn, a packet every 5 ms. */
static struct sm_trace *make_trace(void)
{
    struct sm_trace *trace = sm_trace_create();
    char from[32], to[32];

    for (unsigned i = 0; trace && i < 3000; i++) {
        snprintf(from, sizeof from, "10.0.0.%u:%u", i % 6, 1024 + i / 6 % 9);
        snprintf(to, sizeof to, "192.0.2.%u:80", i % 6);
        if (sm_trace_udp(trace, (sm_time){1000000000000 + i * 5000000ull}, from, to, &i, sizeof i) != 0)
            return NULL;
    }
    return trace;
}

static int failed(const char *what, int result)
{
    if (result)
        fprintf(stderr, "FAILED %s: %s\n", what, error.text[0] ? error.text : sm_strerror(result));
    return result != 0;
}

/* Records hold addresses: what they lead to is compared instead. */
static uint64_t number_of(const struct sm_test_flow *flow)
{
    return *(const uint64_t *)flow->record;
}

/* Four conversations a second and pair pass, the fifth does not. */
static int limits(struct sm_test_options options)
{
    struct sm_test *test;
    int result = sm_test_create(&test, &options, &error);

    if (failed("create", result))
        return 1;
    sm_test_until_packet(test, 6 * 4);
    uint64_t before = sm_test_dropped(test, "too_many");
    result = sm_test_finish(test);
    uint64_t after = sm_test_dropped(test, "too_many");
    sm_test_destroy(test, NULL);
    return failed("four may begin", before != 0) + failed("a fifth may not", after == 0) + failed("finish", result);
}

/* At each place of the runtime, where somebody passes it, the owner of all dies; then all is as if it had not. */
static int deaths(struct sm_test_options options)
{
    struct sm_test *whole, *test;
    int failures = failed("create", sm_test_create(&whole, &options, &error));

    if (failures)
        return 1;
    failures = failed("whole", sm_test_finish(whole));
    for (unsigned place = 0; place < sm_test_places() && !failures; place++) {
        options.seed = 1 + place;
        if (failed("create", sm_test_create(&test, &options, &error)))
            return 1;
        sm_test_until_packet(test, 500);
        sm_test_kill_at(test, 1, place, 1);
        sm_test_merge(test, 1, (unsigned)sm_test_start_replica(test));
        failures += failed(sm_test_place_name(place), sm_test_finish(test));
        failures += failed(sm_test_place_name(place), !sm_test_same(test, whole, SM_BY_ALL, &error));
        sm_test_destroy(test, NULL);
    }
    sm_test_destroy(whole, NULL);
    return failures;
}

int main(void)
{
    struct sm_trace *trace = make_trace();
    struct sm_test_options options = {.size = sizeof options,
                                      .on_packet = on_packet,
                                      .setup = setup_replica,
                                      .input = trace,
                                      .order_arrival = true,
                                      .digest = number_of};

    int failures = limits(options) + deaths(options);
    options.replicas = 3;
    options.schedule = true;
    for (options.seed = 1; options.seed <= 10; options.seed++) {
        options.kills = options.seed % 2 ? 0 : 40;
        failures += failed("split as unsplit", sm_test_compare(&options, &error));
    }
    sm_trace_destroy(trace);
    return failures != 0;
}
