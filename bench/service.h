/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_SERVICE_H
#define SM_BENCH_SERVICE_H

/*
 * A whole service in this process: the switch on the calling thread, replicas on threads of their own or, one after the
 * other, on the same. Packets come from memory and go to a port that swallows them.
 *
 * Life-cycle.  service_open -> service_warm (a packet of every flow has passed) -> measure, any number of times ->
 * service_close.
 */

#include <pthread.h>

#include "bench.h"
#include "replica/replica.h"
#include "switch/switch.h"

#define SERVICE_REPLICAS 2u
#define SERVICE_BUFFERS 4096u /* what sm-switch takes by default */

struct service_options {
    unsigned replicas; /* 0: the caller attaches, assigns and starts */
    bool spread;       /* on threads, one on each core; else all on core 1 */
    bool threads;      /* replicas run on threads, pinned to core 1; else service_turn() runs them */
    bool together;     /* one thread runs all replicas, so that no core has two that want to run */
    bool halves;       /* of the shards one half each; else the first has all */
    bool order_arrival;
    bool sleepy;      /* replicas sleep as soon as nothing waits: yielding would use their part of a core up */
    uint32_t buffers; /* of the packet pool */
    uint32_t flows;
    uint64_t seed;
    int (*setup)(struct sm_replica *replica, void *user); /* registers classes */
    sm_packet_fn *on_packet;
    void *user;
    struct sm_port *in, *out; /* the service's from now on; NULL: one that replays, one that swallows */
};

struct service_replica {
    struct sm_replica *replica;
    pthread_t thread;
    unsigned core;
    int wake_fd;
    bool sleepy;
};

struct service {
    struct service_options options;
    struct arena *arena;
    int arena_fd;
    uintptr_t huge_done; /* as far as its memory is in huge pages */
    struct sm_switch *sw;
    struct service_replica replicas[SERVICE_REPLICAS];
    unsigned count, running; /* replicas, threads */
};

int service_open(struct service *service, const struct service_options *options, struct sm_errbuf *error);

/*
 * At the end of an experiment that came to `result`: join the replicas and see whether every promise was kept
 * (SM_E_STATE, and which was not). Returns the first failure of the two, *error with it.
 */
int service_close(struct service *service, int result, struct sm_errbuf *error);

/* Pass `count` packets from the port that service_open() made. */
int service_warm(struct service *service, uint64_t count, struct sm_errbuf *error);

/* Memory that is there already, as in a service that has run for a while. Where it cannot be had figures are worse. */
void service_populate(const struct service *service);

/* What a replica does until it is told to retire, on the second core. */
void service_work(const struct service_replica *self);

/* Read from another port from now on; takes it. */
void service_input(struct service *service, struct sm_port *port);

/* One turn of the switch, and of the replicas where they have no threads; gives up the core when there was nothing. */
void service_turn(struct service *service);

/* Turns for `ns`. */
void service_rest(struct service *service, uint64_t ns);

/* All shards to a slot, by copying or not, until nothing is left of the move; ms. */
int service_move_all(struct service *service, unsigned to, bool copy, double *ms, struct sm_errbuf *error);

/* The middlebox of most experiments counts packets and bytes in a record of 64 bytes; `user` is an sm_class. */
sm_packet_fn counter_packet;

/* A service of that middlebox, without threads. */
struct service_options service_of_counters(unsigned replicas, uint32_t flows, uint64_t seed, sm_class *cls);

#endif
