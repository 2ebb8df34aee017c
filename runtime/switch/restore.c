/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/restore.h"
#include "arena/builds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/snapshot.h"
#include "switch/archive.h"
#include "switch/bind.h"

#define UNITS (SM_SHARDS + STATE_STRIPES) /* shards and stripes */

enum restore_phase { PHASE_DRAIN, PHASE_FLOWS, PHASE_SHARED, PHASE_CLEAR, PHASE_CLEAR_STRIPES, PHASE_OVER };

struct encoded_flow {
    const uint8_t *bytes;
    uint32_t length;
    uint32_t unit;
};

struct restore {
    struct archive *archive;
    struct arena *arena;
    struct codec codec;
    struct codec_source *source;
    struct archive_section classes;
    sm_value shared; /* objects; none: there are none */
    uint64_t time;
    const uint8_t *secret;
    struct encoded_flow *flows; /* by unit */
    uint64_t count, room;

    enum restore_phase phase;
    uint64_t next;      /* flow to be made */
    size_t given;       /* of its bytes, when it is larger than a part */
    uint64_t part_next; /* as `next` and `given`, when the part under way is done */
    size_t part_given;
    uint64_t told;    /* slots whose replicas have the classes' description */
    uint64_t cleared; /* slots */
    bool telling;     /* the step under way */
    int result;
    struct sm_errbuf error;
};

/* ---- reading ---- */

static int add_flow(struct restore *restore, const uint8_t *bytes, size_t length, uint32_t unit,
                    struct sm_errbuf *error)
{
    if (restore->count == restore->room) {
        uint64_t room = restore->room ? restore->room * 2 : 4096;
        struct encoded_flow *larger = realloc(restore->flows, room * sizeof *larger);
        if (!larger) {
            snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
            return SM_E_NO_MEMORY;
        }
        restore->flows = larger;
        restore->room = room;
    }
    restore->flows[restore->count++] = (struct encoded_flow){bytes, (uint32_t)length, unit};
    return 0;
}

/* The flows of one shard or stripe, from *at on. */
static int index_shard(struct restore *restore, const uint8_t *body, size_t length, size_t *at, struct sm_errbuf *error)
{
    const uint8_t *head = body + *at;
    size_t used;

    snprintf(error->text, sizeof error->text, "a flow of the checkpoint is damaged");
    if (length - *at < ARCHIVE_SHARD_BYTES || head[0] != 0xcd || head[3] != 0xce)
        return SM_E_DAMAGED;
    uint32_t unit = (uint32_t)record_big(head + 1, 2), count = (uint32_t)record_big(head + 4, 4);
    *at += ARCHIVE_SHARD_BYTES;
    for (; count > 0; count--, *at += used) {
        struct sm_key key;
        unsigned cls;
        if (codec_peek(&restore->codec, restore->source, body + *at, length - *at, &key, &cls, &used) != 0 ||
            unit >= UNITS || builds_class(restore->arena, cls)->partitioned != (unit < SM_SHARDS))
            return SM_E_DAMAGED;
        int result = add_flow(restore, body + *at, used, unit, error);
        if (result)
            return result;
    }
    return 0;
}

static int index_flows(struct restore *restore, const struct archive_section *section, struct sm_errbuf *error)
{
    const uint64_t before = restore->count;
    int result = 0;

    for (size_t at = 0; result == 0 && at < section->length;)
        result = index_shard(restore, section->body, section->length, &at, error);
    if (result == 0 && restore->count - before != section->count) {
        snprintf(error->text, sizeof error->text, "a section has other flows than it says");
        result = SM_E_DAMAGED;
    }
    return result;
}

static int by_unit(const void *a, const void *b)
{
    const struct encoded_flow *x = a, *y = b;

    if (x->unit != y->unit)
        return x->unit < y->unit ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int read_header(struct restore *restore, const struct archive_section *section, struct sm_errbuf *error)
{
    sm_value header = record_value(section->body, section->body + section->length);
    uint64_t version = sm_value_uint(sm_value_get(header, "version"), 0);
    size_t length;

    if (version != ARCHIVE_VERSION) {
        snprintf(error->text, sizeof error->text, "the checkpoint is of version %llu; this program reads version %u",
                 (unsigned long long)version, ARCHIVE_VERSION);
        return SM_E_PROTOCOL;
    }
    restore->time = sm_value_uint(sm_value_get(header, "time"), 0);
    restore->secret = sm_value_bytes(sm_value_get(header, "secret"), &length);
    if (!restore->secret || length != STATE_SECRET_BYTES) {
        snprintf(error->text, sizeof error->text, "the checkpoint's header is damaged");
        return SM_E_DAMAGED;
    }
    char steering[KEYING_TEXT];
    keying_text(restore->arena->steering, steering);
    if (record_is_text(sm_value_get(header, "steering"), steering))
        return 0;
    snprintf(error->text, sizeof error->text, "packets are steered by %s here, and by another key in the checkpoint",
             steering);
    return SM_E_CONFLICT;
}

static int read_section(struct restore *restore, const struct archive_section *section, struct sm_errbuf *error)
{
    switch (section->kind) {
    case ARCHIVE_HEADER:
        return read_header(restore, section, error);
    case ARCHIVE_CLASSES:
        if (restore->source || section->length > SNAPSHOT_PART_BYTES - sizeof(struct snapshot_part))
            break;
        restore->classes = *section;
        return codec_source_open(&restore->source, &restore->codec, section->body, section->length, error);
    case ARCHIVE_FLOWS:
        if (!restore->source)
            break;
        return index_flows(restore, section, error);
    case ARCHIVE_SHARED:
        restore->shared = record_value(section->body, section->body + section->length);
        return shared_check(restore->arena, restore->shared, error);
    case ARCHIVE_END:
        break;
    }
    snprintf(error->text, sizeof error->text, "the checkpoint's sections are in disorder");
    return SM_E_DAMAGED;
}

int restore_open(struct restore **out, struct arena *arena, const char *path, struct sm_errbuf *error)
{
    struct restore *restore = calloc(1, sizeof *restore);
    struct archive_section section;
    struct sm_errbuf why;
    size_t at = 0;

    if (!restore) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return SM_E_NO_MEMORY;
    }
    restore->arena = arena;
    codec_init_base(&restore->codec, arena);
    int result = archive_open(&restore->archive, path, error);
    if (result == 0) {
        while (result == 0 && archive_next(restore->archive, &at, &section))
            result = read_section(restore, &section, &why);
        if (result == 0 && !restore->source) {
            snprintf(why.text, sizeof why.text, "the checkpoint describes no classes");
            result = SM_E_DAMAGED;
        }
        if (result)
            snprintf(error->text, sizeof error->text, "%.80s: %.160s", path, why.text);
    }
    if (result) {
        restore_close(restore);
        return result;
    }
    if (restore->count > 0)
        qsort(restore->flows, restore->count, sizeof *restore->flows, by_unit);
    *out = restore;
    return 0;
}

uint64_t restore_flows(const struct restore *restore)
{
    return restore->count;
}

void restore_close(struct restore *restore)
{
    if (!restore)
        return;
    archive_close(restore->archive);
    codec_source_close(restore->source);
    free(restore->flows);
    free(restore);
}

/* ---- steps of replicas ---- */

bool switch_restore_answered(struct sm_switch *sw, unsigned slot, const struct out_entry *entry)
{
    struct switch_restore *r = &sw->restore;

    if (slot != r->slot || r->answered || entry->buffer >> SNAPSHOT_TICKET_SHIFT != (r->ticket & 0xffffff))
        return r->ticket != 0;
    r->answered = true;
    r->result = -(int)(entry->length & 0xff);
    switch_notify(sw, NOTICE_RESTORED);
    return true;
}

void switch_restore_forsaken(struct sm_switch *sw, unsigned slot)
{
    if (sw->restore.slot != slot)
        return;
    sw->restore.forsaken = true;
    switch_notify(sw, NOTICE_RESTORED);
}

static struct snapshot_part *part_of(const struct sm_switch *sw, unsigned slot)
{
    return (struct snapshot_part *)(void *)sw->slots[slot].snapshot;
}

static void ask(const struct restore *restore, struct sm_switch *sw, unsigned slot, uint32_t flags)
{
    struct switch_restore *r = &sw->restore;

    *r = (struct switch_restore){.slot = (uint8_t)slot, .ticket = r->ticket + 1};
    switch_push(sw, slot, IN_RESTORE, r->ticket << SNAPSHOT_TICKET_SHIFT | flags, 0,
                restore->time > sw->clock ? restore->time : sw->clock);
}

static bool can_answer(const struct sm_switch *sw, unsigned slot)
{
    return slot < ARENA_SLOTS && sw->slots[slot].state == SLOT_READY && !sw->slots[slot].condemned &&
           switch_room_for_markers(sw, slot);
}

/* Who may make flows of a unit; SWITCH_NONE: nobody, now. */
static unsigned maker_of(const struct sm_switch *sw, uint32_t unit)
{
    unsigned slot = unit < SM_SHARDS ? sw->shards[unit].owner : 0;

    while (unit >= SM_SHARDS && slot < sw->slot_count && !can_answer(sw, slot))
        slot++;
    return can_answer(sw, slot) ? slot : SWITCH_NONE;
}

static void put_block(struct snapshot_part *part, const struct encoded_flow *flow, size_t from, size_t bytes)
{
    uint8_t *to = (uint8_t *)(part + 1) + part->bytes;

    *(struct snapshot_block *)(void *)to = (struct snapshot_block){
        .shard = flow->unit,
        .flows = 1,
        .bytes = (uint32_t)bytes,
        .begins = from == 0,
        .ends = from + bytes == flow->length,
    };
    memcpy(to + sizeof(struct snapshot_block), flow->bytes + from, bytes);
    part->bytes += (uint32_t)(sizeof(struct snapshot_block) + ((bytes + 3) & ~3u));
}

/* Fill the slot's area with flows of its shards, from the next one on. */
static void give(struct restore *restore, struct sm_switch *sw, unsigned slot)
{
    struct snapshot_part *part = part_of(sw, slot);
    const size_t room = SNAPSHOT_PART_BYTES - sizeof *part;

    *part = (struct snapshot_part){0};
    restore->part_next = restore->next;
    restore->part_given = restore->given;
    while (restore->part_next < restore->count) {
        const struct encoded_flow *flow = &restore->flows[restore->part_next];
        size_t left = flow->length - restore->part_given, free_bytes = room - part->bytes;
        bool fits = free_bytes >= left + sizeof(struct snapshot_block) + 3;
        if (maker_of(sw, flow->unit) != slot || (!fits && part->bytes > 0))
            break;
        if (!fits)
            left = (room - sizeof(struct snapshot_block)) & ~(size_t)3;
        put_block(part, flow, restore->part_given, left);
        restore->part_given += left;
        if (!fits)
            break;
        restore->part_next++;
        restore->part_given = 0;
    }
    ask(restore, sw, slot, 0);
}

static void tell(struct restore *restore, struct sm_switch *sw, unsigned slot)
{
    struct snapshot_part *part = part_of(sw, slot);

    *part = (struct snapshot_part){.bytes = (uint32_t)restore->classes.length};
    memcpy(part + 1, restore->classes.body, restore->classes.length);
    restore->telling = true;
    ask(restore, sw, slot, RESTORE_HEADER);
}

static void fail(struct restore *restore, int result, const char *why)
{
    restore->result = result;
    snprintf(restore->error.text, sizeof restore->error.text, "%s", why);
    restore->phase = PHASE_CLEAR;
}

/* What a replica answered. A flow that is being given in pieces begins anew with its shard's next owner. */
static void take_answer(struct restore *restore, struct sm_switch *sw)
{
    struct switch_restore *r = &sw->restore;
    const struct sm_errbuf *text =
        (const struct sm_errbuf *)(const void *)(sw->slots[r->slot].snapshot + SNAPSHOT_PART_BYTES);
    bool telling = restore->telling;

    restore->telling = false;
    if (r->forsaken) {
        restore->told &= ~(1ull << r->slot);
        restore->given = 0;
    } else if (r->result && restore->phase == PHASE_FLOWS) {
        struct sm_errbuf copy = *text;
        copy.text[sizeof copy.text - 1] = '\0';
        fail(restore, r->result, copy.text[0] ? copy.text : sm_strerror(r->result));
    } else if (restore->phase == PHASE_CLEAR) {
        restore->cleared |= 1ull << r->slot;
    } else if (restore->phase == PHASE_CLEAR_STRIPES) {
        atomic_store_explicit(&sw->arena->restoring, RESTORING_NOTHING, memory_order_release); /* all of it is gone */
        restore->phase = PHASE_OVER;
    } else if (telling) {
        restore->told |= 1ull << r->slot;
    } else {
        restore->next = restore->part_next;
        restore->given = restore->part_given;
    }
    r->slot = SWITCH_NONE;
}

static void drain(struct restore *restore, struct sm_switch *sw)
{
    struct state_usage usage;

    sw->input_held = true;
    if (sw->in_flight > 0 || sw->operation.active || sw->snapshot.active)
        return;
    for (unsigned i = 0; i < sw->slot_count; i++)
        if (sw->slots[i].ticking || sw->slots[i].snapshots > 0)
            return;
    state_usage(sw->arena->state, &usage);
    if (usage.flows_live > 0) {
        char why[192];
        snprintf(why, sizeof why,
                 "the service has %llu flows: a checkpoint is restored where there are none, as by "
                 "'smctl run --restore FILE'",
                 (unsigned long long)usage.flows_live);
        fail(restore, SM_E_STATE, why);
        restore->phase = PHASE_OVER; /* they are not ours to end */
        return;
    }
    /* From here to the end half of it is there: another switch takes it back (resume.c). */
    memcpy(sw->arena->secret_before, state_secret(sw->arena->state), STATE_SECRET_BYTES);
    atomic_store_explicit(&sw->arena->restoring, RESTORING_FLOWS, memory_order_release);
    state_secret_set(sw->arena->state, restore->secret);
    restore->phase = PHASE_FLOWS;
}

static void make_flows(struct restore *restore, struct sm_switch *sw)
{
    if (restore->next == restore->count) {
        restore->phase = PHASE_SHARED;
        return;
    }
    unsigned slot = maker_of(sw, restore->flows[restore->next].unit);
    if (slot == SWITCH_NONE)
        return;
    if (restore->told >> slot & 1)
        give(restore, sw, slot);
    else
        tell(restore, sw, slot);
}

/* End the flows that were made. Nobody's shards are cleared once they have an owner: input is held until then. */
static void clear(struct restore *restore, struct sm_switch *sw)
{
    for (unsigned slot = 0; slot < sw->slot_count; slot++)
        if (can_answer(sw, slot) && !(restore->cleared >> slot & 1)) {
            ask(restore, sw, slot, RESTORE_CLEAR);
            return;
        }
    restore->phase = PHASE_CLEAR_STRIPES;
}

static void clear_stripes(struct restore *restore, struct sm_switch *sw)
{
    unsigned slot = maker_of(sw, SM_SHARDS);

    if (slot == SWITCH_NONE)
        return;
    state_secret_set(sw->arena->state, sw->arena->secret_before);
    ask(restore, sw, slot, RESTORE_CLEAR | RESTORE_STRIPES);
}

int restore_step(struct restore *restore, struct sm_switch *sw, struct sm_errbuf *error)
{
    enum restore_phase before;

    do {
        if (sw->restore.slot != SWITCH_NONE) {
            if (!sw->restore.answered && !sw->restore.forsaken)
                return RESTORE_WAIT;
            take_answer(restore, sw);
        }
        before = restore->phase;
        switch (restore->phase) {
        case PHASE_DRAIN:
            drain(restore, sw);
            break;
        case PHASE_FLOWS:
            make_flows(restore, sw);
            break;
        case PHASE_SHARED:
            atomic_store_explicit(&sw->arena->restoring, RESTORING_SHARED, memory_order_release);
            shared_restore(sw->arena, restore->shared);
            if (restore->time > sw->clock)
                sw->clock = restore->time;
            if (sw->bindings)
                switch_bind_learn(sw);
            atomic_store_explicit(&sw->arena->restoring, RESTORING_NOTHING, memory_order_release);
            restore->phase = PHASE_OVER;
            break;
        case PHASE_CLEAR:
            clear(restore, sw);
            break;
        case PHASE_CLEAR_STRIPES:
            clear_stripes(restore, sw);
            break;
        case PHASE_OVER:
            break;
        }
    } while (restore->phase != before);
    if (restore->phase != PHASE_OVER)
        return RESTORE_WAIT;
    sw->input_held = false;
    if (restore->result)
        *error = restore->error;
    return restore->result;
}

void restore_give_up(struct restore *restore)
{
    if (restore->phase < PHASE_CLEAR)
        fail(restore, SM_E_STATE, "replicas did not answer in time");
    else
        restore->phase = PHASE_OVER;
}
