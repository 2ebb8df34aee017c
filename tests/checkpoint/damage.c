/* SPDX-License-Identifier: BSD-2-Clause */

/* Files that are not as they were written, and services that a checkpoint does not fit: nothing changes, with a reason.
 */

#include "checkpoint.h"
#include "switch/restore.h"
#include "testing/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL 12u /* packets, so that every bit can be tried */

static unsigned cuts;  /* restores in whose midst the switch died */
static unsigned twice; /* and the next one as it took over */

static struct sm_errbuf error;

static size_t read_file(const char *name, uint8_t *bytes, size_t size)
{
    FILE *file = fopen(name, "rb");
    size_t length = file ? fread(bytes, 1, size, file) : 0;

    if (file)
        fclose(file);
    return length;
}

static void write_file(const char *name, const uint8_t *bytes, size_t length)
{
    FILE *file = fopen(name, "wb");

    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        abort();
}

static uint64_t flows_of(struct sm_test *test)
{
    return sm_test_result(test)->flows_live;
}

/* A service that has a few flows, and a checkpoint of it. */
static struct sm_test *with_flows(uint64_t seed, const char *file, struct sm_trace **input)
{
    struct sm_test *test;

    *input = trace_make(seed, 0, SMALL);
    const struct sm_test_options options = middlebox(seed, *input, 1);
    if (sm_test_create(&test, &options, &error) != 0)
        abort();
    while (sm_test_step(test) == 0) {
    }
    if (checkpoint_take(test, file, NOTHING, &error) != 0) {
        printf("%s\n", error.text);
        abort();
    }
    return test;
}

static bool is_refused(struct sm_test *test, const char *file)
{
    error.text[0] = '\0';
    return checkpoint_restore(test, file, &error) < 0 && error.text[0] != '\0' && !strchr(error.text, '\n') &&
           flows_of(test) == 0;
}

const char *damage_test(uint64_t seed, const char *file)
{
    static uint8_t bytes[65536];
    struct sm_trace *input, *nothing = trace_make(seed, 0, 1);
    struct sm_test *test = with_flows(seed, file, &input);
    const struct sm_test_options options = middlebox(seed, nothing, 1);
    size_t length = read_file(file, bytes, sizeof bytes);
    const char *wrong = NULL;

    sm_test_destroy(test, NULL);
    if (sm_test_create(&test, &options, &error) != 0)
        abort();
    printf("a checkpoint of %zu bytes: each beginning, each bit\n", length);
    for (size_t cut = 0; !wrong && cut < length; cut++) {
        write_file(file, bytes, cut);
        if (!is_refused(test, file))
            wrong = "a checkpoint that was cut short was restored";
    }
    for (size_t bit = 0; !wrong && bit < length * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        write_file(file, bytes, length);
        if (!is_refused(test, file))
            wrong = "a checkpoint that was altered was restored";
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    bytes[length] = 0;
    write_file(file, bytes, length + 1);
    if (!wrong && !is_refused(test, file))
        wrong = "a checkpoint with more behind it was restored";
    write_file(file, bytes, length);
    if (!wrong && checkpoint_restore(test, file, &error) != 0)
        wrong = error.text;
    if (!wrong && flows_of(test) == 0)
        wrong = "no flows were restored";
    sm_test_destroy(test, NULL);
    sm_trace_destroy(input);
    sm_trace_destroy(nothing);
    return wrong;
}

/* The next switch has taken back what there was, and it can be restored as if that had not been. */
static const char *is_as_before(struct sm_test *test, const uint8_t *secret, const char *file)
{
    if (test->sw->error[0])
        return test->sw->error;
    if (flows_of(test) > 0)
        return "half of a checkpoint was taken over";
    if (memcmp(state_secret(test->arena->state), secret, STATE_SECRET_BYTES) != 0)
        return "half of a checkpoint has left its secret";
    if (checkpoint_restore(test, file, &error) != 0)
        return error.text;
    return flows_of(test) > 0 ? NULL : "no flows were restored in the end";
}

/* The switch dies after so many steps of restoring, the next one as it takes over. *whole: it was through. */
static const char *cut_after(uint64_t seed, const char *file, unsigned steps, bool *whole)
{
    struct sm_trace *nothing = trace_make(seed, 0, 1);
    const struct sm_test_options options = middlebox(seed, nothing, 3);
    struct sm_test *test;
    struct restore *restore;
    const char *wrong = NULL;
    int result = RESTORE_WAIT;

    uint8_t secret[STATE_SECRET_BYTES];

    if (sm_test_create(&test, &options, &error) != 0 || restore_open(&restore, test->arena, file, &error) != 0)
        abort();
    memcpy(secret, state_secret(test->arena->state), sizeof secret);
    for (unsigned i = 0; i < steps && (result = restore_step(restore, test->sw, &error)) == RESTORE_WAIT; i++)
        turn(test);
    *whole = result == 0;
    cuts += !*whole && flows_of(test) > 0;
    sm_test_kill_at(test, SM_TEST_SWITCH, SM_TEST_ANYWHERE, 1 + (seed * 31 + steps * 97ull) % 2000);
    test_switch_died(test);
    twice += test->condemned == 0;
    test->condemned = 0; /* where it has not come that far */
    restore_close(restore);
    if (!*whole)
        wrong = is_as_before(test, secret, file);
    else if (flows_of(test) == 0)
        wrong = "what was restored is gone with the switch";
    if (wrong && wrong != error.text)
        snprintf(error.text, sizeof error.text, "%s", wrong);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(nothing);
    return wrong ? error.text : NULL;
}

const char *cut_test(uint64_t seed, const char *file)
{
    struct sm_trace *input;
    struct sm_test *test = with_flows(seed, file, &input);
    const char *wrong = NULL;
    bool whole = false;

    sm_test_destroy(test, NULL);
    sm_trace_destroy(input);
    for (unsigned steps = 0; !wrong && !whole; steps++)
        wrong = cut_after(seed, file, steps, &whole);
    printf("%u restores were cut, in %u runs the next switch died too\n", cuts, twice);
    return wrong || cuts > 0 ? wrong : "no restore was cut";
}

static int no_fields(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "opaque", .record_size = 8, .granularity = SM_BY_HOST_PAIR};
    sm_class cls;

    (void)user;
    return sm_class_register(replica, &options, &cls);
}

static void pass(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    (void)replica, (void)packet, (void)user;
}

static const char *refused_as(struct sm_test_options options, const char *file, const char *words)
{
    struct sm_test *test;

    if (sm_test_create(&test, &options, &error) != 0)
        abort();
    bool refused = is_refused(test, file);
    sm_test_destroy(test, NULL);
    if (refused && strstr(error.text, words))
        return NULL;
    printf("%s; expected: %s\n", error.text, words);
    return "a checkpoint that does not fit was not refused as it should";
}

const char *refusal_test(uint64_t seed, const char *file)
{
    struct sm_trace *input, *nothing = trace_make(seed, 0, 1);
    struct sm_test *test = with_flows(seed, file, &input);
    struct sm_test_options options = middlebox(seed, nothing, 3);
    const char *wrong = NULL;

    if (checkpoint_restore(test, file, &error) != SM_E_STATE || !strstr(error.text, "where there are none"))
        wrong = "a checkpoint was restored where there are flows";
    sm_test_destroy(test, NULL);
    options.max_flows = 2;
    if (!wrong)
        wrong = refused_as(options, file, "no room for a flow of class");
    options.max_flows = 0;
    options.setup = no_fields;
    options.replicas = 1;
    options.on_packet = pass;
    options.ended = NULL;
    if (!wrong)
        wrong = refused_as(options, file, "not one of this middlebox's");
    if (!wrong && (sm_test_create(&test, &options, &error) != 0 ||
                   checkpoint_take(test, file, NOTHING, &error) != SM_E_CONFLICT || !strstr(error.text, "'opaque'")))
        wrong = "a class that cannot be copied was not refused by its name";
    sm_test_destroy(test, NULL);
    if (!wrong)
        wrong = refused_as(middlebox(seed, nothing, 1), "/nonexistent/checkpoint", "No such file");
    sm_trace_destroy(input);
    sm_trace_destroy(nothing);
    return wrong;
}

/* Shared objects, as they go into a checkpoint; and whether stripes may. */
static size_t shared_bytes(const struct sm_test *test, uint8_t *bytes, size_t size)
{
    const struct codec_buffer no_shares = {0};
    struct codec_buffer out = {.bytes = bytes, .size = size - STATE_STRIPES};

    if (shared_encode(test->arena, &no_shares, &out) != 0)
        abort();
    for (uint32_t stripe = SM_SHARDS; stripe < SM_SHARDS + STATE_STRIPES; stripe++)
        bytes[out.used++] = arena_is_settled(test->arena, stripe);
    return out.used;
}

const char *scribbled_test(uint64_t seed)
{
    struct sm_trace *input = trace_make(seed, 0, PACKETS);
    struct sm_test_options options = middlebox(seed, input, 2);
    uint8_t before[4096], after[4096];
    const char *wrong = NULL;
    struct sm_test *test;

    options.schedule = false;
    if (sm_test_create(&test, &options, &error) != 0 || sm_test_until_packet(test, PACKETS / 2) != 0)
        abort();
    const unsigned slot = 1;
    struct channel *channel = arena_channel(test->arena, 0, slot);
    const size_t length = shared_bytes(test, before, sizeof before);
    memset(&channel->ring_mask, 0x5a, sizeof *channel - offsetof(struct channel, ring_mask));
    if (shared_bytes(test, after, sizeof after) != length || memcmp(before, after, length) != 0)
        wrong = "a replica that wrote on its channel changed what others read of it";
    sm_test_kill(test, test->sw->slots[slot].id);
    if (sm_test_finish(test) != 0)
        wrong = sm_test_result(test)->broken;
    sm_test_destroy(test, NULL);
    sm_trace_destroy(input);
    return wrong || counted == PACKETS ? wrong : "packets of a replica that wrote on its channel were lost";
}
