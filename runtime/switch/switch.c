/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/switch.h"

#include "arena/huge.h"
#include "switch/bind.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FRAGMENTS 65536u        /* entries of the fragment table */
#define SWEEP 16u               /* known flows that are looked at in a turn */
#define SWEEP_WAITED_FOR 4096u  /* while an operation may wait for their end */
#define SWITCH_SLEEP_NS 1000000 /* while something is to be looked at again */
#define SEND_WAIT_NS 100000     /* while a port cannot send what it was given */
#define SEND_TRIES 10000u       /* before it is given up, at the end */

static uint64_t clock_ns(const struct sm_switch *sw, clockid_t clock)
{
    struct timespec now;

    if (sw->options.clock)
        return sw->options.clock(sw->options.clock_arg);
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void switch_notify(struct sm_switch *sw, enum switch_notice notice)
{
    if (sw->options.notify)
        sw->options.notify(sw->options.notify_arg, notice);
}

/* The run cannot end well any more; the first reason is kept. Packets go on. */
void switch_fail(struct sm_switch *sw, const char *format, ...)
{
    va_list args;

    if (sw->error[0])
        return;
    va_start(args, format);
    vsnprintf(sw->error, sizeof sw->error, format, args);
    va_end(args);
    switch_notify(sw, NOTICE_FAILED);
}

static int allocate(struct sm_switch *sw)
{
    const struct pool_layout *pool = &sw->pool;
    uint32_t places = 1;

    sw->buffers = pool_count(pool);
    while (places < sw->buffers)
        places *= 2;
    sw->window_mask = places - 1;
    sw->window = malloc(places * sizeof *sw->window);
    sw->packets = aligned_alloc(_Alignof(struct switch_packet), sw->buffers * sizeof *sw->packets);
    sw->reserves = calloc(sw->buffers, sizeof *sw->reserves);
    sw->late = calloc(sw->buffers, sizeof *sw->late);
    sw->unanswered = calloc(sw->buffers, sizeof *sw->unanswered);
    sw->free_small.buffers = malloc(sw->buffers * sizeof *sw->free_small.buffers);
    sw->free_jumbo.buffers = malloc(sw->buffers * sizeof *sw->free_jumbo.buffers);
    if (!sw->window || !sw->packets || !sw->reserves || !sw->late || !sw->unanswered || !sw->free_small.buffers ||
        !sw->free_jumbo.buffers || audit_init(&sw->audit, sw->buffers) != 0 ||
        sm_parser_create(&sw->parser, FRAGMENTS) != 0)
        return SM_E_NO_MEMORY;
    for (uint32_t i = 0; i < places; i++)
        sw->window[i] = (struct window_place){.buffer = POOL_NONE, .generated_head = POOL_NONE};
    for (uint32_t i = sw->buffers; i-- > 0;) {
        sw->packets[i] = (struct switch_packet){.place = PLACE_RESERVE};
        switch_buffer_free(sw, i);
    }
    return 0;
}

/* Zeroed, in huge pages if there are any: what lies by shard is met at random. */
static void *allocate_huge(size_t bytes)
{
    size_t whole = (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    void *memory = aligned_alloc(HUGE_PAGE, whole);

    if (memory) {
        madvise(memory, whole, MADV_HUGEPAGE);
        memset(memory, 0, bytes);
    }
    return memory;
}

/* Where flows do not go with their shards. */
static int know_flows(struct sm_switch *sw)
{
    if (sw->options.affinity_ns == 0)
        return 0;
    sw->affinity = affinity_create(sw->options.affinity_flows, sw->options.affinity_ns);
    return sw->affinity ? audit_by_flow(&sw->audit) : SM_E_NO_MEMORY;
}

/* What the report says of a port outlives it. */
static void introduce_port(struct sm_switch *sw, unsigned number, struct sm_port *port)
{
    sw->ports[number] = port;
    if (!port)
        return;
    port->lender = &sw->lender;
    snprintf(sw->port_reports[number].name, sizeof sw->port_reports[number].name, "%s", port->name);
    snprintf(sw->port_reports[number].driver, sizeof sw->port_reports[number].driver, "%s",
             port->driver ? port->driver : "file");
    sw->port_reports[number].why = port->why;
}

void switch_set_ports(struct sm_switch *sw, struct sm_port *in, struct sm_port *out)
{
    sw->lender = (struct sm_port_lender){.take = switch_lend, .give = switch_lent_back, .arg = sw};
    introduce_port(sw, 0, in);
    introduce_port(sw, 1, out);
    sw->cannot_wait = in->is_interface;
    sw->fraction_ns = in->nanoseconds ? 1 : 1000;
    sw->two_way = in->is_interface && in->ops->send && out && out->is_interface && out->ops->receive;
    sw->has_pending = false;
}

int switch_create(struct sm_switch **out, const struct switch_options *options, struct sm_errbuf *error)
{
    struct sm_switch *sw = allocate_huge(sizeof *sw);

    if (sw) {
        sw->options = *options;
        sw->arena = options->arena;
        sw->pool = options->arena->pool;
        sw->bindings_max = options->arena->bindings;
        switch_set_ports(sw, options->in, options->out);
    }
    if (!sw || allocate(sw) != 0 || switch_frame_keep(sw) != 0 ||
        switch_shape_open(sw, options->shape_bytes ? options->shape_bytes : SHAPE_DEFAULT_BYTES) != 0 ||
        know_flows(sw) != 0) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        if (sw) {
            sw->ports[0] = sw->ports[1] = NULL; /* they stay the caller's */
            switch_destroy(sw, false, error);
        }
        return SM_E_NO_MEMORY;
    }
    for (uint32_t i = 0; i < SM_SHARDS; i++) {
        sw->shards[i].owner = SWITCH_NONE;
        sw->shards[i].move.lane = MOVE_NO_LANE;
        sw->shards[i].hold_head = sw->shards[i].hold_tail = POOL_NONE;
    }
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        sw->slots[i].wake_fd = -1;
    sw->restore.slot = SWITCH_NONE;
    sw->snapshot.slot = SWITCH_NONE;
    *out = sw;
    return 0;
}

/* Whether ports still have to send what they were given. */
static bool ports_pending(const struct sm_switch *sw)
{
    return (sw->ports[0] && sw->ports[0]->pending) || (sw->ports[1] && sw->ports[1]->pending);
}

/* What the report says of a port outlives it. */
static int close_port(struct sm_switch *sw, unsigned number, bool whole, struct sm_errbuf *error)
{
    struct sm_port *port = sw->ports[number];

    if (!port)
        return 0;
    sw->port_reports[number].counters = port->counters;
    sw->ports[number] = NULL;
    return port->ops->close(port, whole, error);
}

int switch_close_ports(struct sm_switch *sw, bool whole, struct sm_errbuf *error)
{
    for (unsigned tries = 0; ports_pending(sw) && tries < SEND_TRIES; tries++) {
        switch_flush(sw);
        usleep(SEND_WAIT_NS / 1000);
    }
    int out = close_port(sw, 1, whole, error);
    int in = close_port(sw, 0, whole, error);
    if (sw->poison)
        sw->poison->ops->close(sw->poison, true, &sw->poison_error);
    sw->poison = NULL;
    return out ? out : in;
}

int switch_destroy(struct sm_switch *sw, bool whole, struct sm_errbuf *error)
{
    int result = switch_close_ports(sw, whole, error);

    switch_frame_free(sw);
    sm_parser_destroy(sw->parser);
    audit_free(&sw->audit);
    affinity_destroy(sw->affinity);
    switch_shape_close(sw);
    switch_bind_close(sw);
    free(sw->window);
    free(sw->packets);
    free(sw->reserves);
    free(sw->late);
    free(sw->unanswered);
    free(sw->free_small.buffers);
    free(sw->free_jumbo.buffers);
    free(sw);
    return result;
}

int switch_slot_take(struct sm_switch *sw, uint32_t id, const char *name, pid_t pid, int wake_fd)
{
    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        struct switch_slot *slot = &sw->slots[i];
        if (slot->state != SLOT_FREE && slot->state != SLOT_GONE)
            continue;
        if (slot->channel)
            sw->owner_violations +=
                atomic_load_explicit(&slot->channel->counters.owner_violations, memory_order_relaxed);
        *slot = (struct switch_slot){.state = SLOT_ATTACHED,
                                     .id = id,
                                     .pid = pid,
                                     .wake_fd = wake_fd,
                                     .last_buffer = POOL_NONE,
                                     .late_first = POOL_NONE,
                                     .late_last = POOL_NONE};
        snprintf(slot->name, sizeof slot->name, "%s", name);
        slot->channel = arena_channel(sw->arena, 0, i);
        arena_forget_noted(sw->arena, i);
        STEP();
        channel_reset(slot->channel, sw->buffers, sw->bindings_max);
        STEP();
        slot->ring_mask = slot->channel->ring_mask;
        slot->in = channel_in(slot->channel);
        slot->out = channel_out(slot->channel);
        slot->bind = channel_bind(slot->channel);
        slot->query = channel_query(slot->channel);
        slot->snapshot = channel_snapshot(slot->channel);
        slot->bind_mask = slot->channel->bind_mask;
        if (i >= sw->slot_count)
            sw->slot_count = i + 1;
        if (id > atomic_load_explicit(&sw->arena->last_id, memory_order_relaxed))
            atomic_store_explicit(&sw->arena->last_id, id, memory_order_relaxed);
        STEP();
        return (int)i;
    }
    return SM_E_LIMIT;
}

/* What the first replica registered holds for all; from here on the arena's copy may be scribbled on. */
void switch_learn(struct sm_switch *sw)
{
    if (sw->registered)
        return;
    sw->registered = true;
    switch_frame_registered(sw);
    sw->sends = sw->arena->registration.sends;
    sw->others = sw->arena->registration.others;
    sw->reason_count = sw->arena->registration.reason_count;
    sw->steering = sw->arena->steering;
    if (sw->arena->registration.delays)
        switch_shape_expect(sw);
    switch_bind_open(sw);
}

void switch_slot_ready(struct sm_switch *sw, unsigned slot)
{
    sw->slots[slot].state = SLOT_READY;
    sw->slots[slot].moved = sw->now; /* from here on it has its time to answer */
    /* An upgrade may have added reasons. */
    if (sw->arena->upgrading && sw->arena->registration.reason_count <= SM_MAX_REASONS)
        sw->reason_count = sw->arena->registration.reason_count;
    if (sw->registered && sw->arena->upgrading)
        switch_frame_registered(sw); /* with what it has added */
    switch_learn(sw);
    STEP();
    atomic_fetch_or_explicit(&sw->arena->ready_slots, 1ull << slot, memory_order_release);
    STEP();
    switch_adopt_orphans(sw, slot);
}

int switch_slot_retire(struct sm_switch *sw, unsigned slot)
{
    if (sw->slots[slot].state != SLOT_READY || sw->slots[slot].shards != 0 ||
        (sw->affinity && sw->affinity->known[slot] != 0))
        return SM_E_STATE;
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        if (move_under_way(&sw->shards[shard].move) && sw->shards[shard].move.to == slot)
            return SM_E_STATE;
    sw->slots[slot].state = SLOT_RETIRING;
    switch_push(sw, slot, IN_RETIRE, 0, 0, sw->clock);
    return 0;
}

void switch_dismiss(struct sm_switch *sw)
{
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].state == SLOT_READY) {
            sw->slots[i].state = SLOT_RETIRING;
            switch_push(sw, i, IN_RETIRE, 0, 0, sw->clock);
        }
}

int switch_slot_of(const struct sm_switch *sw, uint32_t id)
{
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].state != SLOT_FREE && sw->slots[i].state != SLOT_GONE && sw->slots[i].id == id)
            return (int)i;
    return -1;
}

int switch_assign(struct sm_switch *sw, uint32_t first, uint32_t last, unsigned slot)
{
    if (first > last || last >= SM_SHARDS || slot >= ARENA_SLOTS || sw->slots[slot].state != SLOT_READY)
        return SM_E_INVALID;
    for (uint32_t shard = first; shard <= last; shard++)
        if (sw->shards[shard].owner != SWITCH_NONE)
            return SM_E_STATE;
    if (!switch_room_for_markers(sw, slot))
        return SM_E_LIMIT;
    for (uint32_t shard = first; shard <= last; shard++)
        sw->shards[shard].owner = (uint8_t)slot;
    sw->slots[slot].shards += last - first + 1;
    sw->epoch++;
    switch_push(sw, slot, IN_ADOPT, last, first, sw->clock);
    return 0;
}

void switch_start(struct sm_switch *sw)
{
    if (sw->state != SWITCH_WAITING)
        return;
    sw->start_wall = clock_ns(sw, CLOCK_MONOTONIC);
    sw->state = SWITCH_RUNNING;
}

void switch_stop_input(struct sm_switch *sw)
{
    if (!sw->input_ended) {
        sw->input_ended = true;
        sw->input_cut = !sw->ports[0]->is_interface;
        sw->input_result = SM_E_END;
    }
    if (sw->state == SWITCH_GATED || sw->state == SWITCH_WAITING)
        sw->state = SWITCH_RUNNING;
}

void switch_finish(struct sm_switch *sw)
{
    sw->finished_wall = clock_ns(sw, CLOCK_MONOTONIC);
    sw->state = SWITCH_FINISHED;
}

void switch_gate(struct sm_switch *sw, uint64_t packet, bool by_time, uint64_t time)
{
    sw->gate_packet = by_time ? 0 : packet;
    sw->gate_time = by_time ? time + 1 : 0;
}

void switch_open_gate(struct sm_switch *sw)
{
    if (sw->state == SWITCH_GATED)
        sw->state = SWITCH_RUNNING;
}

int switch_query_start(struct sm_switch *sw, unsigned slot, uint32_t shard, uint32_t cursor)
{
    if (sw->query.active || sw->slots[slot].state != SLOT_READY)
        return SM_E_STATE;
    sw->query = (struct switch_query){.active = true, .slot = (uint8_t)slot};
    switch_push(sw, slot, IN_QUERY, cursor, shard, sw->clock);
    return 0;
}

/* Whether so many packets have gathered that a file is soon not read on, or that half of the buffers are taken. */
static bool have_gathered(const struct sm_switch *sw, const struct switch_slot *slot)
{
    return (!sw->cannot_wait && slot->in_flight >= SWITCH_FILE_AHEAD / 2) ||
           sw->free_small.count < POOL_SMALL_COUNT / 2 || sw->free_jumbo.count < sw->pool.jumbo_count / 2;
}

/* Whether no more packets will gather before what was published is done with. */
static bool stands_still(const struct sm_switch *sw)
{
    return sw->input_ended || sw->state != SWITCH_RUNNING || sw->paused || sw->input_held;
}

/* Whether a replica that new entries were published to is to be woken. */
static bool is_to_wake(const struct sm_switch *sw, const struct switch_slot *slot)
{
    switch ((enum replica_sleep)atomic_load_explicit(&slot->channel->replica_sleeps, memory_order_relaxed)) {
    case REPLICA_AWAKE:
        return false;
    case REPLICA_NAPS:
        return slot->urgent || stands_still(sw) || have_gathered(sw, slot);
    case REPLICA_SLEEPS:
    default:
        return true;
    }
}

/* Make what was pushed visible, and wake who sleeps. */
static void publish(struct sm_switch *sw)
{
    bool published = false;

    for (unsigned i = 0; i < sw->slot_count; i++) {
        struct switch_slot *s = &sw->slots[i];
        if (s->in_head == s->published)
            continue;
        STEP();
        atomic_store_explicit(&s->channel->in_head, s->in_head, memory_order_release);
        published = true;
    }
    STEP();
    /* After the rings: whoever sees this time and an empty ring knows that nothing earlier will come there. */
    if (atomic_load_explicit(&sw->arena->pushed_time, memory_order_relaxed) != sw->clock)
        atomic_store_explicit(&sw->arena->pushed_time, sw->clock, memory_order_release);
    STEP();
    if (!published)
        return;
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < sw->slot_count; i++) {
        struct switch_slot *s = &sw->slots[i];
        if (s->in_head == s->published)
            continue;
        s->published = s->in_head;
        if (s->wake_fd >= 0 && is_to_wake(sw, s)) {
            uint64_t one = 1;
            if (write(s->wake_fd, &one, sizeof one) < 0)
                switch_fail(sw, "cannot wake replica %s", s->name);
        }
        s->urgent = false;
    }
}

static bool send_ticks(struct sm_switch *sw)
{
    bool sent = false;

    for (unsigned i = 0; i < sw->slot_count; i++) {
        if (sw->slots[i].state != SLOT_READY || sw->slots[i].ticking)
            continue;
        switch_push(sw, i, IN_TICK, 0, 0, sw->clock);
        STEP();
        sw->slots[i].ticking = true;
        sent = true;
    }
    sw->last_tick = sw->clock;
    return sent;
}

static bool anybody_ticking(const struct sm_switch *sw)
{
    for (unsigned i = 0; i < sw->slot_count; i++)
        if (sw->slots[i].ticking)
            return true;
    return false;
}

/* Tell replicas the time now and then; and once at the end, so that every timer up to the last packet has fired. */
static void keep_time(struct sm_switch *sw, unsigned done)
{
    if (sw->check.active)
        return;
    if (sw->input_held)
        return;
    if (sw->live.begun && sw->state == SWITCH_RUNNING && done == 0 && sw->clock != 0) {
        /* No traffic: the clock goes on, behind packets that are captured but not yet read. */
        uint64_t time = live_now(&sw->live, sw->now) - SWITCH_TICK_NS / 2;
        if (time > sw->clock)
            sw->clock = time;
    }
    if (sw->state == SWITCH_RUNNING && sw->clock - sw->last_tick >= SWITCH_TICK_NS)
        send_ticks(sw);
    if (!sw->input_ended || sw->state != SWITCH_RUNNING || sw->in_flight > 0 || sw->operation.active ||
        switch_lanes_busy(sw) || sw->snapshot.active || anybody_ticking(sw) || sw->orphans > 0 ||
        (sw->shape_first != SHAPE_NONE && !switch_shape_end(sw)))
        return;
    if (!sw->final_tick) {
        sw->final_tick = true;
        if (send_ticks(sw))
            return;
    }
    sw->state = SWITCH_ENDED;
    switch_notify(sw, NOTICE_ENDED);
}

static void note_in_flight(struct sm_switch *sw)
{
    uint32_t replicas = 0;

    for (unsigned i = 0; i < sw->slot_count; i++)
        replicas += sw->slots[i].in_flight > 0;
    if (replicas > sw->replicas_in_flight_max)
        sw->replicas_in_flight_max = replicas;
    if (sw->in_flight > sw->in_flight_max)
        sw->in_flight_max = sw->in_flight;
}

static void forget_flows(struct sm_switch *sw)
{
    sw->affinity->over = sw->input_ended;
    affinity_sweep(sw->affinity, sw->clock, sw->operation.active ? SWEEP_WAITED_FOR : SWEEP);
}

unsigned switch_poll(struct sm_switch *sw)
{
    unsigned done = 0;

    sw->now = clock_ns(sw, CLOCK_MONOTONIC);
    if (sw->cannot_wait && !sw->options.clock)
        live_follow(&sw->live, sw->now, clock_ns(sw, CLOCK_REALTIME), sw->clock);
    for (unsigned i = 0; i < sw->slot_count; i++)
        if (sw->slots[i].state == SLOT_READY || sw->slots[i].state == SLOT_RETIRING)
            done += switch_take_back(sw, i);
    STEP();
    switch_watch(sw);
    switch_moves_poll(sw);
    STEP();
    switch_lanes_poll(sw);
    STEP();
    if (sw->options.order_arrival)
        switch_output_poll(sw);
    STEP();
    if (sw->shape_first != SHAPE_NONE)
        done += switch_shape_poll(sw);
    done += switch_input(sw);
    if (sw->snapshot.active)
        done += switch_snapshot_poll(sw);
    if (sw->affinity)
        forget_flows(sw);
    note_in_flight(sw);
    STEP();
    keep_time(sw, done);
    STEP();
    switch_flush(sw);
    switch_ledger(sw);
    publish(sw);
    switch_check_poll(sw);
    STEP();
    if (sw->ports[1] && done == 0 && sw->ports[1]->ops->flush(sw->ports[1]) != 0)
        switch_fail(sw, "%s", sw->ports[1]->error.text);
    return done;
}

bool switch_gathers(const struct sm_switch *sw)
{
    bool naps = false;

    if (sw->arena->mode != ARENA_TAP || sw->state != SWITCH_RUNNING || sw->input_ended || !sw->cannot_wait ||
        sw->ports[0]->lends || sw->has_pending || sw->operation.active || sw->check.active || sw->snapshot.active)
        return false;
    for (unsigned i = 0; i < sw->slot_count; i++) {
        const struct switch_slot *slot = &sw->slots[i];
        if (slot->state != SLOT_READY && slot->state != SLOT_RETIRING)
            continue;
        if (slot->urgent || atomic_load_explicit(&slot->channel->replica_sleeps, memory_order_relaxed) != REPLICA_NAPS)
            return false;
        naps = true;
    }
    return naps;
}

bool switch_sleep_prepare(struct sm_switch *sw)
{
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].state == SLOT_READY || sw->slots[i].state == SLOT_RETIRING)
            atomic_store_explicit(&sw->slots[i].channel->switch_sleeps, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < ARENA_SLOTS; i++) {
        const struct switch_slot *s = &sw->slots[i];
        if ((s->state != SLOT_READY && s->state != SLOT_RETIRING) || s->distrusted)
            continue;
        uint64_t commit = atomic_load_explicit(&s->channel->commit, memory_order_acquire);
        if (commit_produced(commit) != s->out_tail)
            return false;
    }
    return true;
}

void switch_sleep_end(struct sm_switch *sw)
{
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        if (sw->slots[i].channel)
            atomic_store_explicit(&sw->slots[i].channel->switch_sleeps, 0, memory_order_relaxed);
}

/* The same, but for delayed packets. */
static int64_t sleep_until_asked(const struct sm_switch *sw)
{
    if (ports_pending(sw))
        return SEND_WAIT_NS;
    if (sw->operation.active || sw->check.active || (sw->snapshot.active && sw->snapshot.slot == SWITCH_NONE))
        return SWITCH_SLEEP_NS;
    if (sw->state == SWITCH_RUNNING && !sw->input_ended)
        return sw->has_pending ? SWITCH_SLEEP_NS /* paced, or out of buffers */ : (int64_t)SWITCH_TICK_NS;
    if (sw->options.unresponsive_ns && switch_awaits(sw))
        return SWITCH_TICK_NS;
    return -1;
}

int64_t switch_sleep_ns(const struct sm_switch *sw)
{
    int64_t least = sleep_until_asked(sw);

    if (sw->shape_first == SHAPE_NONE || !sw->shaper.timed)
        return least;
    uint64_t due = sw->shaper.packets[sw->shaper.heap[0].cell].due;
    int64_t left = due > sw->now ? (int64_t)(due - sw->now) : 0;
    return least < 0 || left < least ? left : least;
}
