/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_RIVALS_RIVAL_H
#define SM_BENCH_RIVALS_RIVAL_H

/*
 * A service as OpenNF has it: a switch whose one rule says where packets go, two network functions (instance.h), and a
 * controller that moves flows between them (controller.h). Packets, parser, keys, rings and records are those of our
 * own service; each function has a thread on the second core, the controller one on the first, beside the switch, which
 * is the calling thread. All give their core away when there is nothing to do, and none sleeps: nothing is slower than
 * it has to be.
 *
 * Life-cycle.  rival_open -> rival_rest (packets flow) -> rival_move, any number of times, with rests between ->
 * rival_close, which sees whether every packet was counted and left.
 */

#include <pthread.h>

#include "latency.h"
#include "packet/packet.h"
#include "rivals/controller.h"

struct rival {
    struct instance instances[2];
    struct controller controller;
    pthread_t threads[3];
    unsigned started;
    struct mailbox to_controller;
    struct sm_parser *parser;
    struct sm_port *in;
    struct latency_port *out;
    struct table seen; /* flows' last tickets that left */
    unsigned actions;  /* where packets go */
    uint64_t matched;  /* packets since that was said */
    uint64_t entered, left, reordered;
    bool stopped;
};

/* Two functions, of which the first has `flows` flows as soon as packets have come; `rate` packets a second. */
int rival_open(struct rival *rival, uint32_t flows, uint32_t rate, struct sm_errbuf *error);

/* SM_E_STATE: a packet, or what one had changed, was lost; *error says so. */
int rival_close(struct rival *rival, struct sm_errbuf *error);

/* Let packets flow for so long. */
void rival_rest(struct rival *rival, uint64_t ns);

/* Move all flows to the other function; ms. SM_E_STATE: it has failed. */
int rival_move(struct rival *rival, enum rival_move how, double *ms, struct sm_errbuf *error);

#endif
