/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Flows of every kind of class go from one arena to another and are the same there, down to the bytes that they are
 * encoded in again. What is damaged is refused, and makes nothing. SM_SEED fixes the flows.
 */

#include "ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "testing/random.h"

#define FLOWS 3000u

enum { FIELDS, TIMED, LARGE, CHUNKS, SHARED, CLASSES };

struct fields {
    uint64_t whole;
    int32_t below;
    uint8_t flag; /* three bytes of padding follow */
    double real;
    uint8_t address[16], mac[6];
    char text[10];
};

struct node {
    struct node *next;
    uint32_t length;
    uint8_t bytes[];
};

struct chunks {
    struct node *first;
    int64_t sum;
};

static uint64_t seed;

static void no_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    (void)replica, (void)cls, (void)flow, (void)slot, (void)now, (void)user;
}

static int encode(struct sm_replica *replica, sm_class cls, sm_flow flow, struct sm_writer *writer, void *user)
{
    const struct chunks *chunks = flow.state;

    (void)replica, (void)cls, (void)user;
    sm_write_int(writer, "sum", chunks->sum);
    sm_write_list(writer, "nodes");
    for (const struct node *node = chunks->first; node; node = node->next) {
        sm_write_map(writer, NULL);
        sm_write_bytes(writer, "bytes", node->bytes, node->length);
        sm_write_bool(writer, "odd", node->length % 2);
        sm_write_double(writer, "half", node->length / 2.0);
        sm_write_text(writer, "text", node->length > 40 ? "a text that is longer than thirty-two characters" : "text");
        sm_write_end(writer);
    }
    sm_write_end(writer);
    return 0;
}

static int decode(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, sm_value value, void *user)
{
    struct chunks *chunks = flow.state;
    struct node **link = &chunks->first;
    sm_value nodes = sm_value_get(value, "nodes");

    (void)user;
    chunks->sum = sm_value_int(sm_value_get(value, "sum"), 0);
    for (sm_value item = {NULL, NULL}; sm_value_next(nodes, &item);) {
        size_t length, text;
        const uint8_t *bytes = sm_value_bytes(sm_value_get(item, "bytes"), &length);
        const char *words = sm_value_bytes(sm_value_get(item, "text"), &text);
        if (!bytes || !words || sm_value_bool(sm_value_get(item, "odd"), !(length % 2)) != length % 2 ||
            sm_value_double(sm_value_get(item, "half"), -1) != (double)length / 2 || version != 3)
            return SM_E_DAMAGED;
        struct node *node = sm_alloc(replica, cls, flow, sizeof *node + length);
        if (!node)
            return SM_E_LIMIT;
        memcpy(node->bytes, bytes, length);
        node->length = (uint32_t)length;
        *link = node;
        link = &node->next;
    }
    return 0;
}

static int setup(struct sm_replica *replica)
{
    static const struct sm_field fields[] = {
        {"text", SM_FIELD_TEXT, offsetof(struct fields, text), 10, NULL, 0},
        {"whole", SM_FIELD_UINT, offsetof(struct fields, whole), 8, "B", 1000},
        {"below", SM_FIELD_INT, offsetof(struct fields, below), 4, NULL, 0},
        {"flag", SM_FIELD_BOOL, offsetof(struct fields, flag), 1, NULL, 0},
        {"real", SM_FIELD_FLOAT, offsetof(struct fields, real), 8, NULL, 0},
        {"address", SM_FIELD_ADDRESS, offsetof(struct fields, address), 16, NULL, 0},
        {"mac", SM_FIELD_MAC, offsetof(struct fields, mac), 6, NULL, 0},
    };
    static const struct sm_field timed[] = {{"number", SM_FIELD_UINT, 0, 1, NULL, 0}};
    static const struct sm_field large[] = {{"bytes", SM_FIELD_BYTES, 0, SM_MAX_RECORD, NULL, 0}};
    static const struct sm_field shared[] = {{"bytes", SM_FIELD_BYTES, 0, 300, NULL, 0}};
    struct sm_class_options options[CLASSES] = {
        {.name = "fields", .record_size = sizeof(struct fields), .fields = fields, .field_count = 7},
        {.name = "timed", .record_size = 1, .fields = timed, .field_count = 1, .timers = 3},
        {.name = "large", .record_size = SM_MAX_RECORD, .fields = large, .field_count = 1, .timers = 1},
        {.name = "chunks", .record_size = sizeof(struct chunks), .alloc_limit = 1u << 20, .timers = 1},
        {.name = "shared", .record_size = 300, .fields = shared, .field_count = 1},
    };
    int result = 0;

    options[TIMED].idle_timeout_ns = 1000;
    options[TIMED].hard_timeout_ns = 2000;
    options[CHUNKS].encode = encode;
    options[CHUNKS].decode = decode;
    options[SHARED].granularity = SM_BY_ALL;
    options[SHARED].may_share = true;
    for (unsigned i = 0; result == 0 && i < CLASSES; i++) {
        sm_class cls;
        options[i].size = sizeof *options;
        options[i].version = 3;
        options[i].on_timer = no_timer;
        result = sm_class_register(replica, &options[i], &cls);
    }
    return result;
}

static void fill(void *to, size_t length)
{
    for (uint8_t *at = to; length > 0; at++, length--)
        *at = (uint8_t)random_next(&seed);
}

static void fill_chunks(struct end *end, uint32_t shard, struct flow *flow)
{
    struct chunks *chunks = flow_record(flow);

    end->replica->current_shard = shard;
    chunks->sum = (int64_t)random_next(&seed) >> random_next(&seed) % 64;
    for (unsigned i = random_next(&seed) % 6; i > 0; i--) {
        uint32_t length = (uint32_t)(random_next(&seed) % (1u << random_next(&seed) % 18));
        struct node *node = sm_alloc(end->replica, (sm_class){CHUNKS}, (sm_flow){chunks}, sizeof *node + length);
        node->next = chunks->first;
        node->length = length;
        fill(node->bytes, length);
        chunks->first = node;
    }
}

static bool make_flow(struct end *end, unsigned cls)
{
    struct sm_key key = {.family = random_next(&seed) % 2 ? 4 : 6, .protocol = 6};
    struct flow *flow;

    if (cls != SHARED)
        fill(key.a, 4);
    key.tag = cls == SHARED ? (uint16_t)random_next(&seed) % 64 : 0;
    uint64_t hash = state_hash(end->arena->state, &key);
    uint32_t shard = end_shard(end, cls, &key);
    if (state_find(end->arena->state, shard, cls, &key, hash))
        return true;
    if (state_insert(end->replica->actor, shard, cls, &key, hash, &flow) != 0)
        return false;
    if (cls == CHUNKS)
        fill_chunks(end, shard, flow);
    else
        fill(flow_record(flow), state_class(end->arena->state, cls)->record_size);
    if (cls == FIELDS)
        memset((uint8_t *)flow_record(flow) + offsetof(struct fields, flag) + 1, 0, 3);
    for (unsigned slot = 0; cls != SHARED && slot < state_class(end->arena->state, cls)->timers; slot++)
        if (random_next(&seed) % 3)
            state_timer_set(end->replica->actor, shard, flow, slot, (sm_time){1 + random_next(&seed) % 1000});
    end_commit(end);
    return true;
}

static const char *checked(const struct end *end)
{
    static struct sm_errbuf error;

    return state_check(end->arena->state, &error) == 0 ? NULL : error.text;
}

/* Padding is in no field: nothing of it may leave. */
static void spoil_padding(struct end *end)
{
    struct flow *flow;

    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        for (uint32_t cursor = 0; (flow = state_next(end->arena->state, shard, &cursor)) != NULL;)
            if (flow_class(flow) == FIELDS)
                memset((uint8_t *)flow_record(flow) + offsetof(struct fields, flag) + 1, 0xee, 3);
}

/* A flow of one arena and its like in the other, without the codec. */
static bool same_flow(const struct end *from, struct flow *flow, const struct end *to)
{
    unsigned cls = flow_class(flow);
    const struct state_class *is = state_class(from->arena->state, cls);
    struct flow *other = state_find(to->arena->state, end_shard(to, cls, flow_key(flow)), cls, flow_key(flow),
                                    state_hash(to->arena->state, flow_key(flow)));

    if (!other || (cls != CHUNKS && memcmp(flow_record(flow), flow_record(other), is->record_size) != 0))
        return false;
    for (unsigned slot = 0; slot < is->timers; slot++)
        if (state_timer_get(from->arena->state, flow, slot).ns != state_timer_get(to->arena->state, other, slot).ns)
            return false;
    if (cls != CHUNKS)
        return true;
    const struct chunks *a = flow_record(flow), *b = flow_record(other);
    const struct node *x = a->first, *y = b->first;
    while (x && y && x->length == y->length && memcmp(x->bytes, y->bytes, x->length) == 0)
        x = x->next, y = y->next;
    return a->sum == b->sum && !x && !y;
}

static bool same_state(const struct end *from, const struct end *to)
{
    struct flow *flow;

    for (uint32_t shard = 0; shard < SM_SHARDS + STATE_STRIPES; shard++)
        for (uint32_t cursor = 0; (flow = state_next(from->arena->state, shard, &cursor)) != NULL;)
            if (!same_flow(from, flow, to))
                return false;
    struct state_usage a, b;
    state_usage(from->arena->state, &a);
    state_usage(to->arena->state, &b);
    return a.flows_live == b.flows_live;
}

static const char *there_and_back(struct end *from)
{
    struct end to;
    struct sm_errbuf error;
    struct codec_source *source = NULL;
    size_t flows, again;

    for (unsigned i = 0; i < FLOWS; i++)
        if (!make_flow(from, i % 50 ? i % 50 % 2 ? FIELDS : i % 4 ? TIMED : CHUNKS : i % 4 ? LARGE : SHARED))
            return "no flow was made";
    struct codec_buffer bytes = end_encode(from, &flows);
    const char *wrong = end_open(&to, setup);
    if (wrong)
        return wrong;
    if (codec_source_open(&source, &to.replica->codec, bytes.bytes, flows, &error) != 0 ||
        end_decode(&to, source, bytes.bytes + flows, bytes.used - flows, &error) != 0) {
        printf("%s\n", error.text);
        return "what was encoded is refused";
    }
    if (!same_state(from, &to))
        wrong = "the flows are not the same";
    spoil_padding(&to);
    struct codec_buffer back = end_encode(&to, &again);
    if (!wrong && (back.used != bytes.used || again != flows))
        wrong = "the flows are not encoded as long as before";
    for (size_t i = 0; !wrong && i < flows; i++)
        if (bytes.bytes[i] != back.bytes[i])
            wrong = "the header is not encoded as before";
    if (!wrong && end_decode(&to, source, bytes.bytes + flows, bytes.used - flows, &error) != SM_E_STATE)
        wrong = "flows were made that are there already";
    if (!wrong)
        wrong = checked(&to);
    end_close(&to);

    /* Without a header: the same classes. What the second has encoded, padding and all, gives the first one's state. */
    const char *opened = end_open(&to, setup);
    if (!wrong && (opened || end_decode(&to, NULL, back.bytes + again, back.used - again, &error) != 0))
        wrong = "what was encoded again is refused";
    if (!wrong && !same_state(from, &to))
        wrong = "the flows are not the same the second time";
    end_close(&to);
    codec_source_close(source);
    free(bytes.bytes);
    free(back.bytes);
    return wrong;
}

static uint64_t live(const struct end *end)
{
    struct state_usage usage;

    state_usage(end->arena->state, &usage);
    return usage.flows_live;
}

/* Decode bytes that lie in memory of their own, so that a sanitizer sees a look beyond them. */
static int decode_copy(struct end *to, const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    struct sm_errbuf error = {""};
    uint64_t before = live(to);
    size_t used;

    memcpy(copy, bytes, length);
    int result = codec_decode(&to->replica->codec, NULL, 9, 5000, copy, length, &used, &error);
    free(copy);
    if (result == 0 && (used > length || live(to) != before + 1))
        abort();
    if (result != 0 && (live(to) != before || error.text[0] == '\0'))
        abort();
    if (result == 0) {
        struct flow *flow;
        uint32_t cursor = 0;
        while ((flow = state_next(to->arena->state, 9, &cursor)) != NULL)
            state_remove(to->replica->actor, 9, flow);
    }
    end_commit(to);
    return result;
}

static const char *damaged(struct end *from)
{
    struct end to;
    struct flow *flow;
    unsigned seen = 0;
    const char *wrong = end_open(&to, setup);

    for (uint32_t shard = 0; !wrong && seen != 31 && shard < SM_SHARDS + STATE_STRIPES; shard++)
        for (uint32_t cursor = 0; !wrong && (flow = state_next(from->arena->state, shard, &cursor)) != NULL;) {
            static uint8_t memory[SM_MAX_RECORD + CODEC_FLOW_BYTES];
            struct codec_buffer out = {memory, sizeof memory, 0};
            if ((seen & 1u << flow_class(flow)) || codec_encode(&from->replica->codec, shard, flow, &out) != 0)
                continue;
            seen |= 1u << flow_class(flow);
            size_t step = out.used > 2000 ? out.used / 500 : 1;
            for (size_t length = 0; !wrong && length < out.used; length += length < 100 ? 1 : step)
                if (decode_copy(&to, memory, length) != SM_E_DAMAGED)
                    wrong = "a flow that was cut short was made";
            for (size_t bit = 0; bit < out.used * 8; bit += bit < 1000 ? 1 : step) {
                memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
                decode_copy(&to, memory, out.used);
                memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
            }
            if (!wrong && decode_copy(&to, memory, out.used) != 0)
                wrong = "an undamaged flow was refused";
        }
    if (!wrong && seen != 31)
        wrong = "not every class was tried";
    if (!wrong)
        wrong = checked(&to);
    end_close(&to);
    return wrong;
}

static const char *damaged_header(struct end *from)
{
    size_t flows;
    struct codec_buffer bytes = end_encode(from, &flows);
    struct codec_source *source;
    struct sm_errbuf error;
    const char *wrong = NULL;

    for (size_t length = 0; length < flows; length++) {
        uint8_t *copy = malloc(length ? length : 1);
        memcpy(copy, bytes.bytes, length);
        if (codec_source_open(&source, &from->replica->codec, copy, length, &error) != SM_E_DAMAGED)
            wrong = "a header that was cut short is taken";
        free(copy);
    }
    uint8_t *copy = malloc(flows);
    memcpy(copy, bytes.bytes, flows);
    for (size_t bit = 0; bit < flows * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (codec_source_open(&source, &from->replica->codec, copy, flows, &error) == 0)
            codec_source_close(source);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(copy);
    free(bytes.bytes);
    return wrong;
}

/* Values of any bytes: what is whole can be walked through, and nothing is read beyond it. */
static void random_values(void)
{
    for (unsigned round = 0; round < 20000; round++) {
        size_t length = random_next(&seed) % 60, count;
        uint8_t *bytes = malloc(length ? length : 1);
        fill(bytes, length);
        if (length && round % 2)
            bytes[0] = (uint8_t)(0x80 + bytes[0] % 32);
        sm_value value = record_value(bytes, bytes + length);
        for (sm_value item = {NULL, NULL}; value.at && sm_value_next(value, &item);) {
            sm_value_uint(item, 0), sm_value_int(item, 0), sm_value_double(item, 0), sm_value_bool(item, false);
            sm_value_bytes(item, &count), sm_value_get(item, "a");
        }
        sm_value_get(value, "a");
        free(bytes);
    }
}

int main(void)
{
    uint64_t first = random_seed();
    struct end from;

    printf("SM_SEED=%llu\n", (unsigned long long)first);
    seed = first;
    const char *wrong = end_open(&from, setup);
    if (!wrong)
        wrong = there_and_back(&from);
    if (!wrong)
        wrong = damaged(&from);
    if (!wrong)
        wrong = damaged_header(&from);
    random_values();
    end_close(&from);
    if (!wrong)
        wrong = versions_test();
    if (!wrong)
        wrong = shown_test();
    if (wrong)
        printf("FAILED: %s\n", wrong);
    return wrong != NULL;
}
