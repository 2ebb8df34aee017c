/* SPDX-License-Identifier: BSD-2-Clause */
#include "arena/builds.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "state/form.h"
#include "state/layout.h"

__attribute__((format(printf, 2, 3))) static int conflict(struct sm_errbuf *error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return SM_E_CONFLICT;
}

/* Indices that replicas could have scribbled on. */
static unsigned base_of(const struct arena *arena)
{
    return arena->base_build % ARENA_BUILDS;
}

static const struct build *build_of(const struct arena *arena, unsigned slot)
{
    return &arena->builds[arena->slot_build[slot] % ARENA_BUILDS];
}

int builds_open(struct arena *arena, bool forward_only, bool again, struct sm_errbuf *error)
{
    if (arena->build_count == ARENA_MIXED - 1) {
        snprintf(error->text, sizeof error->text, "the service has been upgraded %u times, and has to be started anew",
                 arena->build_count);
        return SM_E_LIMIT;
    }
    if (!again)
        arena->builds[!base_of(arena)].number = 0;
    STEP();
    arena->forward_only = forward_only;
    STEP();
    arena->upgrading = true;
    STEP();
    return 0;
}

void builds_close(struct arena *arena, bool forward)
{
    const unsigned base = base_of(arena);

    /* The later one: it may be asked for again, by who has not heard that it was done. */
    if (forward && builds_next(arena) && arena->builds[!base].number > arena->builds[base].number)
        arena->base_build = !base;
    STEP();
    arena->upgrading = false;
    STEP();
}

const struct build *builds_base(const struct arena *arena)
{
    return &arena->builds[base_of(arena)];
}

const struct state_class *builds_class(const struct arena *arena, unsigned cls)
{
    const struct build *base = &arena->builds[base_of(arena)];

    return cls < base->registration.class_count ? state_class(arena->state, base->forms[cls]) : NULL;
}

uint8_t builds_number(const struct arena *arena, unsigned slot)
{
    return build_of(arena, slot)->number;
}

uint8_t builds_of_shard(const struct arena *arena, uint32_t shard)
{
    return arena->shard_build[shard] != ARENA_MIXED ? arena->shard_build[shard] : arena->build_count;
}

bool builds_reads(const struct arena *arena, unsigned slot, uint8_t build)
{
    return builds_number(arena, slot) >= build || arena->way_back == WAY_BACK_BY_OLD;
}

bool builds_inherits(const struct arena *arena, unsigned heir, unsigned of)
{
    return builds_reads(arena, heir, builds_number(arena, of));
}

bool builds_returns(const struct arena *arena, unsigned slot)
{
    return arena->way_back == WAY_BACK_BY_NEW && !builds_is_base(arena, slot);
}

bool builds_next(const struct arena *arena)
{
    return arena->upgrading && arena->builds[!base_of(arena)].number != 0;
}

bool builds_is_base(const struct arena *arena, unsigned slot)
{
    return arena->slot_build[slot] == arena->base_build;
}

/* The first difference between two registrations of what shall be one build, in words. */
static int describe(const struct registration *a, const struct registration *b, struct sm_errbuf *error)
{
    for (unsigned i = 0; i < SM_MAX_CLASSES; i++)
        if (strcmp(a->classes[i].name, b->classes[i].name) == 0 && layout_other_code(&a->classes[i], &b->classes[i]))
            return conflict(error, "flow class '%s': %s", b->classes[i].name,
                            layout_other_code(&a->classes[i], &b->classes[i]));
        else if (memcmp(&a->classes[i], &b->classes[i], sizeof a->classes[i]) != 0)
            return conflict(error,
                            "flow class %u is '%s' version %u with %u-byte records, other replicas registered '%s' "
                            "version %u with %u-byte records",
                            i, b->classes[i].name, b->classes[i].version, b->classes[i].record_size, a->classes[i].name,
                            a->classes[i].version, a->classes[i].record_size);
    for (unsigned i = 0; i < SM_MAX_SHARED; i++)
        if (memcmp(&a->shared[i], &b->shared[i], sizeof a->shared[i]) != 0)
            return conflict(error,
                            "shared object %u is '%s' (%s of %u bytes), other replicas registered '%s' (%s of %u "
                            "bytes)",
                            i, b->shared[i].name, coherent_kind_name(b->shared[i].kind), b->shared[i].value_bytes,
                            a->shared[i].name, coherent_kind_name(a->shared[i].kind), a->shared[i].value_bytes);
    return conflict(error, "its name ('%s') or drop reasons differ from other replicas' ('%s')", b->middlebox,
                    a->middlebox);
}

/* A class that both builds have. */
static int check_class(const struct state_class *old, const struct state_class *new, bool partitioned,
                       enum way_back *way_back, struct sm_errbuf *error)
{
    struct sm_errbuf why;

    if (memcmp(old, new, sizeof *old) == 0)
        return 0;
    if (strcmp(old->name, new->name) != 0)
        return conflict(error, "flow class '%s' of the old version is '%s' in the new one: classes keep their order",
                        old->name, new->name);
    char was[KEYING_TEXT], is[KEYING_TEXT];
    if (memcmp(&old->key, &new->key, sizeof old->key) != 0)
        return conflict(error, "flow class '%s' is by %s in the new version, by %s in the old one: keys cannot change",
                        old->name, keying_text(new->key, is), keying_text(old->key, was));
    if (!partitioned)
        return conflict(error, "flow class '%s' is shared by all replicas: a new version cannot change it", old->name);
    enum form_way way = form_way(old, new, error);
    if (way == FORM_NONE)
        return SM_E_CONFLICT;
    if (way == FORM_DOWNGRADE)
        return conflict(error, "flow class '%s' of version %u is older than the service's (%u)", new->name,
                        new->version, old->version);
    enum form_way back = form_way(new, old, &why);
    if (back == FORM_NONE)
        *way_back = WAY_BACK_NONE;
    else if (back == FORM_DOWNGRADE && *way_back == WAY_BACK_BY_OLD)
        *way_back = WAY_BACK_BY_NEW;
    if (back == FORM_NONE)
        conflict(error, "there is no way back (it takes --no-rollback): %.180s", why.text);
    return 0;
}

static int check_classes(const struct arena *arena, const struct build *base, const struct registration *new,
                         enum way_back *way_back, struct sm_errbuf *error)
{
    const struct registration *old = &base->registration;
    char key[KEYING_TEXT], by[KEYING_TEXT];

    for (unsigned i = 0; i < old->class_count; i++) {
        bool partitioned = steering_partitions(arena->steering, old->classes[i].key);
        int result = check_class(&old->classes[i], &new->classes[i], partitioned, way_back, error);
        if (result)
            return result;
    }
    for (unsigned i = old->class_count; i < new->class_count; i++)
        if (new->classes[i].binds[0] != '\0')
            return conflict(error, "flow class '%s' is new, and binds keys: the service would have to be started anew",
                            new->classes[i].name);
        else if (!steering_partitions(arena->steering, new->classes[i].key))
            return conflict(
                error, "flow class '%s' by %s is new, and would need another steering key than the service's (%s)",
                new->classes[i].name, keying_text(new->classes[i].key, key), keying_text(arena->steering, by));
    return *way_back != WAY_BACK_NONE || arena->forward_only ? 0 : SM_E_CONFLICT;
}

/* What else both have; `known`: also what builds had that did not stay. */
static int check_others(const struct registration *old, const struct registration *known,
                        const struct registration *new, struct sm_errbuf *error)
{
    if (strcmp(old->middlebox, new->middlebox) != 0)
        return conflict(error, "it is the middlebox '%s', the service runs '%s'", new->middlebox, old->middlebox);
    if (new->class_count < old->class_count)
        return conflict(error, "flow class '%s' is missing", old->classes[new->class_count].name);
    if (new->shared_count < old->shared_count)
        return conflict(error, "shared object '%s' is missing", old->shared[new->shared_count].name);
    if (new->reason_count < old->reason_count)
        return conflict(error, "drop reason '%s' is missing", old->reasons[new->reason_count]);
    if (new->delays && !known->delays)
        return conflict(error, "it delays packets, which the service was not started for");
    if (new->others != known->others)
        return conflict(error, "it and the service differ in whether packets that are not IP come too");
    if (new->sends > known->sends)
        return conflict(error, "it sends up to %u packets for each one, the service has room for %u", new->sends,
                        known->sends);
    for (unsigned i = 0; i < old->shared_count; i++)
        if (memcmp(&old->shared[i], &new->shared[i], sizeof old->shared[i]) != 0)
            return conflict(error, "shared object '%s' of the old version is another in the new one ('%s')",
                            old->shared[i].name, new->shared[i].name);
    for (unsigned i = 0; i < known->reason_count && i < new->reason_count; i++)
        if (strcmp(known->reasons[i], new->reasons[i]) != 0)
            return conflict(error, "drop reason '%s' is '%s' in the new version: reasons keep their order",
                            known->reasons[i], new->reasons[i]);
    return 0;
}

/* The form of a class of a new build: one that is there, or another one. */
static int take_form(struct state *state, const struct state_class *cls)
{
    for (unsigned i = 0; i < state_class_count(state); i++)
        if (memcmp(state_class(state, i), cls, sizeof *cls) == 0)
            return (int)i;
    return state_class_add(state, cls);
}

/* What the new build adds to the shared objects begins empty, whatever a build that did not stay has left there. */
static void add_shared(struct arena *arena, const struct registration *old, const struct registration *new)
{
    uint32_t from = COHERENT_ROW_BYTES, rows = atomic_load_explicit(&arena->row_count, memory_order_acquire);

    for (unsigned i = old->shared_count; i < new->shared_count; i++) {
        bool strong = new->shared[i].kind == SHARED_STRONG;
        memset(&arena->strong[i], 0, sizeof arena->strong[i]);
        arena->strong[i].size = strong ? new->shared[i].value_bytes : 0;
        if (!strong && new->shared[i].at < from)
            from = new->shared[i].at;
    }
    for (unsigned slot = 0; slot < rows && slot < ARENA_SLOTS; slot++)
        memset(arena->rows[slot] + from, 0, COHERENT_ROW_BYTES - from);
}

/* Whether another build that did not stay has left flows in its forms. */
static bool left_over(const struct arena *arena, uint8_t base)
{
    for (uint32_t shard = 0; shard < SM_SHARDS; shard++)
        if (arena->shard_build[shard] > base)
            return true;
    return false;
}

static int take_next(struct arena *arena, const struct registration *new, struct sm_errbuf *error)
{
    const struct build *base = &arena->builds[base_of(arena)];
    struct build *next = &arena->builds[!base_of(arena)];
    enum way_back way_back = WAY_BACK_BY_OLD;

    int result = check_others(&base->registration, &arena->registration, new, error);
    if (result == 0)
        result = check_classes(arena, base, new, &way_back, error);
    for (unsigned i = 0; result >= 0 && i < new->class_count; i++) {
        struct state_class cls = new->classes[i];
        cls.partitioned = steering_partitions(arena->steering, cls.key);
        result = take_form(arena->state, &cls);
        next->forms[i] = (uint8_t)result;
        if (result < 0)
            snprintf(error->text, sizeof error->text,
                     "the service has had too many versions of its flow classes, and has to be started anew");
    }
    if (result < 0)
        return result;
    STEP();
    add_shared(arena, &base->registration, new);
    STEP();
    next->registration = *new;
    if (way_back > arena->way_back && left_over(arena, base->number))
        way_back = (enum way_back)arena->way_back;
    arena->way_back = (uint8_t)way_back;
    STEP();
    for (uint32_t i = arena->registration.reason_count; i < new->reason_count; i++)
        memcpy(arena->registration.reasons[i], new->reasons[i], sizeof new->reasons[i]);
    if (arena->registration.reason_count < new->reason_count)
        arena->registration.reason_count = new->reason_count;
    memcpy(arena->registration.shared, new->shared, sizeof new->shared);
    arena->registration.shared_count = new->shared_count;
    STEP();
    /* Last: whoever finds the build finds all of it. */
    arena->build_count++;
    STEP();
    next->number = arena->build_count;
    STEP();
    return 0;
}

int builds_take(struct arena *arena, const struct registration *registration, struct sm_errbuf *error)
{
    struct build *base = &arena->builds[base_of(arena)], *next = &arena->builds[!base_of(arena)];

    if (memcmp(&base->registration, registration, sizeof *registration) == 0)
        return (int)base_of(arena);
    if (!arena->upgrading)
        return describe(&base->registration, registration, error);
    if (next->number == 0) {
        int result = take_next(arena, registration, error);
        return result < 0 ? result : (int)!base_of(arena);
    }
    if (memcmp(&next->registration, registration, sizeof *registration) != 0)
        return describe(&next->registration, registration, error);
    return (int)!base_of(arena);
}
