/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_DAEMON_MANAGER_H
#define SM_DAEMON_MANAGER_H

/*
 * Whoever has started this daemon: systemd, or `smctl run`, which speaks as systemd does. What is said are datagrams
 * to $NOTIFY_SOCKET (sd_notify(3)); kept descriptors come as descriptors from 3 on (sd_listen_fds(3)). The protocol is
 * a promise of systemd's and so small that libsystemd, with what it brings along, is not needed for it.
 *
 * Concurrency.  manager_begin() before threads are; the others from any thread. Nothing here waits for the manager,
 * except manager_store().
 */

#include <stdint.h>

#include <splitmerge/types.h>

/* Take what the manager has put into the environment out of it: our children have other managers, or none. */
void manager_begin(void);

/* The descriptor that was kept under this name, close-on-exec; it is the caller's. -1: there is none. */
int manager_kept(const char *name);

/* Have a descriptor kept under a name, for whoever is started in our place. Where there is no manager it dies with us,
 * and that is no error. SM_E_IO: it was not to be had, *error says why. */
int manager_store(int fd, const char *name, struct sm_errbuf *error);

/* What is kept under that name need not be any longer. */
void manager_discard(const char *name);

/* Assignments as sd_notify(3) has them, such as READY=1; lost where there is no manager, or it does not listen. */
void manager_tell(const char *state);

/* How often the manager wants WATCHDOG=1, in milliseconds: half of its patience. 0: never. */
uint64_t manager_watchdog_ms(void);

#endif
