/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_XDP_H
#define SM_PORTS_XDP_H

/* Network interfaces by AF_XDP. Only where libxdp and libbpf are there at build time. */

#include "ports/port.h"

enum sm_xdp_mode {
    SM_XDP_BEST,    /* native, or else generic */
    SM_XDP_NATIVE,  /* in the driver, before the kernel makes a packet of its own of it */
    SM_XDP_GENERIC, /* behind that; every driver can, but VLAN tags that it or the sender has taken off are lost */
};

/* Memory that the kernel receives into and sends from, in buffers of equal size. It outlives the port. */
struct sm_port_pool {
    uint8_t *memory; /* aligned to a page */
    uint32_t count;
    uint32_t stride; /* bytes from buffer to buffer: 2048 to 4096 */
    bool contiguous; /* in physical memory too (huge pages): a driver may read and write it without a copy */
};

/* Where a packet begins in its buffer: behind what the kernel keeps free for XDP programs. */
#define SM_PORT_POOL_OFFSET 256u

/* How many buffers of the pool the ports of an interface hold to receive into. */
#define SM_PORT_POOL_STOCK 1024u

/*
 * Open an interface by AF_XDP, with all of its receive queues, which go in turn to `count` ports (1 to as many as it
 * has queues), one thread each. What comes in on it is taken from this host. Their `lender` is to be set before they
 * are used: packets received are in buffers of the pool, the first port's `driver` and `why` say what it has come to.
 * SM_E_NOT_FOUND: no such interface; SM_E_PERMISSION; SM_E_INVALID: not Ethernet, or fewer queues; SM_E_IO: the kernel
 * or the driver refuses the mode, *error says which and why.
 */
int sm_port_open_xdp(struct sm_port **ports, unsigned count, const char *interface, enum sm_xdp_mode mode,
                     const struct sm_port_pool *pool, struct sm_errbuf *error);

/*
 * The XDP program that gives packets to sockets, by queue; with `tags` one that puts VLAN tags back which the driver
 * has taken off (native mode). It goes, with its map and its place on the interface, when the descriptors do: however
 * the process ends.
 */
struct sm_xdp_program {
    int map, program, link; /* descriptors; -1: not there */
    bool tags;
};
int sm_xdp_program_load(struct sm_xdp_program *program, unsigned ifindex, unsigned queues, bool native);
int sm_xdp_program_attach(struct sm_xdp_program *program, unsigned ifindex, bool native);
void sm_xdp_program_unload(struct sm_xdp_program *program);

#endif
