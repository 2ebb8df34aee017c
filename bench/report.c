/* SPDX-License-Identifier: BSD-2-Clause */
#include "bench.h"

#include <assert.h>
#include <math.h>
#include <splitmerge/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

void samples_add(struct samples *samples, double value)
{
    assert(samples->count < BENCH_MAX_REPEAT);
    samples->value[samples->count++] = value;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

double samples_median(const struct samples *samples)
{
    struct samples sorted = *samples;
    unsigned n = sorted.count;

    if (n == 0)
        return 0;
    qsort(sorted.value, n, sizeof sorted.value[0], by_value);
    return (sorted.value[(n - 1) / 2] + sorted.value[n / 2]) / 2;
}

double samples_spread(const struct samples *samples)
{
    double median = samples_median(samples), least = median, most = median;

    for (unsigned i = 0; i < samples->count; i++) {
        least = samples->value[i] < least ? samples->value[i] : least;
        most = samples->value[i] > most ? samples->value[i] : most;
    }
    return median == 0 ? 0 : (most - least) / median;
}

struct samples samples_ratio(const struct samples *a, const struct samples *b)
{
    struct samples ratio = {.count = 0};

    assert(a->count == b->count);
    for (unsigned i = 0; i < a->count; i++)
        samples_add(&ratio, a->value[i] / b->value[i]);
    return ratio;
}

bool target_met(const struct target *target, double value)
{
    switch (target->kind) {
    case TARGET_AT_LEAST:
        return value >= target->value;
    case TARGET_AT_MOST:
        return value <= target->value;
    case TARGET_NONE:
        break;
    }
    return true;
}

struct figure *report_figure(struct report *report, const char *name, const char *unit)
{
    assert(report->count < BENCH_MAX_FIGURES);
    struct figure *figure = &report->figures[report->count++];
    *figure = (struct figure){.name = name, .unit = unit};
    return figure;
}

struct plot *report_plot(struct report *report, const char *name, const char *title, const char *x, const char *y)
{
    assert(report->plot_count < BENCH_MAX_PLOTS);
    struct plot *plot = &report->plots[report->plot_count++];
    *plot = (struct plot){.name = name, .title = title, .x = x, .y = y};
    return plot;
}

double report_judged(const struct figure *figure)
{
    return figure->ours.count > 0 ? samples_median(&figure->ours) : NAN;
}

/* Whether ours / reference is as asked; a reference that is missing meets nothing. */
static bool ratio_met(const struct figure *figure)
{
    if (figure->reference.count == 0)
        return false;
    struct samples ratios = samples_ratio(&figure->ours, &figure->reference);
    return target_met(&figure->ratio, samples_median(&ratios));
}

unsigned report_met(const struct report *report, unsigned *targets)
{
    unsigned met = 0;

    *targets = 0;
    for (unsigned i = 0; i < report->count; i++) {
        const struct figure *figure = &report->figures[i];
        if (figure->target.kind != TARGET_NONE) {
            *targets += 1;
            met += target_met(&figure->target, report_judged(figure));
        }
        if (figure->ratio.kind != TARGET_NONE) {
            *targets += 1;
            met += ratio_met(figure);
        }
    }
    return met;
}

/* "model name" of the first core. */
static void cpu_model(char *model, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");

    snprintf(model, size, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(model, size, "%s", colon + 2);
        break;
    }
    if (file)
        fclose(file);
}

/* ">= 3" and whether it was met, for people; empty where there is no target. */
static void say_target(const struct target *target, double value, char *text, size_t size)
{
    if (target->kind == TARGET_NONE)
        snprintf(text, size, "%s", "");
    else
        snprintf(text, size, "%s %g %s", target->kind == TARGET_AT_LEAST ? ">=" : "<=", target->value,
                 target_met(target, value) ? "met" : "MISSED");
}

void report_print(const struct report *report, const struct bench_options *options)
{
    char model[128];

    cpu_model(model, sizeof model);
    printf("splitmerge %s, %s; medians of %u, spread = (max - min) / median\n\n", SPLITMERGE_VERSION, model,
           options->repeat);
    printf("%-56s %-6s %9s %-15s %6s  %9s %6s  %6s %s\n", "figure", "unit", "ours", "target", "spread", "reference",
           "spread", "ratio", "target");
    for (unsigned i = 0; i < report->count; i++) {
        const struct figure *figure = &report->figures[i];
        double ours = samples_median(&figure->ours);
        char target[48];

        say_target(&figure->target, report_judged(figure), target, sizeof target);
        printf("%-56s %-6s %9.4g %-15s %5.0f%%", figure->name, figure->unit, ours, target,
               100 * samples_spread(&figure->ours));
        if (figure->reference.count > 0) {
            struct samples ratios = samples_ratio(&figure->ours, &figure->reference);
            double ratio = samples_median(&ratios);
            say_target(&figure->ratio, ratio, target, sizeof target);
            printf("  %9.4g %5.0f%%  %6.3g %s", samples_median(&figure->reference),
                   100 * samples_spread(&figure->reference), ratio, target);
        } else if (figure->missing[0]) {
            printf("  %s%s", figure->missing, figure->ratio.kind == TARGET_NONE ? "" : ": MISSED");
        }
        putchar('\n');
    }
    unsigned targets, met = report_met(report, &targets);
    printf("\n%u of %u targets met\n", met, targets);
}

static json_t *samples_json(const struct samples *samples)
{
    json_t *values = json_array();

    for (unsigned i = 0; i < samples->count; i++)
        json_array_append_new(values, json_real(samples->value[i]));
    return json_pack("{s:f, s:f, s:o}", "median", samples_median(samples), "spread", samples_spread(samples), "samples",
                     values);
}

static json_t *target_json(const struct target *target, double value)
{
    if (target->kind == TARGET_NONE)
        return json_null();
    return json_pack("{s:f, s:b}", target->kind == TARGET_AT_LEAST ? "at_least" : "at_most", target->value, "met",
                     target_met(target, value));
}

static json_t *figure_json(const struct figure *figure)
{
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:o}", "name", figure->name, "unit", figure->unit, "ours",
                  samples_json(&figure->ours), "target", target_json(&figure->target, report_judged(figure)));

    if (figure->missing[0])
        json_object_set_new(json, "missing", json_string(figure->missing));
    if (figure->reference.count == 0)
        return json;
    struct samples ratio = samples_ratio(&figure->ours, &figure->reference);
    json_object_set_new(json, "reference", samples_json(&figure->reference));
    json_object_set_new(json, "ratio", samples_json(&ratio));
    json_object_set_new(json, "ratio_target", target_json(&figure->ratio, samples_median(&ratio)));
    return json;
}

json_t *report_json(const struct report *report, const struct bench_options *options)
{
    char model[128];
    struct utsname system;
    json_t *figures = json_array();

    cpu_model(model, sizeof model);
    uname(&system);
    unsigned targets, met = report_met(report, &targets);
    for (unsigned i = 0; i < report->count; i++)
        json_array_append_new(figures, figure_json(&report->figures[i]));
    return json_pack("{s:i, s:s, s:s, s:s, s:i, s:I, s:{s:f, s:i, s:i, s:b, s:O}, s:o, s:i, s:i}", "schema", 1,
                     "version", SPLITMERGE_VERSION, "cpu", model, "kernel", system.release, "cores",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "seed", (json_int_t)options->seed, "parameters", "seconds",
                     options->seconds, "repeat", (int)options->repeat, "flows", (int)options->flows, "quick",
                     options->quick, "experiments", report->parameters, "figures", figures, "targets", (int)targets,
                     "met", (int)met);
}
