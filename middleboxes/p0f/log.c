/* SPDX-License-Identifier: BSD-2-Clause */
/* sm-p0f-log FILE: the lines of p0f's log in a capture ("-": standard input). */

#include <string.h>

#include "note.h"

static void print(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint32_t bytes;
    const char *lines = lines_read(packet, &bytes);

    (void)replica, (void)user;
    if (lines)
        fwrite(lines, 1, bytes, stdout);
}

int main(int argc, char **argv)
{
    struct sm_options options = {.size = sizeof options, .name = "sm-p0f-log", .on_packet = print};
    struct sm_errbuf error = {""};
    struct sm_replica *replica;

    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return puts("sm-p0f-log " SPLITMERGE_VERSION) < 0;
    if (argc != 2 || strcmp(argv[1], "--help") == 0) {
        fputs("usage: sm-p0f-log CAPTURE|-\n"
              "       sm-p0f-log --help | --version\n"
              "\nPrints the lines of p0f's log that sm-p0f and sm-p0f-hosts have written.\n",
              argc == 2 ? stdout : stderr);
        return argc == 2 ? 0 : 2;
    }
    options.input = argv[1];
    int result = sm_open(&replica, &options, &error);
    if (result == 0 && (result = sm_start(replica, &error)) == 0 && (result = sm_run(replica)) != 0)
        snprintf(error.text, sizeof error.text, "%s", sm_last_error(replica));
    if (result == 0 && fflush(stdout) != 0)
        result = SM_E_IO;
    if (result)
        fprintf(stderr, "sm-p0f-log: %s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_close(replica);
    return result != 0;
}
