/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef IDS_STREAMS_H
#define IDS_STREAMS_H

/* TCP: a connection's two streams put in order, and what is kept of them between packets. */

#include <splitmerge/splitmerge.h>

#include "engine.h"

#define HELD_BYTES 65536u /* most that is held of a stream out of order */
#define HELD_COUNT 64u    /* and in most pieces */

/* Most bytes of chunks that a connection has. While one grows there are two of it. */
#define STREAMS_ALLOC_LIMIT (2 * (3 * ENGINE_PACKED_MOST + HELD_BYTES + HELD_COUNT * (uint32_t)sizeof(struct segment)))

/* What came before its turn. A chunk of the flow. */
struct segment {
    struct segment *next; /* of the same stream, behind this one, without overlaps */
    uint32_t sequence, bytes;
    uint8_t data[];
};

enum {
    STREAM_BEGUN = 1 << 0, /* `next` is known */
    STREAM_LATE = 1 << 1,  /* it was not seen from its beginning, or not without a gap */
    STREAM_FIN = 1 << 2,   /* `fin` is known */
    STREAM_ENDED = 1 << 3  /* nothing more is looked at */
};

struct stream {
    uint8_t *packed;      /* what the engine knows of it, a chunk; NULL: nothing yet */
    struct segment *held; /* in order */
    uint32_t packed_bytes, packed_room;
    uint32_t held_bytes, held_count;
    uint32_t first; /* the sequence number of its first byte */
    uint32_t next;  /* of the one that is to come */
    uint32_t fin;   /* of its end */
    uint32_t flags;
};

enum stage { STAGE_SYN, STAGE_SYN_ACK, STAGE_ESTABLISHED };

/* A flow's record. Streams are numbered by the endpoint of the key that sends them: 0 is a, 1 is b. */
struct connection {
    struct stream streams[2];
    uint64_t began; /* packet time, ns */
    uint64_t rules; /* the engine's fingerprint */
    uint32_t client;
    uint32_t stage;
};

/* A connection while a packet, or its end, is looked at. */
struct hand {
    struct sm_replica *replica;
    sm_class cls;
    sm_flow flow;
    struct connection *connection;
    struct engine *engine;
    sm_counter gaps, lost;
    int open; /* the stream that the engine has in hand; -1: none */
    /* The engine has found something, maybe, in stream `from`. */
    void (*found)(struct hand *hand, unsigned from);
};

struct tcp {
    unsigned from; /* the stream */
    uint32_t sequence, acknowledged;
    uint8_t flags;
    const uint8_t *data; /* what was captured of it */
    uint32_t bytes;
    uint32_t length; /* on the wire */
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

/* A packet of the connection; `created`: its first. */
void streams_segment(struct hand *hand, const struct tcp *tcp, bool created, sm_time now);

/* The connection ends, as nothing has come for long. */
void streams_end(struct hand *hand);

/* Copies. read: 0, or an error; into a record that is zero. */
void streams_write(const struct connection *connection, struct sm_writer *writer);
int streams_read(struct hand *hand, sm_value value);

#endif
