/* SPDX-License-Identifier: BSD-2-Clause */

/* The public calls of include/splitmerge/splitmerge.h, registration, and the loop. */

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arena/builds.h"
#include "replica/replica.h"
#include "state/layout.h"

/* How long to poll, yielding the core each time, before sleeping: sleeping and waking across cores costs more. */
#define YIELD_NS 50000

/* An idle timeout that no capture will see: 146 years. */
#define NEVER_NS (1ull << 62)

int sm_open(struct sm_replica **out, const struct sm_options *options, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;
    const char *path = getenv("SPLITMERGE_ATTACH");

    *out = NULL;
    if (!error)
        error = &ignored;
    if (!options || options->size != sizeof *options || !options->name || strlen(options->name) > 31 ||
        !options->on_packet || options->max_sends > SM_MAX_SENDS) {
        snprintf(error->text, sizeof error->text,
                 "sm_open: options need their size, a name, a packet handler, and at most %d sends", SM_MAX_SENDS);
        return SM_E_INVALID;
    }
    if (!path && !options->input) {
        snprintf(error->text, sizeof error->text,
                 "neither an input nor a service to attach to (SPLITMERGE_ATTACH is not set)");
        return SM_E_INVALID;
    }
    struct sm_replica *replica = replica_new(options->name, error);
    if (!replica)
        return SM_E_NO_MEMORY;
    replica->registration->sends = options->max_sends;
    replica->registration->delays = replica->delays = options->delays;
    replica->on_packet = options->on_packet;
    replica->user = options->user;
    int result = path ? attach_open(replica, path, options->name, options->replica, error)
                      : standalone_open(replica, options, error);
    if (result) {
        sm_close(replica);
        return result;
    }
    *out = replica;
    return 0;
}

bool sm_standalone(const struct sm_replica *replica)
{
    return replica->standalone != NULL;
}

int sm_linktype(const struct sm_replica *replica)
{
    return replica->arena->linktype;
}

int sm_drop_reason(struct sm_replica *replica, const char *name, uint16_t *reason)
{
    struct registration *registration = replica->registration;

    if (!registration)
        return SM_E_STATE;
    if (name[0] == '\0' || strlen(name) >= sizeof registration->reasons[0])
        return SM_E_INVALID;
    for (uint32_t i = 0; i < registration->reason_count; i++)
        if (strcmp(registration->reasons[i], name) == 0) {
            *reason = (uint16_t)i;
            return 0;
        }
    if (registration->reason_count == SM_MAX_REASONS)
        return SM_E_LIMIT;
    *reason = (uint16_t)registration->reason_count;
    strcpy(registration->reasons[registration->reason_count++], name);
    return 0;
}

/* Whether a registration has a reason. */
static bool has_reason(const struct registration *registration, const char *name)
{
    for (uint32_t i = 0; i < registration->reason_count && i < SM_MAX_REASONS; i++)
        if (strcmp(registration->reasons[i], name) == 0)
            return true;
    return false;
}

int sm_drop_reasons(struct sm_replica *replica, const char *const *names, unsigned count, uint16_t *reasons)
{
    const struct registration *base = &builds_base(replica->arena)->registration, *known = base;
    uint16_t ignored;
    int result = 0;

    /* Who adds none is of the service's build; who does goes by all that there were, of versions that did not stay too.
     */
    for (unsigned i = 0; i < count; i++)
        if (!has_reason(base, names[i]))
            known = &replica->arena->registration;
    for (uint32_t i = 0; result == 0 && i < known->reason_count && i < SM_MAX_REASONS; i++)
        result = sm_drop_reason(replica, known->reasons[i], &ignored);
    for (unsigned i = 0; result == 0 && i < count; i++)
        result = sm_drop_reason(replica, names[i], &reasons[i]);
    return result;
}

const char *sm_class_known(const struct sm_replica *replica, unsigned number)
{
    const struct registration *base = &builds_base(replica->arena)->registration;

    return number < base->class_count && number < SM_MAX_CLASSES ? base->classes[number].name : NULL;
}

static int copy_fields(struct state_class *cls, const struct sm_class_options *options)
{
    if (options->field_count > SM_MAX_FIELDS)
        return SM_E_INVALID;
    for (unsigned i = 0; i < options->field_count; i++) {
        const struct sm_field *field = &options->fields[i];
        if (!field->name || strlen(field->name) > 23 || (field->unit && strlen(field->unit) > 7) ||
            !layout_field_sound((uint8_t)field->type, field->size) ||
            (uint32_t)field->offset + field->size > options->record_size)
            return SM_E_INVALID;
        for (unsigned k = 0; k < i; k++)
            if (strcmp(cls->fields[k].name, field->name) == 0)
                return SM_E_INVALID;
        strcpy(cls->fields[i].name, field->name);
        if (field->unit)
            strcpy(cls->fields[i].unit, field->unit);
        cls->fields[i].type = (uint8_t)field->type;
        cls->fields[i].offset = field->offset;
        cls->fields[i].size = field->size;
        cls->fields[i].scale = field->scale == 0 ? 1 : field->scale;
    }
    cls->field_count = (uint16_t)options->field_count;
    return 0;
}

int sm_class_register(struct sm_replica *replica, const struct sm_class_options *options, sm_class *cls)
{
    struct registration *registration = replica->registration;

    if (!registration)
        return SM_E_STATE;
    if (options->size != sizeof *options || !options->name || options->name[0] == '\0' || strlen(options->name) > 31 ||
        options->record_size == 0 || options->record_size > SM_MAX_RECORD || options->timers > SM_MAX_TIMERS ||
        (unsigned)options->granularity >= SM_GRANULARITY_COUNT || options->prefix4 > 32 || options->prefix6 > 128 ||
        (options->timers > 0 && !options->on_timer) ||
        (sm_granularity_is_shared(options->granularity) && !options->may_share) ||
        (unsigned)options->at_limit > SM_AT_LIMIT_EVICT || !options->encode != !options->decode ||
        options->oldest_version > options->version || !bind_declared(options))
        return SM_E_INVALID;
    if (registration->class_count == SM_MAX_CLASSES)
        return SM_E_LIMIT;
    for (uint32_t i = 0; i < registration->class_count; i++)
        if (strcmp(registration->classes[i].name, options->name) == 0)
            return SM_E_CONFLICT;

    struct state_class *to = &registration->classes[registration->class_count];
    if (copy_fields(to, options) != 0) {
        memset(to, 0, sizeof *to);
        return SM_E_INVALID;
    }
    strcpy(to->name, options->name);
    to->version = options->version;
    to->record_size = options->record_size;
    to->limit = options->limit;
    to->key = (struct keying){(uint8_t)options->granularity, options->prefix4, options->prefix6};
    to->at_limit = (uint8_t)options->at_limit;
    to->alloc_limit = options->alloc_limit;
    if (options->binds)
        strcpy(to->binds, options->binds);
    to->idle_ns = options->idle_timeout_ns;
    if (to->idle_ns == 0 && options->at_limit == SM_AT_LIMIT_EVICT)
        to->idle_ns = NEVER_NS; /* its deadline tells when the flow was used last */
    to->timers = (uint8_t)(options->timers + (to->idle_ns > 0) + (options->hard_timeout_ns > 0));
    to->hard_ns = options->hard_timeout_ns;
    to->may_share = options->may_share;
    to->code = (uintptr_t)options->code;
    to->code_build = options->code ? sm_code_build(options->code) : 0;
    to->copy = (uint8_t)layout_copy(to, options->encode != NULL);
    to->upgrades = options->upgrade != NULL;
    to->downgrades = options->downgrade != NULL;
    to->oldest = options->oldest_version;
    replica->classes[registration->class_count].encode = options->encode;
    replica->classes[registration->class_count].decode = options->decode;
    replica->classes[registration->class_count].upgrade = options->upgrade;
    replica->classes[registration->class_count].downgrade = options->downgrade;
    replica->classes[registration->class_count].on_timer = options->on_timer;
    replica->classes[registration->class_count].on_expire = options->on_expire;
    replica->classes[registration->class_count].on_adopt = options->on_adopt;
    replica->classes[registration->class_count].on_release = options->on_release;
    replica->classes[registration->class_count].on_undo = options->on_undo;
    replica->classes[registration->class_count].timers = options->timers;
    replica->classes[registration->class_count].user = options->user;
    int result = bind_register(replica, registration->class_count, options);
    if (result) {
        memset(to, 0, sizeof *to);
        return result;
    }
    cls->id = (uint16_t)registration->class_count++;
    return 0;
}

int replica_register_shared(struct sm_replica *replica, const char *name, struct shared_object wanted,
                            struct shared_object **object)
{
    struct registration *registration = replica->registration;
    uint32_t count;

    if (!registration)
        return SM_E_STATE;
    if (!name || name[0] == '\0' || strlen(name) > 31)
        return SM_E_INVALID;
    if ((count = registration->shared_count) == SM_MAX_SHARED)
        return SM_E_LIMIT;
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(registration->shared[i].name, name) == 0)
            return SM_E_CONFLICT;
    strcpy(wanted.name, name);
    if (!coherent_sound(&wanted, 1))
        return SM_E_INVALID;
    if (count > 0)
        wanted.at = registration->shared[count - 1].at + coherent_place_bytes(&registration->shared[count - 1]);
    if (wanted.at + coherent_place_bytes(&wanted) > COHERENT_ROW_BYTES)
        return SM_E_LIMIT;
    *object = &registration->shared[count];
    **object = wanted;
    registration->shared_count++;
    return (int)count;
}

int sm_start(struct sm_replica *replica, struct sm_errbuf *error)
{
    struct sm_errbuf ignored;

    if (!error)
        error = &ignored;
    if (!replica->registration) {
        snprintf(error->text, sizeof error->text, "sm_start: already started");
        return SM_E_STATE;
    }
    int result = replica->standalone ? standalone_start(replica, error) : attach_start(replica, error);
    if (result)
        return result;
    free(replica->registration);
    replica->registration = NULL;
    replica_learn_classes(replica);
    replica->started = true;
    return 0;
}

void sm_decline(struct sm_replica *replica, const char *reason)
{
    if (replica->attachment && replica->registration)
        attach_decline(replica, reason);
}

int sm_poll(struct sm_replica *replica, unsigned budget)
{
    return replica->standalone ? standalone_poll(replica, budget) : attach_poll(replica, budget);
}

int sm_sleep_fd(struct sm_replica *replica)
{
    return replica->standalone ? standalone_sleep_fd(replica) : attach_sleep_fd(replica, REPLICA_SLEEPS);
}

static uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Nothing to do: yield for a while, then sleep until something comes. */
static int wait_for_input(struct sm_replica *replica)
{
    for (uint64_t start = monotonic(); monotonic() - start < YIELD_NS; sched_yield())
        if (replica->standalone || replica_has_input(replica))
            break;
    if (replica_has_input(replica))
        return 0;
    int fd = sm_sleep_fd(replica);
    if (fd == SM_E_AGAIN)
        return 0;
    if (fd < 0)
        return fd;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    poll(&wait, 1, replica->standalone ? 10 : -1);
    atomic_store_explicit(&replica->channel->replica_sleeps, REPLICA_AWAKE, memory_order_relaxed);
    return 0;
}

int sm_run(struct sm_replica *replica)
{
    for (;;) {
        if (replica->interrupted) {
            replica->interrupted = 0;
            return SM_E_AGAIN;
        }
        int result = sm_poll(replica, CHANNEL_BURST);
        if (result == 0)
            result = wait_for_input(replica);
        if (result == SM_E_END)
            return 0;
        if (result < 0)
            return result;
    }
}

const char *sm_last_error(const struct sm_replica *replica)
{
    return replica->last_error.text;
}

void sm_stop(struct sm_replica *replica)
{
    replica->stop = 1;
}

void sm_interrupt(struct sm_replica *replica)
{
    replica->interrupted = 1;
}

void sm_close(struct sm_replica *replica)
{
    if (!replica)
        return;
    if (replica->standalone)
        standalone_close(replica);
    if (replica->attachment)
        attach_close(replica);
    bind_forget(replica);
    free(replica->registration);
    free(replica);
}
