/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How fast the switch and one replica forward 64-byte packets, each on a core of its own, from the generator to a port
 * that swallows them, against a bare ring that makes the same two crossings (bare_ring.h): a middlebox that counts
 * packets in a record of 64 bytes, and the rate limiter with a million flows, each with a limit of its own. All of
 * these are alive all the time: a packet comes before its flow's bucket is full again. What comes is a quarter more
 * than is allowed, so that a fifth is dropped once the bursts are used up, after about 30 rounds of the flows.
 */

#include <stdio.h>

#include "bare_ring.h"
#include "bench.h"
#include "limited.h"

#define LIMITED_FLOWS 1000000u
#define ALLOWED_BIT 4000000000u /* a second, of all flows: of 64 bytes every 100 ns, four fifths */
#define WARM_NS 20000000ull
#define STALL_NS 20000000000ull /* patience with a machine that gives a thread no time */
#define GENERATOR_MARGIN 1.3    /* the generator alone has to be so much faster than what it feeds */

/* Packets that were taken care of, whatever became of them. */
static uint64_t processed(const struct service *service)
{
    return service->sw->entered - service->sw->in_flight;
}

static double measure_service(struct service *service, double seconds)
{
    uint64_t begin = bench_now(), now = begin, counted_from = 0, measured_from = 0;

    while (measured_from == 0 || (double)(now - measured_from) < seconds * 1e9) {
        service_turn(service);
        now = bench_now();
        if (measured_from == 0 && now - begin > WARM_NS) {
            measured_from = now;
            counted_from = processed(service);
        }
    }
    return (double)(processed(service) - counted_from) * 1e9 / (double)(now - measured_from);
}

/* A generator alone, its packets copied as the switch does: not the service's, whose time it would use up. */
static int measure_generator(uint32_t flows, double seconds, double *rate)
{
    static uint8_t pool[64][64];
    struct sm_errbuf ignored;
    struct sm_port *generator;
    int result = sm_port_open_generator(&generator, flows, 64, 0, 0);

    if (result)
        return result;
    uint64_t begin = bench_now(), now, count = 0;
    do {
        for (unsigned i = 0; i < 64; i++) {
            struct sm_frame frame;
            generator->ops->receive(generator, &frame);
            memcpy(pool[i], frame.data, frame.caplen);
            __asm__ volatile("" ::"r"(pool[i]) : "memory");
        }
        count += 64;
        now = bench_now();
    } while ((double)(now - begin) < seconds * 1e9);
    *rate = (double)count * 1e9 / (double)(now - begin);
    return generator->ops->close(generator, false, &ignored);
}

/* One middlebox beside the bare ring. */
struct contest {
    struct service *service;
    struct bare_ring bare;
    struct figure *rate, *alone;
};

/* One repetition. False: a thread got no time at all, because others had its core; that says nothing of either. */
static bool repeat(const struct bench_options *options, struct contest *contest, int *result)
{
    struct service *service = contest->service;
    double rate = 0, generator = 0, ours = measure_service(service, options->seconds);

    *result = measure_generator(contest->bare.flows, options->seconds / 5, &generator);
    if (*result == 0)
        *result = bare_ring_measure(&contest->bare, options->seconds, &rate);
    if (*result == 0 && (ours == 0 || rate == 0))
        return false;
    samples_add(&contest->alone->ours, generator / 1e6);
    samples_add(&contest->rate->ours, ours / 1e6);
    samples_add(&contest->rate->reference, rate / 1e6);
    return true;
}

static int measure(const struct bench_options *options, struct contest *contest, struct sm_errbuf *error)
{
    uint64_t stalled_since = 0;
    int result = 0;

    while (result == 0 && contest->rate->ours.count < options->repeat) {
        if (repeat(options, contest, &result)) {
            stalled_since = 0;
        } else if (stalled_since == 0) {
            stalled_since = bench_now();
        } else if (bench_now() - stalled_since > STALL_NS) {
            snprintf(error->text, sizeof error->text, "the machine is too busy: a thread got no time on its core");
            return SM_E_STATE;
        }
    }
    double generator = samples_median(&contest->alone->ours), ours = samples_median(&contest->rate->ours);
    if (result == 0 && !options->quick && generator < GENERATOR_MARGIN * ours) {
        snprintf(error->text, sizeof error->text,
                 "generator was the bottleneck: alone %.2f Mpps, with switch and replica %.2f", generator, ours);
        return SM_E_STATE;
    }
    return result;
}

/* A packet of each flow, then the generator, beside the bare ring with as many flows. */
static int compete(const struct bench_options *options, struct contest *contest, uint32_t flows,
                   struct sm_errbuf *error)
{
    struct sm_port *generator;
    int result = service_warm(contest->service, flows, error);

    if (result == 0)
        result = sm_port_open_generator(&generator, flows, 64, 0, 0);
    if (result)
        return result;
    service_input(contest->service, generator);
    result = bare_ring_open(&contest->bare, flows);
    if (result == 0)
        result = measure(options, contest, error);
    bare_ring_close(&contest->bare);
    return result;
}

static int forward_counting(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    sm_class cls;
    struct service_options counting = service_of_counters(1, options->flows, options->seed, &cls);
    struct service service;
    struct contest contest = {.service = &service,
                              .rate = report_figure(report, "forward: switch and one replica", "Mpps"),
                              .alone = report_figure(report, "forward: generator alone", "Mpps")};

    contest.rate->target = (struct target){TARGET_AT_LEAST, 3};
    contest.rate->ratio = (struct target){TARGET_AT_LEAST, 0.4};
    counting.threads = true;
    int result = service_open(&service, &counting, error);
    if (result == 0)
        result = compete(options, &contest, options->flows, error);
    return service_close(&service, result, error);
}

static int forward_limiting(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    const uint32_t flows = options->quick ? options->flows : LIMITED_FLOWS;
    const struct service_options limiting = {
        .replicas = 1, .threads = true, .buffers = SERVICE_BUFFERS, .flows = flows, .seed = options->seed};
    struct limited limited;
    struct contest contest = {.service = &limited.service,
                              .rate = report_figure(report, "forward: switch and limiter, 1 M flows", "Mpps"),
                              .alone = report_figure(report, "forward: generator alone, 1 M flows", "Mpps")};
    char policy[128];

    contest.rate->target = (struct target){TARGET_AT_LEAST, 5};
    contest.rate->ratio = (struct target){TARGET_AT_LEAST, 0.5};
    snprintf(policy, sizeof policy, "limits: [{name: flow, per: flow, rate: %ubit, burst: 512B}]\n",
             ALLOWED_BIT / flows);
    int result = limited_open(&limited, policy, &limiting, error);
    if (result == 0)
        result = compete(options, &contest, flows, error);
    return limited_close(&limited, result, error);
}

int bench_forward(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    bench_pin(0);
    int result = forward_counting(options, report, error);
    if (result == 0)
        result = forward_limiting(options, report, error);
    json_object_set_new(report->parameters, "forward",
                        json_pack("{s:i, s:i, s:s, s:i, s:i}", "packet_bytes", 64, "record_bytes", 64, "order", "flow",
                                  "buffers", (int)SERVICE_BUFFERS, "limiter_flows", (int)LIMITED_FLOWS));
    return result;
}
