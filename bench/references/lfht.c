/* SPDX-License-Identifier: BSD-2-Clause */
/* liburcu's cds_lfht: lock-free, resizing itself, read under RCU (quiescent states, its cheapest flavour). */

#include <stdlib.h>
#include <string.h>
#define URCU_INLINE_SMALL_FUNCTIONS
#include <urcu/urcu-qsbr.h>

#include <urcu/rculfhash.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "bench.h"
#include "references/tables.h"

struct entry {
    struct cds_lfht_node node;
    struct table_key key;
    uint32_t value;
};

static struct cds_lfht *table;
static struct entry *entries;
static uint32_t used;

const char *other_prepare(uint32_t flows)
{
    entries = bench_memory(flows * sizeof *entries);
    if (!entries)
        return "not enough memory";
    urcu_qsbr_register_thread();
    return NULL;
}

/* The table stays: to end one takes the library minutes. */
bool other_open(uint32_t flows)
{
    unsigned long buckets = 64;

    while (buckets < flows)
        buckets *= 2;
    if (!table)
        table = cds_lfht_new_flavor(buckets, buckets, 0, 0, &urcu_qsbr_flavor, NULL);
    used = 0;
    return table != NULL;
}

void other_close(void)
{
    for (uint32_t i = 0; table && i < used; i++)
        cds_lfht_del(table, &entries[i].node);
    urcu_qsbr_quiescent_state();
}

static int same(struct cds_lfht_node *node, const void *key)
{
    return memcmp(&((struct entry *)(void *)node)->key, key, sizeof(struct table_key)) == 0;
}

bool other_insert(const struct table_key *key, uint32_t value)
{
    struct entry *entry = &entries[used++];

    entry->key = *key;
    entry->value = value;
    cds_lfht_node_init(&entry->node);
    return cds_lfht_add_unique(table, XXH3_64bits(key, sizeof *key), same, key, &entry->node) == &entry->node;
}

uint64_t other_find(const struct table_key *const *keys)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < TABLES_BURST; i++) {
        struct cds_lfht_iter found;
        cds_lfht_lookup(table, XXH3_64bits(keys[i], sizeof *keys[i]), same, keys[i], &found);
        struct cds_lfht_node *node = cds_lfht_iter_get_node(&found);
        sum += node ? ((struct entry *)(void *)node)->value : UINT64_MAX / 2;
    }
    urcu_qsbr_quiescent_state();
    return sum;
}
