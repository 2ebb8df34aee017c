/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_HISTOGRAM_H
#define SM_SWITCH_HISTOGRAM_H

/*
 * A histogram of nanoseconds with a relative error below 1/32: 32 buckets to every power of two, any value of 64 bits,
 * constant memory, no allocation.
 */

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5u
#define HISTOGRAM_BUCKETS ((64u - HISTOGRAM_SUB_BITS + 1u) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t sum;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
    if (value < (1u << HISTOGRAM_SUB_BITS))
        return (unsigned)value;
    unsigned shift = 63u - HISTOGRAM_SUB_BITS - (unsigned)__builtin_clzll(value);
    return ((shift + 1u) << HISTOGRAM_SUB_BITS) + (unsigned)((value >> shift) - (1u << HISTOGRAM_SUB_BITS));
}

/* The largest value that falls into a bucket. */
static inline uint64_t histogram_upper(unsigned bucket)
{
    if (bucket < (1u << HISTOGRAM_SUB_BITS))
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1u;
    uint64_t mantissa = (bucket & ((1u << HISTOGRAM_SUB_BITS) - 1u)) + (1u << HISTOGRAM_SUB_BITS);
    return (mantissa << shift) + ((1ull << shift) - 1u);
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[histogram_bucket(value)]++;
    if (value > histogram->max)
        histogram->max = value;
}

/* How many values are certain not to exceed a bound. */
static inline uint64_t histogram_within(const struct histogram *histogram, uint64_t bound)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram_upper(i) <= bound; i++)
        count += histogram->buckets[i];
    return count;
}

/* The value that a share of all values (0..1) does not exceed; 0 when there are none. */
static inline uint64_t histogram_quantile(const struct histogram *histogram, double share)
{
    uint64_t rank = (uint64_t)(share * (double)histogram->count);
    uint64_t seen = 0;

    if (histogram->count == 0)
        return 0;
    if (rank >= histogram->count)
        rank = histogram->count - 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > rank) {
            uint64_t upper = histogram_upper(i);
            return upper < histogram->max ? upper : histogram->max;
        }
    }
    return histogram->max;
}

#endif
