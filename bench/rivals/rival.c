/* SPDX-License-Identifier: BSD-2-Clause */
#include "rivals/rival.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_NS 10000000000ull

/* ---- the switch ---- */

static void fail(struct rival *rival)
{
    atomic_store_explicit(&rival->controller.failed, true, memory_order_relaxed);
}

static void say(struct rival *rival, enum message_kind kind, uint64_t number, const struct passing *packet)
{
    if (!mailbox_say(&rival->to_controller, kind, number, packet, packet ? sizeof *packet : 0))
        fail(rival);
}

static void hand_over(struct rival *rival, unsigned function, const struct passing *packet)
{
    struct ring *ring = &rival->instances[function].in;
    uint32_t head;

    if (ring_room(ring, &head) == 0) {
        fail(rival);
        return;
    }
    *(struct passing *)ring_at(ring, head) = *packet;
    ring_publish(ring, head + 1);
}

static void steer(struct rival *rival, const struct passing *packet)
{
    rival->matched++;
    for (unsigned function = 0; function < 2; function++)
        if (rival->actions & 1u << function)
            hand_over(rival, function, packet);
    if (rival->actions & TO_CONTROLLER)
        say(rival, MESSAGE_PACKET_IN, packet->ticket, packet);
}

static bool take_in(struct rival *rival)
{
    struct sm_frame frame;
    struct sm_parsed parsed;

    if (rival->stopped || rival->in->ops->receive(rival->in, &frame) != 1)
        return false;
    struct passing packet = {.ticket = ++rival->entered, .seconds = frame.seconds, .fraction = frame.fraction};
    sm_parse(rival->parser, rival->in->linktype, frame.data, frame.caplen, frame.len, sm_frame_time(rival->in, &frame),
             &parsed);
    packet.key = parsed.key;
    memcpy(packet.frame, frame.data, INSTANCE_FRAME);
    steer(rival, &packet);
    return true;
}

static void send_out(struct rival *rival, const struct passing *packet)
{
    const struct sm_frame frame = {.data = packet->frame,
                                   .caplen = INSTANCE_FRAME,
                                   .len = INSTANCE_FRAME,
                                   .seconds = packet->seconds,
                                   .fraction = packet->fraction};
    uint64_t hash = table_hash(&packet->key), *last = table_find(&rival->seen, &packet->key, hash);

    if (!last && !(last = table_insert(&rival->seen, &packet->key, hash))) {
        fail(rival);
        return;
    }
    rival->reordered += packet->ticket < *last;
    *last = packet->ticket;
    rival->left++;
    rival->out->port.ops->send(&rival->out->port, &frame);
}

static unsigned take_back(struct rival *rival, struct ring *ring)
{
    uint32_t tail, n = ring_waiting(ring, &tail);

    for (uint32_t i = 0; i < n; i++)
        send_out(rival, ring_at(ring, tail + i));
    ring_consume(ring, tail + n);
    return n;
}

static bool obey(struct rival *rival)
{
    struct message message;
    int heard = mailbox_hear(&rival->to_controller, &message);

    if (heard < 0)
        fail(rival);
    if (heard <= 0)
        return false;
    if (message.kind == MESSAGE_INSTALL) {
        say(rival, MESSAGE_DONE, rival->matched, NULL);
        rival->actions = (unsigned)message.number;
        rival->matched = 0;
    } else {
        struct passing packet;
        memcpy(&packet, message.body, sizeof packet);
        hand_over(rival, (unsigned)message.number, &packet);
    }
    return true;
}

static void turn(struct rival *rival)
{
    bool busy = obey(rival);

    busy |= take_in(rival);
    for (unsigned function = 0; function < 2; function++)
        busy |= take_back(rival, &rival->instances[function].out) > 0;
    if (!busy)
        sched_yield();
}

/* ---- all of it ---- */

static bool start(struct rival *rival)
{
    void *(*const work[3])(void *) = {instance_run, instance_run, controller_run};
    void *const of[3] = {&rival->instances[0], &rival->instances[1], &rival->controller};

    while (rival->started < 3 &&
           pthread_create(&rival->threads[rival->started], NULL, work[rival->started], of[rival->started]) == 0)
        rival->started++;
    return rival->started == 3;
}

static bool connect_all(struct rival *rival)
{
    bool made = mailbox_pair(&rival->controller.network, &rival->to_controller);

    for (unsigned i = 0; i < 2; i++)
        made &= mailbox_pair(&rival->controller.functions[i], &rival->instances[i].controller);
    return made;
}

int rival_open(struct rival *rival, uint32_t flows, uint32_t rate, struct sm_errbuf *error)
{
    memset(rival, 0, sizeof *rival);
    rival->actions = 1;
    bool made = connect_all(rival);
    for (unsigned i = 0; i < 2; i++)
        made &= instance_open(&rival->instances[i], flows, 1);
    made &= table_init(&rival->seen, flows, sizeof(uint64_t)) && controller_open(&rival->controller);
    made = made && sm_parser_create(&rival->parser, 16) == 0 &&
           sm_port_open_generator(&rival->in, flows, INSTANCE_FRAME, 0, rate) == 0 &&
           (rival->out = latency_open(rival->in)) && start(rival);
    if (made)
        return 0;
    snprintf(error->text, sizeof error->text, "no memory, sockets or threads for OpenNF's controller");
    return SM_E_NO_MEMORY;
}

static bool failed(const struct rival *rival)
{
    return atomic_load_explicit(&rival->controller.failed, memory_order_relaxed) ||
           atomic_load_explicit(&rival->instances[0].failed, memory_order_relaxed) ||
           atomic_load_explicit(&rival->instances[1].failed, memory_order_relaxed);
}

void rival_rest(struct rival *rival, uint64_t ns)
{
    for (uint64_t begin = bench_now(); bench_now() - begin < ns;)
        turn(rival);
}

/* Nothing is under way any more, be it on the way that the last move has given up. */
static void settle(struct rival *rival)
{
    for (uint64_t begin = bench_now();
         rival->left < rival->entered && bench_now() - begin < DRAIN_NS && !failed(rival);)
        turn(rival);
}

int rival_move(struct rival *rival, enum rival_move how, double *ms, struct sm_errbuf *error)
{
    struct controller *controller = &rival->controller;

    rival->stopped = true;
    settle(rival);
    rival->stopped = false;
    atomic_store_explicit(&controller->wanted, how, memory_order_release);
    while (atomic_load_explicit(&controller->wanted, memory_order_acquire) != RIVAL_NOTHING && !failed(rival))
        turn(rival);
    *ms = controller->ms;
    if (!failed(rival))
        return 0;
    snprintf(error->text, sizeof error->text, "a move by OpenNF's controller has failed");
    return SM_E_STATE;
}

static void stop(struct rival *rival)
{
    atomic_store_explicit(&rival->controller.stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < 2; i++)
        atomic_store_explicit(&rival->instances[i].stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < rival->started; i++)
        pthread_join(rival->threads[i], NULL);
}

int rival_close(struct rival *rival, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;
    int result = 0;

    rival->stopped = true;
    if (rival->started == 3)
        settle(rival);
    stop(rival);
    uint64_t counted = instance_counted(&rival->instances[0]) + instance_counted(&rival->instances[1]);
    if (rival->started == 3 && (failed(rival) || rival->left != rival->entered || counted != rival->left)) {
        snprintf(error->text, sizeof error->text,
                 "OpenNF's move lost something: %llu packets came, %llu left, %llu counted",
                 (unsigned long long)rival->entered, (unsigned long long)rival->left, (unsigned long long)counted);
        result = SM_E_STATE;
    }
    for (unsigned i = 0; i < 2; i++)
        instance_close(&rival->instances[i]);
    controller_close(&rival->controller);
    mailbox_close(&rival->to_controller);
    table_free(&rival->seen);
    if (rival->parser)
        sm_parser_destroy(rival->parser);
    if (rival->in)
        rival->in->ops->close(rival->in, false, &ignored);
    if (rival->out)
        rival->out->port.ops->close(&rival->out->port, false, &ignored);
    return result;
}
