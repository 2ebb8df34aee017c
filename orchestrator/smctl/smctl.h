/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SMCTL_SMCTL_H
#define SM_SMCTL_SMCTL_H

/* What the sub-commands share. One file each; each gives the exit status of smctl. */

#include <jansson.h>

#include "wire/rpc.h"

#define SMCTL_SCHEMA 1

/* Options every verb takes, wherever they stand; the verb's own words are what is left. */
struct options {
    bool json;
    bool copy;            /* of the verbs that move */
    const char *strategy; /* of the verbs that move; NULL: as the service's */
    bool wait;            /* for an operation that is under way, rather than exit 4 */
    uint64_t timeout_ms;  /* 0: the verb's default */
    const char *socket;
    const char *service;
    int argc;
    char **argv; /* argv[0] is the verb */
};

int cmd_run(struct options *options);
int cmd_status(struct options *options);
int cmd_replicas(struct options *options);
int cmd_shared(struct options *options);
int cmd_flows(struct options *options);
int cmd_flow(struct options *options);
int cmd_limits(struct options *options);
int cmd_top(struct options *options);
int cmd_scale(struct options *options);
int cmd_split(struct options *options);
int cmd_merge(struct options *options);
int cmd_move(struct options *options);
int cmd_drain(struct options *options);
int cmd_rebalance(struct options *options);
int cmd_checkpoint(struct options *options);
int cmd_restore(struct options *options);
int cmd_check(struct options *options);
int cmd_upgrade(struct options *options);
int cmd_reload(struct options *options);
int cmd_peers(struct options *options);
int cmd_stop(struct options *options);

/* One line on stderr, as JSON with --json; returns `code`, the exit status. */
int fail(const struct options *options, enum rpc_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for wrong use: exit status 2. `expected` is what the verb takes. */
int usage(const struct options *options, const char *expected);

/* The value of "--name VALUE" or "--name=VALUE" among the verb's words, which it is taken from; NULL: it is not there.
 * Sets *wrong when the value is missing. */
const char *take_option(struct options *options, const char *name, bool *wrong);

/* Print `object` with the schema's number first. Takes it over. Returns 0. */
int print_json(json_t *object);

/* ---- client.c: the connection to a service's orchestrator ---- */

struct client;

/* 0, or an exit status: the line has been printed. */
int client_open(struct client **client, const struct options *options);
void client_close(struct client *client);

/* Whether the service's flows stay where they are (strategies drain and new-flows-only). */
bool client_flows_stay(const struct client *client);

/* Where another socket of the service is: 0, or an exit status. */
int client_socket(const struct options *options, const char *file, char path[static 108]);

/*
 * Ask and wait for the answer: 0 and *result (the caller's), or an exit status and a line printed. `tick` (may be
 * NULL) is called every half second meanwhile.
 */
int client_ask(struct client *client, const char *method, struct wire_out *params, uint64_t timeout_ms,
               void (*tick)(void *user), void *user, json_t **result);

/*
 * One question to the orchestrator over a connection of its own: 0 and *result (the caller's), or an exit status and a
 * line printed. Takes `params` (NULL: none). Waits `patience_ms` where --timeout does not say how long.
 */
int client_call(const struct options *options, const char *method, struct wire_out *params, uint64_t patience_ms,
                json_t **result);

/* ---- operation.c: scale, split, merge, move, drain, rebalance ---- */

/* Carry out `method`, with progress on a terminal; `what` says in words what is done. */
int operation(struct options *options, const char *method, struct wire_out *params, const char *what);

/* ---- peers.c ---- */

/* Add the keys of distributed limits, as the orchestrator's answer to "limits" has others; none where nobody exchanges
 * with other hosts. 0, or an exit status and a line printed. */
int peers_keys(const struct options *options, json_t *keys);

/* ---- collect.c: smctl run --collect ---- */

#include "conf/service.h"
#include <time.h>

#define COLLECT_MOST 16 /* outputs of a replica */

/* Whether there is something to collect, and `target` is fit for it: 0, or an exit status and a line printed. */
int collect_check(const struct options *options, const struct service *service, const char *target);

/* Make one of what the replicas have written, in files changed at `since` or later: 0, or an exit status and a line. */
int collect_outputs(const struct options *options, const struct service *service, const char *target,
                    const struct timespec *since);

/* ---- flowtext.c: flow keys as people read them ---- */

#include <splitmerge/types.h>

#define FLOW_TEXT 160

/* "tcp 10.0.0.1:80 10.0.0.2:1234". */
void flow_text(const struct sm_key *key, char text[static FLOW_TEXT]);

/* A selector that finds the flow that a text as above names; false: the text is none. */
bool flow_text_selector(const char *text, char *selector, size_t size);

/* Flows as the orchestrator gives them: `key` (hexadecimal) becomes text, `replica` a name. NULL: out of memory. */
json_t *flows_for_people(const json_t *flows);

/* A field's value, as `smctl flows` and `smctl flow show` print it. */
void print_value(const json_t *value);

#endif
