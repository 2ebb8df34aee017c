/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Shared objects in checkpoints: what is committed of them. Numbers are written as what they come to; what needs a
 * combiner as the contributions that it is combined of, one for each row that has one: the middlebox's own combiner is
 * only known to replicas, who also give the contributions, between two bursts. They are given back to rows of the same
 * numbers, so they combine to what they were.
 */

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "arena/snapshot.h"
#include "switch/restore.h"

static void lock(struct strong_object *object)
{
    uint32_t nobody = 0;

    while (!atomic_compare_exchange_weak_explicit(&object->holder, &nobody, SWITCH_HOLDER, memory_order_acquire,
                                                  memory_order_relaxed)) {
        nobody = 0;
        sched_yield();
    }
    STEP();
}

static void unlock(struct strong_object *object)
{
    STEP();
    atomic_store_explicit(&object->holder, 0, memory_order_release);
    STEP();
}

static struct coherent_account *account_at(struct arena *arena, unsigned row, const struct shared_object *object)
{
    return coherent_place(arena->rows[row], object);
}

static struct coherent_cell *cell_at(struct arena *arena, unsigned row, const struct shared_object *object,
                                     uint32_t number)
{
    return (struct coherent_cell *)coherent_place(arena->rows[row], object) + number;
}

/* What a cell comes to. */
static uint64_t cells(struct arena *arena, const struct shared_object *object, uint32_t number)
{
    unsigned rows = arena_rows(arena);
    uint64_t sum = 0;

    for (unsigned i = 0; i < rows; i++) {
        const struct coherent_writer writer = arena_writer(arena, i);
        sum += coherent_committed(&writer, cell_at(arena, i, object, number));
    }
    return sum;
}

/* What a strong counter comes to: its cells are what was added, and what was taken. */
static uint64_t total(struct arena *arena, const struct shared_object *object)
{
    return object->initial + cells(arena, object, 0) - cells(arena, object, 1);
}

static void put_counters(struct arena *arena, const struct shared_object *object, struct sm_writer *writer)
{
    if (object->capacity == 0) {
        sm_write_int(writer, "value", (int64_t)cells(arena, object, 0));
        return;
    }
    sm_write_list(writer, "values");
    for (uint32_t i = 0; i < object->capacity; i++)
        sm_write_int(writer, NULL, (int64_t)cells(arena, object, i));
    sm_write_end(writer);
}

bool shared_share_fits(const struct arena *arena, const struct snapshot_block *block)
{
    const uint32_t id = block->shard - SNAPSHOT_OBJECTS;

    return id < arena->registration.shared_count && block->flows < ARENA_SLOTS &&
           coherent_has_part(&arena->registration.shared[id]) &&
           block->bytes == coherent_value_bytes(&arena->registration.shared[id]);
}

const uint8_t *shared_find(const struct codec_buffer *shares, uint32_t object, uint32_t row)
{
    struct snapshot_block block;

    for (size_t at = 0; at < shares->used; at += sizeof block + block.bytes) {
        memcpy(&block, shares->bytes + at, sizeof block);
        if (block.shard == SNAPSHOT_OBJECTS + object && block.flows == row)
            return shares->bytes + at + sizeof block;
    }
    return NULL;
}

static void put_parts(const struct codec_buffer *shares, unsigned id, uint32_t bytes, struct sm_writer *writer)
{
    sm_write_list(writer, "parts");
    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        const uint8_t *value = shared_find(shares, id, i);
        if (!value)
            continue;
        sm_write_map(writer, NULL);
        sm_write_uint(writer, "row", i);
        sm_write_bytes(writer, "value", value, bytes);
        sm_write_end(writer);
    }
    sm_write_end(writer);
}

static void put_object(struct arena *arena, const struct codec_buffer *shares, unsigned id, struct sm_writer *writer)
{
    const struct shared_object *object = &arena->registration.shared[id];

    sm_write_map(writer, NULL);
    sm_write_text(writer, "name", object->name);
    sm_write_text(writer, "kind", coherent_kind_name((enum shared_kind)object->kind));
    sm_write_uint(writer, "size", object->value_bytes);
    sm_write_uint(writer, "capacity", object->capacity);
    switch ((enum shared_kind)object->kind) {
    case SHARED_COUNTER:
        put_counters(arena, object, writer);
        break;
    case SHARED_STRONG_COUNTER:
        sm_write_uint(writer, "value", total(arena, object));
        break;
    case SHARED_STRONG:
        lock(&arena->strong[id]);
        sm_write_bytes(writer, "value", arena->strong[id].data, object->value_bytes);
        unlock(&arena->strong[id]);
        break;
    default:
        put_parts(shares, id, coherent_value_bytes(object), writer);
    }
    sm_write_end(writer);
}

int shared_encode(struct arena *arena, const struct codec_buffer *shares, struct codec_buffer *out)
{
    const size_t before = out->used;
    struct sm_writer writer;

    record_begin(&writer, out);
    sm_write_list(&writer, "objects");
    for (unsigned i = 0; i < arena->registration.shared_count; i++)
        put_object(arena, shares, i, &writer);
    sm_write_end(&writer);
    int result = record_end(&writer);
    if (result)
        out->used = before;
    return result;
}

/* Our object that a value describes; -1: none. */
static int object_of(const struct arena *arena, sm_value item)
{
    const struct registration *registration = &arena->registration;

    for (unsigned i = 0; i < registration->shared_count; i++)
        if (record_is_text(sm_value_get(item, "name"), registration->shared[i].name))
            return (int)i;
    return -1;
}

static bool has_bytes(sm_value map, uint32_t bytes)
{
    size_t length;

    return sm_value_bytes(sm_value_get(map, "value"), &length) && length == bytes;
}

/* Readers go by how many elements a union says it has. */
static bool count_fits(const struct shared_object *object, sm_value part)
{
    struct coherent_union set;
    size_t length;

    if (object->kind != SHARED_UNION)
        return true;
    memcpy(&set, sm_value_bytes(sm_value_get(part, "value"), &length), sizeof set);
    return set.count <= object->capacity;
}

static bool parts_fit(const struct shared_object *object, sm_value item)
{
    sm_value parts = sm_value_get(item, "parts");

    for (sm_value part = {NULL, NULL}; sm_value_next(parts, &part);)
        if (sm_value_uint(sm_value_get(part, "row"), ARENA_SLOTS) >= ARENA_SLOTS ||
            !has_bytes(part, coherent_value_bytes(object)) || !count_fits(object, part))
            return false;
    return parts.at != NULL;
}

static bool counters_fit(const struct shared_object *object, sm_value item)
{
    sm_value values = sm_value_get(item, "values"), value = sm_value_get(item, "value");
    uint32_t count = 0;

    if (object->capacity == 0)
        return sm_value_int(value, 0) == sm_value_int(value, 1);
    for (value = (sm_value){NULL, NULL}; sm_value_next(values, &value); count++)
        if (sm_value_int(value, 0) != sm_value_int(value, 1))
            return false;
    return count == object->capacity;
}

static bool value_fits(const struct shared_object *object, sm_value item)
{
    sm_value value = sm_value_get(item, "value");

    if (!record_is_text(sm_value_get(item, "kind"), coherent_kind_name((enum shared_kind)object->kind)) ||
        sm_value_uint(sm_value_get(item, "size"), UINT64_MAX) != object->value_bytes ||
        sm_value_uint(sm_value_get(item, "capacity"), UINT64_MAX) != object->capacity)
        return false;
    switch ((enum shared_kind)object->kind) {
    case SHARED_COUNTER:
        return counters_fit(object, item);
    case SHARED_STRONG_COUNTER:
        return sm_value_uint(value, 0) == sm_value_uint(value, 1);
    case SHARED_STRONG:
        return has_bytes(item, object->value_bytes);
    default:
        return parts_fit(object, item);
    }
}

int shared_check(const struct arena *arena, sm_value shared, struct sm_errbuf *error)
{
    sm_value objects = sm_value_get(shared, "objects");

    for (sm_value item = {NULL, NULL}; sm_value_next(objects, &item);) {
        size_t length;
        const char *name = sm_value_bytes(sm_value_get(item, "name"), &length);
        int id = object_of(arena, item);
        if (id >= 0 && value_fits(&arena->registration.shared[id], item))
            continue;
        snprintf(error->text, sizeof error->text, "shared object '%.*s' is %s",
                 name ? (int)(length < 32 ? length : 32) : 0, name ? name : "",
                 id < 0 ? "not one of this middlebox's" : "of another kind or size here");
        return SM_E_CONFLICT;
    }
    return 0;
}

/* Nobody is at work on them: cells are simply set, so that the rows come to the value. */
static void set_total(struct arena *arena, const struct shared_object *object, uint64_t value)
{
    struct coherent_account *account = account_at(arena, 0, object);
    uint64_t more = value - total(arena, object);

    if ((int64_t)more < 0)
        cell_store(&account->taken.value, cell_load(&account->taken.value) - more);
    else
        cell_store(&account->added.value, cell_load(&account->added.value) + more);
}

static void set_cell(struct arena *arena, const struct shared_object *object, uint32_t number, sm_value value)
{
    struct coherent_cell *cell = cell_at(arena, 0, object, number);
    uint64_t more = (uint64_t)sm_value_int(value, 0) - cells(arena, object, number);

    cell_store(&cell->value, cell_load(&cell->value) + more);
}

static void set_counters(struct arena *arena, const struct shared_object *object, sm_value item)
{
    sm_value values = sm_value_get(item, "values");
    uint32_t number = 0;

    if (object->capacity == 0)
        set_cell(arena, object, 0, sm_value_get(item, "value"));
    for (sm_value value = {NULL, NULL}; object->capacity > 0 && sm_value_next(values, &value);)
        set_cell(arena, object, number++, value);
}

static void set_parts(struct arena *arena, const struct shared_object *object, sm_value item)
{
    sm_value parts = sm_value_get(item, "parts");
    size_t length;

    for (unsigned i = 0; i < arena_rows(arena); i++)
        cell_store(&((struct coherent_part *)coherent_place(arena->rows[i], object))->present, 0);
    for (sm_value value = {NULL, NULL}; sm_value_next(parts, &value);) {
        unsigned row = (unsigned)sm_value_uint(sm_value_get(value, "row"), 0);
        struct coherent_part *part = coherent_place(arena->rows[row], object);
        const void *bytes = sm_value_bytes(sm_value_get(value, "value"), &length);
        memcpy((void *)(uintptr_t)part->words, bytes, length);
        cell_store(&part->present, 1);
        cell_store(&part->version, cell_load(&part->version) + 2);
        arena_add_row(arena, row);
    }
}

void shared_restore(struct arena *arena, sm_value shared)
{
    sm_value objects = sm_value_get(shared, "objects");

    for (sm_value item = {NULL, NULL}; sm_value_next(objects, &item);) {
        int id = object_of(arena, item);
        const struct shared_object *object = &arena->registration.shared[id];
        sm_value value = sm_value_get(item, "value");
        size_t length;
        switch ((enum shared_kind)object->kind) {
        case SHARED_COUNTER:
            set_counters(arena, object, item);
            break;
        case SHARED_STRONG_COUNTER:
            set_total(arena, object, sm_value_uint(value, 0));
            break;
        case SHARED_STRONG:
            lock(&arena->strong[id]);
            memcpy(arena->strong[id].data, sm_value_bytes(value, &length), object->value_bytes);
            unlock(&arena->strong[id]);
            break;
        default:
            set_parts(arena, object, item);
        }
    }
}
