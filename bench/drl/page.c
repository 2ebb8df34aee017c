/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/page.h"

#include <splitmerge/version.h>
#include <stdio.h>

#include "drl/paper.h"
#include "drl/plots.h"
#include "html.h"

static const char introduction[] =
    "<p>The experiments of <i>Cloud Control with Distributed Rate Limiting</i> (Raghavan et al., SIGCOMM 2007), run in "
    "a discrete-event simulator with the limiters' own code under models of TCP (Reno, CUBIC). <b>central</b> is one "
    "token bucket that sees all packets, which no distributed limiter can be better than in every respect; "
    "<b>split</b>, <b>gtb</b>, <b>grd</b> and <b>fps</b> are the paper's, rebuilt; <b>pool</b> is the default mode.</p>"
    "\n";

static const char explanation[] =
    "<h2>What the columns mean</h2><ul>\n"
    "<li><b>mean</b>: what passed, of the limit.\n"
    "<li><b>miss</b>: how far windows of 1 s and 0.1 s are off the limit, root of the mean square, of the limit.\n"
    "<li><b>beside</b>: how far those windows are off what one bucket would have let through of the very packets that "
    "the limiters saw, at the same time.\n"
    "<li><b>highest</b>: the highest second.\n"
    "<li><b>Jain</b>: index of the flows' rates (1: all equal). Where demand shifts, of flows that stay, by epoch.\n"
    "<li><b>settled</b>: from when after a change on a second's rates are even; the worst case.\n"
    "<li><b>control</b>: kbit/s that a limiter sends, IP, UDP and the datagram's own "
    "headers included.\n</ul>\n";

static void write_paper(FILE *file, const struct outcome *outcomes, unsigned count)
{
    fputs("<h2>Beside the paper</h2>\n<table><tr><th>figure<th>paper", file);
    for (unsigned mode = 0; mode < OUTCOME_MODES; mode++)
        fprintf(file, "<th>%s", outcome_mode_name(mode));
    fputc('\n', file);
    for (unsigned r = 0; r < paper_row_count; r++) {
        const struct paper_row *row = &paper_rows[r];
        const struct outcome *outcome = paper_outcome(row, outcomes, count);
        if (!outcome)
            continue;
        fprintf(file, "<tr><td>%s: %s<td>%s", row->experiment, row->what, row->paper);
        for (unsigned mode = 0; mode < OUTCOME_MODES; mode++) {
            char text[PAPER_CELL];
            paper_cell(row, outcome, mode, text);
            fprintf(file, "<td>%s", text);
        }
        fputc('\n', file);
    }
    fputs("</table>\n", file);
}

static const char *mark(bool met)
{
    return met ? "" : " class=no";
}

/* The default mode beside the central bucket, and what it is held to. */
static void write_verdicts(FILE *file, const struct outcome *outcomes, unsigned count)
{
    fputs(
        "<h2>The default mode beside one bucket</h2>\n<p>Asked: it misses the limit by at most 1 % more than the one "
        "bucket over 1 s, and 3 % more over 0.1 s; its index is no lower, and at least 0.99 where flows are equal; it "
        "settles within 1 s; a limiter sends at most 5 kbit/s. Red: not met.</p>\n<table><tr><th>experiment<th>limiters"
        "<th>1 s<th>0.1 s<th>Jain<th>above central's<th>settled, s<th>kbit/s\n",
        file);
    for (unsigned i = 0; i < count; i++) {
        const struct figures *ours = &outcomes[i].figures[DRL_POOL];
        struct verdict verdict;
        outcome_judge(&outcomes[i], &verdict);
        fprintf(file, "<tr><td>%s<td>%u<td%s>%+.1f %%<td%s>%+.1f %%<td%s>%.3f<td%s>%+.3f<td%s>",
                outcomes[i].experiment->name, outcomes[i].experiment->limiters, mark(verdict.within_second),
                100 * verdict.second, mark(verdict.within_tenth), 100 * verdict.tenth, mark(verdict.fair), ours->jain,
                mark(verdict.fair), verdict.jain, mark(verdict.settled));
        if (!outcomes[i].experiment->settles)
            fputs("-", file);
        else
            fprintf(file, ours->settled < 0 ? "never" : "%.1f", ours->settled);
        fprintf(file, "<td%s>%.1f\n", mark(verdict.frugal), ours->control);
    }
    fputs("</table>\n", file);
}

static void write_table(FILE *file, const struct outcome *outcome)
{
    fputs("<table><tr><th>mode<th>mean<th>miss 1 s<th>0.1 s<th>beside 1 s<th>0.1 s<th>highest<th>Jain<th>settled"
          "<th>control\n",
          file);
    for (unsigned mode = 0; mode < OUTCOME_MODES; mode++) {
        const struct figures *f = &outcome->figures[mode];
        char settled[16] = "-";
        if (outcome->experiment->settles)
            snprintf(settled, sizeof settled, f->settled < 0 ? "never" : "%.1f s", f->settled);
        fprintf(
            file,
            "<tr%s><td>%s<td>%.1f %%<td>%.1f %%<td>%.1f %%<td>%.1f %%<td>%.1f %%<td>%.1f %%<td>%.3f<td>%s<td>%.1f\n",
            mode == DRL_POOL ? " class=ours" : "", outcome_mode_name(mode), 100 * f->mean, 100 * f->miss_second,
            100 * f->miss_tenth, 100 * f->beside_second, 100 * f->beside_tenth, 100 * f->highest, f->jain, settled,
            f->control);
    }
    fputs("</table>\n", file);
}

static int write_experiment(FILE *file, const char *directory, const struct outcome *outcome, struct sm_errbuf *error)
{
    const struct experiment *experiment = outcome->experiment;

    fprintf(file,
            "<h3 id=\"%s\">%s</h3>\n<p>%s. %u limiter%s, %.0f Mbit/s, bucket of %.0f bytes, %u s of which the "
            "first %u are not counted%s",
            experiment->name, experiment->name, experiment->what, experiment->limiters,
            experiment->limiters == 1 ? "" : "s", experiment->mbit, experiment->burst, experiment->seconds,
            experiment->changes_at, experiment->control_loss > 0 ? "; updates lost: " : "");
    if (experiment->control_loss > 0)
        fprintf(file, "%.1f %%", 100 * experiment->control_loss);
    if (experiment->parted_to > 0)
        fprintf(file, "; the halves do not hear each other from %u s to %u s", experiment->parted_from,
                experiment->parted_to);
    fprintf(file, ". Mean of %u seed%s; the picture is the first one's.</p>\n", outcome->seeds,
            outcome->seeds == 1 ? "" : "s");
    write_table(file, outcome);
    fprintf(file, "<p>%s</p>\n", plan_note(experiment));
    return html_picture(file, directory, experiment->name, error);
}

int page_write(const char *directory, const struct outcome *outcomes, unsigned count, uint64_t seed,
               struct sm_errbuf *error)
{
    static const char *const bars[] = {"jain", "second", "tenth"};
    int result;

    result = plots_draw(directory, outcomes, count, error);
    FILE *file = result == 0 ? html_open(directory, "index.html", "w", error) : NULL;
    if (!file)
        return SM_E_IO;
    html_begin(file, "One limit, many limiters");
    fputs(introduction, file);
    fprintf(file, "<p>splitmerge %s, seed %llu.</p>\n", SPLITMERGE_VERSION, (unsigned long long)seed);
    write_paper(file, outcomes, count);
    write_verdicts(file, outcomes, count);
    for (unsigned i = 0; i < sizeof bars / sizeof *bars && result == 0; i++)
        result = html_picture(file, directory, bars[i], error);
    fputs(explanation, file);
    fputs("<h2>Experiments</h2>\n", file);
    for (unsigned i = 0; i < count && result == 0; i++)
        result = write_experiment(file, directory, &outcomes[i], error);
    html_end(file);
    int closed = html_close(file, "index.html", error);
    return result != 0 ? result : closed;
}
