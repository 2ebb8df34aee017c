/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_RECORD_H
#define SM_REPLICA_RECORD_H

/* MessagePack, as much of it as records need: what sm_writer and sm_value (splitmerge/record.h) are made of. */

#include <splitmerge/record.h>
#include <string.h>

/* Memory that is written to from the front; the caller's. */
struct codec_buffer {
    uint8_t *bytes;
    size_t size;
    size_t used;
};

/* One map or list that is open: where its header is, and how many values it has. */
struct sm_writer {
    struct codec_buffer *out;
    struct {
        size_t header;
        uint32_t count;
        bool map;
    } open[SM_RECORD_DEPTH];
    unsigned depth;
    bool full;  /* the buffer is */
    bool wrong; /* misused */
};

/* Write a map whose values follow. record_end(): close it. SM_E_LIMIT: it did not fit; SM_E_INVALID: misused. */
void record_begin(struct sm_writer *writer, struct codec_buffer *out);
int record_end(struct sm_writer *writer);

/* The value at `at`, checked to its end: nesting, lengths, types. None: it is damaged, or not all there. */
sm_value record_value(const uint8_t *at, const uint8_t *end);

/* What a value is; RECORD_WRONG: none. */
enum record_type {
    RECORD_WRONG,
    RECORD_UINT,
    RECORD_INT,
    RECORD_FLOAT,
    RECORD_BOOL,
    RECORD_NIL,
    RECORD_BYTES,
    RECORD_TEXT,
    RECORD_LIST,
    RECORD_MAP
};
enum record_type record_type(sm_value value);

/* As sm_value_next(), with the name of a map's value; NULL: none is wanted. */
bool record_next(sm_value list, sm_value *item, sm_value *name);

bool record_is_map(sm_value value);
bool record_is_text(sm_value value, const char *text);

/* Headers of single values, for those who write records by hand; `to` has room for 5 bytes. Returns what they take. */
static inline unsigned record_put_bin(uint8_t *to, uint32_t length)
{
    to[0] = length < 256 ? 0xc4 : length < 65536 ? 0xc5 : 0xc6;
    switch (to[0]) {
    case 0xc4:
        to[1] = (uint8_t)length;
        return 2;
    case 0xc5:
        to[1] = (uint8_t)(length >> 8), to[2] = (uint8_t)length;
        return 3;
    default:
        to[1] = (uint8_t)(length >> 24), to[2] = (uint8_t)(length >> 16);
        to[3] = (uint8_t)(length >> 8), to[4] = (uint8_t)length;
        return 5;
    }
}

static inline void record_put_u64(uint8_t *to, uint64_t value)
{
    to[0] = 0xcf;
    value = __builtin_bswap64(value);
    memcpy(to + 1, &value, sizeof value);
}

static inline uint64_t record_big(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | from[i];
    return value;
}

#endif
