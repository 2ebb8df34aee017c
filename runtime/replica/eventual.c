/* SPDX-License-Identifier: BSD-2-Clause */

/* The public calls on eventual objects (include/splitmerge/shared.h): own shares, and reads over all of them. */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "replica/replica.h"

static const struct shared_object *object_of(const struct sm_replica *replica, sm_eventual object)
{
    return &replica->arena->registration.shared[object.id];
}

int sm_counter_register(struct sm_replica *replica, const char *name, sm_counter *counter)
{
    struct shared_object *object;
    int result = replica_register_shared(replica, name, (struct shared_object){.kind = SHARED_COUNTER}, &object);

    if (result >= 0)
        counter->place = object->at;
    return result < 0 ? result : 0;
}

int sm_counters_register(struct sm_replica *replica, const char *name, uint32_t count, sm_counter *counters)
{
    const struct shared_object wanted = {.kind = SHARED_COUNTER, .capacity = count};
    struct shared_object *object;
    int result = count > 0 ? replica_register_shared(replica, name, wanted, &object) : SM_E_INVALID;

    for (uint32_t i = 0; result >= 0 && i < count; i++)
        counters[i].place = object->at + i * (uint32_t)sizeof(struct coherent_cell);
    return result < 0 ? result : 0;
}

/* It is as long as a cache line, and costs a third more across two. */
__attribute__((aligned(64))) void sm_counter_add(struct sm_replica *replica, sm_counter counter, int64_t amount)
{
    coherent_add(&replica->journal, (struct coherent_cell *)(void *)(replica->row + counter.place), (uint64_t)amount);
}

int64_t sm_counter_read(const struct sm_replica *replica, sm_counter counter, uint64_t *age_ns)
{
    unsigned rows = arena_rows(replica->arena);
    uint64_t sum = 0;

    for (unsigned i = 0; i < rows; i++) {
        const struct coherent_cell *cell = (const void *)(replica->arena->rows[i] + counter.place);
        sum += cell_load(&cell->value);
    }
    if (age_ns)
        *age_ns = 0;
    return (int64_t)sum;
}

int sm_eventual_register(struct sm_replica *replica, const struct sm_eventual_options *options, sm_eventual *object)
{
    static const enum shared_kind kinds[] = {
        [SM_MIN] = SHARED_MIN,   [SM_MAX] = SHARED_MAX,           [SM_UNION] = SHARED_UNION,
        [SM_LAST] = SHARED_LAST, [SM_DISTINCT] = SHARED_DISTINCT, [SM_COMBINE] = SHARED_OWN,
    };
    bool own = options->combiner == SM_COMBINE;

    if (options->size != sizeof *options || (unsigned)options->combiner >= sizeof kinds / sizeof *kinds ||
        own != (options->combine != NULL) || own != (options->identity != NULL))
        return SM_E_INVALID;
    const struct shared_object wanted = {
        .kind = kinds[options->combiner],
        .value_bytes = options->value_size,
        .capacity = options->capacity,
    };
    struct shared_object *made;
    int id = replica_register_shared(replica, options->name, wanted, &made);
    if (id < 0)
        return id;
    replica->combiners[id].combine = options->combine;
    replica->combiners[id].identity = options->identity;
    replica->combiners[id].user = options->user;
    object->id = (uint16_t)id;
    return 0;
}

/* Contributions in the making: aligned as a program's own combiner may expect. */
struct share {
    _Alignas(16) uint8_t bytes[SM_MAX_SHARED_SIZE];
};

/* Returns how many elements a union had no place for. */
static unsigned combine(const struct sm_replica *replica, sm_eventual id, void *into, const void *from)
{
    const struct shared_object *object = object_of(replica, id);

    if (object->kind != SHARED_OWN)
        return coherent_combine(object, into, from);
    replica->combiners[id.id].combine(into, from, replica->combiners[id.id].user);
    return 0;
}

/* One register: not the whole share is kept and written. */
static int update_distinct(struct sm_replica *replica, const struct shared_object *object, struct coherent_part *part,
                           const void *element)
{
    uint8_t rank, registers[8];
    uint32_t at = coherent_register(replica->state, element, object->value_bytes, &rank);
    _Atomic uint64_t *at_word = &part->words[at / 8];
    uint64_t word = atomic_load_explicit(at_word, memory_order_relaxed);

    memcpy(registers, &word, sizeof registers);
    if (registers[at % 8] >= rank)
        return 0;
    if (!journal_may_add(&replica->journal, 2 * sizeof(struct coherent_part)))
        return SM_E_LIMIT;
    journal_image(&replica->journal, at_word, sizeof word);
    registers[at % 8] = rank;
    memcpy(&word, registers, sizeof word);
    cell_store(at_word, word);
    STEP();
    if (atomic_load_explicit(&part->present, memory_order_relaxed) == 0) {
        journal_image(&replica->journal, &part->present, sizeof part->present);
        cell_store(&part->present, 1);
        STEP();
    }
    if (atomic_load_explicit(&part->version, memory_order_relaxed) == 0)
        cell_store(&part->version, 2);
    return 0;
}

int sm_eventual_update(struct sm_replica *replica, sm_eventual id, const void *value)
{
    const struct shared_object *object = object_of(replica, id);
    struct coherent_part *part = coherent_place(replica->row, object);
    uint32_t bytes = coherent_value_bytes(object);
    uint64_t now = atomic_load_explicit(&replica->channel->low, memory_order_relaxed);
    struct share share, single;
    unsigned refused = 0;

    if (object->kind == SHARED_DISTINCT)
        return update_distinct(replica, object, part, value);
    bool present = atomic_load_explicit(&part->present, memory_order_relaxed) != 0;
    if (object->kind == SHARED_UNION && present && coherent_contains(object, (const void *)part->words, value))
        return 0;
    if (object->kind == SHARED_OWN)
        memcpy(single.bytes, value, bytes);
    else
        coherent_single(object, single.bytes, value, now);
    if (present) {
        memcpy(share.bytes, (const void *)part->words, bytes);
        refused = combine(replica, id, share.bytes, single.bytes);
        if (refused == 0 && memcmp(share.bytes, (const void *)part->words, bytes) == 0)
            return 0;
    } else {
        memset(share.bytes, 0, bytes);
        memcpy(share.bytes, single.bytes,
               object->kind == SHARED_UNION ? sizeof(struct coherent_union) + object->value_bytes : bytes);
    }
    if (!coherent_write(&replica->journal, part, share.bytes, bytes, refused))
        return SM_E_LIMIT;
    return refused && !coherent_contains(object, (const void *)share.bytes, value) ? SM_E_LIMIT : 0;
}

/* What a read gives, of the shares combined; `any`: there was one. */
static int give(const struct sm_replica *replica, sm_eventual id, const struct share *share, bool any, void *value,
                size_t size)
{
    const struct shared_object *object = object_of(replica, id);
    const struct coherent_union *set = (const void *)share->bytes;
    const struct coherent_last *last = (const void *)share->bytes;
    int64_t limit = object->kind == SHARED_MIN ? INT64_MAX : INT64_MIN;
    uint64_t estimate = 0;

    switch ((enum shared_kind)object->kind) {
    case SHARED_UNION:
        memcpy(value, set->elements, any ? set->count * object->value_bytes : 0);
        return any ? (int)set->count : 0;
    case SHARED_LAST:
        memset(value, 0, size);
        if (any)
            memcpy(value, last->value, size);
        break;
    case SHARED_DISTINCT:
        estimate = any ? coherent_estimate(share->bytes) : 0;
        memcpy(value, &estimate, size);
        break;
    case SHARED_OWN:
        memcpy(value, any ? share->bytes : replica->combiners[id.id].identity, size);
        break;
    default:
        memcpy(value, any ? (const void *)share->bytes : &limit, size);
        break;
    }
    return any;
}

static size_t read_bytes(const struct shared_object *object)
{
    switch ((enum shared_kind)object->kind) {
    case SHARED_UNION:
        return (size_t)object->capacity * object->value_bytes;
    case SHARED_LAST:
    case SHARED_OWN:
        return object->value_bytes;
    default:
        return sizeof(uint64_t);
    }
}

int sm_eventual_read(const struct sm_replica *replica, sm_eventual id, void *value, size_t size, uint64_t *age_ns)
{
    const struct shared_object *object = object_of(replica, id);
    uint32_t bytes = coherent_value_bytes(object);
    unsigned rows = arena_rows(replica->arena);
    struct share all, share;
    bool any = false;

    if (size != read_bytes(object))
        return SM_E_INVALID;
    for (unsigned i = 0; i < rows; i++) {
        const struct coherent_part *part = coherent_place(replica->arena->rows[i], object);
        if (!coherent_copy(part, any ? share.bytes : all.bytes, bytes))
            continue;
        if (any)
            combine(replica, id, all.bytes, share.bytes);
        any = true;
    }
    if (age_ns)
        *age_ns = 0;
    return give(replica, id, &all, any, value, size);
}

/* ---- laws ---- */

static const void *value_at(const struct sm_eventual_options *options, const void *values, unsigned i)
{
    return (const uint8_t *)values + (size_t)i * options->value_size;
}

/* a + b */
static void sum(const struct sm_eventual_options *options, struct share *into, const void *a, const void *b)
{
    struct share from;

    memcpy(into->bytes, a, options->value_size);
    memcpy(from.bytes, b, options->value_size);
    options->combine(into->bytes, from.bytes, options->user);
}

static bool same(const struct sm_eventual_options *options, const struct share *a, const void *b)
{
    return memcmp(a->bytes, b, options->value_size) == 0;
}

static bool check_pair(const struct sm_eventual_options *options, const void *a, const void *b)
{
    struct share ab, ba;

    sum(options, &ab, a, b);
    sum(options, &ba, b, a);
    return same(options, &ab, ba.bytes);
}

static bool check_three(const struct sm_eventual_options *options, const void *a, const void *b, const void *c)
{
    struct share ab, bc, left, right;

    sum(options, &ab, a, b);
    sum(options, &left, ab.bytes, c);
    sum(options, &bc, b, c);
    sum(options, &right, a, bc.bytes);
    return same(options, &left, right.bytes);
}

static bool check_identity(const struct sm_eventual_options *options, const void *a)
{
    struct share left, right;

    sum(options, &left, options->identity, a);
    sum(options, &right, a, options->identity);
    return same(options, &left, a) && same(options, &right, a);
}

int sm_combiner_check(const struct sm_eventual_options *options, const void *values, unsigned count,
                      struct sm_errbuf *error)
{
    struct sm_errbuf ignored;

    if (!error)
        error = &ignored;
    if (options->size != sizeof *options || options->combiner != SM_COMBINE || !options->combine ||
        !options->identity || options->value_size == 0 || options->value_size > SM_MAX_SHARED_SIZE) {
        snprintf(error->text, sizeof error->text,
                 "no combiner of one's own: expected SM_COMBINE with all that it takes");
        return SM_E_INVALID;
    }
    for (unsigned i = 0; i < count; i++) {
        const void *a = value_at(options, values, i);
        if (!check_identity(options, a)) {
            snprintf(error->text, sizeof error->text, "identity: value %u is changed by it", i);
            return SM_E_INVALID;
        }
        for (unsigned j = 0; j < count; j++) {
            const void *b = value_at(options, values, j);
            if (!check_pair(options, a, b)) {
                snprintf(error->text, sizeof error->text, "not commutative: values %u and %u", i, j);
                return SM_E_INVALID;
            }
            for (unsigned k = 0; k < count; k++)
                if (!check_three(options, a, b, value_at(options, values, k))) {
                    snprintf(error->text, sizeof error->text, "not associative: values %u, %u and %u", i, j, k);
                    return SM_E_INVALID;
                }
        }
    }
    return 0;
}
