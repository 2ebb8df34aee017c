/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_TABLE_H
#define SM_BENCH_TABLE_H

/*
 * A plain table in a process's own memory: what a middlebox would use that knew nothing of shards and replicas. Open
 * addressing with linear probing; hash, key and value lie together in one entry; at most half full, so that one entry
 * is looked at in most cases; of fixed size. Removal shifts back what was displaced.
 */

#include <splitmerge/types.h>
#include <stdbool.h>

struct table {
    uint8_t *entries;
    uint64_t mask;
    uint32_t entry_bytes;
    uint32_t value_bytes;
    uint32_t count;
};

/* Room for `flows` values of `value_bytes`. False: out of memory. */
bool table_init(struct table *table, uint32_t flows, uint32_t value_bytes);
void table_free(struct table *table);

uint64_t table_hash(const struct sm_key *key);

/* Bring the entry of a hash to the cache. */
void table_prefetch(const struct table *table, uint64_t hash);

/* The value, or NULL. */
void *table_find(const struct table *table, const struct sm_key *key, uint64_t hash);

/* The value of a key that is not there, zeroed. NULL: full. */
void *table_insert(struct table *table, const struct sm_key *key, uint64_t hash);

void table_remove(struct table *table, void *value);

/* All entries: start with *cursor 0; NULL at the end. */
void *table_next(const struct table *table, uint64_t *cursor);
const struct sm_key *table_key(const void *value);

#endif
