/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_IDS_H
#define IDS_IDS_H

/*
 * Looks for the contents of rules in TCP streams, and in other packets one by one, and writes a line for each alert.
 * All packets pass.
 */

#include "engine.h"
#include "lines.h"

struct ids;

/* Engine and log stay the caller's, and outlive the middlebox; no other one uses them. NULL: out of memory. */
struct ids *ids_create(struct engine *engine, struct lines *log);
void ids_destroy(struct ids *ids); /* NULL is allowed */

int ids_register(struct ids *ids, struct sm_replica *replica);
void ids_packet(struct sm_replica *replica, struct sm_packet *packet, void *ids);

#endif
