/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/report.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/builds.h"
#include "switch/bind.h"

static json_t *integer(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *dropped(const struct sm_switch *sw)
{
    static const char *const own[] = {
#define DROP_NAME(id, name) [DROP_##id] = (name),
        SWITCH_DROPS(DROP_NAME)
#undef DROP_NAME
    };
    json_t *reasons = json_object();

    for (unsigned i = 0; i < SWITCH_DROP_COUNT; i++)
        if (sw->dropped[i])
            json_object_set_new(reasons, own[i], integer(sw->dropped[i]));
    for (unsigned i = 0; i < sw->reason_count; i++)
        if (sw->dropped[SWITCH_DROP_COUNT + i])
            json_object_set_new(reasons, sw->arena->registration.reasons[i],
                                integer(sw->dropped[SWITCH_DROP_COUNT + i]));
    return reasons;
}

/* The middlebox's drop reasons, in the order of their numbers. */
static json_t *reasons(const struct sm_switch *sw)
{
    const struct registration *registered = &sw->arena->registration;
    json_t *list = json_array();

    for (uint32_t i = 0; sw->arena->registered && i < registered->reason_count && i < SM_MAX_REASONS; i++)
        json_array_append_new(list, json_string(registered->reasons[i]));
    return list;
}

static json_t *packets(const struct sm_switch *sw)
{
    json_t *object = json_object();

    json_object_set_new(object, "in", integer(sw->entered));
    json_object_set_new(object, "generated", integer(sw->generated));
    json_object_set_new(object, "out", integer(sw->out));
    json_object_set_new(object, "dropped", dropped(sw));
    return object;
}

static json_t *flows(const struct sm_switch *sw)
{
    json_t *object = json_object();
    struct state_usage usage;
    uint64_t unconverted = 0;

    state_usage(sw->arena->state, &usage);
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        unconverted += atomic_load_explicit(&sw->arena->unconverted[i], memory_order_relaxed);
    json_object_set_new(object, "created", integer(usage.flows_created));
    json_object_set_new(object, "moved", integer(sw->flows_moved));
    json_object_set_new(object, "expired", integer(usage.flows_closed));
    json_object_set_new(object, "live", integer(usage.flows_live));
    json_object_set_new(object, "refused", integer(usage.flows_refused));
    json_object_set_new(object, "evicted", integer(usage.flows_evicted));
    json_object_set_new(object, "allocations_refused", integer(usage.allocations_refused));
    json_object_set_new(object, "unconverted", integer(unconverted));
    return object;
}

/* Of the buckets of pauses: so many lasted at most so long. */
static const uint64_t pause_bounds_us[] = {10,   20,   50,    100,   200,   500,    1000,
                                           2000, 5000, 10000, 20000, 50000, 100000, 1000000};

static json_t *moves(const struct sm_switch *sw)
{
    json_t *object = json_object();
    json_t *pause = json_object(), *buckets = json_array();

    json_object_set_new(pause, "p50", json_real((double)histogram_quantile(&sw->pauses, 0.50) / 1e3));
    json_object_set_new(pause, "p99", json_real((double)histogram_quantile(&sw->pauses, 0.99) / 1e3));
    json_object_set_new(pause, "max", json_real((double)sw->pauses.max / 1e3));
    for (unsigned i = 0; i < sizeof pause_bounds_us / sizeof *pause_bounds_us; i++)
        json_array_append_new(buckets, json_pack("[I, I]", (json_int_t)pause_bounds_us[i],
                                                 (json_int_t)histogram_within(&sw->pauses, pause_bounds_us[i] * 1000)));
    json_object_set_new(pause, "buckets", buckets);
    json_object_set_new(pause, "count", integer(sw->pauses.count));
    json_object_set_new(pause, "sum", json_real((double)sw->pauses.sum / 1e3));
    json_object_set_new(object, "started", integer(sw->moves_started));
    json_object_set_new(object, "completed", integer(sw->moves_completed));
    json_object_set_new(object, "abandoned", integer(sw->moves_abandoned));
    json_object_set_new(object, "relabel", integer(sw->moves_completed - sw->moves_copied));
    json_object_set_new(object, "copy", integer(sw->moves_copied));
    json_object_set_new(object, "pause_us", pause);
    json_object_set_new(object, "held_packets", integer(sw->held_packets));
    return object;
}

static uint32_t slot_flows(const struct sm_switch *sw, unsigned slot)
{
    uint32_t sum = 0;

    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        if (sw->shards[shard].owner == slot)
            sum += state_shard_flows(sw->arena->state, shard);
    return sum;
}

static json_t *replicas(const struct sm_switch *sw)
{
    static const char *const states[] = {"free", "attached", "ready", "retiring", "gone"};
    json_t *list = json_array();

    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        const struct switch_slot *slot = &sw->slots[i];
        if (slot->state == SLOT_FREE)
            continue;
        json_t *object = json_object();
        json_object_set_new(object, "id", integer(slot->id));
        json_object_set_new(object, "name", json_string(slot->name));
        json_object_set_new(object, "pid", integer((uint64_t)slot->pid));
        json_object_set_new(object, "state", json_string(states[slot->state]));
        json_object_set_new(object, "build", integer(builds_number(sw->arena, i)));
        json_object_set_new(object, "packets", integer(slot->packets));
        json_object_set_new(object, "shards", integer(slot->shards));
        json_object_set_new(object, "flows", integer(sw->affinity ? sw->affinity->known[i] : slot_flows(sw, i)));
        json_object_set_new(object, "queue", integer(slot->in_flight));
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *parse_counters(const struct sm_switch *sw)
{
    const struct sm_parse_counters *counters = sm_parser_counters(sw->parser);
    json_t *object = json_object();

#define PARSE_COUNTER(name) json_object_set_new(object, #name, integer(counters->name));
    SM_PARSE_COUNTERS(PARSE_COUNTER)
#undef PARSE_COUNTER
    return object;
}

/* Replicas notice a second owner themselves (replica.c); their counts outlive them until the slot is used again. */
static json_t *one_owner(const struct sm_switch *sw)
{
    uint64_t violations = sw->owner_violations;
    char text[128];

    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].state != SLOT_FREE)
            violations += atomic_load_explicit(&sw->slots[i].channel->counters.owner_violations, memory_order_relaxed);
    snprintf(text, sizeof text, "broken: %llu times two replicas had one shard", (unsigned long long)violations);
    return json_string(violations ? text : "held");
}

static json_t *invariants(const struct sm_switch *sw)
{
    json_t *object = json_object();
    struct sm_errbuf text;
    const char *loss_free = "held so far";

    if (sw->in_flight == 0 && sw->shaper.count == 0)
        loss_free = audit_loss_free(&sw->audit, &text);
    json_object_set_new(object, "one_owner", one_owner(sw));
    json_object_set_new(object, "loss_free", json_string(loss_free));
    json_object_set_new(object, "ordered", json_string(audit_ordered(&sw->audit, &text)));
    return object;
}

static json_t *ports(const struct sm_switch *sw)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < 2; i++) {
        const struct sm_port_counters *counters =
            sw->ports[i] ? &sw->ports[i]->counters : &sw->port_reports[i].counters;
        if (!sw->port_reports[i].driver[0])
            continue;
        const char *why = sw->port_reports[i].why.text;
        json_t *object = json_object();
        json_object_set_new(object, "name", json_string(sw->port_reports[i].name));
        json_object_set_new(object, "driver", json_string(sw->port_reports[i].driver));
        json_object_set_new(object, "why", why[0] ? json_string(why) : json_null());
        json_object_set_new(object, "rx_packets", integer(counters->rx_packets));
        json_object_set_new(object, "tx_packets", integer(counters->tx_packets));
        json_object_set_new(object, "tx_failed", integer(counters->tx_failed));
        json_object_set_new(object, "rx_missed", integer(counters->rx_missed));
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *deaths(const struct sm_switch *sw)
{
    json_t *object = json_object();

    json_object_set_new(object, "replicas", integer(sw->deaths));
    json_object_set_new(object, "switch", integer(sw->switch_deaths));
    json_object_set_new(object, "condemned", integer(sw->condemned));
    json_object_set_new(object, "taken_over_packets", integer(sw->taken_over));
    json_object_set_new(object, "given_back", integer(atomic_load(&sw->arena->notes.tail)));
    json_object_set_new(object, "not_given_back", integer(sw->arena->notes.refused));
    json_object_set_new(object, "poison_error",
                        sw->poison_error.text[0] ? json_string(sw->poison_error.text) : json_null());
    return object;
}

static json_t *memory(const struct sm_switch *sw)
{
    json_t *object = json_object();
    struct state_usage usage;

    state_usage(sw->arena->state, &usage);
    json_object_set_new(object, "used", integer(usage.memory_used));
    json_object_set_new(object, "limit", integer(usage.memory_limit));
    return object;
}

static json_t *shape(const struct sm_switch *sw)
{
    const struct shaper *shaper = &sw->shaper;
    json_t *object = json_object();

    json_object_set_new(object, "packets", integer(shaper->entered));
    json_object_set_new(object, "live", integer(shaper->count));
    json_object_set_new(object, "bytes", integer((uint64_t)shaper->used * SHAPE_CELL_BYTES));
    json_object_set_new(object, "bytes_max", integer((uint64_t)shaper->used_max * SHAPE_CELL_BYTES));
    json_object_set_new(object, "limit", integer((uint64_t)shaper->cell_count * SHAPE_CELL_BYTES));
    return object;
}

static json_t *bindings(const struct sm_switch *sw)
{
    json_t *object = json_object();
    struct state_usage usage;

    state_usage(sw->arena->state, &usage);
    json_object_set_new(object, "live", integer(usage.bindings_live));
    json_object_set_new(object, "limit", integer(sw->bindings_max));
    json_object_set_new(object, "refused", integer(usage.bindings_refused));
    json_object_set_new(object, "steered", integer(sw->bindings ? sw->bindings->steered : 0));
    return object;
}

/* Flows that stay where they are, for programs that keep them themselves. */
static json_t *affinity(const struct sm_switch *sw)
{
    json_t *object;
    uint64_t live = 0;

    if (!sw->affinity)
        return json_null();
    object = json_object();
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        live += sw->affinity->known[i];
    json_object_set_new(object, "live", integer(live));
    json_object_set_new(object, "limit", integer(sw->affinity->limit));
    json_object_set_new(object, "entered", integer(sw->affinity->entered));
    json_object_set_new(object, "refused", integer(sw->affinity->refused));
    json_object_set_new(object, "left", integer(switch_flows_left(sw)));
    return object;
}

json_t *switch_report(struct sm_switch *sw)
{
    static const char *const states[] = {"waiting", "running", "gated", "ended", "finished"};
    json_t *report = json_object();
    json_t *in_flight_max = json_object();
    uint64_t end = sw->finished_wall ? sw->finished_wall : sw->now;

    json_object_set_new(report, "packets", packets(sw));
    json_object_set_new(report, "flows", flows(sw));
    json_object_set_new(report, "moves", moves(sw));
    json_object_set_new(in_flight_max, "packets", integer(sw->in_flight_max));
    json_object_set_new(in_flight_max, "replicas", integer(sw->replicas_in_flight_max));
    json_object_set_new(report, "in_flight_max", in_flight_max);
    json_object_set_new(report, "replicas", replicas(sw));
    json_object_set_new(report, "invariants", invariants(sw));
    json_object_set_new(report, "seconds", json_real(sw->start_wall ? (double)(end - sw->start_wall) / 1e9 : 0));
    json_object_set_new(report, "version", json_string(SPLITMERGE_VERSION));
    json_object_set_new(report, "seed", integer(sw->arena->seed));
    json_object_set_new(report, "service", json_string(sw->arena->service));
    json_object_set_new(report, "host", json_string(sw->arena->host));
    json_object_set_new(report, "state", json_string(states[sw->state]));
    json_object_set_new(report, "in_flight", integer(sw->in_flight));
    json_object_set_new(report, "parse", parse_counters(sw));
    json_object_set_new(report, "memory", memory(sw));
    json_object_set_new(report, "ports", ports(sw));
    json_object_set_new(report, "deaths", deaths(sw));
    json_object_set_new(report, "bindings", bindings(sw));
    json_object_set_new(report, "shared", report_shared(sw));
    json_object_set_new(report, "shape", shape(sw));
    json_object_set_new(report, "affinity", affinity(sw));
    json_object_set_new(report, "time", integer(sw->clock));
    json_object_set_new(report, "first_time", integer(sw->first_time));
    json_object_set_new(report, "reasons", reasons(sw));
    json_object_set_new(report, "error", sw->error[0] ? json_string(sw->error) : json_null());
    return report;
}

/* A whole number of 1, 2, 4 or 8 bytes, its sign spread over 64 bits. */
static uint64_t whole_value(const uint8_t *bytes, unsigned size, bool is_signed)
{
    uint64_t value = 0;

    memcpy(&value, bytes, size); /* low byte first */
    if (is_signed)
        value = (uint64_t)((int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size));
    return value;
}

json_t *report_hex(const uint8_t *bytes, unsigned count)
{
    char *text = malloc(2 * (size_t)count + 1);
    json_t *string;

    if (!text)
        return json_null();
    for (unsigned i = 0; i < count; i++) /* a middlebox's thread may write a shared object meanwhile */
        sprintf(text + 2 * i, "%02x", __atomic_load_n(&bytes[i], __ATOMIC_RELAXED));
    text[2 * count] = '\0';
    string = json_string(text);
    free(text);
    return string;
}

static json_t *address(const uint8_t *bytes, unsigned size)
{
    char text[INET6_ADDRSTRLEN];

    return json_string(inet_ntop(size == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text));
}

static json_t *mac(const uint8_t *bytes)
{
    return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]);
}

/* Text up to its zero; what is not UTF-8, as bytes. */
static json_t *text(const uint8_t *bytes, unsigned size)
{
    json_t *value = json_stringn((const char *)bytes, strnlen((const char *)bytes, size));

    return value ? value : report_hex(bytes, size);
}

static json_t *floating(const uint8_t *bytes, unsigned size, double scale)
{
    float narrow;
    double value;

    if (size == sizeof value) {
        memcpy(&value, bytes, sizeof value);
    } else {
        memcpy(&narrow, bytes, sizeof narrow);
        value = narrow;
    }
    json_t *number = json_real(value / scale);
    return number ? number : json_null(); /* JSON has neither infinity nor what is no number */
}

static json_t *whole(const uint8_t *bytes, unsigned size, bool is_signed, double scale)
{
    uint64_t value = whole_value(bytes, size, is_signed);

    if (scale == 1)
        return integer(value);
    return json_real((is_signed ? (double)(int64_t)value : (double)value) / scale);
}

static json_t *field_json(const uint8_t *bytes, unsigned size, uint8_t type, double scale)
{
    switch ((enum sm_field_type)type) {
    case SM_FIELD_BOOL:
        return json_boolean(*bytes);
    case SM_FIELD_FLOAT:
        return floating(bytes, size, scale);
    case SM_FIELD_ADDRESS:
        return address(bytes, size);
    case SM_FIELD_MAC:
        return mac(bytes);
    case SM_FIELD_TEXT:
        return text(bytes, size);
    case SM_FIELD_BYTES:
    case SM_FIELD_OPAQUE:
        return report_hex(bytes, size);
    case SM_FIELD_UINT:
    case SM_FIELD_INT:
    case SM_FIELD_TIME:
        break;
    }
    return whole(bytes, size, type == SM_FIELD_INT, scale);
}

json_t *report_record(const struct state_class *cls, const uint8_t *record)
{
    json_t *object = json_object();

    for (unsigned i = 0; i < cls->field_count; i++) {
        if (cls->fields[i].type == SM_FIELD_OPAQUE)
            continue;
        json_t *field = json_object();
        json_t *value =
            field_json(record + cls->fields[i].offset, cls->fields[i].size, cls->fields[i].type, cls->fields[i].scale);
        json_object_set_new(field, "value", value);
        json_object_set_new(field, "unit", json_string(cls->fields[i].unit));
        json_object_set_new(object, cls->fields[i].name, field);
    }
    if (cls->field_count == 0)
        json_object_set_new(object, "bytes", report_hex(record, cls->record_size));
    return object;
}

static json_t *value_json(sm_value value);

static json_t *map_json(sm_value map)
{
    json_t *object = json_object();
    sm_value name;

    for (sm_value item = {NULL, NULL}; record_next(map, &item, &name);) {
        size_t length;
        const char *text = sm_value_bytes(name, &length);
        if (text)
            json_object_setn_new(object, text, length, value_json(item));
    }
    return object;
}

static json_t *list_json(sm_value list)
{
    json_t *array = json_array();

    for (sm_value item = {NULL, NULL}; sm_value_next(list, &item);)
        json_array_append_new(array, value_json(item));
    return array;
}

static json_t *value_json(sm_value value)
{
    size_t length;
    const uint8_t *bytes = sm_value_bytes(value, &length);
    json_t *json = NULL;

    switch (record_type(value)) {
    case RECORD_UINT:
        return integer(sm_value_uint(value, 0));
    case RECORD_INT:
        return json_integer(sm_value_int(value, 0));
    case RECORD_FLOAT:
        json = json_real(sm_value_double(value, 0));
        break;
    case RECORD_BOOL:
        return json_boolean(sm_value_bool(value, false));
    case RECORD_BYTES:
        return report_hex(bytes, (unsigned)length);
    case RECORD_TEXT:
        json = json_stringn((const char *)bytes, length);
        break;
    case RECORD_LIST:
        return list_json(value);
    case RECORD_MAP:
        return map_json(value);
    case RECORD_NIL:
    case RECORD_WRONG:
        break;
    }
    return json ? json : json_null(); /* no number, or no text, that JSON has */
}

json_t *report_encoded(const uint8_t *bytes, uint32_t length)
{
    json_t *values = map_json(record_value(bytes, bytes + length)), *object = json_object(), *value;
    const char *name;

    json_object_foreach(values, name, value)
        json_object_set_new(object, name, json_pack("{s:O, s:s}", "value", value, "unit", ""));
    json_decref(values);
    return object;
}
