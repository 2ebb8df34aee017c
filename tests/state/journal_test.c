/* SPDX-License-Identifier: BSD-2-Clause */
/* What a dead replica's journal says is carried out, unless it cannot be: then it is refused whole, and nothing is
 * done. */

#include "support.h"

#include <criterion/criterion.h>

#define SHARD 6
#define BYTES (4u << 20)
#define COMMIT 77u

static struct fixture f;
static struct journal journal;
static struct journal_region *region;
static struct flow *flows[40];

/* Twenty of forty flows are closed by a burst that was committed, and whose frees are not yet carried out. */
static void setup(void)
{
    f = fixture_open(4u << 20, 10000);
    unsigned cls = fixture_class(&f, 32, 1, 0);
    region = calloc(1, BYTES);
    cr_assert_not_null(region);
    journal_format(region, BYTES);
    journal_open(&journal, region, f.actor, 1);
    journal_packet(&journal);
    for (uint32_t i = 0; i < 40; i++) {
        flows[i] = insert_key(f.actor, SHARD, cls, i);
        cr_assert_not_null(flows[i]);
    }
    journal_prepare(&journal, true);
    journal_committed(&journal, 2);
    for (uint32_t i = 0; i < 20; i++) {
        journal_packet(&journal);
        state_remove(f.actor, SHARD, flows[i]);
    }
    journal_prepare(&journal, true);
}

static void teardown(void)
{
    free(region);
    fixture_close(&f);
}

TestSuite(journal, .init = setup, .fini = teardown);

static int recover(void)
{
    return journal_recover(f.state, region, BYTES, COMMIT, f.memory, (uint8_t *)f.memory + f.bytes, NULL, NULL);
}

static struct journal_entry *some_free(unsigned number)
{
    for (uint32_t at = 0; at < region->used;) {
        struct journal_entry *entry = (struct journal_entry *)(void *)(region->entries + at);
        if (entry->kind == JOURNAL_FREE && number-- == 0) {
            return entry;
        }
        at += (uint32_t)sizeof *entry + ((entry->length + 15) & ~15u);
    }
    cr_assert_fail("there are not so many frees");
    return NULL;
}

Test(journal, frees_of_a_committed_burst_are_finished)
{
    struct sm_errbuf error = {""};
    cr_assert_gt(state_check(f.state, NULL), 0, "twenty objects are nobody's until then");
    cr_assert_eq(recover(), 0);
    cr_assert_eq(state_check(f.state, &error), 0, "%s", error.text);
}

/* What does not name an object in use is refused, and the heap stays as it is: not one of the frees is carried out. */
static void expect_refused(uint64_t address, const char *what)
{
    struct slab *slab = &f.state->slabs[((unsigned char *)flows[0] - f.state->heap) / SLAB_BYTES];
    struct slab before;
    some_free(10)->address = address;
    memcpy(&before, slab, sizeof before);
    cr_assert_eq(recover(), SM_E_DAMAGED, "%s", what);
    cr_assert_eq(memcmp(&before, slab, sizeof before), 0, "%s: something was done", what);
}

Test(journal, a_free_of_the_middle_of_an_object)
{
    expect_refused(some_free(10)->address + STATE_UNIT, "the middle of an object");
}

Test(journal, a_free_of_an_object_that_is_free)
{
    struct slab_control c =
        slab_unpack(f.state->slabs[((unsigned char *)flows[0] - f.state->heap) / SLAB_BYTES].control);
    expect_refused(some_free(10)->address + (uint64_t)500 * c.units * STATE_UNIT, "an object that is free");
}

Test(journal, a_free_in_a_slab_that_was_never_used)
{
    expect_refused((uintptr_t)f.state->heap + (uint64_t)(f.state->slab_count - 1) * SLAB_BYTES, "an unused slab");
}

Test(journal, a_free_that_is_not_aligned)
{
    expect_refused(some_free(10)->address + 1, "an odd address");
}

Test(journal, a_free_outside_of_the_heap)
{
    expect_refused((uintptr_t)f.state, "the state itself");
}

Test(journal, a_free_that_is_named_twice)
{
    some_free(10)->address = some_free(9)->address;
    cr_assert_eq(recover(), 0);
}

/* An allocation is undone by its address alone. */
Test(journal, a_forged_allocation)
{
    struct journal_entry *entry = some_free(10);
    region->next_start = 0;
    entry->kind = JOURNAL_ALLOC;
    entry->address = (uintptr_t)f.state->heap + SLAB_BYTES - STATE_UNIT;
    cr_assert_geq(recover(), 0);
}
