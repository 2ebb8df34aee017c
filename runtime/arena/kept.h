/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_KEPT_H
#define SM_ARENA_KEPT_H

/*
 * What the orchestrator wants kept, in the arena: it outlives the orchestrator, and the switch. Opaque here.
 *
 * Concurrency.  One writer, the switch's control thread. A text is written beside the one that holds, which one store
 * then replaces: whenever the writer dies, a whole one is there.
 */

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define KEPT_BYTES (1u << 20)

struct kept {
    _Atomic uint32_t holds; /* 0: none; else its place, plus one */
    struct {
        uint32_t bytes;
        uint8_t data[KEPT_BYTES];
    } texts[2];
};

/* False: it is longer than KEPT_BYTES, and the one before still holds. */
static inline bool kept_write(struct kept *kept, const uint8_t *data, size_t bytes)
{
    uint32_t place = atomic_load_explicit(&kept->holds, memory_order_relaxed) == 1 ? 1 : 0;

    if (bytes > KEPT_BYTES)
        return false;
    kept->texts[place].bytes = (uint32_t)bytes;
    if (bytes > 0)
        memcpy(kept->texts[place].data, data, bytes);
    atomic_store_explicit(&kept->holds, place + 1, memory_order_release);
    return true;
}

/* NULL: none was written. */
static inline const uint8_t *kept_read(const struct kept *kept, size_t *bytes)
{
    uint32_t holds = atomic_load_explicit(&kept->holds, memory_order_acquire);

    if (holds == 0 || holds > 2 || kept->texts[holds - 1].bytes > KEPT_BYTES)
        return NULL;
    *bytes = kept->texts[holds - 1].bytes;
    return kept->texts[holds - 1].data;
}

#endif
