/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/figures.h"

#include <math.h>
#include <string.h>

double jain_index(const double *values, unsigned count)
{
    double sum = 0, squares = 0;

    for (unsigned i = 0; i < count; i++) {
        sum += values[i];
        squares += values[i] * values[i];
    }
    return squares > 0 ? sum * sum / (count * squares) : 1;
}

/* Seconds of the epoch that begins at `from`. */
static unsigned epoch_of(const struct experiment *experiment, unsigned from)
{
    return experiment->epoch ? experiment->epoch : experiment->seconds - from;
}

static bool lasts(const struct sim_flow *flow, unsigned from, unsigned to)
{
    return flow->start_ns < (from + 1) * SECOND && (flow->stop_ns == 0 || flow->stop_ns >= to * SECOND);
}

/* Of the flows that are there from one second to another. */
static double flows_jain(const struct experiment *experiment, const struct sim_flow *flows,
                         const struct sim_result *result, unsigned from, unsigned to)
{
    static double rates[PLAN_MAX_FLOWS];
    unsigned count = 0, skip = experiment->epoch ? 1 : 0;

    for (unsigned i = 0; i < experiment->flows; i++) {
        if (!lasts(&flows[i], from, to))
            continue;
        rates[count] = 0;
        for (unsigned s = from + skip; s < to; s++)
            rates[count] += result->flow_seconds[(size_t)i * experiment->seconds + s];
        count++;
    }
    return jain_index(rates, count);
}

/* Of the limiters' rates per flow, in the second that begins with `bin`. */
static double limiters_jain(const struct experiment *experiment, const struct sim_result *result,
                            const unsigned *flows_of, unsigned bin)
{
    static double rates[DRL_MAX_LIMITERS];
    unsigned count = 0;

    for (unsigned l = 0; l < experiment->limiters; l++) {
        if (flows_of[l] == 0)
            continue;
        rates[count] = 0;
        for (unsigned i = bin; i < bin + BINS_A_SECOND; i++)
            rates[count] += result->limiter_bins[(size_t)l * result->bins + i];
        rates[count++] /= flows_of[l];
    }
    return jain_index(rates, count);
}

/* Seconds until even; -1: never. *mean: the index from the second second on. */
static double epoch_settled(const struct experiment *experiment, const struct sim_flow *flows,
                            const struct sim_result *result, unsigned from, unsigned to, double even, double *mean)
{
    static unsigned flows_of[DRL_MAX_LIMITERS];
    unsigned first = from * BINS_A_SECOND, last = to * BINS_A_SECOND - BINS_A_SECOND, counted = 0;
    double settled = -1;

    memset(flows_of, 0, sizeof flows_of);
    for (unsigned i = 0; i < experiment->flows; i++)
        flows_of[flows[i].limiter] += lasts(&flows[i], from, to);
    *mean = 0;
    for (unsigned bin = first; bin <= last; bin++) {
        double index = limiters_jain(experiment, result, flows_of, bin);
        if (settled < 0 && index >= even)
            settled = (double)(bin - first) / BINS_A_SECOND;
        if (bin < first + BINS_A_SECOND)
            continue;
        *mean += index;
        counted++;
    }
    *mean = counted > 0 ? *mean / counted : 1;
    return settled;
}

/* Windows of so many bins, as shares of the limit: mean, how far off it, the highest; how far off the one bucket. */
static void windows(const struct experiment *experiment, const struct sim_result *result, unsigned bins, double *mean,
                    double *miss, double *highest, double *beside)
{
    double sum = 0, squares = 0, off = 0, full = experiment->mbit * 1e6 / 8 * bins / BINS_A_SECOND;
    unsigned count = 0;

    *highest = 0;
    for (unsigned bin = experiment->changes_at * BINS_A_SECOND; bin + bins <= result->bins; bin += bins) {
        double share = 0, central = 0;
        for (unsigned i = bin; i < bin + bins; i++) {
            share += result->passed[i] / full;
            central += result->central[i] / full;
        }
        sum += share;
        squares += (share - 1) * (share - 1);
        off += (share - central) * (share - central);
        *highest = fmax(*highest, share);
        count++;
    }
    *mean = sum / count;
    *miss = sqrt(squares / count);
    *beside = sqrt(off / count);
}

void figures_read(const struct experiment *experiment, const struct sim_flow *flows, const struct sim_result *result,
                  double even, struct figures *figures)
{
    double mean, highest;
    unsigned epochs = 0;

    *figures = (struct figures){0};
    windows(experiment, result, 1, &mean, &figures->miss_tenth, &highest, &figures->beside_tenth);
    windows(experiment, result, BINS_A_SECOND, &figures->mean, &figures->miss_second, &figures->highest,
            &figures->beside_second);
    for (unsigned from = experiment->changes_at, to; from < experiment->seconds; from = to, epochs++) {
        double index, settled;
        to = from + epoch_of(experiment, from);
        settled = epoch_settled(experiment, flows, result, from, to, even, &index);
        figures->even += index;
        figures->jain += flows_jain(experiment, flows, result, from, to);
        if (figures->settled >= 0)
            figures->settled = settled < 0 ? -1 : fmax(figures->settled, settled);
    }
    figures->even /= epochs;
    figures->jain /= epochs;
    figures->control = (double)result->control * 8 / 1000 / experiment->seconds / experiment->limiters;
}
