/* SPDX-License-Identifier: BSD-2-Clause */
#include "arena/arena.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena/builds.h"
#include "arena/huge.h"
#include "state/layout.h"

static uint64_t pages(uint64_t bytes)
{
    return (bytes + 4095) & ~4095ull;
}

/* Where much is met at random: whole huge pages (huge.h). */
static uint64_t huge_pages(uint64_t bytes)
{
    return (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

/* splitmix64 (Steele et al., OOPSLA 2014): spreads a test's seed over the secret. */
static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int fill_secret(uint8_t *secret, uint64_t seed)
{
    if (seed == 0)
        return getrandom(secret, STATE_SECRET_BYTES, 0) == STATE_SECRET_BYTES ? 0 : SM_E_IO;
    for (size_t i = 0; i < STATE_SECRET_BYTES; i += sizeof seed) {
        uint64_t word = splitmix(&seed);
        memcpy(secret + i, &word, sizeof word);
    }
    return 0;
}

/* Map the first free stride. MAP_FIXED_NOREPLACE: what is there already stays. */
static struct arena *map_somewhere(int fd, uint64_t bytes)
{
    for (unsigned i = 0; i < ARENA_STRIDES; i++) {
        void *at = (void *)(uintptr_t)(ARENA_BASE + i * ARENA_STRIDE);
        if (mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) == at)
            return at;
    }
    return NULL;
}

/* Huge pages when the system has enough set aside, else plain ones; sealed so that nobody can take memory away. */
static int create_memfd(uint64_t *bytes)
{
    uint64_t huge = huge_pages(*bytes);
    int fd = memfd_create("splitmerge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);

    if (fd >= 0) {
        /* Only fallocate() tells whether the pool of huge pages has room for all of it. */
        if (ftruncate(fd, (off_t)huge) == 0 && fallocate(fd, 0, 0, (off_t)huge) == 0) {
            *bytes = huge;
            return fd;
        }
        close(fd);
    }
    fd = memfd_create("splitmerge", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && ftruncate(fd, (off_t)*bytes) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static uint32_t bindings_of(const struct arena_options *options)
{
    return options->bindings ? options->bindings : ARENA_BINDINGS;
}

static void lay_out(struct arena *arena, const struct arena_options *options, uint32_t small, uint32_t jumbo)
{
    uint8_t *at = (uint8_t *)arena + pages(sizeof *arena);

    arena->channels = at;
    arena->bindings = bindings_of(options);
    arena->channel_bytes = channel_bytes(small + jumbo, arena->bindings);
    at += arena->channel_bytes * ARENA_SLOTS * ARENA_WORKERS;
    arena->exports = (struct export_area *)(void *)at;
    arena->export_bytes = options->export_bytes ? options->export_bytes : EXPORT_BYTES;
    at = (uint8_t *)huge_pages((uintptr_t)at + EXPORT_LANES * sizeof *arena->exports);
    arena->pool = (struct pool_layout){.small = at, .small_count = small, .jumbo_count = jumbo};
    at += (uint64_t)small * POOL_SMALL_BYTES;
    arena->pool.jumbo = at;

    arena->magic = ARENA_MAGIC;
    arena->version = ARENA_VERSION;
    arena->header_bytes = sizeof *arena;
    arena->linktype = options->linktype;
    arena->mode = options->mode;
    arena->own_flows = options->own_flows;
    arena->steered = options->steered;
    arena->steering = options->steering;
    arena->seed = options->seed;
    snprintf(arena->service, sizeof arena->service, "%s", options->service);
    if (gethostname(arena->host, sizeof arena->host - 1) != 0)
        snprintf(arena->host, sizeof arena->host, "localhost");
    for (unsigned i = 0; i < ARENA_SLOTS; i++)
        atomic_init(&arena->late_time[i], UINT64_MAX);
}

_Static_assert(offsetof(struct arena, bytes) == 16 && offsetof(struct arena, base) == 24, "as arena_take_over() reads");

int arena_create(struct arena **out, int *fd_out, const struct arena_options *options, struct sm_errbuf *error)
{
    uint32_t small = options->small_buffers ? options->small_buffers : POOL_SMALL_COUNT;
    uint32_t jumbo = options->jumbo_buffers ? options->jumbo_buffers : 64;
    struct state_config config = {.memory = options->memory, .flows = options->flows, .bindings = bindings_of(options)};
    int result = fill_secret(config.secret, options->seed);

    if (result)
        return result;
    uint64_t pool_at = huge_pages(pages(sizeof(struct arena)) +
                                  channel_bytes(small + jumbo, config.bindings) * ARENA_SLOTS * ARENA_WORKERS +
                                  EXPORT_LANES * sizeof(struct export_area));
    uint64_t state_at = pool_at + huge_pages((uint64_t)small * POOL_SMALL_BYTES + (uint64_t)jumbo * POOL_JUMBO_BYTES);
    uint64_t state_size = state_bytes(&config);
    uint64_t bytes = state_at + pages(state_size);
    if (state_size == 0 || bytes > ARENA_STRIDE) {
        snprintf(error->text, sizeof error->text, "limits.memory: %llu bytes, expected at most %llu",
                 (unsigned long long)options->memory, (unsigned long long)(ARENA_STRIDE - state_at));
        return SM_E_INVALID;
    }
    int fd = create_memfd(&bytes);
    if (fd < 0) {
        snprintf(error->text, sizeof error->text, "cannot create an arena of %llu bytes: %s", (unsigned long long)bytes,
                 strerror(errno));
        return SM_E_NO_MEMORY;
    }
    struct arena *arena = map_somewhere(fd, bytes);
    if (!arena) {
        snprintf(error->text, sizeof error->text, "no free address range for an arena of %llu bytes",
                 (unsigned long long)bytes);
        close(fd);
        return SM_E_RANGE;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        snprintf(error->text, sizeof error->text, "cannot seal the arena: %s", strerror(errno));
        munmap(arena, bytes);
        close(fd);
        return SM_E_IO;
    }
    madvise(arena, bytes, MADV_DONTFORK); /* a forked child does not inherit the arena (design D5) */
    arena->bytes = bytes;
    arena->base = (uintptr_t)arena;
    lay_out(arena, options, small, jumbo);
    result = state_format(&arena->state, (uint8_t *)arena + state_at, state_size, &config);
    if (result) {
        snprintf(error->text, sizeof error->text, "flow state: %s", sm_strerror(result));
        arena_unmap(arena);
        close(fd);
        return result;
    }
    *out = arena;
    *fd_out = fd;
    return 0;
}

int arena_map(struct arena **out, int fd, uint64_t base, uint64_t bytes, struct sm_errbuf *error)
{
    void *at = (void *)(uintptr_t)base;
    struct stat status;

    if (fstat(fd, &status) != 0 || (uint64_t)status.st_size < bytes || bytes < sizeof(struct arena)) {
        snprintf(error->text, sizeof error->text, "the switch sent no arena");
        return SM_E_PROTOCOL;
    }
    void *got = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    if (got != at) {
        if (got != MAP_FAILED)
            munmap(got, bytes);
        snprintf(error->text, sizeof error->text, "the arena's addresses 0x%llx-0x%llx are taken in this process",
                 (unsigned long long)base, (unsigned long long)(base + bytes));
        return SM_E_RANGE;
    }
    struct arena *arena = at;
    if (arena->magic != ARENA_MAGIC || arena->version != ARENA_VERSION || arena->header_bytes != sizeof *arena ||
        arena->bytes != bytes) {
        snprintf(error->text, sizeof error->text, "the arena has another layout (version %u, expected %u)",
                 arena->version, ARENA_VERSION);
        munmap(at, bytes);
        return SM_E_PROTOCOL;
    }
    madvise(arena, bytes, MADV_DONTFORK);
    *out = arena;
    return 0;
}

int arena_peek(struct arena **arena, int fd, struct sm_errbuf *error)
{
    uint64_t words[4] = {0}; /* the header's first */
    ssize_t got = pread(fd, words, sizeof words, 0);

    if (got != sizeof words || words[0] != ARENA_MAGIC) {
        snprintf(error->text, sizeof error->text, "what was left behind is not an arena");
        return SM_E_PROTOCOL;
    }
    return arena_map(arena, fd, words[3], words[2], error);
}

int arena_take_over(struct arena **out, int fd, const struct arena_options *options, struct sm_errbuf *error)
{
    struct arena *arena;
    int result = arena_peek(&arena, fd, error);
    if (result)
        return result;
    if (strncmp(arena->service, options->service, sizeof arena->service) != 0 || arena->linktype != options->linktype ||
        arena->mode != (uint32_t)options->mode || arena->own_flows != options->own_flows) {
        snprintf(error->text, sizeof error->text,
                 "the arena left behind is that of service %.63s with link type %d%s, expected %.63s with %d%s",
                 arena->service, arena->linktype, arena->own_flows ? " whose flows stay" : "", options->service,
                 options->linktype, options->own_flows ? " whose flows stay" : "");
        arena_unmap(arena);
        return SM_E_CONFLICT;
    }
    if (arena->steered != options->steered ||
        (arena->steered && memcmp(&arena->steering, &options->steering, sizeof arena->steering) != 0)) {
        snprintf(error->text, sizeof error->text,
                 "packets of the service whose arena was left behind are steered by "
                 "another key than middlebox.steer says");
        arena_unmap(arena);
        return SM_E_CONFLICT;
    }
    *out = arena;
    return 0;
}

void arena_unmap(struct arena *arena)
{
    munmap(arena, arena->bytes);
}

void arena_add_row(struct arena *arena, unsigned slot)
{
    uint32_t count = atomic_load_explicit(&arena->row_count, memory_order_relaxed);

    while (count <= slot && !atomic_compare_exchange_weak_explicit(&arena->row_count, &count, slot + 1,
                                                                   memory_order_acq_rel, memory_order_relaxed)) {
    }
}

void arena_forget_noted(struct arena *arena, unsigned slot)
{
    for (unsigned i = 0; i < STATE_STRIPES; i++)
        if (atomic_load_explicit(&arena->noted[slot][i], memory_order_relaxed) != 0)
            atomic_store_explicit(&arena->noted[slot][i], 0, memory_order_release);
}

bool arena_is_settled(struct arena *arena, uint32_t stripe)
{
    const unsigned rows = arena_rows(arena);

    for (unsigned slot = 0; slot < rows; slot++) {
        const struct coherent_writer writer = arena_writer(arena, slot);
        uint64_t unit = atomic_load_explicit(&arena->noted[slot][stripe - SM_SHARDS], memory_order_acquire);
        if (unit != 0 && coherent_settled_unit(&writer) <= unit)
            return false;
    }
    /* A dead replica's notes are queued before what is noted of it is forgotten. */
    return atomic_load_explicit(&arena->notes.tail, memory_order_acquire) ==
           atomic_load_explicit(&arena->notes.head, memory_order_acquire);
}

static bool ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static bool keying_sound(struct keying key)
{
    return key.granularity < SM_GRANULARITY_COUNT && key.prefix4 <= 32 && key.prefix6 <= 128;
}

static bool class_sound(const struct state_class *cls)
{
    if (!ends(cls->name, sizeof cls->name) || cls->field_count > SM_MAX_FIELDS || !keying_sound(cls->key) ||
        cls->copy > CLASS_BY_CALLBACKS || !ends(cls->binds, sizeof cls->binds))
        return false;
    for (unsigned i = 0; i < cls->field_count; i++) {
        uint16_t size = cls->fields[i].size;
        if (!ends(cls->fields[i].name, sizeof cls->fields[i].name) ||
            !ends(cls->fields[i].unit, sizeof cls->fields[i].unit) || !layout_field_sound(cls->fields[i].type, size) ||
            (uint32_t)cls->fields[i].offset + size > cls->record_size)
            return false;
    }
    return true;
}

/* It came over a socket: counts are in range, texts end, fields lie in their records. */
static bool sound(const struct registration *registration)
{
    if (registration->class_count > SM_MAX_CLASSES || registration->shared_count > SM_MAX_SHARED ||
        registration->reason_count > SM_MAX_REASONS || registration->sends > SM_MAX_SENDS ||
        !ends(registration->middlebox, sizeof registration->middlebox))
        return false;
    for (unsigned i = 0; i < SM_MAX_CLASSES; i++)
        if (!class_sound(&registration->classes[i]))
            return false;
    if (!coherent_sound(registration->shared, registration->shared_count))
        return false;
    for (unsigned i = 0; i < SM_MAX_REASONS; i++)
        if (!ends(registration->reasons[i], sizeof registration->reasons[i]))
            return false;
    return true;
}

/* The first registration of a service. */
static int register_first(struct arena *arena, const struct registration *registration, struct sm_errbuf *error)
{
    struct keying steering =
        arena->steered ? arena->steering : steering_choose(registration->classes, registration->class_count);
    char key[KEYING_TEXT], by[KEYING_TEXT];
    for (unsigned i = 0; i < registration->class_count; i++) {
        const struct state_class *cls = &registration->classes[i];
        if (!cls->may_share && !steering_partitions(steering, cls->key)) {
            snprintf(error->text, sizeof error->text,
                     "flow class '%s' by %s cannot be partitioned when packets are steered by %s, and does not accept "
                     "to be shared",
                     cls->name, keying_text(cls->key, key), keying_text(steering, by));
            return SM_E_CONFLICT;
        }
        if (cls->binds[0] != '\0' && steering.granularity != SM_BY_FLOW) {
            snprintf(error->text, sizeof error->text,
                     "flow class '%s' binds keys, which needs packets to be steered by flow; the classes of this "
                     "service are such that they are steered by %s",
                     cls->name, keying_text(steering, by));
            return SM_E_CONFLICT;
        }
    }
    for (unsigned i = 0; i < registration->class_count; i++) {
        struct state_class cls = registration->classes[i];
        cls.partitioned = steering_partitions(steering, cls.key);
        /* There already: of a registration that failed at a later class. */
        const struct state_class *there = state_class(arena->state, i);
        int id = !there                                 ? state_class_add(arena->state, &cls)
                 : memcmp(there, &cls, sizeof cls) == 0 ? (int)i
                                                        : SM_E_CONFLICT;
        if (id < 0)
            return id;
        arena->builds[0].forms[i] = (uint8_t)i;
    }
    for (unsigned i = 0; i < registration->shared_count; i++)
        arena->strong[i].size = registration->shared[i].kind == SHARED_STRONG ? registration->shared[i].value_bytes : 0;
    arena->builds[0].registration = *registration;
    arena->builds[0].number = ++arena->build_count;
    arena->registration = *registration;
    arena->steering = steering;
    arena->registered = true;
    return 0;
}

int arena_register(struct arena *arena, unsigned slot, const struct registration *registration, struct sm_errbuf *error)
{
    if (!sound(registration))
        return SM_E_PROTOCOL;
    if (arena->own_flows && registration->class_count > 0) {
        snprintf(error->text, sizeof error->text,
                 "flow class '%s' goes where its shard goes: middlebox.strategy: expected move for a program that "
                 "registers flow classes",
                 registration->classes[0].name);
        return SM_E_CONFLICT;
    }
    for (unsigned i = 0; i < registration->class_count; i++)
        if (registration->classes[i].code != 0 && registration->classes[i].code_build == 0) {
            snprintf(error->text, sizeof error->text,
                     "flow class '%s' holds addresses of code, in an object without a build id: link it with "
                     "-Wl,--build-id",
                     registration->classes[i].name);
            return SM_E_INVALID;
        }
    int build =
        arena->registered ? builds_take(arena, registration, error) : register_first(arena, registration, error);
    if (build >= 0)
        arena->slot_build[slot] = (uint8_t)build;
    return build < 0 ? build : 0;
}
