/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_PREFETCH_H
#define SM_ARENA_PREFETCH_H

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
#endif
}

#endif
