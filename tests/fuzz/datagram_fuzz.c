/* SPDX-License-Identifier: BSD-2-Clause */
/* Datagrams of any content behind a right code; what is sound is encoded and decoded to the same bytes again. */
#include <stdlib.h>
#include <string.h>

#include "peers/datagram.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const uint8_t key[DATAGRAM_KEY] = {7};
    static struct datagram first, second;
    /* In memory of its own, so that one byte too far is seen. */
    uint8_t *bytes = malloc(size + DATAGRAM_MAC), again[DATAGRAM_MAX], more[DATAGRAM_MAX];
    unsigned done;

    if (size > 0)
        memcpy(bytes, input, size);
    datagram_decode(bytes, size, key, &first); /* the code is wrong, most likely */
    static const uint8_t begin[] = {0x53, 0x4d, DATAGRAM_VERSION};
    if (size > sizeof begin && input[0] & 1) /* most inputs get past the first bytes */
        memcpy(bytes, begin, sizeof begin);
    size = datagram_seal(bytes, size, key);
    if (datagram_decode(bytes, size, key, &first) == DATAGRAM_SOUND) {
        size_t length = datagram_encode(&first, again, &done);
        if (done != first.item_count || length > DATAGRAM_MAX - DATAGRAM_MAC)
            abort();
        length = datagram_seal(again, length, key);
        if (datagram_decode(again, length, key, &second) != DATAGRAM_SOUND)
            abort();
        if (datagram_encode(&second, more, &done) + DATAGRAM_MAC != length ||
            memcmp(again, more, length - DATAGRAM_MAC))
            abort();
    }
    free(bytes);
    return 0;
}
