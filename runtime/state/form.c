/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From one form of a class to another: a flow is made anew, beside the old one, and then takes its place.
 *
 * Overview.  Flows never change their size, so a flow of another form is another object. It has the old one's key,
 * class, slot in the table, timers, bindings and, where its record stays as it is, chunks; what is in its record is for
 * the caller to say. No counter changes: it is the same flow.
 *
 * Concurrency.  The shard's owner only.
 *
 * Limits.  Memory: for the time between two commits both are there.
 */

#include "state/form.h"

#include <stdio.h>

#include "state/internal.h"
#include "state/layout.h"

static enum form_way none(struct sm_errbuf *error, const struct state_class *from, const struct state_class *to,
                          const char *why)
{
    snprintf(error->text, sizeof error->text, "flow class '%s' of version %u cannot become version %u: %s", to->name,
             from->version, to->version, why);
    return FORM_NONE;
}

enum form_way form_way(const struct state_class *from, const struct state_class *to, struct sm_errbuf *error)
{
    bool fields = from->copy == CLASS_BY_FIELDS && to->copy == CLASS_BY_FIELDS;

    if (strcmp(from->binds, to->binds) != 0) {
        return none(error, from, to, "which packets bind keys to its flows cannot change");
    }
    if (from->version == to->version) {
        if (!layout_equal(from, to)) {
            return none(error, from, to, "its records are others, so its version has to be another");
        }
        if (layout_other_code(from, to)) {
            return none(error, from, to, layout_other_code(from, to));
        }
        return to->alloc_limit >= from->alloc_limit ? FORM_COPY
                                                    : none(error, from, to, "its flows may hold more by sm_alloc()");
    }
    if (from->version < to->oldest) {
        return none(error, from, to, "that is older than it reads");
    }
    if (from->version < to->version && to->upgrades) {
        return FORM_UPGRADE;
    }
    if (from->version > to->version && from->downgrades) {
        return FORM_DOWNGRADE;
    }
    if (!fields) {
        return none(error, from, to,
                    from->version < to->version
                        ? "there is no upgrade callback, and fields do not say all of its flows"
                        : "there is no downgrade callback, and fields do not say all of its flows");
    }
    if (layout_equal(from, to)) {
        return FORM_COPY;
    }
    return layout_convertible(from, to, error) == 0 ? FORM_FIELDS : FORM_NONE;
}

/* The middlebox's own slots come first, then the idle timeout's, then the hard one's. */
static unsigned own_timers(const struct state_class *cls)
{
    return cls->timers - (cls->idle_ns > 0) - (cls->hard_ns > 0);
}

void form_timers(const struct state_class *from, const struct state_class *to, struct form_timers *timers)
{
    unsigned old = own_timers(from), new = own_timers(to);

    *timers = (struct form_timers){0};
    for (unsigned i = 0; i < STATE_TIMERS; i++) {
        timers->slots[i] = (uint8_t)(i < old && i < new ? i : STATE_TIMERS);
    }
    if (from->idle_ns > 0 && to->idle_ns > 0) {
        timers->slots[old] = (uint8_t) new;
        timers->shift[old] = (int64_t)(to->idle_ns - from->idle_ns);
    }
    if (from->hard_ns > 0 && to->hard_ns > 0) {
        timers->slots[from->timers - 1] = (uint8_t)(to->timers - 1);
        timers->shift[from->timers - 1] = (int64_t)(to->hard_ns - from->hard_ns);
    }
}

struct flow *state_reform(struct state_actor *actor, uint32_t index, const struct flow *old, unsigned form)
{
    const struct state_class *to = &actor->state->forms[form];
    unsigned more = to->timers > old->timers ? (unsigned)(to->timers - old->timers) : 0u;

    if (timers_reserve(actor, shard_at(actor->state, index), more) != 0) {
        return NULL;
    }
    return flow_make(actor, form, old->cls, &old->key, old->hash);
}

/* Never 0, which is for no deadline, nor UINT64_MAX, which is for none that is due. */
static sm_time shifted(uint64_t deadline, int64_t by)
{
    uint64_t later = deadline + (uint64_t)by;

    if (by < 0) {
        return (sm_time){later < deadline && later > 0 ? later : 1};
    }
    return (sm_time){later >= deadline && later < UINT64_MAX ? later : UINT64_MAX - 1};
}

/* One timer. Where its slot stays the same so does its place in the heap, which goes by deadline, key and slot. */
static void timer_hand_over(struct state_actor *actor, uint32_t index, struct flow *old, struct flow *flow,
                            unsigned slot, const struct form_timers *timers)
{
    struct shard *shard = shard_at(actor->state, index);
    struct flow_timer *timer = flow_timer(old, slot);
    uint64_t deadline = timer->deadline;
    unsigned to = timers->slots[slot];

    if (deadline == 0) {
        return;
    }
    if (to == slot && timers->shift[slot] == 0) {
        struct timer_entry *entry = &shard->heap[timer_entry_of(actor->state, shard, old, slot)];
        *flow_timer(flow, slot) = *timer;
        save(actor, timer, sizeof *timer);
        save(actor, entry, sizeof *entry);
        STEP();
        entry->flow = flow_ref(actor->state, flow);
        STEP();
        *timer = (struct flow_timer){0};
        return;
    }
    state_timer_cancel(actor, index, old, slot);
    if (to < STATE_TIMERS) {
        state_timer_set(actor, index, flow, to, shifted(deadline, timers->shift[slot]));
    }
}

static void start_timeout(struct state_actor *actor, uint32_t index, struct flow *flow, unsigned slot, bool before,
                          uint64_t timeout, sm_time now)
{
    if (!before && timeout > 0) {
        state_timer_set(actor, index, flow, slot,
                        shifted(now.ns, (int64_t)(timeout < INT64_MAX ? timeout : INT64_MAX)));
    }
}

void state_reform_done(struct state_actor *actor, uint32_t index, struct flow *old, struct flow *flow, sm_time now,
                       bool chunks)
{
    struct state *state = actor->state;
    const struct state_class *from = flow_description(state, old), *to = flow_description(state, flow);
    struct shard *shard = shard_at(state, index);
    struct form_timers timers;
    unsigned slot = 0;
    struct group *group = slot_of(state, shard, old, &slot);

    assert(group != NULL && flow->cls == old->cls);
    form_timers(from, to, &timers);
    save(actor, group, sizeof *group);
    save_shard(actor, shard);
    STEP();
    group->refs[slot] = flow_ref(state, flow);
    STEP();
    shard->timers += flow->timers;
    for (unsigned i = 0; i < old->timers; i++) {
        timer_hand_over(actor, index, old, flow, i, &timers);
    }
    if (to->partitioned) {
        start_timeout(actor, index, flow, own_timers(to), from->idle_ns > 0, to->idle_ns, now);
        start_timeout(actor, index, flow, to->timers - 1u, from->hard_ns > 0, to->hard_ns, now);
    }
    save_shard(actor, shard);
    shard->timers -= old->timers;
    STEP();
    bindings_hand_over(actor, old, flow);
    if (chunks && old->has_chunks) {
        chunks_hand_over(actor, old, flow);
    }
    chunks_release(actor, old);
    slab_free(actor, flow_object(old));
}

void state_reform_undone(struct state_actor *actor, struct flow *flow)
{
    chunks_release(actor, flow);
    slab_free(actor, flow_object(flow));
}
