/* SPDX-License-Identifier: BSD-2-Clause */
#include "plot.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "html.h"

struct curve *plot_curve(struct plot *plot, const char *name)
{
    assert(plot->curve_count < PLOT_CURVES);
    struct curve *curve = &plot->curves[plot->curve_count++];
    *curve = (struct curve){.name = name};
    return curve;
}

void curve_add(struct curve *curve, double x, double y)
{
    if (curve->count == curve->room) {
        unsigned room = curve->room ? 2 * curve->room : 64;
        double *points = realloc(curve->points, room * 2 * sizeof *points);
        if (!points)
            return;
        curve->points = points;
        curve->room = room;
    }
    curve->points[2 * curve->count] = x;
    curve->points[2 * curve->count + 1] = y;
    curve->count++;
}

void plot_mark(struct plot *plot, const char *label, bool on_x, double at)
{
    assert(plot->mark_count < PLOT_MARKS);
    plot->marks[plot->mark_count].label = label;
    plot->marks[plot->mark_count].on_x = on_x;
    plot->marks[plot->mark_count++].at = at;
}

/* The ends of what is drawn; of a logarithmic axis what is not positive does not count. */
static void extent(const struct plot *plot, bool on_x, double *least, double *most)
{
    bool logarithmic = on_x ? plot->log_x : plot->log_y;

    *least = INFINITY;
    *most = -INFINITY;
    for (unsigned c = 0; c < plot->curve_count; c++)
        for (unsigned i = 0; i < plot->curves[c].count; i++) {
            double value = plot->curves[c].points[2 * i + !on_x];
            if (logarithmic && value <= 0)
                continue;
            *least = fmin(*least, value);
            *most = fmax(*most, value);
        }
}

/* A dashed line from end to end of the other axis. */
static void write_mark(const struct plot *plot, unsigned mark, FILE *script)
{
    double least, most, at = plot->marks[mark].at;

    extent(plot, !plot->marks[mark].on_x, &least, &most);
    if (plot->marks[mark].on_x)
        fprintf(script, "$mark%u << END\n%g %g\n%g %g\nEND\n", mark, at, least, at, most);
    else
        fprintf(script, "$mark%u << END\n%g %g\n%g %g\nEND\n", mark, least, at, most, at);
}

int plot_write(const struct plot *plot, const char *directory, FILE *script, struct sm_errbuf *error)
{
    char name[64];

    snprintf(name, sizeof name, "%s.dat", plot->name);
    FILE *data = html_open(directory, name, "w", error);
    if (!data)
        return SM_E_IO;
    for (unsigned c = 0; c < plot->curve_count; c++) {
        const struct curve *curve = &plot->curves[c];
        fprintf(data, "%s# %s\n", c ? "\n\n" : "", curve->name);
        for (unsigned i = 0; i < curve->count; i++)
            fprintf(data, "%.9g %.9g\n", curve->points[2 * i], curve->points[2 * i + 1]);
    }
    for (unsigned mark = 0; mark < plot->mark_count; mark++)
        write_mark(plot, mark, script);
    fprintf(script,
            "set output '%s.png'\nset terminal pngcairo size 1000,420 font 'sans,9'\nset title \"%s\"\n"
            "set xlabel \"%s\"\nset ylabel \"%s\"\n%sset logscale x\n%sset logscale y\nset key outside\nset grid\n"
            "plot ",
            plot->name, plot->title, plot->x, plot->y, plot->log_x ? "" : "un", plot->log_y ? "" : "un");
    const char *between = "";
    for (unsigned c = 0; c < plot->curve_count; c++, between = ", ")
        if (plot->curves[c].count > 0)
            fprintf(script, "%s'%s' index %u using 1:2 with %s lw 1.5 title \"%s\"", between, name, c,
                    plot->steps ? "steps" : "lines", plot->curves[c].name);
    for (unsigned mark = 0; mark < plot->mark_count; mark++, between = ", ")
        fprintf(script, "%s$mark%u with lines dt 2 lc rgb '#888888' title \"%s\"", between, mark,
                plot->marks[mark].label);
    fputc('\n', script);
    return html_close(data, name, error);
}

void plot_free(struct plot *plot)
{
    for (unsigned c = 0; c < plot->curve_count; c++)
        free(plot->curves[c].points);
    *plot = (struct plot){.name = NULL};
}
