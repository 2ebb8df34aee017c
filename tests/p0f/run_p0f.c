/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The port of p0f in the test kit: both services, the second over what the first one wrote. Prints p0f's log. A run is
 * a function of its seed.
 *
 *     run_p0f FINGERPRINTS CAPTURE SEED REPLICAS KILLS UPGRADE
 *
 * REPLICAS above 1: random splits, merges and moves, half of them by copying. KILLS: a replica is killed in one of so
 * many steps, 0: none. UPGRADE 1: all replicas of both services are replaced by others in the midst of it.
 */

#include <stdio.h>
#include <stdlib.h>

#include <splitmerge/testing.h>

#include "port.c"

static int set_up_flows(struct sm_replica *replica, void **user)
{
    return flows_setup(*user, replica);
}

static int set_up_hosts(struct sm_replica *replica, void **user)
{
    return hosts_setup(*user, replica);
}

/* Go on for a while, until nothing moves. */
static int go_on(struct sm_test *test)
{
    int status = sm_test_until_packet(test, sm_test_result(test)->in + 300);

    return status ? status : sm_test_settle(test);
}

/* Replace all replicas by others, and end the upgrade, or take it back. SM_E_END: the packets ended before. */
static int upgrade(struct sm_test *test, const struct sm_test_options *options, struct sm_errbuf *error)
{
    const struct sm_test_upgrade next = {.size = sizeof next, .on_packet = options->on_packet, .setup = options->setup};
    int status, result;

    do {
        status = go_on(test);
        result = status ? status : sm_test_upgrade(test, &next, error);
    } while (result == SM_E_STATE || result == SM_E_LIMIT); /* the schedule moves; has started too many replicas */
    if (result)
        return result;
    do {
        status = go_on(test);
        result = sm_test_upgrade_forward(test);
    } while (status == 0 && (result == SM_E_AGAIN || result == SM_E_STATE));
    if (result == SM_E_NOT_FOUND) /* all of the new ones were killed */
        result = sm_test_upgrade_back(test);
    return status ? status : result;
}

static int pass(const struct sm_test_options *options, bool upgrades, struct sm_test **test, struct sm_errbuf *error)
{
    int status = sm_test_create(test, options, error);

    if (status)
        return status;
    if (upgrades)
        status = upgrade(*test, options, error);
    if (status == 0 || status == SM_E_END)
        status = sm_test_finish(*test);
    const struct sm_test_result *r = sm_test_result(*test);
    fprintf(stderr,
            "%llu in, %llu out, %llu flows, %llu moves, %llu of them by copying, %llu killed, %u replicas in flight\n",
            (unsigned long long)r->in, (unsigned long long)r->generated, (unsigned long long)r->flows_created,
            (unsigned long long)r->moves, (unsigned long long)r->copied, (unsigned long long)r->deaths,
            r->replicas_in_flight);
    if (status && !error->text[0])
        snprintf(error->text, sizeof error->text, "%.200s", r->broken[0] ? r->broken : sm_strerror(status));
    return status;
}

/* The lines, as sm-p0f-hosts --log writes them. */
static int print(const struct sm_trace *trace, struct sm_errbuf *error)
{
    for (size_t i = 0; i < sm_trace_count(trace); i++) {
        const struct sm_trace_packet packet = sm_trace_at(trace, i);
        const uint8_t *at = memmem(packet.data, packet.caplen, "p0fL", 4);
        if (at)
            fwrite(at + 4, 1, (size_t)(packet.data + packet.caplen - at - 4), stdout);
    }
    if (fflush(stdout) == 0)
        return 0;
    snprintf(error->text, sizeof error->text, "cannot write the log");
    return SM_E_IO;
}

int main(int argc, char **argv)
{
    struct sm_errbuf error = {""};
    struct sm_test *first = NULL, *second = NULL;

    if (argc != 7) {
        fputs("usage: run_p0f FINGERPRINTS CAPTURE SEED REPLICAS KILLS UPGRADE\n", stderr);
        return 2;
    }
    if (!load(argv[1], &error)) {
        fprintf(stderr, "run_p0f: %s\n", error.text);
        return 1;
    }
    bool upgrades = atoi(argv[6]) != 0;
    struct sm_test_options options = {
        .size = sizeof options,
        .on_packet = flows_packet,
        .max_sends = SM_MAX_SENDS,
        .setup = set_up_flows,
        .capture = argv[2],
        .replicas = (unsigned)atoi(argv[4]),
        .order_arrival = true,
        .seed = strtoull(argv[3], NULL, 0),
        .schedule = atoi(argv[4]) > 1,
        .copies = true,
        .kills = (unsigned)atoi(argv[5]),
    };
    int status = pass(&options, upgrades, &first, &error);
    if (status == 0) {
        options.on_packet = hosts_packet;
        options.setup = set_up_hosts;
        options.capture = NULL;
        options.input = sm_test_output(first);
        status = pass(&options, upgrades, &second, &error);
    }
    if (status == 0)
        status = print(sm_test_output(second), &error);
    if (status)
        fprintf(stderr, "run_p0f: %s\n", error.text[0] ? error.text : sm_strerror(status));
    sm_test_destroy(second, NULL);
    sm_test_destroy(first, NULL);
    return status != 0;
}
