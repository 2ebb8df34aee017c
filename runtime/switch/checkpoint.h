/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_CHECKPOINT_H
#define SM_SWITCH_CHECKPOINT_H

/*
 * Checkpoints: the parts of a snapshot become a file (archive.h), and a file the state of a service again.
 *
 * Writing.  checkpoint_open(), then checkpoint_write(), which takes the parts of a snapshot that was started, then
 * checkpoint_finish(); or checkpoint_abandon() at any time. All of these do I/O and wait: they belong on a thread of
 * their own, which goes on while the switch's thread does. Where the two have to share a core this one gives it away
 * every few microseconds, and is the one that the kernel gives less of it (checkpoint_stand_back()).
 *
 * Limits.  A thread that wants the core all the time leaves about a thirtieth of it to this one, since who has waited
 * for the core keeps it for 1/32 of that time (archive.c). So a checkpoint ends, however busy packets keep the machine,
 * in about thirty times the time that it takes alone.
 */

#include "switch/switch.h"

struct checkpoint;

/* The thread lowers its priority, for good. */
void checkpoint_stand_back(void);

/* Begin a file. SM_E_IO and others of archive_create(): *error. `arena`: what is written of. */
int checkpoint_open(struct checkpoint **checkpoint, struct arena *arena, const char *path, struct sm_errbuf *error);

/*
 * Write all of the snapshot. `taken` is called behind each part: the switch may sleep; *stop may be set by any thread.
 * SM_E_STATE: it was; or nothing has come for half a minute. Others as of checkpoint_part().
 */
struct checkpoint_peer {
    void (*taken)(void *arg);
    void *arg;
    const _Atomic bool *stop;
};
int checkpoint_write(struct checkpoint *checkpoint, struct sm_switch *sw, const struct checkpoint_peer *peer,
                     struct sm_errbuf *error);

/*
 * Take a part. *last: it is the last of whoever wrote it. SM_E_DAMAGED: it contradicts itself; others: it could not be
 * encoded or written. checkpoint_covered() is for switch_snapshot_taken().
 */
int checkpoint_part(struct checkpoint *checkpoint, const uint8_t *part, bool *last, struct sm_errbuf *error);
const uint64_t *checkpoint_covered(const struct checkpoint *checkpoint);

/* What has been written. */
struct checkpoint_size {
    uint64_t flows, bytes;
};

/* End the file well, and free; free without it. */
int checkpoint_finish(struct checkpoint *checkpoint, struct checkpoint_size *size, struct sm_errbuf *error);
void checkpoint_abandon(struct checkpoint *checkpoint);

#endif
