/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_THREADS_H
#define SM_PORTS_THREADS_H

/* An interface whose packets threads of its own move, so that its owner's thread makes no system call for them. */

#include "ports/xdp.h"

#define SM_PORT_THREADS_MAX 16u

/* How many buffers of the pool a thread holds, beside its port's stock. */
#define SM_PORT_THREAD_BUFFERS 768u

/*
 * One port of the `count` ports of an interface, 1 to SM_PORT_THREADS_MAX, which lend from `pool`. Each gets a thread,
 * which calls `begin` first, and is this port's from here on, also where it fails. Packets of one `flow` all leave by
 * the same of them.
 * SM_E_NO_MEMORY.
 */
int sm_port_open_threads(struct sm_port **port, struct sm_port *const *engines, unsigned count,
                         const struct sm_port_pool *pool, void (*begin)(void), struct sm_errbuf *error);

#endif
