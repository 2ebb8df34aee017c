/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_TESTS_CODEC_ENDS_H
#define SM_TESTS_CODEC_ENDS_H

/* One end of a stream: an arena of its own, and a replica that registered its classes, without a switch. */

#include "replica/replica.h"

struct end {
    struct arena *arena;
    struct sm_replica *replica;
    int fd;
};

/* NULL, or why not. */
const char *end_open(struct end *end, int (*setup)(struct sm_replica *replica));
void end_close(struct end *end);

/* Make what was encoded final, as the end of a burst does. */
void end_commit(struct end *end);

/* All flows of an end, behind the header; *flows is where these begin. The bytes are the caller's (free). */
struct codec_buffer end_encode(struct end *end, size_t *flows);

/* Decode flows as end_encode() made them, into the shards that they came from: by their keys. 0, or an error. */
int end_decode(struct end *end, const struct codec_source *source, const uint8_t *bytes, size_t length,
               struct sm_errbuf *error);

/* The shard or stripe for a key. */
uint32_t end_shard(const struct end *end, unsigned cls, const struct sm_key *key);

uint64_t random_next(uint64_t *state);

/* versions.c: NULL, or what is wrong. */
const char *versions_test(void);

/* shown.c: the same. */
const char *shown_test(void);

#endif
