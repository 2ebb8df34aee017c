/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_PAPER_H
#define SM_BENCH_DRL_PAPER_H

/* Our figures beside the paper's, for each of its experiments. */

#include "drl/outcome.h"

struct paper_row {
    const char *experiment, *what;
    const char *paper; /* its figures; PAPER_NONE: we have none of it */
    enum { PAPER_JAIN, PAPER_MEAN, PAPER_MISS, PAPER_HIGHEST, PAPER_SETTLED, PAPER_CONTROL } column;
};

#define PAPER_NONE "no figure at hand"
#define PAPER_CELL 16u

extern const struct paper_row paper_rows[];
extern const unsigned paper_row_count;

/* The outcome that a row is about; NULL: it was not run. */
const struct outcome *paper_outcome(const struct paper_row *row, const struct outcome *outcomes, unsigned count);

/* A row's figure of one mode, as text. */
void paper_cell(const struct paper_row *row, const struct outcome *outcome, unsigned mode, char text[PAPER_CELL]);

/* All rows, on standard output. */
void paper_print(const struct outcome *outcomes, unsigned count);

#endif
