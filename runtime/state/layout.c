/* SPDX-License-Identifier: BSD-2-Clause */
#include "state/layout.h"

#include <stdio.h>
#include <string.h>

bool layout_field_sound(uint8_t type, uint16_t size)
{
    switch ((enum sm_field_type)type) {
    case SM_FIELD_UINT:
    case SM_FIELD_INT:
    case SM_FIELD_TIME:
        return size == 1 || size == 2 || size == 4 || size == 8;
    case SM_FIELD_BOOL:
        return size == 1;
    case SM_FIELD_FLOAT:
        return size == sizeof(float) || size == sizeof(double);
    case SM_FIELD_ADDRESS:
        return size == 4 || size == 16;
    case SM_FIELD_MAC:
        return size == 6;
    case SM_FIELD_BYTES:
    case SM_FIELD_TEXT:
    case SM_FIELD_OPAQUE:
        return size > 0;
    }
    return false;
}

unsigned layout_gaps(const struct state_class *cls, struct layout_range gaps[SM_MAX_FIELDS + 1])
{
    unsigned count = 0;

    /* From each end of what is covered to the next field; fields may overlap and come in any order. */
    for (uint32_t at = 0; at < cls->record_size;) {
        uint32_t next = cls->record_size, end = at;
        for (unsigned i = 0; i < cls->field_count; i++) {
            uint32_t from = cls->fields[i].offset, to = from + cls->fields[i].size;
            if (from <= at && to > end)
                end = to;
            if (from > at && from < next)
                next = from;
        }
        if (end == at) {
            gaps[count++] = (struct layout_range){at, next - at};
            end = next;
        }
        at = end;
    }
    return count;
}

/* The first range that belongs to no field, though it is no padding. */
static bool undeclared(const struct state_class *cls, struct layout_range *range)
{
    struct layout_range gaps[SM_MAX_FIELDS + 1];
    unsigned count = layout_gaps(cls, gaps);

    for (unsigned i = 0; i < count; i++)
        if (gaps[i].length > LAYOUT_PADDING_MAX) {
            *range = gaps[i];
            return true;
        }
    return false;
}

enum class_copy layout_copy(const struct state_class *cls, bool callbacks)
{
    struct layout_range range;

    if (callbacks)
        return CLASS_BY_CALLBACKS;
    return cls->field_count == 0 || cls->alloc_limit > 0 || cls->code != 0 || undeclared(cls, &range) ? CLASS_NOT_COPIED
                                                                                                      : CLASS_BY_FIELDS;
}

void layout_why_not(const struct state_class *cls, struct sm_errbuf *error)
{
    struct layout_range range;

    if (cls->alloc_limit > 0)
        snprintf(
            error->text, sizeof error->text,
            "flow class '%s' cannot be copied: its flows hold memory by sm_alloc(), and it has no callbacks encode "
            "and decode",
            cls->name);
    else if (cls->code != 0)
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' cannot be copied: its flows hold addresses of code, and it has no callbacks encode "
                 "and decode",
                 cls->name);
    else if (cls->field_count == 0)
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' cannot be copied: it declares neither fields nor callbacks encode and decode",
                 cls->name);
    else if (undeclared(cls, &range))
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' cannot be copied: bytes %u to %u of its records belong to no field", cls->name,
                 range.offset, range.offset + range.length - 1);
}

bool layout_equal(const struct state_class *a, const struct state_class *b)
{
    if (a->record_size != b->record_size || a->field_count != b->field_count)
        return false;
    for (unsigned i = 0; i < a->field_count; i++)
        if (strcmp(a->fields[i].name, b->fields[i].name) != 0 || a->fields[i].type != b->fields[i].type ||
            a->fields[i].offset != b->fields[i].offset || a->fields[i].size != b->fields[i].size ||
            a->fields[i].scale != b->fields[i].scale)
            return false;
    return true;
}

const char *layout_other_code(const struct state_class *a, const struct state_class *b)
{
    if (a->code_build != b->code_build)
        return "it holds addresses of code, which is of another build here";
    return a->code != b->code ? "it holds addresses of code, which is at another place here: link it with -no-pie, or "
                                "start it by setarch -R"
                              : NULL;
}

static bool is_whole(uint8_t type)
{
    return type == SM_FIELD_UINT || type == SM_FIELD_INT || type == SM_FIELD_TIME || type == SM_FIELD_BOOL;
}

static int field_named(const struct state_class *cls, const char *name)
{
    for (unsigned i = 0; i < cls->field_count; i++)
        if (strcmp(cls->fields[i].name, name) == 0)
            return (int)i;
    return -1;
}

int layout_convertible(const struct state_class *from, const struct state_class *to, struct sm_errbuf *error)
{
    for (unsigned i = 0; i < to->field_count; i++) {
        int old = field_named(from, to->fields[i].name);
        if (old < 0)
            continue;
        bool same = from->fields[old].type == to->fields[i].type ||
                    (is_whole(from->fields[old].type) && is_whole(to->fields[i].type));
        if (!same || from->fields[old].scale != to->fields[i].scale) {
            snprintf(error->text, sizeof error->text,
                     "flow class '%s': field '%s' of version %u and of version %u differ in %s, and version %u has no "
                     "callback for it",
                     to->name, to->fields[i].name, from->version, to->version, same ? "scale" : "type", to->version);
            return SM_E_CONFLICT;
        }
    }
    return 0;
}

/* A whole number of any size: its two's complement in 64 bits, and whether that is below zero. */
static uint64_t whole_get(const uint8_t *from, uint8_t type, uint16_t size, bool *negative)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)from[i] << (8 * i);
    if (type == SM_FIELD_INT)
        value = (uint64_t)((int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size));
    *negative = type == SM_FIELD_INT && value >> 63;
    return value;
}

static bool whole_put(uint8_t *to, uint8_t type, uint16_t size, uint64_t value, bool negative)
{
    bool back;

    for (unsigned i = 0; i < size; i++)
        to[i] = (uint8_t)(value >> (8 * i));
    if (type == SM_FIELD_BOOL && value > 1)
        return false;
    return whole_get(to, type, size, &back) == value && back == negative;
}

static double float_get(const uint8_t *from, uint16_t size)
{
    float narrow;
    double wide;

    if (size == sizeof wide) {
        memcpy(&wide, from, sizeof wide);
        return wide;
    }
    memcpy(&narrow, from, sizeof narrow);
    return narrow;
}

static bool float_put(uint8_t *to, uint16_t size, double value)
{
    float narrow;

    if (size == sizeof value) {
        memcpy(to, &value, sizeof value);
        return true;
    }
    if (value != 0 && value - value == 0 && (value > 3.4028234663852886e38 || value < -3.4028234663852886e38))
        return false;
    narrow = (float)value;
    memcpy(to, &narrow, sizeof narrow);
    return narrow == value || value != value;
}

/* Bytes of any kind: what there is more of is zero, what there is no room for has to be. */
static bool bytes_put(uint8_t *to, uint16_t to_size, const uint8_t *from, uint16_t from_size)
{
    for (unsigned i = to_size; i < from_size; i++)
        if (from[i] != 0)
            return false;
    memcpy(to, from, to_size < from_size ? to_size : from_size);
    return true;
}

int layout_convert(const struct state_class *from, const uint8_t *old, const struct state_class *to, uint8_t *new,
                   const char **field)
{
    for (unsigned i = 0; i < to->field_count; i++) {
        int at = field_named(from, to->fields[i].name);
        if (at < 0)
            continue;
        const uint8_t *bytes = old + from->fields[at].offset;
        uint8_t *place = new + to->fields[i].offset;
        uint16_t size = from->fields[at].size, room = to->fields[i].size;
        uint8_t type = to->fields[i].type;
        bool fits, negative;
        if (is_whole(type)) {
            uint64_t value = whole_get(bytes, from->fields[at].type, size, &negative);
            fits = whole_put(place, type, room, value, negative);
        } else if (type == SM_FIELD_FLOAT) {
            fits = float_put(place, room, float_get(bytes, size));
        } else {
            fits = bytes_put(place, room, bytes, size);
        }
        if (!fits) {
            *field = to->fields[i].name;
            return SM_E_LIMIT;
        }
    }
    return 0;
}
