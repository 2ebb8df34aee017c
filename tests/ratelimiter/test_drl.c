/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The ways of sharing a limit, with demand that does not react: what each comes to can be said beforehand, by the
 * formulas of the paper. Limiters tick together, and updates arrive at once unless they are lost.
 */

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "drl/internal.h"
#include "testing/random.h"

#define RATE 1000000.0
#define INTERVAL 50000000ull
#define PACKET 1000u

struct net {
    struct drl *limiter[512];
    unsigned count;
    double passed[512]; /* since it was set to 0 */
    uint64_t now, random;
    double lost, repeated;
};

static double chance(struct net *net)
{
    return random_unit(random_linear(&net->random));
}

static void build(struct net *net, enum drl_mode mode, unsigned count, unsigned fanout)
{
    *net = (struct net){.count = count, .random = 7};
    for (unsigned i = 0; i < count; i++) {
        const struct drl_options options = {.mode = mode,
                                            .rate = RATE,
                                            .burst = 20000,
                                            .interval_ns = INTERVAL,
                                            .limiters = count,
                                            .self = i,
                                            .fanout = fanout,
                                            .seed = i + 1};
        cr_assert((net->limiter[i] = drl_create(&options, 0)));
    }
}

static void destroy(struct net *net)
{
    for (unsigned i = 0; i < net->count; i++)
        drl_destroy(net->limiter[i]);
}

static void deliver(struct net *net, uint32_t to, const struct drl_update *update)
{
    struct drl_update reply, ignored;
    unsigned replies, none;

    if (chance(net) < net->lost)
        return;
    cr_assert(drl_receive(net->limiter[to], net->now, update, &reply, &replies));
    if (chance(net) < net->repeated)
        cr_assert(!drl_receive(net->limiter[to], net->now, update, &ignored, &none), "a repeated update was taken");
    if (replies > 0)
        deliver(net, update->from, &reply);
}

static void exchange(struct net *net)
{
    uint32_t to[DRL_MAX_FANOUT];
    struct drl_update update[DRL_MAX_FANOUT];

    for (unsigned i = 0; i < net->count; i++) {
        unsigned told = drl_interval(net->limiter[i], net->now, to, update);
        for (unsigned k = 0; k < told; k++)
            deliver(net, to[k], &update[k]);
    }
}

/* `flows[i]` flows of `each` bytes a second at limiter i, spread over the interval. */
static void intervals(struct net *net, unsigned count, const unsigned *flows, double each)
{
    for (; count > 0; count--) {
        unsigned packets = (unsigned)(each * INTERVAL / 1e9 / PACKET);
        for (unsigned p = 0; p < packets; p++)
            for (unsigned i = 0; i < net->count; i++)
                for (unsigned f = 0; f < flows[i]; f++)
                    net->passed[i] +=
                        drl_packet(net->limiter[i], net->now + INTERVAL * p / packets, f + 1, PACKET) ? PACKET : 0;
        net->now += INTERVAL;
        exchange(net);
    }
}

static void forget(struct net *net)
{
    for (unsigned i = 0; i < net->count; i++)
        net->passed[i] = 0;
}

static double near(double value, double expected)
{
    return fabs(value / expected - 1);
}

Test(drl, split_gives_each_its_part)
{
    struct net net;

    build(&net, DRL_SPLIT, 4, 3);
    intervals(&net, 20, (unsigned[]){1, 1, 1, 0}, 400000);
    forget(&net);
    intervals(&net, 100, (unsigned[]){1, 1, 1, 0}, 400000);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_lt(near(net.passed[i], RATE / 4 * 5), 0.02, "%f", net.passed[i]);
    destroy(&net);
}

Test(drl, gtb_leaves_what_the_others_pass)
{
    struct net net;

    build(&net, DRL_GTB, 2, 1);
    intervals(&net, 100, (unsigned[]){3, 1}, 100000);
    cr_assert_lt(near(net.limiter[0]->local, RATE - 100000), 0.01, "%f", net.limiter[0]->local);
    cr_assert_lt(near(net.limiter[1]->local, RATE - 300000), 0.01, "%f", net.limiter[1]->local);
    destroy(&net);
}

Test(drl, grd_drops_what_demand_exceeds_the_limit_by)
{
    struct net net;

    build(&net, DRL_GRD, 3, 2);
    intervals(&net, 100, (unsigned[]){5, 10, 5}, 100000);
    forget(&net);
    intervals(&net, 200, (unsigned[]){5, 10, 5}, 100000);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_lt(fabs(net.limiter[i]->drop - 0.5), 0.01, "%f", net.limiter[i]->drop);
    cr_assert_lt(near(net.passed[0] + net.passed[1] + net.passed[2], RATE * 10), 0.02);
    cr_assert_lt(near(net.passed[1], net.passed[0] + net.passed[2]), 0.05);
    destroy(&net);
}

Test(drl, fps_shares_by_flows)
{
    struct net net;

    build(&net, DRL_FPS, 2, 1);
    intervals(&net, 200, (unsigned[]){3, 7}, 200000);
    forget(&net);
    intervals(&net, 200, (unsigned[]){3, 7}, 200000);
    /* As the sources do not slow down, a flow here is as fast as it arrives: the shares follow what is allowed. */
    cr_assert_lt(near(net.passed[0] + net.passed[1], RATE * 10), 0.02, "%f", net.passed[0] + net.passed[1]);
    destroy(&net);
}

/* Limiter 0 wants less than its flow's share: it gets that, and the other the rest. */
Test(drl, fps_gives_what_is_wanted)
{
    struct net net;

    build(&net, DRL_FPS, 2, 1);
    for (unsigned i = 0; i < 800; i++) {
        if (i == 400)
            forget(&net);
        net.passed[0] += drl_packet(net.limiter[0], net.now, 1, PACKET) ? PACKET : 0;
        intervals(&net, 1, (unsigned[]){0, 20}, 100000);
    }
    cr_assert_lt(near(net.passed[0], 20000 * 20), 0.02, "%f", net.passed[0]);
    cr_assert_lt(near(net.passed[1], 980000 * 20), 0.03, "%f", net.passed[1]);
    destroy(&net);
}

/* Two limiters that both have near the whole limit: their weights stay what their flows are worth. */
Test(drl, fps_weights_do_not_run_away)
{
    struct net net;
    unsigned flows[400];

    build(&net, DRL_FPS, 400, 3);
    for (unsigned i = 0; i < 400; i++)
        flows[i] = 1;
    for (unsigned round = 0; round < 40; round++) {
        intervals(&net, 5, flows, round % 3 == 0 ? 40000 : 0);
        for (unsigned i = 0; i < 400; i++)
            cr_assert_leq(net.limiter[i]->weight, 1.001, "%f", net.limiter[i]->weight);
    }
    destroy(&net);
}

static void gossip_finds_the_sum(unsigned rounds, double lost, double repeated, double tolerance)
{
    struct net net;
    unsigned flows[100];
    double worst = 0, mean = 0;

    build(&net, DRL_GRD, 100, 3);
    net.lost = lost;
    net.repeated = repeated;
    for (unsigned i = 0; i < 100; i++)
        flows[i] = i % 10;
    intervals(&net, rounds, flows, 20000);
    for (unsigned i = 0; i < 100; i++) {
        double sum = net.limiter[i]->remote + net.limiter[i]->arrived.rate;
        mean += sum / 100;
        worst = fmax(worst, near(sum, 450 * 20000));
    }
    cr_assert_lt(near(mean, 450 * 20000), tolerance, "the mean is %f", mean);
    cr_assert_lt(worst, 10 * tolerance, "the worst is off by %f", worst);
    destroy(&net);
}

Test(drl, gossip_finds_the_sum_of_all)
{
    gossip_finds_the_sum(200, 0, 0, 0.01);
    gossip_finds_the_sum(200, 0, 0.3, 0.01);
}

Test(drl, gossip_stands_losses)
{
    gossip_finds_the_sum(2000, 0.05, 0.1, 0.1);
}

Test(drl, pool_shares_by_flows)
{
    struct net net;

    build(&net, DRL_POOL, 2, 0);
    net.lost = 0.05;
    net.repeated = 0.1;
    intervals(&net, 60, (unsigned[]){3, 7}, 200000);
    forget(&net);
    intervals(&net, 200, (unsigned[]){3, 7}, 200000);
    cr_assert_lt(near(net.passed[0] + net.passed[1], RATE * 10), 0.01, "%f", net.passed[0] + net.passed[1]);
    cr_assert_lt(near(net.passed[0], RATE * 3), 0.05, "%f", net.passed[0]);
    destroy(&net);
}

/* Max-min: who wants less than a flow's share gets it all, and the others get the rest. */
Test(drl, pool_gives_what_is_wanted)
{
    struct net net;

    build(&net, DRL_POOL, 3, 0);
    intervals(&net, 60, (unsigned[]){10, 1, 0}, 100000);
    for (unsigned i = 0; i < 400; i++) {
        if (i == 200)
            forget(&net);
        net.passed[2] += drl_packet(net.limiter[2], net.now, 1, PACKET) ? PACKET : 0;
        intervals(&net, 1, (unsigned[]){10, 10, 0}, 100000);
    }
    cr_assert_lt(near(net.passed[2], 20000 * 10), 0.02, "%f", net.passed[2]);
    cr_assert_lt(near(net.passed[0], 490000 * 10), 0.03, "%f", net.passed[0]);
    cr_assert_lt(near(net.passed[1], 490000 * 10), 0.03, "%f", net.passed[1]);
    destroy(&net);
}

/* Nobody hears anybody any more: all together stay within the limit, but for what was under way. */
Test(drl, pool_is_safe_when_cut_off)
{
    struct net net;
    double sum = 0;

    build(&net, DRL_POOL, 10, 0);
    intervals(&net, 60, (unsigned[]){1, 1, 1, 1, 0, 0, 0, 0, 0, 0}, 300000);
    net.lost = 1;
    forget(&net);
    intervals(&net, 200, (unsigned[]){9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, 100000);
    for (unsigned i = 0; i < 10; i++)
        sum += net.passed[i];
    /* The depth of the buckets of those that were idle, and the home's rate until it knows that it is alone. */
    cr_assert_lt(sum, RATE * 10 + 10 * 20000 + RATE * 2, "%f", sum);
    forget(&net);
    intervals(&net, 200, (unsigned[]){9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, 100000);
    sum = 0;
    for (unsigned i = 0; i < 10; i++)
        sum += net.passed[i];
    cr_assert_leq(sum, RATE * 10 * 1.001, "%f", sum);
    cr_assert_gt(sum, RATE * 10 * 0.9, "%f", sum);
    destroy(&net);
}

Test(drl, refuses_what_cannot_be)
{
    struct drl_options options = {
        .mode = DRL_GRD, .rate = RATE, .burst = 1, .interval_ns = 1, .limiters = 2, .fanout = 1, .seed = 1};
    struct drl *drl = drl_create(&options, 0);

    cr_assert(drl);
    struct drl_update reply;
    unsigned replies;
    const struct {
        struct drl_update update;
        bool taken;
    } cases[] = {
        {{.from = 1, .sequence = 5, .value = {1, 1}}, true},
        {{.from = 1, .sequence = 4, .value = {1, 1}}, false}, /* old */
        {{.from = 1, .sequence = 5, .value = {1, 1}}, false}, /* repeated */
        {{.from = 0, .sequence = 6, .value = {1, 1}}, false}, /* from itself */
        {{.from = 2, .sequence = 6, .value = {1, 1}}, false}, /* from nobody */
        {{.from = 1, .sequence = 6, .value = {NAN, 1}}, false},
        {{.from = 1, .sequence = 6, .value = {1, 0}}, false},
        {{.from = 1, .sequence = 6, .kind = DRL_GRANT, .value = {1, 1}}, false}, /* another mode's */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_eq(drl_receive(drl, 0, &cases[i].update, &reply, &replies), cases[i].taken, "case %u", i);
    drl_destroy(drl);
    drl_destroy(NULL);
    options.limiters = 0;
    cr_assert(!drl_create(&options, 0));
    options.limiters = DRL_MAX_LIMITERS + 1;
    cr_assert(!drl_create(&options, 0));
}
