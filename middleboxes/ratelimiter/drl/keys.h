/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef RATELIMITER_KEYS_H
#define RATELIMITER_KEYS_H

/*
 * The keys of distributed limits that are in use on a host: a table in memory that its replicas and its exchange have
 * together. A key's first packet takes a place; the exchange asks for leases of those that have packets, and frees the
 * places of those that have none.
 *
 * Two buckets.  A place has the *lease*, which the limit's home has given (exact.h), and where the limit's mode allows
 * it the *share*, 1/N of the limit for N hosts, which counts while there is no lease.
 *
 * Where there is no place.  A set that is full gives a place to whoever is turned away for more than the least of its
 * keys has sent (the exchange frees that one). Until then such packets go by the *rest*, one share for all of them of
 * the limit; where the mode has no shares they do not conform.
 *
 * Life-cycle of a place.  free -> taken by a replica (the key with its lowest bit set; it fills in what the limit is)
 * -> the key's -> free, by the exchange alone, the buckets voided before.
 *
 * Whose it is for people.  Hosts tell each other a hash; the key itself stays here. It is written before the place is
 * the key's, and sealed: who was so slow that the place is another's by then may write over that one's, which has no
 * key to show from then on rather than a wrong one.
 *
 * Concurrency.  As meter.h. Who has taken from a bucket looks whether the place is still the key's, and gives back if
 * it is not: so no packet passes by what is another's.
 *
 * Limits.  KEYS_PLACES keys of all limits together, in sets of KEYS_WAYS.
 */

#include <splitmerge/types.h>

#include "drl/meter.h"

#define KEYS_PAGES 72u
#define KEYS_SETS 2u /* of a page */
#define KEYS_WAYS 8u
#define KEYS_PLACES (KEYS_PAGES * KEYS_SETS * KEYS_WAYS)
#define KEYS_LIMITS 32u
#define KEYS_WORDS (sizeof(struct sm_key) / sizeof(uint64_t))

struct key_place {
    _Atomic uint64_t key; /* 0: free; odd: being filled in */
    _Atomic uint64_t limit;
    _Atomic uint64_t rate, depth; /* of the whole limit for this key, as struct exact_part */
    _Atomic uint64_t arrived, passed;
    _Atomic uint64_t went_on;  /* of what has passed: no other limit dropped it */
    _Atomic uint64_t exceeded; /* packets that were dropped or marked for it */
    _Atomic uint64_t who[KEYS_WORDS], seal;
    struct meter lease, share;
};

struct key_set {
    _Atomic uint64_t turned_away; /* bytes, or packets, that found no place */
    struct key_place place[KEYS_WAYS];
};

struct keys_page {
    struct key_set set[KEYS_SETS];
};

struct keys_head {
    _Atomic uint64_t hosts;       /* among whom shares are made */
    _Atomic uint64_t turned_away; /* packets */
    _Atomic int64_t ahead;        /* as struct share_head */
    struct meter rest[KEYS_LIMITS];
};

/* Where it lies. All zero: nobody is there, and there are no shares. */
struct keys {
    struct keys_head *head;
    struct keys_page *page[KEYS_PAGES];
};

/* What a packet asks. */
struct keys_ask {
    uint64_t key; /* even, not 0: a hash that is the same on all hosts */
    struct sm_key who;
    unsigned limit;
    bool shares; /* what has no lease goes by its share */
    uint64_t rate, depth;
    uint32_t cost;
    uint64_t amount;  /* as the bucket counts it */
    uint64_t reserve; /* part of the depth that must be left, in 2^-32 */
    uint64_t longest; /* it may wait for so long; 0: it does not, and *slot is not used */
};

/* Whether it conforms at `now`, of the exchange's clock; it is taken, and counted. *from is the bucket that it came
 * from, for keys_give_back(), *at its key's place, or NULL, for keys_count(). */
bool keys_take(const struct keys *keys, const struct keys_ask *ask, uint64_t now, struct key_place **at,
               struct meter **from, struct meter_slot *slot);
void keys_give_back(struct meter *from, const struct keys_ask *ask, const struct meter_slot *slot);

/* Count it as one that has gone on, or that exceeded the limit; where its key had no place nobody does. A place that
 * becomes another's meanwhile may count it for that one. */
void keys_count(struct key_place *place, const struct keys_ask *ask, bool goes_on);

/* The rest is the exchange's. */

/* The key of a place that is `key`'s. False: it is not whole, or another's. */
bool keys_who(const struct key_place *place, uint64_t key, struct sm_key *who);

struct key_set *keys_set(const struct keys *keys, unsigned number);

/* The number of a key's set. */
static inline unsigned keys_set_of(uint64_t key)
{
    return (unsigned)((key >> 32) % (KEYS_PAGES * KEYS_SETS));
}

/* A share of the whole for one of `hosts`, as it is when nothing was taken. */
void keys_begin_share(struct meter *share, uint64_t rate, uint64_t depth, uint64_t hosts, uint64_t now);

void keys_free(struct key_place *place);

#endif
