/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Escrow beside a model: replicas, one step at a time in random order, add to, take from and read strong counters and
 * add to eventual ones, several of them in the middle of bursts, some commit in the middle of packets, and any may die
 * at any step of the runtime. Whatever happens a take is granted when what is committed, less what others have taken,
 * has it; reads see what is committed; and a death gives back exactly what was not. SM_SEED fixes it all.
 */

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replica/replica.h"
#include "testing/random.h"

#define REPLICAS 4u
#define COUNTERS 3u
#define INITIAL 10

/* What a replica has not committed: of the packets that are complete, of the one in hand. */
struct pending {
    int64_t added[COUNTERS], taken[COUNTERS], counted;
};

struct member {
    struct sm_replica *replica;
    struct pending complete, in_hand;
    bool busy; /* in a packet */
};

static struct arena *arena;
static struct member members[REPLICAS];
static int64_t committed[COUNTERS], counted; /* the model */
static sm_strong_counter counters[COUNTERS];
static sm_counter eventual;
static uint64_t random_state, deaths, refused, granted, partial;

static jmp_buf death;
static uint64_t steps_to_live; /* 0: no one is to die */

static uint64_t below(uint64_t bound)
{
    return (random_star(&random_state) >> 11) % bound;
}

static void at_step(const struct step_place *const *place)
{
    (void)place;
    if (steps_to_live > 0 && --steps_to_live == 0)
        longjmp(death, 1);
}

static bool start(unsigned slot)
{
    static struct registration mine;
    struct sm_replica *replica = calloc(1, sizeof *replica);
    struct sm_errbuf error;
    char name[] = "counter-0";

    members[slot] = (struct member){.replica = replica};
    memset(&mine, 0, sizeof mine);
    channel_reset(arena_channel(arena, 0, slot), 128, 0);
    if (!replica || replica_bind(replica, arena, slot) != 0)
        return false;
    replica->registration = &mine;
    for (unsigned i = 0; i < COUNTERS; i++, name[8]++)
        if (sm_strong_counter_register(replica, name, INITIAL, &counters[i]) != 0)
            return false;
    bool registered = sm_counter_register(replica, "eventual", &eventual) == 0;
    replica->registration = NULL;
    return registered && arena_register(arena, replica->slot, &mine, &error) == 0;
}

static void make_final(struct pending *pending)
{
    for (unsigned i = 0; i < COUNTERS; i++)
        committed[i] += pending->added[i] - pending->taken[i];
    counted += pending->counted;
    *pending = (struct pending){.counted = 0};
}

static void add_pending(struct pending *to, struct pending *from)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        to->added[i] += from->added[i];
        to->taken[i] += from->taken[i];
    }
    to->counted += from->counted;
    *from = (struct pending){.counted = 0};
}

/* As the switch does (runtime/switch/death.c). */
static bool bury(unsigned slot)
{
    const struct coherent_writer writer = arena_writer(arena, slot);
    uint64_t commit = atomic_load(writer.commit);

    coherent_settle(&writer, arena->registration.shared, arena->registration.shared_count);
    if (journal_recover(arena->state, writer.region, CHANNEL_JOURNAL_BYTES, commit, arena,
                        (const uint8_t *)arena + arena->bytes, NULL, NULL) < 0)
        return false;
    coherent_settled(&writer, arena->registration.shared, arena->registration.shared_count);
    for (unsigned i = 0; i < arena->registration.shared_count; i++)
        if (arena->strong[i].holder == slot + 1)
            arena->strong[i].holder = 0;
    state_actor_abandon(arena->state, slot);
    free(members[slot].replica);
    return start(slot);
}

/* What the model says is there for a replica, whatever becomes of the others. */
static int64_t certain(unsigned slot, unsigned counter)
{
    int64_t there = committed[counter];

    for (unsigned i = 0; i < REPLICAS; i++)
        there -= members[i].complete.taken[counter] + members[i].in_hand.taken[counter];
    return there + members[slot].complete.added[counter] + members[slot].in_hand.added[counter];
}

/* A commit in the middle of a packet, which another object would have asked for; or of the burst. */
static void commit(struct member *member, bool all)
{
    replica_commit(member->replica, all);
    make_final(&member->complete);
}

static bool take(unsigned slot, unsigned counter, uint64_t amount)
{
    struct member *member = &members[slot];
    struct sm_replica *replica = member->replica;
    int64_t there = certain(slot, counter);
    uint64_t before = replica->committed;

    /* It has taken from the last one already: so it never waits, which nobody would end here. */
    replica->taken_unit = replica->journal.unit;
    replica->taken_from = COUNTERS;
    bool got = sm_strong_counter_take(replica, counters[counter], amount) == 0;
    if (replica->committed != before)
        make_final(&member->complete);
    member->in_hand.taken[counter] += got ? (int64_t)amount : 0;
    granted += got;
    refused += !got;
    return got == (there >= (int64_t)amount);
}

static bool read_one(unsigned slot, unsigned counter)
{
    struct member *member = &members[slot];
    uint64_t value, before = member->replica->committed;
    bool changed = member->in_hand.added[counter] || member->in_hand.taken[counter];
    int result = sm_strong_counter_read(member->replica, counters[counter], &value, NULL);

    if (member->replica->committed != before)
        make_final(&member->complete);
    return changed ? result == SM_E_STATE : result == 0 && (int64_t)value == committed[counter];
}

/* One thing in a packet, or between two. False: not as the model has it. */
static bool act(unsigned slot)
{
    struct member *member = &members[slot];
    struct sm_replica *replica = member->replica;
    unsigned counter = (unsigned)below(COUNTERS);
    uint64_t amount = 1 + below(5);

    if (!member->busy) {
        journal_packet(&replica->journal);
        replica->entry_unit = replica->journal.unit;
        member->busy = true;
    }
    switch (below(8)) {
    case 0:
    case 1:
        sm_strong_counter_add(replica, counters[counter], amount);
        member->in_hand.added[counter] += (int64_t)amount;
        return true;
    case 2:
    case 3:
        return take(slot, counter, amount);
    case 4:
        sm_counter_add(replica, eventual, (int64_t)amount);
        member->in_hand.counted += (int64_t)amount;
        return true;
    case 5:
        return read_one(slot, counter);
    case 6:
        partial += member->complete.counted != 0;
        commit(member, false);
        return true;
    default:
        replica->consumed++;
        member->busy = false;
        add_pending(&member->complete, &member->in_hand);
        if (below(3) == 0)
            commit(member, true);
        return true;
    }
}

/* The model after a death: what was committed is known by the commit word alone. */
static bool die(unsigned slot, uint64_t before)
{
    struct member *member = &members[slot];

    deaths++;
    if (atomic_load(&member->replica->channel->commit) != before)
        make_final(&member->complete);
    return bury(slot);
}

static bool round_of(uint64_t steps)
{
    /* static: they live through longjmp() */
    static unsigned slot;
    static uint64_t step, before;
    static bool right;

    right = true;
    for (step = 0; right && step < steps; step++) {
        slot = (unsigned)below(REPLICAS);
        before = members[slot].replica->committed;
        steps_to_live = below(40) == 0 ? 1 + below(12) : 0;
        if (setjmp(death) == 0)
            right = act(slot);
        else
            right = die(slot, before);
        steps_to_live = 0;
        for (unsigned i = 0; i < COUNTERS; i++)
            right = right && committed[i] >= 0;
    }
    for (unsigned i = 0; right && i < REPLICAS; i++)
        right = die(i, members[i].replica->committed); /* with all that they have not committed */
    for (unsigned i = 0; right && i < COUNTERS; i++)
        right = read_one(0, i);
    return right && sm_counter_read(members[0].replica, eventual, NULL) == counted;
}

int main(void)
{
    const unsigned rounds = getenv("SM_FULL") ? 1000 : 100;
    const struct arena_options options = {
        .service = "escrow", .seed = 1, .memory = 1u << 20, .flows = 16, .small_buffers = 120};
    uint64_t seed = random_seed();
    unsigned failures = 0;
    struct sm_errbuf error;

    step_taken = at_step;
    for (unsigned round = 0; round < rounds && !failures; round++, seed++) {
        int fd;
        random_state = seed * 0x9e3779b97f4a7c15ull | 1;
        counted = 0;
        if (arena_create(&arena, &fd, &options, &error) != 0)
            return 1;
        for (unsigned i = 0; i < REPLICAS; i++)
            if (!start(i))
                return 1;
        for (unsigned i = 0; i < COUNTERS; i++)
            committed[i] = INITIAL;
        if (!round_of(3000)) {
            printf("FAILED: SM_SEED=%llu\n", (unsigned long long)seed);
            failures++;
        }
        for (unsigned i = 0; i < REPLICAS; i++)
            free(members[i].replica);
        arena_unmap(arena);
        close(fd);
    }
    printf("SM_SEED=%llu: %llu takes granted, %llu refused, %llu deaths, %llu commits within packets\n",
           (unsigned long long)seed, (unsigned long long)granted, (unsigned long long)refused,
           (unsigned long long)deaths, (unsigned long long)partial);
    return failures || deaths == 0 || granted == 0 || refused == 0 || partial == 0;
}
