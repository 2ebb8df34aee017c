/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/live.h"

void live_follow(struct live *live, uint64_t now, uint64_t wall, uint64_t reached)
{
    const uint64_t distance = wall - now, moved = distance - live->distance + LIVE_STEP_NS;

    if (!live->begun)
        *live = (struct live){.base = distance, .distance = distance, .begun = true};
    else if (moved > 2 * LIVE_STEP_NS) /* in either direction */
        live->distance = distance;
    if (reached > live_now(live, now) + LIVE_STEP_NS)
        live->base = reached - now;
}

uint64_t live_now(const struct live *live, uint64_t now)
{
    return now + live->base;
}

uint64_t live_stamp(const struct live *live, uint64_t now, uint64_t stamp)
{
    const uint64_t time = stamp - live->distance + live->base, latest = live_now(live, now) + LIVE_STEP_NS;

    return time < latest ? time : latest;
}
