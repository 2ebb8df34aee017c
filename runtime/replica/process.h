/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_PROCESS_H
#define SM_REPLICA_PROCESS_H

/*
 * What the replicas of one process have together: an arena is mapped once, and the locks that say who is there
 * (attach.h) are the process's.
 *
 * Life-cycle.  The first replica that attaches to an arena maps it, the last that leaves unmaps it. The kernel releases
 * all of a process's locks on a file when any descriptor of it is closed: so each replica's descriptor of the arena is
 * kept until the last replica leaves.
 *
 * Concurrency.  Any thread, one at a time: a mutex, for as long as it takes to map.
 */

#include "arena/arena.h"

/* What the switch sent: takes `fd` over, in any case. */
int process_enter(struct arena **arena, int fd, uint64_t base, uint64_t bytes, unsigned slot, struct sm_errbuf *error);
/* The slot's replica touches the arena no more. */
void process_leave(struct arena *arena, unsigned slot);

#endif
