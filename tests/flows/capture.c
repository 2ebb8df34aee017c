/* SPDX-License-Identifier: BSD-2-Clause */
/* A capture of numbered packets, raw IP, times in nanoseconds. */

#include "flows.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define HEADERS 28u
#define LENGTH (HEADERS + 4u)

void capture_plan(struct planned *plan, uint32_t flows, uint64_t seed)
{
    uint64_t now = 1000000000000000000ull;

    for (uint32_t i = 0; i < PACKETS; i++) {
        uint64_t random = sm_test_random(&seed) >> 8;
        /* Bursts of one instant, steps, and now and then a long silence. */
        now += random % 16 < 8 ? 0 : random % 997 == 0 ? 700000000 : random % 3000000;
        /* Some flows are met much more often than others. */
        uint32_t flow = (uint32_t)(random >> 24) % flows;
        plan[i] = (struct planned){.ns = now, .flow = random & 1 << 20 ? flow % (flows / 8 + 1) : flow};
    }
}

int capture_write(const char *file, const struct planned *plan)
{
    const struct {
        uint32_t magic;
        uint16_t major, minor;
        uint32_t zone, accuracy, snap, link;
    } header = {0xa1b23c4d, 2, 4, 0, 0, 65535, 101};
    FILE *out = fopen(file, "wb");

    if (!out)
        return -1;
    fwrite(&header, sizeof header, 1, out);
    for (uint32_t i = 0; i < PACKETS; i++) {
        const uint32_t record[4] = {(uint32_t)(plan[i].ns / 1000000000), (uint32_t)(plan[i].ns % 1000000000), LENGTH,
                                    LENGTH};
        uint8_t bytes[LENGTH] = {0x45, 0, 0, LENGTH, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2};
        uint16_t ports[4] = {htons((uint16_t)(1024 + plan[i].flow)), htons(53), htons(LENGTH - 20), 0};
        memcpy(bytes + 20, ports, sizeof ports);
        memcpy(bytes + HEADERS, &i, sizeof i);
        fwrite(record, sizeof record, 1, out);
        fwrite(bytes, sizeof bytes, 1, out);
    }
    return fclose(out);
}

uint32_t packet_number(const struct sm_packet *packet)
{
    uint32_t number;

    memcpy(&number, sm_packet_data(packet) + HEADERS, sizeof number);
    return number;
}
