/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Strong objects (include/splitmerge/shared.h): counters by escrow, and bytes that stay locked until the commit.
 *
 * Strong counters.  Of each replica's row two cells say what it has ever added and ever taken; both only grow. The
 * value is that of the committed ones: a change takes effect at its commit. So
 *
 *   add    is a store in the own row: it depends on nothing.
 *   take   must be right whichever of the others' uncommitted bursts commit: it counts what they have taken, but not
 *          what they have added. Takers exclude one another while they count, a few loads long. What is there only if
 *          others die is theirs still, and is waited for.
 *   read   counts what is committed, twice over until both agree: since all of it only grows, it was so in between.
 *
 * Death undoes the dead one's cells (coherent.h), which gives back exactly what it had taken and not committed.
 *
 * Waiting.  Only for objects behind all that the packet in hand has got hold of, by order of registration; so nobody
 * waits in a circle. The packets done before are committed first: no one waits for those.
 */

#include <assert.h>
#include <sched.h>
#include <time.h>

#include "replica/replica.h"

/* Yield for a while, then sleep: replicas share cores, and the one that is waited for may need this one. */
void replica_back_off(unsigned *turns)
{
    if (++*turns < 4000) {
        sched_yield();
    } else {
        struct timespec pause = {.tv_nsec = 50000};
        nanosleep(&pause, NULL);
    }
}

int sm_strong_counter_register(struct sm_replica *replica, const char *name, uint64_t initial,
                               sm_strong_counter *counter)
{
    const struct shared_object wanted = {.kind = SHARED_STRONG_COUNTER, .initial = initial};
    struct shared_object *object;
    int id = initial > INT64_MAX ? SM_E_INVALID : replica_register_shared(replica, name, wanted, &object);

    if (id < 0)
        return id;
    *counter = (sm_strong_counter){.place = object->at, .id = (uint16_t)id};
    return 0;
}

static struct coherent_account *account_of(const struct sm_replica *replica, unsigned slot, sm_strong_counter counter)
{
    return (struct coherent_account *)(void *)(replica->arena->rows[slot] + counter.place);
}

void sm_strong_counter_add(struct sm_replica *replica, sm_strong_counter counter, uint64_t amount)
{
    struct coherent_account *own = (struct coherent_account *)(void *)(replica->row + counter.place);

    coherent_add(&replica->journal, &own->added, amount);
}

/* What all replicas have committed, at one moment. */
static uint64_t committed(const struct sm_replica *replica, sm_strong_counter counter)
{
    uint64_t seen[ARENA_SLOTS][2] = {{0}};

    for (;;) {
        uint64_t sum = replica->arena->registration.shared[counter.id].initial;
        unsigned rows = arena_rows(replica->arena);
        bool again = false;
        for (unsigned i = 0; i < rows; i++) {
            const struct coherent_account *account = account_of(replica, i, counter);
            const struct coherent_writer writer = arena_writer(replica->arena, i);
            uint64_t added = coherent_committed(&writer, &account->added);
            uint64_t taken = coherent_committed(&writer, &account->taken);
            again |= added != seen[i][0] || taken != seen[i][1];
            seen[i][0] = added;
            seen[i][1] = taken;
            sum += added - taken;
        }
        if (!again)
            return sum;
    }
}

/* What is there whichever bursts of others commit, and those of this replica all do; may be below 0. */
static int64_t certain(const struct sm_replica *replica, sm_strong_counter counter)
{
    uint64_t sum = replica->arena->registration.shared[counter.id].initial;
    unsigned rows = arena_rows(replica->arena);

    for (unsigned i = 0; i < rows; i++) {
        const struct coherent_account *account = account_of(replica, i, counter);
        const struct coherent_writer writer = arena_writer(replica->arena, i);
        sum += i == replica->slot ? cell_load(&account->added.value) : coherent_committed(&writer, &account->added);
        sum -= cell_load(&account->taken.value);
    }
    return (int64_t)sum;
}

static bool try_lock(struct strong_object *object, uint32_t holder)
{
    uint32_t nobody = 0;

    return atomic_compare_exchange_strong_explicit(&object->holder, &nobody, holder, memory_order_acquire,
                                                   memory_order_relaxed);
}

static void unlock(struct strong_object *object)
{
    atomic_store_explicit(&object->holder, 0, memory_order_release);
}

/* Whether the packet in hand has got hold of nothing that comes at `id` or behind it. */
static bool may_wait(const struct sm_replica *replica, unsigned id)
{
    for (unsigned i = 0; i < replica->strong_count; i++)
        if (replica->strong[i].current && replica->strong[i].id >= id)
            return false;
    return replica->held_stripe == 0 && (replica->taken_unit < replica->entry_unit || replica->taken_from < id);
}

/* The packet in hand has taken from a counter: others may wait for it. */
static void note_taken(struct sm_replica *replica, unsigned id)
{
    if (replica->taken_unit < replica->entry_unit || replica->taken_from < id)
        replica->taken_from = id;
    replica->taken_unit = replica->journal.unit;
}

/* Whether this replica has changed the counter in packets (or timers) before this one that are not committed. */
static bool uncommitted(const struct sm_replica *replica, const struct coherent_account *own)
{
    return coherent_uncommitted(&replica->journal, &own->added) || coherent_uncommitted(&replica->journal, &own->taken);
}

enum asked { HAS, LACKS, OWN, UNCERTAIN };

/* Take, or say why not: there is less; it depends on what this replica has not committed; on what others have not. */
static enum asked ask(struct sm_replica *replica, sm_strong_counter counter, uint64_t amount)
{
    struct strong_object *object = &replica->arena->strong[counter.id];
    struct coherent_account *own = account_of(replica, replica->slot, counter);
    const struct journal *journal = &replica->journal;
    unsigned turns = 0;
    enum asked asked = HAS;

    while (!try_lock(object, replica->slot + 1))
        replica_back_off(&turns);
    STEP();
    int64_t there = certain(replica, counter);
    if (there >= 0 && (uint64_t)there >= amount) {
        coherent_add(journal, &own->taken, amount);
        note_taken(replica, counter.id);
    } else if (uncommitted(replica, own)) {
        asked = OWN;
    } else {
        there = (int64_t)(committed(replica, counter) + coherent_of_packet(journal, &own->added) -
                          coherent_of_packet(journal, &own->taken));
        asked = there < 0 || (uint64_t)there < amount ? LACKS : UNCERTAIN;
    }
    unlock(object);
    return asked;
}

int sm_strong_counter_take(struct sm_replica *replica, sm_strong_counter counter, uint64_t amount)
{
    const struct coherent_account *own = account_of(replica, replica->slot, counter);
    unsigned turns = 0;

    for (;;) {
        enum asked asked = ask(replica, counter, amount);
        if (asked == HAS)
            return 0;
        if (asked == LACKS || (asked == UNCERTAIN && !may_wait(replica, counter.id)))
            return SM_E_LIMIT;
        replica_commit(replica, false);
        if (asked == UNCERTAIN)
            replica_back_off(&turns);
        else if (uncommitted(replica, own))
            return SM_E_LIMIT; /* by timers before this one of the same packet or tick, which commit with it */
    }
}

int sm_strong_counter_read(struct sm_replica *replica, sm_strong_counter counter, uint64_t *value, uint64_t *age_ns)
{
    const struct coherent_account *own = account_of(replica, replica->slot, counter);

    if (uncommitted(replica, own))
        replica_commit(replica, false);
    if (uncommitted(replica, own) || coherent_in_hand(&replica->journal, &own->added) ||
        coherent_in_hand(&replica->journal, &own->taken))
        return SM_E_STATE;
    *value = committed(replica, counter);
    if (age_ns)
        *age_ns = 0;
    return 0;
}

/* ---- locked objects ---- */

int sm_strong_register(struct sm_replica *replica, const char *name, uint32_t size, sm_strong *object)
{
    struct shared_object *made;
    int id = replica_register_shared(replica, name, (struct shared_object){.kind = SHARED_STRONG, .value_bytes = size},
                                     &made);

    if (id < 0)
        return id;
    object->id = (uint16_t)id;
    return 0;
}

/* Lock an object that is not locked by this replica. */
static void lock(struct sm_replica *replica, unsigned id)
{
    struct strong_object *object = &replica->arena->strong[id];
    bool later = replica->strong_count > 0 && replica->strong[replica->strong_count - 1].id > id;
    unsigned turns = 0;

    if (later || !try_lock(object, replica->slot + 1)) {
        /* Before waiting: what is done becomes visible, and locks of complete packets go back to others. */
        replica_commit(replica, false);
        while (!try_lock(object, replica->slot + 1))
            replica_back_off(&turns);
    }
    unsigned place = replica->strong_count++;
    for (; place > 0 && replica->strong[place - 1].id > id; place--)
        replica->strong[place] = replica->strong[place - 1];
    replica->strong[place].id = (uint16_t)id;
    replica->strong[place].current = true;
}

void *sm_shared_get(struct sm_replica *replica, sm_strong id, unsigned flags, uint64_t *age_ns)
{
    struct strong_object *object = &replica->arena->strong[id.id];
    bool locked = false;

    if (age_ns)
        *age_ns = 0;
    if (!(flags & SM_SYNCH))
        return object->data;
    for (unsigned i = 0; i < replica->strong_count; i++)
        if (replica->strong[i].id == id.id)
            locked = replica->strong[i].current = true;
    if (!locked && !may_wait(replica, id.id))
        return NULL;
    if (!locked)
        lock(replica, id.id);
    journal_image(&replica->journal, object->data, object->size);
    return object->data;
}

void sm_shared_put(struct sm_replica *replica, sm_strong object, unsigned flags)
{
    /* Locked objects stay so until the burst commits; nothing else is ever buffered on one host. */
    (void)replica, (void)object, (void)flags;
}
