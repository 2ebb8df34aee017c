/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_KEEPER_H
#define SM_SWITCH_KEEPER_H

/*
 * The arena outlives its switch: whoever starts switches keeps its descriptor meanwhile, by systemd's convention
 * (sd_notify(3): FDSTORE, FDNAME=arena to $NOTIFY_SOCKET; sd_listen_fds(3): LISTEN_FDS, LISTEN_FDNAMES). `smctl run`
 * speaks it as systemd does.
 */

#include <splitmerge/types.h>

/* The arena that a switch before us has left, -1: there is none. Clears the environment. */
int keeper_take(void);

/* Have it kept; where nobody keeps anything it dies with us, and that is no error. SM_E_IO: it was not to be had. */
int keeper_store(int arena_fd, struct sm_errbuf *error);

/* Wait until the kernel reports that the old switch's replicas have gone, whom it makes to. SM_E_STATE: one does not.
 */
int keeper_await_replicas(int arena_fd, struct sm_errbuf *error);

#endif
