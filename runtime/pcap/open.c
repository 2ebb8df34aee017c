/* SPDX-License-Identifier: BSD-2-Clause */

/* Handles are made, set, activated and closed. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pcap/handle.h"

#define SNAPLEN_MOST 262144 /* what libpcap makes of a length that cannot be */

static void discard(struct handle *handle)
{
    if (handle->inner)
        REAL(pcap_close)(handle->inner);
    if (handle->break_fd >= 0)
        close(handle->break_fd);
    free(handle->filter.bf_insns);
    free(handle);
}

EXPORT pcap_t *pcap_create(const char *device, char *errbuf)
{
    const char *service;
    struct handle *handle;

    if (!handle_device(device, &service))
        return REAL(pcap_create)(device, errbuf);
    if (!(handle = calloc(1, sizeof *handle))) {
        snprintf(errbuf, PCAP_ERRBUF_SIZE, "malloc: out of memory");
        return NULL;
    }
    handle->snaplen = SNAPLEN_MOST;
    snprintf(handle->service, sizeof handle->service, "%s", service);
    handle->break_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    handle->inner = REAL(pcap_create)(device, errbuf);
    if (!handle->inner || handle->break_fd < 0 || !handle_enter(handle)) {
        if (handle->inner)
            snprintf(errbuf, PCAP_ERRBUF_SIZE, "%.100s: at most %d handles, and a descriptor each", device, HANDLES);
        discard(handle);
        return NULL;
    }
    return (pcap_t *)handle;
}

static int pcap_code(int result)
{
    switch (result) {
    case SM_E_NOT_FOUND:
        return PCAP_ERROR_NO_SUCH_DEVICE;
    case SM_E_PERMISSION:
        return PCAP_ERROR_PERM_DENIED;
    default:
        return PCAP_ERROR;
    }
}

EXPORT int pcap_activate(pcap_t *p)
{
    struct handle *handle = handle_of(p);
    struct sm_errbuf error;
    struct source *source;

    if (!handle || handle->source)
        return REAL(pcap_activate)(handle ? handle->inner : p);
    int result = source_open(&source, handle->service, &error);
    if (result)
        return handle_fail(handle, pcap_code(result), DEVICE_PREFIX "%s: %.170s", handle->service, error.text);
    if (handle->snaplen <= 0 || handle->snaplen > SNAPLEN_MOST)
        handle->snaplen = SNAPLEN_MOST;
    pcap_t *dead = REAL(pcap_open_dead_with_tstamp_precision)(source_linktype(source), handle->snaplen,
                                                              handle->nanoseconds ? PCAP_TSTAMP_PRECISION_NANO
                                                                                  : PCAP_TSTAMP_PRECISION_MICRO);
    if (!dead) {
        source_close(source);
        return handle_fail(handle, PCAP_ERROR, "malloc: out of memory");
    }
    REAL(pcap_close)(handle->inner);
    handle->inner = dead;
    handle->source = source;
    handle->lost = source_lost(source);
    return 0;
}

EXPORT pcap_t *pcap_open_live(const char *device, int snaplen, int promisc, int to_ms, char *errbuf)
{
    const char *service;

    if (!handle_device(device, &service))
        return REAL(pcap_open_live)(device, snaplen, promisc, to_ms, errbuf);
    pcap_t *p = pcap_create(device, errbuf);
    if (!p)
        return NULL;
    int result = pcap_set_snaplen(p, snaplen);
    if (result == 0)
        result = pcap_set_promisc(p, promisc);
    if (result == 0)
        result = pcap_set_timeout(p, to_ms);
    if (result == 0)
        result = pcap_activate(p);
    if (result == 0)
        return p;
    snprintf(errbuf, PCAP_ERRBUF_SIZE, "%.*s", PCAP_ERRBUF_SIZE - 1, pcap_geterr(p));
    pcap_close(p);
    return NULL;
}

EXPORT void pcap_close(pcap_t *p)
{
    struct handle *handle = handle_of(p);

    if (!handle) {
        REAL(pcap_close)(p);
        return;
    }
    handle_leave(handle);
    if (handle->source)
        source_close(handle->source);
    discard(handle);
}

/* libpcap checks; what we go by is noted. */

EXPORT int pcap_set_snaplen(pcap_t *p, int snaplen)
{
    struct handle *handle = handle_of(p);
    int result = REAL(pcap_set_snaplen)(handle ? handle->inner : p, snaplen);

    if (handle && result == 0)
        handle->snaplen = snaplen;
    return result;
}

EXPORT int pcap_set_timeout(pcap_t *p, int to_ms)
{
    struct handle *handle = handle_of(p);
    int result = REAL(pcap_set_timeout)(handle ? handle->inner : p, to_ms);

    if (handle && result == 0)
        handle->timeout_ms = to_ms;
    return result;
}

EXPORT int pcap_set_tstamp_precision(pcap_t *p, int precision)
{
    struct handle *handle = handle_of(p);
    int result = REAL(pcap_set_tstamp_precision)(handle ? handle->inner : p, precision);

    if (handle && result == 0)
        handle->nanoseconds = precision == PCAP_TSTAMP_PRECISION_NANO;
    return result;
}

EXPORT int pcap_set_immediate_mode(pcap_t *p, int immediate)
{
    struct handle *handle = handle_of(p);
    int result = REAL(pcap_set_immediate_mode)(handle ? handle->inner : p, immediate);

    if (handle && result == 0)
        handle->immediate = immediate != 0;
    return result;
}
