/* SPDX-License-Identifier: BSD-2-Clause */
#include <stdlib.h>
#include <string.h>

#include "orchestrator.h"

#define SCAN_PAGE 4096 /* flows asked for at a time */

/* The switch serves one request for flows at a time, so scans wait for each other: the list's head is under way. */
struct scan {
    struct orchestrator *o;
    scan_flow_fn *flow;
    scan_done_fn *done;
    void *user;
    struct scan *next;
};

static void ask(struct scan *scan, const struct wire_value *cursor);

static void end(struct scan *scan, const struct rpc_error *error)
{
    struct orchestrator *o = scan->o;
    o->scans = scan->next;
    scan->done(scan->user, error);
    free(scan);
    if (o->scans)
        ask(o->scans, NULL);
}

static void on_page(void *user, const struct rpc_error *error, const struct wire_value *result)
{
    struct scan *scan = user;
    if (error) {
        end(scan, error);
        return;
    }
    const struct wire_value *flows = wire_get_array(result, "flows"), *cursor = wire_get(result, "cursor");
    for (unsigned i = 0; i < wire_count(flows); i++) {
        const struct wire_value *flow = wire_item(flows, i);
        struct sm_key key;
        size_t length;
        const uint8_t *bytes = wire_get_bin(flow, "key", &length);
        if (length != sizeof(key))
            continue;
        memcpy(&key, bytes, sizeof(key));
        if (!scan->flow(scan->user, flow, &key, (uint32_t)wire_get_uint(flow, "shard", UINT32_MAX))) {
            end(scan, NULL);
            return;
        }
    }
    if (wire_type(cursor) == WIRE_ABSENT || wire_type(cursor) == WIRE_NIL)
        end(scan, NULL);
    else
        ask(scan, cursor);
}

static void ask(struct scan *scan, const struct wire_value *cursor)
{
    static const struct rpc_error gone = {RPC_FAILED, "the switch is gone"};
    struct wire_out *params = wire_new();
    if (!scan->o->sw) {
        wire_free(params);
        end(scan, &gone);
        return;
    }
    if (cursor)
        wire_put_value(params, "cursor", cursor);
    wire_put_uint(params, "limit", SCAN_PAGE);
    rpc_request(scan->o->sw, "flows", params, 0, on_page, scan);
}

void scan_flows(struct orchestrator *o, scan_flow_fn *flow, scan_done_fn *done, void *user)
{
    static const struct rpc_error no_memory = {RPC_FAILED, "out of memory"};
    struct scan *scan = malloc(sizeof(*scan));
    if (!scan) {
        done(user, &no_memory);
        return;
    }
    *scan = (struct scan){o, flow, done, user, NULL};
    struct scan **link = &o->scans;
    while (*link)
        link = &(*link)->next;
    *link = scan;
    if (o->scans == scan)
        ask(scan, NULL);
}
