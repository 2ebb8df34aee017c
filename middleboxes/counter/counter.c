/* SPDX-License-Identifier: BSD-2-Clause */
/* counter: packets and bytes of each flow, printed once the flow has been idle; and a count of all packets. */

#include <splitmerge/splitmerge.h>

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>

#define IDLE_NS 1000000000u /* of packet time */

enum { IDLE, TIMERS }; /* the timer slots of a flow */

/* What is known of a flow. It lies in memory that all replicas share, so a move takes it along. */
struct count {
    uint64_t packets;
    uint64_t bytes;
};

static const struct sm_field fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct count, packets), sizeof(uint64_t), NULL, 0},
    {"bytes", SM_FIELD_UINT, offsetof(struct count, bytes), sizeof(uint64_t), "B", 0},
};

/* The process's own (internal) state: the same in every replica, set before the first packet. */
struct counter {
    sm_class flows;
    sm_counter all;
};

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const struct counter *counter = user;
    sm_flow flow;

    sm_counter_add(replica, counter->all, 1);
    if (sm_flow_create(replica, counter->flows, packet, 0, &flow, NULL) != 0)
        return; /* no room for another flow: reported as flow_limit, and the packet passes */
    struct count *count = flow.state;
    count->packets++;
    count->bytes += sm_packet_len(packet);
    sm_flow_timer_set(replica, counter->flows, flow, IDLE, (sm_time){sm_packet_time(packet).ns + IDLE_NS});
}

static void on_idle(struct sm_replica *replica, sm_class flows, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    const struct count *count = flow.state;
    const struct sm_key *key = sm_flow_key(flow);
    int family = key->family == 6 ? AF_INET6 : AF_INET;
    char a[INET6_ADDRSTRLEN], b[INET6_ADDRSTRLEN];

    (void)slot, (void)now, (void)user;
    inet_ntop(family, key->a, a, sizeof a);
    inet_ntop(family, key->b, b, sizeof b);
    printf("%u %s %u %s %u %" PRIu64 " packets %" PRIu64 " bytes\n", key->protocol, a, key->a_port, b, key->b_port,
           count->packets, count->bytes);
    sm_flow_close(replica, flows, flow);
}

static int run(struct sm_replica *replica, struct counter *counter, struct sm_errbuf *error)
{
    const struct sm_class_options flows = {.size = sizeof flows,
                                           .name = "flows",
                                           .record_size = sizeof(struct count),
                                           .granularity = SM_BY_FLOW,
                                           .timers = TIMERS,
                                           .fields = fields,
                                           .field_count = sizeof fields / sizeof *fields,
                                           .on_timer = on_idle};
    int result;

    if ((result = sm_class_register(replica, &flows, &counter->flows)) != 0 ||
        (result = sm_counter_register(replica, "packets", &counter->all)) != 0 ||
        (result = sm_start(replica, error)) != 0)
        return result;
    if ((result = sm_run(replica)) != 0)
        snprintf(error->text, sizeof error->text, "%s", sm_last_error(replica));
    printf("%" PRId64 " packets in all\n", sm_counter_read(replica, counter->all, NULL));
    return result;
}

int main(int argc, char **argv)
{
    struct counter counter;
    struct sm_options options = {.size = sizeof options, .name = "counter", .on_packet = on_packet, .user = &counter};
    struct sm_errbuf error = {""};
    struct sm_replica *replica;

    setvbuf(stdout, NULL, _IOLBF, 0); /* replicas may share it: whole lines only */
    options.input = argc > 1 ? argv[1] : NULL;
    options.report = argc > 2 ? argv[2] : NULL;
    int result = sm_open(&replica, &options, &error);
    if (result == 0)
        result = run(replica, &counter, &error);
    if (result)
        fprintf(stderr, "counter: %s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_close(replica);
    return result != 0;
}
