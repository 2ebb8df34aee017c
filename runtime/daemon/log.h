/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_DAEMON_LOG_H
#define SM_DAEMON_LOG_H

/*
 * The log of a daemon: one line an event, to standard error, as text or as JSON; docs in sm-switch(8).
 *
 *     2026-11-21T14:39:57.123456Z warning sm-orchestrator: replica r1 was killed ... event=replica_died replica="r1"
 *     {"time":"2026-11-21T14:39:57.123456Z","level":"warning","component":"sm-orchestrator","event":"replica_died",...}
 *
 * Text that goes to systemd's journal begins with the level as sd-daemon(3) has it, without time and component, which
 * the journal knows.
 *
 * Concurrency.  Set up before threads are; then any thread. Each line is one write(), so lines of several processes
 * with one standard error do not mix.
 *
 * Limits.  LOG_MESSAGE and LOG_VALUE bytes of a text as it is written, LOG_FIELDS fields: a line is shorter than 4096
 * bytes, which a pipe takes whole. A text that is longer is cut between two characters.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_MESSAGE 960u
#define LOG_VALUE 256u
#define LOG_FIELDS 8u

/* As syslog(3) and sd-daemon(3) number them. */
enum log_level { LEVEL_ERROR = 3, LEVEL_WARNING, LEVEL_NOTICE, LEVEL_INFO };

struct log_field {
    const char *name; /* of a-z and _, at most 20; NULL: there is no such field */
    const char *text; /* any bytes; NULL: `number` */
    double number;    /* finite; whole ones are written as such */
};

#define LOG_ENVIRONMENT "SPLITMERGE_LOG" /* what a middlebox is asked to log as */

/* `component`: the program's name. From now on lines are as LOG_ENVIRONMENT says, or text; of all levels. */
void log_begin(const char *component);

/* The service that all further lines are about. The text stays the caller's, and has to stay. */
void log_of_service(const char *service);

/* The values of --log-format (text, json) and --log-level (error, warning, notice, info: lines of that level and
 * above). False: there is no such value, which has been logged. */
bool log_set_format(const char *format);
bool log_set_level(const char *level);

/* `fields`: `count` of them, of which those without a name are left out. The message is for people, and says the same.
 */
void log_write(enum log_level level, const char *event, const struct log_field *fields, size_t count,
               const char *format, ...) __attribute__((format(printf, 5, 6)));

/* A field; none where the text is NULL. */
static inline struct log_field log_text(const char *name, const char *text)
{
    return (struct log_field){.name = text ? name : NULL, .text = text};
}

static inline struct log_field log_number(const char *name, double number)
{
    return (struct log_field){.name = name, .number = number};
}

#define LOG_WITH(...)                                                                                                  \
    (const struct log_field[]){__VA_ARGS__}, sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field)
#define LOG_PLAIN NULL, 0

/* That what we were about to do has failed, for a reason that says all. */
#define log_failure(reason) log_write(LEVEL_ERROR, "failed", LOG_PLAIN, "%s", (reason))

#endif
