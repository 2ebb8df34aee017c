/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef CLASSIFIER_DETECT_H
#define CLASSIFIER_DETECT_H

/*
 * nDPI over memory that belongs to flows.
 *
 * What nDPI knows of a flow, pointers and all, is kept in the arena, in chunks of that flow: a move takes it along as
 * it lies, and a death gives it back as it was before the burst. A module (the protocols and their automata) is the
 * process's own, the same in every replica, and nothing that one flow has shown it changes what it says of another:
 * nDPI's caches across flows are switched off (detect.c).
 *
 * All calls are made on the replica's thread, those with a struct detect_hand in a handler with the flow in hand.
 */

#include <splitmerge/splitmerge.h>

struct detect; /* a module */

/* NULL: out of memory, or the library is not of the version of its headers; *error says which. */
struct detect *detect_create(struct sm_errbuf *error);
void detect_destroy(struct detect *detect); /* NULL does nothing */

/* What is under way for a flow, part of its record. All zero: nothing. */
struct detection {
    struct chunk *chunks; /* all memory of it; the first one that was got holds nDPI's own record */
    uint64_t build;       /* of the nDPI that made it: no other one can read it */
};

/* Most bytes that a flow holds by sm_alloc(): what TLS certificates over many segments take, several times over. */
#define DETECT_ALLOC_LIMIT (1u << 20)

/* The flow in hand. */
struct detect_hand {
    struct sm_replica *replica;
    sm_class cls;
    sm_flow flow;
    struct detection *detection; /* in its record */
};

/* What nDPI says. */
struct verdict {
    uint16_t master;      /* protocol, as HTTP, or 0 */
    uint16_t application; /* or what goes over it; 0: unknown */
    uint16_t category;
    uint16_t confidence;
    char host[80]; /* that was asked for, by DNS, HTTP, TLS, QUIC ... */
};

enum detect_state {
    DETECT_GOES_ON,
    DETECT_KNOWN,  /* there is nothing more to learn */
    DETECT_FAILED, /* there is no memory for it */
};

/*
 * One more IP packet of the flow, the `number`th from 1, `bytes` of it captured. *verdict is what is known by now. The
 * first call begins the detection, and so does one that finds it begun by another build of nDPI.
 */
enum detect_state detect_packet(struct detect *detect, const struct detect_hand *hand, const uint8_t *ip,
                                uint32_t bytes, uint64_t time_ms, struct verdict *verdict);

/* No more packets will come, or enough have: the best guess. */
void detect_give_up(struct detect *detect, const struct detect_hand *hand, struct verdict *verdict);

/* Free what is under way; nothing may be. */
void detect_end(const struct detect_hand *hand);

/* Copies, for sm_encode_fn and sm_decode_fn. Nothing is under way where there is nothing by that name. */
void detect_write(const struct detection *detection, struct sm_writer *writer, const char *name);
int detect_read(const struct detect_hand *hand, sm_value value);

/* "TLS.Google" or "DNS" or "Unknown"; "Web". */
void detect_protocol_name(struct detect *detect, const struct verdict *verdict, char *text, size_t size);
const char *detect_category_name(struct detect *detect, const struct verdict *verdict);

#endif
