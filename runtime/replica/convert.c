/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flows of another build of the middlebox: a replica that adopts a shard brings them into its own forms, before the
 * shard's first packet.
 *
 * Overview.  Each flow is made anew in the form of this build (state/form.c), its record copied, converted by the
 * fields' names, or made by the class's upgrade callback. Flows of classes that this build does not have (an older one
 * takes over again) end. On the way back a value may not fit any more, or the class's downgrade callback refuse: that
 * flow ends too, and is counted; on the way forward the replica fails, and with it the upgrade.
 *
 * Where the way back takes that callback, it is the new build's replica that brings flows back, when it releases the
 * shard to an old one.
 *
 * Life-cycle of a shard: of the other build -> ARENA_MIXED -> of this build. Each flow is one change to the journal,
 * and what is done becomes final whenever the journal is full; so whoever inherits the shard finds each flow whole, in
 * one of the forms, and goes on.
 *
 * Concurrency.  The shard's owner.
 */

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "arena/builds.h"
#include "replica/replica.h"
#include "state/form.h"
#include "state/layout.h"

/* Into what: the forms of a build's classes, and its number. */
struct target {
    const uint8_t *forms;
    unsigned class_count;
    uint8_t build;
};

static int fail(struct sm_replica *replica, int result, const struct state_class *from, const struct state_class *to,
                const char *why)
{
    snprintf(replica->last_error.text, sizeof replica->last_error.text,
             "a flow of class '%s' of version %u cannot become version %u: %.140s", to->name, from->version,
             to->version, why);
    return result;
}

/* The record of the new flow. SM_E_LIMIT: a value does not fit. */
static int make_record(struct sm_replica *replica, struct flow *old, struct flow *flow, enum form_way way)
{
    const struct state_class *from = state_class(replica->state, flow_form(old));
    const struct state_class *to = state_class(replica->state, flow_form(flow));
    const sm_class cls = {(uint16_t)flow_class(flow)};
    struct sm_errbuf why;
    const char *field;
    int result;

    switch (way) {
    case FORM_COPY:
        memcpy(flow_record(flow), flow_record(old), to->record_size);
        return 0;
    case FORM_FIELDS:
        result = layout_convert(from, flow_record(old), to, flow_record(flow), &field);
        snprintf(why.text, sizeof why.text, "the value of '%s' does not fit", result ? field : "");
        break;
    case FORM_UPGRADE:
        result = replica->classes[cls.id].upgrade(replica, cls, (sm_flow){flow_record(flow)}, from->version,
                                                  flow_record(old), from->record_size, replica->classes[cls.id].user);
        snprintf(why.text, sizeof why.text, "upgrade refused it: %s", sm_strerror(result));
        break;
    case FORM_DOWNGRADE:
        assert(flow_form(old) == replica->forms[cls.id]);
        result = replica->classes[cls.id].downgrade(replica, cls, (sm_flow){flow_record(flow)}, to->version,
                                                    flow_record(old), from->record_size, replica->classes[cls.id].user);
        break;
    case FORM_NONE:
    default:
        form_way(from, to, &why);
        result = SM_E_CONFLICT;
    }
    return result ? fail(replica, result, from, to, why.text) : 0;
}

/* End a flow that this build has no use for. */
static void lose(struct sm_replica *replica, uint32_t shard, struct flow *flow)
{
    _Atomic uint64_t *lost = &replica->arena->unconverted[replica->slot];

    journal_image(&replica->journal, lost, sizeof *lost);
    replica_count(lost, 1);
    state_remove(replica->actor, shard, flow);
}

static int convert_flow(struct sm_replica *replica, uint32_t shard, struct flow *old, const struct target *target,
                        uint64_t now)
{
    const unsigned cls = flow_class(old);
    struct sm_errbuf ignored;

    if (cls >= target->class_count) {
        lose(replica, shard, old);
        return 0;
    }
    const struct state_class *from = state_class(replica->state, flow_form(old));
    const struct state_class *to = state_class(replica->state, target->forms[cls]);
    enum form_way way = form_way(from, to, &ignored);
    struct flow *flow = state_reform(replica->actor, shard, old, target->forms[cls]);
    if (!flow)
        return fail(replica, SM_E_NO_MEMORY, from, to, sm_strerror(SM_E_NO_MEMORY));
    int result = make_record(replica, old, flow, way);
    if (result == 0) {
        state_reform_done(replica->actor, shard, old, flow, (sm_time){now}, way == FORM_COPY);
        return 0;
    }
    state_reform_undone(replica->actor, flow);
    if (from->version < to->version || way == FORM_NONE)
        return result;
    lose(replica, shard, old);
    return 0;
}

static void mark(struct sm_replica *replica, uint32_t shard, uint8_t build)
{
    journal_image(&replica->journal, &replica->arena->shard_build[shard], 1);
    replica->arena->shard_build[shard] = build;
}

static bool convert(struct sm_replica *replica, uint32_t shard, const struct target *target, uint64_t now)
{
    const uint32_t current = replica->current_shard;
    struct flow *flow;
    int result = 0;

    if (state_shard_flows(replica->state, shard) == 0) {
        replica->arena->shard_build[shard] = target->build; /* right whatever is undone */
        return true;
    }
    replica->current_shard = shard;
    mark(replica, shard, ARENA_MIXED);
    for (uint32_t cursor = 0; result == 0 && (flow = state_next(replica->state, shard, &cursor)) != NULL;) {
        if (flow_class(flow) < target->class_count && flow_form(flow) == target->forms[flow_class(flow)])
            continue;
        result = convert_flow(replica, shard, flow, target, now);
        if (!journal_has_room(&replica->journal))
            replica_progress(replica);
        else
            journal_packet(&replica->journal); /* each flow is complete in itself */
    }
    if (result == 0)
        mark(replica, shard, target->build);
    replica->current_shard = current;
    replica->failed = result;
    return result == 0;
}

bool replica_convert(struct sm_replica *replica, uint32_t shard, uint64_t now)
{
    return convert(replica, shard, &(struct target){replica->forms, replica->class_count, replica->build}, now);
}

bool replica_convert_back(struct sm_replica *replica, uint32_t shard, uint64_t now)
{
    const struct build *base = builds_base(replica->arena);

    return convert(replica, shard, &(struct target){base->forms, base->registration.class_count, base->number}, now);
}
