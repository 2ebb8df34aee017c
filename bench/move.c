/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How long it takes to move all flows from one replica to another and back while packets flow: in all, and how long
 * each shard's packets were held. The switch has a core, the two replicas share the other.
 *
 * The reference: a copying move of the same number of flows between two plain tables, without any traffic. One thread
 * finds each flow, copies key and record to a ring and removes it; the other inserts it.
 */

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "copying.h"
#include "opennf.h"
#include "relabel.h"
#include "ring.h"
#include "service.h"
#include "table.h"
#include "testing/random.h"

#define RATE 200000u /* packets a second, all the time */
#define RECORD_BYTES 64u
#define MOVES 10u /* in one repetition, back and forth */
#define COPIES 3u /* of the reference */
#define REST_NS 20000000ull
#define RING_ENTRIES 4096u

struct parcel {
    struct sm_key key;
    uint64_t hash;
    uint8_t record[RECORD_BYTES];
};

struct copying {
    struct table from, to;
    struct ring ring;
    uint32_t flows;
    bool failed;
};

static void *copy_in(void *arg)
{
    struct copying *copying = arg;

    bench_pin(1);
    for (uint32_t done = 0; done < copying->flows;) {
        uint32_t tail, n = ring_waiting(&copying->ring, &tail);
        if (n == 0)
            sched_yield();
        for (uint32_t i = 0; i < n; i++)
            table_prefetch(&copying->to, ((const struct parcel *)ring_at(&copying->ring, tail + i))->hash);
        for (uint32_t i = 0; i < n; i++) {
            const struct parcel *parcel = ring_at(&copying->ring, tail + i);
            void *record = table_insert(&copying->to, &parcel->key, parcel->hash);
            if (record)
                memcpy(record, parcel->record, RECORD_BYTES);
            else
                copying->failed = true;
        }
        ring_consume(&copying->ring, tail + n);
        done += n;
    }
    return NULL;
}

static void copy_out(struct copying *copying, const struct sm_key *keys)
{
    for (uint32_t done = 0; done < copying->flows;) {
        uint32_t head, room = ring_room(&copying->ring, &head), n = copying->flows - done;
        n = n < RING_BURST ? n : RING_BURST;
        if (room < n) {
            sched_yield();
            continue;
        }
        uint64_t hash[RING_BURST];
        for (uint32_t i = 0; i < n; i++)
            table_prefetch(&copying->from, hash[i] = table_hash(&keys[done + i]));
        for (uint32_t i = 0; i < n; i++) {
            struct parcel *parcel = ring_at(&copying->ring, head + i);
            void *record = table_find(&copying->from, &keys[done + i], hash[i]);
            parcel->key = keys[done + i];
            parcel->hash = hash[i];
            memcpy(parcel->record, record, RECORD_BYTES);
            table_remove(&copying->from, record);
        }
        ring_publish(&copying->ring, head + n);
        done += n;
    }
}

static bool copying_init(struct copying *copying, struct sm_key *keys, uint64_t seed)
{
    if (!table_init(&copying->from, copying->flows, RECORD_BYTES) ||
        !table_init(&copying->to, copying->flows, RECORD_BYTES) ||
        !ring_init(&copying->ring, RING_ENTRIES, sizeof(struct parcel)))
        return false;
    for (uint32_t i = 0; i < copying->flows; i++) {
        uint32_t a = (uint32_t)random_star(&seed);
        keys[i] = (struct sm_key){.a_port = (uint16_t)i, .b_port = 9, .family = 4, .protocol = 17};
        memcpy(keys[i].a, &a, sizeof a);
        memcpy(keys[i].b, &i, sizeof i); /* so that no two are the same */
        table_insert(&copying->from, &keys[i], table_hash(&keys[i]));
    }
    return true;
}

/* One copying move; its time in ms. */
int bench_copying_reference(const struct bench_options *options, double *ms)
{
    struct copying copying = {.flows = options->flows};
    struct sm_key *keys = calloc(options->flows, sizeof *keys);
    pthread_t thread;
    int result = SM_E_NO_MEMORY;

    if (keys && copying_init(&copying, keys, options->seed)) {
        uint64_t begin = bench_now();
        if (pthread_create(&thread, NULL, copy_in, &copying) == 0) {
            copy_out(&copying, keys);
            pthread_join(thread, NULL);
            *ms = (double)(bench_now() - begin) / 1e6;
            result = copying.failed ? SM_E_STATE : 0;
        }
    }
    table_free(&copying.from);
    table_free(&copying.to);
    free(copying.ring.entries);
    free(keys);
    return result;
}

struct findings {
    struct figure *total, *p50, *p99, *max, *rate, *held, *lost, *reordered;
};

static int repeat(const struct bench_options *options, struct service *service, struct findings *found,
                  struct sm_errbuf *error)
{
    struct sm_switch *sw = service->sw;
    struct samples totals = {.count = 0};
    struct sm_port *generator;

    /* A generator of its own: one that waited meanwhile would make up for it. */
    int opened = sm_port_open_generator(&generator, options->flows, 64, 0, RATE);
    if (opened)
        return opened;
    service_input(service, generator);
    service_rest(service, REST_NS);
    uint64_t begin = bench_now(), out = sw->out, held = sw->held_packets;
    memset(&sw->pauses, 0, sizeof sw->pauses);
    for (unsigned i = 0; i < MOVES; i++) {
        double ms;
        int result = service_move_all(service, (i + 1) % 2, false, &ms, error);
        if (result)
            return result;
        samples_add(&totals, ms);
        service_rest(service, REST_NS);
    }
    samples_add(&found->rate->ours, (double)(sw->out - out) * 1e6 / (double)(bench_now() - begin));
    samples_add(&found->total->ours, samples_median(&totals));
    samples_add(&found->p50->ours, (double)histogram_quantile(&sw->pauses, 0.5) / 1e3);
    samples_add(&found->p99->ours, (double)histogram_quantile(&sw->pauses, 0.99) / 1e6);
    samples_add(&found->max->ours, (double)sw->pauses.max / 1e6);
    samples_add(&found->held->ours, (double)(sw->held_packets - held) / MOVES);
    samples_add(&found->lost->ours, (double)(sw->audit.entered - sw->audit.left - sw->in_flight));
    samples_add(&found->reordered->ours, (double)sw->audit.reordered);
    return 0;
}

static int repeat_reference(const struct bench_options *options, struct findings *found)
{
    struct samples copies = {.count = 0};

    for (unsigned i = 0; i < COPIES; i++) {
        double ms;
        int result = bench_copying_reference(options, &ms);
        if (result)
            return result;
        samples_add(&copies, ms);
    }
    samples_add(&found->total->reference, samples_median(&copies));
    return 0;
}

static void name_figures(struct report *report, struct findings *found)
{
    *found = (struct findings){
        .total = report_figure(report, "move: all flows", "ms"),
        .p50 = report_figure(report, "move: hold of a shard, p50", "us"),
        .p99 = report_figure(report, "move: hold of a shard, p99", "ms"),
        .max = report_figure(report, "move: hold of a shard, max", "ms"),
        .rate = report_figure(report, "move: packets that flowed", "kpps"),
        .held = report_figure(report, "move: packets held, each time", ""),
        .lost = report_figure(report, "move: lost", ""),
        .reordered = report_figure(report, "move: reordered", ""),
    };
    found->total->target = (struct target){TARGET_AT_MOST, 50};
    found->p50->target = (struct target){TARGET_AT_MOST, 100};
    found->p99->target = (struct target){TARGET_AT_MOST, 4};
    found->lost->target = found->reordered->target = (struct target){TARGET_AT_MOST, 0};
}

static int open_service(struct service *service, sm_class *cls, const struct bench_options *options,
                        struct sm_errbuf *error)
{
    struct service_options wanted = service_of_counters(2, options->flows, options->seed, cls);

    wanted.threads = true;
    int result = service_open(service, &wanted, error);

    if (result == 0)
        result = service_warm(service, options->flows, error);
    return result;
}

/* The distribution of the last repetition's holds. */
static void draw_holds(struct report *report, const struct histogram *holds)
{
    struct plot *plot =
        report_plot(report, "holds", "move: how long a shard's packets were held", "us", "% of the shards");

    plot->log_x = true;
    struct curve *curve = plot_curve(plot, "relabel, under traffic");
    for (unsigned share = 0; share <= 1000; share++)
        curve_add(curve, (double)histogram_quantile(holds, share / 1000.0) / 1e3, share / 10.0);
}

int bench_move(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct service service;
    struct findings found;
    sm_class cls;
    int result;

    bench_pin(0);
    result = open_service(&service, &cls, options, error);
    name_figures(report, &found);
    for (unsigned i = 0; result == 0 && i < options->repeat; i++) {
        result = repeat_reference(options, &found);
        if (result == 0)
            result = repeat(options, &service, &found, error);
    }
    if (result == 0)
        draw_holds(report, &service.sw->pauses);
    result = service_close(&service, result, error);
    json_object_set_new(report->parameters, "move",
                        json_pack("{s:i, s:i, s:i, s:i}", "rate_pps", (int)RATE, "record_bytes", (int)RECORD_BYTES,
                                  "moves", (int)MOVES, "shards", (int)SM_SHARDS));
    if (result == 0)
        result = bench_copying(options, report, error);
    if (result == 0)
        result = bench_relabel(options, report, error);
    if (result == 0)
        result = bench_opennf(options, report, error);
    return result;
}
