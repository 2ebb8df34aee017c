/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Kill the switch at every step (promise P6): for every place that it comes by it dies there, in each of the schedules
 * below in which it does, at its first visit and at one at random; another one takes over what it has left, and the run
 * goes on to its end. Then
 *
 *   - what left is what leaves when nobody dies, in the same order, less packets that the switch had in its hands: from
 *     the first that had not left to the last that it may have read. So nothing is sent twice;
 *   - these are counted as lost with it, and no others are missing;
 *   - flows, timers, memory and shared objects are those of a run in which the packets whose processing was lost never
 *     came, and the arena's checker finds nothing;
 *   - each shard has had one owner at a time.
 *
 * Where it comes by is counted first, by a run of each schedule in which nobody is to die at a place. A place of the
 * switch that is met in none fails the test, and so does one that it meets and is not known to be its: whose.c.
 *
 * SM_SEED fixes the schedules, SM_PLACE runs one place only, SM_FULL=1 takes more visits.
 */

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "everything.h"
#include "saver.h"
#include "testing/random.h"
#include "testing/test.h"
#include "whose.h"

#define STRETCH 60u /* packets from one move to the next */
#define ROUNDS 40u  /* at most, until the switch has been everywhere */
#define TIMES 1u    /* that it dies at each place, by default */
#define MORE_TIMES 4u
#define TURNS 4u /* that each of the runs is taken, at most */

enum schedule { MOVES, DEATHS, TAKING_OVER, UPGRADE, CHECKPOINTS, SCHEDULES };

static const char *const schedule_names[SCHEDULES] = {"moves", "deaths", "taking over", "upgrade", "checkpoints"};

struct trial {
    enum schedule schedule;
    uint32_t place;
    uint64_t visit, seed;
};

static const struct sm_trace *trace;
static struct sm_test *reference; /* one instance, nothing happens to it */
static unsigned failures, runs;
static uint64_t switch_deaths, replica_deaths, lost;
static struct sm_errbuf error;

__attribute__((format(printf, 1, 2))) static const char *wrong(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error.text, sizeof error.text, format, arguments);
    va_end(arguments);
    return error.text;
}

/* ---- schedules ---- */

/* Forward, then begun and taken back, and forward again. */
static void upgrade(struct sm_test *test, unsigned turn)
{
    const struct sm_test_options first = everything_options(trace);
    const struct sm_test_upgrade versions[] = {
        {.size = sizeof *versions, .on_packet = first.on_packet, .setup = first.setup},
        {.size = sizeof *versions, .on_packet = first.on_packet, .setup = everything_setup_two},
    };

    while (sm_test_replicas(test) < 2 && sm_test_start_replica(test) > 0)
        ;
    if (turn % 4 == 1)
        sm_test_upgrade(test, &versions[turn % 8 == 1 || turn % 8 == 5 ? !(test->version % 2) : 0], NULL);
    else if (turn % 8 == 2)
        sm_test_upgrade_back(test);
    else
        sm_test_upgrade_forward(test);
}

/* Whoever is there moves all it has to another one, every other time by copying. `few`: with places of replicas that
 * are gone. */
static void move(struct sm_test *test, unsigned turn, bool few)
{
    while (sm_test_replicas(test) < (few && turn % 4 != 1 ? 2 : 3) && sm_test_start_replica(test) > 0)
        ;
    const unsigned count = sm_test_replicas(test);
    sm_test_copying(test, turn % 4 >= 2, NULL);
    if (few ? turn % 4 == 1 : turn % 5 == 4)
        sm_test_scale(test, 2);
    else
        sm_test_merge(test, sm_test_replica(test, turn % count), sm_test_replica(test, (turn + 1) % count));
}

/* A place of a function, any. */
static uint32_t place_in(struct sm_test *test, const char *function)
{
    uint64_t found = 0, before;

    for (uint32_t place = 0; place < sm_test_places(); place++)
        found += place_is_of(place, function);
    before = test_below(test, found);
    for (uint32_t place = 0;; place++)
        if (place_is_of(place, function) && before-- == 0)
            return place;
}

/* Where a replica leaves the most to be put right. */
static uint32_t thorny_place(struct sm_test *test)
{
    static const char *const functions[] = {"journal_section_end", "carry_out_frees", "run_build", "journal_committed",
                                            "state_copy_install"};

    return place_in(test, functions[test_below(test, sizeof functions / sizeof *functions)]);
}

/* In the middle of bursts. The first one leaves notes, which the next ones meet; these may die while they carry them
 * out. */
static void kill_replicas(struct sm_test *test)
{
    test_kill_at_random(test);
    for (unsigned i = 0; i < 4; i++) {
        const unsigned slot = (unsigned)test_below(test, SM_TEST_REPLICAS);
        const uint32_t place = i < 2 ? place_in(test, "carry_out") : thorny_place(test);
        if (test->members[slot].replica && test->sw->slots[slot].state == SLOT_READY)
            test_kill_in_burst(test, slot, place, i < 2 ? 1 : 1 + test_below(test, 4));
    }
}

/* Between two owners, with some of its flows copied. */
static bool copy_is_begun(const struct sm_test *test, void *arg)
{
    (void)arg;
    for (unsigned copy = 0; copy < STATE_COPIES; copy++)
        if (state_shard_flows(test->arena->state, state_copy(copy)) > 0)
            return true;
    return !sm_test_moving(test);
}

/* What happens when a stretch of packets has come, and in the middle of that. */
static void act(struct sm_test *test, enum schedule schedule, unsigned turn)
{
    if (schedule == UPGRADE)
        upgrade(test, turn);
    else
        move(test, turn, schedule == CHECKPOINTS);
    if (schedule == TAKING_OVER && turn % 2 == 0) {
        sm_test_until(test, copy_is_begun, NULL);
        sm_test_kill(test, SM_TEST_SWITCH);
    }
    for (unsigned i = 1; i < 3 && schedule == DEATHS; i++) {
        sm_test_until_packet(test, (uint64_t)turn * STRETCH + i * STRETCH / 4);
        kill_replicas(test);
    }
}

static bool have_entered(const struct sm_test *test, void *packets)
{
    return test->sw->entered >= *(uint64_t *)packets;
}

static void play(struct sm_test *test, enum schedule schedule)
{
    int result = 0;

    for (unsigned turn = 1; result == 0; turn++) {
        uint64_t packets = (uint64_t)turn * STRETCH;
        result = (schedule == CHECKPOINTS ? saver_until : sm_test_until)(test, have_entered, &packets);
        if (result == 0)
            act(test, schedule, turn);
    }
}

/* ---- what came out ---- */

static bool same_packet(const struct sm_trace *a, size_t i, const struct sm_trace *b, size_t j)
{
    const struct sm_trace_packet x = sm_trace_at(a, i), y = sm_trace_at(b, j);

    return x.caplen == y.caplen && x.time.ns == y.time.ns && memcmp(x.data, y.data, x.caplen) == 0;
}

/* What left is what leaves when nobody dies, less some. `sent`: by number. */
static const char *judge_output(const struct sm_test *test, bool sent[EVERYTHING_PACKETS])
{
    const struct sm_trace *got = sm_test_output(test), *whole = sm_test_output(reference);
    size_t j = 0;

    for (size_t i = 0; i < sm_trace_count(got); i++, j++) {
        uint32_t number;
        while (j < sm_trace_count(whole) && !same_packet(got, i, whole, j))
            j++;
        if (j == sm_trace_count(whole))
            return wrong("packet %zu that was sent is another one, was sent before, or out of order", i);
        memcpy(&number, sm_trace_at(got, i).data + 28, sizeof number);
        sent[number] = true;
    }
    return NULL;
}

static bool was_in_hands(const struct sm_test *test, uint32_t number)
{
    for (unsigned i = 0; i < test->hands_count; i++)
        if (number >= test->hands[i].first && number < test->hands[i].end)
            return true;
    return false;
}

static const char *judge_lost(struct sm_test *test, const bool *sent, const bool *seen)
{
    const struct sm_test_result *result = sm_test_result(test);
    uint64_t missing = 0, room = 0;

    for (uint32_t number = 0; number < EVERYTHING_PACKETS; number++) {
        if (sent[number] && !seen[number])
            return wrong("packet %u was sent, and the state knows nothing of it", number);
        if (sent[number] || (number % 11 == 0 && seen[number] && !was_in_hands(test, number)))
            continue;
        if (!was_in_hands(test, number))
            return wrong("packet %u was lost, which the switch did not have in its hands", number);
        missing += number % 11 != 0;
    }
    for (unsigned i = 0; i < test->hands_count; i++)
        /* Each, and what is sent because of it. */
        room += 2 * (test->hands[i].end - test->hands[i].first) + test->hands[i].dropped;
    if (result->in != EVERYTHING_PACKETS || result->out != sm_trace_count(sm_test_output(test)))
        return wrong("%" PRIu64 " packets counted in, %" PRIu64 " out", result->in, result->out);
    if (result->lost < missing || result->lost > room)
        return wrong("%" PRIu64 " packets counted as lost, %" PRIu64 " are missing, of %" PRIu64 " at most",
                     result->lost, missing, room);
    return NULL;
}

/* ---- what is left: as if what was not seen had never come ---- */

/* Of all flows, in any order. */
static bool add_flow(const struct sm_test_flow *flow, void *sum)
{
    const struct sm_test_options options = everything_options(trace);
    uint64_t mixed = options.digest(flow) * 0x9e3779b97f4a7c15ull;

    for (size_t i = 0; i < sizeof *flow->key; i++)
        mixed = (mixed ^ ((const uint8_t *)flow->key)[i]) * 1099511628211ull;
    *(uint64_t *)sum += mixed ^ mixed >> 29;
    return true;
}

static uint64_t sum_of_flows(const struct sm_test *test)
{
    uint64_t sum = 0;

    sm_test_flows(test, add_flow, &sum);
    return sum;
}

/* Which one it is that differs. */
static bool is_as_there(const struct sm_test_flow *flow, void *other)
{
    struct sm_test_flow twin = *flow;
    const struct sm_test_options options = everything_options(trace);

    twin.record = sm_test_flow(other, flow->cls, flow->key);
    if (twin.record && options.digest(flow) == options.digest(&twin))
        return true;
    wrong("a flow of class %u, ports %u and %u, %s", flow->cls.id, flow->key->a_port, flow->key->b_port,
          twin.record ? "has another record" : "should not be there");
    return false;
}

/* The packets up to the last time that the service heard of. */
static struct sm_trace *heard_of(const struct sm_test *test)
{
    struct sm_trace *heard = sm_trace_create();

    for (size_t i = 0; heard && i < sm_trace_count(trace); i++) {
        const struct sm_trace_packet packet = sm_trace_at(trace, i);
        if (packet.time.ns <= test->sw->clock)
            sm_trace_add(heard, packet.time, packet.data, packet.caplen);
    }
    return heard;
}

static const char *compare_flows(struct sm_test *test, struct sm_test *oracle)
{
    const uint64_t live = sm_test_result(test)->flows_live, there = sm_test_result(oracle)->flows_live;

    if (live == there && sum_of_flows(test) == sum_of_flows(oracle))
        return NULL;
    wrong("%" PRIu64 " flows are left, %" PRIu64 " without what was lost", live, there);
    sm_test_flows(test, is_as_there, oracle);
    return error.text;
}

static const char *judge_state(struct sm_test *test, const bool *seen)
{
    struct sm_trace *heard = heard_of(test);
    struct sm_test_options options = everything_options(heard);
    bool ignored[EVERYTHING_PACKETS];
    const char *found = NULL;
    struct sm_test *oracle;

    for (unsigned i = 0; i < EVERYTHING_PACKETS; i++)
        ignored[i] = !seen[i];
    everything_ignored = ignored;
    if (sm_test_create(&oracle, &options, &error) != 0)
        found = error.text;
    else if (sm_test_finish(oracle) != 0)
        found = sm_test_result(oracle)->broken;
    else
        found = compare_flows(test, oracle);
    everything_ignored = NULL;
    sm_test_destroy(oracle, NULL);
    sm_trace_destroy(heard);
    return found;
}

/* What the locked object holds. */
static uint64_t locked(const struct sm_test *test)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < test->arena->registration.shared_count; i++)
        if (test->arena->registration.shared[i].kind == SHARED_STRONG)
            memcpy(&value, test->arena->strong[i].data, sizeof value);
    return value;
}

/* Before the oracle's replica ends: these are of the one that ended last. */
static const char *judge_shared(const struct sm_test *test, const bool *seen)
{
    int64_t count = 0, least = -1;

    for (unsigned i = 0; i < EVERYTHING_PACKETS; i++) {
        count += seen[i];
        least = seen[i] && least < 0 ? i : least;
    }
    if (everything_counted != count || (int64_t)locked(test) != count || everything_lowest != least)
        return wrong("shared objects counted %" PRId64 " and %" PRIu64 " packets of %" PRId64 ", the lowest %" PRId64,
                     everything_counted, locked(test), count, everything_lowest);
    if (everything_kinds < (uint64_t)count * 9 / 10 || everything_kinds > (uint64_t)count * 11 / 10)
        return wrong("about %" PRIu64 " kinds of packets", everything_kinds);
    return NULL;
}

static const char *judge(struct sm_test *test)
{
    bool sent[EVERYTHING_PACKETS] = {false}, seen[EVERYTHING_PACKETS];

    const char *unsaved = saver_end(test);

    if (sm_test_finish(test) != 0)
        return sm_test_result(test)->broken;
    if (unsaved)
        return unsaved;
    const char *found = everything_mistakes ? "the middlebox met what should not be" : NULL;
    if (!found && !everything_seen(test, seen))
        found = "a packet was processed twice";
    if (!found)
        found = judge_output(test, sent);
    if (!found)
        found = judge_lost(test, sent, seen);
    if (!found)
        found = judge_shared(test, seen);
    return found ? found : judge_state(test, seen);
}

/* ---- trials ---- */

/* A run of the trial's schedule; where `census` is given, nobody dies at a place, and all are counted. */
static void attempt(const struct trial *trial, uint64_t *census)
{
    struct sm_test_options options = everything_options(trace);
    struct sm_test *test;

    options.replicas = 3;
    options.seed = trial->seed;
    if (sm_test_create(&test, &options, &error) != 0) {
        printf("FAILED: %s\n", error.text);
        failures++;
        return;
    }
    test->census = census;
    if (!census)
        sm_test_kill_at(test, SM_TEST_SWITCH, trial->place, trial->visit);
    play(test, trial->schedule);
    const char *found = judge(test);
    if (!found && !census && sm_test_kill_pending(test))
        found = "it did not come by there";
    if (found) {
        printf("FAILED SM_SEED=%" PRIu64 " SM_PLACE=%u (%s), schedule %s, visit %" PRIu64 ": %s\n", trial->seed,
               trial->place, census ? "none" : sm_test_place_name(trial->place), schedule_names[trial->schedule],
               trial->visit, found);
        failures++;
    }
    switch_deaths += sm_test_result(test)->switch_deaths;
    replica_deaths += sm_test_result(test)->deaths;
    lost += sm_test_result(test)->lost;
    sm_test_destroy(test, NULL);
    runs++;
}

struct census {
    enum schedule schedule;
    uint64_t seed;
    uint64_t *visits; /* by place */
};

static struct census censuses[ROUNDS * SCHEDULES];
static unsigned census_count;

/* Whether it is known who comes by there. */
static bool is_switchs(uint32_t place)
{
    return place_is_switchs(place) || place_is_shared(place);
}

static bool is_met(uint32_t place)
{
    for (uint32_t other = 0; other < sm_test_places(); other++)
        for (unsigned i = 0; place_is_same(place, other) && i < census_count; i++)
            if (censuses[i].visits[other] > 0)
                return true;
    return false;
}

/* All schedules, with other seeds until the switch has been everywhere. */
static void count_visits(uint64_t seed)
{
    bool everywhere = false;

    for (unsigned round = 0; round < ROUNDS && !everywhere; round++) {
        for (unsigned i = 0; i < SCHEDULES; i++) {
            struct census *census = &censuses[census_count++];
            *census = (struct census){(enum schedule)i, seed + round, calloc(sm_test_places(), sizeof(uint64_t))};
            attempt(&(struct trial){(enum schedule)i, 0, 0, seed + round}, census->visits);
        }
        everywhere = true;
        for (uint32_t place = 0; place < sm_test_places(); place++)
            everywhere &= !is_switchs(place) || is_met(place);
    }
}

static void judge_census(uint32_t place)
{
    if (is_switchs(place) == is_met(place))
        return;
    printf("FAILED place %u (%s) %s\n", place, sm_test_place_name(place),
           is_met(place) ? "is met by the switch, and not known to be" : "of the switch was never met by it");
    failures++;
}

/* In runs in which the switch comes by there: by turns, where it is not to be in all of them. */
static void kill_at(uint32_t place, uint64_t seed, unsigned times)
{
    uint64_t random = (seed + place) * 0x9e3779b97f4a7c15ull | 1;

    for (unsigned i = 0, done = 0; i < TURNS * census_count && done < times; i++) {
        const struct census *census = &censuses[(seed + place + i) % census_count];
        const uint64_t visits = census->visits[place];
        if (visits == 0)
            continue;
        attempt(&(struct trial){census->schedule, place, 1 + (sm_test_random(&random) >> 8) % visits, census->seed},
                NULL);
        done++;
    }
}

int main(void)
{
    const uint64_t seed = random_seed();
    const char *one = getenv("SM_PLACE");
    const unsigned times = one ? UINT_MAX : getenv("SM_FULL") ? MORE_TIMES : TIMES;
    struct sm_trace *made = everything_trace();
    struct sm_test_options options = everything_options(made);

    setvbuf(stdout, NULL, _IOLBF, 0);
    everything_witnessed = true;
    if (!made || sm_test_create(&reference, &options, &error) != 0 || sm_test_finish(reference) != 0) {
        printf("unsplit: %s\n", reference ? sm_test_result(reference)->broken : error.text);
        return 1;
    }
    trace = made;
    count_visits(seed);
    unsigned met = 0;
    for (uint32_t place = 0; place < sm_test_places(); place++) {
        met += is_met(place);
        judge_census(place);
        if (!one || strtoul(one, NULL, 0) == place)
            kill_at(place, seed, times);
    }
    printf("SM_SEED=%" PRIu64 ": %u places, %u runs, %" PRIu64 " deaths of switches, %" PRIu64 " of replicas, %" PRIu64
           " packets lost, %u checkpoints; %u failed\n",
           seed, met, runs, switch_deaths, replica_deaths, lost, saver_saved, failures);
    for (unsigned i = 0; i < census_count; i++)
        free(censuses[i].visits);
    sm_test_destroy(reference, NULL);
    sm_trace_destroy(made);
    return failures != 0;
}
