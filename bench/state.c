/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What transactions cost: packets a second through a switch and one replica whose middlebox writes a record of 64 bytes
 * for each packet, with the undo journal and, in turns with it, without. The two share one core: on two, whichever side
 * waits for the other would hide a part of it. And by itself the replica's time for a packet, where nothing hides any.
 */

#include "bench.h"
#include "slice.h"
#include "tables.h"

static void pass(struct service *service, bool journal, struct slice *slice)
{
    service->replicas[0].replica->journal.off = !journal;
    slice_pass(service, slice);
}

static void measure(struct service *service, const struct bench_options *options, struct figure *rate,
                    struct figure *cost)
{
    for (unsigned i = 0; i < options->repeat; i++) {
        struct slice with = {0}, without = {0};
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
    sm_class cls;

    const struct service_options wanted = service_of_counters(1, options->flows, options->seed, &cls);

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
    result = service_close(&service, result, error);
    json_object_set_new(report->parameters, "state",
                        json_pack("{s:i, s:i, s:s, s:i}", "packet_bytes", 64, "record_bytes", 64, "order", "flow",
                                  "buffers", (int)SERVICE_BUFFERS));
    if (result == 0)
        result = bench_growth(options, report, error);
    if (result == 0)
        result = bench_tables(options, report, error);
    if (result == 0)
        result = bench_redis(options, report, error);
    return result;
}
