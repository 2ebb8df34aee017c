/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. A network interface by AF_XDP. The kernel receives into buffers of the switch's own pool, so a packet is
 * copied once on its way in (by the kernel; not at all where the driver can do without), and it sends from them. A
 * small XDP program gives every packet that comes in to the socket of its receive queue; what this host itself sends on
 * the interface it does not see.
 *
 * Life-cycle of a buffer. Taken from the lender -> fill ring -> kernel -> receive ring -> the caller's, with the frame.
 * The caller's, sent -> send ring -> kernel -> completion ring -> given to the lender. A packet that is longer than a
 * buffer comes in several, is put together in memory of the port's own, and they go back at once. A packet that is not
 * in a buffer, or is longer, is sent from copies in buffers that the port takes.
 *
 * System calls. One for each burst sent, by flush; none to receive, but where the driver asks to be woken.
 *
 * Sending. The kernel consumes the send ring only while we call it (in copy mode), and says so when it has dropped a
 * packet: the one that it took last. With the link down it takes none: what is in the ring then is counted as failed
 * and made invalid in its place, and the kernel passes over it when the link is up again.
 *
 * Limits. SM_PORT_POOL_STOCK packets wait to be received; what finds no buffer is counted (rx_missed). 17 buffers a
 * packet to send. One thread.
 */
#include "ports/offload.h"
#include "ports/xdp_port.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    BATCH = 64,
    PARTS = 17, /* of a packet: what the kernel takes */
    CALLS_BETWEEN_STATISTICS = 4096,
};

#define INVALID_ADDRESS (UINT64_MAX >> 16) /* behind the end of every pool */

static uint32_t buffer_at(const struct xdp_port *xdp, uint64_t address)
{
    return (uint32_t)(xsk_umem__add_offset_to_addr(address) / xdp->pool.stride);
}

static uint32_t take(const struct xdp_port *xdp)
{
    return xdp->port.lender->take(xdp->port.lender->arg);
}

static void give(const struct xdp_port *xdp, uint32_t buffer)
{
    xdp->port.lender->give(xdp->port.lender->arg, buffer);
}

/* Receiving. */

static void stock_up(struct xdp_port *xdp, struct xdp_queue *queue)
{
    uint32_t taken = 0, place = 0;
    for (; queue->stocked < xdp->stock && xsk_prod_nb_free(&queue->fill, 1) > 0; queue->stocked++, taken++) {
        uint32_t buffer = take(xdp);
        if (buffer >= xdp->pool.count)
            break;
        xsk_ring_prod__reserve(&queue->fill, 1, &place);
        *xsk_ring_prod__fill_addr(&queue->fill, place) = (uint64_t)buffer * xdp->pool.stride;
    }
    if (taken == 0)
        return;
    xsk_ring_prod__submit(&queue->fill, taken);
    if (xdp->zero_copy && xsk_ring_prod__needs_wakeup(&queue->fill))
        recvfrom(xsk_socket__fd(queue->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static void reclaim(struct xdp_port *xdp)
{
    struct xdp_queue *queue = &xdp->queues[0];
    uint32_t place = 0, count = xsk_ring_cons__peek(&queue->completed, XDP_RING, &place);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t address = *xsk_ring_cons__comp_addr(&queue->completed, place + i);
        if (address != INVALID_ADDRESS) /* some kernels say that they have passed over it */
            give(xdp, buffer_at(xdp, address));
    }
    if (count > 0)
        xsk_ring_cons__release(&queue->completed, count);
}

static void read_statistics(struct xdp_port *xdp)
{
    uint64_t missed = 0;
    for (unsigned i = 0; i < xdp->queue_count; i++) {
        struct xdp_statistics statistics = {0};
        socklen_t size = sizeof statistics;
        if (getsockopt(xsk_socket__fd(xdp->queues[i].socket), SOL_XDP, XDP_STATISTICS, &statistics, &size) != 0)
            return;
        missed += statistics.rx_dropped + statistics.rx_ring_full;
    }
    xdp->port.counters.rx_missed = missed;
}

/* The sockets stay when their interface goes; they only say that it has. */
static bool gone(struct xdp_port *xdp)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(xsk_socket__fd(xdp->queues[0].socket), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0)
        xdp->ended =
            sm_port_fail(&xdp->port.error, SM_E_IO, "%s: the interface is gone: %s", xdp->name, strerror(error));
    return error != 0;
}

/* Done with the last batch; take the next one of the same queue, or of another. False: nothing has come. */
static bool next_batch(struct xdp_port *xdp)
{
    for (unsigned i = 0; i <= xdp->queue_count; i++) {
        struct xdp_queue *queue = &xdp->queues[xdp->current];
        if (queue->batch > 0)
            xsk_ring_cons__release(&queue->received, queue->batch);
        if (queue->stocked + BATCH <= xdp->stock)
            stock_up(xdp, queue);
        queue->batch = queue->left = xsk_ring_cons__peek(&queue->received, BATCH, &queue->at);
        if (queue->left > 0)
            return true;
        xdp->current = xdp->current + 1 < xdp->queue_count ? xdp->current + 1 : 0;
    }
    return false;
}

static void stamp(struct xdp_port *xdp)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    xdp->seconds = now.tv_sec;
    xdp->fraction = now.tv_nsec;
}

/* The parts of a packet behind the first. The kernel has published all of them at once. */
static uint32_t assemble(struct xdp_port *xdp, struct xdp_queue *queue, const struct xdp_desc *part)
{
    uint32_t length = 0;
    for (;;) {
        uint64_t address = xsk_umem__add_offset_to_addr(part->addr);
        uint32_t room = XDP_LONGEST - length, bytes = part->len < room ? part->len : room;
        memcpy(xdp->assembled + length, xdp->pool.memory + address, bytes);
        length += bytes;
        bool more = part->options & XDP_PKT_CONTD;
        give(xdp, buffer_at(xdp, part->addr));
        queue->stocked--;
        if (!more || (queue->left == 0 && !next_batch(xdp)))
            return length;
        queue->left--;
        part = xsk_ring_cons__rx_desc(&queue->received, queue->at++);
    }
}

static int nothing(struct xdp_port *xdp)
{
    if (++xdp->idle % CALLS_BETWEEN_STATISTICS != XDP_IDLE_CALLS)
        return 0;
    read_statistics(xdp);
    return gone(xdp) ? xdp->ended : 0;
}

int xdp_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct xdp_port *xdp = (struct xdp_port *)port;
    struct xdp_queue *queue = &xdp->queues[xdp->current];

    if (xdp->ended)
        return xdp->ended;
    if (queue->left == 0) {
        reclaim(xdp);
        if (!next_batch(xdp))
            return nothing(xdp);
        stamp(xdp);
        queue = &xdp->queues[xdp->current];
        xdp->idle = 0;
    }
    queue->left--;
    const struct xdp_desc *part = xsk_ring_cons__rx_desc(&queue->received, queue->at++);
    uint8_t *data = xdp->pool.memory + xsk_umem__add_offset_to_addr(part->addr);
    uint32_t length = part->len;
    if (__builtin_expect(part->options & XDP_PKT_CONTD, 0)) {
        length = assemble(xdp, queue, part);
        data = xdp->assembled;
    } else {
        queue->stocked--;
    }
    sm_offload_finish(data, length);
    *frame = (struct sm_frame){
        .data = data, .caplen = length, .len = length, .seconds = xdp->seconds, .fraction = xdp->fraction};
    port->counters.rx_packets++;
    port->counters.rx_bytes += length;
    return 1;
}

/* Sending. */

static uint32_t consumed(const struct xdp_queue *queue)
{
    return __atomic_load_n(queue->send.consumer, __ATOMIC_ACQUIRE);
}

/* The packet of a descriptor, if that stands for one, did not leave. */
static void failed(struct xdp_port *xdp, uint32_t place)
{
    uint32_t *length = &xdp->lengths[place & (XDP_RING - 1)];
    if (*length == 0)
        return;
    xdp->port.counters.tx_failed++;
    xdp->port.counters.tx_packets--;
    xdp->port.counters.tx_bytes -= *length;
    *length = 0;
}

/* The link is down: nothing of what is in the ring will leave. */
static void forsake(struct xdp_port *xdp)
{
    struct xdp_queue *queue = &xdp->queues[0];
    for (uint32_t place = consumed(queue); place != queue->send.cached_prod; place++) {
        struct xdp_desc *part = xsk_ring_prod__tx_desc(&queue->send, place);
        if (part->addr == INVALID_ADDRESS)
            continue;
        failed(xdp, place);
        give(xdp, buffer_at(xdp, part->addr));
        *part = (struct xdp_desc){.addr = INVALID_ADDRESS, .len = 1};
    }
    xdp->down = true;
}

/* Have the kernel send what is in the ring. */
static void kick(struct xdp_port *xdp)
{
    struct xdp_queue *queue = &xdp->queues[0];
    const int fd = xsk_socket__fd(queue->socket);

    while (consumed(queue) != queue->send.cached_prod) {
        if (xdp->zero_copy && !xsk_ring_prod__needs_wakeup(&queue->send))
            break;
        uint32_t before = consumed(queue);
        int result = sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? errno : 0;
        uint32_t after = consumed(queue);
        if (result == EBUSY && !xdp->zero_copy && after != before)
            failed(xdp, after - 1); /* it was taken and dropped */
        else if (result == ENETDOWN || result == ENXIO)
            forsake(xdp);
        else
            xdp->down = xdp->down && after == before;
        if (after == before || xdp->zero_copy)
            break; /* there is no room now */
        reclaim(xdp);
    }
    xdp->port.pending = xdp->down ? 0 : queue->send.cached_prod - consumed(queue);
}

/* Room for the parts of a packet; the ring may be full of what waits for the kernel. */
static bool reserve(struct xdp_port *xdp, uint32_t parts, uint32_t *place)
{
    struct xdp_queue *queue = &xdp->queues[0];
    if (xsk_ring_prod__reserve(&queue->send, parts, place) == parts)
        return true;
    if (!xdp->down)
        kick(xdp);
    return xsk_ring_prod__reserve(&queue->send, parts, place) == parts;
}

/* The packet from a buffer that is the port's from here on. */
static bool send_buffer(struct xdp_port *xdp, const uint8_t *data, uint32_t length)
{
    struct xdp_queue *queue = &xdp->queues[0];
    uint32_t place;
    if (!reserve(xdp, 1, &place))
        return false;
    xdp->lengths[place & (XDP_RING - 1)] = length;
    *xsk_ring_prod__tx_desc(&queue->send, place) =
        (struct xdp_desc){.addr = (uint64_t)(data - xdp->pool.memory), .len = length};
    xsk_ring_prod__submit(&queue->send, 1);
    return true;
}

/* Copies of a packet's parts in buffers of the port's own. They stand for a packet of so many bytes; 0: for none. */
static bool send_copy(struct xdp_port *xdp, const uint8_t *data, uint32_t length, uint32_t stands_for)
{
    struct xdp_queue *queue = &xdp->queues[0];
    const uint32_t room = xdp->pool.stride - SM_PORT_POOL_OFFSET, parts = (length + room - 1) / room;
    uint32_t buffers[PARTS], taken = 0, place = 0;

    while (parts <= PARTS && taken < parts && (buffers[taken] = take(xdp)) < xdp->pool.count)
        taken++;
    if (taken < parts || !reserve(xdp, parts, &place)) {
        while (taken > 0)
            give(xdp, buffers[--taken]);
        return false;
    }
    for (uint32_t i = 0; i < parts; i++) {
        const uint32_t at = i * room, bytes = length - at < room ? length - at : room;
        const uint64_t address = (uint64_t)buffers[i] * xdp->pool.stride + SM_PORT_POOL_OFFSET;
        memcpy(xdp->pool.memory + address, data + at, bytes);
        *xsk_ring_prod__tx_desc(&queue->send, place + i) =
            (struct xdp_desc){.addr = address, .len = bytes, .options = i + 1 < parts ? XDP_PKT_CONTD : 0};
        xdp->lengths[(place + i) & (XDP_RING - 1)] = i + 1 == parts ? stands_for : 0;
    }
    xsk_ring_prod__submit(&queue->send, parts);
    return true;
}

/* A packet that was to be cut by a card. It has failed when its first segment has. */
static bool send_segments(struct xdp_port *xdp, const uint8_t *data, uint32_t length)
{
    struct sm_segments segments;
    bool sent = false;
    if (!sm_segments_begin(&segments, data, length, xdp->mtu))
        return false;
    for (uint32_t bytes; (bytes = sm_segments_next(&segments, xdp->segment)) != 0;) {
        if (!send_copy(xdp, xdp->segment, bytes, sent ? 0 : length))
            return sent;
        sent = true;
    }
    return sent;
}

static bool is_in_pool(const struct xdp_port *xdp, const uint8_t *data)
{
    return (size_t)(data - xdp->pool.memory) < (size_t)xdp->pool.count * xdp->pool.stride;
}

/* Longer than the link carries: the MTU is not asked for before that. */
static bool is_too_long(struct xdp_port *xdp, const uint8_t *data, uint32_t length)
{
    if (length <= xdp->mtu || length <= sm_offload_longest(data, length, xdp->mtu))
        return false;
    xdp_read_mtu(xdp);
    return length > sm_offload_longest(data, length, xdp->mtu);
}

int xdp_send(struct sm_port *port, const struct sm_frame *frame)
{
    struct xdp_port *xdp = (struct xdp_port *)port;
    const uint32_t length = frame->caplen;
    bool kept = false, sent = false;

    if (is_too_long(xdp, frame->data, length))
        sent = send_segments(xdp, frame->data, length);
    else if (is_in_pool(xdp, frame->data) && length <= xdp->pool.stride - SM_PORT_POOL_OFFSET)
        sent = kept = send_buffer(xdp, frame->data, length);
    else
        sent = send_copy(xdp, frame->data, length, length);
    port->pending++;
    if (!sent) {
        port->counters.tx_failed++;
        return 0;
    }
    port->counters.tx_packets++;
    port->counters.tx_bytes += length;
    return kept ? SM_PORT_KEEPS : 0;
}

int xdp_flush(struct sm_port *port)
{
    struct xdp_port *xdp = (struct xdp_port *)port;
    kick(xdp);
    reclaim(xdp);
    return 0;
}
