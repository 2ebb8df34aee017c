/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_COHERENT_H
#define SM_STATE_COHERENT_H

/*
 * Coherent state in shared memory: what one replica has contributed to the shared objects, and how contributions are
 * combined (design D6).
 *
 * Overview.  Each replica slot has a *row*; in it each object, but for the locked ones, has a place, the same in all
 * rows. A place has one writer, the replica in the slot; everybody reads, and combines the rows. A counter's place is
 * a *cell* (one each for many, two for a strong counter: what was added, what was taken); that of another eventual
 * object is a *part*.
 *
 * Life-cycle.  Zero-filled memory is a row to which nothing has been contributed. Rows outlive replicas, and the slot's
 * next replica goes on with the row: so what a replica has contributed is there once, whoever has gone. When a slot is
 * given up, coherent_settle() undoes what a dead replica had not committed, and closes the row for the next one.
 *
 * Undo.  A part is undone by image (journal.h). A cell keeps its own: `before_burst` is the value that it had before
 * it was changed first since the last commit, which was in unit `burst_unit`; `before_packet` and `packet_unit` are the
 * same for the last unit that changed it. A unit is a packet, or a timer: journal.h counts them, and knows the first
 * one that is not committed. A commit in the middle of a packet makes the second pair the one that counts. So an update
 * is a few stores in one cache line, and a commit touches no cell at all.
 *
 * Concurrency.  Cells: words are stored in an order that lets a reader find the committed value at any time. Parts: a
 * version that is odd while the writer is at it; readers copy and look at it again.
 *
 * Limits.  COHERENT_ROW_BYTES a row, SM_MAX_SHARED objects, SM_MAX_SHARED_SIZE bytes each.
 */

#include <splitmerge/shared.h>
#include <stdatomic.h>

#include "state/journal.h"

#define COHERENT_ROW_BYTES ((uint32_t)SM_MAX_SHARE)
#define COHERENT_LINE 64u

enum shared_kind {
    SHARED_COUNTER,
    SHARED_MIN,
    SHARED_MAX,
    SHARED_UNION,
    SHARED_LAST,
    SHARED_DISTINCT,
    SHARED_OWN,            /* eventual, with the middlebox's own combiner */
    SHARED_STRONG,         /* locked until the commit; not in rows */
    SHARED_STRONG_COUNTER, /* two cells */
    SHARED_KINDS
};

/* An object as it is registered. */
struct shared_object {
    char name[32];
    uint32_t kind;        /* enum shared_kind */
    uint32_t value_bytes; /* what an update gives; the bytes of a strong object */
    uint32_t capacity;    /* elements of a union; how many counters it is, 0: a single one */
    uint32_t at;          /* its place in the row */
    uint64_t initial;     /* of a strong counter */
};

struct coherent_cell {
    _Alignas(COHERENT_LINE) _Atomic uint64_t value;
    _Atomic uint64_t before_burst, burst_unit;
    _Atomic uint64_t before_packet, packet_unit;
};

/* A strong counter in a row: its value is `initial`, and all that was added less all that was taken. */
struct coherent_account {
    struct coherent_cell added, taken;
};

struct coherent_part {
    _Alignas(COHERENT_LINE) _Atomic uint64_t version; /* odd: it is being written */
    _Atomic uint64_t present;                         /* 0: nothing was contributed so far */
    _Atomic uint64_t refused;                         /* elements that found no place in a union */
    uint64_t unused;
    _Atomic uint64_t words[];
};

/* What a part holds, by kind: a number; a union's elements in order of their bytes; the last value and when it was
 * written; HyperLogLog's registers; the middlebox's own. */
struct coherent_union {
    uint64_t count;
    uint8_t elements[];
};
struct coherent_last {
    uint64_t time; /* packet time, ns */
    uint8_t value[];
};

#define COHERENT_REGISTERS SM_MAX_SHARED_SIZE /* of HyperLogLog, a byte each */

/* A row with the journal and the commit word of whoever writes it. */
struct coherent_writer {
    uint8_t *row;
    struct journal_region *region;
    _Atomic uint64_t *commit;
};

/* Name of a kind, as reports have it. */
const char *coherent_kind_name(enum shared_kind kind);

/* Bytes of an object's contribution without its header; of its place in a row. */
uint32_t coherent_value_bytes(const struct shared_object *object);
uint32_t coherent_place_bytes(const struct shared_object *object);

/* How many cells a counter is. */
static inline uint32_t coherent_cells(const struct shared_object *counter)
{
    return counter->capacity ? counter->capacity : 1;
}

/* Whether sizes are possible, and places follow one another within a row. */
bool coherent_sound(const struct shared_object *objects, unsigned count);

static inline uint64_t cell_load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)word, memory_order_acquire);
}

static inline void cell_store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* coherent_add() for the first change since a commit. Apart, so that the others need no stack. */
void coherent_add_first(const struct journal *journal, struct coherent_cell *cell, uint64_t amount);

/*
 * Add to a cell: the only writer's. Each pair is stored value first, and overwritten only when its unit says that it
 * does not count any more; so whoever dies between two stores leaves a cell that can be undone, and whoever reads finds
 * the same.
 */
static inline void coherent_add(const struct journal *journal, struct coherent_cell *cell, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(&cell->value, memory_order_relaxed), unit = journal->unit;

    if (atomic_load_explicit(&cell->packet_unit, memory_order_relaxed) != unit) {
        if (__builtin_expect(atomic_load_explicit(&cell->burst_unit, memory_order_relaxed) < journal->settled, 0)) {
            coherent_add_first(journal, cell, amount);
            return;
        }
        cell_store(&cell->before_packet, value);
        STEP();
        cell_store(&cell->packet_unit, unit);
        STEP();
    }
    cell_store(&cell->value, value + amount);
    STEP();
}

/* Whether the cell was changed by units that are complete, but not committed; by the one in hand. */
static inline bool coherent_uncommitted(const struct journal *journal, const struct coherent_cell *cell)
{
    uint64_t first = atomic_load_explicit(&cell->burst_unit, memory_order_relaxed);
    uint64_t last = atomic_load_explicit(&cell->packet_unit, memory_order_relaxed);
    return (first >= journal->settled && first < journal->unit) || (last >= journal->settled && last < journal->unit);
}
static inline bool coherent_in_hand(const struct journal *journal, const struct coherent_cell *cell)
{
    return atomic_load_explicit(&cell->packet_unit, memory_order_relaxed) == journal->unit;
}

/* What the unit in hand has added to the cell. */
static inline uint64_t coherent_of_packet(const struct journal *journal, const struct coherent_cell *cell)
{
    return coherent_in_hand(journal, cell) ? cell_load(&cell->value) - cell_load(&cell->before_packet) : 0;
}

/* Whether an object's place in a row is a part: neither cells nor nothing. */
bool coherent_has_part(const struct shared_object *object);

/* The first unit that the writer has not committed; any thread. */
uint64_t coherent_settled_unit(const struct coherent_writer *writer);

/* The committed value of a cell; any thread. */
uint64_t coherent_committed(const struct coherent_writer *writer, const struct coherent_cell *cell);

/* Write a part. False: the packet has changed too much, nothing was written. */
bool coherent_write(struct journal *journal, struct coherent_part *part, const void *value, uint32_t bytes,
                    unsigned refused);

/* Copy a part. False: nothing was contributed, or, after many tries, somebody is still writing it. */
bool coherent_copy(const struct coherent_part *part, void *value, uint32_t bytes);

/* The contribution that an update with `value` at packet time `now` makes alone. Not for SHARED_DISTINCT, _OWN. */
void coherent_single(const struct shared_object *object, void *part, const void *value, uint64_t now);

/* into = into + from, for the kinds that the runtime can combine. Returns how many elements found no place. */
unsigned coherent_combine(const struct shared_object *object, void *into, const void *from);

/* Whether a union has an element. */
bool coherent_contains(const struct shared_object *object, const struct coherent_union *set, const void *element);

/* HyperLogLog: the register that an element belongs to and the value that it wants there at least. */
struct state;
uint32_t coherent_register(const struct state *state, const void *element, uint32_t bytes, uint8_t *rank);
uint64_t coherent_estimate(const uint8_t *registers);

/*
 * The host, when a slot is given up: before the journal is carried out, then after. Cells get their committed values;
 * readers of parts wait meanwhile.
 */
void coherent_settle(const struct coherent_writer *writer, const struct shared_object *objects, unsigned count);
void coherent_settled(const struct coherent_writer *writer, const struct shared_object *objects, unsigned count);

static inline void *coherent_place(uint8_t *row, const struct shared_object *object)
{
    return row + object->at;
}

#endif
