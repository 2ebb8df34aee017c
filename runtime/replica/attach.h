/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_REPLICA_ATTACH_H
#define SM_REPLICA_ATTACH_H

/*
 * What a replica and its switch say to each other on the attach socket (SOCK_SEQPACKET, Unix): one message a line,
 * C structures, since both sides are on one host and map the same structures anyway.
 *
 *     replica -> switch   struct attach_hello
 *     switch -> replica   struct attach_welcome, with three descriptors: the arena, the replica's eventfd, the switch's
 *     replica -> switch   struct registration (arena/arena.h), or struct attach_decline: then the switch closes the
 * socket switch -> replica   struct attach_reply
 *
 * Before a replica touches the arena it locks the slot's byte of its descriptor (fcntl), until it leaves or the process
 * ends: so the kernel knows, whoever the parents are, whether a replica is still there when a switch takes the arena
 * over.
 *
 * After that nothing is said; either side sees the other's end by the socket closing. For the switch that means
 * something only of a retired replica whose process goes on with others (process.h): it has gone.
 */

#include <stdint.h>

#define ATTACH_MAGIC 0x68637461u
#define ATTACH_VERSION 2u
#define ATTACH_FDS 3u
#define ATTACH_SOCKET_BYTES (1 << 20) /* send buffer: a registration is one message */

struct attach_hello {
    uint32_t magic;
    uint32_t version;
    uint32_t replica; /* the number in its name */
    char middlebox[32];
};

struct attach_welcome {
    int32_t result; /* 0 or an SM_E_*: then error says why, and no descriptors come */
    uint32_t version;
    uint32_t slot;
    uint32_t generation;  /* of the arena: another one means that another switch has taken it over */
    uint64_t base, bytes; /* where to map the arena */
    char error[224];
};

/* The replica cannot start. */
struct attach_decline {
    char reason[200];
};

struct attach_reply {
    int32_t result;
    char error[224];
};

#endif
