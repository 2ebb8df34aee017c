/* SPDX-License-Identifier: BSD-2-Clause */
#include "rivals/controller.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define PATIENCE_NS 20000000000ull
#define FROM(c) ((c)->from)
#define TO(c) (1 - (c)->from)

bool controller_open(struct controller *controller)
{
    controller->buffer = calloc(CONTROLLER_BUFFER, sizeof *controller->buffer);
    return controller->buffer != NULL;
}

void controller_close(struct controller *controller)
{
    free(controller->buffer);
    mailbox_close(&controller->functions[0]);
    mailbox_close(&controller->functions[1]);
    mailbox_close(&controller->network);
}

static bool failed(const struct controller *c)
{
    return atomic_load_explicit(&c->failed, memory_order_relaxed);
}

static void fail(struct controller *c)
{
    atomic_store_explicit(&c->failed, true, memory_order_relaxed);
}

static void say(struct controller *c, struct mailbox *to, enum message_kind kind, uint64_t number, const void *body,
                uint32_t bytes)
{
    if (!mailbox_say(to, kind, number, body, bytes))
        fail(c);
}

/* To the function that is to have the flows. */
static void packet_out(struct controller *c, const struct passing *packet)
{
    struct passing marked = *packet;

    marked.marked = c->marks;
    say(c, &c->network, MESSAGE_PACKET_OUT, TO(c), &marked, sizeof marked);
}

/* A packet that no function processes unless we see to it. */
static void keep(struct controller *c, const struct message *message)
{
    struct passing packet;

    memcpy(&packet, message->body, sizeof packet);
    if (!c->buffering)
        packet_out(c, &packet);
    else if (c->buffered < CONTROLLER_BUFFER)
        c->buffer[c->buffered++] = packet;
    else
        fail(c);
}

static void release(struct controller *c)
{
    for (uint32_t i = 0; i < c->buffered; i++)
        packet_out(c, &c->buffer[i]);
    c->buffered = 0;
    c->buffering = false;
}

static void hear_function(struct controller *c, unsigned function, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_PERFLOW:
        c->wanted_put++;
        say(c, &c->functions[TO(c)], MESSAGE_PUT_PERFLOW, 0, message->body, message->bytes);
        break;
    case MESSAGE_GOT:
        c->got++;
        break;
    case MESSAGE_PUT:
        c->put++;
        break;
    case MESSAGE_EVENT:
        keep(c, message);
        break;
    case MESSAGE_PROCESSED:
        c->last_processed = message->number;
        break;
    case MESSAGE_DONE:
        c->obeyed[function]++;
        break;
    default:
        fail(c);
    }
}

/* The order in which packets come in from the switch is that of their tickets. */
static void hear_network(struct controller *c, const struct message *message, bool suspended)
{
    if (message->kind == MESSAGE_DONE) {
        c->installed++;
        c->matched = message->number;
        return;
    }
    c->packets_in++;
    c->last_in = message->number;
    if (suspended)
        keep(c, message);
}

/* A message of each, if there is one. */
static void attend(struct controller *c)
{
    bool suspended = atomic_load_explicit(&c->wanted, memory_order_relaxed) != RIVAL_ORDERED;
    struct message message;
    int heard[3];

    for (unsigned i = 0; i < 2; i++)
        if ((heard[i] = mailbox_hear(&c->functions[i], &message)) > 0)
            hear_function(c, i, &message);
    if ((heard[2] = mailbox_hear(&c->network, &message)) > 0)
        hear_network(c, &message, suspended);
    if (heard[0] < 0 || heard[1] < 0 || heard[2] < 0)
        fail(c);
    if (heard[0] <= 0 && heard[1] <= 0 && heard[2] <= 0)
        sched_yield();
}

/* Until a count of ours is as large. */
static void await(struct controller *c, const uint64_t *count, uint64_t wanted)
{
    for (uint64_t begin = bench_now(); *count < wanted && !failed(c);) {
        attend(c);
        if (bench_now() - begin > PATIENCE_NS)
            fail(c);
    }
}

static void tell(struct controller *c, unsigned function, enum message_kind kind, uint64_t number)
{
    uint64_t before = c->obeyed[function];

    say(c, &c->functions[function], kind, number, NULL, 0);
    await(c, &c->obeyed[function], before + 1);
}

static void install(struct controller *c, uint64_t actions)
{
    uint64_t before = c->installed;

    say(c, &c->network, MESSAGE_INSTALL, actions, NULL, 0);
    await(c, &c->installed, before + 1);
}

static void transfer(struct controller *c)
{
    uint64_t got = c->got;

    say(c, &c->functions[FROM(c)], MESSAGE_GET_PERFLOW, 0, NULL, 0);
    await(c, &c->got, got + 1);
    tell(c, FROM(c), MESSAGE_DEL_PERFLOW, 0);
    await(c, &c->put, c->wanted_put);
}

static void suspend(struct controller *c)
{
    c->buffering = true;
    install(c, TO_CONTROLLER);
    transfer(c);
    release(c);
    install(c, 1u << TO(c));
}

static void begin_loss_free(struct controller *c)
{
    c->buffering = true;
    tell(c, FROM(c), MESSAGE_ENABLE_EVENTS, EVENTS_DROP);
    transfer(c);
    release(c);
}

static void loss_free(struct controller *c)
{
    begin_loss_free(c);
    install(c, 1u << TO(c));
}

static void ordered(struct controller *c)
{
    c->marks = 1;
    begin_loss_free(c);
    tell(c, TO(c), MESSAGE_ENABLE_EVENTS, EVENTS_BUFFER);
    c->packets_in = 0;
    install(c, 1u << FROM(c) | TO_CONTROLLER);
    await(c, &c->packets_in, 1);
    install(c, 1u << TO(c));
    await(c, &c->packets_in, c->matched);
    await(c, &c->last_processed, c->last_in);
    tell(c, TO(c), MESSAGE_DISABLE_EVENTS, 0);
    c->marks = 0;
}

static void move(struct controller *c, enum rival_move how)
{
    static void (*const moves[])(struct controller *) = {
        [RIVAL_SUSPEND] = suspend, [RIVAL_LOSS_FREE] = loss_free, [RIVAL_ORDERED] = ordered};

    if (c->moves++ > 0)
        c->from = TO(c);
    /* What the last move has left: the other function still gives packets away. */
    tell(c, TO(c), MESSAGE_DISABLE_EVENTS, 0);
    uint64_t begin = bench_now();
    moves[how](c);
    c->ms = (double)(bench_now() - begin) / 1e6;
}

void *controller_run(void *arg)
{
    struct controller *c = arg;

    bench_pin(0);
    while (!atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        int how = atomic_load_explicit(&c->wanted, memory_order_acquire);
        if (how != RIVAL_NOTHING && !failed(c)) {
            move(c, (enum rival_move)how);
            atomic_store_explicit(&c->wanted, RIVAL_NOTHING, memory_order_release);
        } else {
            attend(c);
        }
    }
    return NULL;
}
