/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_HUGE_H
#define SM_ARENA_HUGE_H

/*
 * Huge pages for an arena that was made of plain ones.
 *
 * Overview.  Look-ups meet memory at random: where it is in pages of 4 KiB, most of them wait for page tables as well
 * as for the record. Few systems set huge pages aside (then arena_create() takes those), but Linux makes one of plain
 * ones when it is asked to (MADV_COLLAPSE, since 6.1), whatever the system's policy is for those who do not ask. That
 * takes a third of a millisecond for 2 MiB, now and then several: so it is done ahead, for memory that nobody has used
 * so far, by a thread that has the time.
 *
 * Concurrency.  The host's control thread; replicas use the arena meanwhile. Each sees the new page at its next fault.
 *
 * Limits.  HUGE_AHEAD bytes and a quarter of what is used, ahead of what is used. Where there are no huge pages to be
 * had the arena stays as it is; nothing depends on it but time.
 */

#include "arena/arena.h"

#define HUGE_PAGE (2ull << 20)
#define HUGE_AHEAD (16ull << 20)

/* The pool and the directory of shards, which will all be used. Before anybody does: it would wait. */
void arena_huge_begin(const struct arena *arena);

/*
 * Memory for flows, as far as is ahead of those that there are; to be called again as these become more. *done: the
 * caller's, how far that has come; 0 at first.
 */
void arena_huge_ahead(const struct arena *arena, uintptr_t *done);

#endif
