/* SPDX-License-Identifier: BSD-2-Clause */
/* What the audit sees of one packet: every byte that it keeps, both lengths, order, and what left without entering. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "switch/audit.h"

#define BUFFERS 4u
#define BYTES 80u

static struct audit *audit;
static uint8_t packet[BYTES];

static void setup(void)
{
    audit = calloc(1, sizeof *audit);
    cr_assert_eq(audit_init(audit, BUFFERS), 0);
    for (unsigned i = 0; i < BYTES; i++)
        packet[i] = (uint8_t)(i * 7 + 1);
}

static void teardown(void)
{
    audit_free(audit);
    free(audit);
}

TestSuite(audit, .init = setup, .fini = teardown);

/* A packet of `caplen` bytes enters, a byte of it changes, and it leaves. Returns whether that was seen. */
static bool seen(uint32_t caplen, uint32_t changed, bool written)
{
    uint64_t before = audit->altered;

    audit_enter(audit, 1, 7, packet, caplen, BYTES);
    packet[changed] ^= 0x10;
    audit_leave(audit, 1, packet, caplen, BYTES, written, 0);
    packet[changed] ^= 0x10;
    return audit->altered != before;
}

Test(audit, every_byte_that_is_kept_counts)
{
    const uint32_t lengths[] = {1, 14, 63, AUDIT_BYTES, AUDIT_BYTES + 1, BYTES};

    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (uint32_t at = 0; at < BYTES; at++)
            cr_assert_eq(seen(lengths[i], at, false), at < lengths[i] && at < AUDIT_BYTES, "byte %u of %u", at,
                         lengths[i]);
    cr_assert_not(seen(AUDIT_BYTES, 0, true), "the middlebox asked to write it");
}

Test(audit, both_lengths_count)
{
    audit_enter(audit, 1, 7, packet, 70, BYTES);
    audit_leave(audit, 1, packet, 69, BYTES, false, 0);
    cr_assert_eq(audit->altered, 1);
    audit_enter(audit, 1, 7, packet, 70, BYTES);
    audit_leave(audit, 1, packet, 70, BYTES + 1, false, 0);
    cr_assert_eq(audit->altered, 2);
}

Test(audit, what_leaves_twice_or_late_is_seen)
{
    struct sm_errbuf text;

    audit_enter(audit, 0, 7, packet, BYTES, BYTES);
    audit_enter(audit, 1, 7, packet, BYTES, BYTES);
    audit_leave(audit, 1, packet, BYTES, BYTES, false, 0);
    audit_leave(audit, 0, packet, BYTES, BYTES, false, 0);
    cr_assert_eq(audit->reordered, 1);
    cr_assert_str_eq(audit_loss_free(audit, &text), "held");
    audit_leave(audit, 0, packet, BYTES, BYTES, false, 0);
    cr_assert_eq(audit->twice, 1);
    cr_assert_str_neq(audit_loss_free(audit, &text), "held");
}
