/* SPDX-License-Identifier: BSD-2-Clause */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE 4096u /* PIPE_BUF */

static const char *const levels[] = {
    [LEVEL_ERROR] = "error", [LEVEL_WARNING] = "warning", [LEVEL_NOTICE] = "notice", [LEVEL_INFO] = "info"};

static struct {
    const char *component, *service;
    bool json;
    bool journal; /* standard error is systemd's journal */
    enum log_level most;
} settings = {.component = "", .most = LEVEL_INFO};

struct line {
    char text[LOG_LINE];
    size_t used;
};

_Static_assert(LOG_MESSAGE + LOG_FIELDS * (LOG_VALUE + 32) + 2 * LOG_VALUE + 256 < LOG_LINE,
               "a line has room for all its parts");

static void put(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct line *line, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(line->text + line->used, sizeof line->text - line->used, format, arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < sizeof line->text - line->used)
        line->used += (size_t)length;
}

/* Bytes of the character of UTF-8 that begins here; 0: none does (RFC 3629). */
static unsigned character(const unsigned char *at)
{
    static const struct {
        unsigned char first, last, low, high; /* of the first byte, and of the second */
        unsigned bytes;
    } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
                 {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
                 {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};

    if (at[0] < 0x80)
        return 1;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (at[0] < forms[i].first || at[0] > forms[i].last || at[1] < forms[i].low || at[1] > forms[i].high)
            continue;
        for (unsigned k = 2; k < forms[i].bytes; k++)
            if (at[k] < 0x80 || at[k] > 0xbf)
                return 0;
        return forms[i].bytes;
    }
    return 0;
}

/* A text on one line, at most `most` bytes of it; `quoted`: as JSON has strings. */
static void put_text(struct line *line, const char *text, size_t most, bool quoted)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t end = line->used + most;

    while (*at && line->used + 6 <= end) {
        unsigned bytes = character(at);
        if (bytes == 0)
            put(line, "\xef\xbf\xbd"); /* U+FFFD */
        else if (*at < ' ' || *at == 0x7f)
            put(line, "\\u%04x", *at);
        else if (quoted && (*at == '"' || *at == '\\'))
            put(line, "\\%c", *at);
        else
            put(line, "%.*s", (int)bytes, (const char *)at);
        at += bytes ? bytes : 1;
    }
}

static void put_time(struct line *line)
{
    struct timespec now;
    struct tm parts;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    put(line, "%s.%06ldZ", text, now.tv_nsec / 1000);
}

/* One more member of the object, or field of the line. */
static void put_field(struct line *line, const struct log_field *field, size_t most)
{
    put(line, settings.json ? ",\"%s\":" : " %s=", field->name);
    if (!field->text) {
        put(line, "%.15g", field->number);
        return;
    }
    put(line, "\"");
    put_text(line, field->text, most, true);
    put(line, "\"");
}

/* All that comes before the fields. */
static void put_head(struct line *line, enum log_level level, const char *event, const char *message)
{
    const struct log_field said = log_text("message", message), happened = log_text("event", event);

    if (settings.json) {
        put(line, "{\"time\":\"");
        put_time(line);
        put(line, "\",\"level\":\"%s\",\"component\":\"%s\"", levels[level], settings.component);
        put_field(line, &happened, LOG_VALUE);
        put_field(line, &said, LOG_MESSAGE);
        return;
    }
    if (settings.journal) {
        put(line, "<%d>", (int)level);
    } else {
        put_time(line);
        put(line, " %s %s: ", levels[level], settings.component);
    }
    put_text(line, message, LOG_MESSAGE, false);
    put(line, " event=%s", event);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t count,
               const char *format, ...)
{
    struct line line = {.used = 0};
    const struct log_field service = log_text("service", settings.service);
    char message[LOG_MESSAGE];
    va_list arguments;

    if (level > settings.most)
        return;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    put_head(&line, level, event, message);
    if (service.name)
        put_field(&line, &service, LOG_VALUE);
    for (size_t i = 0; i < count && i < LOG_FIELDS; i++)
        if (fields[i].name)
            put_field(&line, &fields[i], LOG_VALUE);
    put(&line, settings.json ? "}\n" : "\n");
    if (write(STDERR_FILENO, line.text, line.used) < 0)
        return; /* nobody reads it: there is nowhere to say so */
}

/* $JOURNAL_STREAM is the device and inode of what systemd has connected with the journal (systemd.exec(5)). */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
           status.st_dev == device && status.st_ino == inode;
}

void log_begin(const char *component)
{
    const char *asked = getenv(LOG_ENVIRONMENT);

    settings.component = component;
    settings.json = asked && strcmp(asked, "json") == 0;
    settings.journal = is_journal();
}

void log_of_service(const char *service)
{
    settings.service = service;
}

bool log_set_format(const char *format)
{
    settings.json = strcmp(format, "json") == 0;
    if (settings.json || strcmp(format, "text") == 0)
        return true;
    log_write(LEVEL_ERROR, "refused", LOG_PLAIN, "--log-format: expected text or json, got '%s'", format);
    return false;
}

bool log_set_level(const char *level)
{
    for (enum log_level at = LEVEL_ERROR; at <= LEVEL_INFO; at++)
        if (strcmp(level, levels[at]) == 0) {
            settings.most = at;
            return true;
        }
    log_write(LEVEL_ERROR, "refused", LOG_PLAIN, "--log-level: expected error, warning, notice or info, got '%s'",
              level);
    return false;
}
