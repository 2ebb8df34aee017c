/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ORCHESTRATOR_EVENTS_H
#define SM_ORCHESTRATOR_EVENTS_H

/*
 * A file of events: one a line, "WHEN VERB ARGS", WHEN being packet=N or time=2.5s (packet time since the first
 * packet). What follows # is a comment; empty lines are allowed. Parsed before anything starts.
 */

#include <splitmerge/types.h>

#include "ops.h"

/* VICTIM_REPLICA: `request.replica` of the event, 0: any. */
enum event_victim { VICTIM_REPLICA, VICTIM_SWITCH, VICTIM_ORCHESTRATOR };

struct event {
    unsigned line;
    bool by_time;
    uint64_t when; /* packets entered, or nanoseconds since the first packet */
    bool kill;     /* SIGKILL of `victim`, rather than an operation */
    enum event_victim victim;
    struct ops_request request;
    const char *selector; /* move: not NULL */
    const char *file;     /* checkpoint: not NULL; as written */
    const char *exec;     /* upgrade: not NULL */
    const char **args;    /* upgrade: ended by NULL; NULL: none are given */
    const char *text;     /* VERB ARGS as written */

    /* Filled by whoever runs it. */
    const char *result; /* "done", "refused", "abandoned", "failed"; NULL: not reached */
    char message[200];
    double seconds;
};

struct events {
    struct event *list;
    size_t count;
    char *text;
};

/* 0, or SM_E_SYNTAX with "FILE:LINE: ..." in *error, SM_E_IO, SM_E_NO_MEMORY. Free with events_free(). */
int events_load(struct events *events, const char *file, struct sm_errbuf *error);

/* The same from memory. */
int events_parse(struct events *events, const char *file, const char *text, struct sm_errbuf *error);

void events_free(struct events *events);

/* The id in "r7". False: it is no replica's name. */
bool replica_id(const char *name, uint32_t *id);

#endif
