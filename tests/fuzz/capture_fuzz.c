/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of any content: read, parsed and copied; the copy is read again and must hold the same packets. */
#include "packet/packet.h"
#include "ports/port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* Read all of a capture: parse each packet, copy it to `out` when there is one. A digest of what was read. */
static uint64_t read_all(struct sm_port *in, struct sm_port *out)
{
    struct sm_parser *parser;
    struct sm_parsed parsed;
    struct sm_frame frame;
    uint64_t digest = 0;
    int result;
    check(sm_parser_create(&parser, 8) == 0);
    while ((result = in->ops->receive(in, &frame)) == 1) {
        sm_parse(parser, in->linktype, frame.data, frame.caplen, frame.len, sm_frame_time(in, &frame), &parsed);
        digest = digest * 31 + (uint32_t)frame.seconds;
        digest = digest * 31 + (uint32_t)frame.fraction;
        digest = digest * 31 + frame.caplen;
        digest = digest * 31 + frame.len;
        for (uint32_t i = 0; i < frame.caplen; i++)
            digest = digest * 31 + frame.data[i];
        if (out != NULL)
            check(out->ops->send(out, &frame) == 0);
    }
    check(result == SM_E_END || result == SM_E_DAMAGED);
    check(in->error.text[0] != '\0' && strchr(in->error.text, '\n') == NULL);
    sm_parser_destroy(parser);
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static char in_path[64], out_path[64];
    struct sm_port *in, *out = NULL;
    struct sm_errbuf error;
    int file = memfd_create("in", 0);
    if (size > 0x1f && input[0] == 0x1f && input[1] == 0x8b) /* a process for each input would be too slow */
        size = 0;
    check(file >= 0 && write(file, input, size) == (ssize_t)size);
    snprintf(in_path, sizeof in_path, "/proc/self/fd/%d", file);
    snprintf(out_path, sizeof out_path, "/tmp/sm-fuzz-%d", (int)getpid());

    if (sm_port_open_capture(&in, in_path, &error) == 0) {
        if (sm_port_create_capture(&out, out_path, in, &error) != 0)
            out = NULL; /* a link type that has no number in files */
        uint64_t digest = read_all(in, out);
        if (out != NULL) {
            check(out->ops->close(out, true, &error) == 0);
            in->ops->close(in, true, NULL);
            check(sm_port_open_capture(&in, out_path, &error) == 0);
            check(read_all(in, NULL) == digest);
            unlink(out_path);
        }
        in->ops->close(in, true, NULL);
    }
    close(file);
    return 0;
}
