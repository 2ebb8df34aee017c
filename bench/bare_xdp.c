/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forwarding by AF_XDP and nothing else: what comes in on in0 goes out on out0 from the same buffer, in bursts of 64,
 * by one thread. Two sockets over the same memory, native and copying, as our ports are; nothing is parsed or counted.
 */
#include "wire.h"

#include "ports/xdp.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xdp/xsk.h>

enum { BUFFERS = 4096, BYTES = 2048, RING = 2048, STOCK = 1024, BURST = 64, SEND_BUFFER = 16 << 20 };

struct end {
    struct xsk_umem *umem;
    struct xsk_socket *socket;
    struct xsk_ring_prod fill, send;
    struct xsk_ring_cons completed, received;
};

struct bare {
    uint8_t *memory;
    struct end in, out;
    struct sm_xdp_program program;
    uint64_t spare[BUFFERS];
    uint32_t spares;
};

static int open_end(struct bare *bare, struct end *end, const char *name)
{
    const struct xsk_umem_config memory = {.fill_size = RING, .comp_size = RING, .frame_size = BYTES};
    const struct xsk_socket_config config = {.rx_size = RING,
                                             .tx_size = RING,
                                             .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
                                             .bind_flags = XDP_USE_NEED_WAKEUP | XDP_COPY};
    const int bytes = SEND_BUFFER;
    int failed =
        xsk_umem__create(&end->umem, bare->memory, (uint64_t)BUFFERS * BYTES, &end->fill, &end->completed, &memory);

    for (unsigned tries = 0; !failed && tries < 50; tries++) {
        failed = xsk_socket__create(&end->socket, name, 0, end->umem, &end->received, &end->send, &config);
        if (failed != -EBUSY) /* whoever was there before is gone a little later */
            break;
        usleep(20000);
        failed = 0;
    }
    if (!end->socket)
        return failed ? failed : -EBUSY;
    return setsockopt(xsk_socket__fd(end->socket), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
}

static int open_bare(struct bare *bare)
{
    const int key = 0;
    const unsigned in0 = if_nametoindex("in0");

    bare->memory = bench_memory((size_t)BUFFERS * BYTES);
    for (bare->spares = 0; bare->spares < BUFFERS; bare->spares++)
        bare->spare[bare->spares] = (uint64_t)bare->spares * BYTES;
    int failed = bare->memory ? sm_xdp_program_load(&bare->program, in0, 1, false) : -ENOMEM;
    if (!failed)
        failed = open_end(bare, &bare->in, "in0");
    if (!failed)
        failed = open_end(bare, &bare->out, "out0");
    if (failed)
        return failed;
    const int fd = xsk_socket__fd(bare->in.socket);
    failed = bpf_map_update_elem(bare->program.map, &key, &fd, BPF_ANY);
    return failed ? failed : sm_xdp_program_attach(&bare->program, in0, true);
}

static void close_end(struct end *end)
{
    if (end->socket)
        xsk_socket__delete(end->socket);
    if (end->umem)
        xsk_umem__delete(end->umem);
}

static void close_bare(struct bare *bare)
{
    sm_xdp_program_unload(&bare->program);
    close_end(&bare->in);
    close_end(&bare->out);
    free(bare->memory);
}

static void take_completed(struct bare *bare)
{
    uint32_t place = 0, count = xsk_ring_cons__peek(&bare->out.completed, RING, &place);

    for (uint32_t i = 0; i < count; i++)
        bare->spare[bare->spares++] = *xsk_ring_cons__comp_addr(&bare->out.completed, place + i) / BYTES * BYTES;
    xsk_ring_cons__release(&bare->out.completed, count);
}

static void stock_up(struct bare *bare, uint32_t count)
{
    uint32_t place = 0;

    count = count < bare->spares ? count : bare->spares;
    if (count == 0 || xsk_ring_prod__reserve(&bare->in.fill, count, &place) != count)
        return;
    for (uint32_t i = 0; i < count; i++)
        *xsk_ring_prod__fill_addr(&bare->in.fill, place + i) = bare->spare[--bare->spares];
    xsk_ring_prod__submit(&bare->in.fill, count);
}

static void turn(struct bare *bare)
{
    uint32_t from = 0, to = 0, room = xsk_prod_nb_free(&bare->out.send, BURST);
    uint32_t count = xsk_ring_cons__peek(&bare->in.received, room < BURST ? room : BURST, &from);

    if (count > 0) {
        xsk_ring_prod__reserve(&bare->out.send, count, &to);
        for (uint32_t i = 0; i < count; i++) {
            const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&bare->in.received, from + i);
            *xsk_ring_prod__tx_desc(&bare->out.send, to + i) = (struct xdp_desc){.addr = desc->addr, .len = desc->len};
        }
        xsk_ring_prod__submit(&bare->out.send, count);
        xsk_ring_cons__release(&bare->in.received, count);
    }
    if (*bare->out.send.consumer != bare->out.send.cached_prod)
        sendto(xsk_socket__fd(bare->out.socket), NULL, 0, MSG_DONTWAIT, NULL, 0);
    take_completed(bare);
    stock_up(bare, count);
}

int bare_xdp_forward(double seconds, const struct wire *wire, double *rate, struct sm_errbuf *error)
{
    struct bare *bare = calloc(1, sizeof *bare);
    int failed = bare ? open_bare(bare) : -ENOMEM;

    if (!failed) {
        const uint64_t before = wire_sunk(wire), begin = bench_now();
        uint64_t now = begin, from = 0, measured = 0;
        stock_up(bare, STOCK);
        while (measured == 0 || !wire_is_measured(wire, from, measured, now, seconds)) {
            turn(bare);
            now = bench_now();
            if (measured == 0 && (double)(now - begin) > seconds * 1e8 &&
                (wire_sunk(wire) != before || now - begin > WIRE_PATIENCE_NS)) {
                measured = now;
                from = wire_sunk(wire);
            }
        }
        *rate = (double)(wire_sunk(wire) - from) * 1e9 / (double)(now - measured);
    } else {
        snprintf(error->text, sizeof error->text, "bare AF_XDP forwarding: %s", strerror(-failed));
    }
    if (bare)
        close_bare(bare);
    free(bare);
    return failed ? SM_E_STATE : 0;
}
