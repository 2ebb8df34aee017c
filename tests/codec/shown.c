/* SPDX-License-Identifier: BSD-2-Clause */

/* What `smctl flows` is given of a class with callbacks: the values that encode wrote, by their names. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ends.h"
#include "switch/report.h"

static int encode(struct sm_replica *replica, sm_class cls, sm_flow flow, struct sm_writer *writer, void *user)
{
    (void)replica, (void)cls, (void)user;
    sm_write_uint(writer, "packets", *(const uint64_t *)flow.state);
    sm_write_int(writer, "below", -5);
    sm_write_bool(writer, "flag", true);
    sm_write_double(writer, "half", 0.5);
    sm_write_bytes(writer, "bytes", "\x01\xff", 2);
    sm_write_list(writer, "list");
    sm_write_text(writer, NULL, "first");
    sm_write_map(writer, NULL);
    sm_write_uint(writer, "inner", 300);
    sm_write_end(writer);
    sm_write_end(writer);
    return 0;
}

static int decode(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, sm_value value, void *user)
{
    (void)replica, (void)cls, (void)flow, (void)version, (void)value, (void)user;
    return 0;
}

static int setup(struct sm_replica *replica)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "shown", .record_size = 8, .encode = encode, .decode = decode};
    sm_class cls;

    return sm_class_register(replica, &options, &cls);
}

/* As the switch asks. */
static void ask(struct end *end)
{
    struct sm_replica *replica = end->replica;

    replica->owned[7] = 1;
    replica->in[replica->consumed & replica->channel->ring_mask] = (struct in_entry){.kind = IN_QUERY};
    atomic_store(&replica->channel->in_head, replica->consumed + 1);
    replica_burst(replica, 1);
}

const char *shown_test(void)
{
    static const char expected[] =
        "{\"packets\":{\"value\":77,\"unit\":\"\"},\"below\":{\"value\":-5,\"unit\":\"\"},\"flag\":{\"value\":true,"
        "\"unit\":\"\"},\"half\":{\"value\":0.5,\"unit\":\"\"},\"bytes\":{\"value\":\"01ff\",\"unit\":\"\"},\"list\":{"
        "\"value\":[\"first\",{\"inner\":300}],\"unit\":\"\"}}";
    struct sm_key key = {.family = 4};
    struct flow *flow;
    struct end end;
    struct query_flow shown;
    const char *wrong = end_open(&end, setup);

    if (wrong)
        return wrong;
    if (state_insert(end.replica->actor, 7, 0, &key, state_hash(end.arena->state, &key), &flow) != 0)
        return "no flow was made";
    *(uint64_t *)flow_record(flow) = 77;
    end_commit(&end);
    ask(&end);
    const uint8_t *page = channel_query(end.replica->channel) + sizeof(struct query_header);
    memcpy(&shown, page, sizeof shown);
    json_t *state = report_encoded(page + sizeof shown, shown.record_bytes);
    char *text = json_dumps(state, JSON_COMPACT);
    if (!shown.encoded || strcmp(text, expected) != 0) {
        printf("%s\n", text);
        wrong = "a flow is not shown as its callback wrote it";
    }
    free(text);
    json_decref(state);
    end_close(&end);
    return wrong;
}
