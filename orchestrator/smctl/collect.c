/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Outputs that each replica has written under a name of its own become one: captures by time, packets of one instant by
 * replica; anything else one behind the other, by replica. Of a capture that ends in the midst of a packet, since its
 * writer was killed, the whole packets are taken.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/service.h"
#include "smctl.h"

#define REPLICAS_MOST 65536u /* names are not used again: there may have been many */
#define GAP_MOST 256u        /* so many in a row that have written nothing are the end */
#define MICROSECONDS 0xa1b2c3d4u
#define NANOSECONDS 0xa1b23c4du

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t zone, accuracy, snaplen, linktype;
};

struct record_header {
    uint32_t seconds, fraction, caplen, len;
};

/* What one replica has written. */
struct part {
    FILE *file;
    struct file_header header;
};

struct parts {
    struct part *list;
    unsigned count;
};

/* Where a packet of a capture is. */
struct packet {
    uint64_t time;
    uint64_t offset; /* of its header */
    uint32_t part, bytes;
};

struct packets {
    struct packet *list;
    size_t count, room;
};

static void parts_free(struct parts *parts)
{
    for (unsigned i = 0; i < parts->count; i++)
        fclose(parts->list[i].file);
    free(parts->list);
}

/* A replica's file of this run; NULL: it has written none. */
static FILE *open_part(const struct service *service, const char *pattern, unsigned id, const struct timespec *since)
{
    char replica[16];
    struct stat status;
    snprintf(replica, sizeof(replica), "r%u", id);
    char *name = service_expand(pattern, service->name, replica);
    FILE *file = name ? fopen(name, "r") : NULL;
    free(name);
    if (!file)
        return NULL;
    bool ours = fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode) &&
                (status.st_mtim.tv_sec > since->tv_sec ||
                 (status.st_mtim.tv_sec == since->tv_sec && status.st_mtim.tv_nsec >= since->tv_nsec));
    if (ours)
        return file;
    fclose(file);
    return NULL;
}

static int find_parts(struct parts *parts, const struct service *service, const char *pattern,
                      const struct timespec *since)
{
    for (unsigned id = 1, gap = 0; id < REPLICAS_MOST && gap < GAP_MOST; id++) {
        FILE *file = open_part(service, pattern, id, since);
        if (!file) {
            gap++;
            continue;
        }
        struct part *list = realloc(parts->list, (parts->count + 1) * sizeof(*list));
        if (!list) {
            fclose(file);
            return ENOMEM;
        }
        gap = 0;
        parts->list = list;
        list[parts->count++] = (struct part){.file = file};
    }
    return 0;
}

/* Whether all are captures that can be one. */
static bool captures(struct parts *parts)
{
    bool all = true;
    for (unsigned i = 0; i < parts->count; i++) {
        struct part *part = &parts->list[i];
        const struct file_header *first = &parts->list[0].header;
        all = fread(&part->header, sizeof(part->header), 1, part->file) == 1 && all;
        all = all && (part->header.magic == MICROSECONDS || part->header.magic == NANOSECONDS) &&
              part->header.magic == first->magic && part->header.linktype == first->linktype;
        rewind(part->file);
    }
    return all;
}

static bool note(struct packets *packets, const struct packet *packet)
{
    if (packets->count == packets->room) {
        size_t room = packets->room ? 2 * packets->room : 4096;
        struct packet *list = realloc(packets->list, room * sizeof(*list));
        if (!list)
            return false;
        packets->list = list;
        packets->room = room;
    }
    packets->list[packets->count++] = *packet;
    return true;
}

/* Note the whole packets of a capture. */
static bool index_part(struct packets *packets, const struct parts *parts, uint32_t number)
{
    FILE *file = parts->list[number].file;
    struct record_header record;
    struct stat status;
    uint64_t at = sizeof(struct file_header);
    if (fstat(fileno(file), &status) != 0)
        return false;
    while (fseeko(file, (off_t)at, SEEK_SET) == 0 && fread(&record, sizeof(record), 1, file) == 1) {
        struct packet packet = {.time = (uint64_t)record.seconds << 32 | record.fraction,
                                .offset = at,
                                .part = number,
                                .bytes = (uint32_t)sizeof(record) + record.caplen};
        if (at + packet.bytes > (uint64_t)status.st_size)
            break;
        if (!note(packets, &packet))
            return false;
        at += packet.bytes;
    }
    return true;
}

/* Not each capture is in order: a flow's packets that waited while it moved come behind later ones of others. */
static int by_time(const void *a, const void *b)
{
    const struct packet *one = a, *other = b;
    if (one->time != other->time)
        return one->time < other->time ? -1 : 1;
    if (one->part != other->part)
        return one->part < other->part ? -1 : 1;
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

static bool copy(FILE *from, FILE *to, uint64_t bytes)
{
    char block[65536];
    for (size_t got; bytes > 0; bytes -= got) {
        got = fread(block, 1, bytes < sizeof(block) ? (size_t)bytes : sizeof(block), from);
        if (got == 0 || fwrite(block, 1, got, to) != got)
            return got == 0 && !ferror(from) && !ferror(to);
    }
    return true;
}

static bool merge(struct parts *parts, FILE *out)
{
    struct file_header header = parts->list[0].header;
    struct packets packets = {0};
    bool done = true;
    for (unsigned i = 0; i < parts->count && done; i++) {
        if (parts->list[i].header.snaplen > header.snaplen)
            header.snaplen = parts->list[i].header.snaplen;
        done = index_part(&packets, parts, i);
    }
    if (packets.count > 0)
        qsort(packets.list, packets.count, sizeof(*packets.list), by_time);
    done = done && fwrite(&header, sizeof(header), 1, out) == 1;
    for (size_t i = 0; i < packets.count && done; i++) {
        FILE *from = parts->list[packets.list[i].part].file;
        done = fseeko(from, (off_t)packets.list[i].offset, SEEK_SET) == 0 && copy(from, out, packets.list[i].bytes);
    }
    free(packets.list);
    return done;
}

static int collect_one(const struct options *options, const struct service *service, const char *pattern,
                       const char *target, const struct timespec *since)
{
    struct parts parts = {0};
    bool done = false;
    errno = find_parts(&parts, service, pattern, since);
    FILE *out = errno == 0 ? fopen(target, "w") : NULL;
    if (out) {
        if (parts.count > 0 && captures(&parts)) {
            done = merge(&parts, out);
        } else {
            done = true;
            for (unsigned i = 0; i < parts.count && done; i++)
                done = copy(parts.list[i].file, out, UINT64_MAX);
        }
        done = fclose(out) == 0 && done;
    }
    parts_free(&parts);
    return done ? 0 : fail(options, RPC_FAILED, "--collect %s: %s", target, strerror(errno ? errno : EIO));
}

/* The names that replicas have of their own: in arguments, and of their output. */
static unsigned patterns_of(const struct service *service, const char **patterns, unsigned most)
{
    unsigned count = 0;
    for (const char *const *arg = (const char *const *)service->args; *arg && count < most; arg++)
        if (strstr(*arg, "{replica}"))
            patterns[count++] = *arg;
    if (service->output && strstr(service->output, "{replica}") && count < most)
        patterns[count++] = service->output;
    return count;
}

static bool is_folder(const char *name)
{
    struct stat status;
    return stat(name, &status) == 0 && S_ISDIR(status.st_mode);
}

int collect_check(const struct options *options, const struct service *service, const char *target)
{
    const char *patterns[COLLECT_MOST];
    unsigned count = patterns_of(service, patterns, COLLECT_MOST);
    if (count == 0)
        return fail(options, RPC_USAGE, "--collect: expected {replica} in an argument or the output of the middlebox");
    if (count > 1 && !is_folder(target))
        return fail(options, RPC_USAGE, "--collect %s: expected a folder, for %u outputs of each replica", target,
                    count);
    return 0;
}

int collect_outputs(const struct options *options, const struct service *service, const char *target,
                    const struct timespec *since)
{
    const char *patterns[COLLECT_MOST];
    unsigned count = patterns_of(service, patterns, COLLECT_MOST);
    int result = 0;
    for (unsigned i = 0; i < count; i++) {
        char file[4096];
        const char *slash = strrchr(patterns[i], '/');
        char *name = service_expand(slash ? slash + 1 : patterns[i], service->name, "all");
        if (!name)
            return fail(options, RPC_FAILED, "out of memory");
        snprintf(file, sizeof(file), "%s/%s", target, name);
        free(name);
        int one = collect_one(options, service, patterns[i], is_folder(target) ? file : target, since);
        result = result ? result : one;
    }
    return result;
}
