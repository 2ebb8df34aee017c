/* SPDX-License-Identifier: BSD-2-Clause */
#include "openmetrics.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "splitmerge_"

enum kind { GAUGE, COUNTER, INFO, HISTOGRAM };

/* Where the text goes, and in which format. */
struct output {
    FILE *file;
    enum metrics_format format;
};

/* One number of the report. `name` is without the prefix and the type's suffix, and ends in the unit if it has one. */
struct row {
    const char *object, *key;
    enum kind kind;
    const char *name, *unit, *help;
};

static const struct row rows[] = {
    {"packets", "in", COUNTER, "packets_received", NULL, "Packets that entered."},
    {"packets", "generated", COUNTER, "packets_generated", NULL, "Packets that the middlebox made."},
    {"packets", "out", COUNTER, "packets_sent", NULL, "Packets that left."},
    {NULL, "in_flight", GAUGE, "packets_in_flight", NULL, "Packets that are in the service now."},
    {"flows", "live", GAUGE, "flows", NULL, "Flows that there are now."},
    {"flows", "created", COUNTER, "flows_created", NULL, "Flows that began."},
    {"flows", "moved", COUNTER, "flows_moved", NULL, "Flows that went to another replica."},
    {"flows", "expired", COUNTER, "flows_ended", NULL, "Flows that ended."},
    {"flows", "refused", COUNTER, "flows_refused", NULL, "Flows for which there was no room."},
    {"flows", "evicted", COUNTER, "flows_evicted", NULL, "Flows that gave way to others."},
    {"affinity", "live", GAUGE, "staying_flows", NULL, "Flows that stay in their replica until they end."},
    {"affinity", "left", GAUGE, "staying_flows_left", NULL, "Those in replicas that have no shards any more."},
    {"affinity", "refused", COUNTER, "staying_flows_refused", NULL, "Those that the switch had no room to know."},
    {"bindings", "live", GAUGE, "bindings", NULL, "Bound keys that there are now."},
    {"bindings", "refused", COUNTER, "bindings_refused", NULL, "Bound keys for which there was no room."},
    {"moves", "started", COUNTER, "moves_started", NULL, "Moves of a shard that began."},
    {"moves", "abandoned", COUNTER, "moves_abandoned", NULL, "Moves of a shard that were given up."},
    {"moves", "held_packets", COUNTER, "held_packets", NULL, "Packets that waited for a move."},
    {"memory", "used", GAUGE, "state_memory_bytes", "bytes", "Memory of flow state in use."},
    {"memory", "limit", GAUGE, "state_memory_limit_bytes", "bytes", "Memory that flow state may use."},
    {"shape", "live", GAUGE, "delayed_packets", NULL, "Packets that wait for their departure."},
    {"shape", "bytes", GAUGE, "delayed_bytes", "bytes", "Memory of the packets that wait for their departure."},
    {"deaths", "condemned", COUNTER, "replicas_condemned", NULL, "Replicas that the switch had killed."},
    {"deaths", "taken_over_packets", COUNTER, "packets_taken_over", NULL, "Packets of dead replicas that others got."},
    {NULL, "seconds", GAUGE, "running_seconds", "seconds", "How long the service has run."},
};

/* Samples are the same in both formats. What is said of a family is said under the name that its samples have in the
 * older one, which knows neither units nor infos. */
static void describe(const struct output *to, const char *name, enum kind kind, const char *unit, const char *help)
{
    static const struct {
        const char *type, *older, *suffix;
    } kinds[] = {[GAUGE] = {"gauge", "gauge", ""},
                 [COUNTER] = {"counter", "counter", "_total"},
                 [INFO] = {"info", "gauge", "_info"},
                 [HISTOGRAM] = {"histogram", "histogram", ""}};
    FILE *out = to->file;
    const bool older = to->format == METRICS_TEXT;
    const char *suffix = older ? kinds[kind].suffix : "";

    fprintf(out, "# TYPE " PREFIX "%s%s %s\n", name, suffix, older ? kinds[kind].older : kinds[kind].type);
    if (unit && !older)
        fprintf(out, "# UNIT " PREFIX "%s %s\n", name, unit);
    fprintf(out, "# HELP " PREFIX "%s%s %s\n", name, suffix, help);
}

static void put_value(FILE *out, const json_t *value)
{
    if (json_is_real(value))
        fprintf(out, " %.9g\n", json_real_value(value));
    else
        fprintf(out, " %" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
}

/* name="value" with what may not stand there as it is. */
static void put_label(FILE *out, const char *name, const char *value)
{
    fprintf(out, "%s=\"", name);
    for (; value && *value; value++) {
        if (*value == '\\' || *value == '"')
            fputc('\\', out);
        if (*value == '\n')
            fputs("\\n", out);
        else
            fputc(*value, out);
    }
    fputc('"', out);
}

static void put_labelled(FILE *out, const char *name, const char *label, const char *of, const json_t *value)
{
    fprintf(out, PREFIX "%s{", name);
    put_label(out, label, of);
    fputc('}', out);
    put_value(out, value);
}

static void put_rows(const struct output *to, const json_t *status)
{
    FILE *out = to->file;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        const json_t *value = json_object_get(row->object ? json_object_get(status, row->object) : status, row->key);
        if (!json_is_number(value))
            continue;
        describe(to, row->name, row->kind, row->unit, row->help);
        fprintf(out, PREFIX "%s%s", row->name, row->kind == COUNTER ? "_total" : "");
        put_value(out, value);
    }
}

static void put_info(const struct output *to, const json_t *status)
{
    FILE *out = to->file;
    static const char *const keys[] = {"service", "host", "version"};
    describe(to, "service", INFO, NULL, "What runs here.");
    fputs(PREFIX "service_info{", out);
    for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++) {
        fputs(i ? "," : "", out);
        put_label(out, keys[i], json_string_value(json_object_get(status, keys[i])));
    }
    fputs("} 1\n", out);
}

static void put_dropped(const struct output *to, const json_t *status)
{
    FILE *out = to->file;
    const char *reason;
    json_t *count, *dropped = json_object_get(json_object_get(status, "packets"), "dropped");
    describe(to, "packets_dropped", COUNTER, NULL, "Packets that were dropped, by reason.");
    json_object_foreach(dropped, reason, count) put_labelled(out, "packets_dropped_total", "reason", reason, count);
}

static void put_moves(const struct output *to, const json_t *status)
{
    FILE *out = to->file;
    const json_t *moves = json_object_get(status, "moves"), *pause = json_object_get(moves, "pause_us"), *bucket;
    size_t i;
    describe(to, "moves_completed", COUNTER, NULL, "Moves of a shard that were completed, by how.");
    put_labelled(out, "moves_completed_total", "how", "relabel", json_object_get(moves, "relabel"));
    put_labelled(out, "moves_completed_total", "how", "copy", json_object_get(moves, "copy"));
    describe(to, "move_pause_seconds", HISTOGRAM, "seconds", "How long a shard's packets waited for its move.");
    json_array_foreach(json_object_get(pause, "buckets"), i, bucket)
    {
        fprintf(out, PREFIX "move_pause_seconds_bucket{le=\"%.9g\"} %" JSON_INTEGER_FORMAT "\n",
                json_number_value(json_array_get(bucket, 0)) / 1e6, json_integer_value(json_array_get(bucket, 1)));
    }
    const json_int_t count = json_integer_value(json_object_get(pause, "count"));
    fprintf(out, PREFIX "move_pause_seconds_bucket{le=\"+Inf\"} %" JSON_INTEGER_FORMAT "\n", count);
    fprintf(out, PREFIX "move_pause_seconds_count %" JSON_INTEGER_FORMAT "\n", count);
    fprintf(out, PREFIX "move_pause_seconds_sum %.9g\n", json_number_value(json_object_get(pause, "sum")) / 1e6);
}

/* A number of each object of a list that `names` it. */
static void put_list(const struct output *to, const json_t *list, const char *label, const struct row *row)
{
    FILE *out = to->file;
    const json_t *object;
    size_t i;
    describe(to, row->name, row->kind, row->unit, row->help);
    json_array_foreach(list, i, object)
    {
        char name[64];
        const char *state = json_string_value(json_object_get(object, "state"));
        if (state && strcmp(state, "gone") == 0)
            continue;
        snprintf(name, sizeof name, "%s%s", row->name, row->kind == COUNTER ? "_total" : "");
        put_labelled(out, name, label, json_string_value(json_object_get(object, "name")),
                     json_object_get(object, row->key));
    }
}

static void put_replicas(const struct output *to, const json_t *status)
{
    static const struct row of_replicas[] = {
        {NULL, "packets", COUNTER, "replica_packets", NULL, "Packets that a replica has processed."},
        {NULL, "shards", GAUGE, "replica_shards", NULL, "Shards that a replica owns."},
        {NULL, "flows", GAUGE, "replica_flows", NULL, "Flows in a replica's shards, or that stay in it."},
        {NULL, "queue", GAUGE, "replica_queue_packets", NULL, "Packets that a replica has not answered."},
    };
    static const struct row of_ports[] = {
        {NULL, "rx_packets", COUNTER, "port_received_packets", NULL, "Packets that a port gave."},
        {NULL, "tx_packets", COUNTER, "port_sent_packets", NULL, "Packets that a port sent."},
        {NULL, "tx_failed", COUNTER, "port_refused_packets", NULL, "Packets that a port would not send."},
        {NULL, "rx_missed", COUNTER, "port_missed_packets", NULL, "Packets that came to a port and were not read."},
    };
    for (size_t i = 0; i < sizeof of_replicas / sizeof *of_replicas; i++)
        put_list(to, json_object_get(status, "replicas"), "replica", &of_replicas[i]);
    for (size_t i = 0; i < sizeof of_ports / sizeof *of_ports; i++)
        put_list(to, json_object_get(status, "ports"), "port", &of_ports[i]);
}

static void put_promises(const struct output *to, const json_t *status)
{
    FILE *out = to->file;
    const json_t *deaths = json_object_get(status, "deaths");
    const char *name;
    json_t *held;
    describe(to, "deaths", COUNTER, NULL, "Deaths that nobody had asked for, by who died.");
    put_labelled(out, "deaths_total", "part", "replica", json_object_get(deaths, "replicas"));
    put_labelled(out, "deaths_total", "part", "switch", json_object_get(deaths, "switch"));
    describe(to, "invariant_held", GAUGE, NULL, "1: the invariant has held so far; 0: it broke.");
    json_object_foreach(json_object_get(status, "invariants"), name, held)
    {
        const char *text = json_string_value(held);
        fputs(PREFIX "invariant_held{", out);
        put_label(out, "invariant", name);
        fprintf(out, "} %d\n", text && strncmp(text, "held", 4) == 0);
    }
}

char *openmetrics_text(const json_t *status, enum metrics_format format)
{
    char *text = NULL;
    size_t bytes;
    const struct output to = {.file = open_memstream(&text, &bytes), .format = format};
    if (!to.file)
        return NULL;
    put_info(&to, status);
    put_rows(&to, status);
    put_dropped(&to, status);
    put_moves(&to, status);
    put_replicas(&to, status);
    put_promises(&to, status);
    if (format == METRICS_OPEN)
        fputs("# EOF\n", to.file);
    if (fclose(to.file) == 0)
        return text;
    free(text);
    return NULL;
}
