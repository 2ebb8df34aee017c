/* SPDX-License-Identifier: BSD-2-Clause */

/* What a new version must not be: each is refused with a line that says why, and the service goes on as it was. */

#include <stdio.h>
#include <string.h>

#include "versions.h"

struct old {
    uint32_t a, b;
};

#define WHOLE(name_, at, bytes)                                                                                        \
    {                                                                                                                  \
        .name = name_, .type = SM_FIELD_UINT, .offset = at, .size = bytes                                              \
    }

static const struct sm_field old_fields[] = {WHOLE("a", 0, 4), WHOLE("b", 4, 4)};
static const struct sm_field text_fields[] = {{.name = "a", .type = SM_FIELD_TEXT, .offset = 0, .size = 4},
                                              WHOLE("b", 4, 4)};

static int no_upgrade(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, const void *old,
                      size_t old_size, void *user)
{
    (void)replica, (void)cls, (void)flow, (void)version, (void)old, (void)old_size, (void)user;
    return SM_E_INVALID;
}

/* What the next setup registers. */
static const struct attempt {
    const char *name, *second;
    uint32_t version, size;
    const struct sm_field *fields;
    unsigned field_count;
    enum sm_granularity granularity;
    uint32_t alloc_limit, oldest;
    bool upgrades;
    const char *counter, *reason;
    const char *says;
} attempts[] = {
    {"pair", "all", 1, 8, old_fields, 2, SM_BY_FLOW, 0, 0, false, "total", "no", NULL},
    {"other", "all", 2, 8, old_fields, 2, SM_BY_FLOW, 0, 0, false, "total", "no", "classes keep their order"},
    {"pair", "all", 2, 8, old_fields, 2, SM_BY_HOST_PAIR, 0, 0, false, "total", "no", "keys cannot change"},
    {"pair", "none", 2, 8, old_fields, 2, SM_BY_FLOW, 0, 0, false, "total", "no", "'none' in the new one"},
    {"pair", NULL, 2, 8, old_fields, 2, SM_BY_FLOW, 0, 0, false, "total", "no", "'all' is missing"},
    {"pair", "all", 1, 8, old_fields, 1, SM_BY_FLOW, 0, 0, false, "total", "no", "has to be another"},
    {"pair", "all", 2, 8, text_fields, 2, SM_BY_FLOW, 0, 0, false, "total", "no", "differ in type"},
    {"pair", "all", 2, 8, NULL, 0, SM_BY_FLOW, 0, 0, false, "total", "no", "no upgrade callback"},
    {"pair", "all", 2, 8, NULL, 0, SM_BY_FLOW, 0, 0, true, "total", "no", "no way back (it takes --no-rollback)"},
    {"pair", "all", 2, 8, old_fields, 2, SM_BY_FLOW, 0, 2, false, "total", "no", "older than it reads"},
    {"pair", "all", 2, 8, old_fields, 2, SM_BY_FLOW, 0, 0, false, "sum", "no", "shared object 'total'"},
    {"pair", "all", 2, 8, old_fields, 2, SM_BY_FLOW, 0, 0, false, "total", "yes", "reasons keep their order"},
};

static const struct attempt *next;

static int setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = next->name,
        .version = next->version,
        .record_size = next->size,
        .fields = next->fields,
        .field_count = next->field_count,
        .granularity = next->granularity,
        .alloc_limit = next->alloc_limit,
        .oldest_version = next->oldest,
        .upgrade = next->upgrades ? no_upgrade : NULL,
    };
    const struct sm_class_options shared = {.size = sizeof shared,
                                            .name = next->second,
                                            .version = 1,
                                            .record_size = 8,
                                            .granularity = SM_BY_ALL,
                                            .may_share = true};
    sm_counter counter;
    uint16_t reason;
    sm_class cls;

    (void)user;
    int result = sm_drop_reason(replica, next->reason, &reason);
    if (result == 0)
        result = sm_counter_register(replica, next->counter, &counter);
    if (result == 0)
        result = sm_class_register(replica, &options, &cls);
    if (result == 0 && next->second)
        result = sm_class_register(replica, &shared, &cls);
    return result;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    sm_flow flow;
    bool created;

    (void)user;
    if (sm_flow_create(replica, (sm_class){0}, packet, 0, &flow, &created) == 0)
        ((struct old *)flow.state)->a++;
}

unsigned refusals(const struct sm_trace *trace)
{
    const struct sm_test_options options = {
        .size = sizeof options, .on_packet = on_packet, .setup = setup, .input = trace, .replicas = 2};
    const struct sm_test_upgrade upgrade = {.size = sizeof upgrade, .on_packet = on_packet, .setup = setup};
    const unsigned count = sizeof attempts / sizeof *attempts;
    struct sm_errbuf error = {""};
    struct sm_test *test;
    unsigned failures = 0;

    next = &attempts[0];
    if (sm_test_create(&test, &options, &error) != 0) {
        printf("FAILED: %s\n", error.text);
        return 1;
    }
    for (unsigned i = 1; i < count; i++) {
        sm_test_until_packet(test, 100 * i);
        next = &attempts[i];
        error.text[0] = '\0';
        int result = sm_test_upgrade(test, &upgrade, &error);
        bool right = result == SM_E_CONFLICT && strstr(error.text, attempts[i].says);
        if (!right || sm_test_replicas(test) != 2)
            printf("FAILED: expected '%s', got %d '%s'\n", attempts[i].says, result, error.text);
        failures += !right;
    }
    if (sm_test_finish(test) != 0) {
        printf("FAILED: the service did not go on: %s\n", sm_test_result(test)->broken);
        failures++;
    }
    sm_test_destroy(test, NULL);
    return failures;
}
