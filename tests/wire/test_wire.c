/* SPDX-License-Identifier: BSD-2-Clause */
/* Values there and back, and streams that are not what they claim. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

/* Feed bytes in pieces of `step`; the last result of wire_reader_next(). */
static int feed(struct wire_reader *reader, const void *bytes, size_t length, size_t step, struct wire_message **last,
                unsigned *count)
{
    int result = 0;
    *last = NULL;
    *count = 0;
    for (size_t at = 0; at < length && result >= 0; at += step) {
        size_t size, piece = length - at < step ? length - at : step;
        uint8_t *space = wire_reader_space(reader, &size);
        cr_assert(space && size > 0);
        piece = piece < size ? piece : size;
        memcpy(space, (const uint8_t *)bytes + at, piece);
        wire_reader_filled(reader, piece);
        struct wire_message *message;
        while ((result = wire_reader_next(reader, &message)) == 1) {
            wire_message_free(*last);
            *last = message;
            ++*count;
        }
    }
    return result;
}

static struct wire_out *sample(void)
{
    struct wire_out *out = wire_new();
    wire_put_uint(out, "big", UINT64_MAX);
    wire_put_int(out, "minus", -5);
    wire_put_double(out, "half", 0.5);
    wire_put_bool(out, "yes", true);
    wire_put_nil(out, "nothing");
    wire_put_str(out, "text", "héllo");
    wire_put_str(out, "empty", "");
    wire_put_bin(out, "bytes", "\x00\xff\x10", 3);
    wire_array_begin(out, "list");
    for (unsigned i = 0; i < 20; i++)
        wire_put_uint(out, NULL, i * 1000);
    wire_array_end(out);
    wire_map_begin(out, "map");
    wire_put_str(out, "in", "out");
    wire_map_end(out);
    return out;
}

Test(wire, there_and_back_in_any_pieces)
{
    struct wire_out *out = sample();
    size_t length, size;
    const uint8_t *bytes = wire_bytes(out, &length);
    uint8_t *twice = malloc(2 * length);
    memcpy(twice, bytes, length);
    memcpy(twice + length, bytes, length);
    for (size_t step = 1; step <= 2 * length; step++) {
        struct wire_reader *reader = wire_reader_new();
        struct wire_message *message;
        unsigned count;
        cr_assert_eq(feed(reader, twice, 2 * length, step, &message, &count), 0);
        cr_assert_eq(count, 2);
        const struct wire_value *v = wire_message_value(message);
        cr_expect_eq(wire_get_uint(v, "big", 0), UINT64_MAX);
        cr_expect_eq(wire_get_int(v, "minus", 0), -5);
        cr_expect_eq(wire_get_uint(v, "minus", 7), 7);
        cr_expect_eq(wire_get_int(v, "big", 3), 3, "does not fit");
        cr_expect(wire_get_double(v, "half", 0) == 0.5 && wire_get_double(v, "minus", 0) == -5);
        cr_expect(wire_get_bool(v, "yes", false));
        cr_expect_eq(wire_type(wire_get(v, "nothing")), WIRE_NIL);
        cr_expect_str_eq(wire_get_str(v, "text", ""), "héllo");
        cr_expect_str_eq(wire_get_str(v, "empty", "x"), "");
        const uint8_t *data = wire_get_bin(v, "bytes", &size);
        cr_expect(size == 3 && memcmp(data, "\x00\xff\x10", 3) == 0);
        const struct wire_value *list = wire_get_array(v, "list");
        cr_expect(wire_count(list) == 20 && wire_uint(wire_item(list, 19), 0) == 19000);
        cr_expect_null(wire_item(list, 20));
        cr_expect_str_eq(wire_get_str(wire_get_map(v, "map"), "in", ""), "out");
        cr_expect_null(wire_get(v, "none"));
        cr_expect_null(wire_get_map(v, "list"));
        cr_expect_eq(wire_get_uint(NULL, "x", 9), 9);
        wire_message_free(message);
        wire_reader_free(reader);
    }
    free(twice);
    wire_free(out);
}

Test(wire, json)
{
    struct wire_out *out = sample();
    size_t length;
    const uint8_t *bytes = wire_bytes(out, &length);
    struct wire_reader *reader = wire_reader_new();
    struct wire_message *message;
    unsigned count;
    feed(reader, bytes, length, length, &message, &count);
    json_t *json = wire_to_json(wire_message_value(message));
    cr_expect_str_eq(json_string_value(json_object_get(json, "bytes")), "00ff10");
    cr_expect_eq(json_integer_value(json_object_get(json, "minus")), -5);
    cr_expect_eq(json_array_size(json_object_get(json, "list")), 20);
    cr_expect(json_is_null(json_object_get(json, "nothing")));
    json_decref(json);
    wire_message_free(message);
    wire_reader_free(reader);
    wire_free(out);
}

Test(wire, json_there_and_back)
{
    json_error_t error;
    json_t *json = json_loads("{\"a\": [1, -2, 0.5, true, null, \"x\"], \"b\": {\"c\": []}}", 0, &error);
    struct wire_out *out = wire_new();
    size_t length;
    wire_put_json(out, "all", json);
    const uint8_t *bytes = wire_bytes(out, &length);
    struct wire_reader *reader = wire_reader_new();
    struct wire_message *message;
    unsigned count;
    feed(reader, bytes, length, length, &message, &count);
    json_t *back = wire_to_json(wire_get(wire_message_value(message), "all"));
    cr_expect(json_equal(json, back));
    json_decref(back);
    json_decref(json);
    wire_message_free(message);
    wire_reader_free(reader);
    wire_free(out);
}

Test(wire, copies_values)
{
    struct wire_out *out = sample(), *copy = wire_new();
    size_t length;
    const uint8_t *bytes = wire_bytes(out, &length);
    struct wire_reader *reader = wire_reader_new();
    struct wire_message *message, *again;
    unsigned count;
    feed(reader, bytes, length, length, &message, &count);
    wire_put_value(copy, "all", wire_message_value(message));
    wire_put_value(copy, "none", NULL);
    wire_message_free(message);
    bytes = wire_bytes(copy, &length);
    feed(reader, bytes, length, length, &again, &count);
    cr_expect_eq(wire_get_int(wire_get_map(wire_message_value(again), "all"), "minus", 0), -5);
    cr_expect_eq(wire_type(wire_get(wire_message_value(again), "none")), WIRE_NIL);
    wire_message_free(again);
    wire_reader_free(reader);
    wire_free(copy);
    wire_free(out);
}

Test(wire, refuses)
{
#define ROW(text, result)                                                                                              \
    {                                                                                                                  \
        text, sizeof(text) - 1, result                                                                                 \
    }
    static const struct {
        const char *bytes;
        size_t length;
        int result;
    } rows[] = {
        ROW("\xc1", SM_E_PROTOCOL),              /* never used */
        ROW("\xd4\x01\x02", SM_E_PROTOCOL),      /* an extension type */
        ROW("\xc7\x01\x02\x03", SM_E_PROTOCOL),  /* another */
        ROW("\xdd\xff\xff\xff\xff", SM_E_LIMIT), /* an array of 4 G values */
        ROW("\xdf\xff\xff\xff\xff", SM_E_LIMIT), /* a map of 4 G pairs */
        ROW("\xdb\xff\xff\xff\xff", SM_E_LIMIT), /* a text of 4 GiB */
        ROW("\xc6\x01\x00\x00\x01", SM_E_LIMIT), /* a byte too many */
        ROW("\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x01", SM_E_LIMIT), /* too deep */
        ROW("\x92\x01", 0),                                                                          /* not all there */
        ROW("\xda\x00", 0), /* not even its length */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        for (size_t step = 1; step <= rows[i].length; step++) {
            struct wire_reader *reader = wire_reader_new();
            struct wire_message *message;
            unsigned count;
            cr_expect_eq(feed(reader, rows[i].bytes, rows[i].length, step, &message, &count), rows[i].result, "row %zu",
                         i);
            cr_expect_eq(count, 0);
            wire_reader_free(reader);
        }
    }
}

Test(wire, many_small_values_are_refused)
{
    size_t length = WIRE_MAX_ITEMS + 5;
    uint8_t *bytes = calloc(1, length);
    memcpy(bytes, "\x92\xdd\x00\x0f\xff\xff", 6);
    struct wire_reader *reader = wire_reader_new();
    struct wire_message *message;
    unsigned count;
    cr_expect_eq(feed(reader, bytes, length, 4096, &message, &count), SM_E_LIMIT);
    wire_reader_free(reader);
    free(bytes);
}

Test(wire, too_large_to_send)
{
    struct wire_out *out = wire_new();
    char *data = calloc(1, WIRE_MAX_MESSAGE);
    wire_put_bin(out, "data", data, WIRE_MAX_MESSAGE);
    size_t length;
    cr_expect_null(wire_bytes(out, &length));
    wire_free(out);
    free(data);
    wire_put_uint(NULL, "x", 1);
    cr_expect_null(wire_bytes(NULL, &length));
}
