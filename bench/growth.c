/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What more flows cost: the time of a packet, of the switch and one replica on one core, and memory, as flows grow from
 * ten thousand to four million. All of these services are there at the same time and take turns, so that the machine is
 * the same for all. A flow has a record of 64 bytes.
 */

#include "slice.h"
#include "tables.h"

#define SIZES 4u
#define RECORD_BYTES 64u
#define QUICK 1000u /* times fewer flows */

/* The first is what the others are held against. */
static const struct {
    uint32_t flows;
    const char *time, *memory;
} sizes[SIZES] = {
    {10000, "state: time of a packet, 10,000 flows", "state: bytes of a flow beside its record, 10,000 flows"},
    {100000, "state: time of a packet, 100,000 flows, beside 10,000", "state: the same, 100,000 flows"},
    {1000000, "state: time of a packet, 1 M flows, beside 10,000", "state: the same, 1 M flows"},
    {4000000, "state: time of a packet, 4 M flows, beside 10,000", "state: the same, 4 M flows"},
};

struct growth {
    struct service services[SIZES];
    sm_class classes[SIZES];
    unsigned opened;
    struct figure *time[SIZES], *memory[SIZES], *without_key;
};

static uint32_t flows_of(const struct bench_options *options, unsigned size)
{
    return options->quick ? sizes[size].flows / QUICK : sizes[size].flows;
}

/* Flows come about in random order, and are then met in another one, so that none lies beside the next. */
static int open_one(struct growth *growth, unsigned size, const struct bench_options *options, struct sm_errbuf *error)
{
    const uint32_t flows = flows_of(options, size);
    const struct service_options wanted = service_of_counters(1, flows, options->seed, &growth->classes[size]);
    struct sm_port *generator;

    growth->opened++;
    int result = service_open(&growth->services[size], &wanted, error);
    if (result == 0)
        result = service_warm(&growth->services[size], flows, error);
    if (result == 0)
        result = sm_port_open_generator(&generator, flows, 64, 0, 0);
    if (result == 0)
        service_input(&growth->services[size], generator);
    return result;
}

static void note_memory(struct growth *growth, unsigned size, uint32_t flows)
{
    struct state_usage usage;

    state_usage(growth->services[size].arena->state, &usage);
    double bytes = (double)usage.memory_used / flows - RECORD_BYTES;
    samples_add(&growth->memory[size]->ours, bytes);
    if (size == SIZES - 1)
        samples_add(&growth->without_key->ours, bytes - (double)sizeof(struct sm_key));
}

static void repeat(struct growth *growth, const struct bench_options *options)
{
    struct slice slices[SIZES] = {0};
    uint64_t begin = bench_now();

    do
        for (unsigned size = 0; size < SIZES; size++)
            slice_pass(&growth->services[size], &slices[size]);
    while ((double)(bench_now() - begin) < options->seconds * 2e9);
    for (unsigned size = 0; size < SIZES; size++) {
        samples_add(&growth->time[size]->ours, (double)slices[size].all / (double)slices[size].packets);
        if (size > 0)
            samples_add(&growth->time[size]->reference, growth->time[0]->ours.value[growth->time[0]->ours.count - 1]);
        note_memory(growth, size, flows_of(options, size));
    }
}

static void name_figures(struct report *report, struct growth *growth)
{
    for (unsigned size = 0; size < SIZES; size++)
        growth->time[size] = report_figure(report, sizes[size].time, "ns");
    for (unsigned size = 0; size < SIZES; size++)
        growth->memory[size] = report_figure(report, sizes[size].memory, "bytes");
    growth->without_key = report_figure(report, "state: bytes of a flow beside record and key, 4 M flows", "bytes");
    growth->time[SIZES - 1]->ratio = (struct target){TARGET_AT_MOST, 2};
    growth->memory[SIZES - 1]->target = (struct target){TARGET_AT_MOST, 32};
}

static void draw(struct report *report, const struct growth *growth, const struct bench_options *options)
{
    struct plot *plot = report_plot(report, "growth", "more flows", "flows", "of a packet, or of a flow");

    struct curve *time = plot_curve(plot, "time of a packet, ns");
    struct curve *memory = plot_curve(plot, "bytes of a flow beside its record");
    for (unsigned size = 0; size < SIZES; size++) {
        curve_add(time, flows_of(options, size), samples_median(&growth->time[size]->ours));
        curve_add(memory, flows_of(options, size), samples_median(&growth->memory[size]->ours));
    }
    plot_mark(plot, "asked of time, at 4 M: twice that at 10,000", false, 2 * samples_median(&growth->time[0]->ours));
    plot_mark(plot, "asked of memory: 32", false, 32);
}

int bench_growth(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    static struct growth growth;
    int result = 0;

    growth = (struct growth){.opened = 0};
    name_figures(report, &growth);
    for (unsigned size = 0; result == 0 && size < SIZES; size++)
        result = open_one(&growth, size, options, error);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        repeat(&growth, options);
    if (result == 0)
        draw(report, &growth, options);
    for (unsigned size = 0; size < growth.opened; size++)
        result = service_close(&growth.services[size], result, error);
    return result;
}
