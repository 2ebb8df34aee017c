/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_RIVALS_INSTANCE_H
#define SM_BENCH_RIVALS_INSTANCE_H

/*
 * A network function as OpenNF asks for it: it counts packets and bytes in a record of 64 bytes for each flow, as the
 * middlebox of `move` does, in a table of its own, and does what the controller says: gives flows away, takes flows in,
 * and reports packets instead of processing them.
 *
 * Life-cycle.  instance_open -> instance_run, on a thread of its own, until `stop` is set -> instance_close.
 * Concurrency. The switch has one end of the rings, the thread the other. Everything else is the thread's.
 * Limits.      INSTANCE_RING packets in a ring, and as many that wait for events to be disabled; past that it fails.
 */

#include <stdatomic.h>
#include <stdbool.h>

#include "ring.h"
#include "rivals/messages.h"
#include "table.h"

#define INSTANCE_RING 4096u
#define INSTANCE_FRAME 64u

/* A packet on its way. */
struct passing {
    uint64_t ticket; /* in the order in which they came */
    int64_t seconds, fraction;
    uint64_t marked; /* the controller has seen it: it is to be processed at once */
    struct sm_key key;
    uint8_t frame[INSTANCE_FRAME];
};

/* What becomes of packets that come. */
enum events {
    EVENTS_OFF,    /* they are processed */
    EVENTS_DROP,   /* they are given to the controller instead */
    EVENTS_BUFFER, /* they wait; those that are marked are processed, and the controller is told */
};

struct instance_record {
    uint64_t packets, bytes, last, rest[5];
};

struct instance {
    struct ring in, out; /* of struct passing */
    struct mailbox controller;
    struct table flows;
    enum events events;
    struct passing *waiting;
    uint32_t waiting_count;
    struct sm_key *given; /* flows that were got last */
    uint32_t given_count, most;
    unsigned core;
    _Atomic bool stop;
    _Atomic bool failed;
};

/* `flows` at most. False: no memory; close it all the same. */
bool instance_open(struct instance *instance, uint32_t flows, unsigned core);
void instance_close(struct instance *instance);
void *instance_run(void *instance);

/* Packets that its flows have counted. Once the thread has ended. */
uint64_t instance_counted(const struct instance *instance);

#endif
