/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints how many packets a capture has, by a shared counter. */

#include <splitmerge/splitmerge.h>

#include <stdio.h>

static sm_counter packets;

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    (void)packet, (void)user;
    sm_counter_add(replica, packets, 1);
}

int main(int argc, char **argv)
{
    const struct sm_options options = {
        .size = sizeof options, .name = "consumer", .on_packet = on_packet, .input = argc > 1 ? argv[1] : "-"};
    struct sm_errbuf error = {""};
    struct sm_replica *replica;

    if (sm_open(&replica, &options, &error) != 0 || sm_counter_register(replica, "packets", &packets) != 0 ||
        sm_start(replica, &error) != 0 || sm_run(replica) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    printf("%lld packets, splitmerge %s\n", (long long)sm_counter_read(replica, packets, NULL), SPLITMERGE_VERSION);
    sm_close(replica);
    return 0;
}
