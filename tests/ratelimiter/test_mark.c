/* SPDX-License-Identifier: BSD-2-Clause */
/* Marks: code points, and the amended checksum against one computed anew. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "mark.h"

static uint16_t header_checksum(const uint8_t *ip)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < (ip[0] & 15u) * 4; i += 2)
        sum += i == 10 ? 0 : (uint32_t)(ip[i] << 8 | ip[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void fill(uint8_t *ip, size_t length)
{
    for (size_t i = 0; i < length; i++)
        ip[i] = (uint8_t)(rand() >> 7);
}

Test(mark, the_amended_checksum_equals_a_new_one)
{
    srand(1);
    for (int i = 0; i < 200000; i++) {
        uint8_t ip[60], class = (uint8_t)(rand() >> 7);
        uint16_t checksum;

        fill(ip, sizeof(ip));
        ip[0] = (uint8_t)(0x40 | (5 + rand() % 11));
        checksum = header_checksum(ip);
        ip[10] = (uint8_t)(checksum >> 8);
        ip[11] = (uint8_t)checksum;
        mark_write(ip, 4, class);
        cr_assert_eq(ip[1], class);
        cr_assert_eq(mark_traffic_class(ip, 4), class);
        cr_assert_eq(ip[10] << 8 | ip[11], header_checksum(ip));
    }
}

Test(mark, a_wrong_checksum_stays_as_wrong)
{
    uint8_t ip[20] = {0x45, 0, 0, 20};
    uint16_t before;

    ip[10] = 0x12;
    ip[11] = 0x34;
    before = header_checksum(ip);
    mark_write(ip, 4, 0x20);
    /* The difference to the right one, in ones' complement, is what it was: the checksum went down by 0x20. */
    cr_assert_eq((uint16_t)(before - header_checksum(ip)), 0x20);
    cr_assert_eq(ip[10] << 8 | ip[11], 0x1234 - 0x20);
}

Test(mark, ipv6_changes_the_traffic_class_alone)
{
    srand(2);
    for (int i = 0; i < 100000; i++) {
        uint8_t ip[40], before[40], class = (uint8_t)(rand() >> 7);

        fill(ip, sizeof(ip));
        ip[0] = (uint8_t)(0x60 | (ip[0] & 15));
        memcpy(before, ip, sizeof(ip));
        mark_write(ip, 6, class);
        cr_assert_eq(mark_traffic_class(ip, 6), class);
        cr_assert_eq(ip[0] >> 4, 6);
        cr_assert_eq(ip[1] & 15, before[1] & 15, "the flow label stays");
        cr_assert_arr_eq(ip + 2, before + 2, sizeof(ip) - 2);
    }
}

Test(mark, dscp_leaves_ecn_and_ce_leaves_dscp)
{
    struct mark cs1 = {.dscp = 8}, ce = {.ce = true};

    cr_assert_eq(mark_apply(0xb8 | 2, &cs1), 0x20 | 2);
    cr_assert_eq(mark_apply(0xb8 | 2, &ce), 0xb8 | 3);
    cr_assert_not(mark_ecn_capable(0xb8));
    cr_assert(mark_ecn_capable(0xb8 | 1));
    cr_assert(mark_ecn_capable(2));
    cr_assert(mark_ecn_capable(3));
}

Test(mark, code_points_by_name_and_number)
{
    static const struct {
        const char *text;
        int value; /* -1: refused */
    } rows[] = {{"CS0", 0}, {"CS1", 8}, {"CS7", 56}, {"AF11", 10}, {"AF43", 38}, {"AF44", -1}, {"EF", 46},
                {"LE", 1},  {"VA", 44}, {"0", 0},    {"63", 63},   {"64", -1},   {"007", -1},  {"", -1},
                {"-1", -1}, {"1x", -1}, {"cs1", -1}, {"CS8", -1},  {"AF", -1}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint8_t value = 99;
        bool parsed = mark_parse_dscp(rows[i].text, &value);

        cr_assert_eq(parsed, rows[i].value >= 0, "%s", rows[i].text);
        cr_assert_eq(value, parsed ? rows[i].value : 99, "%s", rows[i].text);
    }
}
