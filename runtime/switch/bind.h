/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_BIND_H
#define SM_SWITCH_BIND_H

/* Bound keys, as the switch steers by them (design D3); there are none unless a class declares that it binds. */

#include "switch/switch.h"

struct bound_key {
    struct sm_key key;
    uint64_t hash;
    uint16_t shard;
    uint32_t next; /* of the same bucket, or free; BOUND_NONE: none */
};

#define BOUND_NONE UINT32_MAX

struct switch_bindings {
    struct bound_key *keys;
    uint32_t *buckets;
    uint32_t size, mask; /* of keys; of buckets, a power of two, less one */
    uint32_t count;      /* keys that are bound */
    uint32_t free;
    uint64_t steered; /* packets */
    unsigned filter_count;
    struct sm_filter *filters[SM_MAX_CLASSES]; /* packets behind which a file is not read on at once */
};

/* After the first registration: where a class binds, make ready for it. Failure is the end of the run (switch_fail()).
 */
void switch_bind_open(struct sm_switch *sw);
void switch_bind_close(struct sm_switch *sw);

/* Carry out what a slot says of bindings, up to `end` of its ring. False: it cannot be. */
bool switch_bind_take(struct sm_switch *sw, unsigned slot, uint32_t end);

/* Bindings are in use: change the shard of an admitted packet whose key is bound; after one that may bind, on files,
 * stop reading until all is back. */
void switch_bind_steer(struct sm_switch *sw, uint32_t buffer);

/* Learn all bindings anew from the arena; nobody may be writing them who was not taken back. */
void switch_bind_learn(struct sm_switch *sw);

#endif
