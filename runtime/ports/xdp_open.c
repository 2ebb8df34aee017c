/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opening an interface by AF_XDP: a socket for each receive queue, over the same memory, and the program that gives
 * them their packets. Of the ways that the caller allows, the best that the kernel and the driver accept: native and
 * without copies, native with one, generic.
 */
#include "ports/xdp_port.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xdp/libxdp.h>

enum {
    DLT_ETHERNET = 1,
    RETRY_US = 20000, /* what a process that died held, the kernel takes apart a moment later */
    RETRIES = 50,
    SEND_BUFFER = 16 << 20, /* of a socket: what the kernel has taken and not sent */
};

struct way {
    const char *name, *driver;
    bool native, zero_copy;
};

/* The ports that an interface is opened as; its queues go to them in turn. The first one has the program. */
struct opening {
    struct sm_port **ports;
    unsigned count, queues;
};

static struct xdp_port *port_of(const struct opening *opening, unsigned number)
{
    return (struct xdp_port *)opening->ports[number % opening->count];
}

static const struct way ways[] = {
    {"native, zero-copy", "AF_XDP (native, zero-copy)", true, true},
    {"native, copy", "AF_XDP (native, copy)", true, false},
    {"generic, copy", "AF_XDP (generic, copy)", false, false},
};

static int quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
    (void)level;
    (void)format;
    (void)arguments;
    return 0;
}

static int quiet_too(enum libxdp_print_level level, const char *format, va_list arguments)
{
    (void)level;
    (void)format;
    (void)arguments;
    return 0;
}

static int ask(const struct xdp_port *xdp, unsigned long what, struct ifreq *request)
{
    snprintf(request->ifr_name, sizeof request->ifr_name, "%s", xdp->name);
    return ioctl(xdp->promiscuous_fd, what, request);
}

void xdp_read_mtu(struct xdp_port *xdp)
{
    struct ifreq request = {0};
    if (ask(xdp, SIOCGIFMTU, &request) == 0)
        xdp->mtu = (unsigned)request.ifr_mtu;
}

/* The queues that packets come in by, of which each port needs one; and one to send on, of the same number. */
static int count_queues(struct opening *opening, struct sm_errbuf *error)
{
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    struct ifreq request = {.ifr_data = (void *)&channels};
    const struct xdp_port *xdp = port_of(opening, 0);
    if (ask(xdp, SIOCETHTOOL, &request) != 0 || channels.rx_count + channels.combined_count == 0)
        channels = (struct ethtool_channels){.combined_count = 1};
    const unsigned send = channels.tx_count + channels.combined_count;
    opening->queues = channels.rx_count + channels.combined_count;
    if (opening->queues > XDP_QUEUES)
        return sm_port_fail(error, SM_E_IO, "%s: it has %u receive queues, expected at most %d", xdp->name,
                            opening->queues, XDP_QUEUES);
    if (opening->count > 1 && (opening->count > opening->queues || opening->count > send))
        return sm_port_fail(error, SM_E_INVALID,
                            "%s: it has %u receive and %u send queues, expected at least %u of each (threads: %u)",
                            xdp->name, opening->queues, send, opening->count, opening->count);
    return 0;
}

/* A packet socket that receives nothing keeps the interface promiscuous, until it is closed. */
static int open_device(struct xdp_port *xdp, struct sm_errbuf *error)
{
    struct ifreq request = {0};
    xdp->ifindex = if_nametoindex(xdp->name);
    if (xdp->ifindex == 0)
        return sm_port_fail(error, SM_E_NOT_FOUND, "%s: no such interface", xdp->name);
    xdp->promiscuous_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (xdp->promiscuous_fd < 0)
        return sm_port_fail(error, sm_port_errno_code(errno), "%s: no permission to capture (CAP_NET_RAW is needed)",
                            xdp->name);
    const struct packet_mreq all = {.mr_ifindex = (int)xdp->ifindex, .mr_type = PACKET_MR_PROMISC};
    if (setsockopt(xdp->promiscuous_fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) != 0)
        return sm_port_fail(error, SM_E_IO, "%s: cannot be made promiscuous: %s", xdp->name, strerror(errno));
    if (ask(xdp, SIOCGIFHWADDR, &request) != 0 || request.ifr_hwaddr.sa_family != ARPHRD_ETHER)
        return sm_port_fail(error, SM_E_INVALID, "%s: not Ethernet", xdp->name);
    xdp_read_mtu(xdp);
    return 0;
}

/*
 * One descriptor for several sockets. The kernel tells an epoll instance of each packet that it has sent, too, which is
 * a good part of sending one: so the socket of an interface that has only one is waited for itself.
 */
static int open_wait(struct xdp_port *xdp, struct sm_errbuf *error)
{
    xdp->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    return xdp->wait_fd < 0
               ? sm_port_fail(error, sm_port_errno_code(errno), "%s: epoll: %s", xdp->name, strerror(errno))
               : 0;
}

/* 0, or what the kernel said, negative. Kernels before 6.6 know no packets in several buffers. */
static int bind_socket(struct xdp_port *xdp, struct xdp_queue *queue, unsigned number, const struct way *way)
{
    struct xsk_socket_config config = {
        .rx_size = XDP_RING,
        .tx_size = XDP_RING,
        .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
        .bind_flags = XDP_USE_NEED_WAKEUP | XDP_USE_SG | (way->zero_copy ? XDP_ZEROCOPY : XDP_COPY),
    };
    int failed =
        xsk_socket__create(&queue->socket, xdp->name, number, queue->umem, &queue->received, &queue->send, &config);
    if (failed == -EINVAL && xdp->mtu + 18 <= xdp->pool.stride - SM_PORT_POOL_OFFSET) {
        config.bind_flags &= (uint16_t)~XDP_USE_SG;
        failed =
            xsk_socket__create(&queue->socket, xdp->name, number, queue->umem, &queue->received, &queue->send, &config);
    }
    return failed;
}

static int open_queue(const struct opening *opening, unsigned number, const struct way *way)
{
    struct xdp_port *xdp = port_of(opening, number);
    const struct xsk_umem_config config = {
        .fill_size = XDP_RING,
        .comp_size = XDP_RING,
        .frame_size = xdp->pool.stride,
        .flags = XDP_UMEM_UNALIGNED_CHUNK_FLAG,
    };
    const int bytes = SEND_BUFFER, key = (int)number;
    struct xdp_queue *queue = &xdp->queues[xdp->queue_count++];
    int failed = xsk_umem__create(&queue->umem, xdp->pool.memory, (uint64_t)xdp->pool.count * xdp->pool.stride,
                                  &queue->fill, &queue->completed, &config);
    if (failed)
        return failed;
    failed = bind_socket(xdp, queue, number, way);
    if (failed)
        return failed;
    const int fd = xsk_socket__fd(queue->socket);
    struct epoll_event event = {.events = EPOLLIN};
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes); /* with the usual one fewer are sent at a time */
    if ((xdp->wait_fd >= 0 && epoll_ctl(xdp->wait_fd, EPOLL_CTL_ADD, fd, &event) != 0) ||
        bpf_map_update_elem(port_of(opening, 0)->program.map, &key, &fd, BPF_ANY) != 0)
        return -errno;
    return 0;
}

static void close_queues(struct xdp_port *xdp)
{
    sm_xdp_program_unload(&xdp->program);
    for (unsigned i = 0; i < XDP_QUEUES; i++) {
        struct xdp_queue *queue = &xdp->queues[i];
        if (queue->socket != NULL)
            xsk_socket__delete(queue->socket);
        if (queue->umem != NULL)
            xsk_umem__delete(queue->umem);
        *queue = (struct xdp_queue){0};
    }
    xdp->queue_count = 0;
}

/* 0, or what the kernel said, negative, and to what. */
static int try_once(const struct opening *opening, const struct way *way, const char **step)
{
    struct xdp_port *first = port_of(opening, 0);
    *step = "load an XDP program";
    int failed = sm_xdp_program_load(&first->program, first->ifindex, opening->queues, way->native);
    for (unsigned i = 0; i < opening->queues && !failed; i++) {
        *step = "bind a socket";
        failed = open_queue(opening, i, way);
    }
    if (!failed) {
        *step = "attach an XDP program";
        failed = sm_xdp_program_attach(&first->program, first->ifindex, way->native);
    }
    for (unsigned i = 0; i < opening->count && failed; i++)
        close_queues(port_of(opening, i));
    return failed;
}

static int try_way(const struct opening *opening, const struct way *way, const char **step)
{
    int failed;
    for (unsigned i = 0; (failed = try_once(opening, way, step)) == -EBUSY && i < RETRIES; i++)
        usleep(RETRY_US);
    return failed;
}

static bool is_allowed(const struct way *way, enum sm_xdp_mode mode, const struct sm_port_pool *pool)
{
    if (way->zero_copy && !pool->contiguous)
        return false;
    return mode == SM_XDP_BEST || way->native == (mode == SM_XDP_NATIVE);
}

static void is_open(const struct opening *opening, const struct way *way)
{
    for (unsigned i = 0; i < opening->count; i++) {
        struct xdp_port *xdp = port_of(opening, i);
        xdp->stock = SM_PORT_POOL_STOCK / opening->queues;
        xdp->zero_copy = way->zero_copy;
        xdp->port.driver = way->driver;
    }
}

/* Of the ways allowed the first that works. What was refused before it is why it is not a better one. */
static int open_best(const struct opening *opening, enum sm_xdp_mode mode, struct sm_errbuf *error)
{
    struct xdp_port *first = port_of(opening, 0);
    int failed = 0;
    for (unsigned i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const struct way *way = &ways[i];
        const char *step;
        if (!is_allowed(way, mode, &first->pool))
            continue;
        failed = try_way(opening, way, &step);
        if (!failed) {
            is_open(opening, way);
            return 0;
        }
        sm_port_fail(&first->port.why, failed, "%s refused: cannot %s: %s", way->name, step, strerror(-failed));
    }
    return sm_port_fail(error, sm_port_errno_code(-failed), "%s: AF_XDP %s", first->name, first->port.why.text);
}

/* The caller is about to sleep. When it wakes up and nothing has come, the kernel is asked whether the interface is
 * still there: the socket would not say it. */
static int xdp_fd(struct sm_port *port)
{
    struct xdp_port *xdp = (struct xdp_port *)port;
    xdp->idle = XDP_IDLE_CALLS - 1;
    return xdp->wait_fd >= 0 ? xdp->wait_fd : xsk_socket__fd(xdp->queues[0].socket);
}

static int xdp_close(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    struct xdp_port *xdp = (struct xdp_port *)port;
    (void)whole;
    (void)error;
    close_queues(xdp);
    if (xdp->wait_fd >= 0)
        close(xdp->wait_fd);
    if (xdp->promiscuous_fd >= 0)
        close(xdp->promiscuous_fd);
    free(xdp->assembled);
    free(xdp->segment);
    free(xdp->name);
    free(xdp);
    return 0;
}

static const struct sm_port_ops xdp_ops = {
    .receive = xdp_receive,
    .send = xdp_send,
    .flush = xdp_flush,
    .fd = xdp_fd,
    .close = xdp_close,
};

static struct xdp_port *make_port(const char *name, const struct sm_port_pool *pool)
{
    struct xdp_port *xdp = calloc(1, sizeof *xdp);
    if (xdp == NULL)
        return NULL;
    xdp->port = (struct sm_port){.ops = &xdp_ops,
                                 .linktype = DLT_ETHERNET,
                                 .snaplen = XDP_LONGEST,
                                 .nanoseconds = true,
                                 .is_interface = true,
                                 .lends = true};
    xdp->program = (struct sm_xdp_program){.map = -1, .program = -1, .link = -1};
    xdp->promiscuous_fd = xdp->wait_fd = -1;
    xdp->pool = *pool;
    xdp->assembled = malloc(XDP_LONGEST);
    xdp->segment = malloc(XDP_LONGEST);
    xdp->port.name = xdp->name = strdup(name);
    if (xdp->assembled && xdp->segment && xdp->name)
        return xdp;
    xdp_close(&xdp->port, false, NULL);
    return NULL;
}

int sm_port_open_xdp(struct sm_port **ports, unsigned count, const char *name, enum sm_xdp_mode mode,
                     const struct sm_port_pool *pool, struct sm_errbuf *error)
{
    struct opening opening = {.ports = ports};
    int failed = 0;
    libbpf_set_print(quiet);
    libxdp_set_print(quiet_too);
    while (!failed && opening.count < count) {
        struct xdp_port *xdp = make_port(name, pool);
        if (xdp == NULL) {
            failed = sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", name);
            break;
        }
        ports[opening.count++] = &xdp->port;
        failed = open_device(xdp, error);
    }
    if (!failed)
        failed = count_queues(&opening, error);
    for (unsigned i = 0; i < count && i + count < opening.queues && !failed; i++)
        failed = open_wait(port_of(&opening, i), error);
    if (!failed)
        failed = open_best(&opening, mode, error);
    for (unsigned i = 0; i < opening.count && failed; i++)
        xdp_close(ports[i], false, NULL);
    return failed;
}
