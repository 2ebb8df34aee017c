/* SPDX-License-Identifier: BSD-2-Clause */
#include "ftp.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* A number of at most `max` in decimal digits; moves *at behind it. */
static bool read_number(const char **at, unsigned max, unsigned *value)
{
    const char *start = *at;

    *value = 0;
    while (isdigit((unsigned char)**at) && *at - start < 5)
        *value = *value * 10 + (unsigned)(*(*at)++ - '0');
    return *at > start && *value <= max;
}

static bool read_port(const char *at, struct end *end)
{
    unsigned part[6];

    for (unsigned i = 0; i < 6; i++)
        if (!read_number(&at, 255, &part[i]) || (i < 5 && *at++ != ','))
            return false;
    for (unsigned i = 0; i < 4; i++)
        end->address[i] = (uint8_t)part[i];
    end->port = (uint16_t)(part[4] << 8 | part[5]);
    return *at == '\0';
}

static bool read_eprt(const char *at, struct end *end)
{
    const char bar = *at++;
    unsigned part;

    if (bar < 33 || bar > 126 || isdigit((unsigned char)bar) || *at++ != '1' || *at++ != bar)
        return false;
    for (unsigned i = 0; i < 4; i++) {
        if (!read_number(&at, 255, &part) || *at++ != (i < 3 ? '.' : bar))
            return false;
        end->address[i] = (uint8_t)part;
    }
    if (!read_number(&at, UINT16_MAX, &part) || *at++ != bar)
        return false;
    end->port = (uint16_t)part;
    return *at == '\0';
}

bool ftp_read(const uint8_t *text, uint32_t length, struct ftp_command *command)
{
    char line[FTP_MAX_TEXT];
    uint32_t end = 0;

    while (end < length && end < sizeof line && text[end] != '\n')
        end++;
    if (end == length || end == sizeof line || end < 7)
        return false;
    command->length = end + 1;
    memcpy(line, text, end);
    line[text[end - 1] == '\r' ? end - 1 : end] = '\0';
    command->extended = strncasecmp(line, "EPRT ", 5) == 0;
    if (command->extended)
        return read_eprt(line + 5, &command->end);
    return strncasecmp(line, "PORT ", 5) == 0 && read_port(line + 5, &command->end);
}

uint32_t ftp_write(char text[FTP_MAX_TEXT], const struct ftp_command *command, const struct end *end)
{
    const uint8_t *a = end->address;
    int length;

    if (command->extended)
        length = snprintf(text, FTP_MAX_TEXT, "EPRT |1|%u.%u.%u.%u|%u|\r\n", a[0], a[1], a[2], a[3], end->port);
    else
        length = snprintf(text, FTP_MAX_TEXT, "PORT %u,%u,%u,%u,%u,%u\r\n", a[0], a[1], a[2], a[3], end->port >> 8,
                          end->port & 255);
    return (uint32_t)length;
}

static bool is_behind(uint32_t sequence, uint32_t at)
{
    return (int32_t)(sequence - at) > 0;
}

uint32_t ftp_shift_sequence(const struct ftp_shift *shift, uint32_t sequence)
{
    return sequence + (uint32_t)(is_behind(sequence, shift->at) ? shift->after : shift->before);
}

uint32_t ftp_shift_back(const struct ftp_shift *shift, uint32_t acknowledged)
{
    bool behind = is_behind(acknowledged - (uint32_t)shift->before, shift->at);

    return acknowledged - (uint32_t)(behind ? shift->after : shift->before);
}

void ftp_shift_add(struct ftp_shift *shift, uint32_t sequence, int32_t more)
{
    if (shift->before == shift->after || is_behind(sequence, shift->at)) {
        shift->before = shift->after;
        shift->after += more;
        shift->at = sequence;
    }
}
