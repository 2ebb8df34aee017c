/* SPDX-License-Identifier: BSD-2-Clause */
#include "history.h"

#include <stdlib.h>

/* Sets of operations that lead nowhere: an open-addressing table that grows. */
struct memory {
    uint64_t *sets; /* 0: free (the empty set is never remembered) */
    uint64_t size, count;
};

static bool remember(struct memory *memory, uint64_t set);

static void grow(struct memory *memory)
{
    struct memory larger = {.size = memory->size ? memory->size * 2 : 1024};

    larger.sets = calloc(larger.size, sizeof *larger.sets);
    if (!larger.sets)
        abort();
    for (uint64_t i = 0; i < memory->size; i++)
        if (memory->sets[i])
            remember(&larger, memory->sets[i]);
    free(memory->sets);
    *memory = larger;
}

/* False: it was there. */
static bool remember(struct memory *memory, uint64_t set)
{
    if (2 * memory->count >= memory->size)
        grow(memory);
    uint64_t at = set * 0x9e3779b97f4a7c15ull >> 20;
    for (;; at++) {
        uint64_t *place = &memory->sets[at & (memory->size - 1)];
        if (*place == set)
            return false;
        if (*place == 0) {
            *place = set;
            memory->count++;
            return true;
        }
    }
}

/* What the operation makes of `value`; false: it gave something else. */
static bool apply(const struct history_op *op, int64_t *value)
{
    switch (op->kind) {
    case HISTORY_ADD:
        *value += op->amount;
        return true;
    case HISTORY_TAKE:
        if ((*value >= op->amount) != op->done)
            return false;
        *value -= op->done ? op->amount : 0;
        return true;
    case HISTORY_READ:
        return *value == op->value;
    case HISTORY_FETCH:
        if (*value != op->value)
            return false;
        *value += op->amount;
        return true;
    }
    return false;
}

static bool search(const struct history *history, struct memory *memory, uint64_t done, int64_t value)
{
    uint64_t first_end = UINT64_MAX, all = (UINT64_C(1) << history->count) - 1;

    if (done == all)
        return true;
    for (unsigned i = 0; i < history->count; i++)
        if (!(done >> i & 1) && history->op[i].end < first_end)
            first_end = history->op[i].end;
    for (unsigned i = 0; i < history->count; i++) {
        int64_t next = value;
        /* Next is one that began before any that is left had ended. */
        if ((done >> i & 1) || history->op[i].start > first_end || !apply(&history->op[i], &next))
            continue;
        if (remember(memory, done | UINT64_C(1) << i) && search(history, memory, done | UINT64_C(1) << i, next))
            return true;
    }
    return false;
}

bool history_linearizable(const struct history *history, int64_t initial)
{
    struct memory memory = {0};
    bool found = search(history, &memory, 0, initial);

    free(memory.sets);
    return found;
}

int64_t history_after(const struct history *history, int64_t initial)
{
    for (unsigned i = 0; i < history->count; i++) {
        const struct history_op *op = &history->op[i];
        if (op->kind == HISTORY_ADD || op->kind == HISTORY_FETCH)
            initial += op->amount;
        else if (op->kind == HISTORY_TAKE && op->done)
            initial -= op->amount;
    }
    return initial;
}
