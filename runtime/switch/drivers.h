/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_DRIVERS_H
#define SM_SWITCH_DRIVERS_H

/* What moves the packets of interfaces: ports are opened on the portable path, and go over to AF_XDP here. */

#include "arena/arena.h"
#include "conf/service.h"
#include "switch/switch.h"

/* How many buffers of the pool the ports may come to hold. */
uint32_t drivers_buffers(const struct service *service, const struct switch_options *options);

/*
 * Replace the ports of `options` by what the service file asks for; with `auto` by the best that works. Says on
 * standard error what each interface has. SM_E_IO, SM_E_PERMISSION: what was asked for by name does not work: *error
 * says why. The ports stay the caller's in any case.
 */
int drivers_choose(const struct service *service, struct switch_options *options, const struct arena *arena,
                   int arena_fd, struct sm_errbuf *error);

#endif
