/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_LOAD_H
#define SM_BENCH_LOAD_H

/*
 * Live traffic for the scaling experiments: so many flows at any time, each ended by its length and replaced by a new
 * one, sending in turns at a rate that rises. Each packet carries when it was due, so what waits before it enters
 * counts as latency too. New flows get keys in a range of shards that may be changed.
 *
 * A load is two ports: what it makes enters by one, and leaves by the other, which tells how late it was. Like an
 * interface it does not wait; but a packet that was due long ago is still sent. One thread.
 */

#include "ports/port.h"
#include "state/state.h"
#include "switch/histogram.h"

#define LOAD_BIN_NS 10000000u
#define LOAD_BINS 4096u

struct load_options {
    const struct state *state; /* whose hash decides on shards */
    uint32_t flows;
    double rate_from, rate_to; /* packets a second: rising over the first `rise` seconds, then steady */
    double rise;
    uint64_t seed;
};

struct load {
    struct load_options options;
    struct load_flow *flows;
    uint32_t next;
    uint32_t first_shard, last_shard; /* of new flows */
    uint64_t random, begin, due;      /* ns */
    uint64_t sent, received;
    uint64_t counting_from;    /* packets due before are not counted; UINT64_MAX: none is */
    struct histogram late;     /* ns of those that are counted */
    uint64_t worst[LOAD_BINS]; /* ns, of all, by when they left */
    bool stopped;
};

/* 0, or SM_E_NO_MEMORY. Flows begin in the lower half of the shards. */
int load_open(struct load *load, const struct load_options *options);
void load_free(struct load *load);

/* A port for packets to enter; for them to leave. The switch closes them, the load stays. SM_E_NO_MEMORY. */
int load_in(struct load *load, struct sm_port **port);
int load_out(struct load *load, struct sm_port **port);

#endif
