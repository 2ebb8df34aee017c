/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CLASSIFIER_CLASSIFIER_H
#define CLASSIFIER_CLASSIFIER_H

/*
 * Says of each flow what is spoken on it. A flow's detection goes over its first packets until nDPI knows, or has seen
 * enough, or the flow ends; then one line of JSON is written, and the memory of the detection is freed.
 */

#include "detect.h"

/* A flow's record. */
struct classified {
    uint64_t packets, bytes;
    uint64_t first, last; /* packet times, ns */
    struct verdict verdict;
    uint32_t examined; /* packets that nDPI was given */
    uint32_t over;     /* the verdict is final */
    struct detection detection;
};

struct classifier;

/* `log`: where lines go, a descriptor that is opened with O_APPEND where several write to it; -1: nowhere. */
struct classifier *classifier_create(int log, struct sm_errbuf *error);
void classifier_destroy(struct classifier *classifier);

int classifier_register(struct classifier *classifier, struct sm_replica *replica);
void classifier_packet(struct sm_replica *replica, struct sm_packet *packet, void *classifier);

#endif
