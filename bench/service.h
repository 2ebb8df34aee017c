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

struct service_options {
    unsigned replicas; /* 0: the caller attaches, assigns and starts */
    bool spread;       /* on threads, one on each core; else all on core 1 */
    bool threads;      /* replicas run on threads, pinned to core 1; else service_turn() runs them */
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
    unsigned count;
};

int service_open(struct service *service, const struct service_options *options, struct sm_errbuf *error);

/* Join the replicas and see whether every promise was kept: SM_E_STATE, and *error says which was not. */
int service_close(struct service *service, struct sm_errbuf *error);

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

/* The middlebox of `forward` and `move`: counts packets and bytes in a record of 64 bytes. `user`: an sm_class. */
int counter_setup(struct sm_replica *replica, void *user);
sm_packet_fn counter_packet;

#endif
