/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_STATE_SUPPORT_H
#define SM_TESTS_STATE_SUPPORT_H

/* A state in memory of its own, keys by number, random numbers. Header only: Criterion and plain programs use it. */

#include "state/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct fixture {
    struct state *state;
    struct state_actor *actor;
    void *memory;
    size_t bytes;
};

static inline struct fixture fixture_open(uint64_t memory, uint32_t flows)
{
    struct state_config config = {.memory = memory, .flows = flows, .bindings = 20};
    for (unsigned i = 0; i < sizeof config.secret; i++) {
        config.secret[i] = (uint8_t)(i * 37 + 11);
    }
    struct fixture f = {.bytes = state_bytes(&config)};
    f.memory = mmap(NULL, f.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f.memory == MAP_FAILED || state_format(&f.state, f.memory, f.bytes, &config) != 0 ||
        state_actor_join(&f.actor, f.state, 0) != 0) {
        abort();
    }
    return f;
}

static inline void fixture_close(struct fixture *f)
{
    munmap(f->memory, f->bytes);
}

static inline unsigned fixture_class(struct fixture *f, uint32_t record, uint8_t timers, uint32_t limit)
{
    struct state_class cls = {.name = "test", .record_size = record, .timers = timers, .limit = limit};
    int id = state_class_add(f->state, &cls);
    if (id < 0) {
        abort();
    }
    return (unsigned)id;
}

/* The number is the key's first bytes in big endian, so that keys order as numbers do. */
static inline struct sm_key key_of(uint32_t number)
{
    struct sm_key key = {.family = 4, .protocol = 17};
    for (unsigned i = 0; i < 4; i++) {
        key.a[i] = (uint8_t)(number >> (24 - 8 * i));
    }
    return key;
}

static inline struct flow *insert_key(struct state_actor *actor, uint32_t shard, unsigned cls, uint32_t number)
{
    struct sm_key key = key_of(number);
    struct flow *flow = NULL;
    return state_insert(actor, shard, cls, &key, state_hash(actor->state, &key), &flow) == 0 ? flow : NULL;
}

static inline struct flow *find_key(struct state *state, uint32_t shard, unsigned cls, uint32_t number)
{
    struct sm_key key = key_of(number);
    return state_find(state, shard, cls, &key, state_hash(state, &key));
}

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint32_t random_below(struct random *random, uint32_t bound)
{
    return (uint32_t)(random_next(random) % bound);
}

static inline struct random random_seeded(const char *who)
{
    const char *text = getenv("SM_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;
    fprintf(stderr, "%s: SM_SEED=%llu\n", who, (unsigned long long)seed);
    return (struct random){seed};
}

#endif
