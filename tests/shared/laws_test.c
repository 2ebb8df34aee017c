/* SPDX-License-Identifier: BSD-2-Clause */
/* Combiners alone: the runtime's own keep the laws, the checker finds those that do not, and estimates are as near as
 * documented. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arena/arena.h"
#include "testing/random.h"

static uint64_t random_state;

static uint64_t rnd(void)
{
    return random_star(&random_state);
}

struct value {
    _Alignas(16) uint8_t bytes[SM_MAX_SHARED_SIZE];
};

/* A random contribution; few different numbers, so that equal ones meet. */
static void make(const struct shared_object *object, struct value *value)
{
    struct value single;
    int64_t number = (int64_t)(rnd() % 7) - 3;

    memset(value, 0, sizeof *value);
    for (unsigned i = 0; object->kind == SHARED_DISTINCT && i < 100; i++)
        value->bytes[rnd() % COHERENT_REGISTERS] = (uint8_t)(rnd() % 52);
    if (object->kind == SHARED_DISTINCT)
        return;
    coherent_single(object, value->bytes, &number, rnd() % 3);
    for (unsigned i = 0; object->kind == SHARED_UNION && i < 4; i++) {
        number = (int64_t)(rnd() % 7) - 3;
        coherent_single(object, single.bytes, &number, 0);
        coherent_combine(object, value->bytes, single.bytes);
    }
}

static void check_laws(const struct shared_object *object)
{
    const uint32_t bytes = coherent_value_bytes(object);

    for (unsigned i = 0; i < 20000; i++) {
        struct value a, b, c, ab, ba, bc;
        make(object, &a);
        make(object, &b);
        make(object, &c);
        ab = a, ba = b, bc = b;
        coherent_combine(object, ab.bytes, b.bytes);
        coherent_combine(object, ba.bytes, a.bytes);
        uint32_t used = object->kind == SHARED_UNION ? 8 + (uint32_t)ab.bytes[0] * object->value_bytes : bytes;
        cr_assert(memcmp(ab.bytes, ba.bytes, used) == 0, "%s: commutative", object->name);
        coherent_combine(object, ab.bytes, c.bytes);
        coherent_combine(object, bc.bytes, c.bytes);
        coherent_combine(object, a.bytes, bc.bytes);
        used = object->kind == SHARED_UNION ? 8 + (uint32_t)ab.bytes[0] * object->value_bytes : bytes;
        cr_assert(memcmp(ab.bytes, a.bytes, used) == 0, "%s: associative", object->name);
    }
}

Test(laws, of_the_runtimes_own)
{
    random_state = 1;
    check_laws(&(struct shared_object){.name = "min", .kind = SHARED_MIN});
    check_laws(&(struct shared_object){.name = "max", .kind = SHARED_MAX});
    check_laws(&(struct shared_object){.name = "last", .kind = SHARED_LAST, .value_bytes = 8});
    check_laws(&(struct shared_object){.name = "union", .kind = SHARED_UNION, .value_bytes = 8, .capacity = 9});
    check_laws(&(struct shared_object){.name = "full", .kind = SHARED_UNION, .value_bytes = 8, .capacity = 3});
    check_laws(&(struct shared_object){.name = "distinct", .kind = SHARED_DISTINCT, .value_bytes = 8});
}

static void add(void *into, const void *from, void *user)
{
    *(uint64_t *)into += *(const uint64_t *)from;
    (void)user;
}

static void first(void *into, const void *from, void *user)
{
    if (*(uint64_t *)into == 0)
        *(uint64_t *)into = *(const uint64_t *)from;
    (void)user;
}

/* Commutative, and rounds: not associative. */
static void mean(void *into, const void *from, void *user)
{
    uint64_t a = *(uint64_t *)into, b = *(const uint64_t *)from;

    *(uint64_t *)into = a == 0 ? b : b == 0 ? a : (a + b) / 2;
    (void)user;
}

Test(laws, the_checker_names_the_law_that_is_broken)
{
    const uint64_t values[] = {0, 1, 2, 5, 1000}, nothing = 0, one = 1;
    struct sm_eventual_options options = {.size = sizeof options,
                                          .name = "own",
                                          .combiner = SM_COMBINE,
                                          .value_size = sizeof(uint64_t),
                                          .combine = add,
                                          .identity = &nothing};
    struct sm_errbuf error;

    cr_assert_eq(sm_combiner_check(&options, values, 5, &error), 0);
    options.identity = &one;
    cr_assert_eq(sm_combiner_check(&options, values, 5, &error), SM_E_INVALID);
    cr_assert_str_eq(error.text, "identity: value 0 is changed by it");
    options.identity = &nothing;
    options.combine = first;
    cr_assert_eq(sm_combiner_check(&options, values, 5, &error), SM_E_INVALID);
    cr_assert_str_eq(error.text, "not commutative: values 1 and 2");
    options.combine = mean;
    cr_assert_eq(sm_combiner_check(&options, values, 5, NULL), SM_E_INVALID);
    cr_assert_eq(sm_combiner_check(&options, values, 5, &error), SM_E_INVALID);
    cr_assert_str_eq(error.text, "not associative: values 1, 1 and 3");
    options.combiner = SM_MIN;
    cr_assert_eq(sm_combiner_check(&options, values, 5, &error), SM_E_INVALID);
}

/* Over 20 secrets the mean error of an estimate stays near the documented 1.6 %, from a few to a million. */
Test(laws, estimates_are_as_near_as_documented, .timeout = 60)
{
    struct arena_options options = {.service = "laws", .memory = 1u << 20, .flows = 16};
    const uint64_t counts[] = {1, 50, 3000, 20000, 300000};

    for (unsigned c = 0; c < sizeof counts / sizeof *counts; c++) {
        double squares = 0;
        for (options.seed = 1; options.seed <= 20; options.seed++) {
            uint8_t registers[COHERENT_REGISTERS] = {0}, rank;
            struct sm_errbuf error;
            struct arena *arena;
            int fd;
            cr_assert_eq(arena_create(&arena, &fd, &options, &error), 0);
            for (uint64_t i = 0; i < counts[c]; i++) {
                uint32_t at = coherent_register(arena->state, &i, sizeof i, &rank);
                registers[at] = registers[at] > rank ? registers[at] : rank;
            }
            double error_of = (double)coherent_estimate(registers) / (double)counts[c] - 1;
            squares += error_of * error_of;
            arena_unmap(arena);
            close(fd);
        }
        cr_assert(squares / 20 < 0.025 * 0.025, "%llu: mean square error %f", (unsigned long long)counts[c],
                  squares / 20);
    }
}
