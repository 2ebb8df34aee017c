/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/share.h"

#include <math.h>

#include "drl/drl.h"
#include <splitmerge/bucket.h>

#define SETS (SHARE_PLACES / SHARE_WAYS)
#define ONE 4294967296.0 /* a chance of 1 */
#define FREE_DEPTH (1ull << 62)
#define SENT_MOST 2147483648.0 /* and no more */
#define SPARED 96u             /* times SHARE_LOST_NS: who has lost a packet is spared others for so long */
#define SPARED_PARTS 1.2       /* where it has sent so many times its part at most */
#define LESS 0.9               /* times its part, or less: clearly less than it */
#define STEEP 3.0              /* the chance of an early drop where nothing is left, to who has sent far too much */

_Static_assert(SHARE_PAGE_PLACES % SHARE_WAYS == 0, "a set is in one page");

static struct share_place *place_at(const struct share *share, unsigned number)
{
    return &share->page[number / SHARE_PAGE_PLACES]->place[number % SHARE_PAGE_PLACES];
}

static uint32_t load(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static uint16_t loss_clock(const struct share_head *head)
{
    return (uint16_t)(atomic_load_explicit(&head->meter.filled_at, memory_order_relaxed) / SHARE_LOST_NS);
}

/* The flow's place, made if need be. */
static struct share_place *place_of(const struct share *share, uint64_t flow)
{
    uint64_t hash = (flow ^ flow >> 32) * 0x9e3779b97f4a7c15ull;
    uint32_t name = (uint32_t)(hash >> 32) | 1;
    struct share_place *set = place_at(share, (hash >> 20) % SETS * SHARE_WAYS);

    for (unsigned i = 0; i < SHARE_WAYS; i++)
        if (load(&set[i].flow) == name)
            return &set[i];
    for (unsigned i = 0; i < SHARE_WAYS; i++) {
        uint32_t nobody = 0;
        if (load(&set[i].flow) != 0)
            continue;
        if (atomic_compare_exchange_strong_explicit(&set[i].flow, &nobody, name, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            /* Flows that came at the same time do not lose at the same time. */
            atomic_store_explicit(&set[i].owed, (uint16_t)name, memory_order_relaxed);
            atomic_store_explicit(&set[i].lost, (uint16_t)(loss_clock(share->head) - SPARED), memory_order_relaxed);
            atomic_store_explicit(&set[i].before, -load(&set[i].arrived), memory_order_relaxed);
            return &set[i];
        }
        if (nobody == name)
            return &set[i];
    }
    return &set[name >> 1 & (SHARE_WAYS - 1)];
}

static bool dropped_early(const struct share_head *head, struct share_place *place)
{
    uint64_t early = atomic_load_explicit(&head->early, memory_order_relaxed);
    uint64_t level = atomic_load_explicit(&head->meter.level, memory_order_relaxed);
    uint64_t part = atomic_load_explicit(&head->part, memory_order_relaxed);
    uint32_t sent = load(&place->before) + load(&place->arrived);
    uint16_t lost = atomic_load_explicit(&place->lost, memory_order_relaxed);

    if (level >= early)
        return false;
    if ((uint16_t)(loss_clock(head) - lost) < SPARED && sent <= SPARED_PARTS * (double)part)
        return false;
    if (level < early / 2 && sent > LESS * (double)part)
        return true;
    if (sent <= part)
        return false;
    double emptiness = 1 - (double)level / (double)early, surplus = 1 - (double)part / sent;
    uint16_t due = (uint16_t)(fmin(STEEP * emptiness * surplus, 1) * UINT16_MAX);
    uint16_t owed = atomic_fetch_add_explicit(&place->owed, due, memory_order_relaxed);
    return owed > UINT16_MAX - due;
}

bool share_borrow(const struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint32_t random,
                  uint64_t reserve, uint64_t now)
{
    struct share_head *head = share->head;
    struct share_place *place = place_of(share, flow);
    uint64_t left = 0;

    if (reserve > 0)
        left = (uint64_t)((unsigned __int128)atomic_load(&head->meter.depth) * reserve >> 32);
    atomic_fetch_add_explicit(&place->arrived, cost, memory_order_relaxed);
    bool has = random >= atomic_load_explicit(&head->drop, memory_order_relaxed) && !dropped_early(head, place) &&
               meter_take_leaving(&head->meter, now, amount, left);
    if (has)
        atomic_fetch_add_explicit(&head->passed, cost, memory_order_relaxed);
    else
        atomic_store_explicit(&place->lost, loss_clock(head), memory_order_relaxed);
    return has;
}

bool share_take(const struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint32_t random, uint64_t now)
{
    return share_borrow(share, flow, cost, amount, random, 0, now);
}

bool share_queue(const struct share *share, uint64_t flow, uint32_t cost, uint64_t amount, uint64_t now,
                 uint64_t longest, struct meter_slot *slot)
{
    struct share_head *head = share->head;

    atomic_fetch_add_explicit(&place_of(share, flow)->arrived, cost, memory_order_relaxed);
    bool has = meter_queue(&head->meter, now, amount, longest, slot);
    if (has)
        atomic_fetch_add_explicit(&head->passed, cost, memory_order_relaxed);
    return has;
}

void share_unqueue(const struct share *share, uint32_t cost, uint64_t amount, const struct meter_slot *slot)
{
    share_give_back(share, cost, slot->wait > 0 ? 0 : amount);
    if (slot->wait > 0)
        meter_unqueue(&share->head->meter, slot);
}

void share_give_back(const struct share *share, uint32_t cost, uint64_t amount)
{
    atomic_fetch_sub_explicit(&share->head->passed, cost, memory_order_relaxed);
    meter_give_back(&share->head->meter, amount);
}

struct share_count share_count(const struct share *share, struct share_seen *seen, struct drl *drl, uint64_t now)
{
    uint64_t passed = atomic_load_explicit(&share->head->passed, memory_order_relaxed);
    struct share_count count = {.passed = (double)(int64_t)(passed - seen->passed)};
    double squares = 0;

    for (unsigned i = 0; i < SHARE_PLACES; i++) {
        struct share_place *place = place_at(share, i);
        uint32_t arrived = load(&place->arrived), came = arrived - seen->arrived[i], flow = load(&place->flow);
        seen->arrived[i] = arrived;
        count.arrived += came;
        squares += (double)came * came;
        if (drl && came > 0)
            drl_account(drl, now, flow, came);
        else if (flow != 0 && came == 0 && (!drl || drl_sent(drl, flow) == 0))
            atomic_store_explicit(&place->flow, 0, memory_order_relaxed);
    }
    seen->passed = passed;
    count.worth = squares > 0 ? count.arrived * count.arrived / squares : 0;
    if (drl)
        drl_account_passed(drl, count.arrived, count.passed);
    return count;
}

void share_allow(const struct share *share, const struct drl *drl, uint64_t now)
{
    struct share_head *head = share->head;
    struct drl_allowance allowance;

    drl_allowance(drl, &allowance);
    /* Where a mode drops by chance it has no bucket. */
    bool free = isinf(allowance.depth);
    meter_fill(&head->meter, now, false);
    meter_set(&head->meter, free ? SM_BUCKET_MAX_RATE : (uint64_t)fmin(allowance.rate * 8, (double)SM_BUCKET_MAX_RATE),
              free ? FREE_DEPTH : (uint64_t)(allowance.depth * (double)SM_BUCKET_UNIT));
    atomic_store_explicit(&head->drop, (uint64_t)(allowance.drop * ONE), memory_order_relaxed);
    atomic_store_explicit(&head->part, isinf(allowance.part) ? UINT64_MAX : (uint64_t)allowance.part,
                          memory_order_relaxed);
    atomic_store_explicit(&head->early, (uint64_t)(allowance.early * (double)SM_BUCKET_UNIT), memory_order_relaxed);
}

void share_publish(const struct share *share, const struct share_seen *seen, const struct drl *drl, uint64_t now)
{
    share_allow(share, drl, now);
    for (unsigned i = 0; i < SHARE_PLACES; i++) {
        struct share_place *place = place_at(share, i);
        double sent = drl_sent(drl, load(&place->flow));
        atomic_store_explicit(&place->before, (uint32_t)fmin(sent, SENT_MOST) - seen->arrived[i], memory_order_relaxed);
    }
}

void share_start(const struct share *share, struct share_seen *seen, const struct drl *drl, uint64_t now)
{
    struct meter *meter = &share->head->meter;

    seen->passed = atomic_load(&share->head->passed);
    for (unsigned i = 0; i < SHARE_PLACES; i++)
        seen->arrived[i] = load(&place_at(share, i)->arrived);
    if (!drl)
        return;
    meter_resume(meter, now);
    share_publish(share, seen, drl, now);
    if (atomic_load(&meter->until) != METER_ALWAYS)
        meter_extend(meter, now, METER_ALWAYS);
}
