/* SPDX-License-Identifier: BSD-2-Clause */
/* The longest prefix, against looking at each of them. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "prefixes.h"
#include "testing/random.h"

static uint64_t state;

static uint64_t rnd(void)
{
    return random_xorshift(&state) * RANDOM_STAR;
}

static bool begins(const uint8_t *address, const struct prefix *prefix)
{
    for (unsigned i = 0; i < prefix->bits; i++)
        if ((address[i / 8] >> (7 - i % 8) & 1) != (prefix->word[i / 64] >> (63 - i % 64) & 1))
            return false;
    return true;
}

/* Few bits are random, so that prefixes nest and addresses meet them. */
static void address_of(uint8_t address[16], uint8_t family)
{
    for (unsigned i = 0; i < 16; i++)
        address[i] = i < (family == 4 ? 4 : 16) && rnd() % 2 ? (uint8_t)(1u << rnd() % 8) : 0;
}

static void prefix_of(struct prefix *prefix, uint8_t family, unsigned lengths)
{
    uint8_t address[16];
    unsigned most = family == 4 ? 32 : 128;

    *prefix = (struct prefix){.family = family, .bits = (uint8_t)(lengths == 1 ? 24 : rnd() % (most + 1))};
    address_of(address, family);
    for (unsigned i = 0; i < prefix->bits; i++)
        prefix->word[i / 64] |= (uint64_t)(address[i / 8] >> (7 - i % 8) & 1) << (63 - i % 64);
}

Test(prefixes, against_looking_at_each)
{
    static struct prefix set[400];
    uint64_t found_any = 0;

    state = random_seed();
    printf("SM_SEED=%llu\n", (unsigned long long)state);
    for (unsigned round = 0; round < 200; round++) {
        uint32_t count = (uint32_t)(rnd() % 400);
        unsigned lengths = (unsigned)(rnd() % 4);
        struct prefixes *prefixes;

        for (uint32_t i = 0; i < count; i++)
            prefix_of(&set[i], rnd() % 2 ? 4 : 6, lengths);
        prefixes = prefixes_create(set, count, 1000);
        cr_assert_not_null(prefixes);
        for (unsigned trial = 0; trial < 300; trial++) {
            uint8_t address[16], family = rnd() % 2 ? 4 : 6;
            int64_t best = -1;

            address_of(address, family);
            for (uint32_t i = 0; i < count; i++)
                if (set[i].family == family && begins(address, &set[i]) &&
                    (best < 0 || set[i].bits > set[best - 1000].bits))
                    best = 1000 + i;
            cr_assert_eq(prefixes_find(prefixes, family, address), best);
            found_any += best >= 0;
        }
        prefixes_destroy(prefixes);
    }
    cr_assert_gt(found_any, 1000);
}

Test(prefixes, are_read)
{
    static const struct {
        const char *text;
        uint8_t family, bits;
    } right[] = {
        {"10.0.0.0/8", 4, 8}, {"0.0.0.0/0", 4, 0}, {"1.2.3.4", 4, 32}, {"::/0", 6, 0}, {"2001:db8::1", 6, 128}};
    static const char *const wrong[] = {"",
                                        "10.0.0.1/8",
                                        "10.0.0.0/33",
                                        "10.0.0.0/",
                                        "10.0.0.0/x",
                                        "10.0.0/8",
                                        "::/129",
                                        "2001:db8::1/64",
                                        "host",
                                        "10.0.0.0/8/8",
                                        "1111111111111111111111111111111111111111111111111111111111/8"};
    struct prefix prefix;

    for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++) {
        cr_expect(prefix_parse(right[i].text, &prefix), "%s", right[i].text);
        cr_expect(prefix.family == right[i].family && prefix.bits == right[i].bits, "%s", right[i].text);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        cr_expect_not(prefix_parse(wrong[i], &prefix), "%s", wrong[i]);
}
