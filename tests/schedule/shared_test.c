/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * P8 for a limit that all replicas share: with 1 to 6 replicas, each a thread, under random schedules, over every
 * interval of packet time the packets that pass never exceed rate x t + burst, and together they are not under 98 % of
 * what passes unsplit. It is also the race test of the whole data plane: ThreadSanitizer runs it too.
 * Built with KILLS, replicas take turns on one thread and are killed at random steps; few enough packets are in flight
 * for nobody to have to wait. What the dead took and did not commit comes back: else less would pass. SM_SEED fixes the
 * schedule; SM_CAPTURE names another capture.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <splitmerge/testing.h>

#include "limiter.h"
#include "packet/packet.h"
#include "ports/port.h"

#ifndef KILLS
#define KILLS 0
#endif

/* Percent of what passes unsplit. A death in forty packets costs a little: those that were held come behind later ones.
 */
#define LEAST (KILLS ? 95u : 98u)

#define RATE 200000u /* bit/s */
#define BURST 6144u  /* bytes */

static const char policy_text[] = "limits: [{name: all, per: all, rate: 200kbit, burst: 6KiB, exceed: drop}]\n";

static int setup(struct sm_replica *replica, void **user)
{
    *user = limiter_create(*user);
    return *user ? limiter_register(*user, replica) : SM_E_NO_MEMORY;
}

static int started(struct sm_replica *replica, void *user)
{
    struct sm_errbuf error;

    return limiter_started(user, replica, &error);
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)replica;
    limiter_destroy(user);
}

/*
 * Replay what passed, in packet time, through one exact bucket: it is never overdrawn if and only if no interval
 * exceeds rate x t + burst. Packet time is the running maximum over the input, of which the output is a part.
 */
static const char *overdrawn(const char *input, const char *output, uint64_t *passed)
{
    const uint64_t byte = 8000000000ull; /* of a token, so that a nanosecond's refill is a whole number */
    struct sm_port *in, *out;
    struct sm_parser *parser;
    struct sm_errbuf error;
    struct sm_frame a, b;
    uint64_t clock = 0, level = BURST * byte, last = 0;
    const char *wrong = NULL;

    *passed = 0;
    if (sm_port_open_capture(&in, input, &error) != 0 || sm_port_open_capture(&out, output, &error) != 0 ||
        sm_parser_create(&parser, 65536) != 0)
        return "a capture cannot be read";
    while (!wrong && out->ops->receive(out, &b) == 1) {
        bool found = false;
        while (!found && in->ops->receive(in, &a) == 1) {
            uint64_t time = sm_frame_time(in, &a).ns;
            clock = time > clock ? time : clock;
            found = a.caplen == b.caplen && a.seconds == b.seconds && a.fraction == b.fraction &&
                    memcmp(a.data, b.data, a.caplen) == 0;
        }
        if (!found) {
            wrong = "the output is no part of the input";
            break;
        }
        struct sm_parsed parsed;
        sm_parse(parser, in->linktype, a.data, a.caplen, a.len, (sm_time){clock}, &parsed);
        if (parsed.headers.family == 0)
            continue;
        unsigned __int128 full = (unsigned __int128)(clock - last) * RATE + level;
        level = full > BURST * byte ? BURST * byte : (uint64_t)full;
        last = clock;
        *passed += a.len;
        if (a.len * byte > level)
            wrong = "more than rate x t + burst passed";
        else
            level -= a.len * byte;
    }
    sm_parser_destroy(parser);
    in->ops->close(in, true, &error);
    out->ops->close(out, true, &error);
    return wrong;
}

static int run(struct policy *policy, const char *input, const char *output, unsigned replicas, bool schedule,
               uint64_t seed, struct sm_test_result *result)
{
    const struct sm_test_options options = {
        .size = sizeof options,
        .capture = input,
        .output = output,
        .order_arrival = true,
        .seed = seed,
        .replicas = replicas,
        .schedule = schedule,
        .threads = KILLS == 0,
        .kills = schedule ? KILLS : 0,
        .buffers = KILLS ? 48 : 0,
        .on_packet = limiter_packet,
        .setup = setup,
        .started = started,
        .ended = ended,
        .user = policy,
    };
    struct sm_errbuf error;
    int status = sm_test_run(&options, result, &error);

    if (status)
        printf("%s: %s\n", input, error.text);
    return status;
}

int main(void)
{
    const char *input = getenv("SM_CAPTURE");
    uint64_t seed = getenv("SM_SEED") ? strtoull(getenv("SM_SEED"), NULL, 0) : (uint64_t)time(NULL);
    char folder[] = "/tmp/splitmerge-shared-XXXXXX", output[64];
    unsigned rounds = getenv("SM_FULL") ? 8 : 2, failures = 0, overlapping = 0;
    struct sm_errbuf error;
    struct policy *policy = policy_parse("policy", policy_text, strlen(policy_text), &error);
    uint64_t alone, passed, deaths = 0;
    struct sm_test_result result;

    if (!input || access(input, R_OK) != 0)
        input = SM_SAMPLE;
    printf("SM_SEED=%llu %s\n", (unsigned long long)seed, input);
    if (!policy || !mkdtemp(folder))
        return 1;
    snprintf(output, sizeof output, "%s/out.pcap", folder);
    if (run(policy, input, output, 1, false, 1, &result) != 0 || overdrawn(input, output, &alone)) {
        printf("unsplit: %s\n", overdrawn(input, output, &alone));
        return 1;
    }
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned replicas = 1; replicas <= SM_TEST_REPLICAS; replicas++, seed++) {
            if (run(policy, input, output, replicas, true, seed, &result) != 0)
                return 1;
            const char *wrong = overdrawn(input, output, &passed);
            if (!wrong && result.broken[0])
                wrong = result.broken;
            if (!wrong && passed * 100 < alone * LEAST)
                wrong = "too little of what passes unsplit";
            overlapping += result.replicas_in_flight >= 2;
            /* Where replicas are killed all the time, one may be alone for a whole capture. */
            if (!wrong && KILLS == 0 && replicas > 1 && result.in >= 1000 && result.replicas_in_flight < 2)
                wrong = "packets were never in flight in two replicas at once";
            printf("%s: SM_SEED=%llu, %u replicas, %llu moves, %llu held, %llu deaths: %llu of %llu bytes passed (%.2f "
                   "%%)\n",
                   wrong ? wrong : "ok", (unsigned long long)seed, replicas, (unsigned long long)result.moves,
                   (unsigned long long)result.held, (unsigned long long)result.deaths, (unsigned long long)passed,
                   (unsigned long long)alone, (double)passed * 100 / (double)alone);
            failures += wrong != NULL;
            deaths += result.deaths;
        }
    unlink(output);
    rmdir(folder);
    policy_free(policy);
    return failures != 0 || overlapping == 0 || (KILLS && deaths == 0);
}
