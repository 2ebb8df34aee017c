/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_CHECK_H
#define SM_SWITCH_CHECK_H

/*
 * The arena's checker: all of it against itself, and against what the switch knows.
 *
 * Life-cycle of a check in a running service: asked for (switch_check_begin) -> the switch admits nothing more, and
 * goes on with what is in flight -> every replica has given back what it had, and is through with its commits: nobody
 * writes -> the check, on the switch's thread -> NOTICE_CHECKED, packets are admitted again. Files wait meanwhile;
 * what an interface receives waits in the kernel's buffers.
 */

#include <splitmerge/types.h>

struct sm_switch;

#define CHECK_LINES 32u

struct check_findings {
    unsigned count; /* of all, also of those that have no line */
    char lines[CHECK_LINES][192];
    uint64_t paused_ns; /* from when nothing more was admitted */
};

/* Frames of arena and state as they were settled, in the switch's own memory. */
struct frame_copy;
int switch_frame_keep(struct sm_switch *sw);
void switch_frame_registered(struct sm_switch *sw); /* now the registration is settled too */
void switch_frame_free(struct sm_switch *sw);
/* Put them back where somebody has written on them. False: somebody had. */
bool switch_frame_restore(struct sm_switch *sw);

/* Check now; nobody may be writing: between two bursts of all replicas, or when all is at rest. */
void switch_check_now(struct sm_switch *sw, bool at_rest, struct check_findings *findings);

/* Ask for a check. SM_E_STATE: moves or a check are under way, or it is not running. */
int switch_check_begin(struct sm_switch *sw);
/* Part of each turn: check once everybody is quiet. */
void switch_check_poll(struct sm_switch *sw);

#endif
