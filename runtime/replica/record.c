/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The reader and the writer that callbacks are given (splitmerge/record.h): MessagePack, by its specification of 2013.
 *
 * A value is checked as a whole before anybody looks into it (record_value()), so that all else may trust lengths and
 * nesting. Maps and lists are written with a header of 32 bits, as their count is known only at their end.
 */

#include <assert.h>

#include "replica/record.h"

/* ---- writing ---- */

static uint8_t *room(struct sm_writer *writer, size_t bytes)
{
    struct codec_buffer *out = writer->out;

    if (writer->full || out->size - out->used < bytes) {
        writer->full = true;
        return NULL;
    }
    out->used += bytes;
    return out->bytes + out->used - bytes;
}

static void put(struct sm_writer *writer, uint8_t head, uint64_t value, unsigned bytes)
{
    uint8_t *to = room(writer, bytes + 1);

    if (!to)
        return;
    *to = head;
    for (unsigned i = 0; i < bytes; i++)
        to[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static void put_data(struct sm_writer *writer, const void *data, size_t length)
{
    uint8_t *to = room(writer, length);

    if (to && length > 0)
        memcpy(to, data, length);
}

static void put_text(struct sm_writer *writer, const char *text)
{
    size_t length = strlen(text);

    if (length > UINT32_MAX) {
        writer->full = true;
        return;
    }
    if (length < 32)
        put(writer, (uint8_t)(0xa0 | length), 0, 0);
    else if (length < 256)
        put(writer, 0xd9, length, 1);
    else if (length < 65536)
        put(writer, 0xda, length, 2);
    else
        put(writer, 0xdb, length, 4);
    put_data(writer, text, length);
}

/* A value begins: it is counted, and its name comes first. */
static bool begin(struct sm_writer *writer, const char *name)
{
    if (writer->depth == 0 || (name != NULL) != writer->open[writer->depth - 1].map) {
        writer->wrong = true;
        return false;
    }
    writer->open[writer->depth - 1].count++;
    if (name)
        put_text(writer, name);
    return true;
}

static void open_level(struct sm_writer *writer, bool map)
{
    if (writer->depth == SM_RECORD_DEPTH) {
        writer->wrong = true;
        return;
    }
    writer->open[writer->depth].header = writer->out->used;
    writer->open[writer->depth].count = 0;
    writer->open[writer->depth].map = map;
    writer->depth++;
    put(writer, map ? 0xdf : 0xdd, 0, 4);
}

static void close_level(struct sm_writer *writer)
{
    unsigned level = --writer->depth;
    uint8_t *to = writer->out->bytes + writer->open[level].header + 1;

    for (unsigned i = 0; !writer->full && i < 4; i++)
        to[i] = (uint8_t)(writer->open[level].count >> (24 - 8 * i));
}

void record_begin(struct sm_writer *writer, struct codec_buffer *out)
{
    writer->out = out;
    writer->depth = 0;
    writer->full = writer->wrong = false;
    open_level(writer, true);
}

int record_end(struct sm_writer *writer)
{
    if (writer->wrong || writer->depth != 1)
        return SM_E_INVALID;
    close_level(writer);
    return writer->full ? SM_E_LIMIT : 0;
}

void sm_write_uint(struct sm_writer *writer, const char *name, uint64_t value)
{
    if (!begin(writer, name))
        return;
    if (value < 128)
        put(writer, (uint8_t)value, 0, 0);
    else if (value <= UINT8_MAX)
        put(writer, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        put(writer, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put(writer, 0xce, value, 4);
    else
        put(writer, 0xcf, value, 8);
}

void sm_write_int(struct sm_writer *writer, const char *name, int64_t value)
{
    if (value >= 0) {
        sm_write_uint(writer, name, (uint64_t)value);
        return;
    }
    if (!begin(writer, name))
        return;
    if (value >= -32)
        put(writer, (uint8_t)value, 0, 0);
    else if (value >= INT8_MIN)
        put(writer, 0xd0, (uint64_t)value, 1);
    else if (value >= INT16_MIN)
        put(writer, 0xd1, (uint64_t)value, 2);
    else if (value >= INT32_MIN)
        put(writer, 0xd2, (uint64_t)value, 4);
    else
        put(writer, 0xd3, (uint64_t)value, 8);
}

void sm_write_double(struct sm_writer *writer, const char *name, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    if (begin(writer, name))
        put(writer, 0xcb, bits, 8);
}

void sm_write_bool(struct sm_writer *writer, const char *name, bool value)
{
    if (begin(writer, name))
        put(writer, value ? 0xc3 : 0xc2, 0, 0);
}

void sm_write_text(struct sm_writer *writer, const char *name, const char *text)
{
    if (begin(writer, name))
        put_text(writer, text);
}

void sm_write_bytes(struct sm_writer *writer, const char *name, const void *bytes, size_t length)
{
    uint8_t head[5];

    if (length > UINT32_MAX)
        writer->full = true;
    if (!begin(writer, name) || writer->full)
        return;
    put_data(writer, head, record_put_bin(head, (uint32_t)length));
    put_data(writer, bytes, length);
}

void sm_write_list(struct sm_writer *writer, const char *name)
{
    if (begin(writer, name))
        open_level(writer, false);
}

void sm_write_map(struct sm_writer *writer, const char *name)
{
    if (begin(writer, name))
        open_level(writer, true);
}

void sm_write_end(struct sm_writer *writer)
{
    if (writer->depth <= 1)
        writer->wrong = true;
    else
        close_level(writer);
}

/* ---- reading ---- */

/* As enum record_type, with one type for bytes and text. */
enum pack_type { PACK_WRONG, PACK_UINT, PACK_INT, PACK_FLOAT, PACK_BOOL, PACK_NIL, PACK_DATA, PACK_LIST, PACK_MAP };

/* A value's head: what it is, its number or length or count, and where what follows it begins. */
struct pack {
    enum pack_type type;
    bool text;
    uint64_t number;
    const uint8_t *body;
};

/* The heads 0xc0 to 0xdf: their type, and the bytes of their number. */
static const struct {
    uint8_t type, bytes, text;
} heads[32] = {
    {PACK_NIL, 0, 0},   {PACK_WRONG, 0, 0}, {PACK_BOOL, 0, 0},  {PACK_BOOL, 0, 0},  {PACK_DATA, 1, 0},
    {PACK_DATA, 2, 0},  {PACK_DATA, 4, 0},  {PACK_WRONG, 0, 0}, {PACK_WRONG, 0, 0}, {PACK_WRONG, 0, 0},
    {PACK_FLOAT, 4, 0}, {PACK_FLOAT, 8, 0}, {PACK_UINT, 1, 0},  {PACK_UINT, 2, 0},  {PACK_UINT, 4, 0},
    {PACK_UINT, 8, 0},  {PACK_INT, 1, 0},   {PACK_INT, 2, 0},   {PACK_INT, 4, 0},   {PACK_INT, 8, 0},
    {PACK_WRONG, 0, 0}, {PACK_WRONG, 0, 0}, {PACK_WRONG, 0, 0}, {PACK_WRONG, 0, 0}, {PACK_WRONG, 0, 0},
    {PACK_DATA, 1, 1},  {PACK_DATA, 2, 1},  {PACK_DATA, 4, 1},  {PACK_LIST, 2, 0},  {PACK_LIST, 4, 0},
    {PACK_MAP, 2, 0},   {PACK_MAP, 4, 0},
};

static struct pack head_of(const uint8_t *at, const uint8_t *end)
{
    struct pack pack = {.type = PACK_WRONG};

    if (at >= end)
        return pack;
    uint8_t head = *at;
    pack.body = at + 1;
    if (head < 0x80 || head >= 0xe0) {
        pack.type = head < 0x80 ? PACK_UINT : PACK_INT;
        pack.number = (uint64_t)(int64_t)(int8_t)head;
    } else if (head < 0xc0) {
        pack.type = head < 0x90 ? PACK_MAP : head < 0xa0 ? PACK_LIST : PACK_DATA;
        pack.text = head >= 0xa0;
        pack.number = head & (head < 0xa0 ? 15 : 31);
    } else {
        unsigned bytes = heads[head - 0xc0].bytes;
        if (bytes > (size_t)(end - pack.body))
            return pack;
        pack.type = (enum pack_type)heads[head - 0xc0].type;
        pack.text = heads[head - 0xc0].text;
        pack.number = pack.type == PACK_BOOL ? head == 0xc3 : record_big(pack.body, bytes);
        if (pack.type == PACK_INT)
            pack.number = (uint64_t)((int64_t)(pack.number << (64 - 8 * bytes)) >> (64 - 8 * bytes));
        if (pack.type == PACK_FLOAT && bytes == 4) {
            uint32_t bits = (uint32_t)pack.number;
            float narrow;
            double wide;
            memcpy(&narrow, &bits, sizeof narrow);
            wide = narrow;
            memcpy(&pack.number, &wide, sizeof wide);
        }
        pack.body += bytes;
    }
    return pack;
}

/* Where the value ends; NULL: damaged. Each level of nesting takes a byte at least, so the depth bounds the work. */
static const uint8_t *check(const uint8_t *at, const uint8_t *end, unsigned depth)
{
    struct pack pack = head_of(at, end);

    switch (pack.type) {
    case PACK_WRONG:
        return NULL;
    case PACK_DATA:
        return pack.number <= (uint64_t)(end - pack.body) ? pack.body + pack.number : NULL;
    case PACK_LIST:
    case PACK_MAP:
        if (depth == 0)
            return NULL;
        at = pack.body;
        for (uint64_t i = 0; at && i < pack.number * (pack.type == PACK_MAP ? 2 : 1); i++)
            at = check(at, end, depth - 1);
        return at;
    default:
        return pack.body;
    }
}

sm_value record_value(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *stop = check(at, end, SM_RECORD_DEPTH);

    return stop ? (sm_value){at, stop} : (sm_value){NULL, NULL};
}

bool record_is_map(sm_value value)
{
    return head_of(value.at, value.end).type == PACK_MAP;
}

bool record_is_text(sm_value value, const char *text)
{
    struct pack pack = head_of(value.at, value.end);

    return pack.type == PACK_DATA && pack.text && pack.number == strlen(text) &&
           memcmp(pack.body, text, pack.number) == 0;
}

sm_value sm_value_get(sm_value map, const char *name)
{
    if (!record_is_map(map))
        return (sm_value){NULL, NULL};
    const uint8_t *at = head_of(map.at, map.end).body;
    while (at < map.end) {
        sm_value key = {at, check(at, map.end, SM_RECORD_DEPTH)};
        sm_value value = {key.end, check(key.end, map.end, SM_RECORD_DEPTH)};
        if (record_is_text(key, name))
            return value;
        at = value.end;
    }
    return (sm_value){NULL, NULL};
}

uint64_t sm_value_uint(sm_value value, uint64_t otherwise)
{
    struct pack pack = head_of(value.at, value.end);

    return pack.type == PACK_UINT || (pack.type == PACK_INT && pack.number <= INT64_MAX) ? pack.number : otherwise;
}

int64_t sm_value_int(sm_value value, int64_t otherwise)
{
    struct pack pack = head_of(value.at, value.end);

    return pack.type == PACK_INT || (pack.type == PACK_UINT && pack.number <= INT64_MAX) ? (int64_t)pack.number
                                                                                         : otherwise;
}

double sm_value_double(sm_value value, double otherwise)
{
    struct pack pack = head_of(value.at, value.end);
    double number;

    if (pack.type == PACK_UINT)
        return (double)pack.number;
    if (pack.type == PACK_INT)
        return (double)(int64_t)pack.number;
    memcpy(&number, &pack.number, sizeof number);
    return pack.type == PACK_FLOAT ? number : otherwise;
}

bool sm_value_bool(sm_value value, bool otherwise)
{
    struct pack pack = head_of(value.at, value.end);

    return pack.type == PACK_BOOL ? pack.number : otherwise;
}

const void *sm_value_bytes(sm_value value, size_t *length)
{
    struct pack pack = head_of(value.at, value.end);

    *length = pack.type == PACK_DATA ? pack.number : 0;
    return pack.type == PACK_DATA ? pack.body : NULL;
}

enum record_type record_type(sm_value value)
{
    static const enum record_type types[] = {
        [PACK_WRONG] = RECORD_WRONG, [PACK_UINT] = RECORD_UINT, [PACK_INT] = RECORD_INT,
        [PACK_FLOAT] = RECORD_FLOAT, [PACK_BOOL] = RECORD_BOOL, [PACK_NIL] = RECORD_NIL,
        [PACK_DATA] = RECORD_BYTES,  [PACK_LIST] = RECORD_LIST, [PACK_MAP] = RECORD_MAP,
    };
    struct pack pack = head_of(value.at, value.end);

    return pack.type == PACK_DATA && pack.text ? RECORD_TEXT : types[pack.type];
}

bool sm_value_next(sm_value list, sm_value *item)
{
    return record_next(list, item, NULL);
}

bool record_next(sm_value list, sm_value *item, sm_value *name)
{
    struct pack pack = head_of(list.at, list.end);

    if (pack.type != PACK_LIST && pack.type != PACK_MAP)
        return false;
    const uint8_t *at = item->at ? item->end : pack.body;
    if (at < list.end && pack.type == PACK_MAP) {
        const uint8_t *end = check(at, list.end, SM_RECORD_DEPTH);
        if (name)
            *name = (sm_value){at, end};
        at = end;
    }
    if (at >= list.end)
        return false;
    *item = (sm_value){at, check(at, list.end, SM_RECORD_DEPTH)};
    return true;
}
