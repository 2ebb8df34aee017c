/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_KIT_FILES_H
#define SM_TESTS_KIT_FILES_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Whether two files can be read and are the same, byte for byte. */
static inline bool same_file(const char *a, const char *b)
{
    FILE *fa = fopen(a, "rb"), *fb = fopen(b, "rb");
    bool same = fa && fb;

    while (same) {
        char ba[65536], bb[sizeof ba];
        size_t na = fread(ba, 1, sizeof ba, fa), nb = fread(bb, 1, sizeof bb, fb);
        same = na == nb && memcmp(ba, bb, na) == 0;
        if (na == 0)
            break;
    }
    if (fa)
        fclose(fa);
    if (fb)
        fclose(fb);
    return same;
}

#endif
