/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef P0F_NOTE_H
#define P0F_NOTE_H

/*
 * What leaves the service of flows: lines of p0f's log, and notes for hosts. Each is a UDP packet that a host seems to
 * have sent to itself, so that all notes for a host have the host's key. Notes are read by a program of the same build.
 */

#include <splitmerge/splitmerge.h>

#include "scratch.h"

#include "process.h"

#define NOTE_LINES 5100u /* bytes of lines that a packet gives rise to, at most; what is longer is cut */
#define NOTE_SENDS 4u    /* three with lines, and a note */

enum { NOTE_TCP = 1, NOTE_CLOCK = 2, NOTE_HTTP = 4 }; /* calls of the original that look at the host */

struct note {
    uint64_t time; /* of the packet, ns */
    uint8_t calls, to_srv, ip_ver, sendsyn;
    uint16_t cli_port, srv_port, syn_mss;
    uint8_t client[16], server[16];
    struct packet_data packet; /* without addresses, ports, payload */
    /* NOTE_HTTP only: of the signature, what the host's is compared with */
    uint32_t line, date;
    uint8_t dishonest, via;
    char language[4], software[1026];
};

/* Begin to collect lines: those about hosts, or all others. */
void lines_begin(bool about_hosts);

/* Send the lines since then, or a note, behind `cause`; `note` says whose. */
void lines_send(struct sm_replica *replica, struct sm_packet *cause, const struct note *note);
void note_send(struct sm_replica *replica, struct sm_packet *cause, const struct note *note);

/* The note in a packet; false: it has none. The lines in a packet; NULL: none. */
bool note_read(const struct sm_packet *packet, struct note *note);
const char *lines_read(const struct sm_packet *packet, uint32_t *bytes);

/* flows.c: the signature of a request or response is known. hosts.c: what of it concerns the host. */
void note_http(u8 to_srv, const struct packet_flow *f);

/* Read p0f.fp. What is wrong with it the original says, and exits. Standard output is for packets: it stays clean. */
void fingerprints_load(const char *file);

/* The time that the original's functions go by. */
void clock_set(uint64_t ns);

/* Signatures of the fingerprint file by their lines; NULL: none. The original's last step for a request or response. */
struct tcp_sig_record *tcp_signature(u8 to_srv, u32 opt_hash, u32 line);
struct http_sig_record *http_signature(u8 to_srv, u32 line);
void http_apply(u8 to_srv, struct packet_flow *f);

/* The middleboxes, as for sm_options and struct program. */
void flows_packet(struct sm_replica *replica, struct sm_packet *packet, void *user);
int flows_setup(void *user, struct sm_replica *replica);
void hosts_packet(struct sm_replica *replica, struct sm_packet *packet, void *user);
int hosts_setup(void *user, struct sm_replica *replica);

#endif
