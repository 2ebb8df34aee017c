/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Pictures of outcomes, by gnuplot. What is drawn is written beside them, as text: NAME.dat, one line a window of 0.1
 * s, and plots.gp, which draws all.
 */

#include "drl/plots.h"

#include <stdio.h>

#include "html.h"

#define DRAWN_LIMITERS 10u /* one line each; where there are more, they are not drawn */
#define BEFORE 5u          /* seconds that are drawn before a change, */
#define AFTER 25u          /* and after it */

static unsigned drawn(const struct experiment *experiment)
{
    return experiment->limiters <= DRAWN_LIMITERS ? experiment->limiters : 0;
}

/* Seconds; what each mode passed, percent of the limit; what each limiter passed with pool, Mbit/s. */
static int write_data(const char *directory, const struct outcome *outcome, struct sm_errbuf *error)
{
    const struct experiment *experiment = outcome->experiment;
    double full = experiment->mbit * 1e6 / 8 / BINS_A_SECOND;
    char name[64];

    snprintf(name, sizeof name, "%s.dat", experiment->name);
    FILE *file = html_open(directory, name, "w", error);
    if (!file)
        return SM_E_IO;
    for (unsigned bin = 0; bin < outcome->runs[0].bins; bin++) {
        fprintf(file, "%.1f", (double)bin / BINS_A_SECOND);
        for (unsigned mode = 0; mode < OUTCOME_MODES; mode++)
            fprintf(file, " %.2f", 100 * outcome->runs[mode].passed[bin] / full);
        for (unsigned l = 0; l < drawn(experiment); l++)
            fprintf(file, " %.3f",
                    outcome->runs[DRL_POOL].limiter_bins[l * outcome->runs[DRL_POOL].bins + bin] * 8 * BINS_A_SECOND /
                        1e6);
        fputc('\n', file);
    }
    return html_close(file, name, error);
}

/* The aggregate of each mode, one below the other, and the limiters under pool. */
static void script_experiment(FILE *script, const struct outcome *outcome)
{
    static const unsigned shown[] = {SIM_CENTRAL, DRL_POOL, DRL_FPS, DRL_GRD};
    const struct experiment *experiment = outcome->experiment;
    unsigned panes = sizeof shown / sizeof *shown + (drawn(experiment) > 1), change = experiment->changes_at;

    fprintf(script,
            "set output '%s.png'\nset terminal pngcairo size 900,%u font 'sans,9'\nset multiplot layout %u,1\n"
            "set xrange [%u:%u]\nset yrange [0:200]\nset ytics 50\nset ylabel '%%'\n",
            experiment->name, 130 * panes, panes, change > BEFORE ? change - BEFORE : 0, change + AFTER);
    for (unsigned i = 0; i < sizeof shown / sizeof *shown; i++)
        fprintf(script,
                "set title '%s'\nplot 100 lc rgb '#bbbbbb' notitle, '%s.dat' using 1:%u with lines lc %u notitle\n",
                outcome_mode_name(shown[i]), experiment->name, shown[i] + 2, i + 1);
    if (drawn(experiment) > 1) {
        fprintf(script, "set yrange [0:*]\nset ytics auto\nset ylabel 'Mbit/s'\nset title 'pool, each limiter'\nplot ");
        for (unsigned l = 0; l < drawn(experiment); l++)
            fprintf(script, "%s'%s.dat' using 1:%u with lines notitle", l ? ", " : "", experiment->name,
                    OUTCOME_MODES + 2 + l);
        fputc('\n', script);
    }
    fputs("unset multiplot\n", script);
}

/* One bar for each mode and experiment. */
static void script_bars(FILE *script, const struct outcome *outcomes, unsigned count, const char *name,
                        const char *title, const char *range, double (*value)(const struct figures *))
{
    fprintf(script, "$%s << END\n", name);
    for (unsigned i = 0; i < count; i++) {
        fprintf(script, "%s", outcomes[i].experiment->name);
        for (unsigned mode = 0; mode < OUTCOME_MODES; mode++)
            fprintf(script, " %.4f", value(&outcomes[i].figures[mode]));
        fputc('\n', script);
    }
    fprintf(script,
            "END\nset output '%s.png'\nset terminal pngcairo size 1100,340 font 'sans,9'\nset style data histograms\n"
            "set style fill solid 0.8\nset title '%s'\nset ylabel ''\nset xrange [*:*]\nset yrange %s\nset ytics auto\n"
            "set xtics rotate by -30\nset key outside\nplot ",
            name, title, range);
    for (unsigned mode = 0; mode < OUTCOME_MODES; mode++)
        fprintf(script, "%s$%s using %u:xtic(1) title '%s'", mode ? ", " : "", name, mode + 2, outcome_mode_name(mode));
    fputs("\nset xtics norotate\n", script);
}

static double jain_of(const struct figures *figures)
{
    return figures->jain;
}

static double tenth_of(const struct figures *figures)
{
    return 100 * figures->miss_tenth;
}

static double second_of(const struct figures *figures)
{
    return 100 * figures->miss_second;
}

int plots_draw(const char *directory, const struct outcome *outcomes, unsigned count, struct sm_errbuf *error)
{
    int result = 0;

    for (unsigned i = 0; i < count && result == 0; i++)
        result = write_data(directory, &outcomes[i], error);
    FILE *script = result == 0 ? html_open(directory, "plots.gp", "w", error) : NULL;
    if (!script)
        return SM_E_IO;
    for (unsigned i = 0; i < count; i++)
        script_experiment(script, &outcomes[i]);
    script_bars(script, outcomes, count, "jain", "Jain index of the flows", "[0:1]", jain_of);
    script_bars(script, outcomes, count, "second", "miss over 1 s, % of the limit", "[0:20]", second_of);
    script_bars(script, outcomes, count, "tenth", "miss over 0.1 s, % of the limit", "[0:40]", tenth_of);
    result = html_close(script, "plots.gp", error);
    return result == 0 ? html_draw(directory, error) : result;
}
