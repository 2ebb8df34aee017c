/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Overview. Reading capture files by libpcap. Where libpcap would change what it read, it is led around that, since a
 * copy must have the records of its original:
 *  - precision: the file's own is asked for, so that nothing is scaled (pcapng has many; it is read in nanoseconds);
 *  - a packet longer than the snap length in the file's header would be cut to it: libpcap is shown a header without a
 *    snap length (0: the largest), and port->snaplen keeps the true one. A frame's caplen may thus exceed it;
 *  - seconds and fractions of classic pcap are unsigned 32 bits whatever sign a time_t gave them.
 *
 * Life-cycle. open -> receive* -> (SM_E_END | SM_E_DAMAGED | SM_E_IO, repeated) -> close.
 */
#include "ports/internal.h"

#include <errno.h>
#include <pcap.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_SIZE = 24, /* of a classic pcap file */
    READ_BUFFER = 256 * 1024,
};

struct capture {
    struct sm_port port;
    struct sm_source source;
    pcap_t *pcap;
    char *name;
    char *buffer;          /* of the stream that libpcap reads */
    bool classic;          /* pcap, not pcapng */
    bool swapped;          /* in the other byte order */
    uint32_t raw_linktype; /* the header's field: the link type, and what some writers add above it */
    int ended;             /* what receive repeats; 0: still reading */
};

static ssize_t stream_read(void *cookie, char *buffer, size_t size)
{
    return sm_source_read(cookie, buffer, size);
}

static uint32_t header_word(const struct capture *capture, size_t offset)
{
    uint32_t word;
    memcpy(&word, capture->source.head + offset, sizeof word);
    return capture->swapped ? __builtin_bswap32(word) : word;
}

/* Tell the format by the file's head. False: it is not a capture. */
static bool look_at_header(struct capture *capture)
{
    struct sm_source *source = &capture->source;
    uint32_t magic = 0;
    if (source->head_length < sizeof magic)
        return false;
    memcpy(&magic, source->head, sizeof magic);

    switch (magic) {
    case 0x0a0d0d0a:
        capture->port.nanoseconds = true;
        return true;
    case 0xd4c3b2a1:
    case 0x34cdb2a1: /* a variant with longer record headers */
        capture->swapped = true;
        break;
    case 0x4d3cb2a1:
        capture->swapped = true;
        capture->port.nanoseconds = true;
        break;
    case 0xa1b23c4d:
        capture->port.nanoseconds = true;
        break;
    case 0xa1b2c3d4:
    case 0xa1b2cd34:
        break;
    default:
        return false;
    }
    capture->classic = true;
    if (source->head_length >= HEADER_SIZE) {
        capture->port.snaplen = header_word(capture, 16);
        capture->raw_linktype = header_word(capture, 20);
        memset(source->head + 16, 0, 4);
    }
    return true;
}

static int end(struct capture *capture, int code)
{
    capture->ended = code;
    return code;
}

/* libpcap has no more packets: why? */
static int receive_end(struct capture *capture, int said)
{
    struct sm_errbuf *error = &capture->port.error;
    unsigned long long packets = (unsigned long long)capture->port.counters.rx_packets;

    if (capture->source.errnum)
        return end(capture, sm_port_fail(error, SM_E_IO, "%s: after packet %llu: %s", capture->name, packets,
                                         strerror(capture->source.errnum)));
    if (said != PCAP_ERROR_BREAK) /* libpcap's word for the end of a file */
        return end(capture, sm_port_fail(error, SM_E_DAMAGED, "%s: unreadable after packet %llu: %s", capture->name,
                                         packets, pcap_geterr(capture->pcap)));
    if (!sm_source_close(&capture->source))
        return end(capture, sm_port_fail(error, SM_E_DAMAGED, "%s: unreadable after packet %llu: gzip reports damage",
                                         capture->name, packets));
    return end(capture, sm_port_fail(error, SM_E_END, "%s: end of file", capture->name));
}

static int capture_receive(struct sm_port *port, struct sm_frame *frame)
{
    struct capture *capture = (struct capture *)port;
    struct pcap_pkthdr *header;
    const u_char *data;

    if (capture->ended)
        return capture->ended;
    int said = pcap_next_ex(capture->pcap, &header, &data);
    if (said != 1)
        return receive_end(capture, said);

    frame->data = data;
    frame->caplen = header->caplen;
    frame->len = header->len;
    frame->seconds = capture->classic ? (int64_t)(uint32_t)header->ts.tv_sec : (int64_t)header->ts.tv_sec;
    frame->fraction = capture->classic ? (int64_t)(uint32_t)header->ts.tv_usec : (int64_t)header->ts.tv_usec;
    port->counters.rx_packets++;
    port->counters.rx_bytes += header->caplen;
    return 1;
}

static void capture_free(struct capture *capture)
{
    if (capture->pcap != NULL)
        pcap_close(capture->pcap); /* the stream too */
    sm_source_close(&capture->source);
    free(capture->buffer);
    free(capture->name);
    free(capture);
}

static int capture_close(struct sm_port *port, bool whole, struct sm_errbuf *error)
{
    (void)whole;
    (void)error;
    capture_free((struct capture *)port);
    return 0;
}

static const struct sm_port_ops capture_ops = {
    .receive = capture_receive,
    .flush = sm_port_flush_nothing,
    .fd = sm_port_fd_none,
    .close = capture_close,
};

uint32_t sm_capture_raw_linktype(const struct sm_port *port)
{
    return port->ops == &capture_ops ? ((const struct capture *)port)->raw_linktype : 0;
}

/* Give libpcap the stream. */
static int start(struct capture *capture, struct sm_errbuf *error)
{
    char said[PCAP_ERRBUF_SIZE] = "";
    FILE *stream = fopencookie(&capture->source, "r", (cookie_io_functions_t){.read = stream_read});
    if (stream == NULL)
        return sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", capture->name);
    setvbuf(stream, capture->buffer, _IOFBF, READ_BUFFER);

    unsigned precision = capture->port.nanoseconds ? PCAP_TSTAMP_PRECISION_NANO : PCAP_TSTAMP_PRECISION_MICRO;
    capture->pcap = pcap_fopen_offline_with_tstamp_precision(stream, precision, said);
    if (capture->pcap == NULL) {
        fclose(stream);
        return sm_port_fail(error, SM_E_DAMAGED, "%s: %s", capture->name, said);
    }
    capture->port.linktype = pcap_datalink(capture->pcap);
    if (!capture->classic)
        capture->port.snaplen = (uint32_t)pcap_snapshot(capture->pcap);
    return 0;
}

int sm_port_open_capture(struct sm_port **port, const char *file, struct sm_errbuf *error)
{
    *port = NULL;
    struct capture *capture = calloc(1, sizeof *capture);
    if (capture == NULL)
        return sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", file);
    capture->source.fd = -1;
    capture->name = strdup(strcmp(file, "-") == 0 ? "standard input" : file);
    capture->buffer = malloc(READ_BUFFER);
    capture->port.ops = &capture_ops;
    capture->port.name = capture->name;

    int failed = 0;
    if (capture->name == NULL || capture->buffer == NULL)
        failed = sm_port_fail(error, SM_E_NO_MEMORY, "%s: out of memory", file);
    if (!failed)
        failed = sm_source_open(&capture->source, file, error);
    if (!failed && capture->source.errnum)
        failed = sm_port_fail(error, SM_E_IO, "%s: %s", capture->name, strerror(capture->source.errnum));
    if (!failed && !look_at_header(capture)) {
        bool archive = capture->source.gzip != 0;
        failed = sm_port_fail(error, SM_E_DAMAGED, "%s: %s", capture->name,
                              archive && !sm_source_close(&capture->source) ? "gzip reports damage"
                              : capture->source.head_length == 0            ? "not a capture file: empty"
                                                                            : "not a capture file (pcap or pcapng)");
    }
    if (!failed)
        failed = start(capture, error);
    if (failed) {
        capture_free(capture);
        return failed;
    }
    *port = &capture->port;
    return 0;
}
