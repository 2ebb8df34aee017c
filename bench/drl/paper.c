/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/paper.h"

#include <stdio.h>
#include <string.h>

/* Whatever the paper shows as a curve only, or not at all, has no figure here. */
const struct paper_row paper_rows[] = {
    {"baseline", "3 and 7 bulk flows: Jain index", "FPS 0.962, GRD 0.997", PAPER_JAIN},
    {"baseline", "miss over 1 s, %", PAPER_NONE, PAPER_MISS},
    {"start-up", "from nothing: highest second, %", "GRD 200 (a replication)", PAPER_HIGHEST},
    {"join", "flows join on 5: Jain index", PAPER_NONE, PAPER_JAIN},
    {"join", "settled, s", PAPER_NONE, PAPER_SETTLED},
    {"web", "bulk and Web: Jain index", PAPER_NONE, PAPER_JAIN},
    {"web", "miss over 1 s, %", PAPER_NONE, PAPER_MISS},
    {"bottleneck", "7 of 10 flows slow down: mean, %", PAPER_NONE, PAPER_MEAN},
    {"bottleneck", "highest second, %", PAPER_NONE, PAPER_HIGHEST},
    {"rtt", "20 and 100 ms: Jain index", PAPER_NONE, PAPER_JAIN},
    {"rtt", "miss over 1 s, %", PAPER_NONE, PAPER_MISS},
    {"flows", "5,000 flows: Jain index", PAPER_NONE, PAPER_JAIN},
    {"490", "490 limiters, 50 Mbit/s: mean, %", "FPS holds it; GRD fails beyond 50", PAPER_MEAN},
    {"490", "highest second, %", PAPER_NONE, PAPER_HIGHEST},
    {"490", "control of a limiter, kbit/s", "23 (48 bytes, 20 a second to 3)", PAPER_CONTROL},
    {"1000", "1,000 limiters: mean, %", PAPER_NONE, PAPER_MEAN},
    {"loss-0.5", "0.5 % of control lost: miss over 1 s, %", PAPER_NONE, PAPER_MISS},
    {"loss-5", "5 %: miss over 1 s, %", PAPER_NONE, PAPER_MISS},
    {"loss-20", "20 %: miss over 1 s, %", PAPER_NONE, PAPER_MISS},
    {"partition", "cut in two halves: mean, %", "up to 200 (N halves: N limits)", PAPER_MEAN},
    {"heal", "after that: highest second, %", PAPER_NONE, PAPER_HIGHEST},
    {"shift-10", "settled after a change, s", "FPS about 8", PAPER_SETTLED},
};

const unsigned paper_row_count = sizeof paper_rows / sizeof *paper_rows;

const struct outcome *paper_outcome(const struct paper_row *row, const struct outcome *outcomes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(outcomes[i].experiment->name, row->experiment) == 0)
            return &outcomes[i];
    return NULL;
}

void paper_cell(const struct paper_row *row, const struct outcome *outcome, unsigned mode, char text[PAPER_CELL])
{
    const struct figures *f = &outcome->figures[mode];
    const double value[] = {
        [PAPER_JAIN] = f->jain,
        [PAPER_MEAN] = 100 * f->mean,
        [PAPER_MISS] = 100 * f->miss_second,
        [PAPER_HIGHEST] = 100 * f->highest,
        [PAPER_SETTLED] = f->settled,
        [PAPER_CONTROL] = f->control,
    };

    if (row->column == PAPER_SETTLED && f->settled < 0)
        snprintf(text, PAPER_CELL, "never");
    else
        snprintf(text, PAPER_CELL, "%.*f", row->column == PAPER_JAIN ? 3 : 1, value[row->column]);
}

void paper_print(const struct outcome *outcomes, unsigned count)
{
    printf("beside the paper: %-44s %-34s", "figure", "paper");
    for (unsigned mode = 0; mode < OUTCOME_MODES; mode++)
        printf("%8s", outcome_mode_name(mode));
    putchar('\n');
    for (unsigned r = 0; r < paper_row_count; r++) {
        const struct paper_row *row = &paper_rows[r];
        const struct outcome *outcome = paper_outcome(row, outcomes, count);
        if (!outcome)
            continue;
        printf("  %-14s %-45s %-34s", row->experiment, row->what, row->paper);
        for (unsigned mode = 0; mode < OUTCOME_MODES; mode++) {
            char text[PAPER_CELL];
            paper_cell(row, outcome, mode, text);
            printf("%8s", text);
        }
        putchar('\n');
    }
}
