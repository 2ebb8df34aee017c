/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The translator in the test kit, from capture to capture: what oracle.py drives. A run is a function of its seed; so
 * is which shard a flow is in, and with it its port.
 *
 *     run_nat CONFIG IN OUT SEED REPLICAS KILLS
 */

#include <splitmerge/testing.h>
#include <stdio.h>
#include <stdlib.h>

#include "nat.h"

static int setup(struct sm_replica *replica, void **user)
{
    struct nat *nat = nat_create(*user);

    *user = nat;
    return nat ? nat_register(nat, replica) : SM_E_NO_MEMORY;
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)replica;
    nat_destroy(user);
}

static void print_drops(const struct sm_test *test)
{
    static const char *const reasons[] = {"no_session",  "no_port",   "session_limit", "hairpin",
                                          "unsupported", "malformed", "ftp_rewritten"};

    for (unsigned i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (sm_test_dropped(test, reasons[i]))
            printf(" %s: %llu", reasons[i], (unsigned long long)sm_test_dropped(test, reasons[i]));
    putchar('\n');
}

int main(int argc, char **argv)
{
    struct sm_errbuf error = {""};
    struct nat_config *config = argc == 7 ? nat_config_load(argv[1], &error) : NULL;

    if (!config) {
        fprintf(stderr, "run_nat: %s\n", error.text);
        return 2;
    }
    unsigned replicas = (unsigned)atoi(argv[5]);
    const struct sm_test_options options = {
        .size = sizeof options,
        .on_packet = nat_packet,
        .max_sends = NAT_SENDS,
        .setup = setup,
        .ended = ended,
        .user = config,
        .capture = argv[2],
        .output = argv[3],
        .replicas = replicas,
        .order_arrival = true,
        .seed = strtoull(argv[4], NULL, 0),
        .schedule = replicas > 1,
        .copies = true,
        .kills = (unsigned)atoi(argv[6]),
    };
    struct sm_test *test;
    int status = sm_test_create(&test, &options, &error);
    if (status == 0) {
        status = sm_test_finish(test);
        const struct sm_test_result *r = sm_test_result(test);
        snprintf(error.text, sizeof error.text, "%.255s", r->broken);
        printf(
            "%u replicas: %llu in, %llu out, %llu dropped, %llu sessions, %llu live, %llu bound, %llu by bound keys, "
            "%llu moves, %llu of them by copying, %llu killed, %u replicas in flight;",
            replicas, (unsigned long long)r->in, (unsigned long long)r->out, (unsigned long long)r->dropped,
            (unsigned long long)r->flows_created, (unsigned long long)r->flows_live,
            (unsigned long long)r->bindings_live, (unsigned long long)r->bindings_steered, (unsigned long long)r->moves,
            (unsigned long long)r->copied, (unsigned long long)r->deaths, r->replicas_in_flight);
        print_drops(test);
        sm_test_destroy(test, NULL);
    }
    if (status)
        fprintf(stderr, "run_nat: %s\n", error.text[0] ? error.text : sm_strerror(status));
    free(config);
    return status != 0;
}
