/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_HTML_H
#define SM_BENCH_HTML_H

/*
 * Pages that a person reads: DIR/index.html, which needs nothing else and no network, and beside it its pictures (PNG,
 * by gnuplot) and what they were drawn from: data as text, and plots.gp, which draws all.
 *
 * Every call returns 0, or SM_E_IO and *error says which file could not be made, read or written, and why.
 */

#include <splitmerge/types.h>
#include <stdio.h>

/* Makes the directory if need be. */
int html_prepare(const char *directory, struct sm_errbuf *error);

/* A file in the directory. NULL: *error says why. close: also when not all was written. */
FILE *html_open(const char *directory, const char *name, const char *mode, struct sm_errbuf *error);
int html_close(FILE *file, const char *name, struct sm_errbuf *error);

/* The page's begin, up to its first heading, and its end. */
void html_begin(FILE *page, const char *title);
void html_end(FILE *page);

/* Text as it is, whatever is in it. */
void html_text(FILE *page, const char *text);

/* Run DIR/plots.gp by gnuplot. */
int html_draw(const char *directory, struct sm_errbuf *error);

/* DIR/NAME.png as a part of the page. */
int html_picture(FILE *page, const char *directory, const char *name, struct sm_errbuf *error);

#endif
