/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_DRL_TCP_H
#define SM_BENCH_DRL_TCP_H

/*
 * How much a TCP source has under way: Reno (RFC 5681) and CUBIC (RFC 9438) in packets, without a sequence of bytes:
 * each packet is answered once, by an acknowledgement or by its loss. One loss a window shrinks it. A loss behind which
 * nothing is under way is found by the tail probe (RFC 8985); if that is lost too, by the timer, which backs off.
 */

#include <stdbool.h>
#include <stdint.h>

struct tcp {
    bool cubic;
    uint64_t rtt_ns;
    double window, threshold;
    uint32_t sent, under_way;
    uint32_t recover; /* losses of packets before this one belong to a loss that has been answered */
    bool waits;       /* for its retransmission timer */
    unsigned backoff;
    double most;          /* CUBIC: the window at the last loss */
    uint64_t grows_since; /* CUBIC: and when that was */
};

void tcp_start(struct tcp *tcp, bool cubic, uint64_t rtt_ns);

static inline bool tcp_may_send(const struct tcp *tcp)
{
    return !tcp->waits && tcp->under_way < (uint32_t)tcp->window;
}

/* Its number. */
uint32_t tcp_send(struct tcp *tcp);

void tcp_acknowledged(struct tcp *tcp, uint64_t now);

/* Returns after how long to call tcp_timeout(); 0: not at all. */
uint64_t tcp_lost(struct tcp *tcp, uint32_t number, uint64_t now);
void tcp_timeout(struct tcp *tcp);

#endif
