/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_CORE_H
#define SM_ARENA_CORE_H

#include <sched.h>

/*
 * Ask the scheduler for short slices for the calling thread, which polls and gives its core away in between. Since
 * Linux 6.6 one that yields comes behind all others on the core until they have had as much as was left of its slice,
 * 1.4 ms and more; with a slice of a tenth of a millisecond its turn comes that much sooner. Its share of the core
 * stays as it is. Threads under another policy than the usual one are left alone, and kernels before 6.12 have no
 * slices to ask for.
 */
void core_share(void);

/* The processors that threads of this process which call core_share() from now on run on; empty: as they are. */
void core_choose(const cpu_set_t *processors);

#endif
