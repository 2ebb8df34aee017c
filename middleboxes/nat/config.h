/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef NAT_CONFIG_H
#define NAT_CONFIG_H

/* The configuration file: who is inside, by which addresses and ports they are seen outside, and for how long. */

#include <splitmerge/types.h>

#include "conf/conf.h"

#define NAT_MAX_ADDRESSES 64

struct nat_config {
    uint32_t inside, mask; /* IPv4 prefix, host byte order */
    uint8_t outside[NAT_MAX_ADDRESSES][4];
    unsigned outside_count;
    uint16_t first_port, last_port;
    /* Idle times, ns: TCP connections that are open; that are being opened or have been closed; UDP; ICMP echo. */
    uint64_t tcp_ns, transitory_ns, udp_ns, icmp_ns;
    bool ftp; /* translate what FTP clients say of their data connections */
};

/*
 * Read a configuration. NULL: *error has one line, "FILE:LINE: KEY: expected ...". nat_config_parse() reads from
 * memory, `name` standing for the file. The caller frees with free().
 */
struct nat_config *nat_config_load(const char *file, struct sm_errbuf *error);
struct nat_config *nat_config_parse(const char *name, const char *text, size_t length, struct sm_errbuf *error);

#endif
