/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_PACKING_H
#define SM_BENCH_PACKING_H

#include <stdint.h>

struct state;

/* Pack all flows of all shards with msgpack-c into memory that grows, and drop it. Returns how many. */
uint64_t packing_reference(struct state *state);

#endif
