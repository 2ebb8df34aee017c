/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_STATE_FORM_H
#define SM_STATE_FORM_H

/* How a flow in one form of its class becomes one in another, and whether it can. Pure, but for state_reform*(). */

#include "state/state.h"

enum form_way {
    FORM_COPY,      /* the record stays as it is, and what the flow holds by sm_alloc() */
    FORM_FIELDS,    /* field by field, by their names */
    FORM_UPGRADE,   /* by the class's callback */
    FORM_DOWNGRADE, /* by the callback of the form that it leaves, so only a replica of that one can do it */
    FORM_NONE
};

/* The way from one form to another; FORM_NONE: *error says why there is none. */
enum form_way form_way(const struct state_class *from, const struct state_class *to, struct sm_errbuf *error);

/* Which timer slot goes on in which: slots[i], STATE_TIMERS: none; with what its timeout has changed by. */
struct form_timers {
    uint8_t slots[STATE_TIMERS];
    int64_t shift[STATE_TIMERS];
};
void form_timers(const struct state_class *from, const struct state_class *to, struct form_timers *timers);

/*
 * A flow made anew in another form, in steps. state_reform(): the new one, zeroed, without timers, not yet in the
 * table; NULL: no memory. Then the caller makes its record of the old one, which is as it was. state_reform_done(): it
 * takes the old one's place, which ends; cursors of state_next() stay valid. `chunks`: what the old one holds goes over
 * too. Timeouts that the old form did not have start at `now`. state_reform_undone(): the new one goes.
 */
struct flow *state_reform(struct state_actor *actor, uint32_t shard, const struct flow *old, unsigned form);
void state_reform_done(struct state_actor *actor, uint32_t shard, struct flow *old, struct flow *flow, sm_time now,
                       bool chunks);
void state_reform_undone(struct state_actor *actor, struct flow *flow);

#endif
