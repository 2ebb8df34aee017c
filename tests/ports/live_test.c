/* SPDX-License-Identifier: BSD-2-Clause */

/* Packet time on interfaces while the wall clock is stepped: it neither stands still nor leaps. */

#include <criterion/criterion.h>

#include "switch/live.h"

#define SECOND 1000000000ull

static const uint64_t start = 1700000000 * SECOND;

/* The switch's clock over ten seconds of a packet a millisecond, stamped a little before it is read; the wall clock is
 * stepped by `step` ns when half of them have come. */
static uint64_t ten_seconds(int64_t step, uint64_t *longest_stop)
{
    struct live live = {0};
    uint64_t clock = 0, stopped = 0, now = 7 * SECOND, wall = start;

    *longest_stop = 0;
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t stamp = wall - 100000; /* captured before the step where that comes next */
        if (i == 5000)
            wall += (uint64_t)step;
        live_follow(&live, now, wall, clock);
        uint64_t time = live_stamp(&live, now, stamp);
        stopped = time <= clock ? stopped + 1000000 : 0;
        clock = time > clock ? time : clock;
        *longest_stop = stopped > *longest_stop ? stopped : *longest_stop;
        cr_assert_leq(clock, live_now(&live, now) + LIVE_STEP_NS, "step %lld, packet %u", (long long)step, i);
        cr_assert_eq(live_now(&live, now), start + i * 1000000ull, "step %lld, packet %u", (long long)step, i);
        now += 1000000;
        wall += 1000000;
    }
    return clock - start;
}

Test(live, steps_of_the_wall_clock)
{
    static const int64_t steps[] = {
        0, 1000000, -1000000, 40000000, -40000000, 200000000, -200000000, 3600ll * 1000000000, -3600ll * 1000000000};
    uint64_t stop;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        uint64_t passed = ten_seconds(steps[i], &stop);
        cr_expect_leq(stop, LIVE_STEP_NS + 2000000, "step %lld: stood still for %llu ns", (long long)steps[i],
                      (unsigned long long)stop);
        cr_expect(passed > 9900000000 && passed < 10 * SECOND + LIVE_STEP_NS, "step %lld: %llu ns passed",
                  (long long)steps[i], (unsigned long long)passed);
    }
    ten_seconds(0, &stop);
    cr_expect_eq(stop, 0);
}

Test(live, stamps_stay_as_they_are_without_steps)
{
    struct live live = {0};

    live_follow(&live, 5, start, 0);
    cr_expect_eq(live_now(&live, 5), start);
    cr_expect_eq(live_stamp(&live, 5, start - 123), start - 123);
    live_follow(&live, 5 + SECOND, start + SECOND + 10, 0);
    cr_expect_eq(live_stamp(&live, 5 + SECOND, start + SECOND - 123), start + SECOND - 123);
}

/* Many small steps are one large one. */
Test(live, small_steps_add_up)
{
    struct live live = {0};
    uint64_t wall = start;

    for (uint64_t now = 0; now < 1000 * SECOND; now += SECOND, wall += SECOND - 1000000) {
        live_follow(&live, now, wall, 0);
        uint64_t time = live_stamp(&live, now, wall);
        cr_assert(time <= start + now && time + LIVE_STEP_NS >= start + now);
    }
}

/* Of a checkpoint, or of a switch that died before the wall clock was stepped back. */
Test(live, a_later_time_goes_on)
{
    struct live live = {0};

    live_follow(&live, 0, start, start + 100 * SECOND);
    cr_expect_eq(live_now(&live, SECOND), start + 101 * SECOND);
    cr_expect_eq(live_stamp(&live, SECOND, start + SECOND), start + 101 * SECOND);
    live_follow(&live, SECOND, start + SECOND, start + 200 * SECOND);
    cr_expect_eq(live_now(&live, SECOND), start + 200 * SECOND);
}
