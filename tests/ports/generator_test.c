/* SPDX-License-Identifier: BSD-2-Clause */
#include "packet/packet.h"
#include "ports/port.h"

#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

static uint32_t sum16(const uint8_t *bytes, size_t size)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < size; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    while (sum > 0xffff)
        sum = (sum >> 16) + (sum & 0xffff);
    return sum;
}

Test(generator, round_robin_of_valid_packets)
{
    enum { FLOWS = 100000, ROUNDS = 2 };
    struct sm_port *port;
    struct sm_parser *parser;
    struct sm_frame frame;
    struct sm_parsed parsed;
    struct sm_key first = {.family = 0}, before = {.family = 0};
    sm_time last = {0};

    cr_assert_eq(sm_port_open_generator(&port, FLOWS, 64, (uint64_t)FLOWS * ROUNDS, 0), 0);
    cr_assert_eq(sm_parser_create(&parser, 1), 0);
    for (unsigned i = 0; i < FLOWS * ROUNDS; i++) {
        cr_assert_eq(port->ops->receive(port, &frame), 1);
        sm_time now = sm_frame_time(port, &frame);
        cr_assert(now.ns > last.ns);
        last = now;
        cr_assert_eq(sum16(frame.data + 14, 20), 0xffff, "packet %u: checksum", i);
        sm_parse(parser, port->linktype, frame.data, frame.caplen, frame.len, now, &parsed);
        cr_assert_eq(parsed.headers.flags & (SM_HDR_MALFORMED | SM_HDR_TRUNCATED), 0);
        if (i == 0)
            first = parsed.key;
        cr_assert_eq(memcmp(&parsed.key, &first, sizeof first) == 0, i % FLOWS == 0, "packet %u", i);
        cr_assert_neq(memcmp(&parsed.key, &before, sizeof before), 0);
        before = parsed.key;
    }
    cr_expect_eq(sm_parser_counters(parser)->udp, FLOWS * ROUNDS);
    cr_expect_eq(port->ops->receive(port, &frame), SM_E_END);
    cr_expect_eq(port->ops->receive(port, &frame), SM_E_END);
    cr_expect_eq(port->counters.rx_packets, FLOWS * ROUNDS);
    cr_expect_eq(port->counters.rx_bytes, 64ul * FLOWS * ROUNDS);
    sm_parser_destroy(parser);
    port->ops->close(port, true, NULL);
}

Test(generator, keeps_its_rate)
{
    struct sm_port *port;
    struct sm_frame frame;
    struct timespec start, now;
    unsigned made = 0, idle = 0;
    double seconds = 0;

    cr_assert_eq(sm_port_open_generator(&port, 3, 1500, 3000, 30000), 0);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int result; (result = port->ops->receive(port, &frame)) >= 0;) {
        made += result == 1;
        idle += result == 0;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    seconds = (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) * 1e-9;
    cr_expect_eq(made, 3000);
    cr_expect_gt(idle, 0);
    cr_expect_geq(seconds, 0.09, "3000 packets at 30000 a second took %f s", seconds);
    port->ops->close(port, true, NULL);
}

Test(generator, arguments)
{
    struct sm_port *port;
    cr_expect_eq(sm_port_open_generator(&port, 0, 64, 0, 0), SM_E_INVALID);
    cr_expect_eq(sm_port_open_generator(&port, 1, 63, 0, 0), SM_E_INVALID);
    cr_expect_eq(sm_port_open_generator(&port, 1, 1501, 0, 0), SM_E_INVALID);
    cr_expect_null(port);
}

Test(generator, null_swallows)
{
    struct sm_port *port, model = {.linktype = 1, .snaplen = 99, .nanoseconds = true};
    struct sm_frame frame = {.data = (const uint8_t *)"abc", .caplen = 3, .len = 7};
    cr_assert_eq(sm_port_open_null(&port, &model), 0);
    cr_expect_eq(port->ops->send(port, &frame), 0);
    cr_expect_eq(port->ops->flush(port), 0);
    cr_expect_eq(port->ops->fd(port), -1);
    cr_expect_eq(port->counters.tx_packets, 1);
    cr_expect_eq(port->counters.tx_bytes, 3);
    cr_expect_null(port->ops->receive);
    cr_expect_eq(port->ops->close(port, true, NULL), 0);
}
