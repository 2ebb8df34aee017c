/* SPDX-License-Identifier: BSD-2-Clause */
/* A table of another project: ns of an insertion, ns of a look-up in bursts (tables.h). */

#include "references/tables.h"

#include <stdlib.h>

#include "bench.h"
#include "references/reference.h"
#include "testing/random.h"

#define CHECK_BURSTS 1024u /* between looks at the clock */

/* All flows in random order, over and over, until the time is over; ns each. 0: a wrong answer. */
static double find_all(const struct table_key *keys, const uint32_t *order, uint32_t flows, double seconds)
{
    const struct table_key *burst[TABLES_BURST];
    uint64_t begin = bench_now(), found = 0;
    uint32_t at = 0;

    do {
        for (unsigned n = 0; n < CHECK_BURSTS; n++) {
            uint64_t expected = 0;
            for (unsigned i = 0; i < TABLES_BURST; i++) {
                burst[i] = &keys[at];
                expected += order[at];
                at = at + 1 == flows ? 0 : at + 1;
            }
            if (other_find(burst) != expected)
                return 0;
        }
        found += CHECK_BURSTS * TABLES_BURST;
    } while ((double)(bench_now() - begin) < seconds * 1e9);
    return (double)(bench_now() - begin) / (double)found;
}

static bool measure(const struct table_key *keys, const uint32_t *order, const uint32_t *arrival,
                    const struct reference_options *options, double *ns)
{
    bool done = other_open(options->flows);
    uint64_t begin = bench_now();

    for (uint32_t i = 0; done && i < options->flows; i++)
        done = other_insert(&keys[arrival[i]], order[arrival[i]]);
    ns[0] = (double)(bench_now() - begin) / options->flows;
    if (done)
        ns[1] = find_all(keys, order, options->flows, options->seconds);
    other_close();
    return done && ns[1] > 0;
}

int main(int argc, char **argv)
{
    struct reference_options options;

    if (!reference_options(argc, argv, &options))
        return 2;
    bench_pin(0);
    uint32_t *order = bench_shuffled(options.flows, options.seed);
    /* In another order than they come in, so that what was allocated together is not met together. */
    uint32_t *arrival = bench_shuffled(options.flows, options.seed + 1);
    struct table_key *keys = bench_memory(options.flows * sizeof *keys);
    const char *missing = order && arrival && keys ? other_prepare(options.flows) : "not enough memory";

    reference_ready(missing);
    if (!missing) {
        uint64_t random = options.seed;
        for (uint32_t i = 0; i < options.flows; i++)
            keys[i] = (struct table_key){(uint32_t)random_star(&random), order[i], 1000, 53, 17};
        double ns[2];
        while (reference_asked() && measure(keys, order, arrival, &options, ns))
            reference_answer(ns, 2);
    }
    free(keys);
    free(arrival);
    free(order);
    return 0;
}
