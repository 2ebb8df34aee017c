/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_FNV_H
#define IDS_FNV_H

/* FNV-1a, 64 bits: a number for bytes that nobody chooses to collide. */

#include <stddef.h>
#include <stdint.h>

#define FNV_BEGIN 0xcbf29ce484222325u

static inline uint64_t fnv(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

#endif
