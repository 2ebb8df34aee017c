/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_CONF_RUNDIR_H
#define SM_CONF_RUNDIR_H

/*
 * A service's run directory: its lock and its sockets (docs/control-protocol.md).
 *
 * The base folder is $SPLITMERGE_RUN, else /run/splitmerge for root, else $XDG_RUNTIME_DIR/splitmerge, else
 * /tmp/splitmerge-UID. A service's directory in it has mode 0700 and must be the caller's own.
 */

#include <splitmerge/types.h>

#define SERVICE_MAX_NAME 63 /* characters of [a-z0-9-] */

/* Whether a text may name a service: 1..63 of [a-z0-9-]. */
bool service_name_valid(const char *name);

struct rundir {
    char service[64];
    char path[90]; /* so that every socket's path fits struct sockaddr_un */
    int lock;      /* -1: not held */
};

/* Where a service's directory is; touches nothing. SM_E_LIMIT: the path is too long for sockets. */
int rundir_init(struct rundir *dir, const char *service, struct sm_errbuf *error);

/* Create it where it does not exist. SM_E_IO, SM_E_PERMISSION (it is someone else's, or open to others). */
int rundir_create(const struct rundir *dir, struct sm_errbuf *error);

/*
 * Take the service's lock until rundir_unlock(), or until the process and the children that inherited it are gone.
 * When a parent holds it and handed it on (environment SPLITMERGE_LOCK_FD, see rundir_pass_lock()), that one is
 * taken over. SM_E_STATE: "service X is already running (pid N)".
 */
int rundir_lock(struct rundir *dir, struct sm_errbuf *error);
void rundir_unlock(struct rundir *dir);

/* Let children inherit the lock; whoever of them calls rundir_lock() takes it over. Sets the environment. */
int rundir_pass_lock(const struct rundir *dir);

/* DIR/FILE in `text`; FILE at most 17 characters. Returns `text`. */
const char *rundir_file(const struct rundir *dir, const char *file, char text[static 108]);

/* The pid in the lock of a running service; 0 when it does not run. */
int rundir_running(const struct rundir *dir);

/* Call `found` for each running service (of a caller who may see them), in no order. */
void rundir_list(void (*found)(void *user, const char *service), void *user);

#endif
