/* SPDX-License-Identifier: BSD-2-Clause */
#include "rivals/instance.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

/* A flow on its way from one function to another. */
struct parcel {
    struct sm_key key;
    struct instance_record record;
};

_Static_assert(sizeof(struct parcel) <= MESSAGE_BODY && sizeof(struct passing) <= MESSAGE_BODY, "bodies hold them");

bool instance_open(struct instance *instance, uint32_t flows, unsigned core)
{
    instance->core = core;
    instance->most = flows;
    instance->waiting = calloc(INSTANCE_RING, sizeof *instance->waiting);
    instance->given = calloc(flows, sizeof *instance->given);
    bool made = ring_init(&instance->in, INSTANCE_RING, sizeof(struct passing));
    made &= ring_init(&instance->out, INSTANCE_RING, sizeof(struct passing));
    made &= table_init(&instance->flows, flows, sizeof(struct instance_record));
    return made && instance->waiting && instance->given;
}

void instance_close(struct instance *instance)
{
    free(instance->in.entries);
    free(instance->out.entries);
    free(instance->waiting);
    free(instance->given);
    table_free(&instance->flows);
    mailbox_close(&instance->controller);
}

static void fail(struct instance *instance)
{
    atomic_store_explicit(&instance->failed, true, memory_order_relaxed);
}

static void say(struct instance *instance, enum message_kind kind, uint64_t number, const void *body, uint32_t bytes)
{
    if (!mailbox_say(&instance->controller, kind, number, body, bytes))
        fail(instance);
}

static struct instance_record *record_of(struct instance *instance, const struct sm_key *key)
{
    uint64_t hash = table_hash(key);
    struct instance_record *record = table_find(&instance->flows, key, hash);

    return record ? record : table_insert(&instance->flows, key, hash);
}

static void process(struct instance *instance, const struct passing *packet)
{
    struct instance_record *record = record_of(instance, &packet->key);
    uint32_t head;

    if (!record || ring_room(&instance->out, &head) == 0) {
        fail(instance);
        return;
    }
    record->packets++;
    record->bytes += INSTANCE_FRAME;
    record->last = packet->ticket;
    *(struct passing *)ring_at(&instance->out, head) = *packet;
    ring_publish(&instance->out, head + 1);
}

static void take_packet(struct instance *instance, const struct passing *packet)
{
    switch (instance->events) {
    case EVENTS_OFF:
        process(instance, packet);
        break;
    case EVENTS_DROP:
        say(instance, MESSAGE_EVENT, packet->ticket, packet, sizeof *packet);
        break;
    case EVENTS_BUFFER:
        if (packet->marked) {
            process(instance, packet);
            say(instance, MESSAGE_PROCESSED, packet->ticket, NULL, 0);
        } else if (instance->waiting_count < INSTANCE_RING) {
            instance->waiting[instance->waiting_count++] = *packet;
        } else {
            fail(instance);
        }
        break;
    }
}

static unsigned take_packets(struct instance *instance)
{
    uint32_t tail, n = ring_waiting(&instance->in, &tail);

    for (uint32_t i = 0; i < n; i++)
        take_packet(instance, ring_at(&instance->in, tail + i));
    ring_consume(&instance->in, tail + n);
    return n;
}

static void give_flows(struct instance *instance)
{
    const struct instance_record *record;
    uint64_t cursor = 0;

    instance->given_count = 0;
    while ((record = table_next(&instance->flows, &cursor)) && instance->given_count < instance->most) {
        const struct parcel parcel = {.key = *table_key(record), .record = *record};
        instance->given[instance->given_count++] = parcel.key;
        say(instance, MESSAGE_PERFLOW, 0, &parcel, sizeof parcel);
    }
    say(instance, MESSAGE_GOT, instance->given_count, NULL, 0);
}

static void take_flow(struct instance *instance, const struct message *message)
{
    struct parcel parcel;

    memcpy(&parcel, message->body, sizeof parcel);
    struct instance_record *record = record_of(instance, &parcel.key);
    if (!record || message->bytes != sizeof parcel) {
        fail(instance);
        return;
    }
    *record = parcel.record;
    say(instance, MESSAGE_PUT, 0, NULL, 0);
}

static void remove_flows(struct instance *instance)
{
    while (instance->given_count > 0) {
        const struct sm_key *key = &instance->given[--instance->given_count];
        table_remove(&instance->flows, table_find(&instance->flows, key, table_hash(key)));
    }
}

static void release_packets(struct instance *instance)
{
    instance->events = EVENTS_OFF;
    for (uint32_t i = 0; i < instance->waiting_count; i++)
        process(instance, &instance->waiting[i]);
    instance->waiting_count = 0;
}

static void obey(struct instance *instance, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_GET_PERFLOW:
        give_flows(instance);
        return;
    case MESSAGE_PUT_PERFLOW:
        take_flow(instance, message);
        return;
    case MESSAGE_DEL_PERFLOW:
        remove_flows(instance);
        break;
    case MESSAGE_ENABLE_EVENTS:
        instance->events = (enum events)message->number;
        break;
    case MESSAGE_DISABLE_EVENTS:
        release_packets(instance);
        break;
    default:
        fail(instance);
        return;
    }
    say(instance, MESSAGE_DONE, 0, NULL, 0);
}

void *instance_run(void *arg)
{
    struct instance *instance = arg;
    struct message message;

    bench_pin(instance->core);
    while (!atomic_load_explicit(&instance->stop, memory_order_relaxed)) {
        /* Packets first: those that were there before the controller asked belong to what it asked for. */
        unsigned done = take_packets(instance);
        int heard = mailbox_hear(&instance->controller, &message);
        if (heard > 0)
            obey(instance, &message);
        else if (heard < 0)
            fail(instance);
        if (done == 0 && heard <= 0)
            sched_yield();
    }
    return NULL;
}

uint64_t instance_counted(const struct instance *instance)
{
    const struct instance_record *record;
    uint64_t cursor = 0, packets = 0;

    while ((record = table_next(&instance->flows, &cursor)))
        packets += record->packets;
    return packets;
}
