/* SPDX-License-Identifier: BSD-2-Clause */
#include "conf/units.h"

#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
    bool packets;
};

/*
 * Integer arithmetic all the way: 0.1 has no exact double, and a limit that is off by one byte is a limit that
 * cannot be tested. The fraction is kept as a numerator over a power of ten until the unit is known.
 */
static const struct unit *parse(const char *text, const struct unit *units, uint64_t *value)
{
    unsigned __int128 number = 0, scale = 1;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        number = number * 10 + (unsigned)(*p - '0');
        if (number > UINT64_MAX)
            return NULL;
    }
    if (p == text)
        return NULL;
    if (*p == '.') {
        const char *first = ++p;
        for (; *p >= '0' && *p <= '9'; p++) {
            if (p - first >= 9)
                return NULL;
            number = number * 10 + (unsigned)(*p - '0');
            scale *= 10;
        }
        if (p == first)
            return NULL;
    }
    const struct unit *unit = units;
    while (unit->name && strcmp(unit->name, p) != 0)
        unit++;
    if (!unit->name)
        return NULL;
    /* At most 2^64 * 10^9 * 10^9 < 2^128. */
    number *= unit->factor;
    if (number % scale != 0 || number / scale > UINT64_MAX)
        return NULL;
    *value = (uint64_t)(number / scale);
    return unit;
}

bool unit_count(const char *text, uint64_t *value)
{
    static const struct unit units[] = {{"", 1, 0}, {"k", 1000, 0}, {"M", 1000000, 0}, {"G", 1000000000, 0}, {0}};
    return parse(text, units, value) != NULL;
}

bool unit_size(const char *text, uint64_t *bytes)
{
    static const struct unit units[] = {
        {"B", 1, 0}, {"KiB", 1u << 10, 0}, {"MiB", 1u << 20, 0}, {"GiB", 1u << 30, 0}, {0}};
    return parse(text, units, bytes) != NULL;
}

bool unit_duration(const char *text, uint64_t *nanoseconds)
{
    static const struct unit units[] = {{"ns", 1, 0}, {"us", 1000, 0}, {"ms", 1000000, 0}, {"s", 1000000000, 0}, {0}};
    return parse(text, units, nanoseconds) != NULL;
}

bool unit_rate(const char *text, uint64_t *per_second, bool *packets)
{
    static const struct unit units[] = {
        {"bit", 1, false}, {"kbit", 1000, false}, {"Mbit", 1000000, false}, {"Gbit", 1000000000, false},
        {"pps", 1, true},  {"kpps", 1000, true},  {"Mpps", 1000000, true},  {0}};
    const struct unit *unit = parse(text, units, per_second);
    if (!unit)
        return false;
    *packets = unit->packets;
    return true;
}
