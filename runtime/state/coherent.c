/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows, cells and parts of coherent state; see coherent.h for overview, life-cycle, concurrency and limits. */

#define XXH_INLINE_ALL
#include "state/coherent.h"

#include <assert.h>
#include <sched.h>
#include <string.h>
#include <xxhash.h>

#include "state/internal.h"

#define COPY_TRIES 10000u /* a writer that is at it for longer has been stopped */

_Static_assert(sizeof(struct coherent_cell) == COHERENT_LINE, "a cell is a cache line");

const char *coherent_kind_name(enum shared_kind kind)
{
    static const char *const names[SHARED_KINDS] = {
        [SHARED_COUNTER] = "counter", [SHARED_MIN] = "min",       [SHARED_MAX] = "max",
        [SHARED_UNION] = "union",     [SHARED_LAST] = "last",     [SHARED_DISTINCT] = "distinct",
        [SHARED_OWN] = "own",         [SHARED_STRONG] = "strong", [SHARED_STRONG_COUNTER] = "strong_counter",
    };
    return names[kind];
}

uint32_t coherent_value_bytes(const struct shared_object *object)
{
    switch ((enum shared_kind)object->kind) {
    case SHARED_COUNTER:
    case SHARED_STRONG_COUNTER:
    case SHARED_MIN:
    case SHARED_MAX:
        return sizeof(uint64_t);
    case SHARED_UNION:
        return (uint32_t)sizeof(struct coherent_union) + object->capacity * object->value_bytes;
    case SHARED_LAST:
        return (uint32_t)sizeof(struct coherent_last) + object->value_bytes;
    case SHARED_DISTINCT:
        return COHERENT_REGISTERS;
    case SHARED_OWN:
    case SHARED_STRONG:
    case SHARED_KINDS:
        break;
    }
    return object->value_bytes;
}

static uint32_t round_up(uint32_t bytes)
{
    return (bytes + COHERENT_LINE - 1) / COHERENT_LINE * COHERENT_LINE;
}

uint32_t coherent_place_bytes(const struct shared_object *object)
{
    switch ((enum shared_kind)object->kind) {
    case SHARED_STRONG:
        return 0;
    case SHARED_COUNTER:
        return coherent_cells(object) * (uint32_t)sizeof(struct coherent_cell);
    case SHARED_STRONG_COUNTER:
        return sizeof(struct coherent_account);
    default:
        return round_up((uint32_t)sizeof(struct coherent_part) + coherent_value_bytes(object));
    }
}

bool coherent_has_part(const struct shared_object *object)
{
    return object->kind != SHARED_COUNTER && object->kind != SHARED_STRONG && object->kind != SHARED_STRONG_COUNTER;
}

static bool sizes_sound(const struct shared_object *object)
{
    if (object->kind >= SHARED_KINDS || object->value_bytes > SM_MAX_SHARED_SIZE ||
        object->capacity > SM_MAX_SHARED_SIZE || memchr(object->name, '\0', sizeof object->name) == NULL) {
        return false;
    }
    bool number =
        coherent_value_bytes(object) == sizeof(uint64_t) && object->kind != SHARED_OWN && object->kind != SHARED_STRONG;
    if (!number && object->kind != SHARED_STRONG && object->value_bytes == 0) {
        return false;
    }
    if (object->kind == SHARED_COUNTER) {
        return object->capacity <= SM_MAX_COUNTERS;
    }
    return coherent_value_bytes(object) <= SM_MAX_SHARED_SIZE &&
           (object->kind == SHARED_UNION) == (object->capacity > 0);
}

bool coherent_sound(const struct shared_object *objects, unsigned count)
{
    uint32_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!sizes_sound(&objects[i]) || objects[i].at != at) {
            return false;
        }
        at += coherent_place_bytes(&objects[i]);
        if (at > COHERENT_ROW_BYTES) {
            return false;
        }
    }
    return true;
}

void coherent_add_first(const struct journal *journal, struct coherent_cell *cell, uint64_t amount)
{
    /* A commit in the middle of that unit has left it uncommitted. */
    uint64_t last = atomic_load_explicit(&cell->packet_unit, memory_order_relaxed);
    bool left = last >= journal->settled;
    cell_store(&cell->before_burst,
               atomic_load_explicit(left ? &cell->before_packet : &cell->value, memory_order_relaxed));
    STEP();
    cell_store(&cell->burst_unit, left ? last : journal->unit);
    STEP();
    coherent_add(journal, cell, amount);
}

uint64_t coherent_settled_unit(const struct coherent_writer *writer)
{
    for (;;) {
        uint64_t commit = cell_load(writer->commit), base;
        uint64_t settled = journal_settled(writer->region, commit, &base);
        if (cell_load(writer->commit) == commit && cell_load(&writer->region->base) == base) {
            return settled;
        }
    }
}

uint64_t coherent_committed(const struct coherent_writer *writer, const struct coherent_cell *cell)
{
    for (;;) {
        uint64_t commit = cell_load(writer->commit), base;
        uint64_t settled = journal_settled(writer->region, commit, &base);
        uint64_t first = cell_load(&cell->burst_unit), last = cell_load(&cell->packet_unit);
        uint64_t value = cell_load(&cell->value);
        if (last != 0 && last >= settled) {
            value = cell_load(&cell->before_packet);
        }
        if (first != 0 && first >= settled) {
            value = cell_load(&cell->before_burst);
        }
        /* What would have made the choice a wrong one was stored before what was chosen. */
        if (cell_load(&cell->packet_unit) == last && cell_load(&cell->burst_unit) == first &&
            cell_load(writer->commit) == commit && cell_load(&writer->region->base) == base) {
            return value;
        }
    }
}

bool coherent_write(struct journal *journal, struct coherent_part *part, const void *value, uint32_t bytes,
                    unsigned refused)
{
    const uint8_t *from = value;
    uint32_t length = (uint32_t)sizeof *part + bytes - (uint32_t)offsetof(struct coherent_part, present);
    uint64_t version = atomic_load_explicit(&part->version, memory_order_relaxed);
    if (!journal_may_add(journal, length) || !journal_image(journal, &part->present, length)) {
        return false;
    }
    atomic_store_explicit(&part->version, version + 1, memory_order_relaxed);
    STEP();
    atomic_thread_fence(memory_order_release);
    for (uint32_t at = 0; at < bytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, from + at, bytes - at < 8 ? bytes - at : 8);
        if (atomic_load_explicit(&part->words[at / 8], memory_order_relaxed) != word) {
            cell_store(&part->words[at / 8], word);
        }
    }
    STEP();
    cell_store(&part->present, 1);
    cell_store(&part->refused, atomic_load_explicit(&part->refused, memory_order_relaxed) + refused);
    STEP();
    cell_store(&part->version, version + 2);
    STEP();
    return true;
}

bool coherent_copy(const struct coherent_part *part, void *value, uint32_t bytes)
{
    uint8_t *to = value;
    for (unsigned tries = 0; tries < COPY_TRIES; tries++) {
        uint64_t version = cell_load(&part->version);
        if (version == 0) {
            return false;
        }
        if (version % 2 != 0) {
            sched_yield();
            continue;
        }
        bool present = cell_load(&part->present) != 0;
        for (uint32_t at = 0; present && at < bytes; at += 8) {
            uint64_t word = cell_load(&part->words[at / 8]);
            memcpy(to + at, &word, bytes - at < 8 ? bytes - at : 8);
        }
        if (cell_load(&part->version) == version) {
            return present;
        }
    }
    return false;
}

void coherent_single(const struct shared_object *object, void *part, const void *value, uint64_t now)
{
    if (object->kind == SHARED_UNION) {
        struct coherent_union *set = part;
        set->count = 1;
        memcpy(set->elements, value, object->value_bytes);
    } else if (object->kind == SHARED_LAST) {
        struct coherent_last *last = part;
        last->time = now;
        memcpy(last->value, value, object->value_bytes);
    } else {
        memcpy(part, value, sizeof(int64_t));
    }
}

/* The first element that is not before `element`. */
static uint64_t place_of(const struct coherent_union *set, const void *element, uint32_t bytes)
{
    uint64_t low = 0, high = set->count;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (memcmp(set->elements + middle * bytes, element, bytes) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool coherent_contains(const struct shared_object *object, const struct coherent_union *set, const void *element)
{
    uint64_t at = place_of(set, element, object->value_bytes);
    return at < set->count && memcmp(set->elements + at * object->value_bytes, element, object->value_bytes) == 0;
}

/*
 * A full set keeps its lowest elements. So which ones are kept depends on what was added alone, and not on where or in
 * which order: the laws hold at the limit as well.
 */
static unsigned unite(const struct shared_object *object, struct coherent_union *into,
                      const struct coherent_union *from)
{
    const uint32_t bytes = object->value_bytes;
    unsigned refused = 0;
    for (uint64_t i = 0; i < from->count; i++) {
        const uint8_t *element = from->elements + i * bytes;
        uint64_t at = place_of(into, element, bytes);
        if (at < into->count && memcmp(into->elements + at * bytes, element, bytes) == 0) {
            continue;
        }
        bool full = into->count == object->capacity;
        refused += full;
        if (at == object->capacity) {
            continue;
        }
        memmove(into->elements + (at + 1) * bytes, into->elements + at * bytes, (into->count - full - at) * bytes);
        memcpy(into->elements + at * bytes, element, bytes);
        into->count += !full;
    }
    return refused;
}

static int64_t number(const void *bytes)
{
    int64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

unsigned coherent_combine(const struct shared_object *object, void *into, const void *from)
{
    uint8_t *registers = into;
    const uint8_t *others = from;
    switch ((enum shared_kind)object->kind) {
    case SHARED_MIN:
        if (number(from) < number(into)) {
            memcpy(into, from, sizeof(int64_t));
        }
        break;
    case SHARED_MAX:
        if (number(from) > number(into)) {
            memcpy(into, from, sizeof(int64_t));
        }
        break;
    case SHARED_UNION:
        return unite(object, into, from);
    case SHARED_LAST: {
        const struct coherent_last *a = into, *b = from;
        /* Of two at one time the one with the greater bytes, so that there is no order among replicas. */
        if (b->time > a->time || (b->time == a->time && memcmp(b->value, a->value, object->value_bytes) > 0)) {
            memcpy(into, from, coherent_value_bytes(object));
        }
        break;
    }
    case SHARED_DISTINCT:
        for (uint32_t i = 0; i < COHERENT_REGISTERS; i++) {
            registers[i] = registers[i] > others[i] ? registers[i] : others[i];
        }
        break;
    default:
        assert(!"the runtime combines these");
    }
    return 0;
}

#define REGISTER_BITS 12u

_Static_assert(1u << REGISTER_BITS == COHERENT_REGISTERS, "a register for each value of the bits");

uint32_t coherent_register(const struct state *state, const void *element, uint32_t bytes, uint8_t *rank)
{
    uint64_t hash = XXH3_64bits_withSecret(element, bytes, state->secret, sizeof state->secret);
    /* A bit behind the last one bounds the rank. */
    uint64_t rest = hash << REGISTER_BITS | UINT64_C(1) << (REGISTER_BITS - 1);
    *rank = (uint8_t)(__builtin_clzll(rest) + 1);
    return (uint32_t)(hash >> (64 - REGISTER_BITS));
}

/*
 * Ertl's improved estimator (New cardinality estimation algorithms for HyperLogLog sketches, 2017, algorithm 6): right
 * over the whole range, without tables. Registers full to the last bit do not occur with 64-bit hashes.
 */
uint64_t coherent_estimate(const uint8_t *registers)
{
    const double m = COHERENT_REGISTERS;
    uint32_t count[64 - REGISTER_BITS + 2] = {0};
    const unsigned highest = 64 - REGISTER_BITS + 1;
    for (uint32_t i = 0; i < COHERENT_REGISTERS; i++) {
        count[registers[i] < highest ? registers[i] : highest]++;
    }
    if (count[0] == COHERENT_REGISTERS) {
        return 0;
    }
    double z = 0;
    for (unsigned k = highest; k > 0; k--) {
        z = 0.5 * (z + count[k]);
    }
    double x = count[0] / m, y = 1, sigma = x, before;
    do {
        x *= x;
        before = sigma;
        sigma += x * y;
        y += y;
    } while (sigma != before);
    z += m * sigma;
    return (uint64_t)(0.7213475204444817 * m * m / z + 0.5); /* 1 / (2 ln 2) */
}

static void settle_cell(const struct coherent_writer *writer, struct coherent_cell *cell)
{
    uint64_t value = coherent_committed(writer, cell);
    /* The value while it does not count; then the pair that counts last goes last. */
    cell_store(&cell->value, value);
    STEP();
    cell_store(&cell->packet_unit, 0);
    STEP();
    cell_store(&cell->burst_unit, 0);
}

void coherent_settle(const struct coherent_writer *writer, const struct shared_object *objects, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        void *place = coherent_place(writer->row, &objects[i]);
        if (objects[i].kind == SHARED_COUNTER) {
            struct coherent_cell *cell = place;
            for (uint32_t k = 0; k < coherent_cells(&objects[i]); k++) {
                settle_cell(writer, &cell[k]);
            }
        } else if (objects[i].kind == SHARED_STRONG_COUNTER) {
            struct coherent_account *account = place;
            settle_cell(writer, &account->added);
            settle_cell(writer, &account->taken);
        } else if (coherent_has_part(&objects[i])) {
            struct coherent_part *part = place;
            if (cell_load(&part->version) != 0) {
                cell_store(&part->version, cell_load(&part->version) | 1);
            }
        }
    }
    atomic_thread_fence(memory_order_seq_cst);
}

void coherent_settled(const struct coherent_writer *writer, const struct shared_object *objects, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct coherent_part *part = coherent_place(writer->row, &objects[i]);
        if (coherent_has_part(&objects[i]) && cell_load(&part->version) % 2 != 0) {
            cell_store(&part->version, cell_load(&part->version) + 1);
        }
    }
}
