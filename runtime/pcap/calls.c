/* SPDX-License-Identifier: BSD-2-Clause */

/* What a handle answers beside packets: mostly libpcap's own answer, for the handle inside ours. */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pcap/handle.h"

static pcap_t *inner(pcap_t *p)
{
    struct handle *handle = handle_of(p);

    return handle ? handle->inner : p;
}

#define PASSED_ON(type, name)                                                                                          \
    EXPORT type name(pcap_t *p)                                                                                        \
    {                                                                                                                  \
        return REAL(name)(inner(p));                                                                                   \
    }
#define PASSED_ON_WITH(type, name, argument)                                                                           \
    EXPORT type name(pcap_t *p, argument value)                                                                        \
    {                                                                                                                  \
        return REAL(name)(inner(p), value);                                                                            \
    }

PASSED_ON(int, pcap_bufsize)
PASSED_ON(int, pcap_datalink)
PASSED_ON(int, pcap_datalink_ext)
PASSED_ON(FILE *, pcap_file)
PASSED_ON(int, pcap_get_tstamp_precision)
PASSED_ON(char *, pcap_geterr)
PASSED_ON(int, pcap_is_swapped)
PASSED_ON(int, pcap_major_version)
PASSED_ON(int, pcap_minor_version)
PASSED_ON(int, pcap_snapshot)
PASSED_ON_WITH(int, pcap_list_datalinks, int **)
PASSED_ON_WITH(int, pcap_list_tstamp_types, int **)
PASSED_ON_WITH(void, pcap_perror, const char *)
PASSED_ON_WITH(int, pcap_set_buffer_size, int)
PASSED_ON_WITH(int, pcap_set_datalink, int)
PASSED_ON_WITH(int, pcap_set_promisc, int)
PASSED_ON_WITH(int, pcap_set_protocol_linux, int)
PASSED_ON_WITH(int, pcap_set_rfmon, int)
PASSED_ON_WITH(int, pcap_set_tstamp_type, int)
PASSED_ON_WITH(pcap_dumper_t *, pcap_dump_open, const char *)
PASSED_ON_WITH(pcap_dumper_t *, pcap_dump_open_append, const char *)
PASSED_ON_WITH(pcap_dumper_t *, pcap_dump_fopen, FILE *)

EXPORT int pcap_compile(pcap_t *p, struct bpf_program *program, const char *text, int optimize, bpf_u_int32 netmask)
{
    return REAL(pcap_compile)(inner(p), program, text, optimize, netmask);
}

EXPORT int pcap_can_set_rfmon(pcap_t *p)
{
    return handle_of(p) ? 0 : REAL(pcap_can_set_rfmon)(p);
}

/* What no expression compiles to. */
static bool lets_all_through(const struct bpf_program *program)
{
    return program->bf_insns[0].code == (BPF_RET | BPF_K) && program->bf_insns[0].k > 0;
}

EXPORT int pcap_setfilter(pcap_t *p, struct bpf_program *program)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_setfilter)(p, program);
    int result = handle_activated(handle);
    if (result)
        return result;
    if (!program)
        return handle_fail(handle, PCAP_ERROR, "setfilter: No filter specified");
    if (!REAL(bpf_validate)(program->bf_insns, (int)program->bf_len))
        return handle_fail(handle, PCAP_ERROR, "BPF program is not valid");
    if (lets_all_through(program)) {
        free(handle->filter.bf_insns);
        handle->filter = (struct bpf_program){0};
        return 0;
    }
    struct bpf_insn *copy = calloc(program->bf_len, sizeof *copy);
    if (!copy)
        return handle_fail(handle, PCAP_ERROR, "malloc: %s", strerror(errno));
    memcpy(copy, program->bf_insns, program->bf_len * sizeof *copy);
    free(handle->filter.bf_insns);
    handle->filter = (struct bpf_program){.bf_len = program->bf_len, .bf_insns = copy};
    return 0;
}

/* Every packet of a service has come in; none is our host's own. */
EXPORT int pcap_setdirection(pcap_t *p, pcap_direction_t direction)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_setdirection)(p, direction);
    int result = handle_activated(handle);
    if (result || direction == PCAP_D_INOUT || direction == PCAP_D_IN)
        return result;
    return handle_fail(handle, PCAP_ERROR, "a service's packets have no direction but in");
}

/*
 * Received: the packets of this replica that the filter let through. Nothing that was given to a replica is dropped;
 * what the service had no room for, before it was anybody's, counts as dropped by the interface.
 */
EXPORT int pcap_stats(pcap_t *p, struct pcap_stat *stats)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_stats)(p, stats);
    int result = handle_activated(handle);
    if (result == 0) {
        *stats = (struct pcap_stat){.ps_recv = (u_int)handle->received,
                                    .ps_ifdrop = (u_int)(source_lost(handle->source) - handle->lost)};
    }
    return result;
}

EXPORT int pcap_setnonblock(pcap_t *p, int nonblocking, char *errbuf)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_setnonblock)(p, nonblocking, errbuf);
    handle->nonblocking = nonblocking != 0;
    return 0;
}

EXPORT int pcap_getnonblock(pcap_t *p, char *errbuf)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_getnonblock)(p, errbuf);
    int result = handle_activated(handle);
    if (result)
        snprintf(errbuf, PCAP_ERRBUF_SIZE, "%s", pcap_geterr(p));
    return result ? result : handle->nonblocking;
}

EXPORT int pcap_get_selectable_fd(pcap_t *p)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_get_selectable_fd)(p);
    if (!handle->source)
        return PCAP_ERROR;
    if (!handle->watched)
        source_wake(handle->source);
    handle->watched = handle->readable = true;
    return source_fd(handle->source);
}

EXPORT int pcap_fileno(pcap_t *p)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_fileno)(p);
    return handle->source ? pcap_get_selectable_fd(p) : PCAP_ERROR;
}

EXPORT const struct timeval *pcap_get_required_select_timeout(pcap_t *p)
{
    return handle_of(p) ? NULL : REAL(pcap_get_required_select_timeout)(p);
}

EXPORT int pcap_inject(pcap_t *p, const void *data, size_t length)
{
    struct handle *handle = handle_of(p);

    if (!handle)
        return REAL(pcap_inject)(p, data, length);
    int result = handle_activated(handle);
    if (result)
        return result;
    if (!source_inline(handle->source))
        return handle_fail(handle, PCAP_ERROR, "send: the service is a tap, it has no way out");
    result = source_send(handle->source, data, length);
    if (result == SM_E_STATE)
        return handle_fail(handle, PCAP_ERROR, "send: only while a packet is in hand, which it is sent behind");
    if (result == SM_E_LIMIT)
        return handle_fail(handle, PCAP_ERROR, "send: at most two packets of %d bytes for each that came in",
                           SM_MAX_SEND_BYTES);
    return result ? handle_fail(handle, PCAP_ERROR, "send: %s", sm_strerror(result)) : (int)length;
}

EXPORT int pcap_sendpacket(pcap_t *p, const u_char *data, int length)
{
    if (!handle_of(p))
        return REAL(pcap_sendpacket)(p, data, length);
    return pcap_inject(p, data, (size_t)length) == PCAP_ERROR ? PCAP_ERROR : 0; /* as libpcap does */
}
