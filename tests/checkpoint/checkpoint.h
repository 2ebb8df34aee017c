/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_CHECKPOINT_H
#define SM_TESTS_CHECKPOINT_H

/*
 * A middlebox whose output depends on all of its state: a record for each flow, one with memory for each pair of hosts,
 * a shared flow, timers, shared objects. Each packet has its number in its payload; the middlebox writes what it knows
 * behind it.
 */

#include "switch/checkpoint.h"
#include "switch/restore.h"
#include "testing/test.h"

#define HOSTS 24u
#define FLOWS_OF_PAIR 6u
#define PACKETS 3000u

/* The records, as far as the tests look into them. `last` is the number of the newest packet. */
struct flow_record {
    uint64_t packets;
    uint32_t last;
    uint8_t expired; /* of the flows before it under its key */
};

struct pair_record {
    struct note *notes;
    uint64_t packets;
    uint32_t last, count;
};

enum { FLOWS, PAIRS, EVERYTHING };

/* PACKETS packets whose times and flows follow the seed; the pair and the flow of a packet. */
struct sm_trace *trace_make(uint64_t seed, uint32_t from, uint32_t to);
uint32_t packet_pair(uint64_t seed, uint32_t number);
uint32_t packet_flow(uint64_t seed, uint32_t number); /* over all pairs */
uint32_t record_pair(const struct sm_key *key);
uint32_t record_flow(const struct sm_key *key);

struct sm_test_options middlebox(uint64_t seed, const struct sm_trace *input, unsigned replicas);

/* What a counter came to in the last run. */
extern int64_t counted;
/* The flows of the last checkpoint. */
extern uint64_t saved_flows;

/* Write a checkpoint. Meanwhile: no packets; steps of the test; packets for half encoded shards. 0, or an error. */
enum meanwhile { NOTHING, STEPS, BETWEEN_FLOWS };
int checkpoint_take(struct sm_test *test, const char *file, enum meanwhile meanwhile, struct sm_errbuf *error);

/* The switch and its replicas go on for a moment. */
void turn(struct sm_test *test);

/* Restore one in a service that has not begun. */
int checkpoint_restore(struct sm_test *test, const char *file, struct sm_errbuf *error);

/* damage.c: NULL, or what is wrong. */
const char *damage_test(uint64_t seed, const char *file);
const char *refusal_test(uint64_t seed, const char *file);
const char *cut_test(uint64_t seed, const char *file);
const char *scribbled_test(uint64_t seed);

/* shares.c: the same. */
const char *shares_test(uint64_t seed, const char *file);

#endif
