/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Our flow table beside others: the time of an insertion, and of getting and putting a flow in bursts, with all that it
 * takes to undo the burst (64 bytes of each record are copied to the journal) and its commit. A replica of a service
 * without packets makes the calls that a middlebox makes; their keys and hashes are there, as the switch gives them.
 *
 * The references: DPDK's rte_hash and liburcu's cds_lfht, programs of their own, which look a value up and touch no
 * record; and a plain table, which finds the record. Their keys have 16 bytes and are hashed as part of a look-up (the
 * plain table's: 40 bytes, hashed before, as ours).
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/huge.h"
#include "bench.h"
#include "reference.h"
#include "service.h"
#include "state/lookup.h"
#include "state/prefetch.h"
#include "table.h"
#include "tables.h"
#include "testing/random.h"

#define FLOWS 1000000u
#define BURST 32u
#define RECORD_BYTES 64u
#define JOURNAL_BYTES (4u << 20)
#define CHECK_BURSTS 1024u /* between looks at the clock */

/*
 * What the switch would say of a packet, as short as the references' keys: in a service it is in a cache, while this
 * comes from memory.
 */
struct arrival {
    uint32_t a, b; /* addresses; the rest of all keys is the same */
    uint64_t hash;
};

static const struct sm_key any_key = {.a_port = 1000, .b_port = 53, .family = 4, .protocol = 17};

/* In words, as keys are compared: a load would wait for the end of a store that is part of what it reads. */
static inline void complete(struct sm_key *key, const struct arrival *arrival)
{
    const uint64_t a = arrival->a, b = arrival->b;

    memcpy(key->a, &a, sizeof a);
    memcpy(key->b, &b, sizeof b);
}

struct ours {
    struct service service;
    sm_class cls;
    struct journal_region *journal; /* its own: there is no channel to commit to */
    uint64_t commit;
    struct packet_meta meta;
    const struct group *groups[REPLICA_AHEAD]; /* of the packets ahead */
};

static int ours_open(struct ours *ours, uint32_t flows, uint64_t seed, struct sm_errbuf *error)
{
    struct service_options wanted = service_of_counters(1, flows, seed, &ours->cls);

    wanted.buffers = 64;
    int result = service_open(&ours->service, &wanted, error);

    ours->meta.key = any_key;
    ours->journal = bench_memory(JOURNAL_BYTES);
    if (result == 0 && !ours->journal)
        result = SM_E_NO_MEMORY;
    if (result)
        return result;
    struct sm_replica *replica = ours->service.replicas[0].replica;
    journal_format(ours->journal, JOURNAL_BYTES);
    journal_open(&replica->journal, ours->journal, replica->actor, ours->commit = 1);
    return 0;
}

static int ours_close(struct ours *ours, int result, struct sm_errbuf *error)
{
    if (ours->service.count > 0 && ours->journal) {
        struct sm_replica *replica = ours->service.replicas[0].replica;
        journal_open(&replica->journal, channel_journal(replica->channel), replica->actor, replica->committed);
    }
    result = service_close(&ours->service, result, error);
    free(ours->journal);
    return result;
}

/*
 * Overlap the cache misses of the packets ahead as a replica does: shard, then group, then flow, each
 * REPLICA_FETCH_AHEAD packets nearer. `at` is the next packet that is to be processed; `end` the end of the arrivals.
 */
static inline void look_ahead(struct ours *ours, const struct arrival *arrivals, uint32_t at, uint32_t end)
{
    const struct state *state = ours->service.arena->state;

    for (unsigned i = 1; i <= REPLICA_FETCH_EVERY; i++) {
        uint32_t near = at + REPLICA_FETCH_AHEAD - i, middle = near + REPLICA_FETCH_AHEAD,
                 far = middle + REPLICA_FETCH_AHEAD;
        if (far < end)
            lookup_fetch_shard(state, state_shard_of(arrivals[far].hash));
        if (middle < end) {
            const struct group *group =
                lookup_group(state, state_shard_of(arrivals[middle].hash), arrivals[middle].hash);
            ours->groups[middle % REPLICA_AHEAD] = group;
            prefetch_for_read(group);
        }
        if (near < end && ours->groups[near % REPLICA_AHEAD])
            lookup_fetch_flow(state, ours->groups[near % REPLICA_AHEAD], arrivals[near].hash);
    }
}

/* The packet as the switch hands it over. */
static inline struct sm_packet arrive(struct ours *ours, const struct arrival *arrival)
{
    complete(&ours->meta.key, arrival);
    ours->meta.hash = arrival->hash;
    return (struct sm_packet){.meta = &ours->meta,
                              .replica = ours->service.replicas[0].replica,
                              .shard = (uint16_t)state_shard_of(arrival->hash)};
}

static void burst_end(struct ours *ours)
{
    struct journal *journal = &ours->service.replicas[0].replica->journal;

    journal_prepare(journal, true);
    journal_committed(journal, ++ours->commit);
}

/* What another thread does in a service: memory that is about to be used is there, in huge pages if it can. ns. */
static uint64_t make_ahead(struct ours *ours)
{
    uint64_t begin = bench_now();

    arena_huge_ahead(ours->service.arena, &ours->service.huge_done);
    return bench_now() - begin;
}

/* Get or make the flows of a burst, and put them. How many were refused or not there. */
static inline unsigned burst(struct ours *ours, const struct arrival *arrivals, uint32_t at, uint32_t end, bool create)
{
    struct sm_replica *replica = ours->service.replicas[0].replica;
    unsigned missed = 0;

    for (uint32_t to = at + BURST < end ? at + BURST : end; at < to; at++) {
        if (at % REPLICA_FETCH_EVERY == 0)
            look_ahead(ours, arrivals, at, end);
        struct sm_packet packet = arrive(ours, &arrivals[at]);
        sm_flow flow = {NULL};
        journal_packet(&replica->journal);
        replica->current_shard = packet.shard;
        if (create)
            sm_flow_create(replica, ours->cls, &packet, 0, &flow, NULL);
        else
            flow = sm_flow_get(replica, ours->cls, &packet, 0);
        missed += flow.state == NULL;
        sm_flow_put(replica, ours->cls, flow);
    }
    burst_end(ours);
    return missed;
}

/* ns of an insertion. 0: one was refused. */
static double insert_all(struct ours *ours, const struct arrival *arrivals, uint32_t flows)
{
    uint64_t begin = bench_now(), paused = 0, refused = 0;

    memset(ours->groups, 0, sizeof ours->groups);
    for (uint32_t at = 0; at < flows; at += BURST) {
        if (at % (BURST * CHECK_BURSTS) == 0)
            paused += make_ahead(ours);
        refused += burst(ours, arrivals, at, flows, true);
    }
    return refused ? 0 : (double)(bench_now() - begin - paused) / flows;
}

/* ns of a get and put, over and over until the time is over. 0: a flow was not there. */
static double get_all(struct ours *ours, const struct arrival *arrivals, uint32_t flows, double seconds)
{
    uint64_t begin = bench_now(), got = 0, lost = 0;

    do {
        memset(ours->groups, 0, sizeof ours->groups);
        for (uint32_t at = 0; at < flows; at += BURST)
            lost += burst(ours, arrivals, at, flows, false);
        got += flows;
    } while ((double)(bench_now() - begin) < seconds * 1e9);
    return lost > 0 ? 0 : (double)(bench_now() - begin) / (double)got;
}

/* The plain table, likewise. */
static int measure_plain(const struct arrival *inserted, const struct arrival *arrivals, uint32_t flows, double seconds,
                         double *ns)
{
    struct sm_key key = any_key;
    struct table table;
    uint64_t lost = 0, got = 0;

    if (!table_init(&table, flows, RECORD_BYTES))
        return SM_E_NO_MEMORY;
    uint64_t begin = bench_now();
    for (uint32_t i = 0; i < flows; i++) {
        if (i + BURST < flows)
            table_prefetch(&table, inserted[i + BURST].hash | 1);
        complete(&key, &inserted[i]);
        table_insert(&table, &key, inserted[i].hash | 1);
    }
    ns[0] = (double)(bench_now() - begin) / flows;
    begin = bench_now();
    do {
        for (uint32_t i = 0; i < flows; i++) {
            if (i + BURST < flows)
                table_prefetch(&table, arrivals[i + BURST].hash | 1);
            complete(&key, &arrivals[i]);
            lost += table_find(&table, &key, arrivals[i].hash | 1) == NULL;
        }
        got += flows;
    } while ((double)(bench_now() - begin) < seconds * 1e9);
    ns[1] = (double)(bench_now() - begin) / (double)got;
    table_free(&table);
    return lost > 0 ? SM_E_STATE : 0;
}

enum { PLAIN, RTE_HASH, LFHT, OTHERS };

struct comparison {
    struct reference others[OTHERS]; /* PLAIN is none of them */
    struct figure *insert[OTHERS], *get[OTHERS];
    struct arrival *inserted, *arrivals;
    uint32_t flows;
};

struct samples bench_get_and_put;

static int measure_ours(const struct bench_options *options, const struct comparison *with, double *ns,
                        struct sm_errbuf *error)
{
    static struct ours ours;

    ours = (struct ours){.commit = 0};
    int result = ours_open(&ours, with->flows, options->seed, error);
    if (result == 0) {
        for (uint32_t i = 0; i < with->flows; i++) {
            struct sm_key key = any_key;
            complete(&key, &with->inserted[i]);
            with->inserted[i].hash = state_hash(ours.service.arena->state, &key);
            complete(&key, &with->arrivals[i]);
            with->arrivals[i].hash = state_hash(ours.service.arena->state, &key);
        }
        ns[0] = insert_all(&ours, with->inserted, with->flows);
        ns[1] = get_all(&ours, with->arrivals, with->flows, options->seconds);
        if (ns[0] == 0 || ns[1] == 0) {
            snprintf(error->text, sizeof error->text, "a flow was refused or is not there");
            result = SM_E_STATE;
        }
    }
    return ours_close(&ours, result, error);
}

/* One repetition: ours, and each of the others. */
static int repeat(const struct bench_options *options, struct comparison *with, struct sm_errbuf *error)
{
    double ours[2] = {0}, ns[2];
    int result = measure_ours(options, with, ours, error);

    if (result)
        return result;
    samples_add(&bench_get_and_put, ours[1]);
    for (unsigned other = 0; other < OTHERS && result == 0; other++) {
        samples_add(&with->insert[other]->ours, ours[0]);
        samples_add(&with->get[other]->ours, ours[1]);
        if (other == PLAIN)
            result = measure_plain(with->inserted, with->arrivals, with->flows, options->seconds, ns);
        else if (with->others[other].missing[0])
            continue;
        else
            result = reference_ask(&with->others[other], ns, 2, error);
        if (result)
            return result;
        samples_add(&with->insert[other]->reference, ns[0]);
        samples_add(&with->get[other]->reference, ns[1]);
    }
    return result;
}

/* The same keys in two orders: what was inserted together is not met together. */
static bool make_arrivals(struct comparison *with, uint64_t seed)
{
    uint32_t *order = bench_shuffled(with->flows, seed);
    uint64_t random = seed;

    with->inserted = bench_memory(with->flows * sizeof *with->inserted);
    with->arrivals = bench_memory(with->flows * sizeof *with->arrivals);
    if (order && with->inserted && with->arrivals)
        for (uint32_t i = 0; i < with->flows; i++) {
            with->inserted[i] = (struct arrival){(uint32_t)random_star(&random), i, 0}; /* no two are the same */
            with->arrivals[order[i]] = with->inserted[i];
        }
    bool made = order && with->inserted && with->arrivals;
    free(order);
    return made;
}

static void name_figures(struct report *report, struct comparison *with)
{
    const struct {
        const char *insert, *get;
        struct target target;
    } rows[OTHERS] = {
        [PLAIN] = {"state: insert a flow, beside a plain table", "state: get and put, beside a plain table", {0}},
        [RTE_HASH] = {"state: insert a flow, beside rte_hash",
                      "state: get and put, beside rte_hash's bulk look-up",
                      {TARGET_AT_MOST, 1}},
        [LFHT] = {"state: insert a flow, beside liburcu's lfht", "state: get and put, beside liburcu's lfht", {0}},
    };

    for (unsigned other = 0; other < OTHERS; other++) {
        with->insert[other] = report_figure(report, rows[other].insert, "ns");
        with->get[other] = report_figure(report, rows[other].get, "ns");
        with->insert[other]->ratio = with->get[other]->ratio = rows[other].target;
        strcpy(with->insert[other]->missing, with->others[other].missing);
        strcpy(with->get[other]->missing, with->others[other].missing);
    }
}

int bench_tables(const struct bench_options *options, struct report *report, struct sm_errbuf *error)
{
    struct comparison with = {.flows = options->quick ? options->flows : FLOWS};
    char flows[16], seconds[32], seed[24];
    const char *const arguments[] = {flows, seconds, seed, NULL};
    int result = make_arrivals(&with, options->seed) ? 0 : SM_E_NO_MEMORY;

    bench_pin(0);
    snprintf(flows, sizeof flows, "%u", with.flows);
    snprintf(seconds, sizeof seconds, "%g", options->seconds);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)options->seed);
    reference_start(&with.others[RTE_HASH], "sm-bench-rte_hash", "libdpdk-dev", arguments);
    reference_start(&with.others[LFHT], "sm-bench-lfht", "liburcu-dev", arguments);
    name_figures(report, &with);
    bench_get_and_put.count = 0;
    for (unsigned i = 0; result == 0 && i < options->repeat; i++)
        result = repeat(options, &with, error);
    reference_end(&with.others[RTE_HASH]);
    reference_end(&with.others[LFHT]);
    free(with.inserted);
    free(with.arrivals);
    return result;
}
