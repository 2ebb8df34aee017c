/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Coherent objects under threads, splits, merges and moves: an eventual counter and a strong object both count every
 * packet exactly, and strong objects are got in one order only. ThreadSanitizer runs it too. Built with KILLS, replicas
 * are killed at random steps instead of running in threads, and nothing is counted twice or lost.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <splitmerge/testing.h>

#ifndef KILLS
#define KILLS 0
#endif

static sm_counter counter;
static sm_strong first, second;
static _Atomic unsigned wrong;
static _Atomic int64_t total;
static _Atomic uint64_t strong_total;

struct pair {
    uint64_t packets, twice;
};

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    (void)packet, (void)user;
    sm_counter_add(replica, counter, 1);

    struct pair *b = sm_shared_get(replica, second, SM_PULL | SM_SYNCH, NULL);
    if (sm_shared_get(replica, first, SM_PULL | SM_SYNCH, NULL) != NULL)
        wrong++; /* out of order: must be refused, contended or not */
    b->packets++;
    /* Nobody else is between these two. */
    b->twice += 2;
    if (b->twice != 2 * b->packets)
        wrong++;
    strong_total = b->packets;
    sm_shared_put(replica, second, SM_PUSH | SM_SYNCH);
}

static int setup(struct sm_replica *replica, void **user)
{
    (void)user;
    int result = sm_counter_register(replica, "packets", &counter);
    if (result == 0)
        result = sm_strong_register(replica, "first", sizeof(struct pair), &first);
    return result ? result : sm_strong_register(replica, "second", sizeof(struct pair), &second);
}

static void ended(struct sm_replica *replica, void *user)
{
    (void)user;
    total = sm_counter_read(replica, counter, NULL); /* slots of replicas that have gone are counted too */
}

int main(void)
{
    char folder[] = "/tmp/splitmerge-objects-XXXXXX", output[64];
    unsigned failures = 0;
    uint64_t deaths = 0;

    if (!mkdtemp(folder))
        return 1;
    snprintf(output, sizeof output, "%s/out.pcap", folder);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        const struct sm_test_options options = {.size = sizeof options,
                                                .capture = SM_SAMPLE,
                                                .output = output,
                                                .order_arrival = true,
                                                .seed = seed,
                                                .replicas = 1 + (unsigned)seed % SM_TEST_REPLICAS,
                                                .schedule = true,
                                                .threads = KILLS == 0,
                                                .kills = KILLS,
                                                .on_packet = on_packet,
                                                .setup = setup,
                                                .ended = ended};
        struct sm_test_result result;
        struct sm_errbuf error;
        if (sm_test_run(&options, &result, &error) != 0) {
            printf("%s\n", error.text);
            return 1;
        }
        bool right = !result.broken[0] && wrong == 0 && (uint64_t)total == strong_total && strong_total > 2000;
        printf("%s: seed %llu, %u replicas: counted %lld and %llu of %llu packets, %u wrong %s\n",
               right ? "ok" : "FAILED", (unsigned long long)seed, options.replicas, (long long)total,
               (unsigned long long)strong_total, (unsigned long long)result.in, wrong, result.broken);
        failures += !right;
        deaths += result.deaths;
    }
    unlink(output);
    rmdir(folder);
    printf("%llu deaths\n", (unsigned long long)deaths);
    return failures != 0 || (KILLS && deaths == 0);
}
