/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

/*
 * In bytes, all of it MessagePack: a text, then sections, each an array [kind, count, body, checksum]:
 *
 *     94 | kind | ce count | c6 length, body | cf checksum
 *
 * numbers with the high byte first. The checksum is XXH3 of the section's bytes before it; the last section's body is
 * the checksum of all other sections' checksums.
 */
static const char magic[] = "\xb6splitmerge checkpoint\n";

#define MAGIC_BYTES (sizeof magic - 1)
#define HEAD_BYTES 12u
#define TAIL_BYTES 9u
#define PATH_MAX_BYTES 1024u
#define STEP_BYTES 4096
#define FREE_BYTES (128 << 10)
#define KEPT_SHARE 32 /* the time without the core is so many times the time with it, at most */

struct archive_writer {
    int fd;
    char path[PATH_MAX_BYTES], partial[PATH_MAX_BYTES + 16];
    uint32_t sections;
    uint64_t bytes;
    uint64_t kept;     /* monotonic ns until which the core is not given away */
    XXH3_state_t sums; /* of the sections' checksums */
};

static uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * Where there are fewer cores than threads a packet waits for a few microseconds, and not for a time slice. Others may
 * take a whole slice each time, though, and that is how a file would never be written: so what they took is what the
 * time until the next time is measured by.
 */
void archive_give_way(struct archive_writer *writer)
{
    uint64_t began = monotonic();

    if (began < writer->kept)
        return;
    sched_yield();
    uint64_t back = monotonic();
    writer->kept = back + (back - began) / KEPT_SHARE;
}

static void put_big(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static uint64_t get_big(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | from[i];
    return value;
}

static int write_all(struct archive_writer *writer, const void *bytes, size_t length, struct sm_errbuf *error)
{
    for (const uint8_t *from = bytes, *end = from + length; from < end;) {
        ssize_t done = write(writer->fd, from, end - from < STEP_BYTES ? (size_t)(end - from) : STEP_BYTES);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            snprintf(error->text, sizeof error->text, "%.180s: %s", writer->partial, strerror(errno));
            return SM_E_IO;
        }
        writer->bytes += (uint64_t)done;
        from += done;
        archive_give_way(writer);
    }
    return 0;
}

static void sum(struct archive_writer *writer, XXH3_state_t *state, const void *bytes, size_t length)
{
    for (const uint8_t *from = bytes, *end = from + length; from < end; from += STEP_BYTES) {
        XXH3_64bits_update(state, from, end - from < STEP_BYTES ? (size_t)(end - from) : STEP_BYTES);
        archive_give_way(writer);
    }
}

int archive_create(struct archive_writer **out, const char *path, struct sm_errbuf *error)
{
    if (strlen(path) >= PATH_MAX_BYTES) {
        snprintf(error->text, sizeof error->text, "the file's name is longer than %u bytes", PATH_MAX_BYTES - 1);
        return SM_E_INVALID;
    }
    struct archive_writer *writer = aligned_alloc(64, (sizeof *writer + 63) / 64 * 64);
    if (!writer) {
        snprintf(error->text, sizeof error->text, "%s", sm_strerror(SM_E_NO_MEMORY));
        return SM_E_NO_MEMORY;
    }
    memset(writer, 0, sizeof *writer);
    strcpy(writer->path, path);
    snprintf(writer->partial, sizeof writer->partial, "%s.partial", path);
    XXH3_64bits_reset(&writer->sums);
    writer->fd = open(writer->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (writer->fd < 0) {
        snprintf(error->text, sizeof error->text, "%.180s: %s", writer->partial, strerror(errno));
        free(writer);
        return SM_E_IO;
    }
    int result = write_all(writer, magic, MAGIC_BYTES, error);
    if (result)
        archive_abandon(writer);
    else
        *out = writer;
    return result;
}

int archive_put(struct archive_writer *writer, enum archive_kind kind, uint32_t count, const void *body, size_t length,
                struct sm_errbuf *error)
{
    uint8_t head[HEAD_BYTES] = {0x94, (uint8_t)kind, 0xce, [7] = 0xc6}, tail[TAIL_BYTES] = {0xcf};
    XXH3_state_t state;

    if (length > ARCHIVE_BODY_MAX) {
        snprintf(error->text, sizeof error->text, "%.180s: a section would be larger than %u bytes", writer->path,
                 ARCHIVE_BODY_MAX);
        return SM_E_LIMIT;
    }
    put_big(head + 3, count, 4);
    put_big(head + 8, length, 4);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, head, sizeof head);
    sum(writer, &state, body, length);
    put_big(tail + 1, XXH3_64bits_digest(&state), 8);
    XXH3_64bits_update(&writer->sums, tail + 1, 8);
    writer->sections++;
    int result = write_all(writer, head, sizeof head, error);
    if (result == 0)
        result = write_all(writer, body, length, error);
    return result ? result : write_all(writer, tail, sizeof tail, error);
}

/*
 * Close a file; if that is the end of it, give its memory back in steps: for a large one the kernel takes milliseconds,
 * which it does not share. Not of one that somebody else has open, whom the lease is for, or can open by its name.
 */
static void close_gently(struct archive_writer *writer, int fd)
{
    struct stat info;

    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_nlink == 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0)
        for (off_t left = info.st_size; left > 0; archive_give_way(writer)) {
            left = left > FREE_BYTES ? left - FREE_BYTES : 0;
            if (ftruncate(fd, left) != 0)
                break; /* as it goes without */
        }
    close(fd);
}

void archive_abandon(struct archive_writer *writer)
{
    if (!writer)
        return;
    unlink(writer->partial);
    close_gently(writer, writer->fd);
    free(writer);
}

int archive_finish(struct archive_writer *writer, uint64_t *bytes, struct sm_errbuf *error)
{
    uint8_t sum[8];

    /* The file that is replaced, if there is one. */
    int old = open(writer->path, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    put_big(sum, XXH3_64bits_digest(&writer->sums), sizeof sum);
    int result = archive_put(writer, ARCHIVE_END, writer->sections, sum, sizeof sum, error);
    if (result == 0 && (fsync(writer->fd) != 0 || rename(writer->partial, writer->path) != 0)) {
        snprintf(error->text, sizeof error->text, "%.180s: %s", writer->path, strerror(errno));
        result = SM_E_IO;
    }
    if (old >= 0)
        close_gently(writer, old);
    if (result) {
        archive_abandon(writer);
        return result;
    }
    *bytes = writer->bytes;
    close(writer->fd);
    free(writer);
    return 0;
}

/* ---- reading ---- */

struct archive {
    uint8_t *bytes;
    size_t length;
};

static int read_all(struct archive *archive, int fd)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return SM_E_IO;
    if (!S_ISREG(info.st_mode))
        return SM_E_DAMAGED;
    archive->bytes = malloc((size_t)info.st_size + 1);
    if (!archive->bytes)
        return SM_E_NO_MEMORY;
    while (archive->length <= (size_t)info.st_size) {
        ssize_t done = read(fd, archive->bytes + archive->length, (size_t)info.st_size + 1 - archive->length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return SM_E_IO;
        if (done == 0)
            return 0;
        archive->length += (size_t)done;
    }
    errno = EBUSY; /* it grows while it is read */
    return SM_E_IO;
}

/* The section at *at, all of whose bytes are there; false: they are not. */
static bool parse(const struct archive *archive, size_t *at, struct archive_section *section)
{
    const uint8_t *head = archive->bytes + *at;
    size_t left = archive->length - *at;

    if (left < HEAD_BYTES + TAIL_BYTES || head[0] != 0x94 || head[1] > ARCHIVE_END || head[2] != 0xce ||
        head[7] != 0xc6)
        return false;
    *section = (struct archive_section){.kind = (enum archive_kind)head[1],
                                        .count = (uint32_t)get_big(head + 3, 4),
                                        .body = head + HEAD_BYTES,
                                        .length = get_big(head + 8, 4)};
    if (section->length > left - HEAD_BYTES - TAIL_BYTES || section->body[section->length] != 0xcf)
        return false;
    *at += HEAD_BYTES + section->length + TAIL_BYTES;
    return true;
}

/* Whether all sections are whole, and all are there. */
static bool is_whole(const struct archive *archive)
{
    struct archive_section section = {.kind = ARCHIVE_HEADER};
    XXH3_state_t sums;
    uint32_t sections = 0;

    XXH3_64bits_reset(&sums);
    for (size_t at = MAGIC_BYTES; at < archive->length; sections++) {
        const uint8_t *head = archive->bytes + at;
        if (section.kind == ARCHIVE_END || !parse(archive, &at, &section))
            return false;
        const uint8_t *sum = section.body + section.length + 1;
        if (get_big(sum, 8) != XXH3_64bits(head, HEAD_BYTES + section.length))
            return false;
        if (section.kind == ARCHIVE_END)
            return at == archive->length && section.count == sections && section.length == 8 &&
                   get_big(section.body, 8) == XXH3_64bits_digest(&sums);
        XXH3_64bits_update(&sums, sum, 8);
    }
    return false;
}

int archive_open(struct archive **out, const char *path, struct sm_errbuf *error)
{
    struct archive *archive = calloc(1, sizeof *archive);
    int fd = open(path, O_RDONLY | O_CLOEXEC), result = !archive ? SM_E_NO_MEMORY : fd < 0 ? SM_E_IO : 0;

    if (result == 0)
        result = read_all(archive, fd);
    if (result == SM_E_IO)
        snprintf(error->text, sizeof error->text, "%.200s: %s", path, strerror(errno));
    else if (result == SM_E_NO_MEMORY)
        snprintf(error->text, sizeof error->text, "%.200s: %s", path, sm_strerror(result));
    else if (result == SM_E_DAMAGED || archive->length < MAGIC_BYTES ||
             memcmp(archive->bytes, magic, MAGIC_BYTES) != 0) {
        snprintf(error->text, sizeof error->text, "%.200s: not a checkpoint", path);
        result = SM_E_DAMAGED;
    } else if (!is_whole(archive)) {
        snprintf(error->text, sizeof error->text,
                 "%.160s: the checkpoint was cut short or altered: nothing was restored", path);
        result = SM_E_DAMAGED;
    }
    if (fd >= 0)
        close(fd);
    if (result)
        archive_close(archive);
    else
        *out = archive;
    return result;
}

bool archive_next(const struct archive *archive, size_t *at, struct archive_section *section)
{
    *at = *at ? *at : MAGIC_BYTES;
    return parse(archive, at, section) && section->kind != ARCHIVE_END;
}

void archive_close(struct archive *archive)
{
    if (archive)
        free(archive->bytes);
    free(archive);
}
