/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The shared objects of a service as JSON: name, kind, the combined value, and what each row has contributed. Values
 * are those of the moment, as replicas that run have left them; a middlebox's own combiner is not known here, so for
 * its objects there are the contributions alone.
 */

#include "switch/report.h"

#include <string.h>

struct share {
    _Alignas(16) uint8_t bytes[SM_MAX_SHARED_SIZE];
};

static json_t *integer(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *elements(const struct shared_object *object, const struct coherent_union *set)
{
    json_t *list = json_array();

    for (uint64_t i = 0; i < set->count && i < object->capacity; i++)
        json_array_append_new(list, report_hex(set->elements + i * object->value_bytes, object->value_bytes));
    return list;
}

static json_t *value_of(const struct shared_object *object, const struct share *share)
{
    const struct coherent_last *last = (const void *)share->bytes;
    int64_t number;

    switch ((enum shared_kind)object->kind) {
    case SHARED_UNION:
        return elements(object, (const void *)share->bytes);
    case SHARED_LAST:
        return report_hex(last->value, object->value_bytes);
    case SHARED_DISTINCT:
        return integer(coherent_estimate(share->bytes));
    case SHARED_OWN:
        return report_hex(share->bytes, object->value_bytes);
    default:
        memcpy(&number, share->bytes, sizeof number);
        return json_integer(number);
    }
}

/* Who contributes to a row now; null: nobody, and it stays. */
static json_t *contribution(const struct sm_switch *sw, unsigned row)
{
    json_t *object = json_object();
    bool there = sw->slots[row].state == SLOT_READY || sw->slots[row].state == SLOT_RETIRING;

    json_object_set_new(object, "replica", there ? json_string(sw->slots[row].name) : json_null());
    return object;
}

/* A number; of many counters a list, up to the last that is not 0. */
static json_t *numbers(const struct shared_object *object, const uint64_t *value)
{
    uint32_t count = object->capacity;
    json_t *list;

    if (count == 0)
        return integer(*value);
    list = json_array();
    while (count > 0 && value[count - 1] == 0)
        count--;
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, integer(value[i]));
    return list;
}

static void put_counter(const struct sm_switch *sw, const struct shared_object *object, json_t *to, json_t *list)
{
    uint64_t sum[SM_MAX_COUNTERS] = {0}, value[SM_MAX_COUNTERS];

    for (unsigned i = 0; i < arena_rows(sw->arena); i++) {
        const struct coherent_cell *cell = coherent_place(sw->arena->rows[i], object);
        bool any = false;
        for (uint32_t k = 0; k < coherent_cells(object); k++) {
            value[k] = cell_load(&cell[k].value);
            sum[k] += value[k];
            any |= value[k] != 0;
        }
        if (!any)
            continue;
        json_t *item = contribution(sw, i);
        json_object_set_new(item, "value", numbers(object, value));
        json_array_append_new(list, item);
    }
    json_object_set_new(to, "value", numbers(object, sum));
}

static void put_account(const struct sm_switch *sw, const struct shared_object *object, json_t *to, json_t *list)
{
    uint64_t sum = object->initial;

    for (unsigned i = 0; i < arena_rows(sw->arena); i++) {
        const struct coherent_account *account = coherent_place(sw->arena->rows[i], object);
        const struct coherent_writer writer = arena_writer(sw->arena, i);
        uint64_t added = coherent_committed(&writer, &account->added);
        uint64_t taken = coherent_committed(&writer, &account->taken);
        if (added == 0 && taken == 0)
            continue;
        json_t *item = contribution(sw, i);
        json_object_set_new(item, "added", integer(added));
        json_object_set_new(item, "taken", integer(taken));
        json_array_append_new(list, item);
        sum += added - taken;
    }
    json_object_set_new(to, "initial", integer(object->initial));
    json_object_set_new(to, "value", integer(sum));
}

static void put_parts(const struct sm_switch *sw, const struct shared_object *object, json_t *to, json_t *list)
{
    static struct share all, share; /* one switch a process reports at a time */
    uint32_t bytes = coherent_value_bytes(object);
    uint64_t refused = 0;
    bool any = false;

    for (unsigned i = 0; i < arena_rows(sw->arena); i++) {
        const struct coherent_part *part = coherent_place(sw->arena->rows[i], object);
        if (!coherent_copy(part, share.bytes, bytes))
            continue;
        json_t *item = contribution(sw, i);
        json_object_set_new(item, "value", value_of(object, &share));
        json_array_append_new(list, item);
        refused += cell_load(&part->refused);
        if (!any)
            all = share;
        else if (object->kind != SHARED_OWN)
            coherent_combine(object, all.bytes, share.bytes);
        any = true;
    }
    json_object_set_new(to, "value", any && object->kind != SHARED_OWN ? value_of(object, &all) : json_null());
    if (object->kind == SHARED_UNION)
        json_object_set_new(to, "refused", integer(refused));
}

json_t *report_shared(const struct sm_switch *sw)
{
    const struct registration *registered = &sw->arena->registration;
    json_t *list = json_array();

    for (unsigned i = 0; sw->arena->registered && i < registered->shared_count; i++) {
        const struct shared_object *object = &registered->shared[i];
        json_t *to = json_object(), *contributions = json_array();
        json_object_set_new(to, "name", json_string(object->name));
        json_object_set_new(to, "kind", json_string(coherent_kind_name(object->kind)));
        json_object_set_new(to, "bytes", integer(coherent_value_bytes(object)));
        if (object->kind == SHARED_STRONG)
            json_object_set_new(to, "value", report_hex(sw->arena->strong[i].data, object->value_bytes));
        else if (object->kind == SHARED_COUNTER)
            put_counter(sw, object, to, contributions);
        else if (object->kind == SHARED_STRONG_COUNTER)
            put_account(sw, object, to, contributions);
        else
            put_parts(sw, object, to, contributions);
        json_object_set_new(to, "contributions", contributions);
        json_array_append_new(list, to);
    }
    return list;
}
