/* SPDX-License-Identifier: BSD-2-Clause */
/* An arena is put in huge pages: what it holds stays, what is used already is left alone, and it ends with its memory.
 */
#include <criterion/criterion.h>
#include <unistd.h>

#include "arena/huge.h"
#include "state/internal.h"

#define MEMORY (32ull << 20)
#define USED (3u << 20)

static struct arena *arena;
static int fd;

static void setup(void)
{
    const struct arena_options options = {.service = "huge", .linktype = 1, .seed = 7, .memory = MEMORY, .flows = 1000};
    struct sm_errbuf error;

    cr_assert_eq(arena_create(&arena, &fd, &options, &error), 0, "%s", error.text);
}

static void teardown(void)
{
    arena_unmap(arena);
    close(fd);
}

TestSuite(huge, .init = setup, .fini = teardown);

/* A byte of every page tells where it is. */
static void mark(unsigned char *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += 4096)
        from[at] = (unsigned char)(at / 4096 * 3 + 1);
}

static bool marked(const unsigned char *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += 4096)
        if (from[at] != (unsigned char)(at / 4096 * 3 + 1))
            return false;
    return true;
}

Test(huge, what_is_there_stays)
{
    uint64_t pool = (uint64_t)arena->pool.small_count * POOL_SMALL_BYTES;
    uintptr_t done = 0;

    mark(arena->pool.small, pool);
    mark(arena->state->heap, MEMORY);
    arena_huge_begin(arena);
    arena_huge_ahead(arena, &done);
    cr_assert(marked(arena->pool.small, pool));
    cr_assert(marked(arena->state->heap, MEMORY));
    cr_assert_eq(arena->magic, ARENA_MAGIC);
    cr_assert_eq(arena->state->magic, STATE_MAGIC);
}

Test(huge, it_keeps_ahead_of_what_is_used_and_ends_with_the_memory)
{
    uintptr_t heap = (uintptr_t)arena->state->heap, done = 0;

    arena_huge_ahead(arena, &done);
    cr_assert_geq(done, heap + HUGE_AHEAD - HUGE_PAGE);
    cr_assert_leq(done, heap + HUGE_AHEAD);

    atomic_store(&arena->state->fresh, USED / SLAB_BYTES);
    uintptr_t first = done;
    arena_huge_ahead(arena, &done);
    cr_assert_gt(done, first);

    done = 0; /* a switch that takes the arena over: what is used is not looked at */
    arena_huge_ahead(arena, &done);
    cr_assert_geq(done, heap + USED);

    atomic_store(&arena->state->fresh, arena->state->slab_count);
    arena_huge_ahead(arena, &done);
    cr_assert_leq(done, heap + MEMORY + HUGE_PAGE, "it is through");
    first = done;
    arena_huge_ahead(arena, &done);
    cr_assert_eq(done, first);
}

/* Also what flow state cannot have by itself. */
Test(huge, more_than_there_are_addresses_for)
{
    struct arena_options options = {.service = "huge", .linktype = 1, .seed = 7, .memory = 1ull << 40, .flows = 1000};
    struct sm_errbuf error;

    cr_expect_eq(arena_create(&arena, &fd, &options, &error), SM_E_INVALID);
    cr_expect_not_null(strstr(error.text, "limits.memory: 1099511627776 bytes, expected at most "), "%s", error.text);
}
