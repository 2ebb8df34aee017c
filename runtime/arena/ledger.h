/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_ARENA_LEDGER_H
#define SM_ARENA_LEDGER_H

/*
 * What a switch knows that must outlive it, in the arena: where its input is, what it has counted, what time it is.
 *
 * Life-cycle.  Written by the switch's worker once a turn, before what the turn has put in rings becomes visible; read
 * by the next switch, once the kernel has reported that the one before has gone, and its replicas.
 *
 * A turn is cut anywhere. `position` is therefore set ahead when a turn begins to read: no packet is read twice. What
 * went in is stored before what came out, so that a cut between the two looks like packets under way, never like ones
 * that came out of nothing.
 */

#include <splitmerge/types.h>
#include <stdatomic.h>

#define LEDGER_DROPS (16 + SM_MAX_REASONS)

/* By the switch's own names. What went in first. */
#define LEDGER_WORDS(X)                                                                                                \
    X(entered)                                                                                                         \
    X(generated)                                                                                                       \
    X(out)                                                                                                             \
    X(clock)                                                                                                           \
    X(first_time)                                                                                                      \
    X(start_wall)                                                                                                      \
    X(start_time)                                                                                                      \
    X(gate_packet)                                                                                                     \
    X(gate_time)                                                                                                       \
    X(deaths)                                                                                                          \
    X(taken_over)                                                                                                      \
    X(condemned)                                                                                                       \
    X(held_packets)                                                                                                    \
    X(moves_started)                                                                                                   \
    X(moves_completed)                                                                                                 \
    X(moves_abandoned)                                                                                                 \
    X(moves_copied)                                                                                                    \
    X(flows_moved)                                                                                                     \
    X(in_flight_max)                                                                                                   \
    X(replicas_in_flight_max)                                                                                          \
    X(owner_violations)                                                                                                \
    X(switch_deaths)                                                                                                   \
    X(state)                                                                                                           \
    X(input_cut)

struct ledger {
    _Atomic uint64_t position; /* packets read from the input; those of the turn under way, at most */
#define LEDGER_WORD(name) _Atomic uint64_t name;
    LEDGER_WORDS(LEDGER_WORD)
#undef LEDGER_WORD
    _Atomic uint64_t dropped[LEDGER_DROPS];
};

#endif
