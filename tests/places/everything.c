/* SPDX-License-Identifier: BSD-2-Clause */
#include "everything.h"

#include <stdio.h>
#include <string.h>

#define START 1000000000000000000ull
#define MS 1000000ull
#define PAIRS 24u
#define PORTS 40u
#define WIDE                                                                                                           \
    130u          /* flows of the largest records, all of one shard, with timers of one instant: too much for a burst  \
                   */
#define NODES 14u /* of a pair's list, then it is freed */
#define BIG 200000u
#define CREDIT 100u

unsigned everything_mistakes;
int64_t everything_counted, everything_lowest;
uint64_t everything_locked, everything_kinds;
const bool *everything_ignored;
bool everything_witnessed;

static sm_class pairs, flows, wides, sources, accounts, witnesses;
static sm_counter counter;
static sm_strong_counter credit;
static sm_strong object;
static sm_eventual lowest, kinds;
static uint16_t eleventh;

struct node {
    struct node *next;
    uint64_t number;
};

struct pair {
    uint32_t packets, fired, nodes;
    struct node *list;
    uint8_t *big;
};

struct flow {
    uint32_t packets, fired;
};

struct wide {
    uint32_t packets, fired;
    uint8_t more[SM_MAX_RECORD - 8];
};

struct account {
    uint64_t packets, numbers;
};

static const struct sm_field source_fields[] = {{"packets", SM_FIELD_UINT, 0, 8, NULL, 0}};
static const struct sm_field account_fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct account, packets), 8, NULL, 0},
    {"numbers", SM_FIELD_UINT, offsetof(struct account, numbers), 8, NULL, 0},
};
/* Of a pair's packets, the first to the last: a bit for each that was seen. */
struct witness {
    uint64_t bits;
    uint32_t pair, packets;
};

_Static_assert(EVERYTHING_PACKETS <= 64 * PAIRS, "a bit for each");

static const struct sm_field witness_fields[] = {
    {"bits", SM_FIELD_UINT, offsetof(struct witness, bits), 8, NULL, 0},
    {"pair", SM_FIELD_UINT, offsetof(struct witness, pair), 4, NULL, 0},
    {"packets", SM_FIELD_UINT, offsetof(struct witness, packets), 4, NULL, 0},
};

static const struct sm_field flow_fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct flow, packets), 4, NULL, 0},
    {"fired", SM_FIELD_UINT, offsetof(struct flow, fired), 4, NULL, 0},
};
static const struct sm_field wide_fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct wide, packets), 4, NULL, 0},
    {"fired", SM_FIELD_UINT, offsetof(struct wide, fired), 4, NULL, 0},
    {"more", SM_FIELD_BYTES, offsetof(struct wide, more), SM_MAX_RECORD - 8, NULL, 0},
};

static void mistake(bool made)
{
    everything_mistakes += made;
}

/* ---- conversations of two hosts: chunks of all sizes, two timers ---- */

static void drop_list(struct sm_replica *replica, sm_flow flow, struct pair *pair)
{
    while (pair->list) {
        struct node *next = pair->list->next;
        sm_free(replica, pairs, flow, pair->list);
        pair->list = next;
    }
    pair->nodes = 0;
}

static void grow(struct sm_replica *replica, sm_flow flow, struct pair *pair, uint32_t number)
{
    if (pair->nodes == NODES)
        drop_list(replica, flow, pair);
    struct node *node = sm_alloc(replica, pairs, flow, sizeof *node + number * 37 % 3000);
    mistake(!node);
    if (!node)
        return;
    *node = (struct node){.next = pair->list, .number = number};
    pair->list = node;
    pair->nodes++;
    /* The one behind is written too. */
    if (node->next && sm_writable(replica, node->next, offsetof(struct node, number), sizeof node->next->number))
        node->next->number += number;
}

static void on_pair(struct sm_replica *replica, const struct sm_packet *packet, uint32_t number)
{
    bool created;
    sm_flow flow;

    int result = sm_flow_create(replica, pairs, packet, 0, &flow, &created);
    mistake(result != 0);
    if (result)
        return;
    struct pair *pair = flow.state;
    pair->packets++;
    if (number % 3 == 0)
        grow(replica, flow, pair, number);
    if (pair->big) {
        sm_free(replica, pairs, flow, pair->big);
        pair->big = NULL;
    } else if (number % 7 == 0) {
        pair->big = sm_alloc(replica, pairs, flow, BIG);
        mistake(!pair->big);
        if (pair->big)
            pair->big[BIG - 1] = (uint8_t)number;
    }
    uint64_t now = sm_packet_time(packet).ns;
    sm_flow_timer_set(replica, pairs, flow, number % 2, (sm_time){now + (5 + number % 11) * MS});
    if (number % 13 == 0)
        sm_flow_timer_cancel(replica, pairs, flow, 1 - number % 2);
    if (pair->packets == 50)
        sm_flow_close(replica, pairs, flow);
}

static int encode_pair(struct sm_replica *replica, sm_class cls, sm_flow flow, struct sm_writer *writer, void *user)
{
    const struct pair *pair = flow.state;
    uint64_t numbers[NODES];
    uint32_t count = 0;

    (void)replica, (void)cls, (void)user;
    for (const struct node *node = pair->list; node; node = node->next)
        numbers[count++] = node->number;
    sm_write_uint(writer, "packets", pair->packets);
    sm_write_uint(writer, "fired", pair->fired);
    sm_write_list(writer, "list");
    while (count-- > 0)
        sm_write_uint(writer, NULL, numbers[count]);
    sm_write_end(writer);
    if (pair->big)
        sm_write_uint(writer, "big", pair->big[BIG - 1]);
    return 0;
}

static int decode_pair(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, sm_value value,
                       void *user)
{
    struct pair *pair = flow.state;
    const uint64_t big = sm_value_uint(sm_value_get(value, "big"), UINT64_MAX);
    sm_value list = sm_value_get(value, "list"), item = {NULL, NULL};

    (void)cls, (void)version, (void)user;
    pair->packets = (uint32_t)sm_value_uint(sm_value_get(value, "packets"), 0);
    pair->fired = (uint32_t)sm_value_uint(sm_value_get(value, "fired"), 0);
    while (sm_value_next(list, &item)) {
        const uint64_t number = sm_value_uint(item, 0);
        struct node *node = sm_alloc(replica, pairs, flow, sizeof *node + number * 37 % 3000);
        if (!node)
            return SM_E_LIMIT;
        *node = (struct node){.next = pair->list, .number = number};
        pair->list = node;
        pair->nodes++;
    }
    if (big != UINT64_MAX && !(pair->big = sm_alloc(replica, pairs, flow, BIG)))
        return SM_E_LIMIT;
    if (pair->big)
        pair->big[BIG - 1] = (uint8_t)big;
    return 0;
}

static void pair_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct pair *pair = flow.state;

    (void)user;
    if (++pair->fired % 4 == 0)
        sm_flow_timer_set(replica, cls, flow, slot, (sm_time){now.ns + 3 * MS});
}

/* ---- flows: many a shard, that come and go ---- */

/* Keys of nobody's packets. */
static void bind_two(struct sm_replica *replica, sm_flow flow, uint32_t number)
{
    static const uint8_t from[4] = {192, 0, 2, 1}, to[4] = {192, 0, 2, 2};
    struct sm_key keys[2];

    for (unsigned i = 0; i < 2; i++) {
        sm_key_make(&keys[i], 4, 17, from, (uint16_t)number, to, (uint16_t)i);
        mistake(sm_flow_bind(replica, flows, flow, &keys[i]) != 0);
    }
    mistake(sm_flow_unbind(replica, flows, flow, &keys[0]) != 0);
}

static void on_flow(struct sm_replica *replica, const struct sm_packet *packet, uint32_t number)
{
    uint16_t tag = (uint16_t)(1 + number / PAIRS * 7 % PORTS);
    sm_flow flow;

    int result = sm_flow_create(replica, flows, packet, tag, &flow, NULL);
    mistake(result != 0);
    if (result)
        return;
    struct flow *record = flow.state;
    sm_flow_timer_set(replica, flows, flow, 0, (sm_time){sm_packet_time(packet).ns + 90 * MS});
    if (number % 32 == 6)
        bind_two(replica, flow, number);
    if (++record->packets == 3)
        sm_flow_close(replica, flows, flow);
}

static void flow_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    (void)replica, (void)cls, (void)slot, (void)now, (void)user;
    ((struct flow *)flow.state)->fired++;
}

static void flow_expire(struct sm_replica *replica, sm_class cls, sm_flow flow, enum sm_ending why, sm_time now,
                        void *user)
{
    (void)replica, (void)cls, (void)why, (void)now, (void)user;
    ((struct flow *)flow.state)->packets = 0;
}

/* ---- wide ones ---- */

static void on_wide(struct sm_replica *replica, const struct sm_packet *packet, uint32_t number)
{
    sm_flow flow;

    for (uint16_t tag = (uint16_t)(number % 5 * 26 + 1); tag <= number % 5 * 26 + 26; tag++) {
        mistake(sm_flow_create(replica, wides, packet, tag, &flow, NULL) != 0);
        if (!flow.state)
            return;
        struct wide *wide = flow.state;
        wide->packets++;
        wide->more[tag] = (uint8_t)tag;
        sm_flow_timer_set(replica, wides, flow, 0, (sm_time){START + 400 * MS});
    }
}

static void wide_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct wide *wide = flow.state;

    (void)user;
    if (++wide->fired < 6)
        sm_flow_timer_set(replica, cls, flow, slot, (sm_time){now.ns + 300 * MS});
}

/* ---- the packet ---- */

/* Shared by all replicas: what is done to these is final before the burst is, so only that they are there counts. */
static void on_source(struct sm_replica *replica, const struct sm_packet *packet, uint32_t number)
{
    sm_flow flow;

    int result = sm_flow_create(replica, sources, packet, 0, &flow, NULL);
    mistake(result != 0);
    if (result)
        return;
    ++*(uint64_t *)flow.state;
    if (number % 2)
        sm_flow_close(replica, sources, flow);
    else
        sm_flow_put(replica, sources, flow);
}

/* One part of the record is added to, another changed and, for some packets, changed back, each with its note. */
static void change_account(struct sm_replica *replica, const struct sm_packet *packet, uint64_t number, bool back)
{
    sm_flow flow;

    int result = sm_flow_create(replica, accounts, packet, 0, &flow, NULL);
    mistake(result != 0);
    if (result)
        return;
    ((struct account *)flow.state)->numbers += back ? -number : number;
    if (back)
        sm_flow_unescrow(replica, accounts, flow);
    else
        mistake(sm_flow_escrow(replica, accounts, flow, &number, sizeof number) != 0);
    sm_flow_put(replica, accounts, flow);
}

static void undo_account(struct sm_replica *replica, sm_class cls, sm_flow flow, const void *note, size_t size,
                         void *user)
{
    uint64_t number = 0;

    (void)replica, (void)cls, (void)user;
    memcpy(&number, note, size);
    ((struct account *)flow.state)->numbers -= number;
}

static void on_account(struct sm_replica *replica, const struct sm_packet *packet, uint32_t number)
{
    mistake(sm_flow_add(replica, accounts, packet, 0, offsetof(struct account, packets), 1) != 0);
    change_account(replica, packet, number, false);
    if (number % 2)
        change_account(replica, packet, number, true);
}

static void on_witness(struct sm_replica *replica, const struct sm_packet *packet, uint32_t number)
{
    sm_flow flow;

    mistake(sm_flow_create(replica, witnesses, packet, 0, &flow, NULL) != 0);
    if (!flow.state)
        return;
    struct witness *witness = flow.state;
    witness->pair = number % PAIRS;
    witness->bits |= 1ull << number / PAIRS;
    witness->packets++;
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t number;

    (void)user;
    memcpy(&number, sm_packet_data(packet) + 28, sizeof number);
    if (everything_ignored && everything_ignored[number])
        return;
    if (everything_witnessed)
        on_witness(replica, packet, number);
    sm_counter_add(replica, counter, 1);
    const int64_t value = number;
    mistake(sm_eventual_update(replica, lowest, &value) != 0 || sm_eventual_update(replica, kinds, &value) != 0);
    sm_strong_counter_add(replica, credit, 2);
    mistake(number % 3 == 0 && sm_strong_counter_take(replica, credit, 1) != 0);
    uint64_t *locked = sm_shared_get(replica, object, SM_PULL | SM_SYNCH, NULL);
    everything_locked = ++*locked;
    sm_shared_put(replica, object, SM_PUSH | SM_SYNCH);
    on_source(replica, packet, number);
    on_account(replica, packet, number);
    on_pair(replica, packet, number);
    on_flow(replica, packet, number);
    if (number < PAIRS * 5 && number % PAIRS == 0)
        on_wide(replica, packet, number / PAIRS);
    if (number % 5 == 0)
        sm_packet_send(replica, packet, sm_packet_data(packet), sm_packet_caplen(packet));
    uint8_t *payload = number % 7 == 0 ? sm_packet_writable(packet, 32, 4) : NULL;
    if (payload)
        payload[3]++;
    if (number % 11 == 0)
        sm_packet_drop(packet, eleventh);
}

static void hook(struct sm_replica *replica, sm_class cls, sm_flow flow, void *user)
{
    (void)replica, (void)cls, (void)flow, (void)user;
}

static int register_all(struct sm_replica *replica, bool two)
{
    const struct sm_class_options classes[] = {
        {.size = sizeof *classes,
         .name = "pairs",
         .record_size = sizeof(struct pair),
         .granularity = SM_BY_FLOW,
         .timers = 2,
         .on_timer = pair_timer,
         .alloc_limit = 2 * BIG,
         .limit = two ? 60000 : 50000,
         .encode = encode_pair,
         .decode = decode_pair,
         .on_adopt = hook,
         .on_release = hook},
        {.size = sizeof *classes,
         .name = "flows",
         .record_size = sizeof(struct flow),
         .granularity = SM_BY_FLOW,
         .version = 1 + two,
         .timers = 1 + two,
         .on_timer = flow_timer,
         .on_expire = flow_expire,
         .fields = flow_fields,
         .field_count = 2,
         .idle_timeout_ns = 250 * MS,
         .hard_timeout_ns = 800 * MS,
         .binds = "udp and ip[28] & 31 = 6"},
        {.size = sizeof *classes,
         .name = "wides",
         .record_size = sizeof(struct wide),
         .granularity = SM_BY_FLOW,
         .timers = 1,
         .fields = wide_fields,
         .field_count = 3,
         .on_timer = wide_timer},
        {.size = sizeof *classes,
         .name = "sources",
         .record_size = 8,
         .granularity = SM_BY_SOURCE,
         .may_share = true,
         .fields = source_fields,
         .field_count = 1},
        {.size = sizeof *classes,
         .name = "accounts",
         .record_size = sizeof(struct account),
         .fields = account_fields,
         .field_count = 2,
         .granularity = SM_BY_SOURCE,
         .may_share = true,
         .on_undo = undo_account},
        {.size = sizeof *classes,
         .name = "witnesses",
         .record_size = sizeof(struct witness),
         .granularity = SM_BY_FLOW,
         .fields = witness_fields,
         .field_count = 3},
    };
    sm_class *const ids[] = {&pairs, &flows, &wides, &sources, &accounts, &witnesses};
    int result = sm_drop_reason(replica, "eleventh", &eleventh);

    for (unsigned i = 0; result == 0 && i < sizeof classes / sizeof *classes; i++)
        result = sm_class_register(replica, &classes[i], ids[i]);
    const struct sm_eventual_options least = {.size = sizeof least, .name = "lowest", .combiner = SM_MIN};
    const struct sm_eventual_options different = {
        .size = sizeof different, .name = "kinds", .combiner = SM_DISTINCT, .value_size = 8};
    result = result ? result : sm_counter_register(replica, "packets", &counter);
    result = result ? result : sm_eventual_register(replica, &least, &lowest);
    result = result ? result : sm_eventual_register(replica, &different, &kinds);
    result = result ? result : sm_strong_counter_register(replica, "credit", CREDIT, &credit);
    return result ? result : sm_strong_register(replica, "locked", sizeof(uint64_t), &object);
}

static int setup(struct sm_replica *replica, void **user)
{
    (void)user;
    return register_all(replica, false);
}

int everything_setup_two(struct sm_replica *replica, void **user)
{
    (void)user;
    return register_all(replica, true);
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)user;
    everything_counted = sm_counter_read(replica, counter, NULL);
    sm_eventual_read(replica, lowest, &everything_lowest, sizeof everything_lowest, NULL);
    sm_eventual_read(replica, kinds, &everything_kinds, sizeof everything_kinds, NULL);
}

/* Of a record, without the addresses in it and with what they lead to. */
static uint64_t digest(const struct sm_test_flow *flow)
{
    uint64_t number = flow->cls.id;

    if (flow->cls.id == sources.id)
        return number;
    if (flow->cls.id == accounts.id) {
        const struct account *account = flow->record;
        return account->packets << 32 | account->numbers;
    }
    if (flow->cls.id == witnesses.id)
        return number + ((const struct witness *)flow->record)->bits;
    const uint32_t *numbers = flow->record;
    number += (uint64_t)numbers[0] << 32 | numbers[1];
    if (flow->cls.id != pairs.id)
        return number;
    const struct pair *pair = flow->record;
    for (const struct node *node = pair->list; node; node = node->next)
        number = number * 31 + node->number;
    return number * 31 + pair->nodes + (pair->big ? pair->big[BIG - 1] : 1000);
}

struct seen {
    bool *packets;
    bool once;
};

static bool see(const struct sm_test_flow *flow, void *arg)
{
    struct seen *seen = arg;
    const struct witness *witness = flow->record;

    if (flow->cls.id != witnesses.id)
        return true;
    for (uint32_t number = witness->pair; number < EVERYTHING_PACKETS; number += PAIRS)
        seen->packets[number] = witness->bits >> number / PAIRS & 1;
    seen->once &= witness->packets == (uint32_t)__builtin_popcountll(witness->bits);
    return true;
}

bool everything_seen(const struct sm_test *test, bool packets[EVERYTHING_PACKETS])
{
    struct seen seen = {packets, true};

    memset(packets, 0, EVERYTHING_PACKETS * sizeof *packets);
    sm_test_flows(test, see, &seen);
    return seen.once;
}

struct sm_test_options everything_options(const struct sm_trace *trace)
{
    everything_mistakes = 0;
    return (struct sm_test_options){.size = sizeof(struct sm_test_options),
                                    .on_packet = on_packet,
                                    .max_sends = 1,
                                    .setup = setup,
                                    .ended = ended,
                                    .input = trace,
                                    .order_arrival = true,
                                    .digest = digest,
                                    .memory = 600 * 65536,
                                    .buffers = 128,
                                    .check_every = 1u << 30};
}

struct sm_trace *everything_trace(void)
{
    struct sm_trace *trace = sm_trace_create();
    uint64_t now = START;

    for (uint32_t i = 0; trace && i < EVERYTHING_PACKETS; i++) {
        char from[32], to[32];
        uint32_t payload[2] = {i, 0};
        now += i % 300 == 299 ? 310 * MS : i % 4 == 0 ? 0 : MS;
        snprintf(from, sizeof from, "10.0.0.%u:%u", 1 + i % PAIRS, 1024u);
        snprintf(to, sizeof to, "10.1.0.%u:53", 1 + i % PAIRS);
        if (sm_trace_udp(trace, (sm_time){now}, from, to, payload, sizeof payload) != 0) {
            sm_trace_destroy(trace);
            return NULL;
        }
    }
    return trace;
}
