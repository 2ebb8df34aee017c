/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_FLOWS_H
#define SM_TESTS_FLOWS_H

/*
 * Subjects: small middleboxes, each with a model of what one unsplit instance finds at each packet. A capture is made
 * of packets with numbers; at each one the middlebox notes what it found, and that is compared with the model, whoever
 * processed the packet and however often.
 */

#include <splitmerge/testing.h>

#define PACKETS 6000u

/* A packet of the capture: UDP over IPv4, its number in the payload. */
struct planned {
    uint64_t ns;
    uint32_t flow;
};

struct subject {
    const char *name;
    uint32_t flows; /* in the capture */
    uint32_t limit; /* flows of the service; 0: the kit's */
    sm_packet_fn *on_packet;
    int (*setup)(struct sm_replica *replica, void **user);
    void (*ended)(struct sm_replica *replica, void *user); /* may be NULL */
    void (*model)(const struct planned *plan, uint64_t *expected);
    const char *(*verdict)(const struct sm_test_result *result); /* after a run: what is wrong, or NULL; may be NULL */
};

extern const struct subject timeouts, evict, chunks, each, hooks, bound;

extern uint64_t noted[PACKETS];   /* by packet */
extern _Atomic uint64_t mistakes; /* that a middlebox met, whatever its kind */

void capture_plan(struct planned *plan, uint32_t flows, uint64_t seed);
int capture_write(const char *file, const struct planned *plan);

/* Enumerating between packets, in a program with a loop of its own: what is wrong, or NULL. */
const char *each_between(const char *input);

/* The number of a packet; the flow it is of. */
uint32_t packet_number(const struct sm_packet *packet);

#endif
