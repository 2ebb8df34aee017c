/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_JOURNAL_H
#define SM_STATE_JOURNAL_H

/*
 * The undo journal: what makes a burst a transaction (design D5).
 *
 * Overview.  A replica's changes to the arena become final with one store, of its channel's commit word. Before it
 * first changes memory in a packet, the old bytes go to the journal; an allocation is announced before it is made; what
 * is freed stays as it is until the commit. When a replica has died, the host reads the commit word and the journal:
 * changes of packets that were not committed are undone, in reverse, and frees of committed ones are carried out.
 *
 * Life-cycle.  Entries are appended behind `used`. `start` is where the entries of uncommitted packets begin. A commit:
 *
 *     1. next_start = where the entries of packets that stay uncommitted begin (the one in hand, or none)
 *     2. the commit word is stored: this is the point of no return
 *     3. frees between start and next_start are carried out, each announced in `freed`
 *     4. start = next_start, base = the commit word
 *
 * Whoever comes later compares `base` with the commit word: equal, the entries from `start` on are to be undone;
 * different, step 2 was done, and the entries from `next_start` on are, and step 3 has to be finished.
 *
 * Units.  Packets and timers are counted. Which is the first uncommitted one is kept beside `start` and `next_start`,
 * and goes by the same rule: what keeps its own old values goes by that (coherent.h).
 *
 * Concurrency.  One writer, the replica's thread; the host once the kernel has reported its exit. Stores of a killed
 * process take effect in program order as far as they got, so the order of stores is all that matters; the fences keep
 * the compiler (and other architectures) to it.
 *
 * Limits.  The region's size. A burst ends early when less than JOURNAL_PACKET_BYTES are left; a packet that needs more
 * than that is refused further changes (journal_image() returns false).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <splitmerge/flow.h>

#include "state/steps.h"

#define JOURNAL_PACKET_BYTES (1u << 20) /* room that a packet is sure to find */
#define JOURNAL_RECENT 8u               /* images that are remembered, so that they are not made twice */
#define JOURNAL_RESERVE (256u << 10)    /* of it, what the middlebox leaves to tables, timers and frees */

struct state;
struct state_actor;

enum journal_kind { JOURNAL_IMAGE, JOURNAL_ALLOC, JOURNAL_FREE, JOURNAL_NOTE };

/*
 * What a section did to a flow, in words that undo it (escrow): what it changed is final before the packet is, and
 * others may change it before this one is undone. Only what the middlebox understands; so a replica carries it out.
 */
enum note_kind { NOTE_NONE, NOTE_OWN, NOTE_ADD };

struct journal_note {
    uint32_t kind;   /* enum note_kind; NOTE_NONE: nothing is noted */
    uint16_t cls;    /* of the flow */
    uint16_t bytes;  /* of data */
    uint64_t amount; /* NOTE_ADD: added to the integer at `offset` of the record */
    uint32_t offset;
    uint32_t unused;
    struct sm_key key;
    uint8_t data[SM_MAX_NOTE]; /* NOTE_OWN: the middlebox's */
};

struct journal_entry {
    uint64_t address;
    uint32_t length;    /* of the image that follows, padded to 16 bytes */
    uint32_t kind : 4;  /* enum journal_kind */
    uint32_t back : 28; /* bytes to the entry before; 0: none */
};

/* In the arena. All zero: nothing to undo. */
struct journal_region {
    _Atomic uint64_t base; /* the commit word that the uncommitted entries follow */
    _Atomic uint32_t used;
    _Atomic uint32_t start, next_start;
    _Atomic uint32_t freed;           /* frees between start and next_start, or of the section, that have been begun */
    _Atomic uint64_t unit, next_unit; /* the first uncommitted unit: as of base; once the commit word has changed */
    _Atomic uint64_t section; /* entries of a section that is final, but for its frees: end << 32 | start; 0: none */
    uint32_t capacity;        /* bytes of entries */
    _Atomic uint32_t undone;  /* by a host: what is left are notes to hand out. An image may be of a note */
    _Alignas(16) unsigned char entries[];
};

/* The replica's side, in its own memory. */
struct journal {
    struct journal_region *region;
    struct state_actor *actor;
    uint32_t capacity;     /* as in the region */
    bool off;              /* no image is kept, and nothing could be undone: how sm-bench measures what keeping costs */
    uint32_t used;         /* as in the region */
    uint32_t last;         /* the entry before that */
    uint32_t packet_start; /* where the entries of the packet in hand begin */
    uint32_t promised;     /* bytes that the flows it has in hand may yet take, for their timers and their ends */
    uint64_t unit;         /* the number of the packet (or timer) in hand; none is 0 */
    uint64_t settled;      /* the first one that is not committed */
    uint32_t start;
    uint32_t frees;                 /* entries of that kind in all */
    uint32_t packet_frees;          /* of the packet in hand */
    uint32_t section, section_last; /* where the entries of the section that is open begin, and the entry before */
    struct journal_note *note;      /* of the open section; NULL: it has none */
    uint32_t recent;                /* the packet's last images: these need no second one */
    struct {
        uint64_t address;
        uint32_t length;
    } images[JOURNAL_RECENT];
};

void journal_format(struct journal_region *region, size_t bytes);
void journal_open(struct journal *journal, struct journal_region *region, struct state_actor *actor, uint64_t commit);

/* A packet begins; the one before is complete. */
static inline void journal_packet(struct journal *journal)
{
    journal->packet_start = journal->used;
    journal->promised = 0;
    journal->unit++;
    journal->packet_frees = 0;
    journal->recent = 0;
}

/* The first unit that is not committed, to others: valid if `commit` and *base are read once more and are the same. */
static inline uint64_t journal_settled(const struct journal_region *region, uint64_t commit, uint64_t *base)
{
    struct journal_region *r = (struct journal_region *)(uintptr_t)region; /* atomic loads want it so */
    *base = atomic_load_explicit(&r->base, memory_order_acquire);
    return atomic_load_explicit(*base == commit ? &r->unit : &r->next_unit, memory_order_acquire);
}

/* Whether another packet may begin before a commit. */
static inline bool journal_has_room(const struct journal *journal)
{
    return journal->capacity - journal->used >= JOURNAL_PACKET_BYTES;
}

/* Whether one of the packet's last images has all of these bytes. */
bool journal_knows(const struct journal *journal, uint64_t address, uint32_t length);

/* This memory was allocated for the packet in hand: for as long as that is remembered, it needs no image. */
static inline void journal_known(struct journal *journal, const void *address, uint32_t length)
{
    if (journal == NULL) {
        return;
    }
    uint32_t place = journal->recent++ % JOURNAL_RECENT;
    journal->images[place].address = (uintptr_t)address;
    journal->images[place].length = length;
}

/* What an entry takes with its image. */
static inline uint32_t journal_entry_bytes(uint32_t length)
{
    return (uint32_t)sizeof(struct journal_entry) + ((length + 15) & ~15u);
}

/* Write an entry that nobody sees yet; the image is the caller's. NULL: no room. */
static inline struct journal_entry *journal_append(struct journal *journal, uint64_t address, uint32_t length,
                                                   enum journal_kind kind)
{
    uint32_t bytes = journal_entry_bytes(length), at = journal->used;

    if (journal->capacity - at < bytes) {
        return NULL;
    }
    struct journal_entry *entry = (struct journal_entry *)(void *)(journal->region->entries + at);
    *entry = (struct journal_entry){.address = address, .length = length, .kind = kind, .back = at - journal->last};
    journal->last = at;
    journal->used = at + bytes;
    return entry;
}

/* What records are copied in: no call for these. */
static inline __attribute__((always_inline)) void journal_copy(unsigned char *to, const unsigned char *from,
                                                               uint32_t length)
{
    if (length % 16 != 0) {
        memcpy(to, from, length);
        return;
    }
    uint32_t at = 0;
    for (; at + 64 <= length; at += 64) {
        memcpy(to + at, from + at, 64);
    }
    for (; at < length; at += 16) {
        memcpy(to + at, from + at, 16);
    }
}

/* journal_image() inline: every packet keeps its record. */
static inline __attribute__((always_inline)) bool journal_record(struct journal *journal, const void *address,
                                                                 uint32_t length)
{
    if (__builtin_expect(journal->off, 0) ||
        (journal->recent > 0 && journal_knows(journal, (uintptr_t)address, length))) {
        return true;
    }
    struct journal_entry *entry = journal_append(journal, (uintptr_t)address, length, JOURNAL_IMAGE);
    if (entry == NULL) {
        return false;
    }
    journal_copy((unsigned char *)(entry + 1), address, length);
    journal_known(journal, address, length);
    STEP();
    atomic_store_explicit(&journal->region->used, journal->used, memory_order_release);
    STEP();
    /* The image before the change, whatever the compiler would like. */
    atomic_thread_fence(memory_order_release);
    return true;
}

/* Keep what `address` holds; call before it changes. False: no room. NULL journal: nothing is kept. */
bool journal_image(struct journal *journal, const void *address, uint32_t length);

/*
 * Whether the packet in hand may add an entry of `length` bytes of the middlebox's choosing. By what the packet itself
 * has added, so that the answer is the same wherever in a burst it is.
 */
static inline bool journal_may_add(const struct journal *journal, uint64_t length)
{
    uint64_t limit = JOURNAL_PACKET_BYTES - JOURNAL_RESERVE;
    return journal == NULL || (uint64_t)journal->used - journal->packet_start + journal->promised + length +
                                      sizeof(struct journal_entry) + 15 <=
                                  limit;
}

/*
 * A flow comes to the packet's hands: an image of `length` bytes, and what may be done to it without asking, `promise`
 * bytes. False: the packet has too much in hand already.
 */
static inline bool journal_promise(struct journal *journal, uint32_t length, uint32_t promise)
{
    if (!journal_may_add(journal, (uint64_t)length + promise)) {
        return false;
    }
    journal->promised += promise;
    return true;
}

/* An object is about to be allocated; is to be freed at the commit. */
void journal_alloc(struct journal *journal, const void *object);
void journal_free(struct journal *journal, void *object);

/*
 * A section: changes to memory with several writers, under its lock. They are undone by image only while the lock is
 * held; journal_section_end() makes them final, with one store, before it is given back: of `used`, or where the
 * section frees something, of `section`; then its frees are carried out, by whoever is there to do it.
 */
void journal_section_begin(struct journal *journal, bool noted);
void journal_section_end(struct journal *journal);

/*
 * In a section that was begun as `noted`: what it has done is to be undone by `note` if the packet is not committed.
 * The note takes effect with the section's end, by the same store. journal_unnote(): the middlebox's own (NOTE_OWN) of
 * the packet in hand for a flow do not count any more; what was added stays noted.
 */
void journal_note(struct journal *journal, const struct journal_note *note);
void journal_unnote(struct journal *journal, unsigned cls, const struct sm_key *key);

/* Around the store of the commit word: `all`: the packet in hand is complete too. */
void journal_prepare(struct journal *journal, bool all);
void journal_committed(struct journal *journal, uint64_t commit);

/* Whether the writer is through with its last commit and has begun nothing since. Any thread. */
bool journal_is_idle(const struct journal_region *region, uint64_t commit);

/* What is wrong with the journal of a replica that does nothing, in words; NULL: nothing. */
const char *journal_at_rest(const struct journal_region *region, size_t bytes, uint64_t commit);

/*
 * The host, for a dead replica: undo and finish. Returns how many entries were undone, or SM_E_DAMAGED with nothing
 * done: the replica has scribbled on its journal, which leads outside of its own `bytes`, or of the arena ([low,
 * high)). `noted` is called for each note of what is not committed, in order. A host that dies in it leaves what the
 * next one can do again from the beginning; only the note that was being handed out may be handed out once more, and
 * is known by its place.
 */
typedef void journal_note_fn(void *arg, const struct journal_note *note);
int journal_recover(struct state *state, struct journal_region *region, size_t bytes, uint64_t commit, const void *low,
                    const void *high, journal_note_fn *noted, void *arg);

#endif
