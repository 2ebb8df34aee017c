/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_SLICE_H
#define SM_BENCH_SLICE_H

/*
 * A service on one thread, measured in slices that are short enough for two services to take turns: so both meet the
 * same machine.
 */

#include "service.h"

#define SLICE_PACKETS 65536u

struct slice {
    uint64_t packets;
    uint64_t all, replica; /* ns: in all, and the replica's part of it */
};

/* Pass a slice of packets through the switch and its one replica, which has no thread, and add what it took. */
void slice_pass(struct service *service, struct slice *slice);

#endif
