/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes are messages, or are refused; a message that was read can be walked, shown and copied. */
#include <jansson.h>
#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_reader *reader = wire_reader_new();
    size_t step = size ? data[0] % 7u + 1 : 1;
    int result = 0;
    for (size_t at = 0; at < size && result >= 0; at += step) {
        size_t room, piece = size - at < step ? size - at : step;
        memcpy(wire_reader_space(reader, &room), data + at, piece);
        wire_reader_filled(reader, piece);
        struct wire_message *message;
        while ((result = wire_reader_next(reader, &message)) == 1) {
            const struct wire_value *value = wire_message_value(message);
            json_decref(wire_to_json(value));
            struct wire_out *out = wire_new();
            wire_put_value(out, "copy", value);
            wire_free(out);
            wire_message_free(message);
        }
    }
    wire_reader_free(reader);
    return 0;
}
