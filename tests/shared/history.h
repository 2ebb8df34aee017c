/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_HISTORY_H
#define SM_TESTS_HISTORY_H

/*
 * Histories of operations on one number, and whether they are linearizable: whether there is an order of the operations
 * that respects real time (one that ended before another began comes first), and in which each gave what it would
 * have given, carried out alone. The search is that of Wing and Gong (1993) with Lowe's memory of what was tried: since
 * the value follows from which operations are done, a set of operations is tried once.
 */

#include <stdbool.h>
#include <stdint.h>

#define HISTORY_MAX 40u

enum history_kind {
    HISTORY_ADD,   /* add `amount` */
    HISTORY_TAKE,  /* `done`: `amount` was there and was taken; else it was not there */
    HISTORY_READ,  /* found `value` */
    HISTORY_FETCH, /* found `value` and added `amount` */
};

struct history_op {
    enum history_kind kind;
    int64_t amount, value;
    bool done;
    uint64_t start, end; /* of a clock that all share */
};

struct history {
    struct history_op op[HISTORY_MAX];
    unsigned count;
};

bool history_linearizable(const struct history *history, int64_t initial);

/* The value after all of them. */
int64_t history_after(const struct history *history, int64_t initial);

#endif
