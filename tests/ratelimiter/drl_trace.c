/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What limiters do under random demand, as text that drl_model.py follows with a model of its own.
 *
 * usage: drl_trace MODE SEED. First `options LIMITERS RATE BURST`, then one line an event, times in ns:
 *   packet WHO NOW FLOW BYTES CONFORMS
 *   interval WHO NOW SECONDS ALLOWED DROP
 *   send FROM SEQUENCE TO KIND VALUE VALUE VALUE
 *   receive TO NOW FROM SEQUENCE
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drl/internal.h"
#include "testing/random.h"

#define LIMITERS 4u
#define FLOWS 6u
#define RATE 2000000.0
#define BURST 60000.0
#define INTERVAL_NS 50000000ull
#define INTERVALS 400u
#define MAIL 256u

struct letter {
    uint64_t due;
    uint32_t to;
    struct drl_update update;
};

static struct drl *limiters[LIMITERS];
static struct letter mail[MAIL];
static unsigned letters;
static uint64_t random_state;

static double chance(void)
{
    return random_unit(random_linear(&random_state));
}

static void post(uint64_t now, uint32_t to, const struct drl_update *update)
{
    printf("send %u %u %u %u %.17g %.17g %.17g\n", update->from, update->sequence, to, update->kind, update->value[0],
           update->value[1], update->value[2]);
    if (letters < MAIL && chance() >= 0.1)
        mail[letters++] = (struct letter){now + (uint64_t)(chance() * 80e6), to, *update};
}

static void deliver(uint64_t now)
{
    for (unsigned i = 0; i < letters;) {
        struct letter letter = mail[i];
        struct drl_update reply;
        unsigned replies;
        if (letter.due > now) {
            i++;
            continue;
        }
        mail[i] = mail[--letters];
        if (drl_receive(limiters[letter.to], now, &letter.update, &reply, &replies))
            printf("receive %u %" PRIu64 " %u %u\n", letter.to, now, letter.update.from, letter.update.sequence);
        if (replies > 0)
            post(now, letter.update.from, &reply);
    }
}

static void interval(uint32_t who, uint64_t now, uint64_t before)
{
    uint32_t to[DRL_MAX_FANOUT];
    struct drl_update update[DRL_MAX_FANOUT];
    unsigned told = drl_interval(limiters[who], now, to, update);

    printf("interval %u %" PRIu64 " %.17g %.17g %.17g\n", who, now, (double)(now - before) / 1e9, limiters[who]->local,
           limiters[who]->drop);
    for (unsigned i = 0; i < told; i++)
        post(now, to[i], &update[i]);
}

int main(int argc, char **argv)
{
    struct drl_options options = {
        .rate = RATE, .burst = BURST, .interval_ns = INTERVAL_NS, .limiters = LIMITERS, .fanout = LIMITERS, .seed = 1};
    double rate[LIMITERS] = {0};
    uint64_t last[LIMITERS] = {0};

    if (argc != 3)
        return 2;
    for (unsigned mode = 0; mode < DRL_MODES; mode++)
        if (strcmp(argv[1], drl_mode_names[mode]) == 0)
            options.mode = mode;
    random_state = strtoull(argv[2], NULL, 0);
    for (options.self = 0; options.self < LIMITERS; options.self++)
        limiters[options.self] = drl_create(&options, 0);
    printf("options %u %.17g %.17g\n", LIMITERS, RATE, BURST);
    for (unsigned tick = 0; tick < INTERVALS; tick++) {
        for (unsigned who = 0; who < LIMITERS; who++)
            if (chance() < 0.02)
                rate[who] = chance() < 0.3 ? 0 : RATE * chance();
        for (unsigned ms = 1; ms <= 50; ms++) {
            uint64_t now = tick * INTERVAL_NS + ms * 1000000ull;
            deliver(now);
            for (unsigned who = 0; who < LIMITERS; who++) {
                for (double bytes = rate[who] / 1000; chance() < bytes / 1000; bytes -= 1000) {
                    uint64_t flow = 1 + (uint64_t)(chance() * chance() * FLOWS);
                    uint32_t size = 60 + (uint32_t)(chance() * 1440);
                    bool conforms = drl_packet(limiters[who], now, flow, size);
                    printf("packet %u %" PRIu64 " %" PRIu64 " %u %d\n", who, now, flow, size, conforms);
                }
                if (ms == 10 * (who + 1)) {
                    interval(who, now, last[who]);
                    last[who] = now;
                }
            }
        }
    }
    for (unsigned who = 0; who < LIMITERS; who++)
        drl_destroy(limiters[who]);
    return 0;
}
