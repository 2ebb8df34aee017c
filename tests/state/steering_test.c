/* SPDX-License-Identifier: BSD-2-Clause */
/* Which key partitions which: by hand, and by what the words mean: equal keys of a class have equal steering keys. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "arena/arena.h"
#include "packet/packet.h"

#define FLOW                                                                                                           \
    {                                                                                                                  \
        SM_BY_FLOW, 0, 0                                                                                               \
    }
#define PAIR                                                                                                           \
    {                                                                                                                  \
        SM_BY_HOST_PAIR, 0, 0                                                                                          \
    }
#define SOURCE(p4, p6)                                                                                                 \
    {                                                                                                                  \
        SM_BY_SOURCE, p4, p6                                                                                           \
    }
#define DESTINATION(p4, p6)                                                                                            \
    {                                                                                                                  \
        SM_BY_DESTINATION, p4, p6                                                                                      \
    }
#define NOTHING                                                                                                        \
    {                                                                                                                  \
        SM_BY_ALL, 0, 0                                                                                                \
    }

static const struct {
    struct keying classes[4];
    unsigned count;
    const char *steering, *partitioned;
} rows[] = {
    {{FLOW}, 1, "flow", "y"},
    {{FLOW, PAIR}, 2, "host-pair", "yy"},
    {{SOURCE(24, 64), SOURCE(0, 0)}, 2, "source/24/64", "yy"},
    {{SOURCE(24, 0), SOURCE(0, 64)}, 2, "source/24/64", "yy"},
    {{SOURCE(0, 0), DESTINATION(8, 0), DESTINATION(0, 0)}, 3, "destination/8/128", "nyy"},
    {{SOURCE(0, 0), DESTINATION(8, 0)}, 2, "source", "yn"},
    {{NOTHING, {SM_BY_VLAN, 0, 0}, {SM_BY_INNER_SOURCE, 24, 0}}, 3, "flow", "nnn"},
    {{{SM_BY_TUNNEL, 0, 0}, SOURCE(16, 0)}, 2, "source/16/128", "ny"},
};

Test(steering, by_hand)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state_class classes[4] = {0};
        char text[KEYING_TEXT];
        for (unsigned j = 0; j < rows[i].count; j++)
            classes[j].key = rows[i].classes[j];
        struct keying steering = steering_choose(classes, rows[i].count);
        cr_expect_str_eq(keying_text(steering, text), rows[i].steering, "row %zu: %s", i, text);
        for (unsigned j = 0; j < rows[i].count; j++)
            cr_expect_eq(steering_partitions(steering, classes[j].key), rows[i].partitioned[j] == 'y', "row %zu, %u", i,
                         j);
    }
}

static void key_of(struct sm_key *key, struct keying keying, const uint8_t address[16], uint8_t family)
{
    memset(key, 0, sizeof *key);
    memcpy(key->a, address, family == 4 ? 4 : 16);
    key->family = family;
    sm_key_narrow(key, keying.prefix4, keying.prefix6);
}

/* Where one prefix partitions another, two addresses that are one flow of the class are one for steering. */
Test(steering, a_function_of_the_key)
{
    unsigned joined = 0;

    srand(1);
    for (unsigned i = 0; i < 200000; i++) {
        struct keying steering = SOURCE(rand() % 33, rand() % 129), cls = SOURCE(rand() % 33, rand() % 129);
        uint8_t family = rand() % 2 ? 4 : 6, a[16], b[16];
        struct sm_key ka, kb, sa, sb;
        for (unsigned k = 0; k < 16; k++)
            a[k] = b[k] = (uint8_t)rand();
        unsigned bit = (unsigned)rand() % (family == 4 ? 32 : 128);
        b[bit / 8] ^= (uint8_t)(128 >> bit % 8);
        key_of(&ka, cls, a, family);
        key_of(&kb, cls, b, family);
        key_of(&sa, steering, a, family);
        key_of(&sb, steering, b, family);
        if (steering_partitions(steering, cls) && memcmp(&ka, &kb, sizeof ka) == 0) {
            cr_assert_arr_eq(&sa, &sb, sizeof sa, "bit %u", bit);
            joined++;
        }
    }
    cr_assert_gt(joined, 1000);
}
