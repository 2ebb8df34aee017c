/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. Only the first fragment of a packet has its ports; this table lets the later ones follow it.
 *
 * Life-cycle. free -> stored by a first fragment -> replaced by a new first fragment with the same identity, or given
 * up to another identity: an entry older than 30 s of packet time silently, a younger one (the oldest of its bucket)
 * counted as evicted. Entries are not removed when a packet is complete: its fragments may come in any order, twice.
 *
 * Concurrency. None: a table belongs to one parser.
 *
 * Limits. `entries`, in buckets of up to 8 that fill separately: an identity can be evicted before the table is full.
 * The hash is not keyed, so that a run is a function of its input; a flood of fragments costs others their ports,
 * whichever bucket they are in, never correctness: what is not found is steered by its addresses.
 */
#include "packet/internal.h"

#include <stdlib.h>

enum { WAYS_MAX = 8 };
static const uint64_t LIFETIME_NS = 30u * 1000000000ull;

struct entry {
    struct sm_fragment_id id; /* family 0: free */
    struct sm_fragment_found found;
    sm_time stored;
};

struct sm_fragments {
    uint32_t ways;
    uint32_t mask; /* number of buckets - 1 */
    struct entry entries[];
};

_Static_assert(sizeof(struct sm_fragment_id) == 40, "hashed as five words, compared as bytes");

static uint64_t hash(const struct sm_fragment_id *id)
{
    uint64_t words[5], h = 0;
    memcpy(words, id, sizeof words);
    for (int i = 0; i < 5; i++) {
        h = (h ^ words[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

/* A clock that went back (it does not in a switch) makes nothing expire. */
static bool is_live(const struct entry *entry, sm_time now)
{
    return entry->id.family != 0 && (now.ns <= entry->stored.ns || now.ns - entry->stored.ns <= LIFETIME_NS);
}

struct sm_fragments *sm_fragments_create(unsigned entries)
{
    uint32_t ways = entries < WAYS_MAX ? (entries > 0 ? entries : 1) : WAYS_MAX;
    uint32_t buckets = 1;
    while (buckets <= entries / ways / 2)
        buckets *= 2;
    struct sm_fragments *fragments = calloc(1, sizeof *fragments + (size_t)ways * buckets * sizeof(struct entry));
    if (fragments == NULL)
        return NULL;
    fragments->ways = ways;
    fragments->mask = buckets - 1;
    return fragments;
}

void sm_fragments_destroy(struct sm_fragments *fragments)
{
    free(fragments);
}

static size_t bucket_of(const struct sm_fragments *fragments, const struct sm_fragment_id *id)
{
    return (size_t)(hash(id) & fragments->mask) * fragments->ways;
}

const struct sm_fragment_found *sm_fragments_find(const struct sm_fragments *fragments, const struct sm_fragment_id *id,
                                                  sm_time now)
{
    const struct entry *bucket = fragments->entries + bucket_of(fragments, id);
    for (uint32_t i = 0; i < fragments->ways; i++)
        if (memcmp(&bucket[i].id, id, sizeof *id) == 0)
            return is_live(&bucket[i], now) ? &bucket[i].found : NULL;
    return NULL;
}

bool sm_fragments_store(struct sm_fragments *fragments, const struct sm_fragment_id *id,
                        const struct sm_fragment_found *found, sm_time now)
{
    struct entry *bucket = fragments->entries + bucket_of(fragments, id);
    struct entry *place = NULL, *oldest = bucket;
    bool evicts = false;

    for (uint32_t i = 0; i < fragments->ways; i++) {
        if (memcmp(&bucket[i].id, id, sizeof *id) == 0) {
            place = &bucket[i]; /* the same identity goes before any other place: it must not be there twice */
            break;
        }
        if (bucket[i].stored.ns < oldest->stored.ns || bucket[i].id.family == 0)
            oldest = oldest->id.family == 0 ? oldest : &bucket[i];
    }
    if (place == NULL) {
        place = oldest;
        evicts = is_live(oldest, now);
    }
    *place = (struct entry){.id = *id, .found = *found, .stored = now};
    return evicts;
}

void sm_fragment_identify(struct sm_fragment_id *id, const struct sm_ends *ends, uint32_t number)
{
    size_t size = ends->family == 4 ? 4 : 16;
    memset(id, 0, sizeof *id);
    memcpy(id->source, ends->source, size);
    memcpy(id->destination, ends->destination, size);
    id->id = number;
    id->family = ends->family;
    id->protocol = ends->family == 4 ? ends->protocol : 0;
}
