/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. Writing classic pcap in this machine's byte order. libpcap makes the file header (it knows how link types
 * are numbered in files); records are written here, the 32 bits of each field as they were read.
 *
 * Life-cycle. create opens NAME.partial, continue goes on with it behind its last whole record; send* appends; close
 * renames it to NAME when the run was whole and every write succeeded, else leaves it under the partial name. What
 * exists and is not a regular file (a pipe, /dev/null) is written to directly: it must not be renamed over.
 */
#include "ports/internal.h"

#include <errno.h>
#include <pcap.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER_SIZE = 24,
    WRITE_BUFFER = 256 * 1024,
};

struct record_header {
    uint32_t seconds, fraction, caplen, len;
};

struct writer {
    struct sm_port port;
    FILE *stream;
    char *name;    /* for messages, and what the file will be called */
    char *partial; /* what it is called now; NULL: written to directly */
    char *buffer;
    bool failed; /* a write failed: the file stays partial */
};

static int write_failed(struct writer *writer, struct sm_errbuf *error)
{
    int errnum = errno;
    writer->failed = true;
    return sm_port_fail(error, SM_E_IO, "%s: cannot write: %s", writer->name, strerror(errnum));
}

static int writer_send(struct sm_port *port, const struct sm_frame *frame)
{
    struct writer *writer = (struct writer *)port;
    struct record_header header = {
        .seconds = (uint32_t)frame->seconds,
        .fraction = (uint32_t)frame->fraction,
        .caplen = frame->caplen,
        .len = frame->len,
    };

    if (writer->failed)
        return SM_E_IO;
    if (fwrite_unlocked(&header, sizeof header, 1, writer->stream) != 1 ||
        (frame->caplen > 0 && fwrite_unlocked(frame->data, frame->caplen, 1, writer->stream) != 1))
        return write_failed(writer, &port->error);
    port->counters.tx_packets++;
    port->counters.tx_bytes += frame->caplen;
    return 0;
}

static int writer_flush(struct sm_port *port)
{
    struct writer *writer = (struct writer *)port;
    if (writer->failed)
        return SM_E_IO;
    return fflush(writer->stream) == 0 ? 0 : write_failed(writer, &port->error);
}

static void writer_free(struct writer *writer)
{
    free(writer->buffer);
    free(writer->partial);
    free(writer->name);
    free(writer);
}

static int writer_close(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    struct writer *writer = (struct writer *)port;
    int result = 0;

    if (writer->failed)
        result = sm_port_fail(error, SM_E_IO, "%s", port->error.text);
    if (fflush(writer->stream) != 0 && result == 0)
        result = write_failed(writer, error);
    if (writer->stream != stdout && fclose(writer->stream) != 0 && result == 0)
        result = write_failed(writer, error);
    else if (writer->stream == stdout)
        setvbuf(stdout, NULL, _IOLBF, 0); /* the buffer is ours and goes now */
    if (whole && result == 0 && writer->partial != NULL && rename(writer->partial, writer->name) != 0)
        result =
            sm_port_fail(error, SM_E_IO, "%s: cannot rename %s: %s", writer->name, writer->partial, strerror(errno));
    writer_free(writer);
    return result;
}

static const struct sm_port_ops writer_ops = {
    .send = writer_send,
    .flush = writer_flush,
    .fd = sm_port_fd_none,
    .close = writer_close,
};

/* The file header as libpcap makes it for this link type, with the model's own snap length and link-type field. */
static int make_header(const struct sm_port *model, const char *name, uint8_t header[HEADER_SIZE],
                       struct sm_errbuf *error)
{
    uint8_t made[HEADER_SIZE + 1] = {0}; /* fmemopen ends what it holds with a zero byte */
    unsigned precision = model->nanoseconds ? PCAP_TSTAMP_PRECISION_NANO : PCAP_TSTAMP_PRECISION_MICRO;
    pcap_t *dead = pcap_open_dead_with_tstamp_precision(model->linktype, 65535, precision);
    FILE *memory = fmemopen(made, sizeof made, "w");
    pcap_dumper_t *dumper = NULL;
    int failed = 0;

    if (dead == NULL || memory == NULL)
        failed = sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", name);
    if (!failed) {
        dumper = pcap_dump_fopen(dead, memory);
        if (dumper == NULL)
            failed = sm_port_fail(error, SM_E_IO, "%s: %s", name, pcap_geterr(dead));
        else
            memory = NULL; /* the dumper's now */
    }
    if (dumper != NULL)
        pcap_dump_close(dumper);
    if (memory != NULL)
        fclose(memory);
    if (dead != NULL)
        pcap_close(dead);
    if (failed)
        return failed;

    uint32_t linktype = sm_capture_raw_linktype(model);
    memcpy(header, made, HEADER_SIZE);
    memcpy(header + 16, &model->snaplen, sizeof model->snaplen);
    if (linktype != 0)
        memcpy(header + 20, &linktype, sizeof linktype);
    return 0;
}

/* Decide where the bytes go: names and stream. */
static int open_stream(struct writer *writer, const char *file, bool anew, struct sm_errbuf *error)
{
    struct stat status;
    if (!anew && (strcmp(file, "-") == 0 || (stat(file, &status) == 0 && !S_ISREG(status.st_mode))))
        return sm_port_fail(error, SM_E_INVALID, "%s: only a file can be gone on with", file);
    if (strcmp(file, "-") == 0) {
        writer->stream = stdout;
        return 0;
    }
    bool exists = stat(file, &status) == 0;
    if (exists && !S_ISREG(status.st_mode)) {
        writer->stream = S_ISDIR(status.st_mode) ? (errno = EISDIR, NULL) : fopen(file, "we");
    } else {
        /* Through links, so that the rename replaces the file and not the link to it. */
        char *real = exists ? realpath(file, NULL) : NULL;
        if (real != NULL) {
            free(writer->name);
            writer->name = real;
        }
        if (asprintf(&writer->partial, "%s.partial", writer->name) < 0) {
            writer->partial = NULL;
            return sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", file);
        }
        writer->stream = fopen(writer->partial, anew ? "we" : "r+e");
    }
    if (writer->stream == NULL)
        return sm_port_fail(error, sm_port_errno_code(errno), "%s: cannot create: %s", file, strerror(errno));
    return 0;
}

/* Count whole records, and cut off what is behind them. */
static int find_end(struct writer *writer, const uint8_t header[HEADER_SIZE], struct sm_errbuf *error)
{
    uint8_t there[HEADER_SIZE];
    struct record_header record;
    struct stat status;
    off_t at = HEADER_SIZE;

    if (fstat(fileno(writer->stream), &status) != 0)
        return write_failed(writer, error);
    if (fread(there, sizeof there, 1, writer->stream) != 1) {
        at = 0; /* not even that had got into the file */
    } else if (memcmp(there, header, sizeof there) != 0) {
        return sm_port_fail(error, SM_E_INVALID, "%s: cannot be gone on with: not the header that we began it with",
                            writer->partial);
    }
    while (at > 0 && fread(&record, sizeof record, 1, writer->stream) == 1) {
        off_t next = at + (off_t)sizeof record + record.caplen;
        if (next > status.st_size || fseeko(writer->stream, next, SEEK_SET) != 0)
            break;
        at = next;
        writer->port.counters.tx_packets++;
        writer->port.counters.tx_bytes += record.caplen;
    }
    if (fseeko(writer->stream, at, SEEK_SET) != 0 || ftruncate(fileno(writer->stream), at) != 0 ||
        (at == 0 && fwrite(header, HEADER_SIZE, 1, writer->stream) != 1))
        return write_failed(writer, error);
    return 0;
}

static int open_writer(struct sm_port **port, const char *file, const struct sm_port *model, bool anew,
                       struct sm_errbuf *error)
{
    uint8_t header[HEADER_SIZE];
    *port = NULL;
    int failed = make_header(model, file, header, error);
    if (failed)
        return failed;

    struct writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", file);
    writer->name = strdup(strcmp(file, "-") == 0 ? "standard output" : file);
    writer->buffer = malloc(WRITE_BUFFER);
    if (writer->name == NULL || writer->buffer == NULL)
        failed = sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", file);
    if (!failed)
        failed = open_stream(writer, file, anew, error);
    if (failed) {
        writer_free(writer);
        return failed;
    }

    setvbuf(writer->stream, writer->buffer, _IOFBF, WRITE_BUFFER);
    writer->port = (struct sm_port){
        .ops = &writer_ops,
        .name = writer->name,
        .linktype = model->linktype,
        .snaplen = model->snaplen,
        .nanoseconds = model->nanoseconds,
    };
    if (!anew)
        failed = find_end(writer, header, error);
    else if (fwrite(header, sizeof header, 1, writer->stream) != 1)
        failed = write_failed(writer, &writer->port.error);
    if (failed) {
        struct sm_errbuf ignored;
        writer_close(&writer->port, false, anew ? error : &ignored);
        return failed;
    }
    *port = &writer->port;
    return 0;
}

int sm_port_create_capture(struct sm_port **port, const char *file, const struct sm_port *model,
                           struct sm_errbuf *error)
{
    return open_writer(port, file, model, true, error);
}

int sm_port_continue_capture(struct sm_port **port, const char *file, const struct sm_port *model,
                             struct sm_errbuf *error)
{
    return open_writer(port, file, model, false, error);
}
