/* SPDX-License-Identifier: BSD-2-Clause */
#include "switch/drivers.h"

#include "arena/core.h"
#include "arena/huge.h"
#include "ports/threads.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

_Static_assert(SM_PORT_POOL_OFFSET == POOL_DATA_OFFSET, "the kernel puts a packet where the pool has it");

#ifndef SM_XDP
int sm_port_open_xdp(struct sm_port **ports, unsigned count, const char *interface, enum sm_xdp_mode mode,
                     const struct sm_port_pool *pool, struct sm_errbuf *error)
{
    (void)ports;
    (void)count;
    (void)mode;
    (void)pool;
    snprintf(error->text, sizeof error->text, "%s: this build has no AF_XDP (libxdp was missing)", interface);
    return SM_E_IO;
}

int sm_port_open_threads(struct sm_port **port, struct sm_port *const *engines, unsigned count,
                         const struct sm_port_pool *pool, void (*begin)(void), struct sm_errbuf *error)
{
    (void)port;
    (void)engines;
    (void)count;
    (void)pool;
    (void)begin;
    (void)error;
    return SM_E_IO; /* there were none */
}
#endif

_Static_assert(SERVICE_MAX_THREADS == SM_PORT_THREADS_MAX, "as many as there may be");

/* Only a loop of two interfaces takes packets from the host and gives them on. */
static bool forwards(const struct switch_options *options)
{
    return options->in->is_interface && options->out && options->out->is_interface;
}

/* Link-local addresses come by themselves. */
static bool has_address(const char *interface)
{
    struct ifaddrs *all, *at;
    bool found = false;

    if (getifaddrs(&all) != 0)
        return true;
    for (at = all; at && !found; at = at->ifa_next) {
        if (strcmp(at->ifa_name, interface) != 0 || !at->ifa_addr)
            continue;
        found = at->ifa_addr->sa_family == AF_INET ||
                (at->ifa_addr->sa_family == AF_INET6 &&
                 !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr));
    }
    freeifaddrs(all);
    return found;
}

static bool is_contiguous(int arena_fd)
{
    struct statfs status;

    return fstatfs(arena_fd, &status) == 0 && (uint64_t)status.f_bsize >= HUGE_PAGE;
}

static int take_xdp(struct sm_port **port, enum sm_xdp_mode mode, unsigned threads, const struct arena *arena,
                    int arena_fd, struct sm_errbuf *error)
{
    const struct sm_port_pool pool = {.memory = arena->pool.small,
                                      .count = arena->pool.small_count,
                                      .stride = POOL_SMALL_BYTES,
                                      .contiguous = is_contiguous(arena_fd)};
    struct sm_port *engines[SM_PORT_THREADS_MAX], *fast;
    struct sm_errbuf ignored;
    int result = sm_port_open_xdp(engines, threads > 0 ? threads : 1, (*port)->name, mode, &pool, error);

    fast = engines[0];
    if (result == 0 && threads > 0)
        result = sm_port_open_threads(&fast, engines, threads, &pool, core_share, error);
    if (result)
        return result;
    (*port)->ops->close(*port, false, &ignored);
    *port = fast;
    return 0;
}

/* Native only: what a generic program would lose, the portable path keeps. */
static void take_best(struct sm_port **port, const struct switch_options *options, const struct arena *arena,
                      int arena_fd)
{
    struct sm_errbuf why = {""};

    if (!forwards(options))
        snprintf(why.text, sizeof why.text, "AF_XDP takes packets from this host, and this service sends none on");
    else if (has_address((*port)->name))
        snprintf(why.text, sizeof why.text, "AF_XDP takes packets from this host, and it has an address there");
    else if (take_xdp(port, SM_XDP_NATIVE, 0, arena, arena_fd, &why) == 0)
        return;
    (*port)->why = why;
}

static int choose(struct sm_port **port, enum service_driver driver, unsigned threads,
                  const struct switch_options *options, const struct arena *arena, int arena_fd,
                  struct sm_errbuf *error)
{
    static const enum sm_xdp_mode modes[] = {[SERVICE_DRIVER_XDP] = SM_XDP_BEST,
                                             [SERVICE_DRIVER_XDP_NATIVE] = SM_XDP_NATIVE,
                                             [SERVICE_DRIVER_XDP_GENERIC] = SM_XDP_GENERIC};
    int result = 0;

    if (driver == SERVICE_DRIVER_AUTO)
        take_best(port, options, arena, arena_fd);
    else if (driver != SERVICE_DRIVER_PCAP)
        result = take_xdp(port, modes[driver], threads, arena, arena_fd, error);
    return result;
}

/* Whether a port may come to be one of AF_XDP. */
static bool may_be_xdp(enum service_port_kind kind, enum service_driver driver, const struct switch_options *options)
{
    return kind == SERVICE_PORT_INTERFACE &&
           (driver >= SERVICE_DRIVER_XDP || (driver == SERVICE_DRIVER_AUTO && forwards(options)));
}

uint32_t drivers_buffers(const struct service *service, const struct switch_options *options)
{
    return SM_PORT_POOL_STOCK * ((unsigned)may_be_xdp(service->in.kind, service->in.driver, options) +
                                 (unsigned)may_be_xdp(service->out.kind, service->out.driver, options)) +
           SM_PORT_THREAD_BUFFERS * (service->in.threads + service->out.threads);
}

int drivers_choose(const struct service *service, struct switch_options *options, const struct arena *arena,
                   int arena_fd, struct sm_errbuf *error)
{
    int result = 0;

    if (service->in.kind == SERVICE_PORT_INTERFACE)
        result = choose(&options->in, service->in.driver, service->in.threads, options, arena, arena_fd, error);
    if (result == 0 && service->out.kind == SERVICE_PORT_INTERFACE)
        result = choose(&options->out, service->out.driver, service->out.threads, options, arena, arena_fd, error);
    return result;
}
