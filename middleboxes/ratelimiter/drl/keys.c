/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/keys.h"

#include <stddef.h>
#include <string.h>

struct key_set *keys_set(const struct keys *keys, unsigned number)
{
    return &keys->page[number / KEYS_SETS]->set[number % KEYS_SETS];
}

/* Nobody else uses it yet; the level is last, as nothing is taken before. */
void keys_begin_share(struct meter *share, uint64_t rate, uint64_t depth, uint64_t hosts, uint64_t now)
{
    atomic_store(&share->rate, rate / hosts);
    atomic_store(&share->depth, depth / hosts);
    atomic_store(&share->filled_at, now);
    atomic_store(&share->room, 0);
    atomic_store(&share->queued_until, 0);
    atomic_store(&share->until, METER_ALWAYS);
    atomic_store(&share->level, depth / hosts);
}

void keys_free(struct key_place *place)
{
    meter_void(&place->lease);
    meter_void(&place->share);
    atomic_store(&place->key, 0);
}

/* Of no other words, and for no other key. */
static uint64_t seal_of(const uint64_t words[static KEYS_WORDS], uint64_t key)
{
    for (unsigned i = 0; i < KEYS_WORDS; i++) {
        key = (key ^ words[i]) * 0x9e3779b97f4a7c15ull;
        key ^= key >> 32;
    }
    return key;
}

static void write_who(struct key_place *place, const struct keys_ask *ask)
{
    uint64_t words[KEYS_WORDS];

    memcpy(words, &ask->who, sizeof words);
    for (unsigned i = 0; i < KEYS_WORDS; i++)
        atomic_store_explicit(&place->who[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&place->seal, seal_of(words, ask->key), memory_order_relaxed);
}

bool keys_who(const struct key_place *place, uint64_t key, struct sm_key *who)
{
    uint64_t words[KEYS_WORDS];

    for (unsigned i = 0; i < KEYS_WORDS; i++)
        words[i] = atomic_load_explicit(&place->who[i], memory_order_relaxed);
    memcpy(who, words, sizeof words);
    return atomic_load_explicit(&place->seal, memory_order_relaxed) == seal_of(words, key);
}

/* Take a free place for the key. NULL: there is none. */
static struct key_place *claim(const struct keys *keys, struct key_set *set, const struct keys_ask *ask, uint64_t now)
{
    uint64_t hosts = atomic_load(&keys->head->hosts), claimed = ask->key | 1;

    for (unsigned i = 0; i < KEYS_WAYS; i++) {
        struct key_place *place = &set->place[i];
        uint64_t nobody = 0;
        if (!atomic_compare_exchange_strong(&place->key, &nobody, claimed)) {
            if ((nobody & ~1ull) == ask->key) /* another replica is at it */
                return NULL;
            continue;
        }
        atomic_store(&place->limit, ask->limit);
        atomic_store(&place->rate, ask->rate);
        atomic_store(&place->depth, ask->depth);
        atomic_store(&place->arrived, 0);
        atomic_store(&place->passed, 0);
        atomic_store(&place->went_on, 0);
        atomic_store(&place->exceeded, 0);
        write_who(place, ask);
        atomic_store(&place->lease.rate, 0);
        atomic_store(&place->lease.depth, 0);
        if (ask->shares && hosts > 0)
            keys_begin_share(&place->share, ask->rate, ask->depth, hosts, now);
        return atomic_compare_exchange_strong(&place->key, &claimed, ask->key) ? place : NULL;
    }
    return NULL;
}

static struct key_place *find(struct key_set *set, uint64_t key)
{
    for (unsigned i = 0; i < KEYS_WAYS; i++)
        if (atomic_load_explicit(&set->place[i].key, memory_order_acquire) == key)
            return &set->place[i];
    return NULL;
}

static bool take(struct meter *meter, const struct keys_ask *ask, uint64_t now, struct meter_slot *slot)
{
    uint64_t left = 0;

    if (ask->longest > 0)
        return meter_queue(meter, now, ask->amount, ask->longest, slot);
    if (ask->reserve > 0)
        left = (uint64_t)((unsigned __int128)atomic_load(&meter->depth) * ask->reserve >> 32);
    return meter_take_leaving(meter, now, ask->amount, left);
}

void keys_give_back(struct meter *from, const struct keys_ask *ask, const struct meter_slot *slot)
{
    if (ask->longest > 0 && slot->wait > 0)
        meter_unqueue(from, slot);
    else
        meter_give_back(from, ask->amount);
}

bool keys_take(const struct keys *keys, const struct keys_ask *ask, uint64_t now, struct key_place **at,
               struct meter **from, struct meter_slot *slot)
{
    struct key_set *set = keys_set(keys, keys_set_of(ask->key));
    struct key_place *place = find(set, ask->key);

    if (!place)
        place = claim(keys, set, ask, now);
    *at = place;
    if (!place) {
        atomic_fetch_add_explicit(&set->turned_away, ask->cost, memory_order_relaxed);
        atomic_fetch_add_explicit(&keys->head->turned_away, 1, memory_order_relaxed);
        *from = &keys->head->rest[ask->limit];
        return ask->shares && take(*from, ask, now, slot);
    }
    atomic_fetch_add_explicit(&place->arrived, ask->cost, memory_order_relaxed);
    bool leased = now < atomic_load(&place->lease.until) && atomic_load(&place->lease.rate) > 0;
    *from = leased || !ask->shares ? &place->lease : &place->share;
    if (!take(*from, ask, now, slot))
        return false;
    if (atomic_load(&place->key) != ask->key) {
        keys_give_back(*from, ask, slot);
        return false;
    }
    atomic_fetch_add_explicit(&place->passed, ask->cost, memory_order_relaxed);
    return true;
}

void keys_count(struct key_place *place, const struct keys_ask *ask, bool goes_on)
{
    if (!place || atomic_load_explicit(&place->key, memory_order_relaxed) != ask->key)
        return;
    if (goes_on)
        atomic_fetch_add_explicit(&place->went_on, ask->cost, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&place->exceeded, 1, memory_order_relaxed);
}
