/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/meter.h"

typedef unsigned __int128 wide;

static uint64_t get(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire);
}

static void set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

bool meter_take_leaving(struct meter *meter, uint64_t now, uint64_t amount, uint64_t reserve)
{
    uint64_t level = get(&meter->level), until = get(&meter->until);

    if (until != METER_ALWAYS && now >= until)
        return false;
    do {
        if (level < amount || level - amount < reserve)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&meter->level, &level, level - amount, memory_order_acq_rel,
                                                    memory_order_acquire));
    return true;
}

bool meter_take(struct meter *meter, uint64_t now, uint64_t amount)
{
    return meter_take_leaving(meter, now, amount, 0);
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Add, but not beyond the depth. Returns the level. */
static uint64_t add(struct meter *meter, uint64_t amount)
{
    uint64_t level = get(&meter->level), depth = get(&meter->depth), sum;

    do {
        sum = level >= depth ? level : amount > depth - level ? depth : level + amount;
    } while (
        !atomic_compare_exchange_weak_explicit(&meter->level, &level, sum, memory_order_acq_rel, memory_order_acquire));
    return sum;
}

static void cap(struct meter *meter, uint64_t most)
{
    uint64_t level = get(&meter->level);

    while (level > most && !atomic_compare_exchange_weak_explicit(&meter->level, &level, most, memory_order_acq_rel,
                                                                  memory_order_acquire))
        ;
}

void meter_give_back(struct meter *meter, uint64_t amount)
{
    add(meter, amount);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/*
 * A packet that waits has all that is there, and what comes in from when the one before it departs. The filler may come
 * between: it stores filled_at and then looks at queued_until, this stores queued_until and then looks at filled_at, so
 * one at least sees the other, and no time counts twice.
 */
bool meter_queue(struct meter *meter, uint64_t now, uint64_t amount, uint64_t longest, struct meter_slot *slot)
{
    uint64_t queued = atomic_load(&meter->queued_until), until = get(&meter->until), rate = get(&meter->rate);
    uint64_t filled, there = 0;

    if (queued <= now && meter_take(meter, now, amount)) {
        *slot = (struct meter_slot){.departs = queued};
        return true;
    }
    if (rate == 0 || amount > get(&meter->depth))
        return false;
    if (queued <= now)
        there = atomic_exchange(&meter->level, 0);
    do {
        filled = atomic_load(&meter->filled_at);
        slot->wait = (less(amount, there) + rate - 1) / rate;
        slot->departs = later(queued, later(now, filled)) + slot->wait;
        bool jumped = now > filled && now - filled > METER_GAP_NS; /* and nobody has seen it yet */
        if (jumped || slot->departs - now > longest || slot->departs >= until) {
            add(meter, there);
            return false;
        }
    } while (!atomic_compare_exchange_weak(&meter->queued_until, &queued, slot->departs));
    uint64_t filled_since = atomic_load(&meter->filled_at);
    if (filled_since > filled)
        atomic_fetch_add(&meter->queued_until, filled_since - filled);
    return true;
}

void meter_unqueue(struct meter *meter, const struct meter_slot *slot)
{
    uint64_t last = slot->departs;

    atomic_compare_exchange_strong(&meter->queued_until, &last, last - slot->wait);
}

void meter_resume(struct meter *meter, uint64_t now)
{
    cap(meter, get(&meter->depth));
    if (get(&meter->filled_at) > now)
        meter_void(meter);
}

void meter_fill(struct meter *meter, uint64_t now, bool strict)
{
    uint64_t from = get(&meter->filled_at), until = get(&meter->until);
    uint64_t to = now < until ? now : until;
    bool jumped = strict && now > from && now - from > METER_GAP_NS;
    uint64_t room = get(&meter->room);

    /*
     * What was taken since then may have been taken just now, from a bucket that would have been full all the while: so
     * no more than there was room for. Died on the way, that time has given nothing, and there is no room.
     */
    set(&meter->room, 0);
    atomic_store(&meter->filled_at, now);
    uint64_t queued = atomic_load(&meter->queued_until);
    if ((jumped || now < from) && queued > from) /* packets wait as long as they would have */
        atomic_store(&meter->queued_until, queued = now + (queued - from));
    uint64_t since = later(from, queued);
    wide amount = to > since && !jumped ? (wide)get(&meter->rate) * (to - since) : 0;
    uint64_t level = add(meter, amount > room ? room : (uint64_t)amount);
    set(&meter->room, less(get(&meter->depth), level));
    if (now >= until) /* nobody's, also to a clock that is put back behind that */
        cap(meter, 0);
}

void meter_set(struct meter *meter, uint64_t rate, uint64_t depth)
{
    uint64_t level = less(get(&meter->depth), get(&meter->room)); /* as it was filled */

    set(&meter->room, 0);
    set(&meter->depth, depth);
    cap(meter, depth);
    set(&meter->rate, rate);
    set(&meter->room, less(depth, level));
}

void meter_extend(struct meter *meter, uint64_t now, uint64_t until)
{
    if (now >= get(&meter->until)) {
        cap(meter, 0);
        set(&meter->room, get(&meter->depth));
    }
    set(&meter->until, until);
}

void meter_void(struct meter *meter)
{
    set(&meter->until, 0);
    cap(meter, 0);
}
