/* SPDX-License-Identifier: BSD-2-Clause */
/* The test kit: a service is made, driven to its end, and taken down. See test.h. */

#include "testing/test.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "testing/random.h"

#define STEP_NS 1000ull /* of virtual time */
#define CHECK_EVERY 4096u
#define SNAPSHOT_AT_ONCE UINT32_MAX /* whole parts: replicas on threads are seldom without packets */

uint64_t sm_test_random(uint64_t *state)
{
    return random_star(state);
}

uint64_t test_below(struct sm_test *test, uint64_t bound)
{
    return (sm_test_random(&test->random) >> 11) % bound;
}

unsigned test_ready(const struct sm_test *test, unsigned *slots)
{
    unsigned count = 0;

    for (unsigned i = 0; i < test->sw->slot_count; i++)
        if (test->sw->slots[i].state == SLOT_READY)
            slots[count++] = i;
    return count;
}

static void *run_thread(void *arg)
{
    struct member *member = arg;

    while (!member->replica->retired)
        if (replica_burst(member->replica, CHANNEL_BURST) == 0)
            sched_yield();
    atomic_store(&member->through, true);
    return NULL;
}

struct registering {
    struct sm_replica *replica;
    int result;
    struct sm_errbuf *error;
};

static void register_replica(struct sm_test *test, void *arg)
{
    struct registering *r = arg;

    r->result = arena_register(test->arena, r->replica->slot, r->replica->registration, r->error);
}

/* Between sm_open() and sm_start(), as a program would. */
static int register_middlebox(struct sm_test *test, struct sm_replica *replica, struct sm_errbuf *error)
{
    const struct sm_test_options *options = &test->options;

    replica->registration = calloc(1, sizeof *replica->registration);
    if (!replica->registration)
        return SM_E_NO_MEMORY;
    strcpy(replica->registration->middlebox, "test");
    replica->registration->sends = options->max_sends;
    replica->registration->delays = replica->delays = options->delays;
    replica->on_packet = options->on_packet;
    replica->user = options->user;
    int result = options->setup ? options->setup(replica, &replica->user) : 0;
    if (result)
        snprintf(error->text, sizeof error->text, "setup: %s", sm_strerror(result));
    struct registering registering = {replica, result, error};
    if (result == 0 && !test_as_switch(test, register_replica, &registering))
        return SM_E_AGAIN; /* the replica is gone, with the switch */
    free(replica->registration);
    replica->registration = NULL;
    return registering.result;
}

static void slot_ready(struct sm_test *test, void *slot)
{
    switch_slot_ready(test->sw, *(unsigned *)slot);
}

static int start_member(struct sm_test *test, unsigned slot, struct sm_errbuf *error)
{
    struct member *member = &test->members[slot];
    int result = replica_bind(member->replica, test->arena, slot);

    if (result == 0)
        result = register_middlebox(test, member->replica, error);
    if (result)
        return result;
    replica_learn_classes(member->replica);
    if (test->options.started && (result = test->options.started(member->replica, member->replica->user)) != 0) {
        snprintf(error->text, sizeof error->text, "started: %s", sm_strerror(result));
        return result;
    }
    if (!test_as_switch(test, slot_ready, &slot))
        return SM_E_AGAIN;
    atomic_store(&member->through, false);
    member->replica->snapshot.work = SNAPSHOT_AT_ONCE;
    if (test->options.threads && pthread_create(&member->thread, NULL, run_thread, member) != 0)
        return SM_E_NO_MEMORY;
    return 0;
}

struct taking {
    uint32_t id;
    int slot;
};

static void take_slot(struct sm_test *test, void *arg)
{
    struct taking *taking = arg;
    char name[16];

    snprintf(name, sizeof name, "r%u", taking->id);
    taking->slot = switch_slot_take(test->sw, taking->id, name, getpid(), -1);
}

int test_add_replica(struct sm_test *test, struct sm_errbuf *error)
{
    const uint64_t deaths = test->switch_deaths;
    struct taking taking = {.id = test->next_id++};

    if (!test_as_switch(test, take_slot, &taking))
        return SM_E_AGAIN;
    const int slot = taking.slot;
    if (slot < 0)
        return slot;
    struct member *member = &test->members[slot];
    *member = (struct member){.replica = calloc(1, sizeof *member->replica), .version = test->version};
    int result = member->replica ? start_member(test, (unsigned)slot, error) : SM_E_NO_MEMORY;
    if (result == 0)
        return slot;
    if (test->switch_deaths != deaths)
        return result; /* nothing is left of it */
    if (member->replica) {
        replica_unbind(member->replica);
        bind_forget(member->replica);
    }
    free(member->replica);
    member->replica = NULL;
    switch_slot_died(test->sw, (unsigned)slot);
    return result;
}

void test_remove_replica(struct sm_test *test, unsigned slot)
{
    struct member *member = &test->members[slot];

    if (test->options.threads)
        pthread_join(member->thread, NULL);
    replica_unbind(member->replica);
    if (test_as_switch(test, test_slots_died, &(uint64_t){1ull << slot}))
        test_free_member(test, slot);
}

static uint64_t virtual_clock(void *arg)
{
    return ((struct sm_test *)arg)->clock;
}

static int open_ports(struct sm_test *test, struct switch_options *sw, struct sm_errbuf *error)
{
    const struct sm_test_options *options = &test->options;
    /* A file is read from its beginning; what an interface gave is gone. */
    const size_t next = test->sw && options->cannot_wait ? trace_port_next(test->sw->ports[0]) : 0;
    int result = options->input ? trace_port_in(&sw->in, options->input, next)
                                : sm_port_open_capture(&sw->in, options->capture, error);

    if (result)
        return result;
    sw->in->is_interface = options->cannot_wait;
    if (options->output)
        return sm_port_create_capture(&sw->out, options->output, sw->in, error);
    if (!test->output)
        test->output = sm_trace_create();
    return test->output ? trace_port_out(&sw->out, test->output, sw->in) : SM_E_NO_MEMORY;
}

static int open_arena(struct sm_test *test, int linktype, struct sm_errbuf *error)
{
    const struct sm_test_options *options = &test->options;
    const struct arena_options arena = {
        .service = "test",
        .linktype = linktype,
        .seed = options->seed | 1,
        .memory = options->memory ? options->memory : 32u << 20,
        .bindings = options->max_bindings,
        .flows = options->max_flows ? options->max_flows : 65536,
        .small_buffers = options->buffers ? options->buffers : 512,
        .jumbo_buffers = 8,
        .export_bytes = options->copy_bytes,
        .own_flows = options->drain_idle_ns > 0,
    };

    return arena_create(&test->arena, &test->arena_fd, &arena, error);
}

int test_make_switch(struct sm_test *test, struct sm_errbuf *error)
{
    const struct sm_test_options *options = &test->options;
    struct switch_options sw = {
        .order_arrival = options->order_arrival,
        .hold_bytes = options->hold_bytes ? options->hold_bytes : UINT64_MAX,
        .hold_ns = options->hold_ns ? options->hold_ns : UINT64_MAX,
        .shape_bytes = options->shape_memory ? options->shape_memory : 1u << 20,
        .affinity_ns = options->drain_idle_ns,
        .affinity_flows = options->max_flows ? options->max_flows : 65536,
        .clock = options->threads ? NULL : virtual_clock,
        .clock_arg = test,
    };
    int result = open_ports(test, &sw, error);

    if (result == 0 && !test->arena)
        result = open_arena(test, sw.in->linktype, error);
    sw.arena = test->arena;
    test->sw = NULL;
    if (result == 0)
        result = switch_create(&test->sw, &sw, error);
    if (!test->sw) {
        struct sm_errbuf ignored;
        if (sw.out)
            sw.out->ops->close(sw.out, false, &ignored);
        if (sw.in)
            sw.in->ops->close(sw.in, false, &ignored);
    }
    return result;
}

static int start(struct sm_test *test, struct sm_errbuf *error)
{
    const unsigned replicas = test->options.replicas;
    int result = test_make_switch(test, error);

    for (unsigned i = 0; result == 0 && i < replicas; i++) {
        int slot = test_add_replica(test, error);
        result = slot < 0 ? slot : 0;
    }
    for (unsigned i = 0; result == 0 && i < replicas; i++)
        result = switch_assign(test->sw, SM_SHARDS * i / replicas, SM_SHARDS * (i + 1) / replicas - 1, i);
    if (result == 0)
        switch_start(test->sw);
    test->resumed = true;
    return result;
}

_Static_assert(SM_TEST_COPY_BYTES == EXPORT_BYTES, "as much as there is room for");

static const char *contradiction(const struct sm_test_options *options)
{
    if (options->size != sizeof *options)
        return "size is not that of struct sm_test_options";
    if (!options->on_packet)
        return "on_packet is NULL";
    if (!options->input == !options->capture)
        return "one of input and capture is needed";
    if (options->replicas > SM_TEST_REPLICAS || options->max_sends > SM_MAX_SENDS)
        return "more replicas or sends than there can be";
    if (options->threads && (options->kills || options->switch_kills))
        return "threads cannot be killed";
    if (options->switch_kills && options->output)
        return "a switch that is killed cannot have an output file";
    if (options->cannot_wait && options->capture && options->switch_kills)
        return "an interface whose switch is killed cannot be a capture";
    if (options->copy_bytes > SM_TEST_COPY_BYTES)
        return "copy_bytes is more than SM_TEST_COPY_BYTES";
    return NULL;
}

int sm_test_create(struct sm_test **out, const struct sm_test_options *options, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;
    const char *wrong = contradiction(options);

    *out = NULL;
    if (!error)
        error = &ignored;
    error->text[0] = '\0';
    if (wrong) {
        snprintf(error->text, sizeof error->text, "sm_test_create: %s", wrong);
        return SM_E_INVALID;
    }
    struct sm_test *test = calloc(1, sizeof *test);
    if (!test)
        return SM_E_NO_MEMORY;
    test->options = *options;
    test->options.replicas = options->replicas ? options->replicas : 1;
    test->options.check_every = options->check_every ? options->check_every : CHECK_EVERY;
    test->arena_fd = -1;
    test->next_id = 1;
    test->clock = STEP_NS;
    test->random = options->seed * 2654435761u + 88172645463325252ull;
    int result = start(test, error);
    if (result) {
        if (error->text[0] == '\0')
            snprintf(error->text, sizeof error->text, "sm_test_create: %s", sm_strerror(result));
        sm_test_destroy(test, &ignored);
        return result;
    }
    *out = test;
    return 0;
}

/* End all replicas, so that what they counted stands still. */
static void dismiss(struct sm_test *test)
{
    test->ending = true;
    switch_dismiss(test->sw);
    switch_poll(test->sw);
    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        if (!test->members[i].replica)
            continue;
        while (!test->options.threads && !test->members[i].replica->retired)
            replica_burst(test->members[i].replica, CHANNEL_BURST);
        test_remove_replica(test, i);
    }
}

int sm_test_destroy(struct sm_test *test, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;
    int result = 0;

    if (!test)
        return 0;
    if (test->sw && !test->finished)
        dismiss(test);
    if (test->sw && switch_destroy(test->sw, test->finished, error ? error : &ignored) != 0)
        result = SM_E_IO;
    if (test->arena)
        arena_unmap(test->arena);
    if (test->arena_fd >= 0)
        close(test->arena_fd);
    sm_trace_destroy(test->output);
    free(test);
    return result;
}

/* Threads take their steps by themselves: the switch's turn, and those who are through go. */
static void turn_among_threads(struct sm_test *test)
{
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (test->members[i].replica && atomic_load(&test->members[i].through))
            test_remove_replica(test, i);
    test->idle = switch_poll(test->sw) == 0;
    if (test->idle)
        sched_yield();
}

static void poll(struct sm_test *test, void *arg)
{
    (void)arg;
    switch_poll(test->sw);
}

/* Who is too far behind for anybody else to go first; else `slot`. */
static unsigned overdue_or(const struct sm_test *test, unsigned slot)
{
    for (unsigned i = 0; test->options.in_step > 0 && i < ARENA_SLOTS; i++)
        if (test->members[i].replica && test->sw->entered > test->members[i].entered + test->options.in_step)
            return i;
    return slot;
}

int sm_test_step(struct sm_test *test)
{
    const struct sm_test_options *options = &test->options;
    struct sm_switch *sw = test->sw;

    if (test->result.broken[0])
        return SM_E_STATE;
    if (test->finished || sw->state == SWITCH_ENDED)
        return SM_E_END;
    test->clock += STEP_NS;
    test->result.steps++;
    if (options->schedule && !sw->operation.active && !test->idle && test_below(test, 16) == 0)
        test_operate(test);
    if (options->kills && test_below(test, options->kills) == 0)
        test_kill_at_random(test);
    if (options->switch_kills && test_below(test, options->switch_kills) == 0)
        test_kill_switch_at_random(test);
    test_retire_leavers(test);
    unsigned slot = overdue_or(test, (unsigned)test_below(test, SM_TEST_REPLICAS + 2));
    if (slot < ARENA_SLOTS)
        test->members[slot].entered = sw->entered;
    if (options->threads)
        turn_among_threads(test);
    else if (slot < ARENA_SLOTS && test->members[slot].replica)
        test_burst(test, slot, 1 + (unsigned)test_below(test, CHANNEL_BURST));
    else
        test_as_switch(test, poll, NULL);
    bool deep = !options->threads && test->result.steps % options->check_every == 0;
    return test_judge(test, deep, false) ? SM_E_STATE : 0;
}

int sm_test_until(struct sm_test *test, bool (*condition)(const struct sm_test *test, void *arg), void *arg)
{
    int result = 0;

    while (result == 0 && !(condition && condition(test, arg)))
        result = sm_test_step(test);
    return result;
}

static bool entered(const struct sm_test *test, void *packets)
{
    return test->sw->entered >= *(uint64_t *)packets;
}

int sm_test_until_packet(struct sm_test *test, uint64_t packets)
{
    return sm_test_until(test, entered, &packets);
}

static bool at_rest(const struct sm_test *test, void *arg)
{
    (void)arg;
    return !sm_test_moving(test);
}

int sm_test_settle(struct sm_test *test)
{
    return sm_test_until(test, at_rest, NULL);
}

int sm_test_finish(struct sm_test *test)
{
    int result = sm_test_until(test, NULL, NULL);

    if (test->finished)
        return result == SM_E_END ? 0 : result;
    dismiss(test);
    switch_finish(test->sw);
    test->finished = true;
    return test_judge(test, true, result == SM_E_END) ? SM_E_STATE : 0;
}

int sm_test_run(const struct sm_test_options *options, struct sm_test_result *result, struct sm_errbuf *error)
{
    struct sm_test *test;
    int status = sm_test_create(&test, options, error);

    if (status)
        return status;
    sm_test_finish(test);
    *result = *sm_test_result(test);
    return sm_test_destroy(test, error);
}
