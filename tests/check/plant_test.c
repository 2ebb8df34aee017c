/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The arena's checker finds nothing in a whole service, and every kind of damage that is planted in what the switch
 * checks (what is within the state itself is planted by tests/state/check_test.c). Each plant is undone, and nothing is
 * found any more. What was found is printed: coverage.py sees to it that no check is never triggered.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/internal.h"
#include "testing/test.h"

static sm_class flows;
static sm_strong object;
static unsigned failures;
static struct sm_test *test;
static struct sm_switch *sw;
static struct arena *arena;
static struct channel *channel;
static struct journal_region *journal;

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, flows, packet, 0, &flow, NULL) == 0)
        ++*(uint64_t *)flow.state;
}

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "flows", .record_size = 8, .granularity = SM_BY_FLOW};
    int result = sm_class_register(replica, &options, &flows);

    (void)user;
    return result ? result : sm_strong_register(replica, "object", 8, &object);
}

static void check(const char *what, const char *expected, bool at_rest)
{
    static struct check_findings findings;
    bool met = expected == NULL && findings.count == 0;

    switch_check_now(sw, at_rest, &findings);
    if (!expected)
        met = findings.count == 0;
    for (unsigned i = 0; i < findings.count && i < CHECK_LINES; i++) {
        printf("found: %s\n", findings.lines[i]);
        met |= expected && strstr(findings.lines[i], expected) != NULL;
    }
    if (!met) {
        printf("FAILED %s: expected %s\n", what, expected ? expected : "nothing");
        failures++;
    }
}

#define PLANT(what, place, value, expected)                                                                            \
    do {                                                                                                               \
        __typeof__(place) saved = (place);                                                                             \
        (place) = (value);                                                                                             \
        check(what, expected, false);                                                                                  \
        (place) = saved;                                                                                               \
        check(what, NULL, false);                                                                                      \
    } while (0)

static void plant_owners(void)
{
    uint32_t shard = 0;

    while (arena->writer[shard] != 1)
        shard++;
    PLANT("another writer", arena->writer[shard], 2, "is written by r2 and owned by r1");
    PLANT("a writer that is not there", arena->writer[shard], 200, "which there is not");
    PLANT("no owner", sw->shards[shard].owner, SWITCH_NONE, "owned by nobody");
}

static void plant_locks(void)
{
    PLANT("a stripe's lock", shard_at(arena->state, SM_SHARDS + 5)->lock, 3u, "stripe 5 is held by slot 2");
    PLANT("an object's lock", arena->strong[object.id].holder, 2u, "is held by slot 1");
}

static void plant_channel(void)
{
    PLANT("another ring", channel->ring_mask, channel->ring_mask + 1, "are not where they were");
    PLANT("a ring elsewhere", channel->in_offset, channel->in_offset + 16, "are not where they were");
    PLANT("an impossible commit", channel->commit, channel->commit + (1ull << 52), "cannot be");
    PLANT("another capacity", journal->capacity, journal->capacity - 16, "its capacity is another");
    PLANT("an end outside", journal->used, UINT32_MAX, "outside of its room");
    PLANT("entries", journal->used, 32u, "holds entries");
    PLANT("a section", journal->section, UINT64_C(32) << 32, "holds entries");
}

static void plant_pool(void)
{
    uint32_t *stack = sw->free_small.buffers, top = sw->free_small.count - 1;

    PLANT("a buffer in two places", sw->packets[stack[top]].place, PLACE_RING, "and in use");
    PLANT("a buffer twice", stack[top], stack[0], "is free twice");
    PLANT("a lost buffer", sw->free_small.count, top, "on no stack");
    PLANT("a free buffer in a list of late ones", sw->slots[0].late_first, stack[top], "and is not there");
    PLANT("a list that there ought not to be", sw->slots[0].late_first, stack[top], "are not in one list each");
    PLANT("a buffer of another size", sw->free_jumbo.buffers[0], stack[0], "of another size");
    PLANT("a buffer that is not there", stack[0], sw->buffers, "of another size");
}

/* What is found here has been put right with it. */
static void plant_frame(void)
{
    static unsigned char before[sizeof *arena];
    struct state *state = arena->state;

    memcpy(before, arena, offsetof(struct arena, registered));
    arena->pool.small += 64;
    arena->channels = NULL;
    check("the arena's frame", "header was written on", false);
    if (memcmp(before, arena, offsetof(struct arena, registered)) != 0)
        failures += printf("FAILED the arena's frame was not put right\n") > 0;
    state->slab_count += 1000000;
    state->heap = NULL;
    check("the state's frame", "header was written on", false);
    arena->registration.shared_count = UINT32_MAX;
    check("the registration", "header was written on", false);
    check("afterwards", NULL, false);
}

/* Between its bursts a replica has more to do: at rest it has not. */
static void plant_rest(void)
{
    bool found = false;

    for (unsigned i = 0; i < 2000 && !found; i++) {
        struct check_findings findings;
        if (sm_test_step(test) != 0)
            break;
        switch_check_now(sw, true, &findings);
        found = findings.count > 0 && strstr(findings.lines[0], "has not answered") != NULL;
        if (found)
            printf("found: %s\n", findings.lines[0]);
    }
    failures += !found;
}

static bool has_free_buffers(const struct sm_test *of, void *arg)
{
    (void)arg;
    return of->sw->free_small.count > 8;
}

int main(void)
{
    struct sm_trace *trace = sm_trace_create();
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_packet, .setup = setup, .input = trace, .replicas = 2, .seed = 1};
    struct sm_errbuf error = {""};

    for (unsigned i = 0; trace && i < 4000; i++) {
        char from[32];
        snprintf(from, sizeof from, "10.0.%u.%u:1024", i / 200 % 200, i % 200);
        if (sm_trace_udp(trace, (sm_time){1000000000 + i * 1000ull}, from, "192.0.2.1:53", NULL, 0) != 0)
            return 1;
    }
    if (sm_test_create(&test, &options, &error) != 0 || sm_test_until_packet(test, 1000) != 0 ||
        sm_test_until(test, has_free_buffers, NULL) != 0) {
        printf("%s\n", error.text);
        return 1;
    }
    sw = test->sw;
    arena = test->arena;
    channel = sw->slots[0].channel;
    journal = channel_journal(channel);
    check("a whole service", NULL, false);
    plant_owners();
    plant_locks();
    plant_channel();
    plant_pool();
    plant_frame();
    plant_rest();
    if (sm_test_finish(test) != 0) {
        printf("FAILED the end: %s\n", sm_test_result(test)->broken);
        failures++;
    }
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
    printf("%u failed\n", failures);
    return failures != 0;
}
