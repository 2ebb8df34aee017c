/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From the first words with the switch to where the service is. Where the switch has just been started that is the
 * beginning. Else there was an orchestrator before us, which has died: what it intended the switch has kept, and what
 * has become of that the switch's status says; the two together are all that we need to know.
 *
 * The replicas are not our children: a descriptor of the process tells when they end, and nobody tells us how.
 */

#include <stdio.h>
#include <string.h>

#include "orchestrator.h"

#define ANSWER_MS 30000

static void take_text(struct orchestrator *o, const uint8_t *text, size_t bytes)
{
    struct wire_reader *reader = text ? wire_reader_new() : NULL;
    size_t room;
    void *space;
    while (reader && bytes > 0 && (space = wire_reader_space(reader, &room)) != NULL) {
        size_t part = bytes < room ? bytes : room;
        memcpy(space, text, part);
        wire_reader_filled(reader, part);
        text += part;
        bytes -= part;
    }
    if (reader && (bytes > 0 || wire_reader_next(reader, &o->kept_text) != 1))
        o->kept_text = NULL;
    wire_reader_free(reader);
}

/* The replicas that are there. Returns how many. */
static unsigned take_replicas(struct orchestrator *o, const struct wire_value *list,
                              struct ops_present present[OPS_MAX_REPLICAS])
{
    static const struct {
        const char *name;
        enum ops_replica_state state;
    } states[] = {{"attached", OPS_REPLICA_STARTING}, {"ready", OPS_REPLICA_READY}, {"retiring", OPS_REPLICA_RETIRING}};
    unsigned count = 0;
    for (unsigned i = 0; i < wire_count(list) && count < OPS_MAX_REPLICAS; i++) {
        const struct wire_value *replica = wire_item(list, i);
        uint32_t id = (uint32_t)wire_get_uint(replica, "id", 0);
        for (unsigned k = 0; k < sizeof(states) / sizeof(*states); k++) {
            if (strcmp(wire_get_str(replica, "state", ""), states[k].name) != 0)
                continue;
            /* One whose process has ended, and of which the switch has not heard yet, is not waited for. */
            if (child_adopt(o, id, (pid_t)wire_get_int(replica, "pid", 0)))
                present[count++] = (struct ops_present){.id = id, .state = states[k].state};
        }
    }
    return count;
}

static uint64_t assigned(const struct wire_value *list)
{
    uint64_t shards = 0;
    for (unsigned i = 0; i < wire_count(list); i++)
        shards += wire_get_uint(wire_item(list, i), "shards", 0);
    return shards;
}

/* How many of the replicas that there ought to be are missing, where nobody has kept how many that is. */
static int missing_at_start(const struct orchestrator *o, unsigned count)
{
    return (int)o->service.replicas.start - (int)count;
}

static void on_status(void *user, const struct rpc_error *error, const struct wire_value *status)
{
    struct orchestrator *o = user;
    struct ops_present present[OPS_MAX_REPLICAS];
    const struct wire_value *list = wire_get_array(status, "replicas");
    const char *state = wire_get_str(status, "state", "waiting");
    if (o->phase != PHASE_CONNECTING)
        return;
    if (error) {
        orchestrator_fail(o, "the switch does not answer: %s", error->message);
        return;
    }
    if (o->kept_text)
        intent_read(o, wire_message_value(o->kept_text));
    unsigned count = take_replicas(o, list, present);
    int missing = ops_resume(&o->ops, present, count, o->kept_moving != 0);
    o->move_id = o->kept_moving;
    children_learn(o, status);
    if (strcmp(state, "waiting") == 0 && (assigned(list) == 0 || o->stop_asked)) {
        orchestrator_begin(o); /* or leaves, if that is asked */
        return;
    }
    if (!o->kept_text)
        missing = missing_at_start(o, count);
    o->missing += missing > 0 ? (unsigned)missing : 0;
    o->surplus += missing < 0 ? (unsigned)-missing : 0;
    log_write(LEVEL_NOTICE, "resumed", LOG_WITH(log_number("replicas", count)),
              "goes on with the service where it is: %u replicas, %s", count,
              o->ops.stage == OPS_IDLE ? "no operation" : "an operation under way");
    if (strcmp(state, "waiting") == 0 && o->restore_file)
        orchestrator_fail(o, "the orchestrator died while %s was restored: nothing has been read yet, run it again",
                          o->restore_file);
    else if (strcmp(state, "waiting") == 0)
        orchestrator_launch(o);
    else
        orchestrator_goes_on(o, state, wire_get_uint(wire_get_map(status, "packets"), "in", 0));
}

static void on_kept(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct orchestrator *o = user;
    size_t bytes = 0;
    if (o->phase != PHASE_CONNECTING)
        return;
    if (error) {
        orchestrator_fail(o, "the switch does not answer: %s", error->message);
        return;
    }
    const uint8_t *text = wire_get_bin(result, "text", &bytes);
    take_text(o, text, bytes);
    o->kept_moving = (uint32_t)wire_get_uint(result, "moving", 0);
    o->ops.last_id = (uint32_t)wire_get_uint(result, "last_id", 0);
    rpc_request(o->sw, "status", NULL, ANSWER_MS, on_status, o);
}

/* The last orchestrator's moves have come to their end while we asked: nothing is left to wait for. */
void resume_moved(struct orchestrator *o, const struct wire_value *params)
{
    if (wire_get_uint(params, "id", 0) == o->kept_moving)
        o->kept_moving = 0;
}

void resume(struct orchestrator *o)
{
    rpc_request(o->sw, "kept", NULL, ANSWER_MS, on_kept, o);
}
