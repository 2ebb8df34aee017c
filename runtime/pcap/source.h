/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PCAP_SOURCE_H
#define SM_PCAP_SOURCE_H

/*
 * The process as a replica that asks for its packets.
 *
 * Life-cycle.  attached (what the service is like is known; privileges and root directory may change from here on) ->
 * started, when packets are first asked for -> retired: there are no more packets. One that was only attached leaves
 * without a trace when it is closed, and in a forked child is attached anew: a program may look at the device, or fork
 * and read in the child. One that has been started stays attached until the process ends, since nobody else may have
 * its shards before; opened again it goes on. A child that is forked from then on has no packets (SM_E_STATE).
 *
 * Concurrency.  One thread at a time.
 */

#include <splitmerge/splitmerge.h>

struct source;

/*
 * Attach as SPLITMERGE_ATTACH says. The caller's until source_close(). SM_E_NOT_FOUND: this process was not started as
 * a replica of that service; SM_E_CONFLICT: it is opened already; otherwise as sm_open(). *error says why.
 */
int source_open(struct source **source, const char *service, struct sm_errbuf *error);
void source_close(struct source *source);

int source_linktype(const struct source *source);
/* Whether what the program sends has somewhere to go. */
bool source_inline(const struct source *source);
/* Packets that the service has dropped on their way in, of all replicas. */
uint64_t source_lost(const struct source *source);

/* Readable when source_next() may have something, once source_arm() was called; the same for the process's life. */
int source_fd(const struct source *source);

struct source_packet {
    const uint8_t *data;
    uint64_t time; /* ns since 1970 */
    uint32_t caplen, len;
};

/*
 * The next packet, valid until the next call here. SM_E_AGAIN: there is none now; SM_E_END: there will be none; else it
 * failed, and *error says how.
 */
int source_next(struct source *source, struct source_packet *packet, struct sm_errbuf *error);

/* The program is done with all that it was given. */
void source_commit(struct source *source);

/* Behind SM_E_AGAIN: the descriptor becomes readable when there is something. Otherwise: it is readable. */
void source_arm(struct source *source);
void source_wake(struct source *source);

/*
 * Behind SM_E_AGAIN: wait until there is something, `break_fd` is readable, a signal was handled, or `timeout_ms` is
 * over (-1: never). Packets may gather for `gather_ms`, or for a while if that is 0. SM_E_AGAIN: the time is over.
 */
#define SOURCE_AT_ONCE (-1) /* none is to wait for others */
int source_wait(struct source *source, int gather_ms, int break_fd, int timeout_ms);

/* Send a packet behind the one that was given last. Errors as sm_packet_send(); SM_E_STATE: none is in hand. */
int source_send(struct source *source, const void *data, size_t length);

#endif
