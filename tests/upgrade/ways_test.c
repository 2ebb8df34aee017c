/* SPDX-License-Identifier: BSD-2-Clause */

/* Which ways there are from one version of a class to another, and who may read whose flows, case by case; and what
 * becomes of flows that cannot go one. */

#include <criterion/criterion.h>
#include <splitmerge/testing.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "arena/builds.h"
#include "state/form.h"
#include "state/layout.h"
#include "testing/test.h"

/* ---- forms ---- */

enum { PLAIN, WIDER, TEXT, BYTES, LAYOUTS };

static struct state_class form(uint32_t version, unsigned layout)
{
    struct state_class cls = {.name = "c", .version = version, .record_size = 8, .partitioned = true};

    if (layout != BYTES) {
        cls.field_count = layout == WIDER ? 1 : 2;
        for (unsigned i = 0; i < cls.field_count; i++) {
            snprintf(cls.fields[i].name, sizeof cls.fields[i].name, "%c", 'a' + (int)i);
            cls.fields[i].type = layout == TEXT && i == 0 ? SM_FIELD_TEXT : SM_FIELD_UINT;
            cls.fields[i].size = layout == WIDER ? 8 : 4;
            cls.fields[i].offset = (uint16_t)(4 * i);
        }
    }
    cls.copy = (uint8_t)layout_copy(&cls, false);
    return cls;
}

Test(ways, of_forms)
{
    static const struct {
        uint32_t from, to;
        unsigned from_layout, to_layout;
        uint32_t from_alloc, to_alloc, oldest;
        bool upgrades, downgrades, binds;
        enum form_way way;
        const char *says;
    } rows[] = {
        {1, 1, PLAIN, PLAIN, 0, 0, 0, false, false, false, FORM_COPY, ""},
        {1, 1, PLAIN, WIDER, 0, 0, 0, true, true, false, FORM_NONE, "has to be another"},
        {1, 1, PLAIN, PLAIN, 64, 32, 0, true, true, false, FORM_NONE, "may hold more"},
        {1, 1, PLAIN, PLAIN, 32, 64, 0, false, false, false, FORM_COPY, ""},
        {1, 2, PLAIN, PLAIN, 0, 0, 0, false, false, false, FORM_COPY, ""},
        {1, 2, PLAIN, WIDER, 0, 0, 0, false, false, false, FORM_FIELDS, ""},
        {1, 2, PLAIN, WIDER, 0, 0, 1, false, true, false, FORM_FIELDS, ""},
        {1, 2, PLAIN, WIDER, 0, 0, 2, true, true, false, FORM_NONE, "older than it reads"},
        {1, 2, PLAIN, WIDER, 0, 0, 0, true, false, false, FORM_UPGRADE, ""},
        {1, 2, PLAIN, TEXT, 0, 0, 0, false, false, false, FORM_NONE, "differ in type"},
        {1, 2, BYTES, BYTES, 0, 0, 0, false, true, false, FORM_NONE, "no upgrade callback"},
        {1, 2, BYTES, PLAIN, 0, 0, 0, true, false, false, FORM_UPGRADE, ""},
        {2, 1, WIDER, PLAIN, 0, 0, 0, true, false, false, FORM_FIELDS, ""},
        {2, 1, WIDER, PLAIN, 0, 0, 0, false, true, false, FORM_DOWNGRADE, ""},
        {2, 1, BYTES, BYTES, 0, 0, 0, true, false, false, FORM_NONE, "no downgrade callback"},
        {2, 1, BYTES, BYTES, 0, 0, 0, false, true, false, FORM_DOWNGRADE, ""},
        {1, 2, PLAIN, PLAIN, 0, 0, 0, true, true, true, FORM_NONE, "bind keys to its flows cannot change"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state_class from = form(rows[i].from, rows[i].from_layout), to = form(rows[i].to, rows[i].to_layout);
        struct sm_errbuf error = {""};
        from.alloc_limit = rows[i].from_alloc;
        to.alloc_limit = rows[i].to_alloc;
        to.oldest = rows[i].oldest;
        to.upgrades = rows[i].upgrades;
        from.downgrades = rows[i].downgrades;
        strcpy(to.binds, rows[i].binds ? "tcp" : "");
        cr_expect_eq(form_way(&from, &to, &error), rows[i].way, "row %zu: %s", i, error.text);
        cr_expect_not_null(strstr(error.text, rows[i].says), "row %zu: %s", i, error.text);
    }
}

/* Records with addresses of code: of the build 7 at place 5. */
Test(ways, of_code)
{
    static const struct {
        uint32_t to;
        uint64_t code, build;
        bool upgrades;
        enum form_way way;
        const char *says;
    } rows[] = {
        {1, 5, 7, false, FORM_COPY, ""},
        {1, 6, 7, true, FORM_NONE, "is at another place here"},
        {1, 5, 8, true, FORM_NONE, "of another build here"},
        {1, 0, 0, true, FORM_NONE, "of another build here"},
        {2, 6, 8, false, FORM_NONE, "no upgrade callback"},
        {2, 6, 8, true, FORM_UPGRADE, ""},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct state_class from = form(1, PLAIN), to = form(rows[i].to, PLAIN);
        struct sm_errbuf error = {""};
        from.code = 5, from.code_build = 7;
        from.copy = (uint8_t)layout_copy(&from, false);
        to.code = rows[i].code, to.code_build = rows[i].build;
        to.copy = (uint8_t)layout_copy(&to, false);
        to.upgrades = rows[i].upgrades;
        cr_expect_eq(form_way(&from, &to, &error), rows[i].way, "row %zu: %s", i, error.text);
        cr_expect_not_null(strstr(error.text, rows[i].says), "row %zu: %s", i, error.text);
    }
}

Test(ways, of_timers)
{
    struct state_class from = form(1, PLAIN), to = form(2, PLAIN);
    struct form_timers timers;

    from.timers = 2; /* one of its own, and the idle timeout's */
    from.idle_ns = 100;
    to.timers = 4;
    to.idle_ns = 40;
    to.hard_ns = 9;
    form_timers(&from, &to, &timers);
    cr_expect_eq(timers.slots[0], 0);
    cr_expect_eq(timers.slots[1], 2);
    cr_expect_eq(timers.shift[1], -60);
    form_timers(&to, &from, &timers);
    cr_expect_eq(timers.slots[1], STATE_TIMERS, "a slot that the other has not");
    cr_expect_eq(timers.slots[2], 1);
    cr_expect_eq(timers.shift[2], 60);
    cr_expect_eq(timers.slots[3], STATE_TIMERS, "nor a timeout");
    from.timers = 3;
    from.hard_ns = 4;
    form_timers(&from, &to, &timers);
    cr_expect_eq(timers.slots[2], 3);
    cr_expect_eq(timers.shift[2], 5);
}

/* ---- builds ---- */

static struct arena *arena;
static int arena_fd;
static struct sm_errbuf error;

static void open_arena(void)
{
    const struct arena_options options = {
        .service = "ways", .seed = 1, .memory = 1u << 20, .flows = 16, .small_buffers = 120};

    cr_assert_eq(arena_create(&arena, &arena_fd, &options, &error), 0, "%s", error.text);
}

static void close_arena(void)
{
    arena_unmap(arena);
    close(arena_fd);
}

static int enter(unsigned slot, uint32_t version, unsigned layout, bool upgrades, bool downgrades)
{
    static struct registration registration;

    registration = (struct registration){.middlebox = "m", .class_count = 1};
    registration.classes[0] = form(version, layout);
    registration.classes[0].partitioned = false; /* that is for the arena to say */
    registration.classes[0].upgrades = upgrades;
    registration.classes[0].downgrades = downgrades;
    return arena_register(arena, slot, &registration, &error);
}

/* Replicas of one build need its code at one place, and an object that tells its build. */
Test(builds, of_code, .init = open_arena, .fini = close_arena)
{
    static struct registration registration;

    registration = (struct registration){.middlebox = "m", .class_count = 1};
    registration.classes[0] = form(1, BYTES);
    registration.classes[0].partitioned = false;
    registration.classes[0].code = 5;
    cr_expect_eq(arena_register(arena, 0, &registration, &error), SM_E_INVALID);
    cr_expect_not_null(strstr(error.text, "without a build id"), "%s", error.text);
    registration.classes[0].code_build = 7;
    cr_expect_eq(arena_register(arena, 0, &registration, &error), 0);
    cr_expect_eq(arena_register(arena, 1, &registration, &error), 0);
    registration.classes[0].code = 6;
    cr_expect_eq(arena_register(arena, 2, &registration, &error), SM_E_CONFLICT);
    cr_expect_not_null(strstr(error.text, "link it with -no-pie"), "%s", error.text);
    registration.classes[0].code_build = 8;
    cr_expect_eq(arena_register(arena, 2, &registration, &error), SM_E_CONFLICT);
    cr_expect_not_null(strstr(error.text, "of another build here"), "%s", error.text);
}

Test(builds, one_after_the_other, .init = open_arena, .fini = close_arena)
{
    cr_assert_eq(enter(0, 1, PLAIN, false, false), 0);
    cr_expect_eq(enter(1, 2, WIDER, false, false), SM_E_CONFLICT, "nobody has let it in");
    cr_assert_eq(builds_open(arena, false, false, &error), 0);
    cr_expect(!builds_next(arena));
    cr_assert_eq(enter(1, 2, WIDER, false, false), 0, "%s", error.text);
    cr_expect(builds_next(arena) && builds_is_base(arena, 0) && !builds_is_base(arena, 1));
    cr_expect(builds_inherits(arena, 0, 1) && builds_inherits(arena, 1, 0));
    cr_expect(!builds_returns(arena, 1), "it need not: the old one reads what it writes");
    cr_expect_eq(enter(2, 3, PLAIN, false, false), SM_E_CONFLICT, "two at a time");
    cr_expect_eq(enter(2, 1, PLAIN, false, false), 0, "either may still come");
    builds_close(arena, true);
    builds_close(arena, true);
    cr_expect(builds_is_base(arena, 1) && !builds_is_base(arena, 0), "closing it twice is closing it once");
    cr_expect_eq(builds_class(arena, 0)->version, 2);
    cr_expect_null(builds_class(arena, 1));
    cr_expect_eq(enter(3, 1, PLAIN, false, false), SM_E_CONFLICT);
    cr_assert_eq(builds_open(arena, false, false, &error), 0);
    cr_assert_eq(enter(4, 3, PLAIN, false, false), 0, "%s", error.text);
    cr_expect_eq(builds_number(arena, 4), 3);
    builds_close(arena, false);
    cr_expect(builds_is_base(arena, 1) && !builds_next(arena));
    arena->build_count = ARENA_MIXED - 1;
    cr_expect_eq(builds_open(arena, false, false, &error), SM_E_LIMIT);
}

Test(builds, brought_back_by_the_new_one, .init = open_arena, .fini = close_arena)
{
    cr_assert_eq(enter(0, 1, BYTES, false, false), 0);
    builds_open(arena, false, false, &error);
    cr_assert_eq(enter(1, 2, BYTES, true, true), 0, "%s", error.text);
    cr_expect(builds_returns(arena, 1) && !builds_returns(arena, 0));
    cr_expect(builds_inherits(arena, 1, 0) && !builds_inherits(arena, 0, 1));
    cr_expect(builds_reads(arena, 0, 1) && !builds_reads(arena, 0, 2));
    builds_close(arena, true);
    builds_open(arena, false, false, &error);
    cr_expect_eq(enter(2, 1, BYTES, true, false), SM_E_CONFLICT);
    cr_expect_not_null(strstr(error.text, "is older than the service's (2)"), "%s", error.text);
}

Test(builds, no_way_back, .init = open_arena, .fini = close_arena)
{
    cr_assert_eq(enter(0, 1, BYTES, false, false), 0);
    builds_open(arena, false, false, &error);
    cr_expect_eq(enter(1, 2, BYTES, true, false), SM_E_CONFLICT, "it takes --no-rollback");
    builds_open(arena, true, false, &error);
    cr_assert_eq(enter(1, 2, BYTES, true, false), 0, "%s", error.text);
    cr_expect(!builds_reads(arena, 0, 2) && !builds_returns(arena, 1));
    /* It has failed, and has left a shard half in its forms. */
    arena->shard_build[7] = ARENA_MIXED;
    cr_expect_eq(builds_of_shard(arena, 7), 2);
    builds_open(arena, true, true, &error);
    cr_expect(builds_next(arena), "the same goes on");
    cr_expect_eq(enter(2, 3, BYTES, true, true), SM_E_CONFLICT, "and no other");
    cr_expect_eq(enter(2, 2, BYTES, true, false), 0);
    builds_open(arena, true, false, &error);
    cr_expect_eq(builds_of_shard(arena, 7), 2, "whether replicas of it are there or not");
    cr_assert_eq(enter(2, 3, BYTES, true, true), 0, "another is tried");
    cr_expect(!builds_returns(arena, 2), "there is no way back for what is left of the one before");
    arena->shard_build[7] = 1;
    builds_open(arena, true, false, &error);
    cr_assert_eq(enter(2, 3, BYTES, true, true), 0);
    cr_expect(builds_returns(arena, 2), "now there is");
}

/* ---- flows that do not go ---- */

static const struct sm_field one_byte[] = {{.name = "a", .type = SM_FIELD_UINT, .offset = 0, .size = 1}},
                             eight_bytes[] = {{.name = "a", .type = SM_FIELD_UINT, .offset = 0, .size = 8}};

static int setup(struct sm_replica *replica, uint32_t version, bool wide, bool more)
{
    struct sm_class_options options = {.size = sizeof options, .name = "pair", .version = version, .field_count = 1};
    sm_class cls;

    options.record_size = wide ? 8 : 1;
    options.fields = wide ? eight_bytes : one_byte;
    int result = sm_class_register(replica, &options, &cls);
    options.name = "more";
    return result || !more ? result : sm_class_register(replica, &options, &cls);
}

static int setup_narrow(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica, 1, false, false);
}

static int setup_wide(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica, 2, true, true);
}

static int setup_narrower(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica, 2, false, false);
}

static int setup_wide_first(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica, 1, true, false);
}

static void on_narrow(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    cr_assert_eq(sm_flow_create(replica, (sm_class){0}, packet, 0, &flow, NULL), 0);
    *(uint8_t *)flow.state = 1;
}

/* Half of the flows get a value that one byte has no room for. */
static void on_wide(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;

    (void)user;
    cr_assert_eq(sm_flow_create(replica, (sm_class){0}, packet, 0, &flow, NULL), 0);
    *(uint64_t *)flow.state = sm_flow_key(flow)->a_port % 2 ? 300 : 1;
    if (replica->class_count > 1)
        cr_assert_eq(sm_flow_create(replica, (sm_class){1}, packet, 0, &flow, NULL), 0);
}

struct kinds {
    uint64_t fit, too_large, more;
};

static bool count(const struct sm_test_flow *flow, void *arg)
{
    struct kinds *kinds = arg;

    if (flow->cls.id == 1)
        kinds->more++;
    else if (flow->record_size == 8 && *(const uint64_t *)flow->record > 255)
        kinds->too_large++;
    else
        kinds->fit++;
    return true;
}

static struct sm_trace *packets(void)
{
    struct sm_trace *trace = sm_trace_create();
    char from[32];

    for (unsigned i = 0; i < 3000; i++) {
        snprintf(from, sizeof from, "10.0.0.1:%u", 1024 + i % 200);
        sm_trace_udp(trace, (sm_time){1000000000000ull + i * 1000}, from, "10.0.0.2:53", NULL, 0);
    }
    return trace;
}

static struct kinds kinds_of(const struct sm_test *test)
{
    struct kinds kinds = {0};

    sm_test_flows(test, count, &kinds);
    return kinds;
}

static uint64_t unconverted(const struct sm_test *test)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        sum += test->arena->unconverted[i];
    return sum;
}

Test(ways, what_does_not_fit_on_the_way_back_ends)
{
    struct sm_trace *trace = packets();
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_narrow, .setup = setup_narrow, .input = trace, .replicas = 2};
    const struct sm_test_upgrade wide = {.size = sizeof wide, .on_packet = on_wide, .setup = setup_wide};
    struct sm_test *test;

    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    sm_test_until_packet(test, 500);
    cr_assert_eq(sm_test_upgrade(test, &wide, &error), 0, "%s", error.text);
    sm_test_until_packet(test, 2999);
    struct kinds before = kinds_of(test);
    cr_assert(before.fit > 0 && before.too_large > 0 && before.more > 0);
    cr_assert_eq(sm_test_upgrade_back(test), 0);
    cr_assert_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    struct kinds after = kinds_of(test);
    cr_expect_eq(after.more + after.too_large, 0);
    cr_expect(after.fit >= before.fit && after.fit <= before.fit + 1, "%llu of %llu are left",
              (unsigned long long)after.fit, (unsigned long long)before.fit);
    cr_expect_eq(unconverted(test), before.too_large + before.more);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

/* Forward no flow is lost: the replica that cannot read it fails, and the upgrade is taken back. */
Test(ways, what_does_not_fit_on_the_way_forward_stays)
{
    struct sm_trace *trace = packets();
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_wide, .setup = setup_wide_first, .input = trace, .replicas = 2};
    const struct sm_test_upgrade narrow = {
        .size = sizeof narrow, .on_packet = on_narrow, .setup = setup_narrower, .forward_only = false};
    struct sm_test *test;

    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    sm_test_until_packet(test, 500);
    cr_assert_eq(sm_test_upgrade(test, &narrow, &error), 0, "%s", error.text);
    for (unsigned i = 0; i < 100 && sm_test_step(test) == 0;)
        i += sm_test_result(test)->deaths > 0;
    cr_expect_gt(sm_test_result(test)->deaths, 0);
    sm_test_upgrade_back(test);
    cr_assert_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    struct kinds after = kinds_of(test);
    cr_expect_eq(after.fit + after.too_large, 200, "%llu and %llu", (unsigned long long)after.fit,
                 (unsigned long long)after.too_large);
    cr_expect_gt(after.too_large, 0);
    cr_expect_eq(unconverted(test), 0);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

/* ---- a shard in two forms ---- */

enum { FLOWS_A_PACKET = 60, BIG_PACKETS = 500 };

/* Flows of one key, and so of one shard: more than one change to the journal can hold. */
static void on_big(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const uint64_t number = sm_packet_time(packet).ns / 1000 % 1000000;
    sm_flow flow;

    (void)user;
    for (unsigned i = 0; i < FLOWS_A_PACKET && number < BIG_PACKETS; i++) {
        uint16_t tag = (uint16_t)(number * FLOWS_A_PACKET + i);
        cr_assert_eq(sm_flow_create(replica, (sm_class){0}, packet, tag, &flow, NULL), 0);
        *(uint8_t *)flow.state = 7;
    }
}

static bool by_size(const struct sm_test_flow *flow, void *arg)
{
    struct kinds *kinds = arg;

    *(flow->record_size == 1 ? &kinds->fit : &kinds->more) += *(const uint8_t *)flow->record == 7;
    return true;
}

static uint32_t place_of(const char *function)
{
    for (unsigned i = 0; i < sm_test_places(); i++)
        if (strncmp(sm_test_place_name(i), function, strlen(function)) == 0)
            return i;
    return SM_TEST_ANYWHERE;
}

static unsigned mixed(const struct sm_test *test)
{
    unsigned shards = 0;

    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        shards += test->arena->shard_build[shard] == ARENA_MIXED;
    return shards;
}

Test(ways, a_death_in_the_midst_of_a_shard)
{
    struct sm_trace *trace = sm_trace_create();
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_big, .setup = setup_narrow, .input = trace, .replicas = 1};
    const struct sm_test_upgrade wide = {.size = sizeof wide, .on_packet = on_big, .setup = setup_wide};
    struct sm_test *test;
    struct kinds there = {0};

    for (unsigned i = 0; i < 2 * BIG_PACKETS; i++)
        sm_trace_udp(trace, (sm_time){1000000000000ull + i * 1000}, "10.0.0.1:7", "10.0.0.2:53", NULL, 0);
    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    sm_test_until_packet(test, BIG_PACKETS);
    cr_assert_eq(sm_test_upgrade(test, &wide, &error), 0, "%s", error.text);
    cr_assert_eq(sm_test_kill_at(test, 2, place_of("replica_progress "), 1), 0);
    while (sm_test_result(test)->deaths == 0)
        cr_assert_eq(sm_test_step(test), 0);
    sm_test_flows(test, by_size, &there);
    cr_expect(there.fit > 0 && there.more > 0, "%llu in the old form, %llu in the new one",
              (unsigned long long)there.fit, (unsigned long long)there.more);
    cr_assert_eq(sm_test_upgrade_back(test), 0);
    cr_assert_eq(sm_test_finish(test), 0, "%s", sm_test_result(test)->broken);
    there = (struct kinds){0};
    sm_test_flows(test, by_size, &there);
    cr_expect_eq(there.fit, FLOWS_A_PACKET * BIG_PACKETS, "%llu are left in the old form",
                 (unsigned long long)there.fit);
    cr_expect_eq(there.more, 0);
    cr_expect_eq(mixed(test), 0);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

/* ---- held packets whose move leads elsewhere ---- */

static int turn_bytes(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, const void *from,
                      size_t from_size, void *user)
{
    (void)replica, (void)cls, (void)version, (void)user;
    memcpy(flow.state, from, from_size);
    return 0;
}

static int setup_bytes(struct sm_replica *replica, uint32_t version)
{
    const struct sm_class_options options = {.size = sizeof options,
                                             .name = "pair",
                                             .version = version,
                                             .record_size = 8,
                                             .upgrade = turn_bytes,
                                             .downgrade = turn_bytes};
    sm_class cls;

    return sm_class_register(replica, &options, &cls);
}

static int setup_bytes_one(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup_bytes(replica, 1);
}

static int setup_bytes_two(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup_bytes(replica, 2);
}

static bool has_packet_of(const struct sm_test *test, unsigned slot, uint32_t shard)
{
    for (uint32_t i = 0; i < test->sw->buffers; i++)
        if (test->sw->packets[i].place == PLACE_RING && test->sw->packets[i].slot == slot &&
            test->sw->packets[i].shard == shard)
            return true;
    return false;
}

/* The owner of a shard with flows that is being given back, with packets that it still has and others that wait for the
 * next owner, or without; SWITCH_NONE: none. */
static unsigned giving_back(const struct sm_test *test, bool packets_wait)
{
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        const struct switch_shard *s = &test->sw->shards[shard];
        if (move_under_way(&s->move) && !builds_is_base(test->arena, s->owner) &&
            state_shard_flows(test->arena->state, shard) > 0 &&
            (!packets_wait || (s->hold_head != POOL_NONE && has_packet_of(test, s->owner, shard))))
            return s->owner;
    }
    return SWITCH_NONE;
}

/* Whether a shard's packets wait in the order in which they came. */
static bool held_in_order(const struct sm_switch *sw, const struct switch_shard *shard)
{
    for (uint32_t at = shard->hold_head, next; at != POOL_NONE && (next = sw->packets[at].next) != POOL_NONE; at = next)
        if (sw->packets[at].sequence > sw->packets[next].sequence)
            return false;
    return true;
}

/* The old version cannot take the shards as they are: another new replica does, or they wait for one. */
static void dies_while_it_gives_back(unsigned replicas, struct sm_trace *trace)
{
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_narrow, .setup = setup_bytes_one, .input = trace, .replicas = replicas};
    const struct sm_test_upgrade two = {.size = sizeof two, .on_packet = on_narrow, .setup = setup_bytes_two};
    struct check_findings findings;
    struct sm_test *test;

    cr_assert_eq(sm_test_create(&test, &options, &error), 0, "%s", error.text);
    switch_gate(test->sw, 100, false, 0);
    sm_test_until_packet(test, 100);
    cr_assert_eq(sm_test_upgrade(test, &two, &error), 0, "%s", error.text);
    while (giving_back(test, true) == SWITCH_NONE) {
        sm_test_upgrade_back(test); /* once all is with the new version */
        if (test->sw->state == SWITCH_GATED && giving_back(test, false) != SWITCH_NONE) {
            switch_gate(test->sw, test->sw->entered + 50, false, 0);
            switch_open_gate(test->sw);
        }
        cr_assert_eq(sm_test_step(test), 0, "no packet came for a shard that was given back");
    }
    cr_assert_eq(sm_test_kill(test, test->sw->slots[giving_back(test, true)].id), 0);
    switch_check_now(test->sw, false, &findings);
    cr_expect_eq(findings.count, 0, "with %u: %s", replicas, findings.lines[0]);
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        cr_expect(held_in_order(test->sw, &test->sw->shards[shard]), "with %u: shard %u", replicas, shard);
    sm_test_destroy(test, NULL);
}

Test(ways, held_for_a_move_that_leads_elsewhere)
{
    struct sm_trace *trace = packets();

    dies_while_it_gives_back(2, trace);
    dies_while_it_gives_back(1, trace);
    sm_trace_destroy(trace);
}
