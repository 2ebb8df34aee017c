/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTING_TEST_H
#define SM_TESTING_TEST_H

/*
 * The test kit (include/splitmerge/testing.h) from inside: a switch and replicas as they are in a service, on one
 * thread, which decides who takes the next step. Ports are files or lie in memory (trace.c); the switch's clock is
 * ours.
 *
 * Life-cycle of a replica here: started (add_replica) -> retired by the switch, or dead (kill.c) -> ended, freed. Its
 * slot names it.
 */

#include <pthread.h>
#include <splitmerge/testing.h>

#include "replica/replica.h"
#include "switch/switch.h"

struct member {
    struct sm_replica *replica; /* NULL: the slot is empty */
    void *user;
    bool leaving; /* to retire once it owns nothing */
    unsigned version;
    pthread_t thread;
    _Atomic bool through; /* the replica's thread has met its end */
    uint64_t entered;     /* packets that had come in when it last had a turn */
};

#define TEST_HANDS 64u             /* deaths of switches that are remembered */
#define TEST_STEPS_AT_RANDOM 3000u /* at most, until somebody dies */

struct sm_test {
    struct sm_test_options options;
    struct arena *arena;
    int arena_fd;
    struct sm_switch *sw;
    struct member members[ARENA_SLOTS];
    bool copying; /* operations from now on */
    uint32_t next_id;
    uint64_t random, clock;
    struct sm_trace *output;
    unsigned condemned; /* who dies at a place; 0: nobody */
    uint64_t *census;   /* how often the switch came by each place; NULL: that is not counted */
    bool idle;          /* threads: the last turn moved no packet; on a busy machine there are many such turns */
    bool resumed;       /* the switch has its state: it is the first one, or is through with taking over */
    bool ending;        /* all replicas are told to end: nobody dies any more */
    unsigned wanted;    /* replicas to be started with the next switch */
    uint64_t switch_deaths;
    struct {
        uint64_t first, end; /* packets of the input */
        uint64_t dropped;    /* that the ledger did not know of yet */
    } hands[TEST_HANDS];     /* what a switch that died had in its hands, at most; with order_arrival */
    unsigned hands_count;
    uint32_t place;
    uint64_t visits_left;
    unsigned version; /* of replicas that are started now */
    bool upgrading;
    struct sm_test_options before; /* the upgrade */
    uint64_t allocations_left;     /* until one fails; 0: none does */
    struct sm_test_result result;
    bool finished;
};

/* A number below `bound`, of the test's own sequence. */
uint64_t test_below(struct sm_test *test, uint64_t bound);

/* The slots of ready replicas, ascending; how many. */
unsigned test_ready(const struct sm_test *test, unsigned *slots);

/* service.c: a replica more, ready; its slot or an error. One that has retired or is never to run goes. */
int test_add_replica(struct sm_test *test, struct sm_errbuf *error);
void test_remove_replica(struct sm_test *test, unsigned slot);

/* schedule.c: start something at random. */
void test_operate(struct sm_test *test);
void test_retire_leavers(struct sm_test *test);

/* service.c: a switch for the arena, with ports of its own, in place of test->sw. An error: *error says which. */
int test_make_switch(struct sm_test *test, struct sm_errbuf *error);

/* kill.c: a burst of one replica, in which it may die. A burst of another one, of any length, in which it dies where it
 * comes by a place for the nth time, or behind it; the same with any of them, at any place. A burst that ends at any
 * place, with nobody told; false: inside. The end of what a replica has in the process; and of what the switch has of
 * it, for test_as_switch(). */
void test_burst(struct sm_test *test, unsigned slot, unsigned budget);
void test_kill_in_burst(struct sm_test *test, unsigned slot, uint32_t place, uint64_t nth);
void test_kill_at_random(struct sm_test *test);
bool test_burst_to_death(struct sm_test *test, unsigned slot);
void test_free_member(struct sm_test *test, unsigned slot);
void test_slots_died(struct sm_test *test, void *slots);

/* restart.c: the switch does a piece of its work. False: it has died in it, and another one has gone on, with other
 * replicas: nothing of what there was may be used any more. */
bool test_as_switch(struct sm_test *test, void (*piece)(struct sm_test *test, void *arg), void *arg);
void test_switch_died(struct sm_test *test);
void test_kill_switch_at_random(struct sm_test *test);

/* Whoever died has something that others could wait for. On one thread they would wait forever. */
bool test_anything_is_locked(const struct sm_test *test);

/* judge.c: keep the first promise that broke; true: one did. `deep`: all memory too; `end`: nothing is in flight. */
bool test_judge(struct sm_test *test, bool deep, bool end);
void test_count(struct sm_test *test);

/* trace.c: ports in memory. The trace stays the caller's; it is read from the packet `next` on. SM_E_NO_MEMORY. */
int trace_port_in(struct sm_port **port, const struct sm_trace *trace, size_t next);
size_t trace_port_next(const struct sm_port *port);
int trace_port_out(struct sm_port **port, struct sm_trace *trace, const struct sm_port *model);

#endif
