/* SPDX-License-Identifier: BSD-2-Clause */
#include "lengths.h"

#include "bench.h"
#include "testing/random.h"

#define STEPS 20u

static const double quantiles[STEPS + 1] = {0.0001, 0.002,  0.0065, 0.0117, 0.025,  0.0689,  0.1005,
                                            0.3796, 0.827,  0.9129, 1.1315, 2.2476, 2.2483,  2.2486,
                                            2.5364, 3.7489, 3.7489, 3.7489, 3.7634, 15.0041, 103.3294};

double lengths_quantile(double share)
{
    double at = share * STEPS;
    unsigned step = at < STEPS - 1 ? (unsigned)at : STEPS - 1;

    return quantiles[step] + (at - step) * (quantiles[step + 1] - quantiles[step]);
}

/* 0..1 */
static double uniform(uint64_t *random)
{
    return random_unit(random_star(random));
}

double lengths_draw(uint64_t *random)
{
    return lengths_quantile(uniform(random));
}

double lengths_residual(uint64_t *random)
{
    double length;

    do
        length = lengths_draw(random);
    while (uniform(random) * quantiles[STEPS] > length);
    return uniform(random) * length;
}
