/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * P1 to P4 over captures. Every capture runs unsplit, and again with several replicas under a random schedule of
 * splits, merges and moves (some abandoned on the way), for rate limits of every partitionable key, and for a middlebox
 * that makes packets and arms timers. With order: arrival the two output files are equal; with order: flow, each flow's
 * packets are, in their order. SM_SEED fixes the schedule, SM_ONE names a single capture, SM_FULL=1 runs all keys over
 * every capture (otherwise each capture gets one key by turns, and the chatterbox). With SM_THREADS=1 each replica is a
 * thread: the schedule then depends on the machine as well, and ThreadSanitizer sees partitioned state change hands.
 */

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <splitmerge/testing.h>

#include "../kit/files.h"
#include "../kit/limiter_middlebox.h"
#include "packet/packet.h"
#include "ports/port.h"
#include "testing/random.h"

/* ---- middleboxes ---- */

struct subject {
    const char *name;
    enum sm_granularity key;
    const char *policy; /* NULL: the chatterbox */
};

static const struct subject subjects[] = {
    {"flow", SM_BY_FLOW, "limits: [{name: l, per: flow, rate: 40kbit, burst: 3KiB, exceed: drop}]\n"},
    {"source", SM_BY_SOURCE, "limits: [{name: l, per: source, rate: 80kbit, burst: 4KiB, exceed: drop}]\n"},
    {"destination", SM_BY_DESTINATION,
     "limits: [{name: l, per: destination, rate: 20pps, burst: 5, exceed: {mark: {dscp: CS1}}},"
     " {name: m, per: destination, rate: 100kbit, burst: 4KiB, exceed: drop}]\n"},
    {"host-pair", SM_BY_HOST_PAIR,
     "limits: [{name: l, per: host-pair, rate: 60kbit, burst: 3KiB, exceed: drop},"
     " {name: f, per: flow, rate: 30kbit, burst: 2KiB, exceed: {mark: ce}}]\n"},
    {"prefix", SM_BY_SOURCE,
     "limits: [{name: h, per: source, rate: 60kbit, burst: 3KiB, parent: n},"
     " {name: n, per: source/20/48, rate: 90kbit, burst: 5KiB}]\n"},
    {"ceil", SM_BY_SOURCE,
     "limits: [{name: h, per: source, rate: 20kbit, ceil: 80kbit, burst: 3KiB, parent: n},"
     " {name: n, per: source/20/48, rate: 90kbit, burst: 10KiB}]\n"},
    {"shape", SM_BY_HOST_PAIR,
     "limits: [{name: f, per: flow, rate: 40kbit, burst: 2KiB, exceed: {shape: {queue: 300ms}}},"
     " {name: h, per: host-pair, rate: 20pps, burst: 4, exceed: {shape: {queue: 100ms}}}]\n"},
    {"chatterbox", SM_BY_FLOW, NULL},
};

#ifndef KILLS
#define KILLS 0 /* the kill test has one in so many steps kill a replica */
#endif

#define SUBJECTS (sizeof subjects / sizeof *subjects)
#define CHATTERBOX (SUBJECTS - 1)

/* Counts each flow's packets; drops every seventh, answers every fifth with a packet of its own, forgets idle flows. */
struct chatter {
    uint32_t packets;
    uint32_t timeouts;
};

/* The first of their kind to be registered, and the same for all replicas. */
static const sm_class chatter_class = {0};
static const uint16_t chatter_reason = 0;

static void chatter_timer(struct sm_replica *replica, sm_class cls, sm_flow flow, unsigned slot, sm_time now,
                          void *user)
{
    struct chatter *chatter = flow.state;

    (void)slot, (void)user;
    if (++chatter->timeouts >= 3)
        sm_flow_close(replica, cls, flow);
    else
        sm_flow_timer_set(replica, cls, flow, 0, (sm_time){now.ns + 300000000});
}

static void chatter_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    struct chatter *chatter;
    sm_flow flow;

    (void)user;
    if (sm_flow_create(replica, chatter_class, packet, 0, &flow, NULL) != 0)
        return;
    chatter = flow.state;
    chatter->packets++;
    sm_flow_timer_set(replica, chatter_class, flow, 0, (sm_time){sm_packet_time(packet).ns + 500000000});
    if (chatter->packets % 7 == 0)
        sm_packet_drop(packet, chatter_reason);
    if (chatter->packets % 5 == 0) {
        /* The packet's own first bytes, so that it has its flow, and the state at the end. */
        uint8_t copy[256];
        uint32_t length = sm_packet_caplen(packet) < 200 ? sm_packet_caplen(packet) : 200;
        memcpy(copy, sm_packet_data(packet), length);
        memcpy(copy + length, chatter, sizeof *chatter);
        sm_packet_send(replica, packet, copy, length + (uint32_t)sizeof *chatter);
    }
    sm_flow_put(replica, chatter_class, flow);
}

static const struct sm_field chatter_fields[] = {
    {"packets", SM_FIELD_UINT, offsetof(struct chatter, packets), sizeof(uint32_t), NULL, 0},
    {"timeouts", SM_FIELD_UINT, offsetof(struct chatter, timeouts), sizeof(uint32_t), NULL, 0},
};

static int chatter_setup(struct sm_replica *replica, void **user)
{
    const struct sm_class_options options = {
        .size = sizeof options,
        .name = "chatter",
        .record_size = sizeof(struct chatter),
        .fields = chatter_fields,
        .field_count = 2,
        .granularity = SM_BY_FLOW,
        .timers = 1,
        .on_timer = chatter_timer,
    };

    sm_class cls = {0};
    uint16_t reason = 0;

    (void)user;
    int result = sm_drop_reason(replica, "seventh", &reason);
    if (result == 0)
        result = sm_class_register(replica, &options, &cls);
    return result || cls.id != chatter_class.id || reason != chatter_reason ? SM_E_CONFLICT : 0;
}

/* ---- comparison ---- */

/* Every flow's packets, in order, folded into one number: a chain of hashes per flow, summed over flows. */
#define CHAINS (1u << 16) /* more than the flows of any capture here */

static uint64_t flow_digest(const char *file, enum sm_granularity key_of, uint64_t *packets)
{
    static struct {
        uint64_t flow, digest;
    } chains[CHAINS];
    struct sm_port *port;
    struct sm_errbuf error;
    struct sm_parser *parser;
    struct sm_frame frame;
    uint64_t sum = 0, clock = 0;

    memset(chains, 0, sizeof chains);
    *packets = 0;
    if (sm_port_open_capture(&port, file, &error) != 0 || sm_parser_create(&parser, 65536) != 0)
        return 0;
    while (port->ops->receive(port, &frame) == 1) {
        struct sm_parsed parsed;
        uint64_t time = sm_frame_time(port, &frame).ns;
        if (time > clock)
            clock = time;
        sm_parse(parser, port->linktype, frame.data, frame.caplen, frame.len, (sm_time){clock}, &parsed);
        struct sm_key key;
        sm_parsed_key(&parsed, frame.data, frame.caplen, key_of, &key);
        uint64_t chain = 14695981039346656037ull, packet = 14695981039346656037ull;
        for (size_t i = 0; i < sizeof key; i++)
            chain = (chain ^ ((const uint8_t *)&key)[i]) * 1099511628211ull;
        for (uint32_t i = 0; i < frame.caplen; i++)
            packet = (packet ^ frame.data[i]) * 1099511628211ull;
        packet ^= time;
        /* A later fragment whose first one was dropped has no flow here: it counts, without its order. */
        uint64_t at = (chain >> 20) % CHAINS;
        while (chains[at].flow != 0 && chains[at].flow != chain)
            at = (at + 1) % CHAINS;
        chains[at].flow = chain;
        if (parsed.headers.flags & SM_HDR_LATER_FRAGMENT)
            sum += packet;
        else
            chains[at].digest = (chains[at].digest ^ packet) * 0x9e3779b97f4a7c15ull + 1;
        ++*packets;
    }
    for (uint32_t i = 0; i < CHAINS; i++)
        sum += chains[i].digest * (chains[i].flow | 1);
    sm_parser_destroy(parser);
    port->ops->close(port, true, &error);
    return sum;
}

/* ---- runs ---- */

static char folder[] = "/tmp/splitmerge-schedule-XXXXXX";
static uint64_t total_moves, total_copied, total_held, total_abandoned, total_deaths, total_taken_over, runs, failures,
    overlapping;
static bool threads;

static bool run(const struct subject *subject, const char *input, const char *output, bool arrival, uint64_t seed,
                unsigned replicas, struct sm_test_result *result)
{
    struct sm_test_options options = {.size = sizeof options,
                                      .kills = replicas > 1 ? KILLS : 0,
                                      .capture = input,
                                      .output = output,
                                      .order_arrival = arrival,
                                      .seed = seed,
                                      .replicas = replicas,
                                      .schedule = replicas > 1,
                                      .copies = true,
                                      .threads = threads && replicas > 1};
    struct policy *policy = NULL;
    struct sm_errbuf error = {{0}};
    int status;

    if (subject->policy) {
        policy = policy_parse("policy", subject->policy, strlen(subject->policy), &error);
        if (!policy) {
            printf("%s\n", error.text);
            return false;
        }
        options.on_packet = limiter_packet;
        options.setup = limiter_setup;
        options.started = limiter_ready;
        options.ended = limiter_ended;
        options.user = policy;
        options.delays = true;
    } else {
        options.on_packet = chatter_packet;
        options.setup = chatter_setup;
        options.max_sends = 1;
    }
    status = sm_test_run(&options, result, &error);
    policy_free(policy);
    if (status) {
        printf("%s: %s\n", input, error.text);
        return false;
    }
    return true;
}

static void fail(const char *input, const struct subject *subject, uint64_t seed, bool arrival, const char *what)
{
    failures++;
    printf("FAILED %s, %s, order %s, SM_SEED=%llu: %s\n", input, subject->name, arrival ? "arrival" : "flow",
           (unsigned long long)seed, what);
}

static void compare(const struct subject *subject, const char *input, bool arrival, uint64_t seed)
{
    char alone[64], split[64];
    struct sm_test_result one, many;
    uint64_t random = seed, count_one, count_many;
    unsigned replicas = 2 + (unsigned)((sm_test_random(&random) >> 11) % (SM_TEST_REPLICAS - 1));

    snprintf(alone, sizeof alone, "%s/alone.pcap", folder);
    snprintf(split, sizeof split, "%s/split.pcap", folder);
    runs++;
    if (!run(subject, input, alone, arrival, 1, 1, &one) ||
        !run(subject, input, split, arrival, seed, replicas, &many)) {
        fail(input, subject, seed, arrival, "it did not run");
        return;
    }
    if (one.broken[0] || many.broken[0])
        fail(input, subject, seed, arrival, one.broken[0] ? one.broken : many.broken);
    else if (one.in != many.in || one.out != many.out || one.dropped != many.dropped ||
             one.flows_created != many.flows_created || one.flows_live != many.flows_live)
        fail(input, subject, seed, arrival, "the counts differ"),
            printf("  in %llu %llu, out %llu %llu, dropped %llu %llu, created %llu %llu, live %llu %llu\n",
                   (unsigned long long)one.in, (unsigned long long)many.in, (unsigned long long)one.out,
                   (unsigned long long)many.out, (unsigned long long)one.dropped, (unsigned long long)many.dropped,
                   (unsigned long long)one.flows_created, (unsigned long long)many.flows_created,
                   (unsigned long long)one.flows_live, (unsigned long long)many.flows_live);
    else if (arrival ? !same_file(alone, split)
                     : flow_digest(alone, subject->key, &count_one) != flow_digest(split, subject->key, &count_many) ||
                           count_one != count_many)
        fail(input, subject, seed, arrival, "the outputs differ");
    total_moves += many.moves;
    total_copied += many.copied;
    total_held += many.held;
    total_abandoned += many.abandoned;
    total_deaths += many.deaths;
    total_taken_over += many.taken_over;
    overlapping += many.replicas_in_flight >= 2;
    /* Where replicas are killed all the time, one may be alone for a whole capture. */
    if (KILLS == 0 && many.in >= 1000 && many.busy_shards >= 32 && many.replicas_in_flight < 2)
        fail(input, subject, seed, arrival, "packets were never in flight in two replicas at once");
    unlink(alone);
    unlink(split);
}

static uint64_t captures;

static void one_capture(const char *input, uint64_t seed, bool full)
{
    struct sm_port *port;
    struct sm_errbuf error;
    uint64_t mixed = seed + captures * 7919;

    if (sm_port_open_capture(&port, input, &error) != 0)
        return; /* not a capture: lists, statistics, damaged headers */
    port->ops->close(port, true, &error);
    for (unsigned i = 0; i < SUBJECTS; i++) {
        if (!full && i != captures % CHATTERBOX && i != CHATTERBOX)
            continue;
        for (int arrival = 0; arrival < 2; arrival++) {
            uint64_t one = sm_test_random(&mixed) | 1;
            compare(&subjects[i], input, arrival, seed && getenv("SM_ONE") ? seed : one);
        }
    }
    captures++;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void walk(const char *path, uint64_t seed, bool full)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name);

    for (int i = 0; i < count; i++) {
        char child[1024];
        struct stat status;
        snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && stat(child, &status) == 0) {
            if (S_ISDIR(status.st_mode))
                walk(child, seed, full);
            else if (strstr(child, ".pcap"))
                one_capture(child, seed, full);
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

int main(void)
{
    const char *traces = getenv("SM_TRACES"), *samples = getenv("SM_SAMPLES"), *one = getenv("SM_ONE");
    uint64_t seed = random_seed();
    bool full = getenv("SM_FULL") != NULL;

    threads = getenv("SM_THREADS") != NULL;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!mkdtemp(folder))
        return 1;
    printf("SM_SEED=%llu\n", (unsigned long long)seed);
    if (one) {
        one_capture(one, seed, true);
    } else {
        if (traces && access(traces, R_OK) == 0)
            walk(traces, seed, full);
        else
            printf("no folder of captures beside the project: only its own samples are run\n");
        if (samples)
            walk(samples, seed, full);
    }
    rmdir(folder);
    printf(
        "%llu captures, %llu comparisons, %llu moves completed, %llu of them by copying, %llu abandoned, %llu packets "
        "held, %llu runs with two replicas busy; %llu failed\n",
        (unsigned long long)captures, (unsigned long long)runs, (unsigned long long)total_moves,
        (unsigned long long)total_copied, (unsigned long long)total_abandoned, (unsigned long long)total_held,
        (unsigned long long)overlapping, (unsigned long long)failures);
    if (KILLS)
        printf("%llu replicas killed, %llu packets taken over\n", (unsigned long long)total_deaths,
               (unsigned long long)total_taken_over);
    /* How threads meet is not in our hands: they may never meet a packet in a hold. */
    return failures || runs == 0 || total_moves == 0 || total_copied == 0 || overlapping == 0 ||
           (total_held == 0 && !threads);
}
