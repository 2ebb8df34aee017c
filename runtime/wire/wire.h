/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_WIRE_WIRE_H
#define SM_WIRE_WIRE_H

/*
 * Values of the control protocol: building them, reading them, and cutting a stream of bytes into messages.
 * Nothing here does I/O; each object belongs to one thread.
 */

#include <splitmerge/types.h>

struct json_t;

#define WIRE_MAX_MESSAGE (16u << 20) /* bytes of one message */
#define WIRE_MAX_ITEMS (1u << 20)    /* values in one message */
#define WIRE_MAX_DEPTH 16            /* nesting of one message */

/* ---- building ---- */

/*
 * A map under construction: wire_new() opens it, whoever sends it closes it. `key` is the key in a map, and NULL in an
 * array. Every call takes a NULL `out` and does nothing then, and remembers having run out of memory: whoever sends it
 * finds out, so nobody else needs to check.
 */
struct wire_out;
struct wire_out *wire_new(void);
void wire_free(struct wire_out *out); /* only when it was not given to somebody who sends it */

void wire_map_begin(struct wire_out *out, const char *key);
void wire_map_end(struct wire_out *out);
void wire_array_begin(struct wire_out *out, const char *key);
void wire_array_end(struct wire_out *out);
void wire_put_uint(struct wire_out *out, const char *key, uint64_t value);
void wire_put_int(struct wire_out *out, const char *key, int64_t value);
void wire_put_double(struct wire_out *out, const char *key, double value);
void wire_put_bool(struct wire_out *out, const char *key, bool value);
void wire_put_nil(struct wire_out *out, const char *key);
void wire_put_str(struct wire_out *out, const char *key, const char *text); /* NULL: nil */
void wire_put_bin(struct wire_out *out, const char *key, const void *data, size_t length);

/* Copy a value that was read. Absent: nil. */
struct wire_value;
void wire_put_value(struct wire_out *out, const char *key, const struct wire_value *value);

/* A value that exists as JSON (never bytes). Absent, or nested deeper than a message may be: nil. */
void wire_put_json(struct wire_out *out, const char *key, const struct json_t *json);

/* Close all that is open. The bytes belong to `out`. NULL: it ran out of memory, or is larger than a message may be. */
const uint8_t *wire_bytes(struct wire_out *out, size_t *length);

/* ---- reading ---- */

/*
 * A value belongs to the message it is in. NULL is an absent value; a getter gives `otherwise` for a value that is
 * absent, nil, or of another type, so that reading needs no checks beyond those that mean something. Integers are
 * given when they fit the type asked for. Texts end with a zero.
 */
enum wire_type { WIRE_ABSENT, WIRE_NIL, WIRE_BOOL, WIRE_INT, WIRE_DOUBLE, WIRE_STR, WIRE_BIN, WIRE_ARRAY, WIRE_MAP };
enum wire_type wire_type(const struct wire_value *value);

uint64_t wire_uint(const struct wire_value *value, uint64_t otherwise);
int64_t wire_int(const struct wire_value *value, int64_t otherwise);
double wire_double(const struct wire_value *value, double otherwise); /* integers too */
bool wire_bool(const struct wire_value *value, bool otherwise);
const char *wire_str(const struct wire_value *value, const char *otherwise);
const uint8_t *wire_bin(const struct wire_value *value, size_t *length); /* NULL, 0: none */

/* Entries of an array or map; 0 for all else. */
unsigned wire_count(const struct wire_value *value);
const struct wire_value *wire_item(const struct wire_value *array, unsigned i);
/* *key is "" where the key is no text. */
const struct wire_value *wire_pair(const struct wire_value *map, unsigned i, const char **key);

/* The value of a key of a map; NULL where there is none, or `map` is none. */
const struct wire_value *wire_get(const struct wire_value *map, const char *key);

/* The same, of one type only. */
const struct wire_value *wire_get_map(const struct wire_value *map, const char *key);
const struct wire_value *wire_get_array(const struct wire_value *map, const char *key);

static inline uint64_t wire_get_uint(const struct wire_value *map, const char *key, uint64_t otherwise)
{
    return wire_uint(wire_get(map, key), otherwise);
}

static inline int64_t wire_get_int(const struct wire_value *map, const char *key, int64_t otherwise)
{
    return wire_int(wire_get(map, key), otherwise);
}

static inline double wire_get_double(const struct wire_value *map, const char *key, double otherwise)
{
    return wire_double(wire_get(map, key), otherwise);
}

static inline bool wire_get_bool(const struct wire_value *map, const char *key, bool otherwise)
{
    return wire_bool(wire_get(map, key), otherwise);
}

static inline const char *wire_get_str(const struct wire_value *map, const char *key, const char *otherwise)
{
    return wire_str(wire_get(map, key), otherwise);
}

static inline const uint8_t *wire_get_bin(const struct wire_value *map, const char *key, size_t *length)
{
    return wire_bin(wire_get(map, key), length);
}

/* As JSON, for people and reports; bytes as hexadecimal text. The caller's (json_decref). NULL: out of memory. */
struct json_t *wire_to_json(const struct wire_value *value);

/* ---- messages in a stream ---- */

/*
 * Bytes in, messages out:
 *
 *     space = wire_reader_space(reader, &size);
 *     wire_reader_filled(reader, bytes_read_into_space);
 *     while ((result = wire_reader_next(reader, &message)) == 1) { ...; wire_message_free(message); }
 *
 * Nothing that the peer claims is believed before it is there: a message's structure is checked against the limits
 * before it is unpacked. An error is final: the stream has no place to go on from.
 */
struct wire_reader;
struct wire_message;
struct wire_reader *wire_reader_new(void);
void wire_reader_free(struct wire_reader *reader);

/* Room for *size more bytes; NULL: out of memory. */
void *wire_reader_space(struct wire_reader *reader, size_t *size);
void wire_reader_filled(struct wire_reader *reader, size_t length);

/* 1: *message is the next one, the caller's. 0: more bytes are needed. SM_E_PROTOCOL: malformed. SM_E_LIMIT: larger
 * or deeper than allowed. SM_E_NO_MEMORY. */
int wire_reader_next(struct wire_reader *reader, struct wire_message **message);

const struct wire_value *wire_message_value(const struct wire_message *message);
void wire_message_free(struct wire_message *message);

#endif
