/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_LIVE_H
#define SM_SWITCH_LIVE_H

/*
 * Packet time on interfaces.
 *
 * Overview.  Captures are stamped by the wall clock, which is stepped at times; packet time never goes back, so after a
 * step back it would stand still until the wall clock has caught up, and limits and timeouts with it. So it is the
 * wall clock's where the service begins, and goes on at the monotonic clock's pace; a step of the wall clock is noticed
 * by its distance to the monotonic one, and taken out of later stamps.
 *
 * Concurrency.  The switch's worker thread. Pure.
 *
 * Limits.  Steps of less than LIVE_STEP_NS are left in: packet time waits that long at most. Stamps from before a step
 * that are read behind it are off by it: what would lead ahead of the present by more than LIVE_STEP_NS does not, and
 * what leads back is for the caller to hold.
 */

#include <stdbool.h>
#include <stdint.h>

#define LIVE_STEP_NS 50000000ull

struct live {
    uint64_t base;     /* from the monotonic clock to packet time */
    uint64_t distance; /* from the monotonic clock to the wall clock */
    bool begun;
};

/* Once a turn. `now`: the monotonic clock, `wall`: ns since 1970, `reached`: packet time, which came from a checkpoint
 * or a switch before us where it is later than the present; then it goes on from there. */
void live_follow(struct live *live, uint64_t now, uint64_t wall, uint64_t reached);

/* The present, in packet time. */
uint64_t live_now(const struct live *live, uint64_t now);

/* The packet time of what was captured at `stamp`. */
uint64_t live_stamp(const struct live *live, uint64_t now, uint64_t stamp);

#endif
