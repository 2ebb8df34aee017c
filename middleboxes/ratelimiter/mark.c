/* SPDX-License-Identifier: BSD-2-Clause */
#include "mark.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"

/* RFC 2474, 2597, 3246, 5865, 8622. */
static const struct {
    char name[8];
    uint8_t value;
} code_points[] = {
    {"CS0", 0},   {"CS1", 8},   {"CS2", 16},  {"CS3", 24},  {"CS4", 32},  {"CS5", 40},  {"CS6", 48},  {"CS7", 56},
    {"AF11", 10}, {"AF12", 12}, {"AF13", 14}, {"AF21", 18}, {"AF22", 20}, {"AF23", 22}, {"AF31", 26}, {"AF32", 28},
    {"AF33", 30}, {"AF41", 34}, {"AF42", 36}, {"AF43", 38}, {"EF", 46},   {"VA", 44},   {"LE", 1},
};

bool mark_parse_dscp(const char *text, uint8_t *dscp)
{
    size_t digits = strspn(text, "0123456789");

    for (size_t i = 0; i < sizeof(code_points) / sizeof(*code_points); i++) {
        if (strcmp(text, code_points[i].name) == 0) {
            *dscp = code_points[i].value;
            return true;
        }
    }
    if (digits < 1 || digits > 2 || text[digits] != '\0' || atoi(text) > 63)
        return false;
    *dscp = (uint8_t)atoi(text);
    return true;
}

uint32_t mark_length(unsigned family)
{
    return family == 4 ? MARK_BYTES : 2;
}

uint8_t mark_traffic_class(const uint8_t *ip, unsigned family)
{
    return family == 4 ? ip[1] : (uint8_t)(ip[0] << 4 | ip[1] >> 4);
}

uint8_t mark_apply(uint8_t traffic_class, const struct mark *mark)
{
    return mark->ce ? traffic_class | 3 : (uint8_t)(mark->dscp << 2 | (traffic_class & 3));
}

void mark_write(uint8_t *ip, unsigned family, uint8_t traffic_class)
{
    if (family == 4) {
        uint16_t before = load16(ip);

        ip[1] = traffic_class;
        store16(ip + 10, checksum_amend(load16(ip + 10), before, load16(ip)));
    } else {
        ip[0] = (uint8_t)((ip[0] & 0xf0) | traffic_class >> 4);
        ip[1] = (uint8_t)(traffic_class << 4 | (ip[1] & 0x0f));
    }
}
