/* SPDX-License-Identifier: BSD-2-Clause */
#include "latency.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ports/internal.h"

static int measure(struct sm_port *port, const struct sm_frame *frame)
{
    struct latency_port *self = (struct latency_port *)(void *)port;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, then = sm_frame_time(port, frame).ns;
    histogram_add(&self->latencies, ns > then ? ns - then : 0);
    return 0;
}

struct latency_port *latency_open(const struct sm_port *model)
{
    static const struct sm_port_ops ops = {
        .send = measure, .flush = sm_port_flush_nothing, .fd = sm_port_fd_none, .close = sm_port_close_plain};
    struct latency_port *self = calloc(1, sizeof *self);

    if (!self)
        return NULL;
    self->port = *model;
    self->port.ops = &ops;
    return self;
}

struct latency_port *latency_output(struct service *service)
{
    struct sm_port *old = service->sw->ports[1];
    struct latency_port *self = latency_open(old);
    struct sm_errbuf ignored;

    if (!self)
        return NULL;
    service->sw->ports[1] = &self->port;
    old->ops->close(old, true, &ignored);
    return self;
}

void latency_begin(struct latency_port *port)
{
    memset(&port->latencies, 0, sizeof port->latencies);
}

double latency_us(const struct latency_port *port, double share)
{
    return (double)histogram_quantile(&port->latencies, share) / 1e3;
}
