/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_SHARED_H
#define SPLITMERGE_SHARED_H

/*
 * Coherent state: objects that all replicas of a service share (the paper's create_shared, delete_shared, get_shared,
 * put_shared). On one host they are shared memory in the arena.
 *
 *   eventual   sm_counter_*: a sum, at the price of a plain increment.
 *              sm_eventual_*: min, max, union, last write, distinct count, or a combiner of the program's own.
 *              Each replica changes a share of its own; a read combines them all.
 *   strong     sm_strong_counter_*: add, take if there is enough, read. Nobody waits for a lock that others hold long.
 *              sm_shared_get(), sm_shared_put(): any bytes, locked until the burst commits.
 *              sm_buckets_*: token buckets (bucket.h).
 *
 * Strong objects are linearizable: what a packet does to one takes effect at one moment between the packet's beginning
 * and the commit of its burst. All changes are part of the burst: when a replica dies, what its packets had done is
 * undone, and done once by who takes them over. Shares of replicas that have gone, or died, stay.
 *
 * Objects are registered between sm_open() and sm_start(), by every replica the same ones in the same order; they live
 * as long as the service (delete_shared is its end). Errors of all of the register calls: SM_E_INVALID: name (1 to 31
 * characters), sizes, or options out of range. SM_E_CONFLICT: the name is taken. SM_E_LIMIT: more than SM_MAX_SHARED
 * objects, or the shares of a replica take more than SM_MAX_SHARE bytes. SM_E_STATE: after sm_start().
 *
 * `age_ns` of reads (may be NULL): how old the value may be, in nanoseconds of packet time. On one host it is 0.
 * All calls are made on the thread that runs the replica, from its callbacks or between calls of sm_poll().
 */

#include <splitmerge/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sm_replica;

#define SM_MAX_SHARED 256
#define SM_MAX_SHARED_SIZE 4096
#define SM_MAX_SHARE 262144 /* an object takes its size and 32 bytes of it, rounded up to 64; a strong one nothing */

typedef struct sm_counter {
    uint32_t place;
} sm_counter;

typedef struct sm_eventual {
    uint16_t id;
} sm_eventual;

typedef struct sm_strong_counter {
    uint32_t place;
    uint16_t id;
} sm_strong_counter;

typedef struct sm_strong {
    uint16_t id;
} sm_strong;

/* ---- eventual ---- */

/* An eventual counter: add to it, or subtract; read its sum. It wraps around at 64 bits. */
SM_EXPORT int sm_counter_register(struct sm_replica *replica, const char *name, sm_counter *counter);
SM_EXPORT void sm_counter_add(struct sm_replica *replica, sm_counter counter, int64_t amount);
SM_EXPORT int64_t sm_counter_read(const struct sm_replica *replica, sm_counter counter, uint64_t *age_ns);

/* `count` counters, 1..SM_MAX_COUNTERS, as one object: counters[i] is set. Each takes 64 bytes of a replica's share. */
#define SM_MAX_COUNTERS 1024
SM_EXPORT int sm_counters_register(struct sm_replica *replica, const char *name, uint32_t count, sm_counter *counters);

/* The combiners (the paper's `cb` of create_shared). What an update gives, and what a read gives: */
enum sm_combiner {
    SM_MIN,      /* int64_t; the least given. Nothing given: INT64_MAX */
    SM_MAX,      /* int64_t; the greatest given. Nothing given: INT64_MIN */
    SM_UNION,    /* an element of value_size bytes; the different elements, in order of their bytes. Of more than
                    `capacity` elements the lowest ones are kept, the others are counted as refused */
    SM_LAST,     /* value_size bytes; those given at the latest packet time, the greater bytes if two are as late.
                    Nothing given: zeroes */
    SM_DISTINCT, /* an element of value_size bytes; uint64_t: about how many different ones (HyperLogLog with 4096
                    registers over XXH3 with the service's secret: standard error 1.6 %) */
    SM_COMBINE,  /* value_size bytes; combined by `combine` */
};

/*
 * The program's own combiner: into = into + from, value_size bytes each, 8-byte aligned, nothing but them read or
 * written. It must be commutative and associative, and `identity` must change nothing (sm_combiner_check()): then it
 * does not matter how packets were spread over replicas.
 */
typedef void sm_combine_fn(void *into, const void *from, void *user);

struct sm_eventual_options {
    size_t size; /* sizeof(struct sm_eventual_options) */
    const char *name;
    enum sm_combiner combiner;
    uint32_t value_size;    /* bytes; 0 for SM_MIN and SM_MAX */
    uint32_t capacity;      /* SM_UNION: most elements; capacity x value_size at most SM_MAX_SHARED_SIZE - 8 */
    sm_combine_fn *combine; /* SM_COMBINE */
    const void *identity;   /* SM_COMBINE: value_size bytes; must stay as long as the replica */
    void *user;             /* handed to combine */
};

SM_EXPORT int sm_eventual_register(struct sm_replica *replica, const struct sm_eventual_options *options,
                                   sm_eventual *object);

/*
 * Combine `value` with the replica's share. SM_E_LIMIT: a union was full, and this element is not among the lowest (it
 * is counted); or the packet has changed too much already (see sm_writable()): then nothing was done.
 */
SM_EXPORT int sm_eventual_update(struct sm_replica *replica, sm_eventual object, const void *value);

/*
 * Combine the shares of all replicas into `value`, of `size` bytes: as many as the combiner gives, for a union room
 * for `capacity` elements. Returns 0 when nothing was ever given, 1, or for a union the number of elements.
 * SM_E_INVALID: `size` is another.
 */
SM_EXPORT int sm_eventual_read(const struct sm_replica *replica, sm_eventual object, void *value, size_t size,
                               uint64_t *age_ns);

/*
 * For tests: whether a combiner of the program's own keeps the laws on all threes of `count` given values (value_size
 * bytes each, one behind the other). 0, or SM_E_INVALID: *error (may be NULL) names the law and the values' numbers.
 */
SM_EXPORT int sm_combiner_check(const struct sm_eventual_options *options, const void *values, unsigned count,
                                struct sm_errbuf *error);

/* ---- strong counters ---- */

/*
 * A number that never goes below 0: start with `initial`, add to it, take from it if there is enough. Kept by escrow:
 * what a burst adds is there for others once it is committed; what it takes is nobody else's from that moment, and
 * comes back if the replica dies before the commit. It must not exceed INT64_MAX.
 */
SM_EXPORT int sm_strong_counter_register(struct sm_replica *replica, const char *name, uint64_t initial,
                                         sm_strong_counter *counter);

/* Add. Never waits. */
SM_EXPORT void sm_strong_counter_add(struct sm_replica *replica, sm_strong_counter counter, uint64_t amount);

/*
 * Take `amount` if there is so much. 0: it is taken. SM_E_LIMIT: there was less, and nothing is taken. Where only
 * others' uncommitted bursts can tell, the call commits the packets done before and waits for those bursts. It does not
 * wait, and gives SM_E_LIMIT, when the packet in hand has taken from this or a later registered counter, or holds this
 * or a later strong object, or a flow of a shared class: two replicas could wait for one another.
 */
SM_EXPORT int sm_strong_counter_take(struct sm_replica *replica, sm_strong_counter counter, uint64_t amount);

/*
 * The value; may commit the packets done before. SM_E_STATE: the packet in hand has changed the counter itself, and
 * what it did has not taken effect: read first. To decide by a value and change it, take, or use a strong object.
 */
SM_EXPORT int sm_strong_counter_read(struct sm_replica *replica, sm_strong_counter counter, uint64_t *value,
                                     uint64_t *age_ns);

/* ---- strong objects ---- */

/* The paper's consistency flags. */
enum {
    SM_LOCAL = 0,      /* this replica's view: no lock, a read may be torn by a writer elsewhere */
    SM_PULL = 1 << 0,  /* on get: see what others have put */
    SM_PUSH = 1 << 1,  /* on put: let others see it */
    SM_SYNCH = 1 << 2, /* hold the object alone from get to put's commit (needs SM_PULL, then SM_PUSH) */
};

/* create_shared: `size` bytes, zeroed; at most SM_MAX_SHARED_SIZE. */
SM_EXPORT int sm_strong_register(struct sm_replica *replica, const char *name, uint32_t size, sm_strong *object);

/*
 * get_shared: the object's bytes. With SM_PULL | SM_SYNCH the caller alone has it until put; the call may wait for
 * another replica, and first commits what this one has done so far. Strong objects are got, and strong counters taken
 * from, in the order of registration: otherwise NULL (refused, since it could deadlock). put_shared: give it back;
 * others see it when the burst commits.
 */
SM_EXPORT void *sm_shared_get(struct sm_replica *replica, sm_strong object, unsigned flags, uint64_t *age_ns);
SM_EXPORT void sm_shared_put(struct sm_replica *replica, sm_strong object, unsigned flags);

/* ---- time ---- */

/*
 * Shared state that depends on packet time (a token bucket over all packets) meets packets out of order: replicas
 * run at different points of packet time. sm_shared_low() is a time that no replica, this one included, will present
 * a packet of another flow before; refill only up to it.
 *
 * sm_shared_wait() waits until the packets of all replicas that are earlier than `packet` have been processed,
 * committing the packets done before; call it before any state is written for `packet`, and with no shared flow held.
 * False: packets that a move had held may still come, though earlier; they are not waited for.
 *
 * sm_shared_high() is a time that no packet which any replica has been given so far is later than.
 *
 * sm_slot() is a number below 64 that no other living replica of the service has; once this one has ended another may
 * be given it. For what shared state keeps about each replica.
 */
struct sm_packet;
SM_EXPORT sm_time sm_shared_low(const struct sm_replica *replica);
SM_EXPORT sm_time sm_shared_high(const struct sm_replica *replica);
SM_EXPORT bool sm_shared_wait(struct sm_replica *replica, const struct sm_packet *packet);
SM_EXPORT unsigned sm_slot(const struct sm_replica *replica);

#ifdef __cplusplus
}
#endif

#endif
