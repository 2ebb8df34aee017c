/* SPDX-License-Identifier: BSD-2-Clause */
#include "drl/tcp.h"

#include <math.h>

#define INITIAL_WINDOW 10
#define TIMER_LEAST_NS 200000000ull
#define BACKOFF_MOST 6u
#define CUBIC_C 0.4
#define CUBIC_BETA 0.7

void tcp_start(struct tcp *tcp, bool cubic, uint64_t rtt_ns)
{
    *tcp = (struct tcp){.cubic = cubic, .rtt_ns = rtt_ns, .window = INITIAL_WINDOW, .threshold = INFINITY};
}

uint32_t tcp_send(struct tcp *tcp)
{
    tcp->under_way++;
    return tcp->sent++;
}

/* The window that CUBIC aims at one round trip from now; at least what Reno would have. */
static double cubic_target(const struct tcp *tcp, uint64_t now)
{
    double t = (double)(now - tcp->grows_since + tcp->rtt_ns) / 1e9, rtt = (double)tcp->rtt_ns / 1e9;
    double k = cbrt(tcp->most * (1 - CUBIC_BETA) / CUBIC_C);
    double reno = tcp->most * CUBIC_BETA + 3 * (1 - CUBIC_BETA) / (1 + CUBIC_BETA) * (t - rtt) / rtt;

    return fmax(CUBIC_C * pow(t - k, 3) + tcp->most, reno);
}

void tcp_acknowledged(struct tcp *tcp, uint64_t now)
{
    tcp->under_way--;
    tcp->backoff = 0;
    if (tcp->window < tcp->threshold) {
        tcp->window++;
    } else if (tcp->cubic) {
        double target = cubic_target(tcp, now);
        tcp->window += target > tcp->window ? fmin((target - tcp->window) / tcp->window, 0.5) : 0.01 / tcp->window;
    } else {
        tcp->window += 1 / tcp->window;
    }
}

uint64_t tcp_lost(struct tcp *tcp, uint32_t number, uint64_t now)
{
    tcp->under_way--;
    if (tcp->waits || (int32_t)(number - tcp->recover) < 0)
        return 0;
    tcp->recover = tcp->sent;
    tcp->most = tcp->window;
    tcp->grows_since = now;
    tcp->window = tcp->threshold = fmax(tcp->window * (tcp->cubic ? CUBIC_BETA : 0.5), 2);
    if (tcp->under_way > 0)
        return 0;
    tcp->waits = true;
    if (tcp->backoff == 0)
        return 2 * tcp->rtt_ns;
    return (tcp->rtt_ns > TIMER_LEAST_NS ? tcp->rtt_ns : TIMER_LEAST_NS) << (tcp->backoff - 1);
}

void tcp_timeout(struct tcp *tcp)
{
    tcp->waits = false;
    tcp->window = 1;
    tcp->backoff += tcp->backoff < BACKOFF_MOST;
}
