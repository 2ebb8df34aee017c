/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PORTS_INTERNAL_H
#define SM_PORTS_INTERNAL_H

/* What the kinds of port share among themselves. */

#include "ports/port.h"

#include <stdio.h>
#include <sys/types.h>

/* Fill *error (may be NULL) with one line and return `code`. Line breaks in what libraries say become spaces. */
int sm_port_fail(struct sm_errbuf *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The SM_E_ code that says what `errnum` says when a file or device could not be opened. */
int sm_port_errno_code(int errnum);

/* flush, fd and close of the kinds of port that have nothing to flush, nothing to wait for, and are one allocation. */
int sm_port_flush_nothing(struct sm_port *port);
int sm_port_fd_none(struct sm_port *port);
int sm_port_close_plain(struct sm_port *port, bool whole, struct sm_errbuf *error);

/*
 * A file's bytes after decompression, in order, with a look at the first of them before anyone else reads them.
 */
struct sm_source {
    int fd;           /* what is read: the file itself, or the pipe from gzip; -1 when closed */
    bool owned;       /* not standard input */
    pid_t gzip;       /* to be reaped; 0: none */
    int errnum;       /* of the read that failed; 0: none */
    uint8_t head[64]; /* the first bytes, replayed to the reader */
    size_t head_length, head_used;
};

/* Open `file` ("-": standard input). SM_E_NOT_FOUND, SM_E_PERMISSION, SM_E_IO, with *error. */
int sm_source_open(struct sm_source *source, const char *file, struct sm_errbuf *error);

/* Read on; as read(2). */
ssize_t sm_source_read(struct sm_source *source, void *buffer, size_t size);

/* Close. True: gzip, if there was one, said that all of the file was good. Repeats what it said. */
bool sm_source_close(struct sm_source *source);

/* The field of a capture's header that a libpcap handle does not give back whole: see capture.c. 0: not known. */
uint32_t sm_capture_raw_linktype(const struct sm_port *port);

#endif
