/* SPDX-License-Identifier: BSD-2-Clause */
#include "replica/codec.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena/builds.h"
#include "replica/replica.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are carried as they lie in memory, low byte first");
_Static_assert(1 + 1 + 2 + sizeof(struct sm_key) + 1 + STATE_TIMERS * 9 + 5 <= CODEC_FLOW_BYTES, "of a flow's header");
_Static_assert(SM_MAX_CLASSES <= 128 && STATE_TIMERS <= 15, "one byte says which class, and how many timers");

#define FLOW_HEAD 0x94  /* an array of four */
#define BINDS_HEAD 0x95 /* of five: of a class that binds */
#define BOUND_HEAD 0xdc /* an array; two bytes of count follow */
#define BOUND_HEAD_BYTES 3u
#define BOUND_KEY_BYTES (2u + (unsigned)sizeof(struct sm_key))
#define KEY_HEAD 0xc4
#define TIMERS_HEAD 0x90
#define DEADLINE_HEAD 0xcf
#define DEADLINE_BYTES 9u
#define HEAD_BYTES (1u + 1u + 2u + (unsigned)sizeof(struct sm_key) + 1u) /* up to the deadlines */

static struct state_class *class_of(const struct codec *codec, unsigned cls)
{
    return state_class(codec->state, codec->forms[cls]);
}

static void learn(struct codec *codec, const uint8_t *forms, unsigned count)
{
    codec->class_count = (uint8_t)count;
    for (unsigned i = 0; i < count; i++) {
        codec->forms[i] = forms[i];
        codec->classes[i].gap_count = (uint8_t)layout_gaps(class_of(codec, i), codec->classes[i].gaps);
    }
}

void codec_init(struct codec *codec, struct state *state, struct state_actor *actor, struct sm_replica *replica)
{
    *codec = (struct codec){.state = state, .actor = actor, .replica = replica};
    learn(codec, replica->forms, replica->class_count);
}

void codec_init_base(struct codec *codec, const struct arena *arena)
{
    const struct build *base = builds_base(arena);

    *codec = (struct codec){.state = arena->state};
    learn(codec, base->forms, base->registration.class_count);
}

int codec_complete(const struct codec *codec, struct sm_errbuf *error)
{
    for (unsigned i = 0; i < codec->class_count; i++)
        if (class_of(codec, i)->copy == CLASS_NOT_COPIED) {
            layout_why_not(class_of(codec, i), error);
            return SM_E_CONFLICT;
        }
    return 0;
}

/* ---- the header ---- */

static void put_class(struct sm_writer *writer, const struct state_class *cls)
{
    char key[KEYING_TEXT];

    sm_write_map(writer, NULL);
    sm_write_text(writer, "name", cls->name);
    sm_write_uint(writer, "version", cls->version);
    sm_write_text(writer, "by", cls->copy == CLASS_BY_CALLBACKS ? "callbacks" : "fields");
    sm_write_text(writer, "key", keying_text(cls->key, key));
    sm_write_uint(writer, "record", cls->record_size);
    sm_write_uint(writer, "timers", cls->timers);
    sm_write_bool(writer, "idle", cls->idle_ns > 0);
    sm_write_bool(writer, "hard", cls->hard_ns > 0);
    sm_write_bool(writer, "binds", cls->binds[0] != '\0');
    sm_write_list(writer, "fields");
    for (unsigned i = 0; i < cls->field_count; i++) {
        sm_write_map(writer, NULL);
        sm_write_text(writer, "name", cls->fields[i].name);
        sm_write_uint(writer, "type", cls->fields[i].type);
        sm_write_uint(writer, "offset", cls->fields[i].offset);
        sm_write_uint(writer, "size", cls->fields[i].size);
        sm_write_text(writer, "unit", cls->fields[i].unit);
        sm_write_double(writer, "scale", cls->fields[i].scale);
        sm_write_end(writer);
    }
    sm_write_end(writer);
    sm_write_end(writer);
}

int codec_header(const struct codec *codec, struct codec_buffer *out)
{
    const size_t before = out->used;
    struct sm_writer writer;

    record_begin(&writer, out);
    sm_write_list(&writer, "classes");
    for (unsigned i = 0; i < codec->class_count; i++)
        put_class(&writer, class_of(codec, i));
    sm_write_end(&writer);
    int result = record_end(&writer);
    if (result)
        out->used = before;
    return result;
}

/* How a source's records become ours. */
enum codec_way { WAY_COPY, WAY_FIELDS, WAY_UPGRADE, WAY_CALLBACKS };

struct codec_source {
    unsigned count;
    struct {
        struct state_class cls; /* as the header describes it */
        uint8_t own;            /* our class of the same name */
        uint8_t way;            /* enum codec_way */
    } classes[SM_MAX_CLASSES];
};

static bool get_text(sm_value map, const char *name, char *to, size_t size)
{
    size_t length;
    const void *text = sm_value_bytes(sm_value_get(map, name), &length);

    if (!text || length >= size || memchr(text, '\0', length))
        return false;
    memcpy(to, text, length);
    to[length] = '\0';
    return true;
}

static bool get_field(struct state_class *cls, sm_value map)
{
    unsigned i = cls->field_count++;
    uint64_t type = sm_value_uint(sm_value_get(map, "type"), UINT64_MAX);
    uint64_t offset = sm_value_uint(sm_value_get(map, "offset"), UINT64_MAX);
    uint64_t size = sm_value_uint(sm_value_get(map, "size"), UINT64_MAX);

    if (type > UINT8_MAX || offset > cls->record_size || size > cls->record_size - offset ||
        !layout_field_sound((uint8_t)type, (uint16_t)size))
        return false;
    cls->fields[i].type = (uint8_t)type;
    cls->fields[i].offset = (uint16_t)offset;
    cls->fields[i].size = (uint16_t)size;
    cls->fields[i].scale = sm_value_double(sm_value_get(map, "scale"), 1);
    return get_text(map, "name", cls->fields[i].name, sizeof cls->fields[i].name) &&
           get_text(map, "unit", cls->fields[i].unit, sizeof cls->fields[i].unit);
}

static bool get_class(struct state_class *cls, sm_value map)
{
    char by[16];
    uint64_t version = sm_value_uint(sm_value_get(map, "version"), UINT64_MAX);
    uint64_t record = sm_value_uint(sm_value_get(map, "record"), UINT64_MAX);
    uint64_t timers = sm_value_uint(sm_value_get(map, "timers"), UINT64_MAX);
    sm_value fields = sm_value_get(map, "fields"), field = {NULL, NULL};

    if (version > UINT32_MAX || record == 0 || record > SM_MAX_RECORD || timers > STATE_TIMERS ||
        !get_text(map, "name", cls->name, sizeof cls->name) || !get_text(map, "by", by, sizeof by))
        return false;
    cls->version = (uint32_t)version;
    cls->record_size = (uint32_t)record;
    cls->timers = (uint8_t)timers;
    cls->copy = strcmp(by, "callbacks") == 0 ? CLASS_BY_CALLBACKS : CLASS_BY_FIELDS;
    cls->idle_ns = sm_value_bool(sm_value_get(map, "idle"), false);
    cls->hard_ns = sm_value_bool(sm_value_get(map, "hard"), false);
    cls->binds[0] = (char)sm_value_bool(sm_value_get(map, "binds"), false); /* all that is asked here */
    if (cls->idle_ns + cls->hard_ns > timers)
        return false;
    while (sm_value_next(fields, &field))
        if (cls->field_count == SM_MAX_FIELDS || !get_field(cls, field))
            return false;
    return true;
}

/* Which way from a class of the source to ours. */
static int choose_way(const struct codec *codec, const struct state_class *from, unsigned own, uint8_t *way,
                      struct sm_errbuf *error)
{
    const struct state_class *to = class_of(codec, own);
    bool callbacks = from->copy == CLASS_BY_CALLBACKS;

    if (to->copy == CLASS_NOT_COPIED) {
        layout_why_not(to, error);
        return SM_E_CONFLICT;
    }
    *way = callbacks ? WAY_CALLBACKS : from->version < to->version && to->upgrades ? WAY_UPGRADE : WAY_FIELDS;
    if (from->version < to->oldest || (callbacks && from->version > to->version)) {
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' is of version %u there; here versions %u to %u can be read", to->name, from->version,
                 to->oldest, to->version);
        return SM_E_CONFLICT;
    }
    if (*way == WAY_UPGRADE)
        return 0;
    if (callbacks != (to->copy == CLASS_BY_CALLBACKS)) {
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' was written by %s in version %u, and version %u has %s instead", to->name,
                 callbacks ? "callbacks" : "its fields", from->version, to->version,
                 callbacks ? "fields" : "callbacks");
        return SM_E_CONFLICT;
    }
    if (callbacks)
        return 0;
    if (layout_equal(from, to)) {
        *way = WAY_COPY;
        return 0;
    }
    if (from->version == to->version) {
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' has other fields there, though both are of version %u", to->name, to->version);
        return SM_E_CONFLICT;
    }
    return layout_convertible(from, to, error);
}

static int match_class(struct codec_source *source, const struct codec *codec, struct sm_errbuf *error)
{
    struct state_class *from = &source->classes[source->count].cls;

    for (unsigned i = 0; i < codec->class_count; i++)
        if (strcmp(class_of(codec, i)->name, from->name) == 0) {
            source->classes[source->count].own = (uint8_t)i;
            return choose_way(codec, from, i, &source->classes[source->count++].way, error);
        }
    snprintf(error->text, sizeof error->text, "flow class '%s' is not one of this middlebox's", from->name);
    return SM_E_CONFLICT;
}

int codec_source_open(struct codec_source **out, const struct codec *codec, const uint8_t *header, size_t length,
                      struct sm_errbuf *error)
{
    sm_value map = record_value(header, header + length), item = {NULL, NULL};
    struct codec_source *source = calloc(1, sizeof *source);
    int result = 0;

    if (!source) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return SM_E_NO_MEMORY;
    }
    if (!record_is_map(map))
        result = SM_E_DAMAGED;
    sm_value classes = sm_value_get(map, "classes");
    while (result == 0 && sm_value_next(classes, &item)) {
        if (source->count == SM_MAX_CLASSES || !get_class(&source->classes[source->count].cls, item))
            result = SM_E_DAMAGED;
        else
            result = match_class(source, codec, error);
    }
    if (result == SM_E_DAMAGED)
        snprintf(error->text, sizeof error->text, "the description of the flow classes is damaged");
    if (result)
        codec_source_close(source);
    else
        *out = source;
    return result;
}

void codec_source_close(struct codec_source *source)
{
    free(source);
}

/* ---- flows ---- */

static int encode_callbacks(const struct codec *codec, uint32_t shard, struct flow *flow, struct codec_buffer *out)
{
    struct sm_replica *replica = codec->replica;
    unsigned cls = flow_class(flow);
    const uint32_t current = replica->current_shard;
    struct sm_writer writer;

    replica->current_shard = shard;
    record_begin(&writer, out);
    int result = replica->classes[cls].encode(replica, (sm_class){(uint16_t)cls}, (sm_flow){flow_record(flow)}, &writer,
                                              replica->classes[cls].user);
    replica->current_shard = current;
    int ended = record_end(&writer);
    return result ? result : ended;
}

int codec_record(const struct codec *codec, uint32_t shard, struct flow *flow, struct codec_buffer *out)
{
    if (state_class(codec->state, flow_class(flow))->copy != CLASS_BY_CALLBACKS)
        return SM_E_CONFLICT;
    return encode_callbacks(codec, shard, flow, out);
}

/* Key by key; the latest comes first. */
static int encode_bound(const struct codec *codec, const struct flow *flow, struct codec_buffer *out)
{
    uint8_t *head = out->bytes + out->used, *to = head + BOUND_HEAD_BYTES;
    const struct sm_key *key;
    uint32_t count = 0;

    if (out->size - out->used < CODEC_BOUND_BYTES)
        return SM_E_LIMIT;
    for (uint32_t cursor = 0; (key = state_binding(codec->state, flow, &cursor)) != NULL; count++) {
        to += record_put_bin(to, sizeof *key);
        memcpy(to, key, sizeof *key);
        to += sizeof *key;
    }
    head[0] = BOUND_HEAD;
    head[1] = (uint8_t)(count >> 8);
    head[2] = (uint8_t)count;
    out->used = (size_t)(to - out->bytes);
    return 0;
}

static int encode_flow(const struct codec *codec, uint32_t shard, struct flow *flow, struct codec_buffer *out)
{
    const unsigned id = flow_class(flow);
    const struct state_class *cls = class_of(codec, id);
    const size_t before = out->used;
    uint8_t *to = out->bytes + before;

    if (cls->copy == CLASS_NOT_COPIED || (cls->copy == CLASS_BY_CALLBACKS && !codec->replica) ||
        codec->forms[id] != flow_form(flow))
        return SM_E_CONFLICT;
    if (out->size - before < CODEC_FLOW_BYTES + (cls->copy == CLASS_BY_FIELDS ? cls->record_size : 0))
        return SM_E_LIMIT;
    to[0] = cls->binds[0] ? BINDS_HEAD : FLOW_HEAD;
    to[1] = (uint8_t)id;
    to[2] = KEY_HEAD;
    to[3] = sizeof(struct sm_key);
    memcpy(to + 4, flow_key(flow), sizeof(struct sm_key));
    to[HEAD_BYTES - 1] = (uint8_t)(TIMERS_HEAD | cls->timers);
    to += HEAD_BYTES;
    for (unsigned slot = 0; slot < cls->timers; slot++, to += DEADLINE_BYTES)
        record_put_u64(to, state_timer_get(codec->state, flow, slot).ns);
    if (cls->copy == CLASS_BY_CALLBACKS) {
        out->used = (size_t)(to - out->bytes);
        return encode_callbacks(codec, shard, flow, out);
    }
    to += record_put_bin(to, cls->record_size);
    memcpy(to, flow_record(flow), cls->record_size);
    for (unsigned i = 0; i < codec->classes[id].gap_count; i++)
        memset(to + codec->classes[id].gaps[i].offset, 0, codec->classes[id].gaps[i].length);
    out->used = (size_t)(to + cls->record_size - out->bytes);
    return 0;
}

int codec_encode(const struct codec *codec, uint32_t shard, struct flow *flow, struct codec_buffer *out)
{
    const size_t before = out->used;
    int result = encode_flow(codec, shard, flow, out);

    if (result == 0 && class_of(codec, flow_class(flow))->binds[0])
        result = encode_bound(codec, flow, out);
    if (result)
        out->used = before;
    return result;
}

/* A flow as it lies in a stream: found whole, looked at no further. */
struct encoded {
    struct sm_key key;
    const struct state_class *cls; /* of the source */
    unsigned own;
    enum codec_way way;
    const uint8_t *deadlines;
    const uint8_t *record; /* its bytes; by callbacks: the map */
    size_t record_used;    /* all bytes that it takes */
    const uint8_t *bound;
    unsigned bound_count;
    size_t used;
};

static bool find_record(struct encoded *flow, const uint8_t *at, const uint8_t *end)
{
    uint8_t head[5];

    if (flow->cls->copy == CLASS_BY_CALLBACKS) {
        sm_value map = record_value(at, end);
        flow->record = at;
        flow->record_used = (size_t)(map.end - at);
        return record_is_map(map);
    }
    unsigned bytes = record_put_bin(head, flow->cls->record_size);
    if ((size_t)(end - at) < bytes + flow->cls->record_size || memcmp(at, head, bytes) != 0)
        return false;
    flow->record = at + bytes;
    flow->record_used = bytes + flow->cls->record_size;
    return true;
}

static bool find_bound(struct encoded *flow, const uint8_t *at, const uint8_t *end)
{
    if ((size_t)(end - at) < BOUND_HEAD_BYTES || at[0] != BOUND_HEAD)
        return false;
    flow->bound_count = at[1] * 256u + at[2];
    flow->bound = at + BOUND_HEAD_BYTES;
    if ((size_t)(end - flow->bound) < flow->bound_count * BOUND_KEY_BYTES)
        return false;
    for (unsigned i = 0; i < flow->bound_count; i++)
        if (flow->bound[i * BOUND_KEY_BYTES] != KEY_HEAD || flow->bound[i * BOUND_KEY_BYTES + 1] != sizeof flow->key)
            return false;
    flow->used += BOUND_HEAD_BYTES + flow->bound_count * BOUND_KEY_BYTES;
    return true;
}

static bool find(const struct codec *codec, const struct codec_source *source, const uint8_t *bytes, size_t length,
                 struct encoded *flow)
{
    const uint8_t *at = bytes + HEAD_BYTES;

    if (length < HEAD_BYTES || (bytes[0] != FLOW_HEAD && bytes[0] != BINDS_HEAD) || bytes[2] != KEY_HEAD ||
        bytes[3] != sizeof flow->key)
        return false;
    if (bytes[1] >= (source ? source->count : codec->class_count))
        return false;
    flow->own = source ? source->classes[bytes[1]].own : bytes[1];
    flow->cls = source ? &source->classes[bytes[1]].cls : class_of(codec, flow->own);
    flow->way = source                                  ? (enum codec_way)source->classes[bytes[1]].way
                : flow->cls->copy == CLASS_BY_CALLBACKS ? WAY_CALLBACKS
                                                        : WAY_COPY;
    if (bytes[HEAD_BYTES - 1] != (TIMERS_HEAD | flow->cls->timers) ||
        length - HEAD_BYTES < flow->cls->timers * DEADLINE_BYTES)
        return false;
    flow->deadlines = at;
    for (unsigned i = 0; i < flow->cls->timers; i++, at += DEADLINE_BYTES)
        if (*at != DEADLINE_HEAD)
            return false;
    memcpy(&flow->key, bytes + 4, sizeof flow->key);
    if ((bytes[0] == BINDS_HEAD) != (flow->cls->binds[0] != '\0') || !find_record(flow, at, bytes + length))
        return false;
    at += flow->record_used;
    flow->used = (size_t)(at - bytes);
    flow->bound_count = 0;
    return bytes[0] == FLOW_HEAD || find_bound(flow, at, bytes + length);
}

/* The slot of the source's class that a slot of ours continues; -1: none. Timeouts come behind the middlebox's own. */
static int slot_from(const struct state_class *from, const struct state_class *to, unsigned slot)
{
    unsigned theirs = from->timers - (from->idle_ns > 0) - (from->hard_ns > 0);
    unsigned ours = to->timers - (to->idle_ns > 0) - (to->hard_ns > 0);

    if (slot < ours)
        return slot < theirs ? (int)slot : -1;
    if (to->idle_ns > 0 && slot == ours)
        return from->idle_ns > 0 ? (int)theirs : -1;
    return from->hard_ns > 0 ? (int)from->timers - 1 : -1;
}

static void arm(const struct codec *codec, uint32_t shard, uint64_t now, const struct encoded *from, struct flow *flow)
{
    const struct state_class *cls = class_of(codec, from->own);
    unsigned ours = cls->timers - (cls->idle_ns > 0) - (cls->hard_ns > 0);

    for (unsigned slot = 0; slot < cls->timers; slot++) {
        int old = slot_from(from->cls, cls, slot);
        uint64_t deadline = 0, timeout = cls->idle_ns > 0 && slot == ours ? cls->idle_ns : cls->hard_ns;
        if (old >= 0)
            deadline = record_big(from->deadlines + (unsigned)old * DEADLINE_BYTES + 1, 8);
        else if (slot >= ours)
            deadline = timeout < UINT64_MAX - 1 - now ? now + timeout : UINT64_MAX - 1;
        if (deadline > 0 && deadline < UINT64_MAX && cls->partitioned)
            state_timer_set(codec->actor, shard, flow, slot, (sm_time){deadline});
    }
}

/* A callback makes the record. */
static int call_back(const struct codec *codec, uint32_t shard, const struct encoded *from, struct flow *flow)
{
    struct sm_replica *replica = codec->replica;
    const sm_class cls = {(uint16_t)from->own};
    const sm_flow made = {flow_record(flow)};
    const uint32_t current = replica->current_shard;
    _Alignas(16) uint8_t old[SM_MAX_RECORD]; /* aligned as it was */
    int result;

    replica->current_shard = shard;
    if (from->way == WAY_UPGRADE) {
        memcpy(old, from->record, from->cls->record_size);
        result = replica->classes[cls.id].upgrade(replica, cls, made, from->cls->version, old, from->cls->record_size,
                                                  replica->classes[cls.id].user);
    } else {
        result = replica->classes[cls.id].decode(replica, cls, made, from->cls->version,
                                                 record_value(from->record, from->record + from->record_used),
                                                 replica->classes[cls.id].user);
    }
    replica->current_shard = current;
    return result;
}

static int make_record(const struct codec *codec, uint32_t shard, const struct encoded *from, struct flow *flow,
                       struct sm_errbuf *error)
{
    const struct state_class *cls = class_of(codec, from->own);
    const char *field;
    int result = 0;

    switch (from->way) {
    case WAY_COPY:
        memcpy(flow_record(flow), from->record, cls->record_size);
        break;
    case WAY_FIELDS:
        result = layout_convert(from->cls, from->record, cls, flow_record(flow), &field);
        if (result)
            snprintf(error->text, sizeof error->text, "flow class '%s': the value of '%s' does not fit version %u",
                     cls->name, field, cls->version);
        break;
    case WAY_UPGRADE:
    case WAY_CALLBACKS:
        result = call_back(codec, shard, from, flow);
        if (result)
            snprintf(error->text, sizeof error->text, "flow class '%s': a record of version %u was refused by %s: %s",
                     cls->name, from->cls->version, from->way == WAY_UPGRADE ? "upgrade" : "decode",
                     sm_strerror(result));
    }
    return result;
}

/* In the other order: each becomes the first of the flow's. */
static int bind_keys(const struct codec *codec, uint32_t shard, const struct encoded *from, struct flow *flow,
                     struct sm_errbuf *error)
{
    int result = 0;

    if (class_of(codec, from->own)->binds[0] == '\0')
        return 0;
    for (unsigned i = from->bound_count; result == 0 && i-- > 0;) {
        struct sm_key key;
        memcpy(&key, from->bound + i * BOUND_KEY_BYTES + 2, sizeof key);
        result = state_bind(codec->actor, shard, flow, &key, state_hash(codec->state, &key));
    }
    if (result)
        snprintf(error->text, sizeof error->text, "a key cannot be bound to a flow of class '%s' again: %s",
                 class_of(codec, from->own)->name, sm_strerror(result));
    return result;
}

int codec_decode(const struct codec *codec, const struct codec_source *source, uint32_t shard, uint64_t now,
                 const uint8_t *bytes, size_t length, size_t *used, struct sm_errbuf *error)
{
    struct encoded from;
    struct flow *flow;

    if (!find(codec, source, bytes, length, &from)) {
        snprintf(error->text, sizeof error->text, "a flow is damaged");
        return SM_E_DAMAGED;
    }
    *used = from.used;
    const struct state_class *cls = class_of(codec, from.own);
    if (cls->copy == CLASS_NOT_COPIED) {
        layout_why_not(cls, error);
        return SM_E_CONFLICT;
    }
    if (from.way >= WAY_UPGRADE && !codec->replica) {
        snprintf(error->text, sizeof error->text, "flow class '%s' needs a replica to be read", cls->name);
        return SM_E_CONFLICT;
    }
    uint64_t hash = state_hash(codec->state, &from.key);
    if (state_find(codec->state, shard, from.own, &from.key, hash)) {
        snprintf(error->text, sizeof error->text, "a flow of class '%s' is there already", cls->name);
        return SM_E_STATE;
    }
    int result = state_insert(codec->actor, shard, from.own, &from.key, hash, &flow);
    if (result) {
        snprintf(error->text, sizeof error->text, "no room for a flow of class '%s'", cls->name);
        return result;
    }
    result = make_record(codec, shard, &from, flow, error);
    if (result == 0)
        result = bind_keys(codec, shard, &from, flow, error);
    if (result) {
        state_remove(codec->actor, shard, flow);
        return result;
    }
    arm(codec, shard, now, &from, flow);
    return 0;
}

int codec_peek(const struct codec *codec, const struct codec_source *source, const uint8_t *bytes, size_t length,
               struct sm_key *key, unsigned *cls, size_t *used)
{
    struct encoded from;

    if (!find(codec, source, bytes, length, &from))
        return SM_E_DAMAGED;
    *key = from.key;
    *cls = from.own;
    *used = from.used;
    return 0;
}
