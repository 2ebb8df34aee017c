/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_ENGINE_H
#define IDS_ENGINE_H

/*
 * Hyperscan: finds rules in streams, a piece at a time, and in packets, each alone. What it knows of a stream between
 * two pieces is packed into plain bytes, which mean the same in each process that has an engine of the same
 * fingerprint.
 *
 * A rule is found at most once in a stream, and in a packet. One engine is used by one thread.
 */

#include "rules.h"

#define ENGINE_PACKED_MOST 49152u /* bytes of a packed stream */

struct engine;

/* Compile. NULL: *error has one line. The rules stay the caller's, and have to outlive the engine. */
struct engine *engine_create(const struct rules *rules, struct sm_errbuf *error);
void engine_destroy(struct engine *engine); /* NULL is allowed */

/* The same for the same rules, version of Hyperscan, and kind of processor. */
uint64_t engine_fingerprint(const struct engine *engine);

bool engine_has_streams(const struct engine *engine); /* whether any rule is about TCP */
bool engine_has_packets(const struct engine *engine); /* whether any is about something else */

/*
 * The stream in hand: a new one (packed is NULL), or as it was packed (false: these bytes are none). A piece of it; its
 * end. What there is to be kept of it, valid until the next call.
 */
bool engine_open(struct engine *engine, const void *packed, size_t bytes);
void engine_scan(struct engine *engine, const uint8_t *data, uint32_t bytes);
void engine_end(struct engine *engine);
const void *engine_pack(struct engine *engine, size_t *bytes);

/* A packet of its own. The stream in hand is not in hand any more. */
void engine_scan_packet(struct engine *engine, const uint8_t *data, uint32_t bytes);

/* What was found since this was asked last, in the order of the rules; valid until the next call. */
const struct rule *const *engine_found(struct engine *engine, unsigned *count);

#endif
