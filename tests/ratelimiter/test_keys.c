/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Limits with keys on several hosts: each key is one limit, whatever is lost, repeated, cut off or begins anew, with
 * one bucket for each key as judge; and what comes of more keys than there is room for. SM_SEED gives one run again.
 */

#include "exchange_net.h"

#define KEYS 6u
#define PACKET 1000u

static const struct sm_bucket_rate whole = {.rate = RATE, .burst = 60000};

struct bench {
    struct net *net;
    bool exact;
    struct sm_bucket judge[KEYS]; /* of exact ones */
    double passed[KEYS][HOSTS];   /* bit/s */
    uint64_t seed;
};

static uint64_t key_of(unsigned number)
{
    return (number + 1) * 0x9e3779b97f4a7c15ull & ~1ull;
}

static bool offer(struct net *net, unsigned host, unsigned key, bool exact)
{
    const struct keys_ask ask = {.key = key_of(key),
                                 .who = {.a = {10, 0, (uint8_t)(key >> 8), (uint8_t)key}, .family = 4},
                                 .shares = !exact,
                                 .rate = RATE,
                                 .depth = whole.burst * SM_BUCKET_UNIT,
                                 .cost = PACKET,
                                 .amount = PACKET * SM_BUCKET_UNIT};
    struct key_place *place;
    struct meter *from;
    struct meter_slot slot;

    bool has = keys_take(&net->state[host].keys, &ask, net->now, &place, &from, &slot);
    keys_count(place, &ask, has);
    return has;
}

static struct bench begin_bench(bool exact, enum drl_mode mode)
{
    struct bench bench = {.net = build(exact, mode, "source/32/128"), .exact = exact};

    for (unsigned key = 0; key < KEYS; key++)
        sm_bucket_init(&bench.judge[key], &whole, bench.net->now);
    return bench;
}

/* `offered[key][host]` bit/s. */
static void run(struct bench *bench, unsigned ms, double offered[KEYS][HOSTS])
{
    struct net *net = bench->net;

    memset(bench->passed, 0, sizeof bench->passed);
    for (uint64_t end = net->now + ms * 1000000ull; net->now < end; net->now += TICK) {
        for (unsigned i = 0; i < KEYS * HOSTS; i++) {
            unsigned key = i / HOSTS, host = i % HOSTS;
            double packets = offered[key][host] / PACKET / 8 * (double)TICK / 1e9;
            for (; packets > 0; packets--) {
                if (chance(net) >= packets || !offer(net, host, key, bench->exact))
                    continue;
                bench->passed[key][host] += PACKET * 8000.0 / ms;
                cr_assert(!bench->exact || sm_bucket_has(&bench->judge[key], &whole, net->now, PACKET),
                          "seed %lu: key %u above its limit at %lu ms", bench->seed, key, net->now / 1000000);
                if (bench->exact)
                    sm_bucket_take(&bench->judge[key], &whole, net->now, PACKET);
            }
        }
        for (unsigned i = 0; i < HOSTS; i++)
            exchange_tick(net->exchange[i], net->now);
        deliver(net);
    }
}

static double all(const struct bench *bench, unsigned key)
{
    double sum = 0;

    for (unsigned i = 0; i < HOSTS; i++)
        sum += bench->passed[key][i];
    return sum / RATE;
}

static void each_key_is_one_limit(bool exact)
{
    struct bench bench = begin_bench(exact, DRL_POOL);
    double offered[KEYS][HOSTS] = {{RATE * 0.8, RATE * 0.8}, {0, 0, 0, RATE * 1.5}, {RATE / 8, 0, RATE / 8}};

    bench.net->lost = 0.02;
    bench.net->repeated = 0.1;
    run(&bench, 6000, offered);
    run(&bench, 3000, offered);
    cr_assert_float_eq(all(&bench, 0), 1, 0.1, "two hosts: %f", all(&bench, 0));
    cr_assert_float_eq(all(&bench, 1), 1, 0.1, "one host: %f", all(&bench, 1));
    cr_assert_float_eq(all(&bench, 2), 0.25, 0.02, "what wants less has it: %f", all(&bench, 2));
    cr_assert_eq(reported(bench.net, 0, "keys"), 2);
    /* One of them moves, and the others end. */
    double moved[KEYS][HOSTS] = {{0, 0, RATE * 1.5, 0}};
    run(&bench, 1500, moved);
    run(&bench, 2000, moved);
    cr_assert_float_eq(all(&bench, 0), 1, 0.1, "moved: %f", all(&bench, 0));
    cr_assert_eq(reported(bench.net, 0, "keys"), 0, "who has no packets has no place");
    destroy(bench.net);
}

Test(keys, exact_each_key_is_one_limit)
{
    each_key_is_one_limit(true);
}

Test(keys, pool_each_key_is_one_limit)
{
    each_key_is_one_limit(false);
}

Test(keys, split_gives_each_host_its_part_of_each_key)
{
    struct bench bench = begin_bench(false, DRL_SPLIT);
    double offered[KEYS][HOSTS] = {{RATE, RATE, RATE, RATE}, {0, RATE}};

    run(&bench, 2000, offered);
    run(&bench, 2000, offered);
    cr_assert_float_eq(all(&bench, 0), 1, 0.05, "%f", all(&bench, 0));
    cr_assert_float_eq(all(&bench, 1), 0.25, 0.02, "%f", all(&bench, 1));
    destroy(bench.net);
}

/* A key's first packets: by its share at once, or by the lease soon. */
Test(keys, the_first_packets_of_a_key)
{
    for (unsigned exact = 0; exact < 2; exact++) {
        struct bench bench = begin_bench(exact, DRL_POOL);
        double nothing[KEYS][HOSTS] = {{0}}, offered[KEYS][HOSTS] = {{0}, {0, RATE / 2}};
        run(&bench, 5000, nothing);
        cr_assert_eq(offer(bench.net, 1, 1, exact), !exact);
        run(&bench, 60, nothing);
        cr_assert(offer(bench.net, 1, 1, exact), "its lease has come: exact %u", exact);
        run(&bench, 1000, offered);
        run(&bench, 1000, offered);
        cr_assert_float_eq(all(&bench, 1), 0.5, 0.05);
        destroy(bench.net);
    }
}

/* Nobody hears anybody: nothing passes by leases that have ended, or each host's share. */
Test(keys, cut_off)
{
    for (unsigned exact = 0; exact < 2; exact++) {
        struct bench bench = begin_bench(exact, DRL_POOL);
        double everywhere[KEYS][HOSTS] = {{RATE, RATE, RATE, RATE}};
        run(&bench, 5000, everywhere);
        for (unsigned i = 0; i < HOSTS; i++)
            bench.net->cut[i] = true;
        run(&bench, 4000, everywhere);
        run(&bench, 2000, everywhere);
        for (unsigned i = 1; i < HOSTS; i++)
            cr_assert_float_eq(bench.passed[0][i] / RATE, exact ? 0 : 0.25, 0.02, "%f", bench.passed[0][i] / RATE);
        destroy(bench.net);
    }
}

/* A host ends, and perhaps all that it had in memory. */
static void restart(struct net *net, unsigned host)
{
    exchange_destroy(net->exchange[host]);
    if (chance(net) < 0.3) {
        memset(&net->keys_head[host], 0, sizeof net->keys_head[host]);
        memset(net->keys_page[host], 0, sizeof net->keys_page[host]);
    }
    begin(net, host);
}

Test(keys, exact_is_never_exceeded)
{
    const char *given = getenv("SM_SEED");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1, runs = given ? 1 : getenv("SM_FULL") ? 200 : 8;
    double used = 0;

    printf("seeds %lu to %lu\n", first, first + runs - 1);
    for (uint64_t seed = first; seed < first + runs; seed++) {
        struct bench bench = begin_bench(true, DRL_MODES);
        struct net *net = bench.net;
        bench.seed = seed;
        net->random = seed * 2654435761u + 1;
        for (unsigned round = 0; round < 60; round++) {
            double offered[KEYS][HOSTS];
            net->lost = chance(net) < 0.5 ? 0 : 0.3 * chance(net);
            net->repeated = 0.3 * chance(net);
            for (unsigned i = 0; i < KEYS * HOSTS; i++)
                offered[i / HOSTS][i % HOSTS] = chance(net) < 0.6 ? 0 : RATE * chance(net);
            for (unsigned i = 0; i < HOSTS; i++) {
                net->cut[i] = chance(net) < 0.1;
                if (chance(net) < 0.05)
                    restart(net, i);
            }
            run(&bench, 20 + (unsigned)(chance(net) * 600), offered);
            used += all(&bench, 0) / 60 / (double)runs;
        }
        destroy(net);
    }
    printf("%.0f %% of the first key's limit was used\n", used * 100);
    cr_assert_gt(used, 0.1);
}

/* How many keys a host tells of; text[] has them. */
static unsigned told(const struct net *net, unsigned host, char text[static 1 << 19])
{
    unsigned count = 0;

    exchange_report_keys(net->exchange[host], text, 1 << 19);
    cr_assert(strstr(text, "]}\n"), "it is whole");
    for (const char *at = text; (at = strstr(at, "\"key\"")); at++)
        count++;
    return count;
}

/* Far more keys than places, at one host: one sends much, and has its place; the others are counted. What goes out in a
 * window is bounded. */
static void more_than_there_is_room_for(bool exact)
{
    struct bench bench = begin_bench(exact, DRL_POOL);
    struct net *net = bench.net;
    const unsigned many = 4 * KEYS_PLACES, loud = many + 1;
    double nothing[KEYS][HOSTS] = {{0}};
    static char text[1 << 19];
    unsigned passed = 0, sent = 0, others = 0;
    long most = 0;

    run(&bench, 4000, nothing);
    for (unsigned ms = 0; ms < 4000; ms += 2, net->now += TICK) {
        static long at_window;
        if (ms % 100 == 0) {
            long bytes = reported(net, 1, "sent_bytes");
            most = ms > 0 && bytes - at_window > most ? bytes - at_window : most;
            at_window = bytes;
        }
        for (unsigned i = 0; i < 10; i++)
            others += offer(net, 1, (unsigned)(chance(net) * many), exact);
        bool has = ms >= 1000 && offer(net, 1, loud, exact); /* a quarter of its limit, when all places are taken */
        passed += ms >= 2000 && has;
        sent += ms >= 2000;
        for (unsigned i = 0; i < HOSTS; i++)
            exchange_tick(net->exchange[i], net->now);
        deliver(net);
    }
    printf("%u of %u of the loud one, %u of the others passed; at most %ld bytes in 100 ms\n", passed, sent, others,
           most);
    cr_assert_gt(passed, sent * 9 / 10, "%u of %u", passed, sent);
    cr_assert_gt(reported(net, 1, "keys_turned_away"), 0);
    cr_assert_leq(reported(net, 1, "keys"), KEYS_PLACES);
    cr_assert_eq(told(net, 1, text), reported(net, 1, "keys"), "all are told");
    cr_assert_leq(most, 128 * 74 + 51 * 40 + 200, "%ld bytes in 100 ms", most);
    destroy(net);
}

Test(keys, exact_more_than_there_is_room_for)
{
    more_than_there_is_room_for(true);
}

Test(keys, pool_more_than_there_is_room_for)
{
    more_than_there_is_room_for(false);
}

/* A replica that died with a place half taken. */
Test(keys, a_place_half_taken_is_freed)
{
    struct bench bench = begin_bench(true, DRL_MODES);
    double nothing[KEYS][HOSTS] = {{0}};
    struct key_place *place = keys_set(&bench.net->state[0].keys, 5)->place;

    for (unsigned i = 0; i < KEYS_WAYS; i++)
        atomic_store(&place[i].key, (5ull << 32) + i * 2 + 1);
    run(&bench, 300, nothing);
    for (unsigned i = 0; i < KEYS_WAYS; i++)
        cr_assert_eq(atomic_load(&place[i].key), 0);
    destroy(bench.net);
}

static struct key_place *place_of(struct net *net, unsigned host, uint64_t key)
{
    struct key_place *place = keys_set(&net->state[host].keys, keys_set_of(key))->place;

    for (unsigned i = 0; i < KEYS_WAYS; i++, place++)
        if (atomic_load(&place->key) == key)
            return place;
    cr_assert_fail("no place");
    return NULL;
}

/* Host 1 has the first key's lease and is cut off; whoever comes then gets nothing that it may still be using. */
static void lease_of_who_is_cut_off(bool home_begins_anew)
{
    struct bench bench = begin_bench(true, DRL_MODES);
    double one[KEYS][HOSTS] = {{0, RATE * 1.5}}, both[KEYS][HOSTS] = {{0, RATE * 1.5, RATE * 1.5}};

    run(&bench, 4000, one);
    run(&bench, 2000, one);
    cr_assert_gt(all(&bench, 0), 0.5, "%f", all(&bench, 0));
    bench.net->cut[1] = true;
    if (home_begins_anew) {
        exchange_destroy(bench.net->exchange[0]);
        begin(bench.net, 0);
    } else {
        run(&bench, 2500, one); /* of the lease: nobody asks the home meanwhile */
        cr_assert_gt(all(&bench, 0), 0.5, "the lease goes on: %f", all(&bench, 0));
    }
    run(&bench, 3500, both); /* the judge looks */
    run(&bench, 1500, both);
    cr_assert_gt(bench.passed[0][2] / RATE, 0.5, "when it has ended another has it: %f", bench.passed[0][2] / RATE);
    destroy(bench.net);
}

Test(keys, the_home_keeps_a_key_as_long_as_a_lease)
{
    lease_of_who_is_cut_off(false);
}

Test(keys, a_home_that_begins_anew_is_silent_at_first)
{
    lease_of_who_is_cut_off(true);
}

Test(keys, a_freed_place_has_no_lease)
{
    struct bench bench = begin_bench(true, DRL_MODES);
    double one[KEYS][HOSTS] = {{0, RATE / 4}};
    unsigned next = 1;

    run(&bench, 4000, one);
    run(&bench, 2000, one);
    struct key_place *place = place_of(bench.net, 1, key_of(0));
    cr_assert_gt(atomic_load(&place->lease.level), PACKET * SM_BUCKET_UNIT, "it has some to leave behind");
    keys_free(place);
    while (keys_set_of(key_of(next)) != keys_set_of(key_of(0)))
        next++;
    cr_assert(!offer(bench.net, 1, next, true), "it passes by another key's lease");
    cr_assert_eq(place_of(bench.net, 1, key_of(next)), place);
    destroy(bench.net);
}

Test(keys, who_has_a_place_is_told)
{
    struct bench bench = begin_bench(true, DRL_MODES);
    double one[KEYS][HOSTS] = {{0}, {0, RATE / 4}}, nothing[KEYS][HOSTS] = {{0}};
    static char text[1 << 19];
    char expected[128];

    run(&bench, 4000, one);
    run(&bench, 2000, one);
    struct key_place *place = place_of(bench.net, 1, key_of(1));
    uint64_t passed = atomic_load(&place->passed), rate;
    cr_assert_gt(atomic_load(&place->exceeded), 0, "before there was a lease");
    cr_assert_eq(told(bench.net, 1, text), 1, "%s", text);
    cr_assert(strstr(text, "\"class\": \"source/32/128\", \"key\": \"0a000001000000"), "%s", text);
    snprintf(expected, sizeof expected, "\"limit\": \"all\", \"passed\": %lu, \"unit\": \"bytes\", \"exceeded\": %lu,",
             passed, atomic_load(&place->exceeded));
    cr_assert(strstr(text, expected), "%s of %s", expected, text);
    rate = strtoull(strstr(text, "\"rate\": ") + 8, NULL, 10);
    cr_assert_float_eq((double)rate, RATE / 32.0, RATE / 320.0, "%lu bytes a second", rate);
    cr_assert_eq(told(bench.net, 2, text), 0);
    /* Whoever comes into the place begins with nothing, and has its own name. */
    unsigned next = 2;
    while (keys_set_of(key_of(next)) != keys_set_of(key_of(1)))
        next++;
    keys_free(place);
    cr_assert(!offer(bench.net, 1, next, true));
    run(&bench, 10, nothing);
    cr_assert_eq(told(bench.net, 1, text), 1);
    snprintf(expected, sizeof expected, "\"key\": \"0a00%04x0", next);
    cr_assert(strstr(text, expected), "%s of %s", expected, text);
    cr_assert(strstr(text, "\"passed\": 0, \"unit\": \"bytes\", \"exceeded\": 1, \"rate\": 0"), "%s", text);
    /* Who took long over it wrote its own behind that. */
    for (unsigned i = 0; i < KEYS_WORDS; i++) {
        uint64_t word = atomic_fetch_xor(&place->who[i], 1);
        cr_assert_eq(told(bench.net, 1, text), 0, "word %u is not the key's", i);
        atomic_store(&place->who[i], word);
    }
    cr_assert_eq(told(bench.net, 1, text), 1);
    struct sm_key who;
    cr_assert(keys_who(place, key_of(next), &who));
    cr_assert(!keys_who(place, key_of(next) ^ 2, &who), "all of another's");
    destroy(bench.net);
}

/* The first part that a home grants is nothing: until there is more a key goes by its share. */
Test(keys, a_lease_of_nothing_is_none)
{
    struct bench bench = begin_bench(false, DRL_POOL);
    double nothing[KEYS][HOSTS] = {{0}};

    run(&bench, 100, nothing);
    cr_assert(offer(bench.net, 1, 0, false));
    struct key_place *place = place_of(bench.net, 1, key_of(0));
    meter_extend(&place->lease, bench.net->now, bench.net->now + 1000000000);
    cr_assert_eq(atomic_load(&place->lease.rate), 0);
    cr_assert(offer(bench.net, 1, 0, false), "it has its share");
    meter_set(&place->lease, RATE, 0);
    cr_assert(!offer(bench.net, 1, 0, false), "it goes by its lease");
    destroy(bench.net);
}

/* A clock that has jumped since the bucket was filled: what would come in meanwhile is not there to wait for. */
Test(keys, nobody_waits_across_a_jump)
{
    const uint64_t start = 1000000000, wait = 1000000;
    struct meter meter = {0};
    struct meter_slot slot;

    meter_resume(&meter, start);
    meter_fill(&meter, start, true);
    meter_set(&meter, 1, 10 * wait);
    meter_extend(&meter, start, METER_ALWAYS);
    uint64_t jumped = start + METER_GAP_NS + 1;
    cr_assert(!meter_queue(&meter, jumped, wait, 2 * wait, &slot));
    cr_assert_eq(atomic_load(&meter.queued_until), 0);
    cr_assert(meter_queue(&meter, jumped - 1, wait, 2 * wait, &slot));
    cr_assert_eq(slot.departs, jumped - 1 + wait);
}
