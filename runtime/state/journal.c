/* SPDX-License-Identifier: BSD-2-Clause */
/* The undo journal; see journal.h for overview, life-cycle, concurrency and limits. */

#include "state/journal.h"

#include "state/internal.h"

static struct journal_entry *entry_at(struct journal_region *region, uint32_t at)
{
    return (struct journal_entry *)(void *)(region->entries + at);
}

static uint32_t load(_Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static void store(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/*
 * Nothing to undo. Word by word: others may be looking for what is committed. `used` goes first: a host that dies
 * behind it leaves a journal in which there is nothing to do, whatever its other words say.
 */
static void wipe(struct journal_region *region)
{
    store(&region->used, 0);
    STEP();
    store(&region->start, 0);
    STEP();
    store(&region->next_start, 0);
    STEP();
    store(&region->freed, 0);
    store(&region->undone, 0);
    STEP();
    atomic_store_explicit(&region->base, 0, memory_order_release);
    atomic_store_explicit(&region->section, 0, memory_order_release);
    atomic_store_explicit(&region->unit, 0, memory_order_release);
    atomic_store_explicit(&region->next_unit, 0, memory_order_release);
}

void journal_format(struct journal_region *region, size_t bytes)
{
    assert(bytes >= sizeof *region + 2 * (size_t)JOURNAL_PACKET_BYTES);
    wipe(region);
    if (region->capacity == 0) {
        region->capacity = (uint32_t)(bytes - sizeof *region);
    }
}

void journal_open(struct journal *journal, struct journal_region *region, struct state_actor *actor, uint64_t commit)
{
    *journal =
        (struct journal){.region = region, .actor = actor, .capacity = region->capacity, .unit = 1, .settled = 1};
    atomic_store_explicit(&region->unit, journal->settled, memory_order_release);
    atomic_store_explicit(&region->base, commit, memory_order_release);
    actor->journal = journal;
}

bool journal_knows(const struct journal *journal, uint64_t address, uint32_t length)
{
    uint32_t known = journal->recent < JOURNAL_RECENT ? journal->recent : JOURNAL_RECENT;
    for (uint32_t i = 0; i < known; i++) {
        if (journal->images[i].address <= address &&
            address + length <= journal->images[i].address + journal->images[i].length) {
            return true;
        }
    }
    return false;
}

bool journal_image(struct journal *journal, const void *address, uint32_t length)
{
    return journal == NULL || journal_record(journal, address, length);
}

void journal_alloc(struct journal *journal, const void *object)
{
    if (journal == NULL) {
        return;
    }
    struct journal_entry *entry = journal_append(journal, (uintptr_t)object, 0, JOURNAL_ALLOC);
    assert(entry != NULL && "a packet's allocations fit in the room that it is sure of");
    (void)entry;
    STEP();
    store(&journal->region->used, journal->used);
    STEP();
    atomic_thread_fence(memory_order_release);
}

void journal_free(struct journal *journal, void *object)
{
    struct journal_entry *entry = journal_append(journal, (uintptr_t)object, 0, JOURNAL_FREE);
    assert(entry != NULL && "a packet's frees fit in the room that it is sure of");
    (void)entry;
    journal->frees++;
    journal->packet_frees++;
    STEP();
    store(&journal->region->used, journal->used);
    STEP();
}

/*
 * Carry out the frees of entries [from, to), but for the first `skip`. Each object gets a tombstone and is announced
 * first. Whoever dies then leaves one that is free or not, and perhaps somebody else's already; the tombstone tells,
 * since an allocator wipes it before it takes the object (slab.c).
 */
static void carry_out_frees(struct state_actor *actor, struct state *state, struct journal_region *region,
                            uint32_t from, uint32_t to, uint32_t skip)
{
    uint32_t number = 0;
    for (uint32_t at = from; at < to; at += journal_entry_bytes(entry_at(region, at)->length)) {
        const struct journal_entry *entry = entry_at(region, at);
        if (entry->kind != JOURNAL_FREE || number++ < skip) {
            continue;
        }
        void *object = (void *)(uintptr_t)entry->address;
        slab_bury(object);
        STEP();
        store(&region->freed, number);
        STEP();
        slab_release(state, actor, object);
        STEP();
    }
}

/* The same for a dead replica's frees, of which the last announced one may have been carried out. */
static void finish_frees(struct state *state, struct journal_region *region, uint32_t from, uint32_t to)
{
    uint32_t announced = load(&region->freed), number = 0;
    for (uint32_t at = from; announced > 0 && at < to; at += journal_entry_bytes(entry_at(region, at)->length)) {
        const struct journal_entry *entry = entry_at(region, at);
        if (entry->kind == JOURNAL_FREE && ++number == announced &&
            slab_buried(state, (void *)(uintptr_t)entry->address)) {
            slab_release(state, NULL, (void *)(uintptr_t)entry->address);
        }
    }
    carry_out_frees(NULL, state, region, from, to, announced);
}

/*
 * Whether all frees that are still to be carried out name objects in use, so that nothing is begun that cannot be
 * finished. An announced one may have been carried out, and its place have become anything since.
 */
static bool frees_are_sound(struct state *state, struct journal_region *region, uint32_t from, uint32_t to)
{
    uint32_t announced = load(&region->freed), number = 0;
    for (uint32_t at = from; at < to; at += journal_entry_bytes(entry_at(region, at)->length)) {
        const struct journal_entry *entry = entry_at(region, at);
        if (entry->kind == JOURNAL_FREE && ++number > announced &&
            !slab_may_release(state, (const void *)(uintptr_t)entry->address)) {
            return false;
        }
    }
    return true;
}

static bool section_frees(struct journal *journal, uint32_t end)
{
    bool any = false;
    for (uint32_t at = journal->section; at < end; at += journal_entry_bytes(entry_at(journal->region, at)->length)) {
        if (entry_at(journal->region, at)->kind == JOURNAL_FREE) {
            journal->frees--;
            journal->packet_frees--;
            any = true;
        }
    }
    return any;
}

void journal_section_begin(struct journal *journal, bool noted)
{
    journal->note = NULL;
    journal->section = journal->used;
    journal->section_last = journal->last;
    journal->recent = 0;
    if (!noted) {
        return;
    }
    /* Before the section's images: these are undone first, or dropped at its end. */
    struct journal_entry *entry = journal_append(journal, 0, sizeof(struct journal_note), JOURNAL_NOTE);
    assert(entry != NULL && "a packet's notes fit in the room that it is sure of");
    journal->note = (struct journal_note *)(void *)(entry + 1);
    journal->note->kind = NOTE_NONE;
    STEP();
    store(&journal->region->used, journal->used);
    STEP();
}

void journal_note(struct journal *journal, const struct journal_note *note)
{
    struct journal_note *to = journal->note;
    uint32_t kind = note->kind;
    journal_image(journal, &to->kind, sizeof to->kind);
    memcpy(&to->cls, &note->cls, sizeof *to - offsetof(struct journal_note, cls));
    STEP();
    atomic_thread_fence(memory_order_release);
    to->kind = kind;
    STEP();
}

void journal_unnote(struct journal *journal, unsigned cls, const struct sm_key *key)
{
    struct journal_region *region = journal->region;
    for (uint32_t at = journal->packet_start; at < journal->used;
         at += journal_entry_bytes(entry_at(region, at)->length)) {
        struct journal_note *note = (struct journal_note *)(void *)(entry_at(region, at) + 1);
        if (entry_at(region, at)->kind == JOURNAL_NOTE && note->kind == NOTE_OWN && note->cls == cls &&
            memcmp(&note->key, key, sizeof *key) == 0) {
            journal_image(journal, &note->kind, sizeof note->kind);
            note->kind = NOTE_NONE;
            STEP();
        }
    }
}

void journal_section_end(struct journal *journal)
{
    struct journal_region *region = journal->region;
    uint32_t end = journal->used;
    bool noted = journal->note != NULL && journal->note->kind != NOTE_NONE;
    bool frees = section_frees(journal, end);
    journal->recent = 0;
    journal->used = journal->section + (noted ? journal_entry_bytes(sizeof(struct journal_note)) : 0);
    journal->last = noted ? journal->section : journal->section_last;
    journal->note = NULL;
    STEP();
    if (frees) {
        store(&region->freed, 0);
        STEP();
        atomic_store_explicit(&region->section, (uint64_t)end << 32 | journal->used, memory_order_release);
        STEP();
        carry_out_frees(journal->actor, journal->actor->state, region, journal->used, end, 0);
    }
    store(&region->used, journal->used);
    STEP();
    if (frees) {
        atomic_store_explicit(&region->section, 0, memory_order_release);
        STEP();
    }
    atomic_thread_fence(memory_order_release);
}

void journal_prepare(struct journal *journal, bool all)
{
    uint32_t next = all ? journal->used : journal->packet_start;
    store(&journal->region->freed, 0);
    STEP();
    store(&journal->region->next_start, next);
    atomic_store_explicit(&journal->region->next_unit, all ? journal->unit + 1 : journal->unit, memory_order_release);
}

void journal_committed(struct journal *journal, uint64_t commit)
{
    struct journal_region *region = journal->region;
    uint32_t next = load(&region->next_start);
    bool all = next == journal->used;
    if (journal->frees > (all ? 0 : journal->packet_frees)) {
        carry_out_frees(journal->actor, journal->actor->state, region, journal->start, next, 0);
    }
    STEP();
    journal->settled = atomic_load_explicit(&region->next_unit, memory_order_relaxed);
    store(&region->start, next);
    STEP();
    atomic_store_explicit(&region->unit, journal->settled, memory_order_release);
    STEP();
    atomic_store_explicit(&region->base, commit, memory_order_release);
    STEP();
    journal->start = next;
    journal->frees = all ? 0 : journal->packet_frees;
    if (all) { /* all are empty ranges, in whatever order these become visible */
        store(&region->used, 0);
        STEP();
        store(&region->start, 0);
        STEP();
        store(&region->next_start, 0);
        journal->used = journal->start = journal->last = 0;
        journal_packet(journal);
    }
}

static void undo(struct state *state, const struct journal_entry *entry)
{
    void *address = (void *)(uintptr_t)entry->address;
    if (entry->kind == JOURNAL_IMAGE) {
        memcpy(address, entry + 1, entry->length);
    } else if (entry->kind == JOURNAL_ALLOC) {
        slab_unmake(state, address);
    }
}

static bool entry_is_sound(const struct state *state, const struct journal_entry *entry, uint64_t low, uint64_t high)
{
    if (entry->kind == JOURNAL_NOTE) {
        return entry->address == 0 && entry->length == sizeof(struct journal_note);
    }
    if (entry->kind == JOURNAL_IMAGE) {
        return entry->address >= low && entry->address <= high && entry->length <= high - entry->address;
    }
    return (entry->kind == JOURNAL_ALLOC || entry->kind == JOURNAL_FREE) && entry->length == 0 &&
           entry->address % STATE_UNIT == 0 &&
           entry->address - (uintptr_t)state->heap < (uint64_t)state->slab_count * SLAB_BYTES;
}

/* Whether the entries [from, used) can be walked both ways, and lead nowhere else. */
static bool is_sound(const struct state *state, struct journal_region *region, uint32_t from, uint32_t used,
                     uint64_t low, uint64_t high)
{
    uint32_t before = from;
    if (from % 16 != 0) {
        return from >= used;
    }
    for (uint32_t at = from; at < used;) {
        const struct journal_entry *entry = entry_at(region, at);
        uint32_t room = used - at;
        if (room < sizeof *entry || entry->length > room - sizeof *entry || journal_entry_bytes(entry->length) > room ||
            (at != from && entry->back != at - before) || !entry_is_sound(state, entry, low, high)) {
            return false;
        }
        before = at;
        at += journal_entry_bytes(entry->length);
    }
    return true;
}

/*
 * A section that was made final before its owner died, in the middle of its frees: finish them, and forget its entries.
 * False: it cannot be.
 */
static bool finish_section(struct state *state, struct journal_region *region, size_t bytes, uint64_t low,
                           uint64_t high)
{
    uint64_t section = atomic_load_explicit(&region->section, memory_order_acquire);
    uint32_t start = (uint32_t)section, end = (uint32_t)(section >> 32), used = load(&region->used);
    if (section == 0) {
        return true;
    }
    /* Its end is `used`, or its start, where the last store but one was done. */
    if (start > end || end > bytes - sizeof *region || (used != end && used != start) ||
        !is_sound(state, region, start, end, low, high) || !frees_are_sound(state, region, start, end)) {
        return false;
    }
    finish_frees(state, region, start, end);
    store(&region->used, start);
    STEP();
    /* Before `freed`: until it is 0 whoever comes again must find its frees carried out. */
    atomic_store_explicit(&region->section, 0, memory_order_release);
    STEP();
    store(&region->freed, 0);
    return true;
}

/* Undo entries [from, used), the last one first; how many. */
static int undo_entries(struct state *state, struct journal_region *region, uint32_t from, uint32_t used)
{
    uint32_t last = from;
    int count = 0;
    for (uint32_t at = from; at < used; at += journal_entry_bytes(entry_at(region, at)->length)) {
        last = at;
    }
    for (uint32_t at = last; from < used; at -= entry_at(region, at)->back) {
        undo(state, entry_at(region, at));
        STEP();
        count++;
        if (at == from) {
            break;
        }
    }
    return count;
}

static void hand_notes_out(struct journal_region *region, uint32_t from, uint32_t used, journal_note_fn *noted,
                           void *arg)
{
    for (uint32_t at = from; at < used; at += journal_entry_bytes(entry_at(region, at)->length)) {
        struct journal_note *note = (struct journal_note *)(void *)(entry_at(region, at) + 1);
        if (entry_at(region, at)->kind == JOURNAL_NOTE && note->kind != NOTE_NONE) {
            noted(arg, note);
            note->kind = NOTE_NONE;
            STEP();
        }
    }
}

int journal_recover(struct state *state, struct journal_region *region, size_t bytes, uint64_t commit, const void *low,
                    const void *high, journal_note_fn *noted, void *arg)
{
    if (!finish_section(state, region, bytes, (uintptr_t)low, (uintptr_t)high)) {
        return SM_E_DAMAGED;
    }
    uint32_t used = load(&region->used), start = load(&region->start), next = load(&region->next_start);
    bool committed = atomic_load_explicit(&region->base, memory_order_acquire) != commit;
    uint32_t from = committed ? next : start;
    int count = 0;
    bool frees = committed && next <= used && start <= next;
    if (used > bytes - sizeof *region || !is_sound(state, region, from, used, (uintptr_t)low, (uintptr_t)high) ||
        (frees && (!is_sound(state, region, start, next, (uintptr_t)low, (uintptr_t)high) ||
                   !frees_are_sound(state, region, start, next)))) {
        return SM_E_DAMAGED;
    }
    if (frees) {
        finish_frees(state, region, start, next);
    }
    if (load(&region->undone) == 0) {
        count = undo_entries(state, region, from, used);
        store(&region->undone, 1);
        STEP();
    }
    hand_notes_out(region, from, used, noted, arg);
    wipe(region);
    return count;
}

bool journal_is_idle(const struct journal_region *region, uint64_t commit)
{
    struct journal_region *r = (struct journal_region *)(uintptr_t)region; /* atomic loads want it so */
    return atomic_load_explicit(&r->base, memory_order_acquire) == commit && load(&r->used) == 0 &&
           load(&r->start) == 0 && load(&r->next_start) == 0 &&
           atomic_load_explicit(&r->section, memory_order_acquire) == 0;
}

const char *journal_at_rest(const struct journal_region *region, size_t bytes, uint64_t commit)
{
    struct journal_region *r = (struct journal_region *)(uintptr_t)region; /* atomic loads want it so */
    if (region->capacity != bytes - sizeof *region) {
        return "its capacity is another";
    }
    if (load(&r->used) > region->capacity || load(&r->start) > region->capacity ||
        load(&r->next_start) > region->capacity) {
        return "it ends outside of its room";
    }
    return journal_is_idle(region, commit) ? NULL : "it holds entries though nothing is under way";
}
