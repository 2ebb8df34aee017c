/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Coherent objects of every kind under random splits, merges and moves: what replicas contributed, each packet once, is
 * what an independent pass over the capture gives. With a thread for each replica, or, built with KILLS, with replicas
 * killed at random steps. Strong counters conserve: what was taken and what is left is what was there and was added.
 * SM_SEED fixes the schedules.
 */

#include <splitmerge/testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ports/port.h"
#include "replica/replica.h"
#include "testing/random.h"

#ifndef KILLS
#define KILLS 0
#endif

#define CAPACITY 40u   /* of the small union, which overflows; the other one does not */
#define ELEMENTS 1000u /* of both: different values that packets give */
#define INITIAL 3000u
#define TAKE 3u

/* The program's own combiner: what would not be the same if a packet counted twice or not at all. */
struct digest {
    uint64_t count, sum, mix;
};

struct last {
    uint64_t value, check;
};

/* What all objects come to. */
struct totals {
    int64_t count, bytes, least, greatest;
    struct last last;
    struct digest digest;
    uint32_t all[ELEMENTS], lowest[CAPACITY];
    int all_count, lowest_count;
    uint64_t distinct, left, added;
    int64_t taken;
};

static struct {
    sm_counter count, bytes, taken;
    sm_eventual least, greatest, last, all, lowest, distinct, digest;
    sm_strong_counter tokens;
} objects;

static struct totals seen;

static uint64_t digest_of(const uint8_t *data, uint32_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325ull; /* FNV-1a */

    for (uint32_t i = 0; i < bytes; i++)
        hash = (hash ^ data[i]) * 0x100000001b3ull;
    return hash;
}

static void add_digest(void *into, const void *from, void *user)
{
    struct digest *a = into;
    const struct digest *b = from;

    (void)user;
    a->count += b->count;
    a->sum += b->sum;
    a->mix ^= b->mix;
}

static const struct digest nothing;

/* In network byte order, so that the order of the bytes is that of the numbers. */
static uint32_t element_of(uint64_t hash)
{
    return __builtin_bswap32((uint32_t)(hash % ELEMENTS));
}

static void on_packet(struct sm_replica *replica, struct sm_packet *packet, void *user)
{
    uint64_t hash = digest_of(sm_packet_data(packet), sm_packet_caplen(packet));
    uint32_t element = element_of(hash);
    int64_t signed_hash = (int64_t)hash;
    struct digest digest = {.count = 1, .sum = hash, .mix = hash * hash};
    struct last last = {.value = hash, .check = ~hash};

    (void)user;
    sm_counter_add(replica, objects.count, 1);
    sm_counter_add(replica, objects.bytes, sm_packet_len(packet));
    sm_eventual_update(replica, objects.least, &signed_hash);
    sm_eventual_update(replica, objects.greatest, &signed_hash);
    sm_eventual_update(replica, objects.last, &last);
    sm_eventual_update(replica, objects.all, &element);
    sm_eventual_update(replica, objects.lowest, &element);
    sm_eventual_update(replica, objects.distinct, &hash);
    sm_eventual_update(replica, objects.digest, &digest);
    if (hash % 4 == 0)
        sm_strong_counter_add(replica, objects.tokens, 1);
    if (sm_strong_counter_take(replica, objects.tokens, TAKE) == 0)
        sm_counter_add(replica, objects.taken, TAKE);
    sm_counter_add(replica, objects.count, 1);
}

static int eventual(struct sm_replica *replica, const char *name, enum sm_combiner combiner, uint32_t size,
                    uint32_t capacity, sm_eventual *object)
{
    const struct sm_eventual_options options = {
        .size = sizeof options,
        .name = name,
        .combiner = combiner,
        .value_size = size,
        .capacity = capacity,
        .combine = combiner == SM_COMBINE ? add_digest : NULL,
        .identity = combiner == SM_COMBINE ? &nothing : NULL,
    };

    return sm_eventual_register(replica, &options, object);
}

static int setup(struct sm_replica *replica, void **user)
{
    (void)user;
    int result = sm_counter_register(replica, "count", &objects.count);
    result |= sm_counter_register(replica, "bytes", &objects.bytes);
    result |= sm_counter_register(replica, "taken", &objects.taken);
    result |= eventual(replica, "least", SM_MIN, 0, 0, &objects.least);
    result |= eventual(replica, "greatest", SM_MAX, 0, 0, &objects.greatest);
    result |= eventual(replica, "last", SM_LAST, sizeof(struct last), 0, &objects.last);
    result |= eventual(replica, "all", SM_UNION, sizeof(uint32_t), ELEMENTS, &objects.all);
    result |= eventual(replica, "lowest", SM_UNION, sizeof(uint32_t), CAPACITY, &objects.lowest);
    result |= eventual(replica, "distinct", SM_DISTINCT, sizeof(uint64_t), 0, &objects.distinct);
    result |= eventual(replica, "digest", SM_COMBINE, sizeof(struct digest), 0, &objects.digest);
    result |= sm_strong_counter_register(replica, "tokens", INITIAL, &objects.tokens);
    return result;
}

static void ended(struct sm_replica *replica, void *user)
{
    uint64_t age = 1;

    (void)user;
    if (!replica->retired)
        return; /* it has died: what it had begun is still to be undone */
    seen.count = sm_counter_read(replica, objects.count, &age);
    seen.bytes = sm_counter_read(replica, objects.bytes, NULL);
    seen.taken = sm_counter_read(replica, objects.taken, NULL);
    sm_eventual_read(replica, objects.least, &seen.least, sizeof seen.least, NULL);
    sm_eventual_read(replica, objects.greatest, &seen.greatest, sizeof seen.greatest, NULL);
    sm_eventual_read(replica, objects.last, &seen.last, sizeof seen.last, NULL);
    sm_eventual_read(replica, objects.distinct, &seen.distinct, sizeof seen.distinct, NULL);
    sm_eventual_read(replica, objects.digest, &seen.digest, sizeof seen.digest, NULL);
    memset(seen.all, 0, sizeof seen.all);
    memset(seen.lowest, 0, sizeof seen.lowest);
    seen.all_count = sm_eventual_read(replica, objects.all, seen.all, sizeof seen.all, NULL);
    seen.lowest_count = sm_eventual_read(replica, objects.lowest, seen.lowest, sizeof seen.lowest, NULL);
    if (sm_strong_counter_read(replica, objects.tokens, &seen.left, NULL) != 0 || age != 0)
        seen.left = UINT64_MAX;
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void expect_elements(const bool there[ELEMENTS], struct totals *expected)
{
    for (uint32_t i = 0; i < ELEMENTS; i++) {
        if (!there[i])
            continue;
        if (expected->lowest_count < (int)CAPACITY)
            expected->lowest[expected->lowest_count++] = __builtin_bswap32(i);
        expected->all[expected->all_count++] = __builtin_bswap32(i);
    }
}

/* What the capture comes to, without the runtime. */
static int expect(const char *input, struct totals *expected)
{
    static uint64_t hashes[65536];
    bool there[ELEMENTS] = {false};
    struct sm_errbuf error;
    struct sm_port *port;
    struct sm_frame frame;
    uint64_t clock = 0, latest = 0;
    size_t count = 0;

    *expected = (struct totals){.least = INT64_MAX, .greatest = INT64_MIN};
    if (sm_port_open_capture(&port, input, &error) != 0)
        return -1;
    while (port->ops->receive(port, &frame) == 1) {
        uint64_t hash = digest_of(frame.data, frame.caplen), time = sm_frame_time(port, &frame).ns;
        int64_t value = (int64_t)hash;
        struct last last = {.value = hash, .check = ~hash};
        clock = time > clock ? time : clock;
        expected->count += 2;
        expected->bytes += frame.len;
        expected->least = value < expected->least ? value : expected->least;
        expected->greatest = value > expected->greatest ? value : expected->greatest;
        if (clock > latest || memcmp(&last, &expected->last, sizeof last) > 0)
            expected->last = last;
        latest = clock;
        expected->digest.count++;
        expected->digest.sum += hash;
        expected->digest.mix ^= hash * hash;
        expected->added += hash % 4 == 0;
        there[hash % ELEMENTS] = true;
        hashes[count++ % 65536] = hash;
    }
    port->ops->close(port, true, &error);
    expect_elements(there, expected);
    qsort(hashes, count, sizeof *hashes, compare_hashes);
    for (size_t i = 0; i < count; i++)
        expected->distinct += i == 0 || hashes[i] != hashes[i - 1];
    return 0;
}

static const char *compare(const struct totals *expected)
{
    uint64_t near = expected->distinct * 6 / 100; /* nearly four standard errors */

    if (seen.count != expected->count || seen.bytes != expected->bytes)
        return "a counter is not the sum";
    if (seen.least != expected->least || seen.greatest != expected->greatest)
        return "least or greatest";
    if (memcmp(&seen.last, &expected->last, sizeof seen.last) != 0)
        return "the last write";
    if (memcmp(&seen.digest, &expected->digest, sizeof seen.digest) != 0)
        return "the program's own combiner";
    if (seen.all_count != expected->all_count || memcmp(seen.all, expected->all, sizeof seen.all) != 0)
        return "the union";
    if (seen.lowest_count != expected->lowest_count || memcmp(seen.lowest, expected->lowest, sizeof seen.lowest) != 0)
        return "the union that is too small";
    if (seen.distinct + near < expected->distinct || seen.distinct > expected->distinct + near)
        return "the distinct count";
    if (seen.left + (uint64_t)seen.taken != INITIAL + expected->added)
        return "tokens are lost or made";
    if (seen.left >= TAKE && seen.left > TAKE + expected->added)
        return "takes were refused with tokens there";
    return NULL;
}

int main(void)
{
    const unsigned rounds = getenv("SM_FULL") ? 300 : 60;
    uint64_t seed = random_seed();
    uint64_t deaths = 0, distinct = 0;
    unsigned failures = 0;
    struct totals expected;

    printf("SM_SEED=%llu\n", (unsigned long long)seed);
    if (expect(SM_SAMPLE, &expected) != 0)
        return 1;
    for (unsigned round = 0; round < rounds; round++, seed++) {
        const struct sm_test_options options = {.size = sizeof options,
                                                .capture = SM_SAMPLE,
                                                .order_arrival = true,
                                                .seed = seed,
                                                .replicas = 1 + (unsigned)(seed % SM_TEST_REPLICAS),
                                                .schedule = true,
                                                .threads = KILLS == 0,
                                                .kills = KILLS,
                                                .on_packet = on_packet,
                                                .setup = setup,
                                                .ended = ended};
        struct sm_test_result result;
        struct sm_errbuf error;
        memset(&seen, 0, sizeof seen);
        if (sm_test_run(&options, &result, &error) != 0) {
            printf("%s\n", error.text);
            return 1;
        }
        const char *wrong = result.broken[0] ? result.broken : compare(&expected);
        printf("%s: SM_SEED=%llu, %u replicas, %llu deaths: %lld counted, %lld taken, %llu left, about %llu of %llu "
               "distinct\n",
               wrong ? wrong : "ok", (unsigned long long)seed, options.replicas, (unsigned long long)result.deaths,
               (long long)seen.count, (long long)seen.taken, (unsigned long long)seen.left,
               (unsigned long long)seen.distinct, (unsigned long long)expected.distinct);
        failures += wrong != NULL;
        deaths += result.deaths;
        distinct += seen.distinct;
    }
    printf("%llu deaths\n", (unsigned long long)deaths);
    return failures != 0 || distinct == 0 || (KILLS && deaths == 0);
}
