/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Kill at every step: for every place of the runtime at which a replica can die, it dies there as the source and as the
 * destination of a move, with and without copying, at its first visits; then what leaves, the flows and the shared
 * objects are those of a run in which nobody dies. A place that was never reached fails the test: the middlebox
 * (everything.c) is then to be extended.
 *
 * SM_SEED fixes who takes which step, SM_PLACE runs one place only, SM_FULL=1 takes more visits.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "everything.h"
#include "saver.h"
#include "testing/random.h"
#include "testing/test.h"
#include "whose.h"

enum role { SOURCE, DESTINATION, ROLES };

static const char *const role_names[ROLES] = {"source", "destination"};

/* Places that only one side of a move comes by, by function: who gives a shard away releases and exports it, who gets
 * it imports it, and brings its flows into the forms of its own version. */
static const struct {
    const char *function;
    enum role never;
} one_sided[] = {
    {"replica_release ", DESTINATION}, {"export_part ", DESTINATION}, {"import_flows ", SOURCE},
    {"bindings_hand_over ", SOURCE},   {"chunks_hand_over ", SOURCE}, {"state_reform_done ", SOURCE},
    {"timer_hand_over ", SOURCE},
};

/* Places that are come by in an upgrade alone; or when another one has died inside of a burst and has left notes. */
static const char *const in_upgrades[] = {"bindings_hand_over ", "chunks_hand_over ", "state_reform_done ",
                                          "timer_hand_over "};
static const char *const after_deaths[] = {"carry_out "};

static bool is_one_of(uint32_t place, const char *const *functions, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(sm_test_place_name(place), functions[i], strlen(functions[i])) == 0)
            return true;
    return false;
}

#define ATTEMPTS 60u /* other seeds, until a place is met in a role */
#define SAVED 8u     /* one in so many runs, and those that die there, takes checkpoints */
#define STRETCH 60u  /* packets from one move to the next */

static const struct sm_trace *trace;
static struct sm_test *reference;
static unsigned failures, deaths, runs, copies_refused;
static uint64_t copied;
static bool saves; /* checkpoints are taken in this run */

struct trial {
    uint32_t place;
    enum role role;
    uint64_t visit;
    uint64_t seed;
};

static bool killed_or_rested(const struct sm_test *test, void *armed)
{
    return (*(bool *)armed && !sm_test_kill_pending(test)) || !sm_test_moving(test);
}

static bool packet_entered(const struct sm_test *test, void *packets)
{
    return test->sw->entered >= *(uint64_t *)packets;
}

/* Checkpoints are taken meanwhile, or not. */
static int go_on_until(struct sm_test *test, bool (*condition)(const struct sm_test *test, void *arg), void *arg)
{
    return (saves ? saver_until : sm_test_until)(test, condition, arg);
}

static bool died(const struct sm_test *test, void *arg)
{
    (void)arg;
    return !sm_test_kill_pending(test);
}

/* Flows go to a version with other forms, one of whose replicas has its appointment. Whether it has died. */
static bool play_upgrade(struct sm_test *test, const struct trial *trial)
{
    const struct sm_test_options first = everything_options(trace);
    const struct sm_test_upgrade two = {
        .size = sizeof two, .on_packet = first.on_packet, .setup = everything_setup_two};
    bool armed = true;

    sm_test_until_packet(test, 4 * STRETCH + trial->seed % 8 * STRETCH);
    sm_test_upgrade(test, &two, NULL);
    sm_test_kill_at(test, sm_test_replica(test, 3 + (unsigned)(trial->seed % 3)), trial->place, trial->visit);
    while (go_on_until(test, killed_or_rested, &armed) == 0 && sm_test_kill_pending(test) &&
           sm_test_upgrade_forward(test) == SM_E_AGAIN)
        ;
    bool killed = !sm_test_kill_pending(test);
    while (sm_test_settle(test) == 0 && sm_test_upgrade_forward(test) == SM_E_AGAIN)
        ;
    return killed;
}

/* All shards go to and fro between two replicas; one of them has its appointment. Whether it has died. */
static bool play(struct sm_test *test, const struct trial *trial)
{
    const unsigned third = 3;
    uint64_t packets = 0;
    bool killed = false, armed = false;
    int result = 0;

    if (is_one_of(trial->place, after_deaths, 1)) {
        sm_test_until_packet(test, STRETCH); /* its shards are its own by now */
        sm_test_kill_at(test, third, SM_TEST_ANYWHERE, 1 + trial->seed * 101 % 1000);
        sm_test_until(test, died, NULL);
    }
    for (unsigned turn = trial->seed % 2; result == 0; turn++) {
        if (sm_test_replicas(test) < 2 + (packets < 2 * STRETCH))
            sm_test_start_replica(test);
        unsigned from = sm_test_replica(test, turn % 2), to = sm_test_replica(test, 1 - turn % 2);
        if (!killed) {
            sm_test_kill_at(test, trial->role == SOURCE ? from : to, trial->place, trial->visit);
            armed = true;
        }
        copies_refused += sm_test_copying(test, turn % 4 >= 2, NULL) != 0;
        sm_test_merge(test, from, to);
        if (packets == 2 * STRETCH)
            sm_test_kill(test, third); /* its heirs inherit while their shards move */
        result = go_on_until(test, killed_or_rested, &armed);
        packets += STRETCH;
        if (result == 0)
            result = go_on_until(test, packet_entered, &packets);
        killed |= armed && !sm_test_kill_pending(test);
        armed &= !killed;
    }
    return killed;
}

static const char *judge(struct sm_test *test)
{
    static struct sm_errbuf error;

    const char *unsaved = saver_end(test);

    if (sm_test_finish(test) != 0)
        return sm_test_result(test)->broken;
    if (unsaved)
        return unsaved;
    if (everything_mistakes)
        return "the middlebox met what should not be";
    if (!sm_test_same(test, reference, SM_BY_ALL, &error))
        return error.text;
    if (everything_counted != EVERYTHING_PACKETS || everything_locked != EVERYTHING_PACKETS || everything_lowest != 0 ||
        everything_kinds < EVERYTHING_PACKETS * 9 / 10 || everything_kinds > EVERYTHING_PACKETS * 11 / 10) {
        snprintf(error.text, sizeof error.text,
                 "shared objects counted %lld and %llu packets of %u, or others are wrong",
                 (long long)everything_counted, (unsigned long long)everything_locked, EVERYTHING_PACKETS);
        return error.text;
    }
    return NULL;
}

/* Whether it died there. */
static bool attempt(const struct trial *trial)
{
    struct sm_test_options options = everything_options(trace);
    struct sm_errbuf error;
    struct sm_test *test;

    options.replicas = 3;
    options.seed = trial->seed;
    if (sm_test_create(&test, &options, &error) != 0) {
        printf("FAILED: %s\n", error.text);
        failures++;
        return false;
    }
    saves = strstr(sm_test_place_name(trial->place), "snapshot") || trial->seed % SAVED == 0;
    bool killed = is_one_of(trial->place, in_upgrades, 4) ? play_upgrade(test, trial) : play(test, trial);
    const char *wrong = judge(test);
    if (wrong) {
        printf("FAILED SM_SEED=%llu SM_PLACE=%u (%s), %s, visit %llu: %s\n", (unsigned long long)trial->seed,
               trial->place, sm_test_place_name(trial->place), role_names[trial->role],
               (unsigned long long)trial->visit, wrong);
        failures++;
    }
    copied += sm_test_result(test)->copied;
    sm_test_destroy(test, NULL);
    runs++;
    deaths += killed;
    return killed;
}

static bool expected(uint32_t place, enum role role)
{
    const char *name = sm_test_place_name(place);

    if (place_is_switchs(place))
        return false; /* switch_places_test */
    for (size_t i = 0; i < sizeof one_sided / sizeof *one_sided; i++)
        if (strncmp(name, one_sided[i].function, strlen(one_sided[i].function)) == 0 && one_sided[i].never == role)
            return false;
    return true;
}

static void kill_there(uint32_t place, enum role role, uint64_t seed, unsigned visits)
{
    bool killed = false;

    for (unsigned i = 0; !killed && i < ATTEMPTS; i++)
        killed = attempt(&(struct trial){place, role, 1, seed + i});
    if (!killed) {
        printf("FAILED place %u (%s) was never reached by a %s\n", place, sm_test_place_name(place), role_names[role]);
        failures++;
    }
    for (unsigned visit = 2; killed && visit <= visits; visit++)
        attempt(&(struct trial){place, role, visit, seed + visit});
}

int main(void)
{
    uint64_t seed = random_seed();
    unsigned visits = getenv("SM_FULL") ? 5 : 2;
    const char *one = getenv("SM_PLACE");
    struct sm_trace *made = everything_trace();
    struct sm_test_options options = everything_options(made);
    struct sm_errbuf error = {""};

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!made || sm_test_create(&reference, &options, &error) != 0 || sm_test_finish(reference) != 0) {
        printf("unsplit: %s\n", reference ? sm_test_result(reference)->broken : error.text);
        return 1;
    }
    trace = made;
    printf("SM_SEED=%llu, %u places\n", (unsigned long long)seed, sm_test_places());
    for (uint32_t place = 0; place < sm_test_places(); place++)
        for (enum role role = SOURCE; role < ROLES; role++)
            if (expected(place, role) && (!one || strtoul(one, NULL, 0) == place))
                kill_there(place, role, seed, visits);
    sm_test_destroy(reference, NULL);
    sm_trace_destroy(made);
    printf("%u runs, %u deaths at a place, %llu shards copied, %u checkpoints; %u failed\n", runs, deaths,
           (unsigned long long)copied, saver_saved, failures);
    return failures || copies_refused || copied == 0 || saver_saved == 0;
}
