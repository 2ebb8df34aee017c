/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the limits of a rate limiter have come to, and which of their keys most did: middleboxes/ratelimiter has them as
 * counters by the number of a limit's drop reason, and in the records of its buckets. The switch says the one, a scan
 * of all flows the other; of a scan no more is kept than was asked for.
 */

#include <stdlib.h>
#include <string.h>

#include "orchestrator.h"

#define MOST_KEYS 1000u
#define SECOND 1000000000u /* ns */

/* A key with its bucket, as a flow of the service. */
struct busy {
    struct sm_key key;
    char class[32];
    uint64_t replica, shard;
    uint64_t limit, passed, exceeded, rate; /* number of a drop reason; rate: passed in the last whole second */
    bool packets;                           /* it counts packets, else bytes */
};

struct limits_call {
    struct orchestrator *o;
    struct rpc_call *call;
    struct wire_out *out;
    json_t *reasons;
    uint64_t second; /* that packet time is in */
    bool by_rate;
    unsigned most, count;
    struct busy busy[]; /* the busiest first */
};

/* What a field of a flow's state says. */
static uint64_t field(const struct wire_value *state, const char *name)
{
    return wire_get_uint(wire_get(state, name), "value", 0);
}

/* Whether `a` goes before `b`: more of what was asked for, then by key. */
static bool goes_before(const struct limits_call *call, const struct busy *a, const struct busy *b)
{
    uint64_t of_a = call->by_rate ? a->rate : a->exceeded, of_b = call->by_rate ? b->rate : b->exceeded;

    return of_a != of_b ? of_a > of_b : memcmp(&a->key, &b->key, sizeof(a->key)) < 0;
}

static bool look_at_flow(void *user, const struct wire_value *flow, const struct sm_key *key, uint32_t shard)
{
    struct limits_call *call = user;
    const struct wire_value *state = wire_get_map(flow, "state");
    const char *class = wire_get_str(flow, "class", "");
    struct busy busy = {.key = *key, .replica = wire_get_uint(flow, "replica", 0), .shard = shard};
    unsigned at;

    if (wire_type(wire_get(state, "exceeded")) == WIRE_ABSENT)
        return true;
    busy.limit = field(state, "limit");
    busy.passed = field(state, "passed");
    busy.exceeded = field(state, "exceeded");
    busy.packets = field(state, "packets") != 0;
    uint64_t second = field(state, "second");
    busy.rate = second == call->second       ? field(state, "last")
                : second + 1 == call->second ? field(state, "current")
                                             : 0;
    strncpy(busy.class, class, sizeof(busy.class) - 1);
    if (call->count == call->most && !goes_before(call, &busy, &call->busy[call->most - 1]))
        return true;
    if (call->count < call->most)
        call->count++;
    for (at = call->count - 1; at > 0 && goes_before(call, &busy, &call->busy[at - 1]); at--)
        call->busy[at] = call->busy[at - 1];
    call->busy[at] = busy;
    return true;
}

/* "limit:NAME" is the drop reason of a limit; NULL: it is another's. */
static const char *limit_name(const char *reason)
{
    return reason && strncmp(reason, "limit:", 6) == 0 ? reason + 6 : NULL;
}

static void put_keys(struct limits_call *call)
{
    wire_array_begin(call->out, "keys");
    for (unsigned i = 0; i < call->count; i++) {
        const struct busy *busy = &call->busy[i];
        wire_map_begin(call->out, NULL);
        wire_put_str(call->out, "class", busy->class);
        wire_put_bin(call->out, "key", &busy->key, sizeof(busy->key));
        wire_put_uint(call->out, "shard", busy->shard);
        wire_put_uint(call->out, "replica", busy->replica);
        wire_map_begin(call->out, "state");
        wire_put_str(call->out, "limit", limit_name(json_string_value(json_array_get(call->reasons, busy->limit))));
        wire_put_uint(call->out, "passed", busy->passed);
        wire_put_str(call->out, "unit", busy->packets ? "packets" : "bytes");
        wire_put_uint(call->out, "exceeded", busy->exceeded);
        wire_put_uint(call->out, "rate", busy->rate);
        wire_map_end(call->out);
        wire_map_end(call->out);
    }
    wire_array_end(call->out);
}

/* Refuse where there is an error, else answer with what there is. */
static void end(void *user, const struct rpc_error *error)
{
    struct limits_call *call = user;

    if (error) {
        rpc_refuse(call->call, error->code, "%s", error->message);
        wire_free(call->out);
    } else {
        put_keys(call);
        rpc_reply(call->call, call->out);
    }
    json_decref(call->reasons);
    free(call);
}

/* The values of counters that are one shared object; absent: there is none. */
static const struct wire_value *counters(const struct wire_value *status, const char *name)
{
    const struct wire_value *shared = wire_get_array(status, "shared");

    for (unsigned i = 0; i < wire_count(shared); i++)
        if (strcmp(wire_get_str(wire_item(shared, i), "name", ""), name) == 0)
            return wire_get_array(wire_item(shared, i), "value");
    return NULL;
}

static void put_counter(struct limits_call *call, const struct wire_value *values, const char *name, unsigned reason)
{
    wire_put_uint(call->out, name, reason < wire_count(values) ? wire_uint(wire_item(values, reason), 0) : 0);
}

static void put_limits(struct limits_call *call, const struct wire_value *status)
{
    const struct wire_value *packets = counters(status, "limits.packets"), *bytes = counters(status, "limits.bytes"),
                            *exceeded = counters(status, "limits.exceeded");
    const struct wire_value *dropped = wire_get(wire_get(status, "packets"), "dropped");

    wire_array_begin(call->out, "limits");
    for (unsigned i = 0; i < json_array_size(call->reasons); i++) {
        const char *reason = json_string_value(json_array_get(call->reasons, i));
        if (!limit_name(reason))
            continue;
        wire_map_begin(call->out, NULL);
        wire_put_str(call->out, "name", limit_name(reason));
        put_counter(call, packets, "packets", i);
        put_counter(call, bytes, "bytes", i);
        put_counter(call, exceeded, "exceeded", i);
        wire_put_uint(call->out, "dropped", wire_get_uint(dropped, reason, 0));
        wire_map_end(call->out);
    }
    wire_array_end(call->out);
}

static void on_status(void *user, const struct rpc_error *error, const struct wire_value *status)
{
    static const struct rpc_error none = {RPC_FAILED, "the service's middlebox has no limits"};
    struct limits_call *call = user;

    if (!error && !counters(status, "limits.exceeded"))
        error = &none;
    if (error) {
        end(call, error);
        return;
    }
    call->reasons = wire_to_json(wire_get(status, "reasons"));
    call->second = wire_get_uint(status, "time", 0) / SECOND;
    wire_put_uint(call->out, "time", wire_get_uint(status, "time", 0));
    put_limits(call, status);
    if (call->most > 0)
        scan_flows(call->o, look_at_flow, end, call);
    else
        end(call, NULL);
}

void limits(struct orchestrator *o, struct rpc_call *call, const struct wire_value *params)
{
    const char *by = wire_get_str(params, "by", "exceeded");
    uint64_t most = wire_get_uint(params, "top", 0);
    struct limits_call *limits;

    if (most > MOST_KEYS || (strcmp(by, "exceeded") != 0 && strcmp(by, "rate") != 0)) {
        rpc_refuse(call, RPC_USAGE, "limits: expected a top of at most %u keys, by exceeded or rate", MOST_KEYS);
        return;
    }
    limits = calloc(1, sizeof(*limits) + most * sizeof(*limits->busy));
    if (!limits) {
        rpc_refuse(call, RPC_FAILED, "out of memory");
        return;
    }
    limits->o = o;
    limits->call = call;
    limits->out = wire_new();
    limits->by_rate = strcmp(by, "rate") == 0;
    limits->most = (unsigned)most;
    rpc_request(o->sw, "status", NULL, 5000, on_status, limits);
}
