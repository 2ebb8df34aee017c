/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTING_RANDOM_H
#define SM_TESTING_RANDOM_H

/*
 * Random numbers for the test kit, the tests and the benchmarks. A seed that was printed must give the same run in
 * later versions: that is why there are several generators, and why none of them may change. A state of xorshift is not
 * 0.
 */

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define RANDOM_STAR 0x2545f4914f6cdd1dull /* Vigna's multiplier: low bits as good as high ones */

/* xorshift64*; what schedules of the test kit are drawn from. */
static inline uint64_t random_star(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * RANDOM_STAR;
}

/* Marsaglia's xorshift64: the state itself. */
static inline uint64_t random_xorshift(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Knuth's linear congruential generator: the state, of which only the high bits are any good. */
static inline uint64_t random_linear(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state;
}

/* 0 <= x < 1, from a number with 64 random bits. */
static inline double random_unit(uint64_t number)
{
    return (double)(number >> 11) / (double)(1ull << 53);
}

/* SM_SEED, or else one that no run has had. The caller prints it. */
static inline uint64_t random_seed(void)
{
    const char *given = getenv("SM_SEED");

    return given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
}

#endif
