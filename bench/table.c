/* SPDX-License-Identifier: BSD-2-Clause */
#define XXH_INLINE_ALL
#include "table.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* The value follows. */
struct entry {
    uint64_t hash; /* 0: empty */
    struct sm_key key;
};

static inline struct entry *entry_at(const struct table *table, uint64_t index)
{
    return (struct entry *)(void *)(table->entries + (index & table->mask) * table->entry_bytes);
}

static inline struct entry *entry_of(const void *value)
{
    return (struct entry *)(uintptr_t)value - 1;
}

bool table_init(struct table *table, uint32_t flows, uint32_t value_bytes)
{
    uint64_t entries = 2;

    while (entries < 2ull * flows)
        entries *= 2;
    *table = (struct table){.mask = entries - 1, .value_bytes = value_bytes};
    table->entry_bytes = (uint32_t)(sizeof(struct entry) + (value_bytes + 15) / 16 * 16);
    table->entries = aligned_alloc(64, (entries * table->entry_bytes + 63) / 64 * 64);
    if (table->entries)
        memset(table->entries, 0, entries * table->entry_bytes);
    return table->entries != NULL;
}

void table_free(struct table *table)
{
    free(table->entries);
}

uint64_t table_hash(const struct sm_key *key)
{
    return XXH3_64bits(key, sizeof *key) | 1;
}

/* The lowest bit is always set. */
static inline uint64_t home(uint64_t hash)
{
    return hash >> 1;
}

void table_prefetch(const struct table *table, uint64_t hash)
{
    __builtin_prefetch(entry_at(table, home(hash)));
}

void *table_find(const struct table *table, const struct sm_key *key, uint64_t hash)
{
    for (uint64_t at = home(hash);; at++) {
        struct entry *entry = entry_at(table, at);
        if (entry->hash == hash && memcmp(&entry->key, key, sizeof *key) == 0)
            return entry + 1;
        if (entry->hash == 0)
            return NULL;
    }
}

void *table_insert(struct table *table, const struct sm_key *key, uint64_t hash)
{
    uint64_t at = home(hash);

    if (table->count > table->mask / 2)
        return NULL;
    while (entry_at(table, at)->hash != 0)
        at++;
    struct entry *entry = entry_at(table, at);
    entry->hash = hash;
    entry->key = *key;
    memset(entry + 1, 0, table->value_bytes);
    table->count++;
    return entry + 1;
}

void table_remove(struct table *table, void *value)
{
    uint64_t hole = (uint64_t)((uint8_t *)entry_of(value) - table->entries) / table->entry_bytes;

    for (uint64_t at = hole + 1; entry_at(table, at)->hash != 0; at++) {
        struct entry *entry = entry_at(table, at);
        /* It may fill the hole unless its home lies behind it. */
        if (((at - home(entry->hash)) & table->mask) < ((at - hole) & table->mask))
            continue;
        memcpy(entry_at(table, hole), entry, table->entry_bytes);
        hole = at;
    }
    entry_at(table, hole)->hash = 0;
    table->count--;
}

void *table_next(const struct table *table, uint64_t *cursor)
{
    while (*cursor <= table->mask) {
        struct entry *entry = entry_at(table, (*cursor)++);
        if (entry->hash != 0)
            return entry + 1;
    }
    return NULL;
}

const struct sm_key *table_key(const void *value)
{
    return &entry_of(value)->key;
}
