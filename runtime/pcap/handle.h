/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SM_PCAP_HANDLE_H
#define SM_PCAP_HANDLE_H

/*
 * libsplitmerge-pcap: a libpcap whose devices include `sm:SERVICE`. A program that opens one is a replica of that
 * service, without knowing it.
 *
 * Overview.  The library comes before libpcap, by its place in the link or by LD_PRELOAD, and defines every call that
 * takes a pcap_t, or opens one of a device. What is not a handle of ours goes to libpcap as it came (REAL()). Ours is a
 * struct handle, known by its address in a registry; inside it is a handle of libpcap's that has no packets, which
 * answers whatever needs none: compiling filters, link types, dump files, error texts.
 *
 * Life-cycle.  pcap_create(): `inner` is one of libpcap's not yet activated, which checks what is set. pcap_activate():
 * attached to the switch (source.h), and `inner` is a dead one, of the service's link type. pcap_close(): freed.
 *
 * Concurrency.  A handle is used by one thread at a time, as in libpcap, but for pcap_breakloop(), which any thread and
 * any signal handler may call. The registry is read without a lock.
 *
 * Limits.  HANDLES handles at a time; one of them activated.
 */

#include <dlfcn.h>
#include <pcap/pcap.h>
#include <signal.h>
#include <stdbool.h>

#include "pcap/source.h"

#define HANDLES 16
#define DEVICE_PREFIX "sm:"

#define EXPORT __attribute__((visibility("default")))

/* libpcap's own function of that name. It is there: this library is linked with libpcap. */
#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(&name) real_##name;                                                                          \
        if (!real_##name)                                                                                              \
            real_##name = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                                  \
        real_##name;                                                                                                   \
    })

struct handle {
    pcap_t *inner;
    char service[64];
    struct source *source; /* NULL: not activated */
    int snaplen, timeout_ms;
    bool nanoseconds, nonblocking, immediate;
    bool watched;  /* the program waits for our descriptor itself */
    bool readable; /* that is */
    bool in_hand;  /* the program has a packet of pcap_next_ex() */
    bool told;     /* of the end, by a signal */
    struct bpf_program filter;
    volatile sig_atomic_t broken; /* pcap_breakloop() */
    int break_fd;
    uint64_t received, lost;   /* lost: what the service had dropped when the handle was activated */
    struct pcap_pkthdr header; /* of the packet that pcap_next_ex() gave */
};

/* The handle behind `p`; NULL: it is libpcap's. Async-signal-safe. */
struct handle *handle_of(const pcap_t *p);

/* Enter a new one in the registry. False: there are HANDLES of them. */
bool handle_enter(struct handle *handle);
void handle_leave(struct handle *handle);

/* Whether a device is one of ours; *service is what follows the prefix. */
bool handle_device(const char *device, const char **service);

/* Set the handle's error text; returns `code`. */
int handle_fail(struct handle *handle, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* 0, or the error of a call that needs an activated handle. */
int handle_activated(struct handle *handle);

#endif
