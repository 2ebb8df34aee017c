/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "arena/core.h"
#include "testing/random.h"

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t bench_now(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t bench_thread_cpu(void)
{
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* What the program may use, remembered before the first thread was pinned. */
static cpu_set_t allowed;

__attribute__((constructor)) static void learn_cores(void)
{
    sched_getaffinity(0, sizeof allowed, &allowed);
}

void bench_pin(unsigned core)
{
    int count = CPU_COUNT(&allowed), wanted = count > 0 ? (int)core % count : 0;

    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || seen++ != wanted)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one); /* not allowed: the figures are noisier, that is all */
        break;
    }
    core_share();
}

void bench_unpin(void)
{
    sched_setaffinity(0, sizeof allowed, &allowed);
}

void *bench_memory(size_t bytes)
{
    const size_t huge = 2u << 20, whole = (bytes + huge - 1) / huge * huge;
    void *memory = aligned_alloc(huge, whole);

    if (memory) {
        madvise(memory, whole, MADV_HUGEPAGE);
        memset(memory, 0, whole);
    }
    return memory;
}

uint32_t *bench_shuffled(uint32_t count, uint64_t seed)
{
    uint32_t *order = malloc(count * sizeof *order);

    for (uint32_t i = 0; order && i < count; i++) {
        uint32_t other = (uint32_t)(random_star(&seed) % (i + 1));
        order[i] = order[other];
        order[other] = i;
    }
    return order;
}
