/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_BUILDS_H
#define SM_ARENA_BUILDS_H

/*
 * Builds of the middlebox, one after the other: what a new one may change while the service runs (design D1).
 *
 * Overview.  A service runs one build, `base`. While it is upgraded replicas of a second one may register. That one has
 * the first one's classes, shared objects and drop reasons, in the same order, and may add some behind them; it steers
 * packets as the first does. A partitioned class may have another version, another record, other timers, timeouts and
 * limits where there is a way from the old records to the new ones (state/form.h). Code may be another anyway.
 *
 * Life-cycle.  builds_open() -> the first replica of another build registers, which makes it known -> builds_close():
 * it is the base from then on, or it is not, and its replicas are gone.
 *
 * The two run at the same time. A replica brings the flows of a shard into its own forms when it adopts the shard
 * (replica/convert.c), so within a shard that somebody owns all are of one build. What the new build has written can
 * be read by the old one where fields say all of it: then any replica may inherit from any other. Where it takes a
 * class's downgrade callback, replicas of the new build bring flows back as they release a shard to an old one, and
 * none but them inherit from them. Else there is no way back, which has to be asked for.
 *
 * Concurrency.  The switch's worker thread. Replicas read what concerns them.
 *
 * Limits.  Two builds at a time; 254 in the life of a service; STATE_FORMS.
 */

#include "arena/arena.h"

/*
 * Let another build in. `forward_only`: also one that `base` cannot follow. `again`: the one that there are replicas of
 * since the last time, and no other. SM_E_LIMIT: there were too many.
 */
int builds_open(struct arena *arena, bool forward_only, bool again, struct sm_errbuf *error);

/* No other build may register any more. `forward`: the other one is the base now; no shard is the old one's. Done once
 * more it does nothing. */
void builds_close(struct arena *arena, bool forward);

/* Which build a registration is of: its index, or SM_E_CONFLICT, SM_E_LIMIT. It may make one known. */
int builds_take(struct arena *arena, const struct registration *registration, struct sm_errbuf *error);

/* The build that the service runs. */
const struct build *builds_base(const struct arena *arena);

/* A class as the service's build has it; NULL beyond the last. */
const struct state_class *builds_class(const struct arena *arena, unsigned cls);

/* The number of the build of a slot's replica. */
uint8_t builds_number(const struct arena *arena, unsigned slot);

/* The number of the latest build that has flows in a shard. */
uint8_t builds_of_shard(const struct arena *arena, uint32_t shard);

/* Whether a slot's replica can take over shards of a build; of the replica in another slot. */
bool builds_reads(const struct arena *arena, unsigned slot, uint8_t build);
bool builds_inherits(const struct arena *arena, unsigned heir, unsigned of);

/* Whether a shard of the slot's replica can go to an older one: it brings the flows back when it releases it. */
bool builds_returns(const struct arena *arena, unsigned slot);

/* Whether another build is known, on its way in. */
bool builds_next(const struct arena *arena);

/* Whether the slot's replica is of the base. */
bool builds_is_base(const struct arena *arena, unsigned slot);

#endif
