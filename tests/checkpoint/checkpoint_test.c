/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A service that was restored from a checkpoint goes on as the one it was taken of would have: same output, same
 * counts. Taken under traffic, among moves and deaths, a checkpoint has each shard as it was at one instant. What is
 * damaged is refused whole. SM_SEED fixes the schedules, SM_FULL=1 takes more of them.
 */

#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "testing/random.h"

static struct sm_errbuf error;

static struct sm_test *create(const struct sm_test_options *options)
{
    struct sm_test *test;

    if (sm_test_create(&test, options, &error) != 0) {
        printf("%s\n", error.text);
        abort();
    }
    return test;
}

/* Append one trace to another. */
static void append(struct sm_trace *to, const struct sm_trace *from)
{
    for (size_t i = 0; i < sm_trace_count(from); i++) {
        struct sm_trace_packet packet = sm_trace_at(from, i);
        sm_trace_add(to, packet.time, packet.data, packet.caplen);
    }
}

/* Run to the end; the output. */
static const char *finish(struct sm_test *test, struct sm_trace *output)
{
    if (sm_test_finish(test) != 0)
        return sm_test_result(test)->broken;
    append(output, sm_test_output(test));
    return NULL;
}

/* The first part of the packets in one service, the rest in others, each restored from a checkpoint of the one before.
 */
static const char *resumed(uint64_t seed, unsigned parts, const char *file, struct sm_trace *output)
{
    uint32_t from = 0;
    const char *wrong = NULL;

    for (unsigned i = 0; !wrong && i < parts; i++) {
        uint32_t to = i + 1 == parts
                          ? PACKETS
                          : from + 1 + (uint32_t)((seed * 977 + i * 31) % (PACKETS - from - (parts - i - 1)));
        struct sm_trace *input = trace_make(seed, from, to);
        struct sm_test_options options = middlebox(seed + i, input, 1 + (unsigned)(seed + i) % 4);
        options.kills = options.replicas > 1 && seed % 3 == 0 ? 400 : 0;
        struct sm_test *test = create(&options);
        if (i > 0 && checkpoint_restore(test, file, &error) != 0)
            wrong = error.text;
        while (!wrong && sm_test_step(test) == 0) {
        }
        if (!wrong && checkpoint_take(test, file, NOTHING, &error) != 0)
            wrong = error.text;
        if (!wrong)
            wrong = finish(test, output);
        sm_test_destroy(test, NULL);
        sm_trace_destroy(input);
        from = to;
    }
    return wrong;
}

static const char *goes_on(uint64_t seed, const char *file)
{
    struct sm_trace *input = trace_make(seed, 0, PACKETS), *whole = sm_trace_create(), *pieces = sm_trace_create();
    const struct sm_test_options options = middlebox(seed, input, 1);
    struct sm_test *test = create(&options);
    const char *wrong = finish(test, whole);

    sm_test_destroy(test, NULL);
    int64_t in_all = counted;
    if (!wrong)
        wrong = resumed(seed, 2 + seed % 3, file, pieces);
    if (!wrong && !sm_trace_same(whole, pieces, SM_BY_ALL, &error))
        wrong = error.text;
    if (!wrong && (in_all != PACKETS || counted != PACKETS))
        wrong = "a counter is not what it was";
    sm_trace_destroy(input);
    sm_trace_destroy(whole);
    sm_trace_destroy(pieces);
    return wrong;
}

/* ---- under traffic ---- */

struct instants {
    uint64_t seed;
    uint32_t last[HOSTS]; /* packet of each pair */
    bool there[HOSTS];
    const char *wrong;
};

static bool look_at_pair(const struct sm_test_flow *flow, void *arg)
{
    struct instants *instants = arg;
    const struct pair_record *record = flow->record;
    uint32_t pair = record_pair(flow->key), packets = 0;

    if (flow->cls.id != PAIRS)
        return true;
    for (uint32_t i = 0; i <= record->last; i++)
        packets += packet_pair(instants->seed, i) == pair;
    if (record->packets % 1000000 != packets)
        instants->wrong = "a pair's packets are not those up to its last";
    instants->last[pair] = record->last;
    instants->there[pair] = true;
    return !instants->wrong;
}

/* Against the pair, that lies in the same shard: a packet of the flow after the pair's last would be of another
 * instant, and so would a flow that lacks one before. */
static bool look_at_flow(const struct sm_test_flow *flow, void *arg)
{
    struct instants *instants = arg;
    const struct flow_record *record = flow->record;
    uint32_t last = 0, pair = record_pair(flow->key);

    if (flow->cls.id != FLOWS)
        return true;
    for (uint32_t i = 0; instants->there[pair] && i <= instants->last[pair]; i++)
        if (packet_flow(instants->seed, i) == record_flow(flow->key))
            last = i;
    if (!instants->there[pair] || record->last != last)
        instants->wrong = "a flow and its pair are not of one instant";
    return !instants->wrong;
}

static const char *at_one_instant(uint64_t seed, const char *file)
{
    static struct instants instants;
    struct sm_trace *nothing = trace_make(seed, 0, 1);
    const struct sm_test_options options = middlebox(seed + 1, nothing, 1);
    struct sm_test *test = create(&options);

    instants = (struct instants){.seed = seed};
    if (checkpoint_restore(test, file, &error) != 0)
        instants.wrong = error.text;
    if (!instants.wrong && sm_test_result(test)->flows_live != saved_flows)
        instants.wrong = "a checkpoint has other flows than it says, or one twice";
    sm_test_flows(test, look_at_pair, &instants);
    sm_test_flows(test, look_at_flow, &instants);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(nothing);
    return instants.wrong;
}

static const char *under_traffic(uint64_t seed, const char *file)
{
    struct sm_trace *input = trace_make(seed, 0, PACKETS), *output = sm_trace_create();
    struct sm_test_options options = middlebox(seed, input, 2 + seed % 4);
    options.kills = seed % 2 ? 100 : 0;
    struct sm_test *test = create(&options);
    const char *wrong = NULL;
    unsigned taken = 0;

    for (uint32_t at = (uint32_t)(seed * 37 % 500); !wrong && sm_test_until_packet(test, at) == 0; at += 700) {
        if (checkpoint_take(test, file, STEPS, &error) != 0)
            wrong = sm_test_result(test)->broken[0] ? sm_test_result(test)->broken : error.text;
        if (!wrong)
            wrong = at_one_instant(seed, file);
        taken++;
    }
    if (!wrong)
        wrong = finish(test, output);
    printf("SM_SEED=%llu: %u checkpoints among %llu moves and %llu deaths\n", (unsigned long long)seed, taken,
           (unsigned long long)sm_test_result(test)->moves, (unsigned long long)sm_test_result(test)->deaths);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(input);
    sm_trace_destroy(output);
    return wrong;
}

static const char *between_flows(uint64_t seed, const char *file)
{
    struct sm_trace *input = trace_make(seed, 0, PACKETS);
    const struct sm_test_options options = middlebox(seed, input, 1);
    struct sm_test *test = create(&options);
    const char *wrong = NULL;

    if (sm_test_until_packet(test, PACKETS / 4) != 0 || checkpoint_take(test, file, BETWEEN_FLOWS, &error) != 0)
        wrong = sm_test_result(test)->broken[0] ? sm_test_result(test)->broken : error.text;
    const uint64_t entered = sm_test_result(test)->in;
    if (!wrong && entered < PACKETS / 3)
        wrong = "no packets came while shards were half encoded";
    if (!wrong)
        wrong = at_one_instant(seed, file);
    if (!wrong && sm_test_finish(test) != 0)
        wrong = sm_test_result(test)->broken;
    printf("%llu packets while shards were half encoded\n", (unsigned long long)entered - PACKETS / 4);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(input);
    return wrong;
}

int main(void)
{
    uint64_t seed = random_seed();
    unsigned rounds = getenv("SM_FULL") ? 100 : 12;
    /* In memory: each checkpoint waits for the disk. */
    char folder[] = "/dev/shm/splitmerge-checkpoint-XXXXXX", file[64];
    const char *wrong = NULL;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!mkdtemp(folder))
        return 1;
    snprintf(file, sizeof file, "%s/checkpoint", folder);
    for (unsigned i = 0; !wrong && i < rounds; i++, seed++) {
        wrong = goes_on(seed, file);
        if (!wrong)
            wrong = under_traffic(seed, file);
        if (!wrong)
            wrong = between_flows(seed, file);
    }
    if (!wrong)
        wrong = shares_test(seed, file);
    if (!wrong)
        wrong = damage_test(seed, file);
    if (!wrong)
        wrong = refusal_test(seed, file);
    if (!wrong)
        wrong = cut_test(seed, file);
    if (!wrong)
        wrong = scribbled_test(seed);
    if (wrong)
        printf("FAILED, SM_SEED=%llu: %s\n", (unsigned long long)(seed - 1), wrong);
    unlink(file);
    rmdir(folder);
    return wrong != NULL;
}
