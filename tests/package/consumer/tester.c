/* SPDX-License-Identifier: BSD-2-Clause */
/* A test outside of the tree, with what is installed alone: packets of four flows are counted, split as unsplit. */

#include <splitmerge/testing.h>

#include <stdio.h>

static sm_class flows;

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, flows, packet, 0, &flow, NULL) == 0)
        ++*(unsigned *)flow.state;
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "flows", .record_size = sizeof(unsigned), .granularity = SM_BY_FLOW};

    (void)user;
    return sm_class_register(replica, &options, &flows);
}

int main(void)
{
    struct sm_trace *trace = sm_trace_create();
    struct sm_test_options options = {.size = sizeof options,
                                      .on_packet = on_packet,
                                      .setup = setup,
                                      .input = trace,
                                      .replicas = 3,
                                      .seed = 1,
                                      .schedule = true,
                                      .kills = 20,
                                      .check_every = 64};
    struct sm_errbuf error = {""};
    char from[32];
    int result = trace ? 0 : SM_E_NO_MEMORY;

    for (unsigned i = 0; result == 0 && i < 2000; i++) {
        const sm_time time = {1000000000000ull + i * 1000000ull};
        snprintf(from, sizeof from, "10.0.0.%u:1024", i % 4);
        result = sm_trace_udp(trace, time, from, "192.0.2.1:53", &i, sizeof i);
    }
    for (; result == 0 && options.seed <= 5; options.seed++)
        result = sm_test_compare(&options, &error);
    if (result)
        fprintf(stderr, "%s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_trace_destroy(trace);
    return result != 0;
}
