/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Three threads as three actors need new slabs all the time, since a slab holds few of their records, and there is room
 * for all: not one insertion may be refused, whoever takes which slab first.
 */

#include "../state/support.h"

#include <pthread.h>

#define ACTORS 3
#define FLOWS 100 /* of each actor */
#define ROUNDS 60

struct worker {
    struct state_actor *actor;
    pthread_barrier_t *start;
    unsigned cls, number, refused;
    pthread_t thread;
};

static void *run(void *arg)
{
    struct worker *w = arg;

    pthread_barrier_wait(w->start);
    for (uint32_t n = 0; n < FLOWS; n++)
        if (!insert_key(w->actor, w->number * FLOWS + n, w->cls, w->number * FLOWS + n))
            w->refused++;
    return NULL;
}

/* How many insertions were refused. */
static unsigned round_of(uint32_t record)
{
    struct fixture f = fixture_open(UINT64_C(64) << 20, 65536);
    struct worker workers[ACTORS];
    pthread_barrier_t start;
    unsigned cls = fixture_class(&f, record, 0, 0), refused = 0;

    pthread_barrier_init(&start, NULL, ACTORS);
    for (unsigned i = 0; i < ACTORS; i++) {
        workers[i] = (struct worker){.actor = f.actor, .start = &start, .cls = cls, .number = i};
        if ((i > 0 && state_actor_join(&workers[i].actor, f.state, i) != 0) ||
            pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < ACTORS; i++) {
        pthread_join(workers[i].thread, NULL);
        refused += workers[i].refused;
    }
    pthread_barrier_destroy(&start);
    fixture_close(&f);
    return refused;
}

int main(void)
{
    unsigned refused = 0;

    for (unsigned round = 0; round < ROUNDS; round++)
        refused += round_of(round % 2 ? 32000 : 9000);
    printf("%u of %u insertions refused\n", refused, ROUNDS * ACTORS * FLOWS);
    return refused != 0;
}
