/* SPDX-License-Identifier: BSD-2-Clause */
/* The harness's arithmetic, the plain table it compares with, and the histogram that percentiles come from. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "lengths.h"
#include "rivals/messages.h"
#include "switch/histogram.h"
#include "table.h"
#include "testing/random.h"

static struct samples samples_of(unsigned count, const double *values)
{
    struct samples samples = {.count = 0};

    for (unsigned i = 0; i < count; i++)
        samples_add(&samples, values[i]);
    return samples;
}

Test(harness, median_and_spread)
{
    struct samples none = {.count = 0};
    struct samples one = samples_of(1, (double[]){4});
    struct samples odd = samples_of(3, (double[]){9, 1, 2});
    struct samples even = samples_of(4, (double[]){8, 2, 4, 1});

    cr_assert(samples_median(&none) == 0 && samples_spread(&none) == 0);
    cr_assert(samples_median(&one) == 4 && samples_spread(&one) == 0);
    cr_assert(samples_median(&odd) == 2 && samples_spread(&odd) == 4);
    cr_assert(samples_median(&even) == 3);
    cr_assert(odd.value[0] == 9, "samples stay in the order in which they were measured");
}

Test(harness, ratio_is_taken_by_repetition)
{
    struct samples ours = samples_of(3, (double[]){1, 20, 3}), reference = samples_of(3, (double[]){2, 10, 3});
    struct samples ratio = samples_ratio(&ours, &reference);

    cr_assert(ratio.count == 3 && ratio.value[0] == 0.5 && ratio.value[1] == 2 && ratio.value[2] == 1);
    cr_assert(samples_median(&ratio) == 1);
}

Test(harness, targets)
{
    cr_assert(target_met(&(struct target){TARGET_AT_LEAST, 3}, 3));
    cr_assert_not(target_met(&(struct target){TARGET_AT_LEAST, 3}, 2.9));
    cr_assert(target_met(&(struct target){TARGET_AT_MOST, 1.3}, 1.3));
    cr_assert_not(target_met(&(struct target){TARGET_AT_MOST, 1.3}, 1.31));
    cr_assert(target_met(&(struct target){TARGET_NONE, 0}, -1));
}

Test(harness, targets_are_counted_and_a_missing_reference_meets_none)
{
    static struct report report;
    unsigned targets;

    struct figure *alone = report_figure(&report, "alone", "");
    struct figure *both = report_figure(&report, "both", "");
    struct figure *missing = report_figure(&report, "missing", "");
    alone->ours = samples_of(1, (double[]){7});
    cr_assert(report_met(&report, &targets) == 0 && targets == 0);
    alone->target = (struct target){TARGET_AT_MOST, 7};
    both->target = (struct target){TARGET_AT_LEAST, 1};
    both->ratio = (struct target){TARGET_AT_LEAST, 2};
    both->ours = samples_of(1, (double[]){4});
    both->reference = samples_of(1, (double[]){2});
    missing->ours = samples_of(1, (double[]){4});
    missing->ratio = (struct target){TARGET_AT_MOST, 100};
    strcpy(missing->missing, "not installed");
    cr_assert(report_met(&report, &targets) == 3 && targets == 4);
    report_figure(&report, "not measured", "")->target = (struct target){TARGET_AT_MOST, 0};
    cr_assert(report_met(&report, &targets) == 3 && targets == 5);
    both->reference.value[0] = 4;
    cr_assert(report_met(&report, &targets) == 2 && targets == 5);
}

Test(lengths, are_as_said_and_long_flows_are_met_more_often)
{
    enum { DRAWS = 100000 };
    double sum = 0, left = 0, most = 0;
    unsigned below = 0;
    uint64_t random = 5;

    cr_assert(lengths_quantile(0) == 0.0001 && lengths_quantile(0.5) == 1.1315 && lengths_quantile(1) == 103.3294);
    cr_assert(fabs(lengths_quantile(0.525) - (1.1315 + 2.2476) / 2) < 1e-9);
    for (unsigned i = 0; i < DRAWS; i++) {
        double length = lengths_draw(&random);
        cr_assert(length >= 0.0001 && length <= 103.3294);
        below += length < 1.1315;
        sum += length;
        double residual = lengths_residual(&random);
        left += residual;
        most = fmax(most, residual);
    }
    cr_assert(below > 0.49 * DRAWS && below < 0.51 * DRAWS);
    /* What is left of a flow that is met has the mean E[L^2] / 2 E[L]. */
    double mean = 0, square = 0;
    for (unsigned i = 0; i < DRAWS; i++) {
        double length = lengths_quantile((i + 0.5) / DRAWS);
        mean += length / DRAWS;
        square += length * length / DRAWS;
    }
    cr_assert(fabs(sum / DRAWS / mean - 1) < 0.05 && fabs(left / DRAWS / (square / 2 / mean) - 1) < 0.05);
    cr_assert(most > 95 && most <= 103.3294);
}

Test(plot, keeps_points_and_names_what_is_drawn)
{
    struct plot plot = {.name = "some", .title = "t", .x = "x", .y = "y", .log_x = true};
    struct sm_errbuf error = {{0}};
    char directory[] = "/tmp/plot.XXXXXX", script[4096] = "", data[16384] = "", path[64];

    for (unsigned i = 0; i < 300; i++)
        curve_add(i == 0 ? plot_curve(&plot, "one") : &plot.curves[0], i, 2.0 * i);
    curve_add(plot_curve(&plot, "two"), 5, 1000);
    plot_mark(&plot, "half", false, 300);
    cr_assert(mkdtemp(directory) != NULL);
    FILE *file = fmemopen(script, sizeof script - 1, "w");
    cr_assert(plot_write(&plot, directory, file, &error) == 0, "%s", error.text);
    fclose(file);
    cr_assert(strstr(script, "set output 'some.png'") && strstr(script, "\nset logscale x\nunset logscale y\n"));
    cr_assert(strstr(script, "$mark0 << END\n1 300\n299 300\n"), "a logarithmic axis has no 0: %s", script);
    cr_assert(strstr(script, "index 1 using 1:2 with lines lw 1.5 title \"two\""));
    snprintf(path, sizeof path, "%s/some.dat", directory);
    file = fopen(path, "r");
    cr_assert(file && fread(data, 1, sizeof data - 1, file) > 0);
    fclose(file);
    cr_assert(strncmp(data, "# one\n0 0\n1 2\n", 14) == 0 && strstr(data, "299 598\n\n\n# two\n5 1000\n"));
    cr_assert(plot_write(&plot, "/proc/nowhere", stderr, &error) == SM_E_IO);
    cr_assert_str_eq(error.text, "/proc/nowhere/some.dat: No such file or directory");
    plot_free(&plot);
    unlink(path);
    rmdir(directory);
}

Test(harness, shuffled_is_a_permutation)
{
    enum { COUNT = 1000 };
    bool seen[COUNT] = {false};
    unsigned in_place = 0;
    uint32_t *order = bench_shuffled(COUNT, 7);

    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert(order[i] < COUNT && !seen[order[i]]);
        seen[order[i]] = true;
        in_place += order[i] == i;
    }
    cr_assert(in_place < COUNT / 10);
    free(order);
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

Test(histogram, quantiles_are_those_of_the_sorted_values)
{
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    static struct histogram histogram;
    const double shares[] = {0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    uint64_t random = 42;

    cr_assert(histogram_quantile(&histogram, 0.5) == 0);
    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = random_star(&random) >> (random_star(&random) % 64); /* of all magnitudes */
        histogram_add(&histogram, values[i]);
    }
    qsort(values, COUNT, sizeof *values, by_value);
    for (unsigned i = 0; i < sizeof shares / sizeof *shares; i++) {
        unsigned rank = (unsigned)(shares[i] * COUNT);
        uint64_t exact = values[rank < COUNT ? rank : COUNT - 1], got = histogram_quantile(&histogram, shares[i]);
        cr_assert(got >= exact && got - exact <= exact / 32, "share %f: %llu for %llu", shares[i],
                  (unsigned long long)got, (unsigned long long)exact);
    }
    cr_assert(histogram.max == values[COUNT - 1] && histogram_quantile(&histogram, 1) == histogram.max);
}

Test(table, keeps_what_a_plain_array_keeps)
{
    enum { KEYS = 500, STEPS = 200000 };
    struct table table;
    uint32_t kept[KEYS] = {0}, count = 0; /* 0: not there */
    uint64_t random = 3;

    cr_assert(table_init(&table, KEYS, sizeof(uint32_t)));
    for (uint32_t step = 1; step <= STEPS; step++) {
        uint32_t index = (uint32_t)(random_star(&random) >> 33) % KEYS;
        struct sm_key key = {.family = 4, .a_port = (uint16_t)index};
        uint64_t hash = table_hash(&key);
        uint32_t *value = table_find(&table, &key, hash);
        cr_assert(value ? *value == kept[index] : kept[index] == 0);
        if (value) {
            table_remove(&table, value);
            kept[index] = 0;
            count--;
        } else {
            value = table_insert(&table, &key, hash);
            *value = kept[index] = step;
            count++;
        }
    }
    cr_assert(table.count == count);
    uint64_t cursor = 0;
    for (uint32_t *value; (value = table_next(&table, &cursor)); count--)
        cr_assert(kept[table_key(value)->a_port] == *value);
    cr_assert(count == 0);
    table_free(&table);
}

Test(messages, are_heard_as_they_were_said_and_in_order)
{
    static struct mailbox one, other;
    struct message message;
    uint8_t body[MESSAGE_BODY];

    for (unsigned i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7);
    cr_assert(mailbox_pair(&one, &other));
    cr_assert(mailbox_hear(&other, &message) == 0, "nothing was said yet");
    for (unsigned kind = 0; kind < MESSAGE_KINDS; kind++)
        cr_assert(mailbox_say(&one, (enum message_kind)kind, 1000 + kind, body, kind % 2 ? sizeof body : 0));
    for (unsigned kind = 0; kind < MESSAGE_KINDS; kind++) {
        cr_assert(mailbox_hear(&other, &message) == 1);
        cr_assert(message.kind == kind && message.number == 1000 + kind);
        cr_assert(message.bytes == (kind % 2 ? sizeof body : 0) && memcmp(message.body, body, message.bytes) == 0);
    }
    cr_assert(mailbox_hear(&other, &message) == 0);
    cr_assert(write(one.fd, "{\"call\": \"put", 13) == 13 && mailbox_hear(&other, &message) == 0, "half a line");
    cr_assert(write(one.fd, "ty\"}\n", 5) == 5 && mailbox_hear(&other, &message) == -1, "no such call");
    mailbox_close(&one);
    cr_assert(mailbox_hear(&other, &message) == -1, "nobody is there");
    mailbox_close(&other);
}
