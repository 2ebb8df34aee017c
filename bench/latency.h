/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_BENCH_LATENCY_H
#define SM_BENCH_LATENCY_H

/*
 * A port that swallows packets and tells how long after their time each of them came: of a generator with a rate, after
 * the moment at which it was due. One thread; what opened it may read and clear `latencies` at any time.
 */

#include "ports/port.h"
#include "service.h"
#include "switch/histogram.h"

struct latency_port {
    struct sm_port port;
    struct histogram latencies; /* ns */
};

/* Like `model` in all but where packets go. NULL: no memory. Closed by its operations, as any port. */
struct latency_port *latency_open(const struct sm_port *model);

/* The port that the service's packets leave by from now on; the service closes it. NULL: no memory. */
struct latency_port *latency_output(struct service *service);

/* The latencies from here on. */
void latency_begin(struct latency_port *port);

/* A quantile of them, us. */
double latency_us(const struct latency_port *port, double share);

#endif
