/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_RIVALS_CONTROLLER_H
#define SM_BENCH_RIVALS_CONTROLLER_H

/*
 * OpenNF's controller (SIGCOMM 2014, section 5.1) and FreeFlow's way to move flows, which buffers at the controller,
 * too (as told there). It moves all flows of one function to the other:
 *
 *   suspend      the switch sends packets to the controller; flows are got, deleted, put; what was buffered goes to the
 *                new function, then the switch sends packets there
 *   loss-free    the old function gives packets to the controller instead of processing them; flows are got, deleted
 *                and put; what was buffered goes to the new function, then the switch sends packets there
 *   ordered      the same, but the new function lets packets wait that the controller has not seen; the switch first
 *                sends packets to the old function and to the controller, then to the new one; once it has processed
 *                the last one that the controller has seen it processes those that wait
 *
 * Flows are put while others are still being got (the paper's parallel transfer, which makes it quicker).
 *
 * Life-cycle.  controller_run on a thread of its own, until `stop` is set. A move is asked for by `wanted` and is over
 * when that is MOVE_NOTHING again; `ms` is its time. Concurrency: only these and `failed` are shared.
 */

#include "rivals/instance.h"

#define CONTROLLER_BUFFER 4096u /* packets */
#define TO_CONTROLLER 4u        /* where packets go: that, and 1 << function */

enum rival_move { RIVAL_NOTHING, RIVAL_SUSPEND, RIVAL_LOSS_FREE, RIVAL_ORDERED };

struct controller {
    struct mailbox functions[2], network;
    unsigned from; /* the function that had the flows before the last move */
    unsigned moves;
    _Atomic int wanted; /* an enum rival_move */
    _Atomic bool stop, failed;
    double ms;

    struct passing *buffer; /* packets, CONTROLLER_BUFFER */
    uint32_t buffered;
    bool buffering;
    uint64_t marks;                               /* of packets that it sends on */
    uint64_t told, obeyed[2], installed;          /* messages that are answered by DONE, and answers */
    uint64_t got, put, wanted_put, matched;       /* flows that left and came; packets that went by the last rule */
    uint64_t packets_in, last_in, last_processed; /* packets from the switch, tickets */
};

bool controller_open(struct controller *controller);
void controller_close(struct controller *controller);
void *controller_run(void *controller);

#endif
