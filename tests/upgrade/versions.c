/* SPDX-License-Identifier: BSD-2-Clause */
#include "versions.h"

#include <gnu/libc-version.h>

#include <stdlib.h>
#include <string.h>

#define TICK_NS 5000000u
#define IDLE_NS 60000000u
#define HARD_NS 400000000u

sm_hook_fn *adopting;
bool with_lists, lists_return;
bool lists_hold_code;
_Atomic uint64_t upgrades, downgrades, mistakes;

struct one {
    uint32_t packets;
    uint16_t ticks;
    uint8_t pad[2];
    uint64_t last;
};

struct two {
    uint64_t seen; /* by this version */
    uint64_t last;
    uint64_t packets;
    uint16_t ticks;
    uint8_t pad[6];
};

#define FIELD(type_, member, kind)                                                                                     \
    {                                                                                                                  \
        .name = #member, .type = kind, .offset = offsetof(struct type_, member),                                       \
        .size = sizeof(((struct type_ *)0)->member)                                                                    \
    }

static const struct sm_field fields_one[] = {FIELD(one, packets, SM_FIELD_UINT), FIELD(one, ticks, SM_FIELD_UINT),
                                             FIELD(one, last, SM_FIELD_TIME)};
static const struct sm_field fields_two[] = {FIELD(two, seen, SM_FIELD_UINT), FIELD(two, last, SM_FIELD_TIME),
                                             FIELD(two, packets, SM_FIELD_UINT), FIELD(two, ticks, SM_FIELD_UINT)};

/* Version 1: a stack of numbers; version 2: an array of them, and their sum. */
struct node {
    struct node *next;
    uint64_t number;
};

struct list_one {
    struct node *first;
    uint64_t count;
};

struct list_two {
    uint64_t sum, count;
    uint64_t *numbers;
};

#define LIST_MAX 24u

static const struct sm_class counts = {0}, lists = {1};

static bool drops(uint64_t packets, uint64_t ticks, uint64_t sum)
{
    return (packets + ticks + sum) % 3 == 0;
}

/* ---- lists ---- */

static uint64_t push_one(struct sm_replica *replica, const struct sm_packet *packet, uint64_t number)
{
    bool created;
    sm_flow flow;
    uint64_t sum = 0;

    if (sm_flow_create(replica, lists, packet, 0, &flow, &created) != 0)
        abort();
    struct list_one *list = flow.state;
    if (list->count == LIST_MAX) {
        struct node *old = list->first;
        list->first = old->next;
        list->count--;
        sm_free(replica, lists, flow, old);
    }
    struct node *node = sm_alloc(replica, lists, flow, sizeof *node);
    if (!node)
        abort();
    *node = (struct node){list->first, number};
    list->first = node;
    list->count++;
    for (const struct node *at = node; at; at = at->next)
        sum += at->number;
    return sum;
}

static uint64_t push_two(struct sm_replica *replica, const struct sm_packet *packet, uint64_t number)
{
    bool created;
    sm_flow flow;

    if (sm_flow_create(replica, lists, packet, 0, &flow, &created) != 0)
        abort();
    struct list_two *list = flow.state;
    if (!list->numbers)
        list->numbers = sm_alloc(replica, lists, flow, LIST_MAX * sizeof *list->numbers);
    if (!list->numbers || !sm_writable(replica, list->numbers, 0, LIST_MAX * sizeof *list->numbers))
        abort();
    if (list->count == LIST_MAX)
        list->sum -= list->numbers[--list->count];
    list->numbers[list->count++] = number;
    list->sum += number;
    return list->sum;
}

static int upgrade_list(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, const void *old,
                        size_t old_size, void *user)
{
    const struct list_one *from = old;
    struct list_two *to = flow.state;

    (void)user;
    if (version != 1 || old_size != sizeof *from)
        return SM_E_INVALID;
    upgrades++;
    to->numbers = sm_alloc(replica, cls, flow, LIST_MAX * sizeof *to->numbers);
    if (!to->numbers)
        return SM_E_NO_MEMORY;
    to->count = from->count;
    uint64_t i = to->count;
    for (const struct node *at = from->first; at; at = at->next) {
        to->numbers[--i] = at->number;
        to->sum += at->number;
    }
    return i == 0 ? 0 : SM_E_DAMAGED;
}

static int downgrade_list(struct sm_replica *replica, sm_class cls, sm_flow flow, uint32_t version, const void *from,
                          size_t from_size, void *user)
{
    const struct list_two *list = from;
    struct list_one *to = flow.state;

    (void)user;
    if (version != 1 || from_size != sizeof *list)
        return SM_E_INVALID;
    downgrades++;
    for (; to->count < list->count; to->count++) {
        struct node *node = sm_alloc(replica, cls, flow, sizeof *node);
        if (!node)
            return SM_E_NO_MEMORY;
        *node = (struct node){to->first, list->numbers[to->count]};
        to->first = node;
    }
    return 0;
}

/* ---- counts ---- */

static void on_timer_one(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct one *record = flow.state;

    (void)slot, (void)user;
    record->ticks++;
    if (record->ticks % 4 != 0)
        sm_flow_timer_set(replica, cls, flow, 0, (sm_time){now.ns + TICK_NS});
}

/* The slot that this version has more is armed by it alone, and does nothing. */
static void on_timer_two(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now, void *user)
{
    struct two *record = flow.state;

    (void)user;
    if (slot == 1)
        return;
    record->ticks++;
    if (record->ticks % 4 != 0)
        sm_flow_timer_set(replica, cls, flow, 0, (sm_time){now.ns + TICK_NS});
}

static void finish(struct sm_replica *replica, struct sm_packet *packet, sm_flow flow, uint64_t packets, uint64_t ticks,
                   uint64_t sum)
{
    (void)flow;
    (void)replica;
    if (drops(packets, ticks, sum))
        sm_packet_drop(packet, 0);
}

void on_packet_one(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    bool created;
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, counts, packet, 0, &flow, &created) != 0)
        abort();
    struct one *record = flow.state;
    record->packets++;
    record->last = sm_packet_time(packet).ns;
    if (sm_flow_timer_get(replica, counts, flow, 0).ns == 0)
        sm_flow_timer_set(replica, counts, flow, 0, (sm_time){record->last + TICK_NS});
    uint64_t sum = with_lists ? push_one(replica, packet, record->packets) : 0;
    finish(replica, packet, flow, record->packets, record->ticks, sum);
}

void on_packet_two(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    bool created;
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, counts, packet, 0, &flow, &created) != 0)
        abort();
    struct two *record = flow.state;
    mistakes += record->seen > record->packets;
    record->seen++;
    record->packets++;
    record->last = sm_packet_time(packet).ns;
    sm_flow_timer_set(replica, counts, flow, 1, (sm_time){record->last + 3 * TICK_NS});
    if (sm_flow_timer_get(replica, counts, flow, 0).ns == 0)
        sm_flow_timer_set(replica, counts, flow, 0, (sm_time){record->last + TICK_NS});
    uint64_t sum = with_lists ? push_two(replica, packet, record->packets) : 0;
    finish(replica, packet, flow, record->packets, record->ticks, sum);
}

uint64_t kept(const struct sm_test_flow *flow)
{
    if (flow->cls.id == lists.id) {
        uint64_t sum = 0;
        const struct list_one *list = flow->record;
        if (flow->record_size == sizeof(struct list_two))
            return ((const struct list_two *)flow->record)->sum;
        for (const struct node *at = list->first; at; at = at->next)
            sum += at->number;
        return sum;
    }
    if (flow->record_size == sizeof(struct two)) {
        const struct two *two = flow->record;
        return two->packets << 40 ^ (uint64_t)two->ticks << 24 ^ two->last;
    }
    const struct one *one = flow->record;
    return (uint64_t)one->packets << 40 ^ (uint64_t)one->ticks << 24 ^ one->last;
}

static int setup(struct sm_replica *replica, unsigned version)
{
    const struct sm_class_options count = {
        .size = sizeof count,
        .name = "counts",
        .version = version,
        .record_size = version == 1 ? sizeof(struct one) : sizeof(struct two),
        .fields = version == 1 ? fields_one : fields_two,
        .field_count = version == 1 ? 3 : 4,
        .timers = (uint8_t)version,
        .on_timer = version == 1 ? on_timer_one : on_timer_two,
        .idle_timeout_ns = IDLE_NS,
        .on_adopt = adopting,
        .hard_timeout_ns = HARD_NS,
    };
    const struct sm_class_options list = {
        .size = sizeof list,
        .name = "lists",
        .version = version,
        .record_size = version == 1 ? sizeof(struct list_one) : sizeof(struct list_two),
        .alloc_limit = 4096,
        .upgrade = version == 1 ? NULL : upgrade_list,
        .downgrade = version == 2 && lists_return ? downgrade_list : NULL,
        .idle_timeout_ns = 3 * (uint64_t)IDLE_NS,
        .code = !lists_hold_code ? NULL
                : version == 1   ? (const void *)fields_one
                                 : gnu_get_libc_version(), /* of two builds */
    };
    uint16_t reason;
    sm_class cls;

    int result = sm_drop_reason(replica, "third", &reason);
    if (result == 0)
        result = sm_class_register(replica, &count, &cls);
    if (result == 0 && with_lists)
        result = sm_class_register(replica, &list, &cls);
    return result;
}

int setup_one(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica, 1);
}

int setup_two(struct sm_replica *replica, void **user)
{
    (void)user;
    return setup(replica, 2);
}
