/* SPDX-License-Identifier: BSD-2-Clause */
/* The arena's checker; see check.h. */

#include "switch/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "switch/switch.h"

#define CHECK_PATIENCE_NS 2000000000ull

/* ---- what replicas could write on, though it never changes ---- */

#define FRAME_BYTES offsetof(struct arena, registered)

struct frame_copy {
    struct state_frame state;
    bool registered; /* the next one holds */
    struct registration registration;
    unsigned char arena[FRAME_BYTES];
};

int switch_frame_keep(struct sm_switch *sw)
{
    sw->frame = malloc(sizeof *sw->frame);
    if (!sw->frame)
        return SM_E_NO_MEMORY;
    sw->frame->registered = false;
    memcpy(sw->frame->arena, sw->arena, FRAME_BYTES);
    state_frame_keep(sw->arena->state, &sw->frame->state);
    return 0;
}

void switch_frame_registered(struct sm_switch *sw)
{
    sw->frame->registered = true;
    sw->frame->registration = sw->arena->registration;
}

void switch_frame_free(struct sm_switch *sw)
{
    free(sw->frame);
    sw->frame = NULL;
}

bool switch_frame_restore(struct sm_switch *sw)
{
    bool same = memcmp(sw->frame->arena, sw->arena, FRAME_BYTES) == 0;

    if (!same)
        memcpy(sw->arena, sw->frame->arena, FRAME_BYTES);
    if (sw->frame->registered &&
        memcmp(&sw->frame->registration, &sw->arena->registration, sizeof sw->frame->registration) != 0) {
        sw->arena->registration = sw->frame->registration;
        same = false;
    }
    return state_frame_restore(sw->arena->state, &sw->frame->state) && same;
}

/* ---- the check ---- */

static void tell(void *arg, const char *text)
{
    struct check_findings *findings = arg;

    if (findings->count < CHECK_LINES)
        snprintf(findings->lines[findings->count], sizeof findings->lines[0], "%s", text);
    findings->count++;
}

__attribute__((format(printf, 2, 3))) static void report(struct check_findings *findings, const char *format, ...)
{
    char text[192];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell(findings, text);
}

/* Whoever says that it writes a shard is its owner. */
static void check_owners(const struct sm_switch *sw, struct check_findings *findings)
{
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++) {
        unsigned writer = atomic_load_explicit(&sw->arena->writer[shard], memory_order_relaxed);
        unsigned owner = sw->shards[shard].owner;
        if (writer > ARENA_SLOTS)
            report(findings, "owner: shard %u is written by slot %u, which there is not", shard, writer - 1);
        else if (writer != 0 && writer - 1u != owner)
            report(findings, "owner: shard %u is written by %s and owned by %s", shard, sw->slots[writer - 1].name,
                   owner == SWITCH_NONE ? "nobody" : sw->slots[owner].name);
    }
}

/* Between bursts nobody holds a lock. */
static void check_locks(const struct sm_switch *sw, struct check_findings *findings)
{
    for (uint32_t stripe = SM_SHARDS; stripe < SM_SHARDS + STATE_STRIPES; stripe++)
        if (state_lock_holder(sw->arena->state, stripe) >= 0)
            report(findings, "lock: stripe %u is held by slot %d", stripe - SM_SHARDS,
                   state_lock_holder(sw->arena->state, stripe));
    for (unsigned i = 0; i < SM_MAX_SHARED; i++) {
        uint32_t holder = atomic_load_explicit(&sw->arena->strong[i].holder, memory_order_acquire);
        if (holder != 0)
            report(findings, "lock: shared object %u is held by slot %u", i, holder - 1);
    }
}

static bool present(const struct switch_slot *s)
{
    return s->state == SLOT_READY || s->state == SLOT_RETIRING;
}

/* Rings are where the switch put them; the journal of a replica that is through with its commits is empty. */
static void check_channel(const struct sm_switch *sw, unsigned slot, bool at_rest, struct check_findings *findings)
{
    const struct switch_slot *s = &sw->slots[slot];
    struct channel *channel = s->channel;
    uint64_t commit = atomic_load_explicit(&channel->commit, memory_order_acquire);
    const char *journal = journal_at_rest(channel_journal(channel), CHANNEL_JOURNAL_BYTES, commit);

    if (channel->ring_mask != s->ring_mask || channel_in(channel) != s->in || channel_out(channel) != s->out)
        report(findings, "channel: the rings of %s are not where they were", s->name);
    if (s->published - commit_consumed(commit) > s->ring_mask + 1 ||
        commit_produced(commit) - s->out_tail > s->ring_mask + 1)
        report(findings, "channel: the commit word of %s cannot be", s->name);
    else if (at_rest && (commit_consumed(commit) != s->published || commit_produced(commit) != s->out_tail))
        report(findings, "channel: %s has not answered all that it was given", s->name);
    if (journal)
        report(findings, "journal: of %s: %s", s->name, journal);
}

/* Every buffer is in one place: on one of the stacks of free ones, a packet's, or kept in reserve for one. */
static void check_pool(const struct sm_switch *sw, struct check_findings *findings)
{
    const struct switch_stack *const stacks[] = {&sw->free_small, &sw->free_jumbo};
    uint8_t *seen = calloc(sw->buffers + 1u, 1);
    uint32_t left = 0;

    if (!seen) {
        report(findings, "no memory to check with");
        return;
    }
    for (unsigned kind = 0; kind < 2; kind++)
        for (uint32_t i = 0; i < stacks[kind]->count; i++) {
            uint32_t buffer = stacks[kind]->buffers[i];
            bool jumbo = buffer >= sw->pool.small_count;
            if (buffer >= sw->buffers || jumbo != kind || sw->packets[buffer].place != PLACE_FREE)
                report(findings, "pool: buffer %u is on a stack of free ones, and in use or of another size", buffer);
            else if (seen[buffer]++)
                report(findings, "pool: buffer %u is free twice", buffer);
        }
    for (uint32_t i = 0; i < sw->buffers; i++)
        left += sw->packets[i].place == PLACE_FREE && !seen[i];
    if (left > 0)
        report(findings, "pool: %u buffers are free, and on no stack", left);
    free(seen);
}

/* Whose list of late packets one is in. */
static unsigned late_for(const struct sm_switch *sw, const struct switch_packet *packet)
{
    if (!packet->late || (packet->place != PLACE_RING && packet->place != PLACE_HOLD))
        return SWITCH_NONE;
    return packet->place == PLACE_RING ? packet->slot : sw->shards[packet->shard].move.to;
}

static void check_late(const struct sm_switch *sw, struct check_findings *findings)
{
    uint32_t late = 0, listed = 0;

    for (uint32_t i = 0; i < sw->buffers; i++)
        late += late_for(sw, &sw->packets[i]) != SWITCH_NONE;
    for (unsigned slot = 0; slot < sw->slot_count && listed <= late; slot++) {
        uint32_t before = POOL_NONE;
        if (sw->slots[slot].state == SLOT_FREE)
            continue;
        for (uint32_t at = sw->slots[slot].late_first; at != POOL_NONE && listed <= late; at = sw->late[at].after) {
            if (late_for(sw, &sw->packets[at]) != slot || sw->late[at].before != before)
                report(findings, "late: buffer %u is listed for %s, and is not there", at, sw->slots[slot].name);
            before = at;
            listed++;
        }
    }
    if (listed != late)
        report(findings, "late: %u packets were held, and are not in one list each", late);
}

void switch_check_now(struct sm_switch *sw, bool at_rest, struct check_findings *findings)
{
    *findings = (struct check_findings){0};
    if (!switch_frame_restore(sw))
        report(findings, "frame: the arena's header was written on; it has been put right");
    check_owners(sw, findings);
    check_locks(sw, findings);
    for (unsigned i = 0; i < sw->slot_count; i++)
        if (present(&sw->slots[i]))
            check_channel(sw, i, at_rest, findings);
    check_pool(sw, findings);
    check_late(sw, findings);
    state_check_all(sw->arena->state, tell, findings);
}

/* ---- in a running service ---- */

int switch_check_begin(struct sm_switch *sw)
{
    if (sw->check.active || sw->operation.active || sw->input_held || sw->state == SWITCH_FINISHED)
        return SM_E_STATE;
    sw->check.active = true;
    sw->check.since = sw->now;
    return 0;
}

/* Whether a replica has nothing to do, has done all that it was given, and is through with its last commit. */
static bool is_quiet(const struct switch_slot *s)
{
    uint64_t commit = atomic_load_explicit(&s->channel->commit, memory_order_acquire);

    return s->in_head == s->published && commit_consumed(commit) == s->published &&
           commit_produced(commit) == s->out_tail && journal_is_idle(channel_journal(s->channel), commit);
}

void switch_check_poll(struct sm_switch *sw)
{
    /* One that scribbled on its journal is never quiet by it: after a while it is looked at as it is. */
    bool patience = sw->now - sw->check.since < CHECK_PATIENCE_NS;

    if (!sw->check.active)
        return;
    for (unsigned i = 0; i < sw->slot_count; i++)
        if (present(&sw->slots[i]) && !is_quiet(&sw->slots[i]) && patience)
            return;
    switch_check_now(sw, true, &sw->check.findings);
    sw->check.findings.paused_ns = sw->now - sw->check.since;
    sw->check.active = false;
    switch_notify(sw, NOTICE_CHECKED);
}
