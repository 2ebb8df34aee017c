/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_PORT_H
#define SM_PORTS_PORT_H

/*
 * Where packets enter and leave: a capture file, an interface, a generator. The only code that knows libpcap and
 * libnet. A port belongs to one thread.
 */

#include <splitmerge/types.h>

/* A packet as received, or to be sent. Received data is valid until the next receive call on the port. */
struct sm_frame {
    const uint8_t *data;
    uint32_t caplen;  /* bytes at data; files may have more than their own snaplen */
    uint32_t len;     /* bytes on the wire */
    int64_t seconds;  /* timestamp as in the capture: not normalised, so that a file can be copied exactly */
    int64_t fraction; /* in units of the port's precision: microseconds, or nanoseconds */
    uint32_t flow;    /* of a packet to send: those of the same one leave in the order in which they were sent */
};

struct sm_port_counters {
    uint64_t rx_packets, rx_bytes;
    uint64_t tx_packets, tx_bytes;
    uint64_t tx_failed; /* packets the interface refused */
    uint64_t rx_missed; /* packets the kernel dropped before we saw them (never entered) */
};

/* Whose buffers a port uses. Both of the port's thread. */
struct sm_port_lender {
    uint32_t (*take)(void *arg); /* a free one's number; UINT32_MAX: none */
    void (*give)(void *arg, uint32_t buffer);
    void *arg;
};

struct sm_port {
    const struct sm_port_ops *ops;
    const char *name;     /* file or interface, for messages; owned by the port */
    int linktype;         /* DLT_* */
    uint32_t snaplen;     /* as the input file's header says */
    bool nanoseconds;     /* precision of `fraction` */
    bool is_interface;    /* cannot be made to wait */
    bool lends;           /* frames are in the lender's buffers, and the receiver's with them */
    uint32_t pending;     /* what flush would push on; 0: nothing */
    uint32_t under_way;   /* packets sent that threads of the port's own have, and that are not yet counted */
    const char *driver;   /* of an interface: what moves its packets; else NULL */
    struct sm_errbuf why; /* it is not a better one; empty: nothing to say */
    const struct sm_port_lender *lender;
    struct sm_port_counters counters;
    struct sm_errbuf error; /* set when a call failed */
};

#define SM_PORT_KEEPS 1

struct sm_port_ops {
    /*
     * One packet, never blocking on interfaces. 1: *frame is filled. 0: none now. SM_E_END: end of file.
     * SM_E_DAMAGED: the file is damaged from here on. SM_E_IO. The last three set port->error, and repeat.
     * NULL for output-only ports.
     */
    int (*receive)(struct sm_port *port, struct sm_frame *frame);
    /* Send one packet. 0, or SM_E_IO: a file could not be written (interfaces count tx_failed, some of them only when
     * they are flushed, and return 0). SM_PORT_KEEPS: the frame is in a buffer of the lender's, which is the port's
     * until it gives it. NULL for input-only ports. */
    int (*send)(struct sm_port *port, const struct sm_frame *frame);
    /* Push out what is buffered. 0 or SM_E_IO. */
    int (*flush)(struct sm_port *port);
    /* A descriptor that is readable when receive would give a packet, until receive is called; -1: none, files. */
    int (*fd)(struct sm_port *port);
    /* `whole`: the run ended well. Output files are written as NAME.partial and renamed to NAME only now and only when
     * whole. 0 or SM_E_IO (port->error set); the port is freed in any case. */
    int (*close)(struct sm_port *port, bool whole, struct sm_errbuf *error);
};

/* Time of a frame in nanoseconds since 1970, clamped to [0, 2^63). */
sm_time sm_frame_time_any(const struct sm_port *port, const struct sm_frame *frame);

static inline sm_time sm_frame_time(const struct sm_port *port, const struct sm_frame *frame)
{
    uint64_t seconds = (uint64_t)frame->seconds, fraction = (uint64_t)frame->fraction;

    if (__builtin_expect(seconds > UINT32_MAX || fraction > UINT32_MAX, 0))
        return sm_frame_time_any(port, frame);
    return (sm_time){seconds * 1000000000u + (port->nanoseconds ? fraction : fraction * 1000u)};
}

/*
 * Open a capture file for reading: pcap, pcapng, either gzipped (read through a pipe from gzip -dc), "-": standard
 * input. SM_E_IO, SM_E_PERMISSION, SM_E_NOT_FOUND, SM_E_DAMAGED: *error has one line with the name and the reason.
 */
int sm_port_open_capture(struct sm_port **port, const char *file, struct sm_errbuf *error);

/* Create an output capture: classic pcap like `model` (link type, snap length, precision). "-": standard output. */
int sm_port_create_capture(struct sm_port **port, const char *file, const struct sm_port *model,
                           struct sm_errbuf *error);

/*
 * Go on with an output that sm_port_create_capture() began and nobody closed: behind its last whole packet, the rest is
 * cut off. The port's tx_packets says how many there are. SM_E_INVALID: not a file, or another one's header.
 */
int sm_port_continue_capture(struct sm_port **port, const char *file, const struct sm_port *model,
                             struct sm_errbuf *error);

/*
 * An interface, receiving by libpcap (immediate mode, promiscuous, non-blocking, inbound packets only) and sending by
 * libnet at the link layer. `send`: whether it will be sent on. SM_E_NOT_FOUND: no such interface; SM_E_PERMISSION.
 */
int sm_port_open_interface(struct sm_port **port, const char *interface, bool send, struct sm_errbuf *error);

/*
 * A generator of minimal UDP packets for benchmarks, on Ethernet: `flows` flows (round robin, IPv4 addresses and
 * ports counted up), `size` bytes each (64..1500), `count` packets in all (0: no end), `rate` packets a second of wall
 * time (0: as fast as it is asked).
 */
int sm_port_open_generator(struct sm_port **port, uint32_t flows, uint32_t size, uint64_t count, uint64_t rate);

/* Swallows what is sent. */
int sm_port_open_null(struct sm_port **port, const struct sm_port *model);

#endif
