/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_OUTCOME_H
#define SM_BENCH_DRL_OUTCOME_H

/* What has come of an experiment, in each mode and under one central bucket. */

#include "drl/figures.h"

#define OUTCOME_MODES (DRL_MODES + 1) /* the last: SIM_CENTRAL */

struct outcome {
    const struct experiment *experiment;
    unsigned seeds;
    struct figures figures[OUTCOME_MODES]; /* means over the seeds; highest and settled: the worst */
    struct sim_result runs[OUTCOME_MODES]; /* with the first seed */
};

/* The default mode beside the central bucket, and whether that is within what is asked of it. */
struct verdict {
    double second, tenth, jain; /* by how much more it misses the limit; by how much its index is higher */
    bool within_second, within_tenth, fair, settled, frugal;
};

void outcome_judge(const struct outcome *outcome, struct verdict *verdict);
const char *outcome_mode_name(unsigned mode);

#endif
