/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What transactions cost: packets a second through a switch and one replica whose middlebox writes a record of 64 bytes
 * for each packet, with the undo journal and, in turns with it, without. The two share one core: on two, whichever side
 * waits for the other would hide a part of it. And by itself the replica's time for a packet, where nothing hides any.
 */

#include "bench.h"
#include "service.h"
#include "tables.h"

#define BUFFERS 4096u
#define SLICE_PACKETS 65536u /* by turns so often, so that both meet the same machine */

struct side {
    uint64_t packets;
    uint64_t all, replica; /* ns */
};

/* Pass a slice of packets. What the replica's bursts took is `replica_ns` of it. */
static void pass(struct service *service, bool journal, struct side *side)
{
    struct sm_replica *replica = service->replicas[0].replica;
    uint64_t out = service->sw->out, begin = bench_now();

    replica->journal.off = !journal;
    while (service->sw->out - out < SLICE_PACKETS) {
        switch_poll(service->sw);
        uint64_t from = bench_now();
        replica_burst(replica, CHANNEL_BURST);
        side->replica += bench_now() - from;
    }
    side->all += bench_now() - begin;
    side->packets += service->sw->out - out;
}

static void measure(struct service *service, const struct bench_options *options, struct figure *rate,
                    struct figure *cost)
{
    for (unsigned i = 0; i < options->repeat; i++) {
        struct side with = {0}, without = {0};
        while ((double)(with.all + without.all) < options->seconds * 2e9) {
            pass(service, true, &with);
            pass(service, false, &without);
        }
        samples_add(&rate->ours, (double)with.packets * 1e3 / (double)with.all);
        samples_add(&rate->reference, (double)without.packets * 1e3 / (double)without.all);
        samples_add(&cost->ours, (double)with.replica / (double)with.packets);
        samples_add(&cost->reference, (double)without.replica / (double)without.packets);
    }
    service->replicas[0].replica->journal.off = false;
}

int bench_state(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct figure *rate = report_figure(report, "state: packets with the journal", "Mpps");
    struct figure *cost = report_figure(report, "state: replica, time of a packet", "ns");
    struct service service;
    struct sm_port *generator;
    struct sm_errbuf closing;
    sm_class cls;

    const struct service_options wanted = {
        .replicas = 1,
        .buffers = BUFFERS,
        .flows = options->flows,
        .seed = options->seed,
        .setup = counter_setup,
        .on_packet = counter_packet,
        .user = &cls,
    };
    bench_pin(0);
    rate->ratio = (struct target){TARGET_AT_LEAST, 0.95};
    int result = service_open(&service, &wanted, error);
    if (result == 0)
        result = service_warm(&service, options->flows, error);
    if (result == 0)
        result = sm_port_open_generator(&generator, options->flows, 64, 0, 0);
    if (result == 0) {
        service_input(&service, generator);
        measure(&service, options, rate, cost);
    }
    int closed = service_close(&service, &closing);
    if (result == 0 && closed != 0) {
        result = closed;
        *error = closing;
    }
    json_object_set_new(report->parameters, "state",
                        json_pack("{s:i, s:i, s:s, s:i}", "packet_bytes", 64, "record_bytes", 64, "order", "flow",
                                  "buffers", (int)BUFFERS));
    if (result == 0)
        result = bench_tables(options, report, error);
    if (result == 0)
        result = bench_redis(options, report, error);
    return result;
}
