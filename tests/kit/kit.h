/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_KIT_H
#define SM_TESTS_KIT_H

/*
 * A whole service in one process: a switch over capture files, up to KIT_REPLICAS replicas, and a random schedule of
 * splits, merges and moves. On one thread the schedule also decides who takes the next step, and a run is a function
 * of its seed; with a thread for each replica the kernel decides.
 */

#include "replica/replica.h"
#include "switch/switch.h"

#define KIT_REPLICAS 6

struct kit_options {
    const char *input, *output;
    bool order_arrival;
    uint64_t seed;
    unsigned replicas; /* at the start; more may join when the schedule says so */
    bool schedule;     /* split, merge and move at random; false: nothing happens */
    unsigned
        kills; /* one step in so many kills a replica, somewhere in a burst (KIT_STEP builds) or between two; 0: none */
    bool threads;        /* a thread for each replica; needed where replicas wait for one another */
    unsigned buffers;    /* packet buffers; 0: 512 */
    bool cannot_wait;    /* the input behaves like an interface: what finds no room is dropped */
    uint64_t hold_bytes; /* 0: no bound */
    unsigned max_sends;
    uint64_t memory; /* 0: 32 MiB */
    uint32_t flows;  /* 0: 65536 */
    /* The middlebox: registers itself and sets on_packet and user of the replica; is told that it has started, and
     * that the replica ends (these two may be NULL). */
    int (*setup)(struct sm_replica *replica, void *user);
    int (*started)(struct sm_replica *replica, void *user);
    void (*ended)(struct sm_replica *replica, void *user);
    void *user;
};

struct kit_result {
    uint64_t in, out, dropped, generated;
    uint64_t moves, abandoned, held, deaths, taken_over;
    uint64_t flows_created, flows_live, flows_refused, flows_evicted, memory_used;
    uint64_t drops[SWITCH_DROP_COUNT];
    char cause[96];              /* of the moves that were abandoned last */
    uint32_t replicas_in_flight; /* most at once that had packets */
    uint32_t busy_shards;        /* that packets came to */
    bool damaged;
    char broken[512]; /* empty: every promise held */
};

/* 0, or an error: *error says what. Promises that broke are in result->broken, with a result of 0. */
int kit_run(const struct kit_options *options, struct kit_result *result, struct sm_errbuf *error);

/* xorshift64*: the tests' random numbers. */
uint64_t kit_random(uint64_t *state);

#endif
