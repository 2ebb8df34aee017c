/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_WHOSE_H
#define SM_TESTS_WHOSE_H

/* Who comes by a place: replicas, the switch, or both. Places of a function belong together. */

#include <stdbool.h>
#include <stdint.h>

/* The switch alone: all of runtime/switch, and what elsewhere only it calls. */
bool place_is_switchs(uint32_t place);

/* Also a replica's: what the switch does for a dead one, or in its own name when it takes over. */
bool place_is_shared(uint32_t place);

bool place_is_of(uint32_t place, const char *function);

/* Whether two are the same line: of a function that is inline in several files. */
bool place_is_same(uint32_t a, uint32_t b);

#endif
