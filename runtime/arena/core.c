/* SPDX-License-Identifier: BSD-2-Clause */
#include "arena/core.h"

#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLICE_NS 100000u /* the shortest that there is */

/* As the kernel has it; glibc has none before 2.41. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice, deadline, period;
};

static cpu_set_t chosen; /* before there are threads */

void core_choose(const cpu_set_t *processors)
{
    chosen = *processors;
}

void core_share(void)
{
    struct attributes attributes = {0};

    if (CPU_COUNT(&chosen) > 0)
        sched_setaffinity(0, sizeof chosen, &chosen);
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 || attributes.policy != SCHED_OTHER)
        return;
    attributes.slice = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}
