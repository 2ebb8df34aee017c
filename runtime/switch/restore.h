/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_RESTORE_H
#define SM_SWITCH_RESTORE_H

/*
 * A checkpoint becomes the state of a service that has no flows.
 *
 * Overview.  The file is read and checked as a whole, and its classes are matched with the service's. Then the input
 * is held, the service takes over the checkpoint's secret, so that the flows' shards are those of the checkpoint, the
 * owners of the shards make the flows, in-band, and shared objects get their values. When anything fails, the flows
 * that were made are ended again: nothing has changed.
 *
 * Concurrency.  restore_open() touches no switch: it belongs on a thread that may wait. All else: the switch's thread.
 */

#include "switch/switch.h"

struct restore;

/*
 * SM_E_IO, SM_E_DAMAGED, SM_E_PROTOCOL, SM_E_NO_MEMORY: as archive_open(). SM_E_CONFLICT: a class or shared object does
 * not fit this service's. *error says which.
 */
int restore_open(struct restore **restore, struct arena *arena, const char *path, struct sm_errbuf *error);

/*
 * Go on. RESTORE_WAIT: call again after NOTICE_RESTORED, or in a while. RESTORE_DONE: the input goes on. Negative: it
 * has failed, and is undone; *error says why. SM_E_STATE: the service has flows.
 */
enum { RESTORE_DONE, RESTORE_WAIT };
int restore_step(struct restore *restore, struct sm_switch *sw, struct sm_errbuf *error);

/* Fail, for want of an answer: call restore_step() on, while it waits. */
void restore_give_up(struct restore *restore);

uint64_t restore_flows(const struct restore *restore);
void restore_close(struct restore *restore);

/*
 * shared.c: the shared objects as a value; whether such a value fits a service's, and giving it to them. `shares`: what
 * replicas have contributed to eventual objects, each behind its block (arena/snapshot.h), which shared_share_fits();
 * find: the contribution of a row to an object, or NULL.
 */
struct snapshot_block;
bool shared_share_fits(const struct arena *arena, const struct snapshot_block *block);
const uint8_t *shared_find(const struct codec_buffer *shares, uint32_t object, uint32_t row);
int shared_encode(struct arena *arena, const struct codec_buffer *shares, struct codec_buffer *out);
int shared_check(const struct arena *arena, sm_value objects, struct sm_errbuf *error);
void shared_restore(struct arena *arena, sm_value objects);

#endif
