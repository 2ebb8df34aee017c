/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Exchanges of several hosts, with datagrams that are lost, repeated and late; and what a policy says of them. All in
 * one process: a network of exchanges, each with its own buckets.
 */

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exchange_net.h"
#include "peers/loop.h"
#include "policy.h"
#include <splitmerge/bucket.h>

#include "testing/random.h"

static const struct sm_bucket_rate whole = {.rate = RATE, .burst = 60000};

/* A packet has passed somewhere: one bucket for all must have had it. */
static void judged(struct net *net)
{
    if (!net->judge)
        return;
    cr_assert(sm_bucket_has(net->judge, &whole, net->now, 1000), "seed %lu: above the limit at %lu ms", net->seed,
              net->now / 1000000);
    sm_bucket_take(net->judge, &whole, net->now, 1000);
}

/* `offered[i]` bit/s at host i, in packets of 1000 bytes. */
static void run(struct net *net, unsigned ms, const double *offered)
{
    for (unsigned i = 0; i < HOSTS; i++)
        net->passed[i] = 0;
    for (uint64_t end = net->now + ms * 1000000ull; net->now < end; net->now += TICK) {
        for (unsigned i = 0; i < HOSTS; i++) {
            double packets = offered[i] / 8000 * (double)TICK / 1e9;
            for (; packets > 0; packets--)
                if (chance(net) < packets &&
                    share_take(&net->state[i].shares[0], net->random, 1000, 1000 * SM_BUCKET_UNIT,
                               (uint32_t)(net->random >> 32), net->now)) {
                    net->passed[i] += 8000 * 1000.0 / ms;
                    judged(net);
                }
            exchange_tick(net->exchange[i], net->now);
        }
        deliver(net);
    }
}

static double all(const struct net *net)
{
    return net->passed[0] + net->passed[1] + net->passed[2] + net->passed[3];
}

static void share_one_limit(bool exact, enum drl_mode mode, double tolerance)
{
    struct net *net = build(exact, mode, NULL);
    const double two[] = {RATE * 1.5, RATE * 1.5, 0, 0}, last[] = {0, 0, 0, RATE * 1.5};

    net->lost = 0.02;
    net->repeated = 0.1;
    run(net, 4000, two);
    for (unsigned i = 0; i < HOSTS; i++)
        cr_assert_eq(reported(net, i, "hosts"), HOSTS, "host %u knows of %ld", i, reported(net, i, "hosts"));
    run(net, 3000, two);
    cr_assert_float_eq(all(net) / RATE, 1, tolerance, "%f", all(net) / RATE);
    run(net, 3000, last);
    run(net, 3000, last);
    cr_assert_float_eq(net->passed[3] / RATE, 1, tolerance, "%f", net->passed[3] / RATE);
    cr_assert_gt(reported(net, 0, "replayed"), 0, "repeated datagrams are counted");
    destroy(net);
}

Test(exchange, exact_shares_one_limit)
{
    share_one_limit(true, DRL_MODES, 0.1);
}

/* The home is gone for three seconds, and has lost its account: leases end, and nothing passes above the limit. */
Test(exchange, exact_without_its_home)
{
    struct net *net = build(true, DRL_MODES, NULL);
    const double others[] = {0, RATE, RATE, 0};
    struct sm_bucket judge;
    double after[8];

    run(net, 5000, others);
    sm_bucket_init(&judge, &whole, net->now);
    net->judge = &judge;
    net->cut[0] = true;
    for (unsigned i = 0; i < 6; i++) {
        run(net, 500, others);
        printf("home gone, %u ms: %.2f of the limit\n", (i + 1) * 500, all(net) / RATE);
    }
    cr_assert_eq(all(net), 0, "leases have ended");
    exchange_destroy(net->exchange[0]);
    begin(net, 0);
    net->cut[0] = false;
    for (unsigned i = 0; i < 8; i++) {
        run(net, 500, others);
        after[i] = all(net) / RATE;
        printf("home back, %u ms: %.2f of the limit\n", (i + 1) * 500, after[i]);
    }
    cr_assert_eq(after[0], 0, "an earlier home's leases may be out");
    cr_assert_float_eq(after[7], 1, 0.1, "%f", after[7]);
    destroy(net);
}

Test(exchange, pool_shares_one_limit)
{
    share_one_limit(false, DRL_POOL, 0.1);
}

Test(exchange, gtb_shares_one_limit)
{
    share_one_limit(false, DRL_GTB, 0.3);
}

Test(exchange, grd_shares_one_limit)
{
    share_one_limit(false, DRL_GRD, 0.1);
}

Test(exchange, fps_shares_one_limit)
{
    share_one_limit(false, DRL_FPS, 0.15);
}

Test(exchange, split_gives_each_its_part)
{
    struct net *net = build(false, DRL_SPLIT, NULL);
    const double everywhere[] = {RATE, RATE, RATE, RATE}, one[] = {RATE, 0, 0, 0};

    run(net, 2000, everywhere);
    run(net, 2000, everywhere);
    cr_assert_float_eq(all(net) / RATE, 1, 0.05);
    run(net, 2000, one);
    run(net, 2000, one);
    cr_assert_float_eq(net->passed[0] / RATE, 0.25, 0.05);
    destroy(net);
}

/*
 * The simulator gives packets to drl_packet(), a host to the share that its exchange fills: the same packets at the
 * same times get the same verdicts. Some flows are too fast, some are not; the bucket is near empty, and full, by
 * turns.
 */
Test(exchange, a_host_and_the_simulator_decide_alike)
{
    uint64_t seed = random_seed();
    struct net *net = build(false, DRL_POOL, NULL);
    const struct drl_options options = {
        .mode = DRL_POOL, .rate = RATE / 8.0, .burst = 60000, .interval_ns = 50000000, .limiters = 1, .seed = 1};
    struct drl *drl = drl_create(&options, net->now);
    uint64_t next = net->now + options.interval_ns;
    unsigned passed = 0, early = 0;

    printf("SM_SEED=%lu\n", seed);
    net->random = seed;
    for (unsigned i = 0; i < 40000; i++) {
        double chosen = chance(net), busy = i / 4000 % 2 ? 2 : 0.7;
        uint64_t flow = 1 + (uint64_t)(20 * chosen * chosen * chosen);
        uint32_t bytes = 100 + (uint32_t)(1400 * chance(net)), to[DRL_MAX_FANOUT];
        struct drl_update update[DRL_MAX_FANOUT];
        exchange_tick(net->exchange[0], net->now);
        if (net->now >= next) {
            drl_interval(drl, net->now, to, update);
            next = net->now + options.interval_ns;
        }
        bool there = atomic_load(&net->head[0].meter.level) >= bytes * SM_BUCKET_UNIT;
        bool has = share_take(&net->state[0].shares[0], flow, bytes, bytes * SM_BUCKET_UNIT, (uint32_t)i, net->now);
        cr_assert_eq(has, drl_packet(drl, net->now, flow, bytes), "seed %lu: packet %u", seed, i);
        passed += has;
        early += there && !has;
        net->now += (uint64_t)(800 * 8e9 / RATE / busy * 2 * chance(net));
    }
    cr_assert_gt(passed, 10000);
    cr_assert_gt(early, 500, "only %u of 40000 packets were dropped early", early);
    drl_destroy(drl);
    destroy(net);
}

/* An exchange ends, and another one of its host goes on with what is in the arena; the others notice a new session. */
Test(exchange, another_goes_on)
{
    for (unsigned exact = 0; exact < 2; exact++) {
        struct net *net = build(exact, DRL_POOL, NULL);
        const double everywhere[] = {RATE, RATE, RATE, RATE};
        run(net, 5000, everywhere);
        for (unsigned round = 0; round < 8; round++) {
            exchange_destroy(net->exchange[round % HOSTS]);
            begin(net, round % HOSTS);
            run(net, 1000, everywhere);
            cr_assert_leq(all(net) / RATE, exact ? 1.01 + 60000.0 * 8 / RATE : 1.2, "%f", all(net) / RATE);
            cr_assert_geq(all(net) / RATE, 0.6, "exact %u: %f in round %u", exact, all(net) / RATE, round);
        }
        destroy(net);
    }
}

/* What a host says after it has begun anew is heard, though it counts from the beginning; so is the home. */
Test(exchange, who_begins_anew_is_heard)
{
    const enum drl_mode modes[] = {DRL_POOL, DRL_GRD};

    for (unsigned i = 0; i < 4; i++) {
        struct net *net = build(false, modes[i / 2], NULL);
        const double first[] = {RATE, RATE, 0, 0}, then[] = {0, 0, 0, RATE * 1.5};
        run(net, 20000, first);
        unsigned host = i % 2 ? 3 : 0;
        exchange_destroy(net->exchange[host]);
        begin(net, host);
        run(net, 3000, then);
        run(net, 2000, then);
        cr_assert_gt(net->passed[3] / RATE, 0.85, "mode %u, host %u: %f", modes[i / 2], host, net->passed[3] / RATE);
        run(net, 3000, first);
        run(net, 2000, first);
        cr_assert_float_eq(all(net) / RATE, 1, 0.15, "mode %u, host %u: %f", modes[i / 2], host, all(net) / RATE);
        destroy(net);
    }
}

/* Exchanges and all between them: whatever is lost, repeated, cut off or begins anew. SM_SEED gives one run again. */
Test(exchange, exact_is_never_exceeded)
{
    const char *given = getenv("SM_SEED");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1, runs = given ? 1 : getenv("SM_FULL") ? 300 : 20;
    double used = 0;

    printf("seeds %lu to %lu\n", first, first + runs - 1);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        struct net *net = build(true, DRL_MODES, NULL);
        struct sm_bucket judge;
        sm_bucket_init(&judge, &whole, net->now);
        net->judge = &judge;
        net->seed = seed;
        net->random = seed * 2654435761u + 1;
        for (unsigned round = 0; round < 60; round++) {
            double offered[HOSTS];
            net->lost = chance(net) < 0.5 ? 0 : 0.3 * chance(net);
            net->repeated = 0.3 * chance(net);
            for (unsigned i = 0; i < HOSTS; i++) {
                offered[i] = chance(net) < 0.4 ? 0 : 2 * RATE * chance(net);
                net->cut[i] = chance(net) < 0.1;
                if (chance(net) > 0.05)
                    continue;
                exchange_destroy(net->exchange[i]);
                begin(net, i);
            }
            run(net, 20 + (unsigned)(chance(net) * 600), offered);
            used += all(net) / RATE / 60 / (double)runs;
        }
        destroy(net);
    }
    printf("%.0f %% of the limit was used\n", used * 100);
    cr_assert_gt(used, 0.2);
}

/* Nobody hears anybody: exact stops, but for the home; the pool stays within the limit. */
Test(exchange, cut_off)
{
    for (unsigned exact = 0; exact < 2; exact++) {
        struct net *net = build(exact, DRL_POOL, NULL);
        const double everywhere[] = {RATE, RATE, RATE, RATE};
        run(net, 5000, everywhere);
        for (unsigned i = 0; i < HOSTS; i++)
            net->cut[i] = true;
        run(net, 3000, everywhere);
        run(net, 3000, everywhere);
        cr_assert_leq(all(net) / RATE, 1.03, "%f", all(net) / RATE);
        cr_assert(!exact || net->passed[1] + net->passed[2] + net->passed[3] == 0);
        destroy(net);
    }
}

Test(exchange, members_are_removed_and_added)
{
    struct net *net = build(true, DRL_MODES, NULL);
    const double everywhere[] = {RATE, RATE, RATE, RATE};
    const struct datagram_member at = {.port = 4};

    run(net, 2000, everywhere);
    cr_assert(exchange_remove(net->exchange[1], net->now, 4));
    cr_assert(!exchange_remove(net->exchange[1], net->now, 4), "it is no member");
    cr_assert(!exchange_remove(net->exchange[1], net->now, 1), "the home stays");
    cr_assert(!exchange_remove(net->exchange[1], net->now, 2) && !exchange_add(net->exchange[1], net->now, 2, &at));
    run(net, 3000, everywhere);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(reported(net, i, "hosts"), 3);
    run(net, 1000, everywhere);
    cr_assert_eq(net->passed[3], 0, "who was removed is leased nothing");
    cr_assert_gt(reported(net, 0, "refused"), 0);
    cr_assert(exchange_add(net->exchange[2], net->now, 4, &at));
    run(net, 3000, everywhere);
    cr_assert_eq(reported(net, 0, "hosts"), 4);
    cr_assert_gt(net->passed[3], 0);
    destroy(net);
}

/* Of a host's share a part is kept for those that are within their guarantees, as of a bucket that is one host's. */
Test(exchange, borrowers_leave_a_reserve)
{
    struct net *net = build(true, DRL_MODES, NULL);
    const double nothing[] = {0, 0, 0, 0};
    uint64_t unit = 1000 * SM_BUCKET_UNIT, packets = 0, left;

    run(net, 4000, nothing);
    left = atomic_load(&net->head[1].meter.level);
    cr_assert_gt(left, 4 * unit);
    while (share_borrow(&net->state[1].shares[0], 1, 1000, unit, UINT32_MAX, 1ull << 31, net->now))
        packets++;
    cr_assert_eq(packets, left / 2 / unit, "%lu of %lu", packets, left / unit);
    while (share_take(&net->state[1].shares[0], 1, 1000, unit, UINT32_MAX, net->now))
        packets++;
    cr_assert_eq(packets, left / unit);
    destroy(net);
}

/* Hosts that do not agree on a limit do not share it. */
Test(exchange, limits_must_be_the_same)
{
    struct net *net = build(true, DRL_MODES, NULL);
    const double everywhere[] = {RATE, RATE, RATE, RATE};

    exchange_destroy(net->exchange[2]);
    net->config[2].limits[0].rate *= 2;
    begin(net, 2);
    run(net, 4000, everywhere);
    cr_assert_eq(net->passed[2], 0);
    cr_assert_gt(reported(net, 0, "unknown_limit"), 0);
    destroy(net);
}

/* ---- policies ---- */

#define LIMIT "limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, distribute: pool}\n"
#define PEERS "peers:\n  host: 1\n  home: 1\n  listen: '10.0.0.1:7946'\n  key: %s\n"

static struct policy *parse(const char *format, const char *key, struct sm_errbuf *error)
{
    char text[1024];

    snprintf(text, sizeof text, format, key);
    memset(error, 0, sizeof *error);
    return policy_parse("p.yaml", text, strlen(text), error);
}

Test(exchange, policies)
{
    static const struct {
        const char *text, *error;
    } wrong[] = {
        {LIMIT, "p.yaml:2: limits[0].distribute: expected a section peers: in the file"},
        {"limits:\n  - {name: a, per: flow, rate: 1Mbit, burst: 2KiB, distribute: fps}\n" PEERS,
         "p.yaml:2: limits[0].distribute: expected exact, pool or split"},
        {"limits:\n  - {name: a, per: source, rate: 1Mbit, burst: 2KiB, distribute: pool,\n"
         "     exceed: {shape: {queue: 50ms}}}\n" PEERS,
         "p.yaml:2: limits[0].distribute: expected exact or split where a limit with keys shapes"},
        {"limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, distribute: pool,\n"
         "     exceed: {shape: {queue: 501ms}}}\n" PEERS,
         "p.yaml:3: limits[0].exceed: expected a queue of at most 500ms"},
        {"limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, distribute: grd,\n"
         "     exceed: {shape: {queue: 50ms}}}\n" PEERS,
         "p.yaml:2: limits[0].distribute: expected another mode where a limit shapes"},
        {"limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, ceil: 2Mbit, distribute: pool}\n" PEERS,
         "p.yaml:2: limits[0].distribute: expected no ceil"},
        {"limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, distribute: best}\n" PEERS,
         "p.yaml:2: limits[0].distribute: expected exact, pool, fps, grd, gtb or split"},
        {"limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, interval: 50ms}\n" PEERS,
         "p.yaml:2: limits[0].interval: expected distribute: beside it"},
        {LIMIT PEERS "  members: [{host: 1, address: '10.0.0.2:1'}]\n",
         "p.yaml:8: peers.members[0].host: expected the"},
        {LIMIT PEERS "  members: [{host: 2, address: 10.0.0.2}]\n", "p.yaml:8: peers.members[0].address: expected an"},
        {LIMIT PEERS "  members: [{host: 128, address: '[::1]:2'}]\n", "p.yaml:8: peers.members[0].host: "},
        {LIMIT "peers:\n  host: 1\n  home: 2\n  listen: '10.0.0.1:7946'\n  key: %s\n",
         "p.yaml:5: peers.home: expected this host's number, or a member's"},
        {LIMIT "peers:\n  host: 1\n  home: 1\n  listen: 'somewhere:7946'\n  key: %s\n", "p.yaml:6: peers.listen: "},
        {LIMIT "peers: {host: 1, home: 1, listen: '[fd00::1]:7946', key: /none}\n",
         "p.yaml:3: peers.key: expected a file"},
    };
    char key[] = "/tmp/peers-key-XXXXXX";
    int fd = mkstemp(key);
    struct sm_errbuf error;

    cr_assert(fd >= 0 && write(fd, "sixteen bytes and more", 22) == 22);
    struct policy *policy = parse(LIMIT PEERS "  members: [{host: 2, address: '[fd00::2]:7946'}]\n", key, &error);
    cr_assert(policy, "%s", error.text);
    cr_assert(policy->exchange->limit_count == 1 && policy->limits[0].distributed == 0);
    cr_assert(policy->exchange->members[2].port == 7946 && policy->exchange->members[2].address[0] == 0xfd);
    policy_free(policy);
    policy = parse("limits:\n  - {name: a, per: all, rate: 1Mbit, burst: 2KiB, distribute: exact,\n"
                   "     exceed: {shape: {queue: 50ms}}}\n" PEERS,
                   key, &error);
    cr_assert(policy && policy->exchange->limits[0].queue_ns == 50000000, "%s", error.text);
    policy_free(policy);
    policy = parse("limits:\n  - {name: a, per: source/24, rate: 1Mbit, burst: 2KiB, distribute: exact}\n" PEERS, key,
                   &error);
    cr_assert(policy && strcmp(policy->exchange->limits[0].keyed, "source/24/128") == 0, "%s", error.text);
    policy_free(policy);
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert(!parse(wrong[i].text, key, &error), "case %u", i);
        cr_assert_eq(strncmp(error.text, wrong[i].error, strlen(wrong[i].error)), 0, "case %u: %s", i, error.text);
    }
    fchmod(fd, 0640);
    cr_assert(!parse(LIMIT PEERS, key, &error) && strstr(error.text, "mode 0600"), "%s", error.text);
    fchmod(fd, 0600);
    cr_assert_eq(ftruncate(fd, 15), 0);
    cr_assert(!parse(LIMIT PEERS, key, &error) && strstr(error.text, "16 to 4095 bytes"), "%s", error.text);
    close(fd);
    unlink(key);
}
