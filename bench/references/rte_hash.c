/* SPDX-License-Identifier: BSD-2-Clause */
/* DPDK's rte_hash, in huge pages where there are any: one reader and writer, CRC32, half full. */

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "references/tables.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGE (2ull << 20)

static struct rte_hash *table;

/* Memory without huge pages of its own gets those that the kernel makes, as our arena does. */
static int collapse(const struct rte_memseg_list *list, void *unused)
{
    (void)unused;
    if (list->page_sz < HUGE_PAGE)
        for (size_t at = 0; at + HUGE_PAGE <= list->len; at += HUGE_PAGE) {
            char *page = (char *)list->base_va + at;
            if (madvise(page, HUGE_PAGE, MADV_HUGEPAGE) == 0)
                (void)madvise(page, HUGE_PAGE, MADV_COLLAPSE);
        }
    return 0;
}

const char *other_prepare(uint32_t flows)
{
    char name[] = "rte_hash", no_huge[] = "--no-huge", no_pci[] = "--no-pci", memory[] = "-m", megabytes[16],
         quiet[] = "--log-level=1", no_files[] = "--no-shconf", no_telemetry[] = "--no-telemetry";
    char *arguments[] = {name, no_huge, no_pci, no_files, no_telemetry, quiet, memory, megabytes};

    snprintf(megabytes, sizeof megabytes, "%u", 128 + flows / 4096);
    if (!freopen("/dev/null", "w", stderr)) /* it speaks of what it does without */
        return "no /dev/null";
    if (rte_eal_init((int)(sizeof arguments / sizeof *arguments), arguments) < 0)
        return "DPDK cannot be initialised";
    rte_memseg_list_walk(collapse, NULL);
    return NULL;
}

bool other_open(uint32_t flows)
{
    const struct rte_hash_parameters parameters = {
        .name = "flows",
        .entries = flows < 8 ? 16 : 2 * flows,
        .key_len = sizeof(struct table_key),
        .hash_func = rte_hash_crc,
        .socket_id = SOCKET_ID_ANY,
    };

    table = rte_hash_create(&parameters);
    return table != NULL;
}

void other_close(void)
{
    rte_hash_free(table);
    table = NULL;
}

bool other_insert(const struct table_key *key, uint32_t value)
{
    return rte_hash_add_key_data(table, key, (void *)(uintptr_t)value) == 0;
}

uint64_t other_find(const struct table_key *const *keys)
{
    void *values[TABLES_BURST];
    uint64_t hits = 0, sum = 0;

    if (rte_hash_lookup_bulk_data(table, (const void **)(uintptr_t)keys, TABLES_BURST, &hits, values) !=
        (int)TABLES_BURST)
        return UINT64_MAX;
    for (unsigned i = 0; i < TABLES_BURST; i++)
        sum += (uintptr_t)values[i];
    return sum;
}
