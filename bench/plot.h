/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_PLOT_H
#define SM_BENCH_PLOT_H

/*
 * What an experiment wants drawn: curves over a common axis, and lines that mark a value, such as a paper's.
 *
 * Life-cycle.  A plot of zeroes with its words filled in -> curves, points and marks are added -> plot_write() any
 * number of times -> plot_free(). Memory that cannot be had costs points, nothing else. One thread.
 */

#include <splitmerge/types.h>
#include <stdio.h>

#define PLOT_CURVES 6u
#define PLOT_MARKS 4u

struct curve {
    const char *name;
    double *points; /* x, y */
    unsigned count, room;
};

struct plot {
    const char *name; /* of its files: DIR/NAME.png, DIR/NAME.dat */
    const char *title, *x, *y;
    bool log_x, log_y;
    bool steps; /* a value holds until the next one */
    struct curve curves[PLOT_CURVES];
    unsigned curve_count;
    struct {
        const char *label;
        double at;
        bool on_x;
    } marks[PLOT_MARKS];
    unsigned mark_count;
};

struct curve *plot_curve(struct plot *plot, const char *name);
void curve_add(struct curve *curve, double x, double y);

/* A line at a value of the x axis or of the y axis. */
void plot_mark(struct plot *plot, const char *label, bool on_x, double at);

/* The data, a blank line twice between curves, and what gnuplot makes NAME.png of it with. SM_E_IO: as html_open(). */
int plot_write(const struct plot *plot, const char *directory, FILE *script, struct sm_errbuf *error);

void plot_free(struct plot *plot);

#endif
