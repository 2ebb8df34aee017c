/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the runtime does for flows by itself: each subject alone, then with several replicas under random schedules, and
 * (flows_kill_test) with replicas killed at random steps. What it finds at each packet is what the model says, and the
 * output is that of the unsplit run. SM_SEED fixes the schedules, SM_FULL=1 takes more of them.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../kit/files.h"
#include "flows.h"
#include "testing/random.h"

#ifndef KILLS
#define KILLS 0
#endif

uint64_t noted[PACKETS];
_Atomic uint64_t mistakes;

static const struct subject *const subjects[] = {&timeouts, &evict, &chunks, &each, &hooks, &bound};
static char folder[] = "/tmp/splitmerge-flows-XXXXXX";
static unsigned failures;
static uint64_t copied;

static const char *run(const struct subject *subject, const char *input, const char *output, const char *unsplit,
                       uint64_t seed, unsigned replicas, const uint64_t *expected)
{
    static char text[128];
    const struct sm_test_options options = {
        .size = sizeof options,
        .kills = replicas > 1 ? KILLS : 0,
        .capture = input,
        .output = output,
        .order_arrival = true,
        .seed = seed,
        .replicas = replicas,
        .schedule = replicas > 1,
        .copies = true,
        .max_sends = 1,
        .max_flows = subject->limit,
        .on_packet = subject->on_packet,
        .setup = subject->setup,
        .ended = subject->ended,
    };
    static struct sm_errbuf error;
    static struct sm_test_result result;

    memset(noted, 0xff, sizeof noted);
    mistakes = 0;
    if (sm_test_run(&options, &result, &error) != 0)
        return error.text;
    printf("%s, SM_SEED=%llu, %u replicas: %llu packets, %llu flows, %llu live, %llu moves, %llu of them "
           "copies, %llu killed, %llu taken over\n",
           subject->name, (unsigned long long)seed, replicas, (unsigned long long)result.in,
           (unsigned long long)result.flows_created, (unsigned long long)result.flows_live,
           (unsigned long long)result.moves, (unsigned long long)result.copied, (unsigned long long)result.deaths,
           (unsigned long long)result.taken_over);
    copied += result.copied;
    if (result.broken[0])
        return result.broken;
    if (strstr(result.abandoned_for, "a flow could not"))
        return result.abandoned_for;
    if (mistakes)
        return "the middlebox met what should not be";
    for (uint32_t i = 0; expected && i < PACKETS; i++)
        if (noted[i] != expected[i]) {
            snprintf(text, sizeof text, "packet %u: %llx, the model says %llx", i, (unsigned long long)noted[i],
                     (unsigned long long)expected[i]);
            return text;
        }
    if (unsplit && !same_file(unsplit, output))
        return "the output is not that of the unsplit run";
    return subject->verdict ? subject->verdict(&result) : NULL;
}

static void attempt(const struct subject *subject, uint64_t seed, unsigned rounds)
{
    static struct planned plan[PACKETS];
    static uint64_t expected[PACKETS];
    char input[64], unsplit[64], output[64];

    snprintf(input, sizeof input, "%s/in.pcap", folder);
    snprintf(unsplit, sizeof unsplit, "%s/unsplit.pcap", folder);
    snprintf(output, sizeof output, "%s/out.pcap", folder);
    capture_plan(plan, subject->flows, seed | 1);
    if (subject->model)
        subject->model(plan, expected);
    const char *wrong = capture_write(input, plan) ? "no capture" : NULL;
    if (!wrong)
        wrong = run(subject, input, unsplit, NULL, seed, 1, subject->model ? expected : NULL);
    for (unsigned i = 0; !wrong && i < rounds; i++, seed++)
        wrong = run(subject, input, output, unsplit, seed, 2 + i % (SM_TEST_REPLICAS - 1),
                    subject->model ? expected : NULL);
    if (!wrong && KILLS == 0 && subject == &each)
        wrong = each_between(input);
    if (wrong)
        printf("FAILED %s, SM_SEED=%llu: %s\n", subject->name, (unsigned long long)seed, wrong);
    failures += wrong != NULL;
    unlink(input);
    unlink(unsplit);
    unlink(output);
}

int main(void)
{
    uint64_t seed = random_seed();
    unsigned rounds = getenv("SM_FULL") ? 60 : 6;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!mkdtemp(folder))
        return 1;
    for (unsigned i = 0; i < sizeof subjects / sizeof *subjects; i++)
        attempt(subjects[i], seed, rounds);
    rmdir(folder);
    printf("%llu moves by copying\n", (unsigned long long)copied);
    return failures != 0 || copied == 0;
}
