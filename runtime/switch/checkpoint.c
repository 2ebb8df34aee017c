/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/checkpoint.h"
#include "arena/builds.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "arena/snapshot.h"
#include "switch/archive.h"
#include "switch/restore.h"

#define UNITS SNAPSHOT_OBJECTS /* shards and stripes */
#define NO_SHARD UNITS
#define COPY_BYTES 2048u
#define YIELD_NS 50000
#define NAP_NS 200000
#define PATIENCE_NS 30000000000ull
#define NICE 10
#define HEADER_BYTES (128u << 10) /* of the header, or of the classes' description */

struct checkpoint {
    struct arena *arena;
    struct archive_writer *file;
    uint64_t flows;
    uint64_t covered[(UNITS + 63) / 64];
    struct codec_buffer section; /* flows of whole shards */
    uint32_t section_flows;
    struct codec_buffer partial; /* a shard that goes on in the next block */
    uint32_t partial_shard;
    struct codec_buffer shares; /* contributions to eventual objects, each behind its block */
};

static int put_header(struct checkpoint *checkpoint, struct sm_errbuf *error)
{
    struct codec_buffer *out = &checkpoint->section;
    struct arena *arena = checkpoint->arena;
    struct sm_writer writer;
    char steering[KEYING_TEXT];

    record_begin(&writer, out);
    sm_write_uint(&writer, "version", ARCHIVE_VERSION);
    sm_write_text(&writer, "splitmerge", SPLITMERGE_VERSION);
    sm_write_text(&writer, "service", arena->service);
    sm_write_text(&writer, "host", arena->host);
    sm_write_text(&writer, "middlebox", arena->registration.middlebox);
    sm_write_uint(&writer, "time", atomic_load_explicit(&arena->pushed_time, memory_order_relaxed));
    sm_write_text(&writer, "steering", keying_text(arena->steering, steering));
    sm_write_bytes(&writer, "secret", state_secret(arena->state), STATE_SECRET_BYTES);
    int result = record_end(&writer);
    if (result == 0)
        result = archive_put(checkpoint->file, ARCHIVE_HEADER, 1, out->bytes, out->used, error);
    out->used = 0;
    return result;
}

static int put_classes(struct checkpoint *checkpoint, struct sm_errbuf *error)
{
    struct codec_buffer *out = &checkpoint->section;
    struct codec codec;

    codec_init_base(&codec, checkpoint->arena);
    int result = codec_header(&codec, out);
    if (result == 0)
        result = archive_put(checkpoint->file, ARCHIVE_CLASSES, codec.class_count, out->bytes, out->used, error);
    out->used = 0;
    return result;
}

void checkpoint_stand_back(void)
{
    if (getpriority(PRIO_PROCESS, 0) < NICE)
        setpriority(PRIO_PROCESS, 0, NICE); /* on Linux that is the thread's alone; to lower it is never refused */
}

int checkpoint_open(struct checkpoint **out, struct arena *arena, const char *path, struct sm_errbuf *error)
{
    struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    int result = SM_E_NO_MEMORY;

    snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
    if (!checkpoint)
        return result;
    checkpoint->arena = arena;
    checkpoint->partial_shard = NO_SHARD;
    checkpoint->section.size = SNAPSHOT_PART_BYTES > HEADER_BYTES ? SNAPSHOT_PART_BYTES : HEADER_BYTES;
    checkpoint->section.bytes = malloc(checkpoint->section.size);
    if (checkpoint->section.bytes)
        result = archive_create(&checkpoint->file, path, error);
    if (result == 0)
        result = put_header(checkpoint, error);
    if (result == 0)
        result = put_classes(checkpoint, error);
    if (result)
        checkpoint_abandon(checkpoint);
    else
        *out = checkpoint;
    return result;
}

void checkpoint_abandon(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    archive_abandon(checkpoint->file);
    free(checkpoint->section.bytes);
    free(checkpoint->partial.bytes);
    free(checkpoint->shares.bytes);
    free(checkpoint);
}

const uint64_t *checkpoint_covered(const struct checkpoint *checkpoint)
{
    return checkpoint->covered;
}

static bool is_covered(const struct checkpoint *checkpoint, uint32_t shard)
{
    return checkpoint->covered[shard / 64] >> shard % 64 & 1;
}

/* A shard is whole. */
static void cover(struct checkpoint *checkpoint, uint32_t shard, uint32_t flows)
{
    checkpoint->covered[shard / 64] |= 1ull << shard % 64;
    checkpoint->flows += flows;
}

static bool append(struct codec_buffer *to, const uint8_t *bytes, size_t length)
{
    if (to->size - to->used < length) {
        size_t size = (to->used + length) * 2;
        uint8_t *larger = realloc(to->bytes, size);
        if (!larger)
            return false;
        to->bytes = larger;
        to->size = size;
    }
    memcpy(to->bytes + to->used, bytes, length);
    to->used += length;
    return true;
}

/* In front of a shard's flows: two MessagePack numbers, the shard's and how many flows it has. */
static void put_shard(uint8_t *to, const struct snapshot_block *block)
{
    to[0] = 0xcd;
    to[1] = (uint8_t)(block->shard >> 8);
    to[2] = (uint8_t)block->shard;
    to[3] = 0xce;
    for (unsigned i = 0; i < 4; i++)
        to[4 + i] = (uint8_t)(block->flows >> (24 - 8 * i));
}

/* A block of a shard that is larger than a part. It becomes a section of its own when it is whole. */
static int take_partial(struct checkpoint *checkpoint, const struct snapshot_block *block, const uint8_t *bytes,
                        struct sm_errbuf *error)
{
    uint8_t shard[ARCHIVE_SHARD_BYTES];

    if (block->begins) { /* what there is of another has lost its writer */
        checkpoint->partial.used = 0;
        checkpoint->partial_shard = block->shard;
        put_shard(shard, block);
        if (!append(&checkpoint->partial, shard, sizeof shard))
            checkpoint->partial_shard = NO_SHARD;
    }
    if (checkpoint->partial_shard != block->shard) {
        snprintf(error->text, sizeof error->text, "a replica's snapshot goes on with what it has not begun");
        return SM_E_DAMAGED;
    }
    if (!append(&checkpoint->partial, bytes, block->bytes)) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return SM_E_NO_MEMORY;
    }
    if (!block->ends)
        return 0;
    checkpoint->partial_shard = NO_SHARD;
    cover(checkpoint, block->shard, block->flows);
    return archive_put(checkpoint->file, ARCHIVE_FLOWS, block->flows, checkpoint->partial.bytes,
                       checkpoint->partial.used, error);
}

static int take_block(struct checkpoint *checkpoint, const struct snapshot_block *block, const uint8_t *bytes,
                      struct sm_errbuf *error)
{
    if (is_covered(checkpoint, block->shard))
        return 0; /* it has moved to where it was asked for again */
    if (!block->begins || !block->ends)
        return take_partial(checkpoint, block, bytes, error);
    cover(checkpoint, block->shard, block->flows);
    if (block->flows == 0)
        return 0;
    if (block->bytes > COPY_BYTES)
        archive_give_way(checkpoint->file);
    /* There is room: a block's header is larger than a shard's. */
    put_shard(checkpoint->section.bytes + checkpoint->section.used, block);
    memcpy(checkpoint->section.bytes + checkpoint->section.used + ARCHIVE_SHARD_BYTES, bytes, block->bytes);
    checkpoint->section.used += ARCHIVE_SHARD_BYTES + block->bytes;
    checkpoint->section_flows += block->flows;
    return 0;
}

/* What a replica has contributed to an eventual object. Instead of what was taken before it died, if it has. */
static int take_share(struct checkpoint *checkpoint, const struct snapshot_block *block, const uint8_t *bytes,
                      struct sm_errbuf *error)
{
    uint8_t *known =
        (uint8_t *)(uintptr_t)shared_find(&checkpoint->shares, block->shard - SNAPSHOT_OBJECTS, block->flows);

    if (!shared_share_fits(checkpoint->arena, block)) {
        snprintf(error->text, sizeof error->text, "a replica's snapshot contradicts itself");
        return SM_E_DAMAGED;
    }
    if (known) {
        memcpy(known, bytes, block->bytes);
        return 0;
    }
    if (append(&checkpoint->shares, (const uint8_t *)block, sizeof *block) &&
        append(&checkpoint->shares, bytes, block->bytes))
        return 0;
    snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
    return SM_E_NO_MEMORY;
}

static int put_section(struct checkpoint *checkpoint, struct sm_errbuf *error)
{
    struct codec_buffer *section = &checkpoint->section;
    int result = 0;

    if (checkpoint->section_flows > 0)
        result = archive_put(checkpoint->file, ARCHIVE_FLOWS, checkpoint->section_flows, section->bytes, section->used,
                             error);
    section->used = 0;
    checkpoint->section_flows = 0;
    return result;
}

/* Why a part has ended early. */
static int part_error(const struct checkpoint *checkpoint, const struct snapshot_part *part, struct sm_errbuf *error)
{
    const struct state_class *cls = builds_class(checkpoint->arena, part->cls);

    snprintf(error->text, sizeof error->text, "a flow of class '%s' cannot be encoded: %s", cls ? cls->name : "?",
             sm_strerror(part->error));
    return SM_E_INVALID;
}

int checkpoint_part(struct checkpoint *checkpoint, const uint8_t *area, bool *last, struct sm_errbuf *error)
{
    struct snapshot_part part;
    uint32_t at = 0;

    memcpy(&part, area, sizeof part);
    area += sizeof part;
    *last = part.last;
    if (part.error)
        return part_error(checkpoint, &part, error);
    bool sound = part.bytes <= SNAPSHOT_PART_BYTES - sizeof part;
    while (sound && at < part.bytes) {
        struct snapshot_block block;
        uint32_t left = part.bytes - at;
        sound = left >= sizeof block;
        if (!sound)
            break;
        memcpy(&block, area + at, sizeof block);
        sound = block.bytes <= left - sizeof block;
        if (!sound)
            break;
        int result =
            (block.shard < UNITS ? take_block : take_share)(checkpoint, &block, area + at + sizeof block, error);
        if (result)
            return result;
        at += (uint32_t)sizeof block + ((block.bytes + 3) & ~3u);
    }
    if (!sound || at != part.bytes) {
        snprintf(error->text, sizeof error->text, "a replica's snapshot contradicts itself");
        return SM_E_DAMAGED;
    }
    return put_section(checkpoint, error);
}

static uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Nothing has come since `since`: look again soon, and after a while less often. Nobody is asked to wake us. */
static void wait_for_part(uint64_t since)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};

    if (monotonic() - since < YIELD_NS)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

int checkpoint_write(struct checkpoint *checkpoint, struct sm_switch *sw, const struct checkpoint_peer *peer,
                     struct sm_errbuf *error)
{
    enum switch_snapshot_step step;
    const uint8_t *part;
    uint64_t since = monotonic();

    while ((step = switch_snapshot_next(sw, &part)) != SNAPSHOT_DONE) {
        bool last;
        if (atomic_load_explicit(peer->stop, memory_order_relaxed)) {
            snprintf(error->text, sizeof error->text, "the service ends");
            return SM_E_STATE;
        }
        if (step == SNAPSHOT_WAIT && monotonic() - since > PATIENCE_NS) {
            snprintf(error->text, sizeof error->text, "no replica gave its shards within %u s",
                     (unsigned)(PATIENCE_NS / 1000000000u));
            return SM_E_STATE;
        }
        if (step == SNAPSHOT_WAIT) {
            wait_for_part(since);
            continue;
        }
        int result = checkpoint_part(checkpoint, part, &last, error);
        if (result)
            return result;
        switch_snapshot_taken(sw, last, checkpoint_covered(checkpoint));
        peer->taken(peer->arg);
        since = monotonic();
    }
    return 0;
}

static int put_shared(struct checkpoint *checkpoint, struct sm_errbuf *error)
{
    struct codec_buffer *out = &checkpoint->partial;
    struct arena *arena = checkpoint->arena;
    int result = SM_E_LIMIT;

    for (size_t size = HEADER_BYTES; result == SM_E_LIMIT; size *= 2) {
        free(out->bytes);
        *out = (struct codec_buffer){.bytes = malloc(size), .size = size};
        if (!out->bytes) {
            snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
            return SM_E_NO_MEMORY;
        }
        result = shared_encode(arena, &checkpoint->shares, out);
    }
    return result ? result
                  : archive_put(checkpoint->file, ARCHIVE_SHARED, arena->registration.shared_count, out->bytes,
                                out->used, error);
}

int checkpoint_finish(struct checkpoint *checkpoint, struct checkpoint_size *size, struct sm_errbuf *error)
{
    size->flows = checkpoint->flows;
    int result = put_shared(checkpoint, error);
    if (result == 0) {
        result = archive_finish(checkpoint->file, &size->bytes, error);
        checkpoint->file = NULL;
    }
    checkpoint_abandon(checkpoint);
    return result;
}
