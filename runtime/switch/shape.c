/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Delayed packets (design D10).
 *
 * Overview.  A packet's departure is a packet time, fixed with its verdict. Its bytes go to cells of memory that is for
 * this alone, so its buffer is free at once: packets that wait take nothing from those that come. A heap has them in
 * the order (departure, arrival).
 *
 * When.  On interfaces, and where a capture is replayed to one as recorded, each leaves when the wall clock gets to its
 * departure. Elsewhere time is what the packets say: before a packet leaves whose time is T, all leave that depart by
 * T; at the end of the input the rest. That is a function of the input alone, drops included, if packets come here in
 * the order of arrival: which is therefore kept.
 *
 * Life-cycle.  Verdict -> place in order (at once, or from the reorder window) -> here -> port. The packet's audit
 * ticket comes along. The end of the input and a request to end wait until all have left.
 *
 * Limits.  Bytes, in cells of SHAPE_CELL_BYTES. A packet that finds no room is dropped as `shape`.
 */

#include "switch/shape.h"

#include <assert.h>
#include <sys/mman.h>

#include "switch/switch.h"

#define NO_CELL UINT32_MAX
#define RELEASE_AT_A_TIME 64u

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + 63) & ~63ull;
}

int switch_shape_open(struct sm_switch *sw, uint64_t bytes)
{
    struct shaper *shaper = &sw->shaper;
    const uint64_t cells = bytes / SHAPE_CELL_BYTES;
    const uint64_t packets_at = aligned(cells * SHAPE_CELL_BYTES);
    const uint64_t heap_at = packets_at + aligned(cells * sizeof *shaper->packets);
    const uint64_t next_at = heap_at + aligned(cells * sizeof *shaper->heap);
    const uint64_t whole_at = next_at + aligned(cells * sizeof *shaper->next);

    sw->shape_first = SHAPE_NONE;
    if (cells >= NO_CELL)
        return SM_E_NO_MEMORY;
    shaper->memory_bytes = whole_at + POOL_JUMBO_BYTES;
    void *memory = mmap(NULL, shaper->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0); /* touched as it is used */
    if (memory == MAP_FAILED)
        return SM_E_NO_MEMORY;
    shaper->memory = memory;
    shaper->cells = memory;
    shaper->packets = (struct shaped *)(void *)(shaper->memory + packets_at);
    shaper->heap = (struct shape_node *)(void *)(shaper->memory + heap_at);
    shaper->next = (uint32_t *)(void *)(shaper->memory + next_at);
    shaper->whole = shaper->memory + whole_at;
    shaper->cell_count = (uint32_t)cells;
    shaper->free = NO_CELL;
    shaper->timed = sw->cannot_wait || (sw->options.pace_recorded && sw->options.out && sw->options.out->is_interface);
    return 0;
}

void switch_shape_expect(struct sm_switch *sw)
{
    sw->delay_max = SM_MAX_DELAY_NS;
    if (!sw->shaper.timed)
        sw->options.order_arrival = true;
}

void switch_shape_close(struct sm_switch *sw)
{
    if (sw->shaper.memory)
        munmap(sw->shaper.memory, sw->shaper.memory_bytes);
    sw->shaper.memory = NULL;
}

/* ---- the heap ---- */

static bool before(const struct shaper *shaper, const struct shape_node *a, const struct shape_node *b)
{
    if (a->departure != b->departure)
        return a->departure < b->departure;
    const struct shaped *x = &shaper->packets[a->cell], *y = &shaper->packets[b->cell];
    return x->sequence != y->sequence ? x->sequence < y->sequence : x->number < y->number;
}

static void heap_add(struct shaper *shaper, struct shape_node node)
{
    uint32_t at = shaper->count++;

    for (; at > 0 && before(shaper, &node, &shaper->heap[(at - 1) / 2]); at = (at - 1) / 2)
        shaper->heap[at] = shaper->heap[(at - 1) / 2];
    shaper->heap[at] = node;
}

static void heap_remove_first(struct shaper *shaper)
{
    const struct shape_node last = shaper->heap[--shaper->count];
    uint32_t at = 0, child;

    while ((child = 2 * at + 1) < shaper->count) {
        if (child + 1 < shaper->count && before(shaper, &shaper->heap[child + 1], &shaper->heap[child]))
            child++;
        if (!before(shaper, &shaper->heap[child], &last))
            break;
        shaper->heap[at] = shaper->heap[child];
        at = child;
    }
    shaper->heap[at] = last;
}

/* ---- cells ---- */

static uint32_t cells_for(uint32_t bytes)
{
    return bytes == 0 ? 1 : (bytes + SHAPE_CELL_BYTES - 1) / SHAPE_CELL_BYTES;
}

/* There is one: the caller has counted. */
static uint32_t take_cell(struct shaper *shaper)
{
    uint32_t cell = shaper->free;

    if (cell == NO_CELL)
        return shaper->fresh++;
    shaper->free = shaper->next[cell];
    return cell;
}

/* Keep the bytes; the first cell, or NO_CELL. */
static uint32_t store(struct shaper *shaper, const uint8_t *data, uint32_t bytes)
{
    uint32_t needed = cells_for(bytes), first = NO_CELL, *link = &first;

    if (needed > shaper->cell_count - shaper->used)
        return NO_CELL;
    shaper->used += needed;
    if (shaper->used > shaper->used_max)
        shaper->used_max = shaper->used;
    for (; needed > 0; needed--) {
        uint32_t part = bytes < SHAPE_CELL_BYTES ? bytes : SHAPE_CELL_BYTES;
        *link = take_cell(shaper);
        memcpy(shaper->cells[*link], data, part);
        link = &shaper->next[*link];
        data += part;
        bytes -= part;
    }
    *link = NO_CELL;
    return first;
}

/* The bytes in one piece, until the next call; their cells are free. */
static uint8_t *retrieve(struct shaper *shaper, uint32_t cell, uint32_t bytes)
{
    uint8_t *to = shaper->whole;

    while (cell != NO_CELL) {
        uint32_t part = bytes < SHAPE_CELL_BYTES ? bytes : SHAPE_CELL_BYTES, next = shaper->next[cell];
        memcpy(to, shaper->cells[cell], part);
        to += part;
        bytes -= part;
        shaper->next[cell] = shaper->free;
        shaper->free = cell;
        shaper->used--;
        cell = next;
    }
    return shaper->whole;
}

/* ---- in and out ---- */

/* The monotonic clock at which a packet is due. No packet waits for longer than it was delayed. */
static uint64_t due_at(struct sm_switch *sw, const struct switch_packet *packet)
{
    uint64_t delay = packet->departure - packet->time;

    if (!sw->cannot_wait) {
        uint64_t due = sw->start_wall + (packet->departure - sw->start_time);
        return due > sw->now ? due : sw->now;
    }
    uint64_t reached = live_now(&sw->live, sw->now),
             left = packet->departure > reached ? packet->departure - reached : 0;
    return sw->now + (left < delay ? left : delay);
}

bool switch_shape_enter(struct sm_switch *sw, uint32_t buffer, bool entered, bool written)
{
    struct shaper *shaper = &sw->shaper;
    const struct switch_packet *packet = &sw->packets[buffer];
    uint32_t cell = store(shaper, pool_data(&sw->pool, buffer), packet->caplen);

    if (cell == NO_CELL)
        return false;
    shaper->packets[cell] = (struct shaped){
        .departure = packet->departure,
        .time = packet->time,
        .sequence = packet->sequence,
        .number = shaper->entered++,
        .due = shaper->timed ? due_at(sw, packet) : 0,
        .caplen = packet->caplen,
        .len = packet->len,
        .shard = packet->shard,
        .from = packet->from,
        .written = written,
    };
    if (entered)
        audit_carry(&sw->audit, buffer, &shaper->packets[cell].ticket);
    heap_add(shaper, (struct shape_node){.departure = packet->departure, .cell = cell});
    sw->shape_first = shaper->heap[0].departure;
    return true;
}

static void send_first(struct sm_switch *sw)
{
    struct shaper *shaper = &sw->shaper;
    const uint32_t cell = shaper->heap[0].cell;
    struct shaped packet = shaper->packets[cell];
    const uint8_t *data = retrieve(shaper, cell, packet.caplen);

    heap_remove_first(shaper);
    sw->shape_first = shaper->count > 0 ? shaper->heap[0].departure : SHAPE_NONE;
    if (packet.ticket.number != 0)
        audit_hand_in(&sw->audit, &packet.ticket, data, packet.caplen, packet.len, packet.written, packet.departure);
    switch_send(sw, packet.from,
                &(struct sm_frame){.data = data,
                                   .caplen = packet.caplen,
                                   .len = packet.len,
                                   .seconds = (int64_t)(packet.departure / 1000000000u),
                                   .fraction = (int64_t)(packet.departure % 1000000000u / sw->fraction_ns),
                                   .flow = packet.shard});
}

void switch_shape_release(struct sm_switch *sw, uint64_t time)
{
    while (sw->shape_first != SHAPE_NONE && sw->shape_first <= time)
        send_first(sw);
}

unsigned switch_shape_poll(struct sm_switch *sw)
{
    const struct shaper *shaper = &sw->shaper;
    unsigned sent = 0;

    while (shaper->timed && shaper->count > 0 && sent < RELEASE_AT_A_TIME &&
           shaper->packets[shaper->heap[0].cell].due <= sw->now) {
        send_first(sw);
        sent++;
    }
    return sent;
}

bool switch_shape_end(struct sm_switch *sw)
{
    if (!sw->shaper.timed)
        switch_shape_release(sw, SHAPE_NONE - 1);
    return sw->shaper.count == 0;
}
