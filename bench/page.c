/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A run's report as a page: every figure with its reference, how far it is from its targets, the experiments' plots,
 * and what a reader needs to run it again.
 */

#include <splitmerge/version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "html.h"

static void write_target(FILE *page, const struct target *target, double value, bool missing)
{
    if (target->kind == TARGET_NONE)
        fputs("<td>", page);
    else
        fprintf(page, "<td%s>%s %g", missing || !target_met(target, value) ? " class=no" : "",
                target->kind == TARGET_AT_LEAST ? "at least" : "at most", target->value);
}

static void write_figure(FILE *page, const struct figure *figure)
{
    double ours = samples_median(&figure->ours);

    fputs("<tr><td>", page);
    html_text(page, figure->name);
    fprintf(page, "<td>%s<td>%.4g", figure->unit, ours);
    write_target(page, &figure->target, report_judged(figure), false);
    fprintf(page, "<td>%.0f %%", 100 * samples_spread(&figure->ours));
    if (figure->reference.count > 0) {
        struct samples ratios = samples_ratio(&figure->ours, &figure->reference);
        double ratio = samples_median(&ratios);
        fprintf(page, "<td>%.4g<td>%.0f %%<td>%.3g", samples_median(&figure->reference),
                100 * samples_spread(&figure->reference), ratio);
        write_target(page, &figure->ratio, ratio, false);
    } else if (figure->missing[0]) {
        fputs("<td colspan=3>", page);
        html_text(page, figure->missing);
        write_target(page, &figure->ratio, 0, true);
    } else {
        fputs("<td><td><td><td>", page);
    }
    fputc('\n', page);
}

static void write_figures(FILE *page, const struct report *report)
{
    unsigned targets, met = report_met(report, &targets);

    fprintf(page,
            "<h2>Figures</h2>\n<p>Medians; spread is (max - min) / median over the repetitions; a ratio is ours / "
            "reference, repetition by repetition. Red: the target is missed, or its reference could not be measured. "
            "%u of %u targets are met.</p>\n<table><tr><th>figure<th>unit<th>ours<th>target<th>spread<th>reference"
            "<th>spread<th>ratio<th>target\n",
            met, targets);
    for (unsigned i = 0; i < report->count; i++)
        write_figure(page, &report->figures[i]);
    fputs("</table>\n", page);
}

/* How many times better than its target a value is; below 1: it misses it. 0: that says nothing. */
static double margin(const struct target *target, double value)
{
    if (target->kind == TARGET_NONE || target->value <= 0 || value <= 0)
        return 0;
    return target->kind == TARGET_AT_LEAST ? value / target->value : target->value / value;
}

/* One bar for each figure whose ratio or value has a target, on a logarithmic axis around 1. */
static bool write_margins(FILE *script, const struct report *report)
{
    unsigned bars = 0;

    fputs("$margins << END\n", script);
    for (unsigned i = 0; i < report->count; i++) {
        const struct figure *figure = &report->figures[i];
        double times = margin(&figure->target, samples_median(&figure->ours));
        if (times == 0 && figure->reference.count > 0) {
            struct samples ratios = samples_ratio(&figure->ours, &figure->reference);
            times = margin(&figure->ratio, samples_median(&ratios));
        }
        if (times > 0)
            fprintf(script, "%u %g \"%s\"\n", bars++, times, figure->name);
    }
    fprintf(script,
            "END\nset output 'margins.png'\nset terminal pngcairo size 1000,%u font 'sans,9'\nset title "
            "\"times better than the target (left of 1: missed)\"\nset logscale x\nset grid x\nunset key\n"
            "set yrange [%u.5:-0.5]\nset style fill solid 0.7\nset offsets 0,0,0,0\n"
            "plot $margins using (sqrt($2)):1:(1):2:($1-0.35):($1+0.35):ytic(3) with boxxyerror lc rgb '#4a7ebb'\n"
            "reset\n",
            80 + 18 * (bars ? bars : 1), bars ? bars - 1 : 0);
    return bars > 0;
}

static int draw(const struct report *report, const char *directory, bool *margins, struct sm_errbuf *error)
{
    FILE *script = html_open(directory, "plots.gp", "w", error);
    int result = 0;

    if (!script)
        return SM_E_IO;
    *margins = write_margins(script, report);
    for (unsigned i = 0; i < report->plot_count && result == 0; i++)
        result = plot_write(&report->plots[i], directory, script, error);
    int closed = html_close(script, "plots.gp", error);
    result = result ? result : closed;
    return result ? result : html_draw(directory, error);
}

/* All that the JSON has besides the figures. */
static void write_machine(FILE *page, const struct report *report, const struct bench_options *options)
{
    json_t *json = report_json(report, options);

    json_object_del(json, "figures");
    char *text = json_dumps(json, JSON_INDENT(2));
    fputs("<h2>Machine and parameters</h2>\n<pre>", page);
    html_text(page, text ? text : "");
    fputs("</pre>\n", page);
    free(text);
    json_decref(json);
}

int report_page(const struct report *report, const struct bench_options *options, struct sm_errbuf *error)
{
    bool margins = false;
    int result = draw(report, options->report, &margins, error);
    FILE *page = result == 0 ? html_open(options->report, "index.html", "w", error) : NULL;

    if (!page)
        return SM_E_IO;
    html_begin(page, "splitmerge beside its references");
    fprintf(page, "<p>splitmerge %s, each figure measured %u times, in turns with its reference, seed %llu.</p>\n",
            SPLITMERGE_VERSION, options->repeat, (unsigned long long)options->seed);
    write_figures(page, report);
    if (margins)
        result = html_picture(page, options->report, "margins", error);
    for (unsigned i = 0; i < report->plot_count && result == 0; i++)
        result = html_picture(page, options->report, report->plots[i].name, error);
    write_machine(page, report, options);
    html_end(page);
    int closed = html_close(page, "index.html", error);
    return result ? result : closed;
}
