/* SPDX-License-Identifier: BSD-2-Clause */

/* Each invariant that a run reports is broken on purpose, and must be reported as broken; without a fault all hold. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "switch/fault.h"
#include <splitmerge/testing.h>

enum switch_fault switch_fault;

static void pass(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    (void)replica, (void)packet, (void)user;
}

static const struct {
    enum switch_fault fault;
    const char *name, *expected; /* in what is reported; NULL: nothing is */
} cases[] = {
    {FAULT_NONE, "no fault", NULL},
    {FAULT_LOSE, "held packets are lost", "entered"},
    {FAULT_REORDER, "held packets change places", "behind a later one"},
    {FAULT_ALTER, "packets change on the way", "altered"},
    {FAULT_TWO_OWNERS, "a shard is adopted before it is released", "two owners"},
};

int main(void)
{
    char folder[] = "/tmp/splitmerge-broken-XXXXXX", output[64];
    unsigned failures = 0;

    if (!mkdtemp(folder))
        return 1;
    snprintf(output, sizeof output, "%s/out.pcap", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* Held packets are needed: a schedule that is certain to have some. */
        struct sm_test_result result = {0};
        uint64_t held = 0;
        bool reported = false, wrong = false;
        for (uint64_t seed = 1; seed <= 20; seed++) {
            const struct sm_test_options options = {.size = sizeof options,
                                                    .capture = SM_SAMPLE,
                                                    .output = output,
                                                    .seed = seed,
                                                    .replicas = 3,
                                                    .schedule = true,
                                                    .on_packet = pass};
            struct sm_errbuf error;
            switch_fault = cases[i].fault;
            if (sm_test_run(&options, &result, &error) != 0) {
                printf("%s\n", error.text);
                return 1;
            }
            held += result.held;
            if (result.broken[0] && cases[i].expected && strstr(result.broken, cases[i].expected))
                reported = true;
            else if (result.broken[0])
                wrong = true;
        }
        bool right = held > 0 && !wrong && reported == (cases[i].expected != NULL);
        printf("%s: %s: %s\n", right ? "ok" : "FAILED", cases[i].name, reported || wrong ? result.broken : "held");
        failures += !right;
    }
    unlink(output);
    rmdir(folder);
    return failures != 0;
}
