/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_SWITCH_ARCHIVE_H
#define SM_SWITCH_ARCHIVE_H

/*
 * A checkpoint's file: a name and sections, each with a checksum, and a last one that says how many there were
 * (docs/checkpoint-format.md). Written under a temporary name and renamed when it is whole; read only when all of it
 * is right. Knows nothing of what is in a section.
 */

#include <splitmerge/types.h>

#define ARCHIVE_VERSION 1u
#define ARCHIVE_BODY_MAX (1u << 30) /* bytes of a section's body */

#define ARCHIVE_SHARD_BYTES 8u /* cd shard, ce count: in front of a shard's flows */

/* The numbers stand in files: they stay. */
enum archive_kind { ARCHIVE_HEADER, ARCHIVE_CLASSES, ARCHIVE_FLOWS, ARCHIVE_SHARED, ARCHIVE_END };

struct archive_writer;

/* Behind every few microseconds of work: give the core away. Who waited long for it goes on a while without. */
void archive_give_way(struct archive_writer *writer);

/* Create `path`.partial. SM_E_IO, SM_E_NO_MEMORY, SM_E_INVALID (the path is too long): *error says why. */
int archive_create(struct archive_writer **writer, const char *path, struct sm_errbuf *error);

/* Append a section; `count` is what the reader is told there is in it. SM_E_IO: *error says why. */
int archive_put(struct archive_writer *writer, enum archive_kind kind, uint32_t count, const void *body, size_t length,
                struct sm_errbuf *error);

/* End the file, wait until it is on the disk, rename it. Frees the writer, whatever comes of it. */
int archive_finish(struct archive_writer *writer, uint64_t *bytes, struct sm_errbuf *error);

/* Remove what was written, and free. */
void archive_abandon(struct archive_writer *writer);

struct archive;
struct archive_section {
    enum archive_kind kind;
    uint32_t count;
    const uint8_t *body;
    size_t length;
};

/*
 * Read a whole file and check every checksum. SM_E_IO; SM_E_DAMAGED: it is no checkpoint, was cut short or altered;
 * SM_E_PROTOCOL: it is of another version; SM_E_NO_MEMORY: *error says which.
 */
int archive_open(struct archive **archive, const char *path, struct sm_errbuf *error);

/* The section at *at, which begins as 0 and is advanced; false: that was the last. It lives as long as the archive. */
bool archive_next(const struct archive *archive, size_t *at, struct archive_section *section);
void archive_close(struct archive *archive);

#endif
