/* SPDX-License-Identifier: BSD-2-Clause */
/* Two ends of a veth pair, in a network namespace of this test's own. Needs root. */
#include "ports/port.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PACKETS = 500, SIZE = 100, MARK = 50 };

static bool in_own_namespace(void)
{
    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return false;
    }
    /* Criterion runs each test in a process of its own, so nobody else is moved. */
    if (unshare(CLONE_NEWNET) != 0 ||
        system("ip link add name va type veth peer name vb && ip link set va up && ip link set vb up") != 0) {
        fprintf(stderr, "skipped: no network namespace or no veth here\n");
        return false;
    }
    return true;
}

static struct sm_port *open_port(const char *name, bool send)
{
    struct sm_port *port;
    struct sm_errbuf error;
    cr_assert_eq(sm_port_open_interface(&port, name, send, &error), 0, "%s", error.text);
    cr_expect_eq(port->linktype, 1);
    cr_expect(port->is_interface);
    cr_expect_eq(port->ops->send != NULL, send);
    return port;
}

/* Receive the next packet of ours; the kernel sends some of its own (IPv6 discovery). -1: none in time. */
static int receive_ours(struct sm_port *port, struct sm_frame *frame)
{
    for (unsigned tries = 0; tries < 200;) {
        int result = port->ops->receive(port, frame);
        if (result == 1 && frame->caplen == SIZE && frame->data[12] == 0x88 && frame->data[13] == 0xb5)
            return frame->data[MARK] << 8 | frame->data[MARK + 1];
        cr_assert_geq(result, 0, "%s", port->error.text);
        if (result == 0) {
            poll(&(struct pollfd){.fd = port->ops->fd(port), .events = POLLIN}, 1, 10);
            tries++;
        }
    }
    return -1;
}

Test(interfaces, a_pair)
{
    if (!in_own_namespace())
        return;
    struct sm_port *a = open_port("va", true), *b = open_port("vb", false);
    uint8_t packet[SIZE] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}; /* for local experiments */
    struct sm_frame frame = {.data = packet, .caplen = SIZE, .len = SIZE}, received;
    sm_time last = {0};

    cr_assert_geq(b->ops->fd(b), 0);
    for (int i = 0; i < PACKETS; i++) {
        packet[MARK] = (uint8_t)(i >> 8);
        packet[MARK + 1] = (uint8_t)i;
        cr_assert_eq(a->ops->send(a, &frame), 0);
    }
    for (int i = 0; i < PACKETS; i++) {
        cr_assert_eq(receive_ours(b, &received), i);
        sm_time now = sm_frame_time(b, &received);
        cr_assert(now.ns >= last.ns && now.ns > 1500000000000000000u, "a time of today");
        last = now;
    }
    cr_expect_eq(receive_ours(a, &received), -1, "what a port sent it does not receive");
    cr_expect_eq(a->counters.tx_packets, PACKETS);
    cr_expect_eq(a->counters.tx_bytes, PACKETS * SIZE);
    cr_expect_eq(a->counters.tx_failed, 0);
    cr_expect_geq(b->counters.rx_packets, PACKETS);
    cr_expect_eq(b->counters.rx_missed, 0);

    /* an interface that refuses: counted, not an error */
    cr_assert_eq(system("ip link set va down"), 0);
    cr_expect_eq(a->ops->send(a, &frame), 0);
    cr_expect_eq(a->counters.tx_failed, 1);
    cr_expect_eq(a->ops->close(a, true, NULL), 0);
    cr_expect_eq(b->ops->close(b, true, NULL), 0);
}

Test(interfaces, refusals)
{
    struct sm_port *port;
    struct sm_errbuf error = {""};
    int result = sm_port_open_interface(&port, "no-such-if0", true, &error);
    cr_expect(result == SM_E_NOT_FOUND || (geteuid() != 0 && result == SM_E_PERMISSION), "%d: %s", result, error.text);
    cr_expect_null(port);
    cr_expect_not_null(strstr(error.text, "no-such-if0"));
    if (!in_own_namespace())
        return;
    /* a tunnel device has no Ethernet header: it can be watched, not sent on */
    if (system("ip tuntap add dev tun7 mode tun && ip link set tun7 up") == 0) {
        cr_expect_eq(sm_port_open_interface(&port, "tun7", true, &error), SM_E_INVALID);
        cr_expect_not_null(strstr(error.text, "not Ethernet"), "%s", error.text);
    } else {
        fprintf(stderr, "skipped: no tun device here\n");
    }
    cr_assert_eq(setresuid(65534, 65534, 65534), 0);
    cr_expect_eq(sm_port_open_interface(&port, "va", true, &error), SM_E_PERMISSION, "%s", error.text);
}
