/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_SHARE_H
#define SM_BENCH_SHARE_H

/*
 * A part of a core, so that two cores stand in for several machines: a control group with a CPU quota, of version 1 or
 * 2, whichever has the cpu controller. Needs the right to make one: root, in most places.
 */

#include <splitmerge/types.h>
#include <sys/types.h>

struct share {
    char path[256]; /* empty: there is none */
};

/* `part` of one core, 0.01 to 1. False: it cannot be had; the share is empty. */
bool share_open(struct share *share, unsigned number, double part);

bool share_add(const struct share *share, pid_t pid);

/* Once its processes have gone. */
void share_close(struct share *share);

#endif
