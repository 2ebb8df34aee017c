/* SPDX-License-Identifier: BSD-2-Clause */
/* See huge.h for overview, concurrency and limits. */

#include "arena/huge.h"

#include <sys/mman.h>

#include "state/internal.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* The whole huge pages of a range; returns where the rest of it begins. */
static uintptr_t collapse(uintptr_t from, uintptr_t to)
{
    uintptr_t at = (from + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1);

    for (; at + HUGE_PAGE <= to; at += HUGE_PAGE) {
        /* A range of which nothing is there is refused. An atomic nothing: somebody may have begun to use it. */
        atomic_fetch_or_explicit((_Atomic uint8_t *)at, 0, memory_order_relaxed);
        if (madvise((void *)at, HUGE_PAGE, MADV_COLLAPSE) != 0)
            continue; /* it stays as it is */
    }
    return at;
}

void arena_huge_begin(const struct arena *arena)
{
    const struct pool_layout *pool = &arena->pool;
    uintptr_t small = (uintptr_t)pool->small, state = (uintptr_t)arena->state;

    collapse(small, small + (uint64_t)pool->small_count * POOL_SMALL_BYTES);
    collapse(state, state + sizeof *arena->state);
}

void arena_huge_ahead(const struct arena *arena, uintptr_t *done)
{
    struct state *state = arena->state;
    uintptr_t heap = (uintptr_t)state->heap, end = heap + (uint64_t)state->slab_count * SLAB_BYTES;
    uint64_t used = (uint64_t)atomic_load_explicit(&state->fresh, memory_order_relaxed) * SLAB_BYTES;
    uintptr_t to = heap + used + used / 4 + HUGE_AHEAD;

    if (*done < heap + used)
        *done = heap + used; /* what is used already is left alone */
    *done = collapse(*done, to < end ? to : end);
}
