/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. A network interface on the portable path: libpcap receives, libnet sends, a system call for each packet
 * sent. Packets that this machine sends on the interface are not received, or two ports would make a loop.
 *
 * Life-cycle. open (libpcap, and libnet when it will be sent on) -> receive*, send* -> close. An interface that goes
 * away ends in SM_E_IO, which repeats.
 */
#include "ports/internal.h"
#include "ports/offload.h"

#include <libnet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pcap.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum {
    SNAPLEN = 65535,
    /* With segmentation offload each slot of the kernel's ring is as large as the snap length: room for 1,000. */
    RING_BYTES = 64 * 1024 * 1024,
    CALLS_BETWEEN_STATISTICS = 4096,
};

struct interface {
    struct sm_port port;
    pcap_t *pcap;
    libnet_t *libnet; /* NULL: not sent on */
    char *name;
    unsigned calls; /* of receive since the kernel's drops were last asked for */
    bool busy;      /* the last receive gave a packet */
    int ended;      /* what receive repeats; 0: still receiving */
};

/* The kernel's drop count, which libpcap accumulates in 32 bits. */
static void read_statistics(struct interface *interface)
{
    struct pcap_stat statistics;
    interface->calls = 0;
    if (pcap_stats(interface->pcap, &statistics) == 0) {
        uint64_t *missed = &interface->port.counters.rx_missed;
        *missed += (uint32_t)(statistics.ps_drop - (uint32_t)*missed);
    }
}

static int interface_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct interface *interface = (struct interface *)port;
    struct pcap_pkthdr *header;
    const u_char *data;

    if (interface->ended)
        return interface->ended;
    if (++interface->calls >= CALLS_BETWEEN_STATISTICS)
        read_statistics(interface);

    switch (pcap_next_ex(interface->pcap, &header, &data)) {
    case 1:
        break;
    case 0:
        if (interface->busy)
            read_statistics(interface);
        interface->busy = false;
        return 0;
    default:
        interface->ended = sm_port_fail(&port->error, SM_E_IO, "%s: %s", interface->name, pcap_geterr(interface->pcap));
        return interface->ended;
    }
    interface->busy = true;
    /* The place in libpcap's ring is ours until the next call. */
    sm_offload_finish((u_char *)data, header->caplen);
    frame->data = data;
    frame->caplen = header->caplen;
    frame->len = header->len;
    frame->seconds = header->ts.tv_sec;
    frame->fraction = header->ts.tv_usec;
    port->counters.rx_packets++;
    port->counters.rx_bytes += header->caplen;
    return 1;
}

static bool write_link(const struct interface *interface, const uint8_t *data, uint32_t length)
{
    return libnet_adv_write_link(interface->libnet, data, length) == (int)length;
}

/* A packet that the link does not carry, which was to be cut by a card. It has failed when its first segment has. */
static bool write_segments(const struct interface *interface, const struct sm_frame *frame)
{
    struct sm_segments segments;
    struct ifreq request = {0};
    uint8_t segment[SNAPLEN];
    bool sent = false;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface->name);
    if (ioctl(libnet_getfd(interface->libnet), SIOCGIFMTU, &request) != 0 || request.ifr_mtu >= SNAPLEN - 18 ||
        frame->caplen <= sm_offload_longest(frame->data, frame->caplen, (uint32_t)request.ifr_mtu) ||
        !sm_segments_begin(&segments, frame->data, frame->caplen, (uint32_t)request.ifr_mtu))
        return false;
    for (uint32_t bytes; (bytes = sm_segments_next(&segments, segment)) != 0; sent = true)
        if (!write_link(interface, segment, bytes))
            break;
    return sent;
}

static int interface_send(struct sm_port *port, const struct sm_frame *frame)
{
    struct interface *interface = (struct interface *)port;
    if (!write_link(interface, frame->data, frame->caplen) && !write_segments(interface, frame)) {
        port->counters.tx_failed++;
        return 0;
    }
    port->counters.tx_packets++;
    port->counters.tx_bytes += frame->caplen;
    return 0;
}

static int interface_fd(struct sm_port *port)
{
    return pcap_get_selectable_fd(((struct interface *)port)->pcap);
}

static int interface_close(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    struct interface *interface = (struct interface *)port;
    (void)whole;
    (void)error;
    if (interface->libnet != NULL)
        libnet_destroy(interface->libnet);
    if (interface->pcap != NULL)
        pcap_close(interface->pcap);
    free(interface->name);
    free(interface);
    return 0;
}

static const struct sm_port_ops send_ops = {
    .receive = interface_receive,
    .send = interface_send,
    .flush = sm_port_flush_nothing,
    .fd = interface_fd,
    .close = interface_close,
};

static const struct sm_port_ops receive_only_ops = {
    .receive = interface_receive,
    .flush = sm_port_flush_nothing,
    .fd = interface_fd,
    .close = interface_close,
};

/* libpcap's answer to activation as one of our errors. */
static int activation_failed(const struct interface *interface, int status, struct sm_errbuf *error)
{
    const char *detail = pcap_geterr(interface->pcap);
    switch (status) {
    case PCAP_ERROR_NO_SUCH_DEVICE:
        return sm_port_fail(error, SM_E_NOT_FOUND, "%s: no such interface", interface->name);
    case PCAP_ERROR_PERM_DENIED:
    case PCAP_ERROR_PROMISC_PERM_DENIED:
        return sm_port_fail(error, SM_E_PERMISSION, "%s: no permission to capture (CAP_NET_RAW is needed)",
                            interface->name);
    case PCAP_ERROR_IFACE_NOT_UP:
        return sm_port_fail(error, SM_E_IO, "%s: the interface is down", interface->name);
    default:
        return sm_port_fail(error, SM_E_IO, "%s: %s", interface->name,
                            detail[0] != '\0' ? detail : pcap_statustostr(status));
    }
}

static int open_receive(struct interface *interface, struct sm_errbuf *error)
{
    char said[PCAP_ERRBUF_SIZE] = "";
    interface->pcap = pcap_create(interface->name, said);
    if (interface->pcap == NULL)
        return sm_port_fail(error, SM_E_IO, "%s: %s", interface->name, said);
    pcap_set_snaplen(interface->pcap, SNAPLEN);
    pcap_set_promisc(interface->pcap, 1);
    pcap_set_immediate_mode(interface->pcap, 1);
    pcap_set_buffer_size(interface->pcap, RING_BYTES);
    /* Refused where the source of timestamps is coarser; asked for again below. */
    pcap_set_tstamp_precision(interface->pcap, PCAP_TSTAMP_PRECISION_NANO);

    int status = pcap_activate(interface->pcap);
    if (status < 0)
        return activation_failed(interface, status, error);
    if (pcap_setdirection(interface->pcap, PCAP_D_IN) < 0)
        return sm_port_fail(error, SM_E_IO, "%s: cannot tell inbound packets apart: %s", interface->name,
                            pcap_geterr(interface->pcap));
    if (pcap_setnonblock(interface->pcap, 1, said) < 0)
        return sm_port_fail(error, SM_E_IO, "%s: %s", interface->name, said);

    interface->port.linktype = pcap_datalink(interface->pcap);
    interface->port.snaplen = (uint32_t)pcap_snapshot(interface->pcap);
    interface->port.nanoseconds = pcap_get_tstamp_precision(interface->pcap) == PCAP_TSTAMP_PRECISION_NANO;
    return 0;
}

static int open_send(struct interface *interface, struct sm_errbuf *error)
{
    char said[LIBNET_ERRBUF_SIZE] = "";
    if (interface->port.linktype != DLT_EN10MB) {
        const char *name = pcap_datalink_val_to_name(interface->port.linktype);
        return sm_port_fail(error, SM_E_INVALID, "%s: cannot send: its link type is %s, not Ethernet", interface->name,
                            name != NULL ? name : "unknown");
    }
    interface->libnet = libnet_init(LIBNET_LINK_ADV, interface->name, said);
    if (interface->libnet == NULL)
        return sm_port_fail(error, SM_E_IO, "%s: cannot send: %s", interface->name, said);
    return 0;
}

int sm_port_open_interface(struct sm_port **port, const char *name, bool send, struct sm_errbuf *error)
{
    *port = NULL;
    struct interface *interface = calloc(1, sizeof *interface);
    if (interface == NULL)
        return sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", name);
    interface->port.ops = send ? &send_ops : &receive_only_ops;
    interface->port.is_interface = true;
    interface->port.driver = send ? "libpcap+libnet" : "libpcap";
    interface->name = strdup(name);
    interface->port.name = interface->name;

    int failed = interface->name == NULL ? sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", name) : 0;
    if (!failed)
        failed = open_receive(interface, error);
    if (!failed && send)
        failed = open_send(interface, error);
    if (failed) {
        interface_close(&interface->port, false, NULL);
        return failed;
    }
    *port = &interface->port;
    return 0;
}
