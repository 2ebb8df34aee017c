/* SPDX-License-Identifier: BSD-2-Clause */

/* From one version of a class to another: by the fields' names, by callbacks, or not at all, with the reason. */

#include "ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct first {
    uint32_t packets;
    int16_t score;
    uint8_t state;
    uint8_t gone;
    float rate;
    uint8_t address[4];
    char name[8];
};

struct second {
    char name[16];    /* wider */
    uint64_t packets; /* wider, of another sign */
    int8_t score;     /* narrower */
    bool state;       /* a number that is 0 or 1 */
    uint8_t fresh[6]; /* new */
    double rate;      /* wider */
    uint8_t address[4];
    uint8_t end[4]; /* new */
};

static const struct sm_field first_fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct first, packets), 4, NULL, 0},
    {"score", SM_FIELD_INT, offsetof(struct first, score), 2, NULL, 0},
    {"state", SM_FIELD_UINT, offsetof(struct first, state), 1, NULL, 0},
    {"gone", SM_FIELD_UINT, offsetof(struct first, gone), 1, NULL, 0},
    {"rate", SM_FIELD_FLOAT, offsetof(struct first, rate), 4, NULL, 0},
    {"address", SM_FIELD_ADDRESS, offsetof(struct first, address), 4, NULL, 0},
    {"name", SM_FIELD_TEXT, offsetof(struct first, name), 8, NULL, 0},
};
static const struct sm_field second_fields[] = {
    {"name", SM_FIELD_TEXT, offsetof(struct second, name), 16, NULL, 0},
    {"packets", SM_FIELD_INT, offsetof(struct second, packets), 8, NULL, 0},
    {"score", SM_FIELD_INT, offsetof(struct second, score), 1, NULL, 0},
    {"state", SM_FIELD_BOOL, offsetof(struct second, state), 1, NULL, 0},
    {"fresh", SM_FIELD_BYTES, offsetof(struct second, fresh), 6, NULL, 0},
    {"rate", SM_FIELD_FLOAT, offsetof(struct second, rate), 8, NULL, 0},
    {"address", SM_FIELD_ADDRESS, offsetof(struct second, address), 4, NULL, 0},
    {"end", SM_FIELD_BYTES, offsetof(struct second, end), 4, NULL, 0},
};

static struct sm_class_options options; /* of the end that is opened next */

static int setup(struct sm_replica *replica)
{
    sm_class cls;

    return sm_class_register(replica, &options, &cls);
}

static struct sm_class_options version(uint32_t number, const struct sm_field *fields, unsigned count, uint32_t size)
{
    return (struct sm_class_options){.size = sizeof options,
                                     .name = "flows",
                                     .version = number,
                                     .record_size = size,
                                     .fields = fields,
                                     .field_count = count};
}

static struct sm_class_options older(void)
{
    return version(1, first_fields, sizeof first_fields / sizeof *first_fields, sizeof(struct first));
}

static struct sm_class_options newer(void)
{
    return version(2, second_fields, sizeof second_fields / sizeof *second_fields, sizeof(struct second));
}

/*
 * One record of class `from` becomes one of class `to`, which `result` is given. Returns the decoder's answer;
 * *error says why.
 */
static int convert(const struct sm_class_options *from, const void *record, const struct sm_class_options *to,
                   void *result, uint64_t *deadlines, struct sm_errbuf *error)
{
    struct sm_key key = {.family = 4, .protocol = 17};
    struct codec_source *source = NULL;
    struct end a, b;
    struct flow *flow;
    size_t flows;
    uint32_t cursor = 0;

    options = *from;
    if (end_open(&a, setup) != NULL)
        abort();
    uint32_t shard = end_shard(&a, 0, &key);
    if (state_insert(a.replica->actor, shard, 0, &key, state_hash(a.arena->state, &key), &flow) != 0)
        abort();
    memcpy(flow_record(flow), record, from->record_size);
    for (unsigned slot = 0; slot < state_class(a.arena->state, 0)->timers; slot++)
        state_timer_set(a.replica->actor, shard, flow, slot, (sm_time){100 + slot});
    struct codec_buffer bytes = end_encode(&a, &flows);
    end_close(&a);

    options = *to;
    if (end_open(&b, setup) != NULL)
        abort();
    *error = (struct sm_errbuf){""};
    int answer = codec_source_open(&source, &b.replica->codec, bytes.bytes, flows, error);
    if (answer == 0) {
        answer = end_decode(&b, source, bytes.bytes + flows, bytes.used - flows, error);
        codec_source_close(source);
    }
    flow = state_next(b.arena->state, shard, &cursor);
    if ((flow != NULL) != (answer == 0))
        abort();
    if (flow) {
        memcpy(result, flow_record(flow), to->record_size);
        for (unsigned slot = 0; deadlines && slot < state_class(b.arena->state, 0)->timers; slot++)
            deadlines[slot] = state_timer_get(b.arena->state, flow, slot).ns;
    }
    free(bytes.bytes);
    end_close(&b);
    return answer;
}

static const char *by_name(void)
{
    struct sm_class_options one = older(), two = newer();
    struct first old = {4000000000u, -100, 1, 77, 0.5f, {10, 1, 2, 3}, "eight ch"}, back = {0};
    struct second now;
    struct sm_errbuf error;

    if (convert(&one, &old, &two, &now, NULL, &error) != 0)
        return "fields were not converted by their names";
    const struct second expected = {.name = "eight ch",
                                    .packets = 4000000000u,
                                    .score = -100,
                                    .state = true,
                                    .rate = 0.5,
                                    .address = {10, 1, 2, 3}};
    if (memcmp(&now, &expected, sizeof now) != 0)
        return "a field has another value in the newer version";
    if (convert(&two, &now, &one, &back, NULL, &error) != 0)
        return "the newer version's fields were not converted back";
    old.gone = 0;
    if (memcmp(&old, &back, sizeof old) != 0)
        return "a field has another value, there and back";
    return NULL;
}

/* What does not fit is refused, and the line names the class and the field. */
static const char *narrowed(void)
{
    struct sm_class_options one = older(), two = newer();
    const struct first good = {1, 5, 1, 0, 1, {0}, "name"};
    struct first old;
    struct second now = {.packets = 1}, result;
    struct sm_errbuf error;

    old = good, old.score = 128;
    if (convert(&one, &old, &two, &result, NULL, &error) != SM_E_LIMIT || !strstr(error.text, "'flows'") ||
        !strstr(error.text, "'score'"))
        return "a number that does not fit was converted";
    old = good, old.state = 2;
    if (convert(&one, &old, &two, &result, NULL, &error) != SM_E_LIMIT)
        return "2 became true";
    now = (struct second){.packets = (uint64_t)-1};
    if (convert(&two, &now, &one, &result, NULL, &error) != SM_E_LIMIT)
        return "-1 became a number without a sign";
    now = (struct second){.packets = 1ull << 32};
    if (convert(&two, &now, &one, &result, NULL, &error) != SM_E_LIMIT)
        return "a number of 33 bits became one of 32";
    now = (struct second){.packets = 1, .rate = 0.1};
    if (convert(&two, &now, &one, &result, NULL, &error) != SM_E_LIMIT)
        return "a double became a float that is not equal";
    now = (struct second){.rate = 1e300};
    if (convert(&two, &now, &one, &result, NULL, &error) != SM_E_LIMIT)
        return "a double became a float that is infinite";
    now = (struct second){.name = "nine char"};
    if (convert(&two, &now, &one, &result, NULL, &error) != SM_E_LIMIT)
        return "a text was cut short";
    return NULL;
}

static int upgrade(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t number, const void *old,
                   size_t old_size, void *user)
{
    struct second *now = flow.state;
    const struct first *was = old;

    (void)replica, (void)cls;
    if (number != 1 || old_size != sizeof *was || user)
        return SM_E_INVALID;
    if (was->packets == 13)
        return SM_E_STATE;
    now->packets = was->packets * 1000ull;
    return 0;
}

static int encode_one(struct sm_replica *replica, sm_class cls, sm_flow flow, struct sm_writer *writer, void *user)
{
    (void)replica, (void)cls, (void)user;
    sm_write_uint(writer, "packets", *(uint32_t *)flow.state);
    return 0;
}

static int decode_any(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t number, sm_value value,
                      void *user)
{
    (void)replica, (void)cls, (void)user;
    *(uint32_t *)flow.state = (uint32_t)sm_value_uint(sm_value_get(value, "packets"), 0) + 10 * number;
    return 0;
}

static const char *by_callbacks(void)
{
    struct sm_class_options one = older(), two = newer();
    struct first old = {.packets = 12};
    struct second now;
    struct sm_errbuf error;

    two.upgrade = upgrade;
    if (convert(&one, &old, &two, &now, NULL, &error) != 0 || now.packets != 12000)
        return "upgrade did not make the record";
    old.packets = 13;
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_STATE || !strstr(error.text, "upgrade"))
        return "upgrade's refusal is not passed on";
    two.oldest_version = 2;
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_CONFLICT || !strstr(error.text, "2 to 2"))
        return "a version that is too old was read";

    one.encode = encode_one, one.decode = decode_any;
    two = older(), two.version = 7, two.encode = encode_one, two.decode = decode_any;
    if (convert(&one, &old, &two, &old, NULL, &error) != 0 || old.packets != 13 + 10)
        return "decode is not given the version";
    if (convert(&two, &old, &one, &old, NULL, &error) != SM_E_CONFLICT)
        return "decode was given what a later version wrote";
    two = newer();
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_CONFLICT || !strstr(error.text, "callbacks"))
        return "what callbacks wrote was read by fields";
    return NULL;
}

static const char *refused(void)
{
    struct sm_class_options one = older(), two = newer();
    struct sm_field fields[8];
    const struct first old = {.packets = 12};
    struct second now;
    struct sm_errbuf error;

    two.version = 1;
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_CONFLICT || !strstr(error.text, "version 1"))
        return "other fields of the same version were taken";
    two.version = 2;
    memcpy(fields, second_fields, sizeof fields);
    two.fields = fields;
    fields[1].scale = 1000;
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_CONFLICT || !strstr(error.text, "'packets'"))
        return "a field of another scale was taken";
    fields[1].scale = 0;
    fields[6].type = SM_FIELD_BYTES;
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_CONFLICT || !strstr(error.text, "'address'"))
        return "a field of another type was taken";
    two = newer(), two.name = "others";
    if (convert(&one, &old, &two, &now, NULL, &error) != SM_E_CONFLICT || !strstr(error.text, "'flows'"))
        return "a class that is not here was taken";
    return NULL;
}

static void no_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    (void)replica, (void)cls, (void)flow, (void)slot, (void)now, (void)user;
}

/* Timers keep their numbers; timeouts are found wherever they are, and begin where there was none. */
static const char *timers(void)
{
    struct sm_class_options one = older(), two = newer();
    const struct first old = {.packets = 12};
    struct second now;
    struct sm_errbuf error;
    uint64_t deadlines[STATE_TIMERS] = {0};

    one.on_timer = two.on_timer = no_timer;
    one.timers = 1, one.hard_timeout_ns = 50;
    two.timers = 2, two.hard_timeout_ns = 60, two.idle_timeout_ns = 70;
    if (convert(&one, &old, &two, &now, deadlines, &error) != 0 || deadlines[0] != 100 || deadlines[1] != 0 ||
        deadlines[2] != 5070 || deadlines[3] != 101)
        return "timers of the newer version are not the older one's";
    if (convert(&two, &now, &one, &now, deadlines, &error) != 0 || deadlines[0] != 100 || deadlines[1] != 103)
        return "timers of the older version are not the newer one's";
    return NULL;
}

/* Classes that offer no way to be copied: registered, and refused by name. */
static const char *not_copied(void)
{
    static const struct {
        const char *words;
        unsigned fields;
        uint32_t alloc_limit;
    } cases[] = {{"neither fields nor callbacks", 0, 0}, {"bytes 12 to 23", 3, 0}, {"sm_alloc", 7, 100}};
    const struct sm_field some[] = {first_fields[4], first_fields[0], first_fields[1]}; /* not in order */
    struct sm_errbuf error;
    struct end end;

    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        options = older();
        options.field_count = cases[i].fields;
        options.alloc_limit = cases[i].alloc_limit;
        if (cases[i].fields == 3)
            options.fields = some;
        if (end_open(&end, setup) != NULL)
            return "a class that cannot be copied was not registered";
        struct sm_key key = {.family = 4};
        struct codec_buffer out = {.bytes = malloc(1000), .size = 1000};
        struct flow *flow;
        if (state_insert(end.replica->actor, 0, 0, &key, 0, &flow) != 0)
            abort();
        bool refuses = codec_complete(&end.replica->codec, &error) == SM_E_CONFLICT &&
                       codec_encode(&end.replica->codec, 0, flow, &out) == SM_E_CONFLICT && out.used == 0;
        free(out.bytes);
        end_close(&end);
        if (!refuses)
            return "a class that cannot be copied was copied";
        if (!strstr(error.text, "'flows'") || !strstr(error.text, cases[i].words)) {
            printf("%s\n", error.text);
            return "the reason does not say which class and why";
        }
    }
    options = older();
    options.encode = encode_one;
    if (end_open(&end, setup) == NULL)
        return "encode was taken without decode";
    end_close(&end);
    return NULL;
}

const char *versions_test(void)
{
    const char *wrong = by_name();

    wrong = wrong ? wrong : narrowed();
    wrong = wrong ? wrong : by_callbacks();
    wrong = wrong ? wrong : refused();
    wrong = wrong ? wrong : timers();
    return wrong ? wrong : not_copied();
}
