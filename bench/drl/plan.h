/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_PLAN_H
#define SM_BENCH_DRL_PLAN_H

/* The experiments: which flows pass which limiters, and when that changes. */

#include "drl/sim.h"

#define SECOND 1000000000ull
#define MILLISECOND 1000000ull
#define PLAN_MAX_FLOWS 5000u

struct experiment {
    const char *name, *what;
    double mbit;
    unsigned limiters, flows;
    unsigned seconds;
    unsigned changes_at; /* seconds: figures are of what follows */
    unsigned epoch;      /* seconds after which demand shifts again; 0: it stays */
    double burst;
    void (*plan)(const struct experiment *experiment, uint64_t seed, struct sim_flow *flows);
    double control_loss;
    unsigned parted_from, parted_to; /* seconds */
    bool settles;                    /* even rates are what it should come to */
};

/* One mode (of sim_setup) with the flows of one seed; as sim_run(). */
bool plan_run(const struct experiment *experiment, unsigned mode, uint64_t seed, const struct sim_flow *flows,
              struct sim_result *result);

/* Why the default mode is not within what is asked of it there; "": it is, or nothing is known. */
const char *plan_note(const struct experiment *experiment);

extern const struct experiment experiments[];
extern const unsigned experiment_count;

#endif
