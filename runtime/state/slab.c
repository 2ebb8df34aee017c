/* SPDX-License-Identifier: BSD-2-Clause */
/* Slabs; see slab.h for overview, life-cycle, concurrency and limits. */

#include "state/internal.h"
#include "state/prefetch.h"

static uint64_t control_load(struct slab *slab)
{
    return atomic_load_explicit(&slab->control, memory_order_acquire);
}

static void control_store(struct slab *slab, struct slab_control control)
{
    atomic_store_explicit(&slab->control, slab_pack(control), memory_order_release);
}

static bool control_swap(struct slab *slab, uint64_t expected, struct slab_control control)
{
    return atomic_compare_exchange_strong_explicit(&slab->control, &expected, slab_pack(control), memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static uint32_t holder_of(const struct state_actor *actor)
{
    return actor->slot + 1;
}

static uint32_t fresh_load(const struct state *state)
{
    return atomic_load_explicit(&((struct state *)(uintptr_t)state)->fresh, memory_order_acquire);
}

uint64_t slab_count_for(uint64_t memory)
{
    return memory < SLAB_BYTES ? 1 : memory / SLAB_BYTES;
}

static void bin_set(struct state *state, unsigned bin, uint32_t bytes)
{
    assert(bytes % STATE_UNIT == 0 && bytes <= SLAB_BYTES);
    state->bins[bin].units = bytes / STATE_UNIT;
    state->bins[bin].objects = slab_objects(bytes / STATE_UNIT);
}

void slab_format(struct state *state)
{
    for (unsigned i = 0; i < SLAB_TABLE_BINS; i++) {
        bin_set(state, i, SLAB_TABLE_MIN << i);
    }
    for (unsigned i = 0; i < SLAB_HEAP_BINS; i++) {
        bin_set(state, SLAB_BIN_HEAP + i, SLAB_HEAP_MIN << i);
    }
    bin_set(state, SLAB_BIN_CHUNK, SLAB_CHUNK_MIN);
    for (unsigned i = 0; i < SLAB_CHUNK_BINS - 1; i++) {
        bin_set(state, SLAB_BIN_CHUNK + 1 + i, SLAB_CHUNK_STEP << i);
    }
    state->bin_count = SLAB_BIN_FLOW;
}

int slab_bin_for(struct state *state, uint32_t bytes)
{
    assert(bytes > 0 && bytes <= SLAB_BYTES && bytes % STATE_UNIT == 0);
    for (unsigned i = 0; i < state->bin_count; i++) {
        if (state->bins[i].units == bytes / STATE_UNIT) {
            return (int)i;
        }
    }
    if (state->bin_count == SLAB_BINS) {
        return -1;
    }
    bin_set(state, state->bin_count, bytes);
    return (int)state->bin_count++;
}

bool slab_is_empty(const struct slab *slab)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < SLAB_WORDS; i++) {
        any |= atomic_load_explicit(&((struct slab *)(uintptr_t)slab)->used[i], memory_order_acquire);
    }
    return any == 0;
}

static uint32_t slab_room(struct slab *slab, uint32_t objects)
{
    uint32_t used = 0;
    for (unsigned i = 0; i < (objects + 63) / 64; i++) {
        used += (uint32_t)__builtin_popcountll(atomic_load_explicit(&slab->used[i], memory_order_relaxed));
    }
    return used < objects ? objects - used : 0;
}

/* Take a run apart that the actor holds (or held, when it is dead); its first slab is unused afterwards. */
static void run_dissolve(struct state *state, uint32_t first, uint32_t length)
{
    for (uint32_t i = 1; i < length && first + i < state->slab_count; i++) {
        uint64_t word = control_load(&state->slabs[first + i]);
        struct slab_control c = slab_unpack(word);
        if (c.kind == SLAB_TAIL && c.length == i) {
            STEP();
            (void)control_swap(&state->slabs[first + i], word, (struct slab_control){0});
        }
    }
    STEP();
    control_store(&state->slabs[first], (struct slab_control){0});
}

/* Dissolve the run that starts here if nobody uses it. */
static bool run_reclaim(struct state_actor *actor, uint32_t first, uint64_t word)
{
    struct slab *slab = &actor->state->slabs[first];
    struct slab_control c = slab_unpack(word), held = c;
    held.holder = holder_of(actor);
    if (c.holder != 0 || !slab_is_empty(slab) || !control_swap(slab, word, held)) {
        return false;
    }
    if (!slab_is_empty(slab)) { /* it was used and left between the two looks */
        control_store(slab, c);
        return false;
    }
    run_dissolve(actor->state, first, c.length);
    return true;
}

/* Hold a slab for a bin, when it has `room` free objects of that size or can be cut anew. */
static bool slab_hold(struct state_actor *actor, uint32_t index, unsigned bin, uint32_t room)
{
    struct slab *slab = &actor->state->slabs[index];
    const struct slab_bin *want = &actor->state->bins[bin];
    uint64_t word = control_load(slab);
    struct slab_control c = slab_unpack(word);
    if (c.kind == SLAB_RUN && run_reclaim(actor, index, word)) {
        word = control_load(slab);
        c = slab_unpack(word);
    }
    if (c.holder != 0 || c.kind != SLAB_OBJECTS_OF_ONE_SIZE) {
        return false;
    }
    bool same = c.units == want->units;
    if (same ? slab_room(slab, want->objects) < room : c.units != 0 && !slab_is_empty(slab)) {
        return false;
    }
    struct slab_control held = {.units = c.units, .holder = holder_of(actor)};
    if (!control_swap(slab, word, held)) {
        return false;
    }
    /* Only now nobody else can set a bit. */
    if (same ? slab_room(slab, want->objects) == 0 : c.units != 0 && !slab_is_empty(slab)) {
        control_store(slab, c);
        return false;
    }
    STEP();
    held.units = want->units;
    control_store(slab, held);
    STEP();
    actor->slabs.current[bin].slab = index + 1;
    actor->slabs.current[bin].word = 0;
    return true;
}

static void slab_let_go(struct state_actor *actor, unsigned bin)
{
    struct slab *slab = &actor->state->slabs[actor->slabs.current[bin].slab - 1];
    struct slab_control c = slab_unpack(control_load(slab));
    assert(c.holder == holder_of(actor) && c.kind == SLAB_OBJECTS_OF_ONE_SIZE);
    c.holder = 0;
    STEP();
    control_store(slab, c);
    STEP();
    actor->slabs.current[bin].slab = 0;
}

/* Go over at most `span` descriptors in use, from where the last search ended. */
static bool slab_search(struct state_actor *actor, unsigned bin, uint32_t span, uint32_t room)
{
    uint32_t fresh = fresh_load(actor->state), *at = &actor->slabs.search;
    for (uint32_t i = 0; i < span && i < fresh; i++) {
        if (*at >= fresh) {
            *at = 0;
        }
        if (slab_hold(actor, *at, bin, room)) {
            return true; /* the next search begins here, where there may be more */
        }
        (*at)++;
    }
    return false;
}

/* Move the border of what was never used up by `count` slabs; the first of them, or UINT32_MAX. */
static uint32_t fresh_take(struct state *state, uint32_t count)
{
    uint32_t at = fresh_load(state);
    while (count <= state->slab_count - at) {
        if (atomic_compare_exchange_weak_explicit(&state->fresh, &at, at + count, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            return at;
        }
    }
    return UINT32_MAX;
}

/* The last resort: a slab of another size that the actor itself holds, but has nothing in. */
static bool slab_convert(struct state_actor *actor, unsigned bin)
{
    for (unsigned i = 0; i < actor->state->bin_count; i++) {
        uint32_t held = actor->slabs.current[i].slab;
        if (held != 0 && slab_is_empty(&actor->state->slabs[held - 1])) {
            slab_let_go(actor, i);
            if (slab_hold(actor, held - 1, bin, 1)) {
                return true;
            }
        }
    }
    return false;
}

static bool slab_refill(struct state_actor *actor, unsigned bin)
{
    struct state *state = actor->state;
    uint64_t bit = UINT64_C(1) << bin;
    uint32_t enough = state->bins[bin].objects / 8;
    if (slab_search(actor, bin, SLAB_SEARCH, enough > 0 ? enough : 1)) {
        return true;
    }
    /* Another actor's search may find it first, as soon as the border has moved: then the next one. */
    for (uint32_t fresh; (fresh = fresh_take(state, 1)) != UINT32_MAX;) {
        STEP();
        if (slab_hold(actor, fresh, bin, 1)) {
            return true;
        }
    }
    uint32_t span = actor->slabs.dry & bit ? SLAB_SEARCH : state->slab_count;
    if (slab_search(actor, bin, span, 1) || slab_convert(actor, bin)) {
        actor->slabs.dry &= ~bit;
        return true;
    }
    actor->slabs.dry |= bit;
    return false;
}

static unsigned char *object_at(const struct state *state, uint32_t slab, uint32_t object, uint32_t units)
{
    return state->heap + (uint64_t)slab * SLAB_BYTES + (uint64_t)object * units * STATE_UNIT;
}

/* The object that the next allocation will take: it was freed elsewhere, or long ago. */
static void fetch_next(const struct state *state, unsigned bin, uint32_t index, uint32_t first, uint64_t room)
{
    if (room != 0) {
        uint32_t number = first + (uint32_t)__builtin_ctzll(room);
        unsigned char *object = object_at(state, index, number, state->bins[bin].units);
        prefetch_for_write(object);
        prefetch_for_write(object + STATE_LINE);
    }
}

/* Set a free bit of the slab held for the bin; its object, or NULL when all are set. */
static void *slab_take(struct state_actor *actor, unsigned bin, uint32_t index)
{
    struct slab *slab = &actor->state->slabs[index];
    uint32_t objects = actor->state->bins[bin].objects, words = (objects + 63) / 64;
    uint32_t *word = &actor->slabs.current[bin].word;
    assert(*word < words);
    for (uint32_t i = 0; i < words; i++) {
        uint64_t valid = *word == objects / 64 ? (UINT64_C(1) << (objects % 64)) - 1 : ~UINT64_C(0);
        /* Acquire: whoever freed an object has done with it before we write on it. */
        uint64_t room = ~atomic_load_explicit(&slab->used[*word], memory_order_acquire) & valid;
        if (room != 0) {
            uint64_t bit = room & -room;
            uint32_t number = *word * 64 + (uint32_t)__builtin_ctzll(bit);
            void *object = object_at(actor->state, index, number, actor->state->bins[bin].units);
            journal_alloc(actor->journal, object);
            /* A free object is its slab holder's: no tombstone may be left on it when it is taken. */
            *(uint64_t *)object = 0;
            STEP();
            uint64_t before = atomic_fetch_or_explicit(&slab->used[*word], bit, memory_order_acq_rel);
            assert((before & bit) == 0);
            (void)before;
            STEP();
            fetch_next(actor->state, bin, index, *word * 64, room & ~bit);
            return object;
        }
        *word = *word + 1 < words ? *word + 1 : 0;
    }
    return NULL;
}

void *slab_alloc(struct state_actor *actor, unsigned bin)
{
    assert(bin < actor->state->bin_count);
    if (ALLOCATION_FAILS()) {
        return NULL;
    }
    for (;;) {
        uint32_t held = actor->slabs.current[bin].slab;
        if (held != 0) {
            void *object = slab_take(actor, bin, held - 1);
            if (object != NULL) {
                return object;
            }
            slab_let_go(actor, bin);
        }
        if (!slab_refill(actor, bin)) {
            return NULL;
        }
    }
}

/* Whether the slab looks free of objects and holders; takes idle runs apart on the way. */
static bool slab_is_free(struct state_actor *actor, uint32_t index)
{
    struct slab *slab = &actor->state->slabs[index];
    uint64_t word = control_load(slab);
    struct slab_control c = slab_unpack(word);
    if (c.kind == SLAB_RUN) {
        return run_reclaim(actor, index, word);
    }
    return c.holder == 0 && c.kind == SLAB_OBJECTS_OF_ONE_SIZE && (c.units == 0 || slab_is_empty(slab));
}

/* Take the slabs first .. first + length - 1 and make a run of them; all or nothing. */
static bool run_build(struct state_actor *actor, uint32_t first, uint32_t length)
{
    struct slab *slabs = &actor->state->slabs[first];
    uint32_t me = holder_of(actor), taken;
    for (taken = 0; taken < length; taken++) {
        uint64_t word = control_load(&slabs[taken]);
        struct slab_control c = slab_unpack(word);
        struct slab_control building = {.units = c.units, .holder = me, .kind = SLAB_BUILDING};
        STEP();
        if (c.holder != 0 || c.kind != SLAB_OBJECTS_OF_ONE_SIZE || !control_swap(&slabs[taken], word, building)) {
            break;
        }
        if (!slab_is_empty(&slabs[taken])) {
            control_store(&slabs[taken], c);
            break;
        }
    }
    if (taken < length) {
        while (taken-- > 0) {
            control_store(&slabs[taken], (struct slab_control){0});
        }
        return false;
    }
    /* The first slab goes first: from then on slab_abandon() finds the tails through it. */
    control_store(&slabs[0], (struct slab_control){.holder = me, .kind = SLAB_RUN, .length = length});
    for (uint32_t i = 1; i < length; i++) {
        STEP();
        control_store(&slabs[i], (struct slab_control){.kind = SLAB_TAIL, .length = i});
    }
    STEP();
    journal_alloc(actor->journal, actor->state->heap + (uint64_t)first * SLAB_BYTES);
    atomic_store_explicit(&slabs[0].used[0], 1, memory_order_release);
    STEP();
    control_store(&slabs[0], (struct slab_control){.kind = SLAB_RUN, .length = length});
    STEP();
    return true;
}

void *slab_alloc_run(struct state_actor *actor, uint32_t length)
{
    struct state *state = actor->state;
    assert(length >= 2 && length <= SLAB_RUN_MAX);
    if (ALLOCATION_FAILS()) {
        return NULL;
    }
    uint32_t first;
    while ((first = fresh_take(state, length)) != UINT32_MAX) {
        if (run_build(actor, first, length)) {
            return state->heap + (uint64_t)first * SLAB_BYTES;
        }
    }
    if (actor->slabs.skip > 0 && length >= actor->slabs.skip_length) {
        actor->slabs.skip--;
        return NULL;
    }
    /* What was never used is too short for a run: from now on it is searched with the rest. */
    uint32_t rest = state->slab_count - fresh_load(state);
    if (rest > 0 && rest < length) {
        (void)fresh_take(state, rest);
    }
    uint32_t fresh = fresh_load(state), streak = 0;
    for (uint32_t i = 0; i < fresh; i++) {
        streak = slab_is_free(actor, i) ? streak + 1 : 0;
        if (streak == length) {
            first = i + 1 - length;
            if (run_build(actor, first, length)) {
                return state->heap + (uint64_t)first * SLAB_BYTES;
            }
            streak = 0;
        }
    }
    actor->slabs.skip = SLAB_SEARCH;
    actor->slabs.skip_length = length;
    return NULL;
}

void slab_free(struct state_actor *actor, void *object)
{
    if (actor->journal != NULL) {
        journal_free(actor->journal, object);
    } else {
        slab_release(actor->state, actor, object);
    }
}

static uint64_t tombstone(const void *object)
{
    return UINT64_C(0x6465616420626f64) ^ (uintptr_t)object;
}

void slab_bury(void *object)
{
    *(uint64_t *)object = tombstone(object);
    atomic_thread_fence(memory_order_release);
}

/* The object's bit in its slab's bitmap. */
static struct slab *bit_of(struct state *state, const void *object, uint32_t *bit)
{
    uint64_t offset = (uint64_t)((const unsigned char *)object - state->heap);
    struct slab *slab = &state->slabs[offset / SLAB_BYTES];
    struct slab_control c = slab_unpack(control_load(slab));
    *bit = c.kind == SLAB_OBJECTS_OF_ONE_SIZE && c.units > 0 ? (uint32_t)(offset % SLAB_BYTES / (c.units * STATE_UNIT))
                                                             : 0;
    if (*bit >= SLAB_OBJECTS) {
        *bit = 0; /* forged: of a dead replica's journal, and no object */
    }
    return slab;
}

bool slab_buried(struct state *state, const void *object)
{
    uint32_t bit;
    struct slab *slab = bit_of(state, object, &bit);
    bool used = atomic_load_explicit(&slab->used[bit / 64], memory_order_acquire) >> (bit % 64) & 1;
    return used && *(const uint64_t *)object == tombstone(object);
}

bool slab_may_release(struct state *state, const void *object)
{
    uint64_t offset = (uint64_t)((const unsigned char *)object - state->heap), within = offset % SLAB_BYTES;
    if (offset / SLAB_BYTES >= state->slab_count) {
        return false;
    }
    struct slab *slab = &state->slabs[offset / SLAB_BYTES];
    struct slab_control c = slab_unpack(control_load(slab));
    bool is_object = c.kind == SLAB_OBJECTS_OF_ONE_SIZE && c.units > 0 && within % (c.units * STATE_UNIT) == 0 &&
                     within / (c.units * STATE_UNIT) < SLAB_OBJECTS;
    if (!is_object && (c.kind != SLAB_RUN || within != 0)) {
        return false;
    }
    uint32_t bit = is_object ? (uint32_t)(within / (c.units * STATE_UNIT)) : 0;
    return atomic_load_explicit(&slab->used[bit / 64], memory_order_acquire) >> (bit % 64) & 1;
}

void slab_unmake(struct state *state, void *object)
{
    uint32_t bit;
    struct slab *slab = bit_of(state, object, &bit);
    /* Announced, and perhaps made: only its maker could set this bit, and that one is dead. */
    atomic_fetch_and_explicit(&slab->used[bit / 64], ~(UINT64_C(1) << (bit % 64)), memory_order_release);
}

void slab_release(struct state *state, struct state_actor *actor, void *object)
{
    uint64_t offset = (uint64_t)((unsigned char *)object - state->heap);
    uint32_t index = (uint32_t)(offset / SLAB_BYTES), within = (uint32_t)(offset % SLAB_BYTES), bit = 0;
    if (actor == NULL && !slab_may_release(state, object)) {
        return; /* a dead one's journal named it twice */
    }
    assert(index < state->slab_count);
    struct slab *slab = &state->slabs[index];
    struct slab_control c = slab_unpack(atomic_load_explicit(&slab->control, memory_order_relaxed));
    if (c.kind == SLAB_OBJECTS_OF_ONE_SIZE) {
        assert(c.units != 0 && within % (c.units * STATE_UNIT) == 0);
        bit = within / (c.units * STATE_UNIT);
    } else {
        assert(c.kind == SLAB_RUN && within == 0);
        if (actor != NULL) {
            actor->slabs.skip = 0;
        }
    }
    if (actor != NULL && actor->slabs.dry != 0) {
        actor->slabs.search = index;
    }
    uint64_t mask = UINT64_C(1) << (bit % 64);
    uint64_t before = atomic_fetch_and_explicit(&slab->used[bit / 64], ~mask, memory_order_release);
    assert(before & mask);
    (void)before;
}

void slab_leave(struct state_actor *actor)
{
    for (unsigned i = 0; i < SLAB_BINS; i++) {
        if (actor->slabs.current[i].slab != 0) {
            slab_let_go(actor, i);
        }
    }
}

void slab_abandon(struct state *state, unsigned slot)
{
    uint32_t fresh = fresh_load(state);
    for (uint32_t i = 0; i < fresh; i++) {
        struct slab *slab = &state->slabs[i];
        struct slab_control c = slab_unpack(control_load(slab));
        if (c.holder != slot + 1) {
            continue;
        }
        if (c.kind == SLAB_BUILDING) { /* perhaps not yet known to be empty */
            control_store(slab, (struct slab_control){.units = c.units});
        } else if (c.kind == SLAB_RUN && slab_is_empty(slab)) {
            run_dissolve(state, i, c.length);
        } else {
            c.holder = 0;
            control_store(slab, c);
        }
    }
}

uint64_t slab_taken(const struct state *state)
{
    uint64_t taken = 0;
    uint32_t fresh = fresh_load(state);
    for (uint32_t i = 0; i < fresh; i++) {
        struct slab *slab = &state->slabs[i];
        struct slab_control c = slab_unpack(control_load(slab));
        if (c.kind == SLAB_RUN) {
            taken += slab_is_empty(slab) ? 0 : c.length;
        } else if (c.kind == SLAB_BUILDING || (c.kind == SLAB_OBJECTS_OF_ONE_SIZE && c.units != 0)) {
            taken += c.holder != 0 || !slab_is_empty(slab);
        }
    }
    return taken;
}
