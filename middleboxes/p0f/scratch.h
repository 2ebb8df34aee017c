/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef P0F_SCRATCH_H
#define P0F_SCRATCH_H

/*
 * The original's allocator for what a packet makes, in its place: included before any of its files. What ck_alloc()
 * gives lasts until the next packet. Its configuration asks for DFL_ck_alloc(), which is as it was.
 */

#include <stdio.h>

#include "alloc-inl.h"

#define SCRATCH_BYTES 131072u /* a request, a response, both doubled as they grow, and all headers of one */

struct scratch {
    _Alignas(16) uint8_t bytes[SCRATCH_BYTES];
    uint32_t used;
};
extern struct scratch scratch;

static inline void *scratch_alloc(u32 size)
{
    uint8_t *at = scratch.bytes + scratch.used + 16; /* before it: the original's canary and size */

    if (size == 0)
        return NULL;
    if (size > SCRATCH_BYTES - scratch.used - 32)
        ABORT("Out of scratch memory: %u bytes", size);
    scratch.used += 16 + (size + 15) / 16 * 16;
    ALLOC_C(at) = ALLOC_MAGIC;
    ALLOC_S(at) = size;
    return memset(at, 0, size);
}

static inline void *scratch_copy(const void *from, u32 size, u32 room)
{
    void *to = from ? scratch_alloc(room) : NULL;

    return to ? memcpy(to, from, size) : NULL;
}

static inline void *scratch_grow(void *old, u32 size)
{
    if (old && ALLOC_S(old) >= size)
        return old;
    return old ? scratch_copy(old, ALLOC_S(old), (size / 1024 + 1) * 1024) : scratch_alloc(size);
}

static inline void scratch_free(void *at)
{
    if (at)
        ALLOC_C(at) = ALLOC_MAGIC_F;
}

#undef ck_alloc
#undef ck_realloc_kb
#undef ck_memdup
#undef ck_memdup_str
#undef ck_free
#define ck_alloc scratch_alloc
#define ck_realloc_kb scratch_grow
#define ck_memdup(from, size) scratch_copy(from, size, size)
#define ck_memdup_str(from, size) scratch_copy(from, size, (size) + 1)
#define ck_free scratch_free

#endif
