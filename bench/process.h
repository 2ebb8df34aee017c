/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_PROCESS_H
#define SM_BENCH_PROCESS_H

/*
 * Replicas that are processes, for a service that was opened with none of its own: they can be killed, and held to a
 * part of a core. They run what the service's options say, on the second core.
 *
 * Life-cycle.  processes_register(), once -> process_start() for each -> the caller assigns shards -> the process ends,
 * dismissed with the service or killed -> process_bury().
 */

#include "service.h"

struct process {
    pid_t pid; /* 0: there is none */
    int pidfd, wake_fd;
    int slot;
};

/* What the replicas register, on behalf of them all. */
int processes_register(struct service *service, struct sm_errbuf *error);

/* Start one and wait until it is ready; packets flow meanwhile. `id`: not used before. SM_E_NO_MEMORY; SM_E_STATE: it
 * does not become ready. */
int process_start(struct service *service, struct process *process, uint32_t id);

/* It has ended or is about to. */
void process_bury(struct process *process);

#endif
