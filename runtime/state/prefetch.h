/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_PREFETCH_H
#define SM_STATE_PREFETCH_H

/*
 * Ask for a cache line that will be read. (Not __builtin_prefetch() alone: GCC takes a function that does nothing else
 * for one that does nothing, and leaves its calls out. The empty statement is something.)
 */
static inline void prefetch_for_read(const void *address)
{
    __builtin_prefetch(address);
    __asm__ volatile("");
}

/*
 * Ask for a cache line that will be written and that another core may hold: a store to it would wait for that core,
 * and all stores behind it too. (__builtin_prefetch(p, 1) only asks to read where the compiler may not assume the
 * instruction; processors without it take it for a no-op.)
 */
static inline void prefetch_for_write(const void *address)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)address));
#else
    __builtin_prefetch(address, 1);
    __asm__ volatile("");
#endif
}

#endif
