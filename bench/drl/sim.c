/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "drl/internal.h"
#include "drl/tcp.h"

#define JITTER 0.05 /* of the round trip */

enum kind { START, ARRIVAL, ACKNOWLEDGED, LOST, TIMEOUT, INTERVAL, UPDATE };

struct event {
    uint64_t time;
    uint64_t order; /* of those at the same time: as they were made */
    enum kind kind;
    uint32_t who;    /* a flow; a limiter */
    uint32_t number; /* of a packet; of an update in `mail` */
    uint32_t life;   /* of the flow: what an earlier one left under way is nobody's */
};

struct source {
    struct tcp tcp;
    uint64_t link_free; /* when its access link has sent all */
    uint32_t left;      /* packets to send; UINT32_MAX: no end */
    uint32_t life;
};

struct sim {
    const struct sim_setup *setup;
    struct sim_result *result;
    uint64_t now, random, made;
    struct event *heap;
    size_t count, room;
    struct source *sources;
    struct drl **limiters;
    struct drl_bucket central;
    struct drl_update *mail; /* under way; a free one's `from` is the next free one */
    uint32_t mail_room, mail_free;
    bool failed;
};

static double uniform(struct sim *sim)
{
    sim->random ^= sim->random >> 12;
    sim->random ^= sim->random << 25;
    sim->random ^= sim->random >> 27;
    return (double)(sim->random * 2685821657736338717ull >> 11) / 9007199254740992.0;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

static void at(struct sim *sim, uint64_t time, enum kind kind, uint32_t who, uint32_t number)
{
    if (sim->count == sim->room) {
        size_t room = sim->room ? 2 * sim->room : 4096;
        struct event *heap = realloc(sim->heap, room * sizeof *heap);
        if (!heap) {
            sim->failed = true;
            return;
        }
        sim->heap = heap;
        sim->room = room;
    }
    struct event event = {.time = time, .order = sim->made++, .kind = kind, .who = who, .number = number};
    event.life = kind < INTERVAL ? sim->sources[who].life : 0;
    size_t place = sim->count++;
    for (; place > 0 && before(&event, &sim->heap[(place - 1) / 2]); place = (place - 1) / 2)
        sim->heap[place] = sim->heap[(place - 1) / 2];
    sim->heap[place] = event;
}

static struct event next(struct sim *sim)
{
    struct event first = sim->heap[0], last = sim->heap[--sim->count];
    size_t place = 0;

    for (size_t child; (child = 2 * place + 1) < sim->count; place = child) {
        if (child + 1 < sim->count && before(&sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!before(&sim->heap[child], &last))
            break;
        sim->heap[place] = sim->heap[child];
    }
    sim->heap[place] = last;
    return first;
}

static double access_rate(const struct sim *sim, const struct sim_flow *flow)
{
    return flow->access_at_ns && sim->now >= flow->access_at_ns ? flow->access_later : flow->access;
}

static void send(struct sim *sim, uint32_t who)
{
    const struct sim_flow *flow = &sim->setup->flows[who];
    struct source *source = &sim->sources[who];

    if (flow->stop_ns && sim->now >= flow->stop_ns)
        return;
    while (source->left > 0 && tcp_may_send(&source->tcp)) {
        source->left -= source->left != UINT32_MAX;
        source->link_free = (source->link_free > sim->now ? source->link_free : sim->now) +
                            (uint64_t)(SIM_PACKET / access_rate(sim, flow) * 1e9);
        /* Without a little chance flows of one round trip lock into phase, which no network has. */
        uint64_t jitter = (uint64_t)(uniform(sim) * JITTER * (double)flow->rtt_ns);
        at(sim, source->link_free + flow->rtt_ns / 10 + jitter, ARRIVAL, who, tcp_send(&source->tcp));
    }
    if (source->left > 0 || source->tcp.under_way > 0)
        return;
    source->life++;
    at(sim, sim->now + 1 + (uint64_t)(-log(1 - uniform(sim)) * (double)flow->think_ns), START, who, 0);
}

static void start(struct sim *sim, uint32_t who)
{
    const struct sim_flow *flow = &sim->setup->flows[who];

    tcp_start(&sim->sources[who].tcp, flow->tcp == SIM_CUBIC, flow->rtt_ns);
    sim->sources[who].left = flow->packets ? flow->packets : UINT32_MAX;
    send(sim, who);
}

static bool conforms(struct sim *sim, uint32_t who)
{
    const struct sim_setup *setup = sim->setup;
    bool central = drl_bucket_take(&sim->central, setup->rate, setup->burst, sim->now, SIM_PACKET);

    sim->result->central[sim->now / SIM_BIN_NS] += central ? SIM_PACKET : 0;
    if (setup->mode == SIM_CENTRAL)
        return central;
    /* A source's next life is another flow. */
    return drl_packet(sim->limiters[setup->flows[who].limiter], sim->now,
                      (uint64_t)sim->sources[who].life << 32 | (who + 1), SIM_PACKET);
}

static void arrival(struct sim *sim, const struct event *event)
{
    const struct sim_flow *flow = &sim->setup->flows[event->who];
    bool passes = conforms(sim, event->who);
    size_t bin = sim->now / SIM_BIN_NS;

    sim->result->arrived++;
    sim->result->dropped += !passes;
    if (passes) {
        sim->result->passed[bin] += SIM_PACKET;
        sim->result->limiter_bins[flow->limiter * sim->result->bins + bin] += SIM_PACKET;
        sim->result->flow_seconds[event->who * sim->result->seconds + sim->now / 1000000000] += SIM_PACKET;
    }
    at(sim, sim->now + flow->rtt_ns - flow->rtt_ns / 10, passes ? ACKNOWLEDGED : LOST, event->who, event->number);
}

static void lost(struct sim *sim, const struct event *event)
{
    struct source *source = &sim->sources[event->who];
    uint64_t wait = tcp_lost(&source->tcp, event->number, sim->now);

    source->left += source->left != UINT32_MAX; /* it is sent again */
    if (wait > 0)
        at(sim, sim->now + wait, TIMEOUT, event->who, 0);
    send(sim, event->who);
}

static bool parted(const struct sim *sim, uint32_t a, uint32_t b)
{
    const struct sim_setup *setup = sim->setup;
    uint32_t half = setup->limiters / 2;

    return sim->now >= setup->partition_from_ns && sim->now < setup->partition_to_ns && (a < half) != (b < half);
}

static void post(struct sim *sim, uint32_t to, const struct drl_update *update)
{
    if (sim->mail_free == sim->mail_room) {
        uint32_t room = sim->mail_room ? 2 * sim->mail_room : 1024;
        struct drl_update *mail = realloc(sim->mail, room * sizeof *mail);
        if (!mail) {
            sim->failed = true;
            return;
        }
        sim->mail = mail;
        for (uint32_t i = sim->mail_room; i < room; i++)
            mail[i].from = i + 1;
        sim->mail_room = room;
    }
    uint32_t place = sim->mail_free;
    sim->mail_free = sim->mail[place].from;
    sim->mail[place] = *update;
    at(sim, sim->now + sim->setup->control_delay_ns, UPDATE, to, place);
}

/* Zeroes at the end go without saying. */
static uint64_t size_of(const struct drl_update *update)
{
    unsigned values = sizeof update->value / sizeof *update->value;

    while (values > 0 && update->value[values - 1] == 0)
        values--;
    return SIM_HEADERS + SIM_DATAGRAM + values * SIM_VALUE;
}

static void dispatch(struct sim *sim, uint32_t from, uint32_t to, const struct drl_update *update)
{
    sim->result->control += size_of(update);
    if (!parted(sim, from, to) && uniform(sim) >= sim->setup->control_loss)
        post(sim, to, update);
}

static void interval(struct sim *sim, uint32_t who)
{
    uint32_t to[DRL_MAX_FANOUT];
    struct drl_update update[DRL_MAX_FANOUT];
    unsigned count = drl_interval(sim->limiters[who], sim->now, to, update);

    for (unsigned i = 0; i < count; i++)
        dispatch(sim, who, to[i], &update[i]);
    at(sim, sim->now + sim->setup->interval_ns, INTERVAL, who, 0);
}

static void update(struct sim *sim, const struct event *event)
{
    struct drl_update reply;
    unsigned replies;
    uint32_t from = sim->mail[event->number].from;

    drl_receive(sim->limiters[event->who], sim->now, &sim->mail[event->number], &reply, &replies);
    sim->mail[event->number].from = sim->mail_free;
    sim->mail_free = event->number;
    if (replies > 0)
        dispatch(sim, event->who, from, &reply);
}

static void handle(struct sim *sim, const struct event *event)
{
    if (event->kind < INTERVAL && event->life != sim->sources[event->who].life)
        return;
    switch (event->kind) {
    case START:
        start(sim, event->who);
        break;
    case ARRIVAL:
        arrival(sim, event);
        break;
    case ACKNOWLEDGED:
        tcp_acknowledged(&sim->sources[event->who].tcp, sim->now);
        send(sim, event->who);
        break;
    case LOST:
        lost(sim, event);
        break;
    case TIMEOUT:
        tcp_timeout(&sim->sources[event->who].tcp);
        send(sim, event->who);
        break;
    case INTERVAL:
        interval(sim, event->who);
        break;
    case UPDATE:
        update(sim, event);
        break;
    }
}

static bool prepare(struct sim *sim, struct sim_result *result)
{
    const struct sim_setup *setup = sim->setup;

    result->bins = (unsigned)(setup->duration_ns / SIM_BIN_NS);
    result->passed = calloc(result->bins, sizeof(double));
    result->central = calloc(result->bins, sizeof(double));
    result->seconds = (unsigned)(setup->duration_ns / 1000000000);
    result->flow_seconds = calloc((size_t)setup->flow_count * result->seconds, sizeof(float));
    result->limiter_bins = calloc((size_t)setup->limiters * result->bins, sizeof(double));
    sim->sources = calloc(setup->flow_count, sizeof *sim->sources);
    sim->limiters = calloc(setup->limiters, sizeof(struct drl *));
    if (!result->passed || !result->central || !result->flow_seconds || !result->limiter_bins || !sim->sources ||
        !sim->limiters)
        return false;
    for (uint32_t i = 0; i < setup->flow_count; i++)
        at(sim, setup->flows[i].start_ns, START, i, 0);
    for (uint32_t i = 0; setup->mode != SIM_CENTRAL && i < setup->limiters; i++) {
        const struct drl_options options = {
            .mode = setup->mode,
            .rate = setup->rate,
            .burst = setup->burst,
            .interval_ns = setup->interval_ns,
            .limiters = setup->limiters,
            .self = i,
            .fanout = setup->fanout,
            .seed = setup->seed * 1000003 + i + 1,
        };
        sim->limiters[i] = drl_create(&options, 0);
        if (!sim->limiters[i])
            return false;
        /* Hosts do not tick together. */
        at(sim, (uint64_t)(uniform(sim) * (double)setup->interval_ns) + 1, INTERVAL, i, 0);
    }
    return !sim->failed;
}

bool sim_run(const struct sim_setup *setup, struct sim_result *result)
{
    struct sim sim = {.setup = setup, .result = result, .random = setup->seed};

    *result = (struct sim_result){0};
    sim.central.level = setup->burst;
    sim.failed = !prepare(&sim, result);
    while (!sim.failed && sim.count > 0) {
        struct event event = next(&sim);
        sim.now = event.time;
        if (event.time >= setup->duration_ns)
            break;
        handle(&sim, &event);
    }
    for (uint32_t i = 0; sim.limiters && i < setup->limiters; i++)
        drl_destroy(sim.limiters[i]);
    free(sim.limiters);
    free(sim.sources);
    free(sim.heap);
    free(sim.mail);
    return !sim.failed;
}

void sim_free(struct sim_result *result)
{
    free(result->passed);
    free(result->central);
    free(result->flow_seconds);
    free(result->limiter_bins);
}
