/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A host's share of a limit: threads take from it and give back while one fills it, and while who fills dies and
 * another one goes on. Never more is taken than rate x time; then the same with packets that wait for what will come.
 */

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "drl/meter.h"

#define TAKERS 3u
#define RATE 100u
#define DEPTH 400000u
#define STEPS 5000u
#define STEP_NS 1000u

#define LONGEST 20000u

static struct meter meter;
static bool waits;
static _Atomic uint64_t now;
static _Atomic bool ended;

static void *take(void *user)
{
    uint64_t *taken = user, turn = 0;

    while (!atomic_load(&ended)) {
        uint64_t amount = 1 + turn++ % 5000, at = atomic_load(&now);
        struct meter_slot slot = {0};
        if (waits ? !meter_queue(&meter, at, amount, LONGEST, &slot) : !meter_take(&meter, at, amount))
            continue;
        if (turn % 16 == 0 && slot.wait == 0)
            meter_give_back(&meter, amount);
        else
            *taken += amount;
    }
    return NULL;
}

static void *fill(void *user)
{
    (void)user;
    for (unsigned i = 1; i <= STEPS; i++) {
        atomic_store(&now, (uint64_t)i * STEP_NS);
        meter_fill(&meter, (uint64_t)i * STEP_NS, true);
        if (i % 100 == 0) /* a part that changes, but never above the whole */
            meter_set(&meter, i % 200 ? RATE / 2 : RATE, i % 300 ? DEPTH : DEPTH / 2);
        if (i % 1000 == 0)
            meter_resume(&meter, (uint64_t)i * STEP_NS);
        sched_yield();
    }
    atomic_store(&ended, true);
    return NULL;
}

static bool run(uint64_t most)
{
    pthread_t takers[TAKERS], filler;
    uint64_t taken[TAKERS] = {0}, sum = 0;

    meter = (struct meter){0};
    atomic_store(&now, 0);
    atomic_store(&ended, false);
    meter_set(&meter, RATE, DEPTH);
    meter_extend(&meter, 0, METER_ALWAYS);
    for (unsigned i = 0; i < TAKERS; i++)
        if (pthread_create(&takers[i], NULL, take, &taken[i]) != 0)
            return false;
    if (pthread_create(&filler, NULL, fill, NULL) != 0)
        return false;
    pthread_join(filler, NULL);
    for (unsigned i = 0; i < TAKERS; i++) {
        pthread_join(takers[i], NULL);
        sum += taken[i];
    }
    printf("%lu taken of %lu\n", sum, most);
    if (sum <= most && sum > 0 && atomic_load(&meter.level) <= DEPTH)
        return true;
    printf("more was taken than rate x time, or nothing\n");
    return false;
}

int main(void)
{
    const uint64_t most = (uint64_t)RATE * STEPS * STEP_NS;
    bool good = run(most);

    waits = true;
    return run(most + (uint64_t)RATE * LONGEST) && good ? 0 : 1;
}
