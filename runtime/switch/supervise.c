/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Replicas that have to be killed, and packets that kill them.
 *
 * A replica is condemned when it returns what it was not given (from that entry on nothing is taken back from it any
 * more), or when input has waited for it and its commit word has not moved for limits.unresponsive (what it commits
 * until it is dead counts). The control thread is told by NOTICE_CONDEMNED and kills the process; all else follows from
 * the exit that the kernel then reports (death.c), as for any other death.
 */

#include "switch/switch.h"

#define WATCH_NS 100000000u
#define WATCH_GAP_NS                                                                                                   \
    (10ull * WATCH_NS) /* whoever was not looked at for so long had no chance either: it starts anew                   \
                        */

void switch_condemn(struct sm_switch *sw, unsigned slot, bool distrust, const char *why)
{
    struct switch_slot *s = &sw->slots[slot];

    if (!sw->options.supervised) {
        switch_fail(sw, "replica %s %s", s->name, why);
        return;
    }
    s->distrusted |= distrust;
    if (s->condemned)
        return;
    s->condemned = why;
    sw->condemned++;
    switch_notify(sw, NOTICE_CONDEMNED);
}

static bool watched(const struct switch_slot *s)
{
    return (s->state == SLOT_READY || s->state == SLOT_RETIRING) && !s->condemned;
}

/* Whether input waits for a replica that ought to answer. */
bool switch_awaits(const struct sm_switch *sw)
{
    for (unsigned i = 0; i < sw->slot_count; i++) {
        const struct switch_slot *s = &sw->slots[i];
        if (watched(s) &&
            commit_consumed(atomic_load_explicit(&s->channel->commit, memory_order_relaxed)) != s->published)
            return true;
    }
    return false;
}

/* Whether replica `a` has stood still for longer than `b`; or else is at an earlier packet, for which `b` may be
 * waiting. */
static bool more_stuck(const struct switch_slot *a, const struct switch_slot *b)
{
    if (a->moved != b->moved)
        return a->moved < b->moved;
    return atomic_load_explicit(&a->channel->low, memory_order_relaxed) <
           atomic_load_explicit(&b->channel->low, memory_order_relaxed);
}

/* Look at one slot; true: its time is over. */
static bool overdue(struct sm_switch *sw, unsigned slot, bool anew)
{
    struct switch_slot *s = &sw->slots[slot];
    uint64_t commit = atomic_load_explicit(&s->channel->commit, memory_order_acquire);
    uint32_t waiting = s->published - commit_consumed(commit);

    if (waiting > s->ring_mask + 1)
        switch_condemn(sw, slot, true, "consumed what it was not given");
    else if (waiting == 0 || anew || commit != s->watched_commit)
        s->moved = sw->now;
    s->watched_commit = commit;
    return !s->condemned && sw->now - s->moved >= sw->options.unresponsive_ns;
}

/*
 * Now and then. One at a time: replicas may wait for one another (locks, shared buckets), so that those who wait for
 * the one that hangs get their time once more.
 */
void switch_watch(struct sm_switch *sw)
{
    unsigned worst = SWITCH_NONE;
    bool anew = sw->now - sw->watched > WATCH_GAP_NS;

    if (sw->options.unresponsive_ns == 0 || sw->now - sw->watched < WATCH_NS)
        return;
    sw->watched = sw->now;
    for (unsigned i = 0; i < sw->slot_count; i++)
        if (watched(&sw->slots[i]) && overdue(sw, i, anew) &&
            (worst == SWITCH_NONE || more_stuck(&sw->slots[i], &sw->slots[worst])))
            worst = i;
    if (worst == SWITCH_NONE)
        return;
    switch_condemn(sw, worst, false, "did not answer within limits.unresponsive");
    for (unsigned i = 0; i < sw->slot_count; i++)
        sw->slots[i].moved = sw->now;
}

/* Set a packet aside that killed so many. Where the file cannot be written it is only counted: the service goes on. */
void switch_keep_poison(struct sm_switch *sw, uint32_t buffer)
{
    if (!sw->options.poison_file || !sw->ports[0] || sw->poison_error.text[0])
        return;
    bool anew = sw->dropped[DROP_POISON] == 0; /* else a switch before this one had begun it */
    if (!sw->poison && (anew ? sm_port_create_capture : sm_port_continue_capture)(
                           &sw->poison, sw->options.poison_file, sw->ports[0], &sw->poison_error) != 0) {
        sw->poison = NULL;
        return;
    }
    const struct sm_frame frame = switch_frame_of(sw, buffer);
    /* At once: the next one may be long in coming. */
    if (sw->poison->ops->send(sw->poison, &frame) != 0 || sw->poison->ops->flush(sw->poison) != 0)
        sw->poison_error = sw->poison->error;
}
