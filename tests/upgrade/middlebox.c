/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The two versions as programs: VERSION says which. `--fail WHEN` makes one fail: at the start, by registering what is
 * impossible, with the first flow that it takes over (exit, hang), or a while after it (late).
 * `--lists yes`: with what only version 2 can bring back.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "versions.h"

static const char *when = "";
static time_t adopted; /* the first flow; 0: none */

static void adopt(struct sm_replica *replica, sm_class cls, sm_flow flow, void *user)
{
    (void)replica, (void)cls, (void)flow, (void)user;
    if (strcmp(when, "exit") == 0)
        _exit(3);
    while (strcmp(when, "hang") == 0)
        pause();
    adopted = adopted ? adopted : time(NULL);
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    if (strcmp(when, "late") == 0 && adopted && time(NULL) > adopted + 1)
        _exit(3);
    (VERSION == 1 ? on_packet_one : on_packet_two)(replica, packet, user);
}

static int impossible(struct sm_replica *replica)
{
    const struct sm_class_options options = {
        .size = sizeof options, .name = "counts", .version = 3, .record_size = 8, .granularity = SM_BY_HOST_PAIR};
    uint16_t reason;
    sm_class cls;

    int result = sm_drop_reason(replica, "third", &reason);
    return result ? result : sm_class_register(replica, &options, &cls);
}

int main(int argc, char **argv)
{
    struct sm_options options = {.size = sizeof options, .name = "versions", .on_packet = on_packet};
    struct sm_replica *replica;
    struct sm_errbuf error;
    void *user = NULL;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--in") == 0)
            options.input = argv[i + 1];
        else if (strcmp(argv[i], "--out") == 0)
            options.output = argv[i + 1];
        else if (strcmp(argv[i], "--fail") == 0)
            when = argv[i + 1];
        else if (strcmp(argv[i], "--lists") == 0)
            with_lists = lists_return = strcmp(argv[i + 1], "yes") == 0;
    }
    adopting = adopt;
    if (strcmp(when, "start") == 0)
        return 4;
    int result = sm_open(&replica, &options, &error);
    if (result == 0)
        result = strcmp(when, "register") == 0 ? impossible(replica)
                 : VERSION == 1                ? setup_one(replica, &user)
                                               : setup_two(replica, &user);
    if (result == 0)
        result = sm_start(replica, &error);
    if (result) {
        fprintf(stderr, "versions: %s\n", error.text);
        sm_close(replica);
        return 1;
    }
    result = sm_run(replica);
    if (result)
        fprintf(stderr, "versions: %s\n", sm_last_error(replica));
    sm_close(replica);
    return result != 0;
}
