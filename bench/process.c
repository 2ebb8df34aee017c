/* SPDX-License-Identifier: BSD-2-Clause */
#include "process.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_NS 20000000000ull

/* In the child: map the arena, which a fork does not hand on, and work until killed. */
static void be_replica(const struct service *service, const struct process *self, uint64_t bytes, int ready)
{
    struct sm_errbuf error;
    struct arena *arena;
    struct sm_replica *replica = calloc(1, sizeof *replica);
    uint64_t one = 1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!replica || arena_map(&arena, service->arena_fd, (uintptr_t)service->arena, bytes, &error) != 0)
        _exit(1);
    replica->registration = calloc(1, sizeof *replica->registration);
    replica->on_packet = service->options.on_packet;
    replica->user = service->options.user;
    if (!replica->registration || replica_bind(replica, arena, (unsigned)self->slot) != 0 ||
        service->options.setup(replica, replica->user) != 0)
        _exit(1);
    replica_learn_classes(replica);
    if (write(ready, &one, sizeof one) != sizeof one)
        _exit(1);
    const struct service_replica work = {
        .replica = replica, .core = 1, .wake_fd = self->wake_fd, .sleepy = service->options.sleepy};
    service_work(&work);
    _exit(0);
}

int process_start(struct service *service, struct process *process, uint32_t id)
{
    struct sm_switch *sw = service->sw;
    int ready = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t bytes = service->arena->bytes, got = 0, deadline = bench_now() + PATIENCE_NS;
    char name[16];

    process->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    snprintf(name, sizeof name, "r%u", id);
    process->slot = switch_slot_take(sw, id, name, 0, process->wake_fd);
    process->pid = process->slot < 0 ? -1 : fork();
    if (process->pid == 0)
        be_replica(service, process, bytes, ready);
    if (process->pid < 0)
        return SM_E_NO_MEMORY;
    process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    while (read(ready, &got, sizeof got) != sizeof got && bench_now() < deadline)
        service_turn(service);
    close(ready);
    if (got == 0)
        return SM_E_STATE;
    switch_slot_ready(sw, (unsigned)process->slot);
    return 0;
}

void process_bury(struct process *process)
{
    waitpid(process->pid, NULL, 0);
    close(process->pidfd);
    close(process->wake_fd);
    process->pid = 0;
}

/* What the replicas register, by a process that is none. */
int processes_register(struct service *service, struct sm_errbuf *error)
{
    struct sm_replica *nobody = calloc(1, sizeof *nobody);
    struct registration *registration = calloc(1, sizeof *registration);
    int result = SM_E_NO_MEMORY;

    /* Replicas of a real service are programs of their own. Ours, forked, would each have a copy of what earlier
     * experiments left on the heap, which takes the kernel milliseconds to make and to take down. */
    malloc_trim(0);

    if (nobody && registration) {
        strcpy(registration->middlebox, "sm-bench");
        nobody->registration = registration;
        result = service->options.setup(nobody, service->options.user);
        if (result == 0)
            result = arena_register(service->arena, 0, registration, error);
    }
    free(registration);
    free(nobody);
    return result;
}
