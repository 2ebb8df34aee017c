/* SPDX-License-Identifier: BSD-2-Clause */
#include "slice.h"

void slice_pass(struct service *service, struct slice *slice)
{
    struct sm_replica *replica = service->replicas[0].replica;
    uint64_t out = service->sw->out, begin = bench_now();

    while (service->sw->out - out < SLICE_PACKETS) {
        switch_poll(service->sw);
        uint64_t from = bench_now();
        replica_burst(replica, CHANNEL_BURST);
        slice->replica += bench_now() - from;
    }
    slice->all += bench_now() - begin;
    slice->packets += service->sw->out - out;
}
