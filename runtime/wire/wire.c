/* SPDX-License-Identifier: BSD-2-Clause */
#include "wire/wire.h"

#include <assert.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* ---- building ---- */

/*
 * Sizes of maps and arrays come before their entries on the wire, and nobody should have to count ahead: the header
 * is written with room for 32 bits and filled in when the container is closed.
 */
struct container {
    size_t at; /* of the count */
    uint32_t count;
    bool is_map;
};

struct wire_out {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    struct container open[WIRE_MAX_DEPTH];
    unsigned depth;
    bool failed;
};

static void open_container(struct wire_out *out, bool is_map)
{
    assert(out->depth < WIRE_MAX_DEPTH);
    const char header[5] = {(char)(is_map ? 0xdf : 0xdd), 0, 0, 0, 0};
    out->failed |= msgpack_sbuffer_write(&out->buffer, header, sizeof(header)) != 0;
    out->open[out->depth++] = (struct container){out->buffer.size - 4, 0, is_map};
}

static void close_container(struct wire_out *out)
{
    const struct container *c = &out->open[--out->depth];
    if (out->failed)
        return;
    for (unsigned i = 0; i < 4; i++)
        out->buffer.data[c->at + i] = (char)(c->count >> (24 - 8 * i));
}

struct wire_out *wire_new(void)
{
    struct wire_out *out = calloc(1, sizeof(*out));
    if (!out)
        return NULL;
    msgpack_packer_init(&out->packer, &out->buffer, msgpack_sbuffer_write);
    open_container(out, true);
    return out;
}

void wire_free(struct wire_out *out)
{
    if (!out)
        return;
    msgpack_sbuffer_destroy(&out->buffer);
    free(out);
}

static void pack_text(struct wire_out *out, const char *text)
{
    out->failed |= msgpack_pack_str_with_body(&out->packer, text, strlen(text)) != 0;
}

/* Count an entry and write its key. False: nothing can be put. */
static bool entry(struct wire_out *out, const char *key)
{
    if (!out || out->failed)
        return false;
    assert(out->depth > 0 && out->open[out->depth - 1].is_map == (key != NULL));
    out->open[out->depth - 1].count++;
    if (key)
        pack_text(out, key);
    return true;
}

void wire_map_begin(struct wire_out *out, const char *key)
{
    if (entry(out, key))
        open_container(out, true);
}

void wire_map_end(struct wire_out *out)
{
    if (!out || out->failed)
        return;
    assert(out->depth > 1 && out->open[out->depth - 1].is_map);
    close_container(out);
}

void wire_array_begin(struct wire_out *out, const char *key)
{
    if (entry(out, key))
        open_container(out, false);
}

void wire_array_end(struct wire_out *out)
{
    if (!out || out->failed)
        return;
    assert(out->depth > 1 && !out->open[out->depth - 1].is_map);
    close_container(out);
}

void wire_put_uint(struct wire_out *out, const char *key, uint64_t value)
{
    if (entry(out, key))
        out->failed |= msgpack_pack_uint64(&out->packer, value) != 0;
}

void wire_put_int(struct wire_out *out, const char *key, int64_t value)
{
    if (entry(out, key))
        out->failed |= msgpack_pack_int64(&out->packer, value) != 0;
}

void wire_put_double(struct wire_out *out, const char *key, double value)
{
    if (entry(out, key))
        out->failed |= msgpack_pack_double(&out->packer, value) != 0;
}

void wire_put_bool(struct wire_out *out, const char *key, bool value)
{
    if (entry(out, key))
        out->failed |= (value ? msgpack_pack_true(&out->packer) : msgpack_pack_false(&out->packer)) != 0;
}

void wire_put_nil(struct wire_out *out, const char *key)
{
    if (entry(out, key))
        out->failed |= msgpack_pack_nil(&out->packer) != 0;
}

void wire_put_str(struct wire_out *out, const char *key, const char *text)
{
    if (!text)
        wire_put_nil(out, key);
    else if (entry(out, key))
        pack_text(out, text);
}

void wire_put_bin(struct wire_out *out, const char *key, const void *data, size_t length)
{
    if (entry(out, key))
        out->failed |= msgpack_pack_bin_with_body(&out->packer, data, length) != 0;
}

static const msgpack_object *object(const struct wire_value *value)
{
    return (const msgpack_object *)value;
}

static const struct wire_value *value_of(const msgpack_object *o)
{
    return (const struct wire_value *)o;
}

void wire_put_value(struct wire_out *out, const char *key, const struct wire_value *value)
{
    if (!value)
        wire_put_nil(out, key);
    else if (entry(out, key))
        out->failed |= msgpack_pack_object(&out->packer, *object(value)) != 0;
}

void wire_put_json(struct wire_out *out, const char *key, const struct json_t *json)
{
    const char *name;
    json_t *member;
    bool room = out && out->depth < WIRE_MAX_DEPTH;
    if (json_is_object(json) && room) {
        wire_map_begin(out, key);
        json_object_foreach((json_t *)(uintptr_t)json, name, member) wire_put_json(out, name, member);
        wire_map_end(out);
    } else if (json_is_array(json) && room) {
        wire_array_begin(out, key);
        for (size_t i = 0; i < json_array_size(json); i++)
            wire_put_json(out, NULL, json_array_get(json, i));
        wire_array_end(out);
    } else if (json_is_string(json)) {
        wire_put_str(out, key, json_string_value(json));
    } else if (json_is_integer(json)) {
        wire_put_int(out, key, json_integer_value(json));
    } else if (json_is_real(json)) {
        wire_put_double(out, key, json_real_value(json));
    } else if (json_is_boolean(json)) {
        wire_put_bool(out, key, json_is_true(json));
    } else {
        wire_put_nil(out, key);
    }
}

const uint8_t *wire_bytes(struct wire_out *out, size_t *length)
{
    if (!out)
        return NULL;
    while (out->depth > 0)
        close_container(out);
    *length = out->buffer.size;
    return out->failed || out->buffer.size > WIRE_MAX_MESSAGE ? NULL : (const uint8_t *)out->buffer.data;
}

/* ---- reading ---- */

enum wire_type wire_type(const struct wire_value *value)
{
    if (!value)
        return WIRE_ABSENT;
    switch (object(value)->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        return WIRE_BOOL;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return WIRE_INT;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        return WIRE_DOUBLE;
    case MSGPACK_OBJECT_STR:
        return WIRE_STR;
    case MSGPACK_OBJECT_BIN:
        return WIRE_BIN;
    case MSGPACK_OBJECT_ARRAY:
        return WIRE_ARRAY;
    case MSGPACK_OBJECT_MAP:
        return WIRE_MAP;
    case MSGPACK_OBJECT_NIL:
    case MSGPACK_OBJECT_EXT: /* the reader refuses these */
        break;
    }
    return WIRE_NIL;
}

uint64_t wire_uint(const struct wire_value *value, uint64_t otherwise)
{
    return value && object(value)->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? object(value)->via.u64 : otherwise;
}

int64_t wire_int(const struct wire_value *value, int64_t otherwise)
{
    if (value && object(value)->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        return object(value)->via.i64;
    if (value && object(value)->type == MSGPACK_OBJECT_POSITIVE_INTEGER && object(value)->via.u64 <= INT64_MAX)
        return (int64_t)object(value)->via.u64;
    return otherwise;
}

double wire_double(const struct wire_value *value, double otherwise)
{
    if (wire_type(value) == WIRE_DOUBLE)
        return object(value)->via.f64;
    if (wire_type(value) != WIRE_INT)
        return otherwise;
    return object(value)->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? (double)object(value)->via.u64
                                                                  : (double)object(value)->via.i64;
}

bool wire_bool(const struct wire_value *value, bool otherwise)
{
    return wire_type(value) == WIRE_BOOL ? object(value)->via.boolean : otherwise;
}

const char *wire_str(const struct wire_value *value, const char *otherwise)
{
    return wire_type(value) == WIRE_STR ? object(value)->via.str.ptr : otherwise;
}

const uint8_t *wire_bin(const struct wire_value *value, size_t *length)
{
    bool is_bin = wire_type(value) == WIRE_BIN;
    *length = is_bin ? object(value)->via.bin.size : 0;
    return is_bin ? (const uint8_t *)object(value)->via.bin.ptr : NULL;
}

unsigned wire_count(const struct wire_value *value)
{
    switch (wire_type(value)) {
    case WIRE_ARRAY:
        return object(value)->via.array.size;
    case WIRE_MAP:
        return object(value)->via.map.size;
    default:
        return 0;
    }
}

const struct wire_value *wire_item(const struct wire_value *array, unsigned i)
{
    if (wire_type(array) != WIRE_ARRAY || i >= wire_count(array))
        return NULL;
    return value_of(&object(array)->via.array.ptr[i]);
}

const struct wire_value *wire_pair(const struct wire_value *map, unsigned i, const char **key)
{
    *key = "";
    if (wire_type(map) != WIRE_MAP || i >= wire_count(map))
        return NULL;
    const msgpack_object_kv *pair = &object(map)->via.map.ptr[i];
    *key = wire_str(value_of(&pair->key), "");
    return value_of(&pair->val);
}

const struct wire_value *wire_get(const struct wire_value *map, const char *key)
{
    unsigned count = wire_type(map) == WIRE_MAP ? wire_count(map) : 0;
    for (unsigned i = 0; i < count; i++) {
        const char *name;
        const struct wire_value *value = wire_pair(map, i, &name);
        if (strcmp(name, key) == 0)
            return value;
    }
    return NULL;
}

const struct wire_value *wire_get_map(const struct wire_value *map, const char *key)
{
    const struct wire_value *value = wire_get(map, key);
    return wire_type(value) == WIRE_MAP ? value : NULL;
}

const struct wire_value *wire_get_array(const struct wire_value *map, const char *key)
{
    const struct wire_value *value = wire_get(map, key);
    return wire_type(value) == WIRE_ARRAY ? value : NULL;
}

static json_t *hexadecimal(const struct wire_value *value)
{
    size_t length;
    const uint8_t *data = wire_bin(value, &length);
    char *text = malloc(2 * length + 1);
    if (!text)
        return NULL;
    for (size_t i = 0; i < length; i++) {
        text[2 * i] = "0123456789abcdef"[data[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[data[i] & 15];
    }
    json_t *json = json_stringn(text, 2 * length);
    free(text);
    return json;
}

struct json_t *wire_to_json(const struct wire_value *value)
{
    json_t *json;
    const char *key;
    switch (wire_type(value)) {
    case WIRE_BOOL:
        return json_boolean(wire_bool(value, false));
    case WIRE_INT:
        /* JSON's integers end at 2^63 - 1 here; counters do not get there. */
        return json_integer(wire_int(value, INT64_MAX));
    case WIRE_DOUBLE:
        return json_real(wire_double(value, 0));
    case WIRE_STR:
        json = json_string(wire_str(value, ""));
        return json ? json : json_string("(not UTF-8)");
    case WIRE_BIN:
        return hexadecimal(value);
    case WIRE_ARRAY:
        json = json_array();
        for (unsigned i = 0; i < wire_count(value); i++)
            json_array_append_new(json, wire_to_json(wire_item(value, i)));
        return json;
    case WIRE_MAP:
        json = json_object();
        for (unsigned i = 0; i < wire_count(value); i++) {
            struct json_t *member = wire_to_json(wire_pair(value, i, &key));
            json_object_set_new(json, key, member);
        }
        return json;
    case WIRE_NIL:
    case WIRE_ABSENT:
        break;
    }
    return json_null();
}

/* ---- messages in a stream ---- */

struct wire_reader {
    uint8_t *data;
    size_t length, capacity;

    /* How far the message at data[0] has been checked. It is complete when nothing is left at any level. */
    size_t at;
    uint32_t items;
    unsigned depth;                    /* containers open */
    uint64_t left[WIRE_MAX_DEPTH + 1]; /* values missing in each */
};

struct wire_message {
    msgpack_unpacked unpacked;
    uint8_t data[]; /* the message, and one byte for the last text's end */
};

struct wire_reader *wire_reader_new(void)
{
    return calloc(1, sizeof(struct wire_reader));
}

void wire_reader_free(struct wire_reader *reader)
{
    if (reader)
        free(reader->data);
    free(reader);
}

void *wire_reader_space(struct wire_reader *reader, size_t *size)
{
    if (reader->capacity - reader->length < 4096) {
        size_t capacity = reader->capacity ? 2 * reader->capacity : 16384;
        uint8_t *data = realloc(reader->data, capacity);
        if (!data)
            return NULL;
        reader->data = data;
        reader->capacity = capacity;
    }
    *size = reader->capacity - reader->length;
    return reader->data + reader->length;
}

void wire_reader_filled(struct wire_reader *reader, size_t length)
{
    assert(length <= reader->capacity - reader->length);
    reader->length += length;
}

/* What one value's first bytes say. */
struct token {
    unsigned head;     /* bytes before the payload */
    uint64_t payload;  /* bytes of it */
    uint64_t children; /* values inside */
    bool container;
};

static uint64_t big_endian(const uint8_t *p, unsigned bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | *p++;
    return value;
}

/* 1: *token is filled; 0: more bytes are needed; SM_E_PROTOCOL: a type the protocol does not have. */
static int read_token(const uint8_t *p, size_t length, struct token *token)
{
    static const uint8_t fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8}; /* 0xca .. 0xd3: floats, unsigned, signed */
    uint8_t first = *p;
    unsigned size_bytes = 0;
    *token = (struct token){.head = 1};
    if (first <= 0x7f || first >= 0xe0 || first == 0xc0 || first == 0xc2 || first == 0xc3)
        return 1;
    if (first <= 0x9f) {
        token->container = true;
        token->children = (first & 15u) * (first <= 0x8f ? 2 : 1);
        return 1;
    }
    if (first <= 0xbf) {
        token->payload = first & 31u;
        return 1;
    }
    if (first >= 0xca && first <= 0xd3) {
        token->payload = fixed[first - 0xca];
        return 1;
    }
    if (first >= 0xc4 && first <= 0xc6)
        size_bytes = 1u << (first - 0xc4);
    else if (first >= 0xd9 && first <= 0xdb)
        size_bytes = 1u << (first - 0xd9);
    else if (first >= 0xdc)
        size_bytes = first % 2 == 0 ? 2 : 4; /* 0xdc array 16, 0xdd array 32, 0xde map 16, 0xdf map 32 */
    else
        return SM_E_PROTOCOL;
    if (length < 1 + size_bytes)
        return 0;
    uint64_t size = big_endian(p + 1, size_bytes);
    token->head = 1 + size_bytes;
    token->container = first >= 0xdc;
    token->children = token->container ? size * (first >= 0xde ? 2 : 1) : 0;
    token->payload = token->container ? 0 : size;
    return 1;
}

/* Go on checking the message at data[0]. 1: it is complete and ends at `at`; else as wire_reader_next(). */
static int check(struct wire_reader *r)
{
    while (r->at < r->length) {
        struct token token;
        int result = read_token(r->data + r->at, r->length - r->at, &token);
        if (result <= 0)
            return result;
        if (token.children > WIRE_MAX_ITEMS || token.payload > WIRE_MAX_MESSAGE ||
            r->at + token.head + token.payload > WIRE_MAX_MESSAGE || ++r->items > WIRE_MAX_ITEMS)
            return SM_E_LIMIT;
        if (r->at + token.head + token.payload > r->length) {
            r->items--; /* looked at again when more is there */
            return 0;
        }
        r->at += token.head + token.payload;
        if (r->depth > 0)
            r->left[r->depth]--;
        if (token.children > 0) {
            if (r->depth == WIRE_MAX_DEPTH)
                return SM_E_LIMIT;
            r->left[++r->depth] = token.children;
        }
        while (r->depth > 0 && r->left[r->depth] == 0)
            r->depth--;
        if (r->depth == 0)
            return 1;
    }
    return 0;
}

/*
 * End the texts with a zero, over the first byte of what follows: that has been unpacked, so its head is not needed
 * any more. An empty text comes without a place. By recursion, no deeper than WIRE_MAX_DEPTH.
 */
static void end_texts(msgpack_object *o)
{
    if (o->type == MSGPACK_OBJECT_STR && o->via.str.size == 0)
        o->via.str.ptr = "";
    else if (o->type == MSGPACK_OBJECT_STR)
        ((char *)(uintptr_t)o->via.str.ptr)[o->via.str.size] = '\0';
    else if (o->type == MSGPACK_OBJECT_ARRAY)
        for (uint32_t i = 0; i < o->via.array.size; i++)
            end_texts(&o->via.array.ptr[i]);
    else if (o->type == MSGPACK_OBJECT_MAP)
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            end_texts(&o->via.map.ptr[i].key);
            end_texts(&o->via.map.ptr[i].val);
        }
}

int wire_reader_next(struct wire_reader *r, struct wire_message **message)
{
    int result = check(r);
    if (result <= 0)
        return result;
    struct wire_message *m = malloc(sizeof(*m) + r->at + 1);
    if (!m)
        return SM_E_NO_MEMORY;
    memcpy(m->data, r->data, r->at);
    msgpack_unpacked_init(&m->unpacked);
    size_t offset = 0;
    if (msgpack_unpack_next(&m->unpacked, (const char *)m->data, r->at, &offset) != MSGPACK_UNPACK_SUCCESS) {
        wire_message_free(m);
        return SM_E_NO_MEMORY; /* its form has been checked */
    }
    end_texts(&m->unpacked.data);
    r->length -= r->at;
    memmove(r->data, r->data + r->at, r->length);
    r->at = 0;
    r->items = 0;
    *message = m;
    return 1;
}

const struct wire_value *wire_message_value(const struct wire_message *message)
{
    return value_of(&message->unpacked.data);
}

void wire_message_free(struct wire_message *message)
{
    if (message)
        msgpack_unpacked_destroy(&message->unpacked);
    free(message);
}
