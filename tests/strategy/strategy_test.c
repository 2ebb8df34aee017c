/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The strategy drain. A middlebox that keeps its flows itself, in 2 to 6 replicas that are split, merged and moved at
 * random: as long as a flow lasts all of its packets come to one replica, in order, and nothing is lost; operations end
 * when the flows do. Built with KILLS replicas die meanwhile, at any place: then a flow may go elsewhere, but its
 * packets still leave once and in order. SM_SEED fixes the first run; SM_RUNS says how many there are.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <splitmerge/testing.h>

#ifndef KILLS
#define KILLS 0
#endif

#define RUNS 40u
#define PACKETS 4000u
#define FLOWS 300u /* at most */
#define SECOND 1000000000ull
#define IDLE (5 * SECOND)

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("line %d: %s: ", __LINE__, #condition);                                                             \
            printf(__VA_ARGS__);                                                                                       \
            printf("; SM_SEED=%" PRIu64 "\n", seed);                                                                   \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t seed, random_state;
static bool crowded; /* flows for which the switch has no room go with their shards */

/* What the packets carry, so that a replica need not look at headers. */
struct label {
    uint32_t flow;
    uint32_t life; /* counts how often the flow has ended, and begun anew */
    uint32_t number;
};

/* Where a flow was seen, and how far. Replicas take turns on one thread. */
static struct sight {
    unsigned replica;
    struct label last;
    bool seen;
} sights[FLOWS];

static unsigned replicas_made;
static uint64_t packets_of[1000]; /* by replica */

static uint64_t below(uint64_t bound)
{
    return (sm_test_random(&random_state) >> 11) % bound;
}

static int setup(struct sm_replica *replica, void **user)
{
    (void)replica;
    *user = (void *)(uintptr_t)++replicas_made;
    return 0;
}

static void watch(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    const unsigned here = (unsigned)(uintptr_t)user;
    struct label label;

    (void)replica;
    memcpy(&label, sm_packet_data(packet) + sm_packet_caplen(packet) - sizeof label, sizeof label);
    struct sight *sight = &sights[label.flow];
    packets_of[here]++;
    if (!KILLS && sight->seen) {
        CHECK(label.number == sight->last.number + 1, "flow %u: packet %u behind %u", label.flow, label.number,
              sight->last.number);
        CHECK(crowded || here == sight->replica || label.life != sight->last.life, "flow %u went from replica %u to %u",
              label.flow, sight->replica, here);
    }
    *sight = (struct sight){here, label, true};
}

/* ---- traffic ---- */

static struct source {
    struct label next;
    bool tcp, open;
    uint64_t last;
} sources[FLOWS];

static void address(char *text, size_t size, uint32_t flow)
{
    snprintf(text, size, "10.0.%u.%u:%u", flow / 250, flow % 250 + 1, 1024 + flow);
}

static void emit(struct sm_trace *trace, uint64_t now, uint32_t flow, bool forth, unsigned flags)
{
    struct source *source = &sources[flow];
    char there[32];
    const char *from = there, *to = "192.0.2.1:80";

    address(there, sizeof there, flow);
    if (!forth) {
        from = to;
        to = there;
    }
    int result = source->tcp
                     ? sm_trace_tcp(trace, (sm_time){now}, from, to, flags, 1, &source->next, sizeof source->next)
                     : sm_trace_udp(trace, (sm_time){now}, from, to, &source->next, sizeof source->next);
    CHECK(result == 0, "%s", sm_strerror(result));
    source->next.number++;
    source->last = now;
}

/* One packet of a flow, or the three of a connection's end. */
static void talk(struct sm_trace *trace, uint64_t now, uint32_t flow)
{
    struct source *source = &sources[flow];

    if (source->next.number == 0)
        source->tcp = below(2);
    else if (now - source->last > IDLE || (source->tcp && !source->open))
        source->next.life++; /* from here on it may be elsewhere */
    if (!source->tcp) {
        emit(trace, now, flow, below(2), 0);
    } else if (!source->open) {
        source->open = true;
        emit(trace, now, flow, true, SM_TCP_SYN);
    } else if (below(6) > 0) {
        emit(trace, now, flow, below(2), SM_TCP_ACK);
    } else {
        bool reset = below(4) == 0;
        emit(trace, now, flow, true, reset ? SM_TCP_RST : SM_TCP_FIN | SM_TCP_ACK);
        if (!reset) {
            emit(trace, now, flow, false, SM_TCP_FIN | SM_TCP_ACK);
            emit(trace, now, flow, true, SM_TCP_ACK);
        }
        source->open = false;
    }
}

static struct sm_trace *traffic(uint32_t flows)
{
    struct sm_trace *trace = sm_trace_create();
    uint64_t now = SECOND;

    memset(sources, 0, sizeof sources);
    for (uint32_t flow = 0; flow < flows; flow++)
        sources[flow].next.flow = flow;
    while (sm_trace_count(trace) < PACKETS) {
        talk(trace, now, (uint32_t)below(flows));
        now += below(100) == 0 ? below(2 * IDLE) : below(SECOND / 50);
    }
    return trace;
}

static struct sm_test_options options_for(const struct sm_trace *trace)
{
    memset(sights, 0, sizeof sights);
    memset(packets_of, 0, sizeof packets_of);
    replicas_made = 0;
    return (struct sm_test_options){.size = sizeof(struct sm_test_options),
                                    .on_packet = watch,
                                    .setup = setup,
                                    .input = trace,
                                    .drain_idle_ns = IDLE,
                                    .seed = seed};
}

/* ---- at random ---- */

static void at_random(void)
{
    struct sm_trace *trace = traffic(20 + (uint32_t)below(FLOWS - 20));
    struct sm_test_options options = options_for(trace);
    struct sm_test *test;
    struct sm_errbuf error = {""};

    options.replicas = 2 + (unsigned)below(3);
    options.schedule = true;
    options.kills = KILLS;
    options.order_arrival = below(2);
    crowded = below(4) == 0;
    options.max_flows = crowded ? 16 : 0;
    options.buffers = 64 + (unsigned)below(400);
    int result = sm_test_create(&test, &options, &error);
    CHECK(result == 0, "%s", error.text);
    result = sm_test_finish(test);
    CHECK(result == 0, "%s", sm_test_result(test)->broken);
    CHECK(sm_test_result(test)->out == sm_trace_count(trace), "%" PRIu64 " of %zu packets left",
          sm_test_result(test)->out, sm_trace_count(trace));
    CHECK(sm_trace_same(trace, sm_test_output(test), options.order_arrival ? SM_BY_ALL : SM_BY_FLOW, &error), "%s",
          error.text);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

/* ---- step by step ---- */

#define OLD 30u /* flows that are there before the operation */

/* Packets of flows [first, last), a few each, 1 ms apart. */
static uint64_t chatter(struct sm_trace *trace, uint64_t now, uint32_t first, uint32_t last, unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++)
        for (uint32_t flow = first; flow < last; flow++)
            emit(trace, now += 1000000, flow, true, 0);
    return now;
}

static bool all_have_moved(const struct sm_test *test, void *arg)
{
    (void)arg;
    return sm_test_result((struct sm_test *)(uintptr_t)test)->moves == SM_PACKET_SHARDS / 2;
}

/*
 * From two replicas to one: old flows stay with the second, new ones do not come to it, and the operation is over when
 * the old ones are; not before.
 */
static void step_by_step(void)
{
    struct sm_trace *trace = sm_trace_create();
    uint64_t now = SECOND, first_end, old_end, both_end;
    struct sm_errbuf error = {""};
    struct sm_test *test;

    memset(sources, 0, sizeof sources);
    for (uint32_t flow = 0; flow < FLOWS; flow++)
        sources[flow].next.flow = flow;
    now = chatter(trace, now, 0, OLD, 4);
    first_end = sm_trace_count(trace);
    now = chatter(trace, now, 0, OLD, 3000);
    old_end = sm_trace_count(trace);
    now = chatter(trace, now, 0, 2 * OLD, 8);
    both_end = sm_trace_count(trace);
    for (unsigned second = 0; second < 7; second++) /* the old ones are silent, which is how they end */
        now = chatter(trace, now + SECOND, OLD, 2 * OLD, 1);
    chatter(trace, now, OLD, 2 * OLD, 300);
    struct sm_test_options options = options_for(trace);
    options.replicas = 2;
    options.buffers = 32; /* so that few packets come while 8192 shards move */
    crowded = false;
    int result = sm_test_create(&test, &options, &error);
    CHECK(result == 0, "%s", error.text);
    sm_test_until_packet(test, first_end);
    CHECK(sm_test_scale(test, 1) == 0, "it is idle");
    sm_test_until(test, all_have_moved, NULL);
    CHECK(sm_test_result(test)->in < old_end, "moves took %" PRIu64 " packets", sm_test_result(test)->in);
    sm_test_until_packet(test, both_end);
    uint64_t before = packets_of[2];
    CHECK(sm_test_moving(test), "the old flows have not ended");
    CHECK(before > 0, "the second replica had no flow");
    for (uint32_t flow = OLD; flow < 2 * OLD; flow++)
        CHECK(!sights[flow].seen || sights[flow].replica == 1, "a new flow, %u, came to replica 2", flow);
    CHECK(sm_test_settle(test) == 0, "it ended before the input did: %s", sm_test_result(test)->broken);
    CHECK(sm_test_replicas(test) == 1, "the second replica has retired");
    CHECK(sm_test_finish(test) == 0, "%s", sm_test_result(test)->broken);
    sm_test_destroy(test, NULL);
    sm_trace_destroy(trace);
}

int main(void)
{
    const char *fixed = getenv("SM_SEED"), *runs = getenv("SM_RUNS");

    seed = fixed ? strtoull(fixed, NULL, 10) : (uint64_t)time(NULL) % 1000000;
    printf("SM_SEED=%" PRIu64 "\n", seed);
    for (uint64_t run = runs ? strtoull(runs, NULL, 10) : RUNS; run > 0; run--, seed++) {
        random_state = seed * 2654435761u + 88172645463325252ull;
        if (!KILLS && run % 10 == 0)
            step_by_step();
        at_random();
    }
    return 0;
}
