/* SPDX-License-Identifier: BSD-2-Clause */
/* watcher FILE: keeps its flows itself, and writes a line for each UDP flow that it sees: process and ports. */

#include <splitmerge/splitmerge.h>

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

struct watcher {
    FILE *file;
    uint8_t seen[65536]; /* by the ports' sum: the test's flows differ in one of them */
};

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct watcher *watcher = user;
    struct sm_key key;

    (void)replica;
    sm_packet_key(packet, SM_BY_FLOW, &key);
    uint16_t sum = (uint16_t)(key.a_port + key.b_port);
    if (key.protocol != IPPROTO_UDP || watcher->seen[sum])
        return;
    watcher->seen[sum] = 1;
    fprintf(watcher->file, "%d %u %u\n", (int)getpid(), key.a_port, key.b_port);
}

int main(int argc, char **argv)
{
    static struct watcher watcher;
    struct sm_options options = {.size = sizeof options, .name = "watcher", .on_packet = on_packet, .user = &watcher};
    struct sm_errbuf error = {""};
    struct sm_replica *replica;

    watcher.file = argc > 1 ? fopen(argv[1], "ae") : NULL;
    if (!watcher.file)
        return 2;
    setvbuf(watcher.file, NULL, _IOLBF, 0); /* replicas share it: whole lines only */
    int result = sm_open(&replica, &options, &error);
    if (result == 0 && (result = sm_start(replica, &error)) == 0)
        result = sm_run(replica);
    if (result)
        fprintf(stderr, "watcher: %s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_close(replica);
    fclose(watcher.file);
    return result != 0;
}
