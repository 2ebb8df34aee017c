/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_TYPES_H
#define SPLITMERGE_TYPES_H

/* Words every other header uses: errors, time, the flow key and its granularities. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SM_EXPORT __attribute__((visibility("default")))
#else
#define SM_EXPORT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Errors. Every function that can fail returns 0 or one of these negative values; the second column is its
 * name, the third what sm_strerror() says.
 */
#define SM_ERRORS(X)                                                                                                   \
    X(-1, INVALID, "invalid argument")                                                                                 \
    X(-2, NO_MEMORY, "out of memory")                                                                                  \
    X(-3, LIMIT, "a configured limit is reached")                                                                      \
    X(-4, NOT_FOUND, "not found")                                                                                      \
    X(-5, CONFLICT, "conflicts with what is already registered")                                                       \
    X(-6, STATE, "not possible in this state")                                                                         \
    X(-7, IO, "input or output failed")                                                                                \
    X(-8, PROTOCOL, "the peer speaks another version or broke the protocol")                                           \
    X(-9, RANGE, "the arena's address range is taken in this process")                                                 \
    X(-10, END, "end of input")                                                                                        \
    X(-11, AGAIN, "nothing to do now")                                                                                 \
    X(-12, PERMISSION, "permission denied")                                                                            \
    X(-13, SYNTAX, "syntax error")                                                                                     \
    X(-14, DAMAGED, "the input is damaged")

enum sm_error {
#define SM_ERROR_ENUM(value, name, text) SM_E_##name = (value),
    SM_ERRORS(SM_ERROR_ENUM)
#undef SM_ERROR_ENUM
};

/* The text of an error; never NULL, static. Any thread. */
SM_EXPORT const char *sm_strerror(int error);

/* The name of an error without its prefix ("NO_MEMORY"); never NULL, static. Any thread. */
SM_EXPORT const char *sm_errname(int error);

/* Room for one line that says what went wrong, where, and what was expected. */
struct sm_errbuf {
    char text[256];
};

/*
 * A point in packet time: nanoseconds since 1970. It is the largest capture time the switch has seen so far, so
 * it never goes back (see docs/architecture.md, "Time"). A type of its own, so that it does not meet durations.
 */
typedef struct sm_time {
    uint64_t ns;
} sm_time;

/* Which header fields name a flow. Two-way keys have both directions of a conversation in one flow. */
#define SM_GRANULARITIES(X)                                                                                            \
    X(SM_BY_FLOW, "flow")               /* two-way: protocol, both addresses, both ports */                            \
    X(SM_BY_HOST_PAIR, "host-pair")     /* two-way: both addresses */                                                  \
    X(SM_BY_SOURCE, "source")           /* one-way: outer source address */                                            \
    X(SM_BY_DESTINATION, "destination") /* one-way: outer destination address */                                       \
    X(SM_BY_ALL, "all")                 /* one flow for all packets; never partitioned */                              \
    /* What lies around the outermost IP header, or in it: by these no packet is steered, so never partitioned. */     \
    X(SM_BY_VLAN, "vlan")                           /* the identifiers of the outer two VLAN tags */                   \
    X(SM_BY_TUNNEL, "tunnel")                       /* the tunnel that the outermost IP packet is part of */           \
    X(SM_BY_INNER_SOURCE, "inner-source")           /* one-way: source address of the packet in the tunnel */          \
    X(SM_BY_INNER_DESTINATION, "inner-destination") /* likewise its destination address */

enum sm_granularity {
#define SM_GRANULARITY_ENUM(id, name) id,
    SM_GRANULARITIES(SM_GRANULARITY_ENUM)
#undef SM_GRANULARITY_ENUM
        SM_GRANULARITY_COUNT
};

/* Whether no packet is ever steered by it, so that flows of classes by it are always shared by all replicas. */
static inline bool sm_granularity_is_shared(enum sm_granularity granularity)
{
    return granularity >= SM_BY_ALL;
}

/* The name as in a policy file, or NULL when out of range. Any thread. */
SM_EXPORT const char *sm_granularity_name(enum sm_granularity granularity);

#define SM_TUNNELLED 255 /* no protocol has this number */

/*
 * A flow key, always of this shape; fields that the granularity does not use are zero. Two keys are equal when
 * their bytes are. For two-way keys the lower (address, port) endpoint is `a`, compared as bytes, whatever the
 * packet's direction; for one-way keys the address is in `a`.
 *
 * vlan: a_port and b_port, the outer and the next tag's identifier; of a packet without tags both are 0.
 *
 * Tunnels are IP in IP, GRE, VXLAN and GENEVE, with an IP packet in them. `protocol` is SM_TUNNELLED (of a packet that
 * is in none: 0), a_port the kind: the outer protocol, or the UDP port. tunnel: the first four bytes of `a` are the
 * tunnel's identifier (of a network, or a GRE key), family 0; where it has none, a and b are the outer addresses.
 * Inner addresses: `a` and family are the inner packet's, the first four bytes of `b` the identifier, since different
 * networks may use the same addresses; b_port is 1.
 */
struct sm_key {
    uint8_t a[16];    /* IPv4: the first four bytes, the rest zero */
    uint8_t b[16];    /* as a */
    uint16_t a_port;  /* host byte order; ICMP echo: the identifier, in both ports */
    uint16_t b_port;  /* as a_port */
    uint8_t family;   /* 4, 6, or 0 where the key has no address */
    uint8_t protocol; /* IP protocol number where the granularity has it, else 0 */
    uint16_t tag;     /* the middlebox's own: several flows of one class under the same header fields */
};

#ifdef __cplusplus
}
static_assert(sizeof(struct sm_key) == 40, "keys are compared as bytes");
#else
_Static_assert(sizeof(struct sm_key) == 40, "keys are compared as bytes");
#endif

#endif
