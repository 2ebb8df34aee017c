/* SPDX-License-Identifier: BSD-2-Clause */
#include "pcap/source.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "replica/replica.h"

#define YIELD_NS 50000u /* as in sm_run() */
/* Naps, in which packets gather where the program does not want each at once: as long as it has said, if it has; no
 * longer than this, and shorter where packets are to go on. */
#define NAP_MS 20
#define NAP_MOST_MS 100
#define NAP_INLINE_MS 4
#define SENDS 2u /* packets that may be sent because of one: an answer to each end */

struct source {
    struct sm_replica *replica; /* NULL: not attached */
    bool opened, started;
    bool forked;              /* this process has it from its parent */
    bool announced;           /* pthread_atfork() was called */
    bool sends;               /* packets are asked for one by one */
    struct sm_packet *packet; /* then: the one in hand */
    unsigned run, looked;     /* else: packets that may be looked at, and those that were */
};

/* A process is one replica. */
static struct source only;

static void in_child(void)
{
    only.forked = only.replica != NULL;
    only.run = only.looked = 0;
}

static void detach(struct source *source)
{
    struct sm_replica *replica = source->replica;

    source->replica = NULL;
    if (replica->attachment)
        attach_close(replica);
    free(replica->registration);
    free(replica);
}

static int attach(struct source *source, struct sm_errbuf *error)
{
    struct sm_replica *replica = replica_new(program_invocation_short_name, error);

    if (!replica)
        return SM_E_NO_MEMORY;
    replica->registration->others = true;
    replica->reads_data = true;
    source->replica = replica;
    int result = attach_open(replica, getenv("SPLITMERGE_ATTACH"), replica->registration->middlebox, NULL, error);
    if (result) {
        detach(source);
        return result;
    }
    replica->registration->sends = source_inline(source) ? SENDS : 0;
    /* A program that waits before it asks is to ask: only then packets are sent here. */
    attach_wake(replica);
    return 0;
}

/* In a child that reads what its parent opened: the parent leaves the slot to us, and the descriptor keeps its number.
 */
static int attach_anew(struct source *source, struct sm_errbuf *error)
{
    int fd = attach_fd(source->replica);

    attach_abandon(source->replica);
    source->replica->arena = NULL; /* nor is it mapped here */
    source->replica->actor = NULL;
    detach(source);
    int result = attach(source, error);
    if (result == 0)
        result = attach_renumber(source->replica, fd);
    source->forked = false;
    return result;
}

static int start(struct source *source, struct sm_errbuf *error)
{
    int result = source->forked ? attach_anew(source, error) : 0;

    if (result == 0)
        result = attach_start(source->replica, error);
    if (result)
        return result;
    free(source->replica->registration);
    source->replica->registration = NULL;
    replica_learn_classes(source->replica);
    source->replica->started = source->started = true;
    source->sends = source_inline(source);
    return 0;
}

static int of_service(const struct source *source, const char *service, struct sm_errbuf *error)
{
    const char *ours = source->replica->arena->service;

    if (strcmp(ours, service) == 0)
        return 0;
    snprintf(error->text, sizeof error->text, "this process is a replica of service %s, not of %s", ours, service);
    return SM_E_NOT_FOUND;
}

int source_open(struct source **out, const char *service, struct sm_errbuf *error)
{
    struct source *source = &only;

    *out = NULL;
    if (!getenv("SPLITMERGE_ATTACH")) {
        snprintf(error->text, sizeof error->text,
                 "a service starts its replicas itself: this program is to be the middlebox of %s's service file",
                 service);
        return SM_E_NOT_FOUND;
    }
    if (source->opened) {
        snprintf(error->text, sizeof error->text, "it is open in this process already, which is one replica");
        return SM_E_CONFLICT;
    }
    if (!source->announced && pthread_atfork(NULL, NULL, in_child) != 0) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return SM_E_NO_MEMORY;
    }
    source->announced = true;
    int result = source->replica ? 0 : attach(source, error);
    if (result == 0)
        result = of_service(source, service, error);
    source->opened = result == 0;
    if (result && source->replica && !source->started)
        source_close(source);
    else if (result == 0)
        *out = source;
    return result;
}

void source_close(struct source *source)
{
    source->opened = false;
    if (source->started) {
        if (!source->forked)
            source_commit(source);
    } else if (source->replica && !source->forked) {
        attach_abandon(source->replica);
        detach(source);
    }
}

int source_linktype(const struct source *source)
{
    return source->replica->arena->linktype;
}

bool source_inline(const struct source *source)
{
    return source->replica->arena->mode == ARENA_INLINE;
}

uint64_t source_lost(const struct source *source)
{
    const struct ledger *ledger = &source->replica->arena->ledger;
    uint64_t lost = 0;

    /* Its own reasons are the first; later ones are the middlebox's, of which a program like this has none. */
    for (unsigned i = 0; i < LEDGER_DROPS - SM_MAX_REASONS; i++)
        lost += atomic_load_explicit(&ledger->dropped[i], memory_order_relaxed);
    return lost;
}

int source_fd(const struct source *source)
{
    return attach_fd(source->replica);
}

/* Before the first packet, and in a process that was forked. */
static int begin(struct source *source, struct sm_errbuf *error)
{
    if (!source->started)
        return start(source, error);
    snprintf(error->text, sizeof error->text, "the process that this one was forked from is the replica");
    return SM_E_STATE;
}

/* The packets of the run that were looked at are done with. */
static void end_run(struct source *source)
{
    if (source->run > 0)
        replica_pull_ran(source->replica, source->looked);
    source->run = source->looked = 0;
}

/* False: there is no packet. */
static bool next_alone(struct source *source, struct source_packet *packet)
{
    source->packet = replica_pull(source->replica);
    if (source->packet)
        *packet = (struct source_packet){.data = source->packet->data,
                                         .time = source->packet->time,
                                         .caplen = source->packet->meta->caplen,
                                         .len = source->packet->meta->len};
    return source->packet != NULL;
}

static bool next_of_run(struct source *source, struct source_packet *packet)
{
    struct sm_replica *replica = source->replica;

    if (source->looked == source->run) {
        end_run(source);
        source->run = replica_pull_run(replica);
        if (source->run == 0)
            return false;
    }
    const struct in_entry *entry = replica_pull_look(replica, source->looked++);
    const struct packet_meta *meta = pool_meta(&replica->pool, entry->buffer);
    *packet = (struct source_packet){.data = (const uint8_t *)meta + POOL_DATA_OFFSET,
                                     .time = entry->time,
                                     .caplen = meta->caplen,
                                     .len = meta->len};
    return true;
}

int source_next(struct source *source, struct source_packet *packet, struct sm_errbuf *error)
{
    if (!source->started || source->forked) {
        int result = begin(source, error);
        if (result)
            return result;
    }
    if (source->sends ? next_alone(source, packet) : next_of_run(source, packet))
        return 0;
    struct sm_replica *replica = source->replica;
    if (replica->failed)
        *error = replica->last_error;
    return replica->failed ? replica->failed : replica->retired ? SM_E_END : SM_E_AGAIN;
}

void source_commit(struct source *source)
{
    source->packet = NULL;
    end_run(source);
    replica_pull_end(source->replica);
}

void source_arm(struct source *source)
{
    if (attach_sleep_fd(source->replica, REPLICA_SLEEPS) < 0)
        attach_wake(source->replica);
}

void source_wake(struct source *source)
{
    attach_wake(source->replica);
}

static uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/*
 * Nothing is there at the moment. To sleep and be woken costs more than many packets, so either a little time is spent
 * looking, or packets gather for a while: until there are so many that the switch says so.
 */
static void look(struct sm_replica *replica)
{
    for (uint64_t start = monotonic(); monotonic() - start < YIELD_NS && !replica_has_input(replica); sched_yield())
        ;
}

static int nap_of(const struct source *source, int gather_ms)
{
    int most = source_inline(source) ? NAP_INLINE_MS : NAP_MOST_MS, wanted = gather_ms > 0 ? gather_ms : NAP_MS;

    return wanted < most ? wanted : most;
}

int source_wait(struct source *source, int gather_ms, int break_fd, int timeout_ms)
{
    struct sm_replica *replica = source->replica;
    int nap = nap_of(source, gather_ms), result = SM_E_AGAIN;

    /* Where there were markers somebody waits for the next ones. */
    if (gather_ms == SOURCE_AT_ONCE || replica->pull.marked) {
        look(replica);
        nap = 0;
    } else {
        nap = timeout_ms >= 0 && timeout_ms < nap ? timeout_ms : nap;
        result = attach_sleep(replica, REPLICA_NAPS, break_fd, nap);
    }
    replica->pull.marked = false;
    if (result != SM_E_AGAIN || replica_has_input(replica))
        return result == SM_E_AGAIN ? 0 : result;
    if (timeout_ms >= 0 && nap == timeout_ms)
        return SM_E_AGAIN;
    return attach_sleep(replica, REPLICA_SLEEPS, break_fd, timeout_ms < 0 ? -1 : timeout_ms - nap);
}

int source_send(struct source *source, const void *data, size_t length)
{
    if (!source->packet)
        return SM_E_STATE;
    return length > UINT32_MAX ? SM_E_LIMIT : sm_packet_send(source->replica, source->packet, data, (uint32_t)length);
}
