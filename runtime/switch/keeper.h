/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_KEEPER_H
#define SM_SWITCH_KEEPER_H

/*
 * The arena outlives its switch: whoever starts switches keeps its descriptor meanwhile (daemon/manager.h), under the
 * name KEEPER_NAME.
 */

#include <splitmerge/types.h>

#define KEEPER_NAME "arena"

/* Wait until the kernel reports that the old switch's replicas have gone, whom it makes to. SM_E_STATE: one does not.
 */
int keeper_await_replicas(int arena_fd, struct sm_errbuf *error);

#endif
