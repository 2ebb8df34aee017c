/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_SHARED_H
#define SPLITMERGE_SHARED_H

/*
 * Coherent state: objects that all replicas of a service share (the paper's create_shared, delete_shared,
 * get_shared, put_shared). On one host they are shared memory in the arena.
 *
 * An eventual counter has one slot a replica; adding touches only the own slot, reading combines all slots.
 * A strong object is locked from sm_shared_get() to the commit of the burst that put it: linearizable.
 * All calls are made on the thread that runs the replica.
 */

#include <splitmerge/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sm_replica;

#define SM_MAX_SHARED 256
#define SM_MAX_SHARED_SIZE 4096

typedef struct sm_counter {
    uint16_t id;
} sm_counter;

typedef struct sm_strong {
    uint16_t id;
} sm_strong;

/* The paper's consistency flags. */
enum {
    SM_LOCAL = 0,      /* this replica's view: no lock, a read may be torn by a writer elsewhere */
    SM_PULL = 1 << 0,  /* on get: see what others have put */
    SM_PUSH = 1 << 1,  /* on put: let others see it */
    SM_SYNCH = 1 << 2, /* hold the object alone from get to put's commit (needs SM_PULL, then SM_PUSH) */
};

/*
 * create_shared, between sm_open() and sm_start(): every replica registers the same objects in the same order.
 * `name`: at most 31 characters, unique in the service. SM_E_INVALID, SM_E_STATE as for sm_class_register().
 * Objects live as long as the service (delete_shared is the end of the service).
 */
SM_EXPORT int sm_counter_register(struct sm_replica *replica, const char *name, sm_counter *counter);
SM_EXPORT int sm_strong_register(struct sm_replica *replica, const char *name, uint32_t size, sm_strong *object);

/* Add to an eventual counter (own slot); read its sum over all slots, those of replicas that have gone too. */
SM_EXPORT void sm_counter_add(struct sm_replica *replica, sm_counter counter, int64_t amount);
SM_EXPORT int64_t sm_counter_read(const struct sm_replica *replica, sm_counter counter);

/*
 * get_shared: the object's bytes. With SM_PULL | SM_SYNCH the caller alone has it until put; the call may wait for
 * another replica, and first commits what this one has done so far. Objects are got in the order of registration
 * while others are held: otherwise NULL (refused, since it could deadlock). put_shared: give it back; others see it
 * when the burst commits.
 */
SM_EXPORT void *sm_shared_get(struct sm_replica *replica, sm_strong object, unsigned flags);
SM_EXPORT void sm_shared_put(struct sm_replica *replica, sm_strong object, unsigned flags);

/*
 * Shared state that depends on packet time (a token bucket over all packets) meets packets out of order: replicas
 * run at different points of packet time. sm_shared_low() is a time that no replica, this one included, will present
 * a packet of another flow before; refill only up to it.
 *
 * sm_shared_wait() waits until the packets of all replicas that are earlier than `packet` have been processed,
 * committing the packets done before; call it before any state is written for `packet`, and with no shared flow held.
 * False: packets that a move had held may still come, though earlier; they are not waited for.
 */
struct sm_packet;
SM_EXPORT sm_time sm_shared_low(const struct sm_replica *replica);
SM_EXPORT bool sm_shared_wait(struct sm_replica *replica, const struct sm_packet *packet);

#ifdef __cplusplus
}
#endif

#endif
