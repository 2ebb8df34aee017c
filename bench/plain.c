/* SPDX-License-Identifier: BSD-2-Clause */

/* What the limiter asks of the library, answered by a plain table; see plain.h and plain_names.h. */

#include "plain_names.h"

#include "plain.h"

#include <splitmerge/splitmerge.h>
#include <stdlib.h>
#include <string.h>

#include "limiter.h"
#include "plain_flows.h"

struct sm_packet {
    struct sm_parsed parsed;
    const struct sm_frame *frame;
    sm_time time;
    bool dropped;
};

/* What the limiter takes for its replica. */
struct plain {
    struct sm_port *in, *out;
    struct sm_parser *parser;
    struct policy *policy;
    struct limiter *limiter;
    struct plain_flows flows;
    uint32_t record_bytes;
    sm_timer_fn *on_timer;
    void *timer_user;
    uint64_t clock, passed, dropped;
    uint64_t counters[3 * SM_MAX_COUNTERS];
    uint32_t counter_count;
};

static struct plain *plain_of(struct sm_replica *replica)
{
    return (struct plain *)(void *)replica;
}

static struct sm_replica *replica_of(struct plain *plain)
{
    return (struct sm_replica *)(void *)plain;
}

int sm_class_register(struct sm_replica *replica, const struct sm_class_options *options, sm_class *cls)
{
    struct plain *plain = plain_of(replica);

    plain->record_bytes = options->record_size;
    plain->on_timer = options->on_timer;
    plain->timer_user = options->user;
    cls->id = 0;
    return 0;
}

bool sm_class_partitioned(const struct sm_replica *replica, sm_class cls)
{
    (void)replica, (void)cls;
    return true;
}

const char *sm_class_known(const struct sm_replica *replica, unsigned index)
{
    (void)replica, (void)index;
    return NULL;
}

int sm_drop_reasons(struct sm_replica *replica, const char *const *names, unsigned count, uint16_t *reasons)
{
    (void)replica, (void)names;
    for (unsigned i = 0; i < count; i++)
        reasons[i] = (uint16_t)i;
    return 0;
}

int sm_counters_register(struct sm_replica *replica, const char *name, uint32_t count, sm_counter *counters)
{
    struct plain *plain = plain_of(replica);

    (void)name;
    if (plain->counter_count + count > sizeof plain->counters / sizeof *plain->counters)
        return SM_E_LIMIT;
    for (uint32_t i = 0; i < count; i++)
        counters[i].place = plain->counter_count++;
    return 0;
}

void sm_counter_add(struct sm_replica *replica, sm_counter counter, int64_t amount)
{
    plain_of(replica)->counters[counter.place] += (uint64_t)amount;
}

int64_t sm_counter_read(const struct sm_replica *replica, sm_counter counter, uint64_t *age_ns)
{
    (void)age_ns;
    return (int64_t)((const struct plain *)(const void *)replica)->counters[counter.place];
}

int sm_drop_reason(struct sm_replica *replica, const char *name, uint16_t *reason)
{
    (void)replica, (void)name;
    *reason = 0;
    return 0;
}

/* The policy of this measurement limits by flow. */
sm_flow sm_flow_get(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag)
{
    struct sm_key key = packet->parsed.key;

    (void)cls;
    key.tag = tag;
    return (sm_flow){plain_flows_find(&plain_of(replica)->flows, &key)};
}

int sm_flow_create(struct sm_replica *replica, sm_class cls, const struct sm_packet *packet, uint16_t tag,
                   sm_flow *flow, bool *created)
{
    struct sm_key key = packet->parsed.key;

    *flow = sm_flow_get(replica, cls, packet, tag);
    if (created)
        *created = flow->state == NULL;
    if (flow->state)
        return 0;
    key.tag = tag;
    *flow = (sm_flow){plain_flows_insert(&plain_of(replica)->flows, &key)};
    return flow->state ? 0 : SM_E_LIMIT;
}

int sm_flow_escrow(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t bytes)
{
    (void)replica, (void)cls, (void)flow, (void)note, (void)bytes;
    return 0;
}

void sm_flow_unescrow(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    (void)replica, (void)cls, (void)flow;
}

void sm_flow_put(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    (void)replica, (void)cls, (void)flow;
}

void sm_flow_close(struct sm_replica *replica, sm_class cls, sm_flow flow)
{
    (void)cls;
    plain_flows_remove(&plain_of(replica)->flows, flow.state);
}

void sm_flow_timer_set(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time deadline)
{
    (void)cls, (void)slot;
    plain_flows_arm(&plain_of(replica)->flows, flow.state, deadline.ns);
}

uint32_t sm_packet_caplen(const struct sm_packet *packet)
{
    return packet->frame->caplen;
}

const uint8_t *sm_packet_data(const struct sm_packet *packet)
{
    return packet->frame->data;
}

const struct sm_headers *sm_packet_headers(const struct sm_packet *packet)
{
    return &packet->parsed.headers;
}

void sm_packet_key(const struct sm_packet *packet, enum sm_granularity granularity, struct sm_key *key)
{
    sm_parsed_key(&packet->parsed, packet->frame->data, packet->frame->caplen, granularity, key);
}

uint32_t sm_packet_len(const struct sm_packet *packet)
{
    return packet->frame->len;
}

sm_time sm_packet_time(const struct sm_packet *packet)
{
    return packet->time;
}

int sm_packet_delay(struct sm_packet *packet, sm_time until)
{
    (void)packet, (void)until;
    return 0;
}

void sm_packet_pass(struct sm_packet *packet)
{
    packet->dropped = false;
}

void sm_packet_drop(struct sm_packet *packet, uint16_t reason)
{
    (void)reason;
    packet->dropped = true;
}

uint8_t *sm_packet_writable(struct sm_packet *packet, uint32_t offset, uint32_t length)
{
    (void)packet, (void)offset, (void)length;
    return NULL; /* nothing is marked in this measurement */
}

sm_time sm_shared_low(const struct sm_replica *replica)
{
    return (sm_time){((const struct plain *)(const void *)replica)->clock};
}

sm_time sm_shared_high(const struct sm_replica *replica)
{
    return sm_shared_low(replica);
}

unsigned sm_slot(const struct sm_replica *replica)
{
    (void)replica;
    return 0;
}

bool sm_standalone(const struct sm_replica *replica)
{
    (void)replica;
    return true;
}

bool sm_shared_wait(struct sm_replica *replica, const struct sm_packet *packet)
{
    (void)replica, (void)packet;
    return true;
}

static void sweep_one(struct plain *plain)
{
    uint64_t deadline;
    void *record = plain_flows_due(&plain->flows, plain->clock, &deadline);

    if (record)
        plain->on_timer(replica_of(plain), (sm_class){0}, (sm_flow){record}, 0, (sm_time){deadline}, plain->timer_user);
}

static void one_packet(struct plain *plain, const struct sm_frame *frame)
{
    struct sm_packet packet = {.frame = frame};
    uint64_t time = sm_frame_time(plain->in, frame).ns;

    plain->clock = time > plain->clock ? time : plain->clock;
    packet.time.ns = plain->clock;
    sm_parse(plain->parser, plain->in->linktype, frame->data, frame->caplen, frame->len, packet.time, &packet.parsed);
    sweep_one(plain);
    limiter_packet(replica_of(plain), &packet, plain->limiter);
    if (packet.dropped) {
        plain->dropped++;
        return;
    }
    plain->passed++;
    plain->out->ops->send(plain->out, frame);
}

void plain_run(struct plain *plain)
{
    struct sm_frame frame;

    while (plain->in->ops->receive(plain->in, &frame) == 1)
        one_packet(plain, &frame);
}

int plain_open(struct plain **out, struct sm_port *in, const char *policy, uint32_t flows, bool library,
               struct sm_errbuf *error)
{
    struct plain *plain = calloc(1, sizeof *plain);
    int result = plain ? 0 : SM_E_NO_MEMORY;

    if (result)
        return result;
    *out = plain;
    plain->in = in;
    plain->policy = policy_parse("bench", policy, strlen(policy), error);
    if (!plain->policy)
        return SM_E_INVALID;
    plain->limiter = limiter_create(plain->policy);
    if (!plain->limiter || sm_parser_create(&plain->parser, 65536) != 0 || sm_port_open_null(&plain->out, in) != 0)
        return SM_E_NO_MEMORY;
    result = limiter_register(plain->limiter, replica_of(plain));
    if (result == 0 && !plain_flows_open(&plain->flows, library, flows, plain->record_bytes))
        result = SM_E_NO_MEMORY;
    return result ? result : limiter_started(plain->limiter, replica_of(plain), error);
}

void plain_close(struct plain *plain)
{
    struct sm_errbuf ignored;

    if (!plain)
        return;
    if (plain->out)
        plain->out->ops->close(plain->out, false, &ignored);
    sm_parser_destroy(plain->parser);
    if (plain->limiter)
        limiter_destroy(plain->limiter);
    policy_free(plain->policy);
    plain_flows_close(&plain->flows);
    free(plain);
}

uint64_t plain_passed(const struct plain *plain)
{
    return plain->passed;
}

uint64_t plain_dropped(const struct plain *plain)
{
    return plain->dropped;
}
