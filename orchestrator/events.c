/* SPDX-License-Identifier: BSD-2-Clause */
#include "events.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/units.h"
#include "selector.h"

#define EVENTS_MAX_FILE (1u << 20)

struct parser {
    const char *file;
    unsigned line;
    struct sm_errbuf *error;
    bool failed;
};

static void expected(struct parser *p, const char *what, const char *got)
{
    if (!p->failed)
        snprintf(p->error->text, sizeof(p->error->text), "%s:%u: expected %s, got %s%.60s%s", p->file, p->line, what,
                 got ? "'" : "", got ? got : "the line's end", got ? "'" : "");
    p->failed = true;
}

bool replica_id(const char *name, uint32_t *id)
{
    uint64_t number;
    if (!name || name[0] != 'r' || name[1] < '1' || name[1] > '9' || strspn(name + 1, "0123456789") != strlen(name + 1))
        return false;
    if (!unit_count(name + 1, &number) || number > UINT32_MAX)
        return false;
    *id = (uint32_t)number;
    return true;
}

static char *word(char **rest)
{
    char *start = *rest + strspn(*rest, " \t\r");
    if (*start == '\0')
        return NULL;
    char *end = start + strcspn(start, " \t\r");
    *rest = *end ? end + 1 : end;
    *end = '\0';
    return start;
}

static void parse_when(struct parser *p, struct event *event, const char *text)
{
    if (text && strncmp(text, "packet=", 7) == 0 && unit_count(text + 7, &event->when) && event->when > 0)
        return;
    event->by_time = true;
    if (!text || strncmp(text, "time=", 5) != 0 || !unit_duration(text + 5, &event->when))
        expected(p, "packet=N or time=2.5s", text);
}

static void parse_replica(struct parser *p, const char *text, uint32_t *id)
{
    if (!replica_id(text, id))
        expected(p, "a replica such as r1", text);
}

static void parse_keyword(struct parser *p, const char *text, const char *keyword)
{
    if (!text || strcmp(text, keyword) != 0)
        expected(p, keyword, text);
}

/* A selector may stand in quotes, as it would on a command line. */
static const char *unquoted(char *text)
{
    text += strspn(text, " \t");
    char *end = text + strlen(text);
    while (end > text && strchr(" \t", end[-1]))
        *--end = '\0';
    if (end - text >= 2 && (*text == '\'' || *text == '"') && end[-1] == *text) {
        end[-1] = '\0';
        text++;
    }
    return text;
}

/* The selector is all that stands before --to, blanks included. */
static void parse_move(struct parser *p, struct event *event, char *rest)
{
    struct sm_errbuf error;
    char *to = NULL;
    for (char *at = rest; (at = strstr(at, " --to")); at++)
        to = at;
    if (!to) {
        expected(p, "SELECTOR --to R", *rest ? rest : NULL);
        return;
    }
    *to = '\0';
    char *behind = to + 5;
    parse_replica(p, word(&behind), &event->request.into);
    if (word(&behind))
        expected(p, "the line's end", "more");
    event->selector = unquoted(rest);
    if (!p->failed && selector_check(event->selector, &error) != 0) {
        snprintf(p->error->text, sizeof(p->error->text), "%s:%u: %.180s", p->file, p->line, error.text);
        p->failed = true;
    }
}

/* --copy may stand anywhere, as on a command line. */
static bool take_copy(char *rest)
{
    static const char option[] = "--copy";
    const size_t length = sizeof(option) - 1;
    for (char *at = rest; (at = strstr(at, option)); at += length) {
        bool whole = (at == rest || strchr(" \t", at[-1])) && strchr(" \t\r", at[length]);
        if (whole) {
            memset(at, ' ', length);
            return true;
        }
    }
    return false;
}

/* "--strategy NAME", which may stand anywhere too. */
static void take_strategy(struct parser *p, struct event *event, char *rest)
{
    static const char option[] = "--strategy";
    char *at = strstr(rest, option);
    if (!at || !strchr(" \t=", at[sizeof(option) - 1]))
        return;
    char *behind = at + sizeof(option) - 1, *name = behind + strspn(behind, " \t=");
    char text[32];
    size_t length = strcspn(name, " \t\r");
    snprintf(text, sizeof(text), "%.*s", (int)(length < sizeof(text) ? length : sizeof(text) - 1), name);
    event->request.strategy = service_strategy(text);
    if (event->request.strategy == SERVICE_STRATEGY_NONE)
        expected(p, "--strategy move, drain, new-flows-only or restart", text);
    memset(at, ' ', (size_t)(name - at) + length);
}

static void parse_trial(struct parser *p, struct event *event, const char *trial)
{
    uint64_t ns = 0;
    if (!trial || !unit_duration(trial, &ns) || ns > OPS_TRIAL_MOST_MS * 1000000ull)
        expected(p, "a time of at most 1 h such as 30s, or 0s, behind --trial", trial);
    event->request.trial_ms = (uint32_t)(ns / 1000000);
}

/* --args takes all that follows. */
static void parse_upgrade(struct parser *p, struct event *event, char *rest)
{
    char *argument;
    event->request.trial_ms = OPS_TRIAL_MS;
    while ((argument = word(&rest)) != NULL && !p->failed) {
        if (strcmp(argument, "--exec") == 0) {
            event->exec = word(&rest);
        } else if (strcmp(argument, "--no-rollback") == 0) {
            event->request.no_rollback = true;
        } else if (strcmp(argument, "--trial") == 0) {
            parse_trial(p, event, word(&rest));
        } else if (strcmp(argument, "--args") == 0) {
            size_t count = 0;
            event->args = calloc(strlen(rest) + 2, sizeof(*event->args));
            while (event->args && (argument = word(&rest)) != NULL)
                event->args[count++] = argument;
            break;
        } else {
            expected(p, "--exec, --trial, --no-rollback or --args", argument);
        }
    }
    if (!event->exec)
        expected(p, "--exec PROGRAM", NULL);
}

/* Behind the operations' verbs. */
enum { KILL = OPS_UPGRADE + 1, CHECKPOINT };

static void parse_verb(struct parser *p, struct event *event, char *verb, char *rest)
{
    static const char *const names[] = {"scale",     "split",   "merge", "move",       "drain",
                                        "rebalance", "upgrade", "kill",  "checkpoint", NULL};
    unsigned place = 0;
    char *argument;
    uint64_t count;
    while (verb && names[place] && strcmp(names[place], verb) != 0)
        place++;
    if (!verb || !names[place]) {
        expected(p, "scale, split, merge, move, drain, rebalance, upgrade, kill or checkpoint", verb);
        return;
    }
    if (place == CHECKPOINT) {
        event->file = word(&rest);
        if (!event->file || word(&rest))
            expected(p, "checkpoint FILE", event->file ? "more" : NULL);
        return;
    }
    event->request.verb = (enum ops_verb)place;
    event->kill = place == KILL;
    event->request.copy = !event->kill && take_copy(rest);
    if (place < OPS_UPGRADE)
        take_strategy(p, event, rest);
    if (p->failed)
        return;
    if (place == OPS_MOVE || place == OPS_UPGRADE) {
        (place == OPS_MOVE ? parse_move : parse_upgrade)(p, event, rest);
        return;
    }
    argument = place == OPS_REBALANCE ? NULL : word(&rest);
    if (place == OPS_SCALE) {
        if (!argument || !unit_count(argument, &count) || count < 1 || count > OPS_MAX_REPLICAS)
            expected(p, "a number of replicas, 1 to 64", argument);
        else
            event->request.count = (uint32_t)count;
    } else if (event->kill && argument && strcmp(argument, "switch") == 0) {
        event->victim = VICTIM_SWITCH;
    } else if (event->kill && argument && strcmp(argument, "orchestrator") == 0) {
        event->victim = VICTIM_ORCHESTRATOR;
    } else if (place != OPS_REBALANCE && !(event->kill && argument && strcmp(argument, "any") == 0)) {
        parse_replica(p, argument, &event->request.replica);
    }
    argument = word(&rest);
    if (place == OPS_MERGE || (place == OPS_SPLIT && argument)) {
        parse_keyword(p, argument, "--into");
        parse_replica(p, word(&rest), &event->request.into);
        argument = word(&rest);
    }
    if (argument)
        expected(p, "the line's end", argument);
}

static void parse_line(struct parser *p, struct event *event, char *line)
{
    char *rest = line;
    event->line = p->line;
    parse_when(p, event, word(&rest));
    rest += strspn(rest, " \t");
    for (size_t end = strlen(rest); end > 0 && strchr(" \t\r", rest[end - 1]); end--)
        rest[end - 1] = '\0';
    char *text = strdup(rest);
    event->text = text;
    if (!text) {
        expected(p, "memory", "none");
        return;
    }
    char *verb = word(&rest);
    parse_verb(p, event, verb, rest);
}

int events_parse(struct events *events, const char *file, const char *text, struct sm_errbuf *error)
{
    struct parser p = {.file = file, .error = error};
    size_t lines = 1;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    *events = (struct events){.text = strdup(text), .list = calloc(lines, sizeof(struct event))};
    if (!events->text || !events->list) {
        events_free(events);
        snprintf(error->text, sizeof(error->text), "%s: out of memory", file);
        return SM_E_NO_MEMORY;
    }
    char *next = events->text;
    while (next && !p.failed) {
        char *line = strsep(&next, "\n");
        p.line++;
        line[strcspn(line, "#")] = '\0';
        if (line[strspn(line, " \t\r")] != '\0')
            parse_line(&p, &events->list[events->count++], line);
    }
    if (!p.failed)
        return 0;
    events_free(events);
    conf_printable(error->text);
    return SM_E_SYNTAX;
}

int events_load(struct events *events, const char *file, struct sm_errbuf *error)
{
    char *text = calloc(1, EVENTS_MAX_FILE + 2);
    FILE *stream = text ? fopen(file, "re") : NULL;
    size_t length = stream ? fread(text, 1, EVENTS_MAX_FILE + 1, stream) : 0;
    int result;
    if (!stream || ferror(stream)) {
        snprintf(error->text, sizeof(error->text), "%s: %s", file, strerror(errno));
        result = SM_E_IO;
    } else if (length > EVENTS_MAX_FILE) {
        snprintf(error->text, sizeof(error->text), "%s: expected at most %u bytes", file, EVENTS_MAX_FILE);
        result = SM_E_SYNTAX;
    } else if (strlen(text) < length) { /* what is behind it would never be looked at */
        snprintf(error->text, sizeof(error->text), "%s: expected text, got a zero byte behind %zu others", file,
                 strlen(text));
        result = SM_E_SYNTAX;
    } else {
        result = events_parse(events, file, text, error);
    }
    if (stream)
        fclose(stream);
    free(text);
    return result;
}

void events_free(struct events *events)
{
    for (size_t i = 0; i < events->count; i++) {
        free((char *)(uintptr_t)events->list[i].text);
        free(events->list[i].args);
    }
    free(events->list);
    free(events->text);
    *events = (struct events){0};
}
