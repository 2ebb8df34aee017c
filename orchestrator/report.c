/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <splitmerge/version.h>

#include "orchestrator.h"

#define REPORT_SCHEMA 1

static json_t *events(const struct orchestrator *o)
{
    json_t *list = json_array();
    for (size_t i = 0; i < o->events.count; i++) {
        const struct event *event = &o->events.list[i];
        json_t *item = json_object();
        json_object_set_new(item, "line", json_integer(event->line));
        json_object_set_new(item, "result", json_string(event->result ? event->result : "not reached"));
        json_object_set_new(item, "seconds", json_real(event->seconds));
        json_object_set_new(item, "event", json_string(event->text));
        json_object_set_new(item, "message", event->message[0] ? json_string(event->message) : json_null());
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *exit_of(const struct child *child)
{
    char how[48];
    if (child->status == CHILD_UNKNOWN)
        return json_string("unknown");
    return child->status < 0 ? json_string(child_how(child, how)) : json_integer(child->status);
}

/* Every replica that ever was, those that have gone too. */
static json_t *replicas(const struct orchestrator *o)
{
    json_t *list = json_array();
    for (const struct child *child = o->children; child; child = child->next) {
        char name[16];
        json_t *item = json_object();
        snprintf(name, sizeof(name), "r%u", child->id);
        json_object_set_new(item, "name", json_string(name));
        json_object_set_new(item, "packets", json_integer((json_int_t)child->packets));
        json_object_set_new(item, "shards", json_integer(child->shards));
        json_object_set_new(item, "exit", exit_of(child));
        json_object_set_new(item, "condemned", child->condemned[0] ? json_string(child->condemned) : json_null());
        json_array_append_new(list, item);
    }
    return list;
}

static bool conserved(const json_t *packets)
{
    json_int_t in = 0, generated = 0, out = 0, dropped = 0;
    const char *reason;
    json_t *count, *drops = json_object_get(packets, "dropped");
    in = json_integer_value(json_object_get(packets, "in"));
    generated = json_integer_value(json_object_get(packets, "generated"));
    out = json_integer_value(json_object_get(packets, "out"));
    json_object_foreach(drops, reason, count) dropped += json_integer_value(count);
    return in + generated == out + dropped;
}

/* Why the run was not a good one, in one line; false: it was. */
static bool complain(const struct orchestrator *o, char *text, size_t size)
{
    static const char *const names[] = {"one_owner", "loss_free", "ordered"};
    const json_t *invariants = json_object_get(o->status, "invariants");
    const char *error = json_string_value(json_object_get(o->status, "error"));
    if (!o->status) {
        snprintf(text, size, "the switch gave no account of the run");
        return true;
    }
    if (error) {
        snprintf(text, size, "%s", error);
        return true;
    }
    for (unsigned i = 0; i < 3; i++) {
        const char *held = json_string_value(json_object_get(invariants, names[i]));
        if (!held || strcmp(held, "held") != 0) {
            snprintf(text, size, "invariant %s: %s", names[i], held ? held : "unknown");
            return true;
        }
    }
    if (!conserved(json_object_get(o->status, "packets"))) {
        snprintf(text, size, "packets in and generated are not packets out and dropped");
        return true;
    }
    for (size_t i = 0; i < o->events.count; i++) {
        const struct event *event = &o->events.list[i];
        if (!event->result)
            snprintf(text, size, "the event of line %u (%s) was not reached", event->line, event->text);
        else if (strcmp(event->result, "done") != 0)
            snprintf(text, size, "the event of line %u (%s) was %s", event->line, event->text, event->result);
        else
            continue;
        return true;
    }
    return false;
}

static json_t *build(const struct orchestrator *o)
{
    static const char *const first[] = {"packets", "flows", "moves", "in_flight_max"};
    static const char *const second[] = {"invariants", "seconds"};
    static const char *const last[] = {"seed", "parse", "memory", "ports", "deaths", "bindings", "shared", "shape"};
    json_t *report = json_object();
    for (unsigned i = 0; i < 4; i++)
        json_object_set(report, first[i], json_object_get(o->status, first[i]));
    json_object_set_new(report, "events", events(o));
    json_object_set_new(report, "replicas", replicas(o));
    for (unsigned i = 0; i < 2; i++)
        json_object_set(report, second[i], json_object_get(o->status, second[i]));
    json_object_set_new(report, "version", json_string(SPLITMERGE_VERSION));
    for (unsigned i = 0; i < sizeof(last) / sizeof(*last); i++)
        json_object_set(report, last[i], json_object_get(o->status, last[i]));
    json_object_set_new(report, "service", json_string(o->service.name));
    json_object_set_new(report, "schema", json_integer(REPORT_SCHEMA));
    return report;
}

static void summary(const struct orchestrator *o)
{
    const json_t *packets = json_object_get(o->status, "packets"), *moves = json_object_get(o->status, "moves");
    json_int_t in = json_integer_value(json_object_get(packets, "in"));
    double seconds = json_number_value(json_object_get(o->status, "seconds"));
    printf("%s: %lld packets in, %lld out in %.2f s (%.0f packets/s), %lld moves\n", o->service.name, (long long)in,
           (long long)json_integer_value(json_object_get(packets, "out")), seconds,
           seconds > 0 ? (double)in / seconds : 0, (long long)json_integer_value(json_object_get(moves, "completed")));
}

int report_write(struct orchestrator *o)
{
    char text[300];
    bool bad = complain(o, text, sizeof(text));
    int status = bad || o->failed ? 1 : 0;
    if (bad && !o->failed)
        log_failure(text);
    if (o->report_file) {
        json_t *report = build(o);
        json_object_set_new(report, "error", o->failed ? json_string(o->error) : bad ? json_string(text) : json_null());
        if (json_dump_file(report, o->report_file, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0) {
            log_write(LEVEL_ERROR, "failed", LOG_WITH(log_text("file", o->report_file)), "%s: %s", o->report_file,
                      strerror(errno));
            status = 1;
        }
        json_decref(report);
    }
    log_write(LEVEL_INFO, "ended", LOG_WITH(log_number("exit", status)), "the service has ended%s",
              status ? ", and not well" : "");
    if (o->status && !o->failed && isatty(STDOUT_FILENO))
        summary(o);
    return status;
}
