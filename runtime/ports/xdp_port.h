/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_XDP_PORT_H
#define SM_PORTS_XDP_PORT_H

/* What opening a port by AF_XDP (xdp_open.c) and using it (xdp.c) share. */

#include "ports/internal.h"
#include "ports/xdp.h"

#include <xdp/xsk.h>

/* Since 6.6; distributions' headers are older. */
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#define XDP_PKT_CONTD (1 << 0)
#endif

enum {
    XDP_RING = 2048, /* entries of each of the four rings */
    XDP_QUEUES = 16,
    XDP_LONGEST = 262144, /* as libpcap's */
    XDP_IDLE_CALLS = 16,  /* of receive, that had nothing to give, before the kernel is asked for more than packets */
};

struct xdp_queue {
    struct xsk_umem *umem;
    struct xsk_socket *socket;
    struct xsk_ring_prod fill, send;
    struct xsk_ring_cons completed, received;
    uint32_t stocked;     /* buffers that are the kernel's to receive into, or received and not yet taken */
    uint32_t at;          /* of the batch: the next descriptor's index */
    uint32_t left, batch; /* of the batch: not yet taken, and all */
};

struct xdp_port {
    struct sm_port port;
    char *name;
    unsigned ifindex, mtu;
    bool zero_copy;
    bool down; /* the last attempt to send met a link that is down */
    int ended; /* what receive repeats; 0: still receiving */
    struct sm_port_pool pool;
    uint32_t stock; /* of each queue */
    struct sm_xdp_program program;
    struct xdp_queue queues[XDP_QUEUES]; /* the first one also sends */
    unsigned queue_count, current;
    unsigned idle;             /* calls of receive that had nothing to give, in a row */
    int64_t seconds, fraction; /* when the batch was taken */
    uint8_t *assembled;        /* a packet that came in several buffers */
    uint8_t *segment;          /* one of a packet that is cut */
    uint32_t
        lengths[XDP_RING]; /* by place in the send ring: of the packet that the descriptor stands for; 0: of none */
    int wait_fd, promiscuous_fd; /* of several sockets, -1: there is one; and what keeps the interface promiscuous */
};

int xdp_receive(struct sm_port *port, struct sm_frame *frame);
int xdp_send(struct sm_port *port, const struct sm_frame *frame);
int xdp_flush(struct sm_port *port);

/* Ask for the interface's MTU again. */
void xdp_read_mtu(struct xdp_port *xdp);

#endif
